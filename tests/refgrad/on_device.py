"""PyTorch's own samples, run by refgrad on the CPU and on a device: the two must agree.

    python -m tests.refgrad.on_device [NAME ...] [--limit N] [--order N] [--cupy]

runs all samples of the entries named (all by default) on the stand-in of the tests, or on CuPy;
`test_device_arrays.py` and `test_cuda.py` run some of each. torch gives the samples and computes
nothing.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

import refgrad
from tests.refgrad.against_torch import convert, gradients, leaves, resolve
from tests.refgrad.jvp_against_torch import tangents
from tests.refgrad.op_db import op_db

DTYPES = (torch.float64, torch.float32, torch.int64, torch.complex128, torch.complex64, torch.bool)
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "complex128": 1e-10, "complex64": 2e-5}


FIRST = (  # what most programs use
    "add", "sub", "mul", "div", "neg", "pow", "exp", "log", "sqrt", "rsqrt", "sin", "cos",
    "tanh", "sigmoid", "sum", "mean", "var", "std", "max", "min", "amax", "argmax", "matmul",
    "mm", "bmm", "addmm", "baddbmm", "nn.functional.linear", "reshape", "view", "transpose",
    "permute", "expand", "cat", "stack", "split", "chunk", "unsqueeze", "squeeze",
    "__getitem__", "index_select", "gather", "scatter", "scatter_add", "index_put", "index_add",
    "where", "masked_fill", "clamp", "nn.functional.relu", "nn.functional.gelu",
    "nn.functional.silu", "softmax", "log_softmax", "logsumexp", "nn.functional.cross_entropy",
    "nn.functional.nll_loss", "nn.functional.mse_loss", "nn.functional.layer_norm",
    "nn.functional.rms_norm", "nn.functional.batch_norm", "nn.functional.group_norm",
    "nn.functional.conv2d", "nn.functional.conv1d", "nn.functional.conv3d",
    "nn.functional.conv_transpose2d", "nn.functional.max_pool2d", "nn.functional.avg_pool2d",
    "nn.functional.adaptive_avg_pool2d", "nn.functional.interpolate", "nn.functional.pad",
    "nn.functional.embedding", "nn.functional.embedding_bag",
    "nn.functional.scaled_dot_product_attention", "nn.functional.dropout", "cumsum", "cumprod",
    "prod", "norm", "linalg.norm", "linalg.vector_norm", "linalg.cholesky", "linalg.inv",
    "linalg.solve", "linalg.det", "linalg.slogdet", "linalg.svd", "linalg.eigh", "linalg.qr",
    "linalg.eig", "linalg.lu", "linalg.solve_triangular", "sort", "argsort", "topk", "unique",
    "tril", "triu", "diagonal", "diag", "roll", "flip", "abs", "sign", "floor", "round",
    "atan2", "erf", "lgamma", "digamma", "polygamma", "fft.fft", "fft.rfft", "fft.irfft", "to",
    "clone", "zeros_like", "as_strided", "unfold", "logcumsumexp", "cummax",
)  # fmt: skip
UNWRITTEN = {  # memory that nobody has written
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
}  # fmt: skip

# The entries of which no sample can be run by refgrad on the CPU, with the reason.
NOT_COMPARED = {
    "T": "a property, which the sample calls",
    "H": "a property, which the sample calls",
    "mT": "a property, which the sample calls",
    "mH": "a property, which the sample calls",
    "einsum": "the sample's wrapper swaps the arguments",
    "cholesky_inverse": "the sample's wrapper calls torch itself",
    "normal.in_place": "the sample is one of the method normal_",
    "zero_": "the sample's wrapper clones the leaf first",
}


@dataclass
class Report:
    """What one entry gave: how many samples agree, what differs or failed on the device, what
    refgrad could not run on the CPU either, so that there was nothing to compare, and how many
    samples were left out since their result is not determined on a GPU (`races`)."""

    agree: int = 0
    failures: list[str] = field(default_factory=list)
    on_neither: list[str] = field(default_factory=list)
    undetermined: int = 0


def label(entry: Any) -> str:
    """The entry's name, and its variant's."""
    return f"{entry.name}.{entry.variant_test_name}".strip(".")


def entries() -> list[Any]:
    """The entries of op_db that refgrad has."""
    return [entry for entry in op_db if entry.dtypes and resolve(entry.name)]


def moved(x: Any, device: str) -> Any:
    """A tree of refgrad's arguments with its tensors on a device, as leaves."""
    if isinstance(x, refgrad.Tensor):
        made = x.detach().to(device)
        return made.requires_grad_() if x.requires_grad else made
    if isinstance(x, refgrad.device) or (isinstance(x, str) and x == "cpu"):
        return refgrad.device(device)
    if isinstance(x, (tuple, list)) and not hasattr(x, "_fields"):
        return type(x)(moved(e, device) for e in x)
    if isinstance(x, dict):
        return {
            k: refgrad.device(device) if k == "device" and v is not None else moved(v, device)
            for k, v in x.items()
        }
    return x


