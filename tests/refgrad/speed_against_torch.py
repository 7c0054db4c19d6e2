"""The time of refgrad over that of torch eager, on the CPU with one thread, workload by workload.

    OMP_NUM_THREADS=1 python -m tests.refgrad.speed_against_torch [-k WORD] [--seconds N]

Both engines take turns within one process, in random order, and a ratio is the median over paired
rounds with its quartiles: the same code timed in separate sessions differs by more than what is
looked for. Gradients are compared first; a wrong one is not timed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import refgrad
from refgrad import nn as refgrad_nn

Make = Callable[[Any, Any], Callable[[], Any]]


@dataclass(frozen=True)
class Workload:
    """What is timed: `run(m, f, leaves)`, with an engine as `m`, gives what goes backward."""

    name: str
    run: Callable[[Any, Any, list[Any]], Any]
    shapes: tuple[Any, ...]  # of the leaves; an array stands for itself and needs no gradient
    dtype: Any = np.float32
    create_graph: bool = False


def chain(m: Any, f: Any, leaves: list[Any]) -> Any:
    x, w = leaves
    y = x
    for _ in range(200):
        y = m.exp(m.neg(m.add(m.mul(m.sin(y), w), x)))
    return y


def fan(m: Any, f: Any, leaves: list[Any]) -> Any:
    x = leaves[0]
    total = x
    for i in range(500):
        total = total + x * (i + 1.0)
    return total


def product(m: Any, f: Any, leaves: list[Any]) -> Any:
    a, b, c = leaves
    return a * b * c


def curve(m: Any, f: Any, leaves: list[Any]) -> Any:
    x = leaves[0]
    return m.tanh(m.exp(-(x * x)) * 0.5 + m.sin(x))


def mlp(m: Any, f: Any, leaves: list[Any]) -> Any:
    x, *parameters = leaves
    while len(parameters) > 2:
        x = f.relu(f.linear(x, *parameters[:2]))
        parameters = parameters[2:]
    return f.linear(x, *parameters)


def layers(n: int, *widths: int) -> tuple[Any, ...]:
    made: list[Any] = [np.random.default_rng(0).normal(size=(n, widths[0]))]
    for i, o in itertools.pairwise(widths):
        made += [(o, i), (o,)]
    return tuple(made)


def block(m: Any, f: Any, leaves: list[Any]) -> Any:
    """GPT-2's block: 4 heads, causal."""
    x, g1, b1, w_qkv, b_qkv, w_o, b_o, g2, b2, w_up, b_up, w_down, b_down = leaves
    n, t, d = x.shape
    h = f.layer_norm(x, (d,), g1, b1)
    h = m.addmm(b_qkv, h.view(-1, d), w_qkv).view(n, t, 3 * d)
    q, k, v = (p.view(n, t, 4, d // 4).transpose(1, 2) for p in h.split(d, 2))
    h = f.scaled_dot_product_attention(q, k, v, is_causal=True)
    h = h.transpose(1, 2).contiguous().view(n, t, d)
    x = x + m.addmm(b_o, h.view(-1, d), w_o).view(n, t, d)
    h = f.layer_norm(x, (d,), g2, b2)
    h = m.addmm(b_up, h.view(-1, d), w_up).view(n, t, 4 * d)
    h = 0.5 * h * (1.0 + m.tanh(0.7978845608028654 * (h + 0.044715 * m.pow(h, 3.0))))
    return x + m.addmm(b_down, h.view(-1, 4 * d), w_down).view(n, t, d)


def block_shapes(n: int, t: int, d: int) -> tuple[Any, ...]:
    return (
        (n, t, d), (d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,),
        (4 * d, d), (d,),
    )  # fmt: skip


def lstm(m: Any, f: Any, leaves: list[Any]) -> Any:
    x, h, c, w, u, b = leaves
    for step in x.unbind(0):
        gates = f.linear(step, w, b) + f.linear(h, u)
        i, g, o, r = gates.chunk(4, 1)
        c = m.sigmoid(r) * c + m.sigmoid(i) * m.tanh(g)
        h = m.sigmoid(o) * m.tanh(c)
    return h


def ints(high: int, *shape: int) -> Any:
    return np.random.default_rng(1).integers(0, high, shape)


WORKLOADS = [
    Workload("chain 1000 nodes of 8", chain, ((8,), (8,)), np.float64),
    Workload("fan 500 of 8", fan, ((8,),), np.float64),
    Workload("chain create_graph", chain, ((8,), (8,)), np.float64, True),
    Workload("fan create_graph", fan, ((8,),), np.float64, True),
    Workload("seed product", product, ((), (), ()), np.float64),
    Workload("elementwise 1e3", curve, ((1000,),)),
    Workload("elementwise 1e6", curve, ((1000000,),)),
    Workload("relu 1e6", lambda m, f, v: f.relu(v[0]), ((1000000,),)),
    Workload("exp tanh 1e6 float64", lambda m, f, v: m.tanh(m.exp(v[0])), ((1000000,),),
             np.float64),
    Workload("tanh 1e6", lambda m, f, v: m.tanh(v[0]), ((1000000,),)),
    Workload("sigmoid 1e6", lambda m, f, v: m.sigmoid(v[0]), ((1000000,),)),
    Workload("gelu 1e6", lambda m, f, v: f.gelu(v[0]), ((1000000,),)),
    Workload("mul add 1e6", lambda m, f, v: v[0] * v[1] + v[0], ((1000000,), (1000000,))),
    Workload("pow 3 1e6", lambda m, f, v: v[0] ** 3, ((1000000,),)),
    Workload("matmul 32", lambda m, f, v: v[0] @ v[1], ((32, 32), (32, 32))),
    Workload("matmul 512", lambda m, f, v: v[0] @ v[1], ((512, 512), (512, 512))),
    Workload("bmm 16x64", lambda m, f, v: m.bmm(v[0], v[1]), ((16, 64, 64), (16, 64, 64))),
    Workload("mlp 8 rows", mlp, layers(8, 32, 64, 10)),
    Workload("mlp 256 rows", mlp, layers(256, 784, 512, 256, 10)),
    Workload("softmax 8x16", lambda m, f, v: f.softmax(v[0], -1), ((8, 16),)),
    Workload("softmax 1000x1000", lambda m, f, v: f.softmax(v[0], -1), ((1000, 1000),)),
    Workload("log_softmax 8x16", lambda m, f, v: f.log_softmax(v[0], -1), ((8, 16),)),
    Workload("log_softmax 1000x1000", lambda m, f, v: f.log_softmax(v[0], -1), ((1000, 1000),)),
    Workload("layer_norm 8x32", lambda m, f, v: f.layer_norm(v[0], (32,), v[1], v[2]),
             ((8, 32), (32,), (32,))),
    Workload("layer_norm 2048x512", lambda m, f, v: f.layer_norm(v[0], (512,), v[1], v[2]),
             ((2048, 512), (512,), (512,))),
    Workload("batch_norm 8x16", lambda m, f, v: f.batch_norm(v[0], None, None, v[1], v[2], True),
             ((8, 16), (16,), (16,))),
    Workload("batch_norm 4x8x6x6", lambda m, f, v: f.batch_norm(v[0], None, None, v[1], v[2], True),
             ((4, 8, 6, 6), (8,), (8,))),
    Workload("batch_norm 16x64x32x32",
             lambda m, f, v: f.batch_norm(v[0], None, None, v[1], v[2], True),
             ((16, 64, 32, 32), (64,), (64,))),
    Workload("group_norm 8x32x16x16", lambda m, f, v: f.group_norm(v[0], 4, v[1], v[2]),
             ((8, 32, 16, 16), (32,), (32,))),
    Workload("conv2d 3x3 small", lambda m, f, v: f.conv2d(v[0], v[1], v[2], padding=1),
             ((4, 3, 8, 8), (8, 3, 3, 3), (8,))),
    Workload("conv2d 3x3 8x32x32x32", lambda m, f, v: f.conv2d(v[0], v[1], v[2], padding=1),
             ((8, 32, 32, 32), (32, 32, 3, 3), (32,))),
    Workload("conv2d 1x1", lambda m, f, v: f.conv2d(v[0], v[1], v[2]),
             ((8, 64, 32, 32), (64, 64, 1, 1), (64,))),
    Workload("conv2d 7x7 stride 2", lambda m, f, v: f.conv2d(v[0], v[1], v[2], 2, 3),
             ((2, 3, 112, 112), (32, 3, 7, 7), (32,))),
    Workload("conv2d depthwise", lambda m, f, v: f.conv2d(v[0], v[1], v[2], 1, 1, 1, 64),
             ((8, 64, 32, 32), (64, 1, 3, 3), (64,))),
    Workload("conv1d", lambda m, f, v: f.conv1d(v[0], v[1], v[2], padding=1),
             ((8, 32, 512), (32, 32, 3), (32,))),
    Workload("max_pool2d", lambda m, f, v: f.max_pool2d(v[0], 2), ((8, 32, 32, 32),)),
    Workload("avg_pool2d", lambda m, f, v: f.avg_pool2d(v[0], 2), ((8, 32, 32, 32),)),
    Workload("broadcast sum small", lambda m, f, v: (v[0] + v[1]).sum(0), ((16, 8), (8,))),
    Workload("broadcast sum 1e6", lambda m, f, v: (v[0] * v[1] + v[2]).sum(1),
             ((1000, 1000), (1000,), (1000, 1))),
    Workload("sum mean 1e6", lambda m, f, v: v[0].sum(0) + v[0].mean(1), ((1000, 1000),)),
    Workload("cross_entropy 8x10", lambda m, f, v: f.cross_entropy(v[0], v[1]),
             ((8, 10), ints(10, 8))),
    Workload("cross_entropy 512x2000", lambda m, f, v: f.cross_entropy(v[0], v[1]),
             ((512, 2000), ints(2000, 512))),
    Workload("embedding 8 of 100x16", lambda m, f, v: f.embedding(v[1], v[0]),
             ((100, 16), ints(100, 8))),
    Workload("embedding 4096 of 8000x64", lambda m, f, v: f.embedding(v[1], v[0]),
             ((8000, 64), ints(8000, 4096))),
    Workload("index rows", lambda m, f, v: v[0][v[1]], ((1000, 64), ints(1000, 2000))),
    Workload("gather", lambda m, f, v: m.gather(v[0], 1, v[1]), ((500, 500), ints(500, 500, 400))),
    Workload("scatter_add", lambda m, f, v: m.scatter_add(v[0], 0, v[2], v[1]),
             ((100, 64), (2000, 64), ints(100, 2000, 64))),
    Workload("index_select cols", lambda m, f, v: m.index_select(v[0], 1, v[1]),
             ((500, 500), ints(500, 800))),
    Workload("slices and cat", lambda m, f, v: m.cat([v[0][:, 1:], v[0][:, :-1], v[0][:, ::2]], 1),
             ((64, 64),)),
    Workload("attention small",
             lambda m, f, v: f.scaled_dot_product_attention(*v, is_causal=True),
             ((1, 2, 8, 8),) * 3),
    Workload("attention 4x4x128x64",
             lambda m, f, v: f.scaled_dot_product_attention(*v, is_causal=True),
             ((4, 4, 128, 64),) * 3),
    Workload("lstm 20 steps", lstm, ((20, 8, 16), (8, 32), (8, 32), (128, 16), (128, 32), (128,))),
    Workload("gpt2 block 1x8x32", block, block_shapes(1, 8, 32)),
    Workload("gpt2 block 2x128x256", block, block_shapes(2, 128, 256)),
    Workload("cholesky solve", lambda m, f, v: m.linalg.solve(v[0] @ v[0].mT + 64 * v[1], v[2]),
             ((64, 64), np.eye(64), (64, 8))),
]  # fmt: skip


def leaves_of(workload: Workload, module: Any) -> list[Any]:
    """Its leaves on one engine, the same on each."""
    rng = np.random.default_rng(0)
    made = []
    for spec in workload.shapes:
        if isinstance(spec, tuple):
            values = np.asarray(rng.normal(size=spec) * 0.5, dtype=workload.dtype)
            made.append(module.from_numpy(values.copy()).requires_grad_())
        else:
            array = spec if spec.dtype.kind == "i" else spec.astype(workload.dtype)
            made.append(module.from_numpy(array.copy()))
    return made


class Runner:
    """One workload on one engine."""

    def __init__(self, workload: Workload, module: Any, functional: Any) -> None:
        self.workload, self.module, self.functional = workload, module, functional
        self.leaves = leaves_of(workload, module)
        self.wanted = [v for v in self.leaves if v.requires_grad]
        out = workload.run(module, functional, self.leaves)
        rng = np.random.default_rng(2)
        seed = np.asarray(rng.normal(size=tuple(out.shape)), dtype=workload.dtype)
        self.seed = module.from_numpy(seed)

    def once(self, repeats: int, clock: Callable[[], float]) -> tuple[float, float]:
        """Mean seconds of the forward and of the backward."""
        run, m, f, leaves = self.workload.run, self.module, self.functional, self.leaves
        forward = backward = 0.0
        create = self.workload.create_graph
        for _ in range(repeats):
            for v in self.wanted:
                v.grad = None
            start = clock()
            out = run(m, f, leaves)
            middle = clock()
            if create:
                found = m.autograd.grad(out, self.wanted, self.seed, create_graph=True)
            else:
                found = None
                out.backward(self.seed)
            end = clock()
            del out, found
            forward += middle - start
            backward += end - middle
        return forward / repeats, backward / repeats

    def gradients(self) -> list[Any]:
        """The gradients, as arrays."""
        for v in self.wanted:
            v.grad = None
        self.workload.run(self.module, self.functional, self.leaves).backward(self.seed)
        return [v.grad.numpy() for v in self.wanted]


def compare(workload: Workload, seconds: float, clock: Callable[[], float]) -> list[Any]:
    """Ratios of each round: forward, backward, both; and the median microseconds of both engines.

    Raises:
        AssertionError: the gradients differ.
    """
    runners = [
        Runner(workload, refgrad, refgrad_nn.functional),
        Runner(workload, torch, torch.nn.functional),
    ]
    for ours, theirs in zip(*(r.gradients() for r in runners), strict=True):
        scale = np.abs(theirs).max()
        error = np.abs(ours - theirs).max()
        assert error <= (1e-9 if workload.dtype is np.float64 else 1e-4) * scale, workload.name
    each = max(sum(r.once(1, clock)) for r in runners for _ in range(2))
    repeats = max(1, min(200, round(0.002 / each)))
    rounds = max(11, min(301, round(seconds / (2 * repeats * each))))
    taken: list[list[tuple[float, float]]] = [[], []]
    for _ in range(rounds):
        order = [0, 1]
        random.shuffle(order)
        for i in order:
            taken[i].append(runners[i].once(repeats, clock))
    ours, theirs = taken
    ratios = [
        [a[0] / b[0] for a, b in zip(ours, theirs)],
        [a[1] / b[1] for a, b in zip(ours, theirs)],
        [sum(a) / sum(b) for a, b in zip(ours, theirs)],
    ]
    return [*ratios, [statistics.median(p[i] for p in t) * 1e6 for t in taken for i in (0, 1)]]


def main() -> None:
    """Print the table."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("-k", default="", help="names with one of these words (commas between)")
    parser.add_argument("--seconds", type=float, default=1.0, help="to spend on each")
    parser.add_argument("--cpu", action="store_true", help="time of the thread: on a busy machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.thread_time if options.cpu else time.perf_counter
    print(f"{'workload':26} {'forward':>8} {'backward (quartiles)':>23} {'both (quartiles)':>23}"
          f" {'us ours: fwd, bwd':>19} {'torch: fwd, bwd':>19}")  # fmt: skip
    logs: list[tuple[float, float]] = []
    for workload in WORKLOADS:
        if not any(word in workload.name for word in options.k.split(",")):
            continue
        forward, *rest, us = compare(workload, options.seconds, clock)
        of_rest = [statistics.quantiles(ratios, n=4) for ratios in rest]
        logs.append((np.log(of_rest[0][1]), np.log(of_rest[1][1])))
        shown = [f"{m:7.2f} ({low:5.2f} to {high:5.2f})" for low, m, high in of_rest]
        print(f"{workload.name:26} {statistics.median(forward):8.2f} {' '.join(shown)}"
              f" {us[0]:9.1f} {us[1]:9.1f} {us[2]:9.1f} {us[3]:9.1f}", flush=True)  # fmt: skip
    backward, both = np.exp(np.mean(logs, axis=0))
    print(f"geometric mean: backward {backward:.3f}, both {both:.3f}")


if __name__ == "__main__":
    main()
