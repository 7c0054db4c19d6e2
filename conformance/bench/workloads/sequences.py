"""Attention, and an LSTM over time."""

from __future__ import annotations

import functools

from conformance.bench.workload import Cost, Made, Workload, Writer
from conformance.program import Ref

_HEADS, _HEAD = 4, 64
_BATCH, _HIDDEN = 16, 64


def _attention(size: int) -> Made:
    """softmax(q k^T / sqrt(d)) v, written out, for 4 heads of 64."""
    w = Writer("float32")
    q, k, v = (w.leaf(name, _HEADS, size, _HEAD) for name in "qkv")
    scores = w.call("matmul", q, w.call("transpose", k, -2, -1))
    weights = w.call("nn.functional.softmax", w.call("mul", scores, _HEAD**-0.5), dim=-1)
    return w.program(w.call("matmul", weights, v))


def _sdpa(size: int) -> Made:
    """The same as one call."""
    w = Writer("float32")
    q, k, v = (w.leaf(name, 1, _HEADS, size, _HEAD) for name in "qkv")
    return w.program(w.call("nn.functional.scaled_dot_product_attention", q, k, v))


def _attention_cost(size: int, nodes: int) -> Cost:
    """Two products of 2 n^2 d a head, four back (Dao et al. 2022, without recomputation).

    Six operations for each of the n^2 scores, and five back. Bytes: q, k, v and the output, and
    the scores as they are written and read by four calls.
    """
    tokens, scores = _HEADS * size * _HEAD, _HEADS * size**2
    product = 2 * scores * _HEAD
    return Cost(
        nodes,
        2 * product + 6 * scores,
        4 * product + 5 * scores,
        4 * (4 * tokens + 6 * scores),
        4 * (10 * tokens + 10 * scores),
    )


def _lstm(size: int) -> Made:
    """An LSTM cell (Hochreiter and Schmidhuber 1997, with a forget gate) over `size` steps."""
    w = Writer("float32")
    x = w.constant("x", size, _BATCH, _HIDDEN)
    scale = _HIDDEN**-0.5
    into = w.leaf("w_input", 4 * _HIDDEN, _HIDDEN, scale=scale)
    over = w.leaf("w_hidden", 4 * _HIDDEN, _HIDDEN, scale=scale)
    bias = w.leaf("bias", 4 * _HIDDEN, scale=scale)
    h = w.leaf("h", _BATCH, _HIDDEN)
    c = w.leaf("c", _BATCH, _HIDDEN)
    for step in range(size):
        x_t = w.call("Tensor.__getitem__", x, step)
        fresh = w.call("nn.functional.linear", x_t, into, bias)
        gates = w.call("add", fresh, w.call("nn.functional.linear", h, over))
        parts = w.call("chunk", gates, 4, dim=1)
        i, f, o = (w.call("sigmoid", Ref(parts.name, (n,))) for n in (0, 1, 3))
        g = w.call("tanh", Ref(parts.name, (2,)))
        c = w.call("add", w.call("mul", f, c), w.call("mul", i, g))
        h = w.call("mul", o, w.call("tanh", c))
    return w.program(h)


def _lstm_cost(size: int) -> Cost:
    """16 b h^2 a step for both products, twice that back less the input's own, which has no grad.

    Nine elementwise calls a step on b h floats, 18 back. Bytes: both weights (and bias) a step, as
    PyTorch reads them, and 29 arrays of b h; back the weights are read and their gradients added.
    """
    weights, state = 8 * _HIDDEN**2, _BATCH * _HIDDEN
    product = 2 * _BATCH * weights
    return Cost(
        14 * size,
        size * (product + 13 * state),
        size * (product * 3 // 2 + 18 * state),
        4 * size * (weights + 40 * state),
        4 * size * (4 * weights + 60 * state),
    )


WORKLOADS = (
    *(
        Workload(
            name=name,
            group="sequences",
            title=title,
            make=make,
            cost=functools.partial(_attention_cost, nodes=nodes),
            sizes=(16, 128, 512),
            quick=16,
            size_means="tokens",
            cuda_sizes=(512, 2048),
        )
        for name, title, make, nodes in (
            ("attention", "attention written out, 4 heads of 64", _attention, 5),
            ("sdpa", "scaled_dot_product_attention, 4 heads of 64", _sdpa, 1),
        )
    ),
    Workload(
        name="lstm",
        group="sequences",
        title="an LSTM cell over time, batch 16, 64 wide",
        make=_lstm,
        cost=_lstm_cost,
        sizes=(8, 32, 128),
        quick=8,
        size_means="steps",
        cuda_sizes=(128,),
    ),
)