class _Seeds:
    """refgrad, whose from_numpy makes tensors on the device, for `gradients` and `tangents`."""

    Tensor = refgrad.Tensor

    def __init__(self, device: str) -> None:
        self.device = device
        self.autograd = refgrad.autograd

    def from_numpy(self, array: Any) -> Any:
        return refgrad.from_numpy(array).to(self.device)


def on_host(t: Any) -> Any:
    return t.detach().cpu().numpy()


def differ(ours: Any, theirs: Any, what: str, device: str) -> str | None:
    """How a result on the device differs from the CPU's, or None."""
    if (ours is None) != (theirs is None):
        there = ours if theirs is None else theirs
        return None if not on_host(there).any() else f"{what}: only one of them has it"
    if ours is None:
        return None
    if ours.device.type != device:
        return f"{what}: lives on {ours.device}"
    a, b = on_host(ours), on_host(theirs)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{what}: {a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
    if not a.size or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
        return None
    if a.dtype.kind not in "fc":
        return f"{what}: {int((a != b).sum())} of {a.size} differ"
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return f"{what}: not finite at other places"
    error = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = max(float(np.abs(b[finite]).max(initial=0.0)), 1e-3)
    if error > TOLERANCE.get(b.dtype.name, 1e-2) * scale:
        return f"{what}: off by {error / scale:.1e} of its scale"
    return None


def run(
    entry: Any,
    device: str = "cuda",
    *,
    dtype: Any = None,
    limit: int | None = None,
    order: int = 1,
    size: int = 20_000,
    racing: bool = True,
) -> Report:
    """The samples of one entry on both; `size` bounds their elements, `limit` their number.

    Of `limit` samples the first is one, and the others are spread over all. Without `racing` those
    that race on a GPU are left out.
    """
    report = Report()
    dtype = dtype or next(d for d in DTYPES if d in entry.dtypes)
    function = resolve(entry.name)
    differentiable = (
        entry.supports_autograd
        and dtype in entry.dtypes
        and (dtype.is_floating_point or dtype.is_complex)
    )
    torch.manual_seed(0)
    samples = list(entry.sample_inputs("cpu", dtype, requires_grad=differentiable))
    if not racing:
        determined = [s for s in samples if not races(entry, s)]
        report.undetermined = len(samples) - len(determined)
        samples = determined
    for i in spread(len(samples), limit):
        sample = samples[i]
        given = [sample.input, sample.args, sample.kwargs]
        if sum(t.numel() for t in leaves(given, torch.Tensor)) > size:
            continue
        host = convert(given)
        there = moved(host, device)
        try:
            theirs = _results(entry, function, sample, host, i)
        except Exception as error:
            report.on_neither.append(f"[{i}] {_told(error)}")
            continue
        try:
            ours = _results(entry, function, sample, there, i)
            pairs = _compared(entry, ours, theirs, there, host, device, order, i)
            found = [f for f in pairs if f]
            if differentiable and not found:
                found = [f for f in _tangents(entry, function, sample, there, host, device, i) if f]
        except Exception as error:  # every failure is one to show
            found = [_told(error)]
        report.agree += not found
        report.failures += [f"[{i}] {f}" for f in found[:2]]
    return report


def races(entry: Any, sample: Any) -> bool:
    """Whether max_unpool writes two values to one place, which has the later one on a CPU alone.

    On a GPU either may be the last; torch says so of its own kernels.
    """
    found = re.fullmatch(r"nn\.functional\.max_unpool(\d)d", entry.name)
    if found is None:
        return False
    (indices,) = (t for t in leaves([sample.args, sample.kwargs], torch.Tensor))
    planes = indices.flatten(-int(found[1])).sort(-1).values
    return bool((planes[..., 1:] == planes[..., :-1]).any())


def _told(error: BaseException) -> str:
    """An error, and the innermost line of refgrad that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/refgrad/" in f.filename and "/tests/" not in f.filename]
    place = f" ({pathlib.Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {str(error)[:200]}{place}"


def spread(count: int, limit: int | None) -> list[int]:
    """Up to `limit` of `count` indices at equal distance, from 0."""
    if limit is None or count <= limit:
        return list(range(count))
    return [count * k // limit for k in range(limit)]


def _results(entry: Any, function: Any, sample: Any, given: Any, seed: int) -> list[Any]:
    refgrad.manual_seed(seed)
    input, args, kwargs = given
    made = entry.gradcheck_wrapper(function, input, *args, **kwargs)
    return leaves(sample.output_process_fn_grad(made), refgrad.Tensor)


def _compared(
    entry: Any, ours: Any, theirs: Any, there: Any, host: Any, device: str, order: int, seed: int
) -> Iterator[str | None]:
    if len(ours) != len(theirs):
        yield f"{len(ours)} results instead of {len(theirs)}"
        return
    if entry.name in UNWRITTEN:
        yield from (f"lives on {t.device}" for t in ours if t.device.type != device)
        return
    for j, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        yield differ(a, b, f"result {j}", device)
    inputs = [
        [t for t in leaves(tree, refgrad.Tensor) if t.requires_grad and t.is_leaf]
        for tree in (there, host)
    ]
    k = order if entry.supports_gradgrad else min(order, 1)
    if k and inputs[0]:
        a = gradients(_Seeds(device), ours, inputs[0], np.random.default_rng(seed), k)
        b = gradients(_Seeds("cpu"), theirs, inputs[1], np.random.default_rng(seed), k)
        n = len(inputs[0])
        if len(a) != len(b):
            yield f"{len(a)} gradients instead of {len(b)}"
        for j, (p, q) in enumerate(zip(a, b, strict=False)):
            yield differ(p, q, f"gradient {j % n} of order {j // n + 1}", device)


def _tangents(
    entry: Any, function: Any, sample: Any, there: Any, host: Any, device: str, seed: int
) -> Iterator[str | None]:
    """How the tangents of forward mode differ."""

    def of(given: Any, where: str) -> Any:
        refgrad.manual_seed(seed)
        wrapped = partial(entry.gradcheck_wrapper, function)
        return tangents(_Seeds(where), wrapped, given, seed, sample.output_process_fn_grad)

    for j, (a, b) in enumerate(zip(of(there, device), of(host, "cpu"), strict=True)):
        yield differ(a[1], b[1], f"tangent {j}", device)


def in_order() -> list[Any]:
    """The entries, those that most programs use first."""
    rank = {name: i for i, name in enumerate(FIRST)}
    return sorted(entries(), key=lambda e: rank.get(e.name, len(FIRST)))


def main(arguments: list[str] | None = None) -> None:
    """Print what differs, entry by entry, and the count; or with --json each entry's report."""
    parser = argparse.ArgumentParser(prog="python -m tests.refgrad.on_device")
    parser.add_argument("names", nargs="*", help="entries of op_db, all by default")
    parser.add_argument("--limit", type=int, help="samples an entry, all by default")
    parser.add_argument("--order", type=int, default=1, help="order of the derivatives")
    parser.add_argument("--cupy", action="store_true", help="on CuPy instead of the stand-in")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th entry from the K-th")
    parser.add_argument("--json", action="store_true", help="a line of JSON an entry")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    part, of = map(int, options.part.split("/"))
    chosen = [e for e in in_order() if not options.names or e.name in options.names][part::of]
    if options.cupy:
        _run_all(chosen, options)
        return
    from tests.fakes.device_array import stand_in

    with stand_in():
        _run_all(chosen, options)


def _run_all(chosen: list[Any], options: Any) -> None:
    start, whole, samples = time.perf_counter(), 0, 0
    broken: list[str] = []
    neither: list[str] = []
    for entry in chosen:
        began, name = time.perf_counter(), label(entry)
        report = run(entry, limit=options.limit, order=options.order, racing=not options.cupy)
        seconds = time.perf_counter() - began
        if options.json:
            print(json.dumps({"entry": name, "seconds": seconds, **asdict(report)}), flush=True)
        samples += report.agree
        if report.failures:
            broken.append(name)
            if not options.json:
                n = len(report.failures)
                print(f"{name} ({report.agree} agree, {n} not): {report.failures[0]}", flush=True)
        elif report.agree:
            whole += 1
        else:
            neither.append(name)
    if not options.json:
        print(
            f"{whole} entries agree in all samples, {len(broken)} do not, {len(neither)} cannot be "
            f"run on the CPU either ({', '.join(neither)}); {samples} samples agree; "
            f"{time.perf_counter() - start:.0f} s"
        )


if __name__ == "__main__":
    main()
