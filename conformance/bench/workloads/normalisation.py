"""Softmax and the normalisations, on rows of 256 floats or on images of 32 channels."""

from __future__ import annotations

from collections.abc import Callable

from conformance.bench.workload import Cost, Made, Workload, Writer

_WIDTH = 256
_BATCH, _CHANNELS = 8, 32


def _softmax(name: str) -> Callable[[int], Made]:
    def make(size: int) -> Made:
        w = Writer("float32")
        return w.program(w.call(f"nn.functional.{name}", w.leaf("x", size, _WIDTH), dim=-1))

    return make


def _softmax_cost(size: int) -> Cost:
    """Maximum, difference, exponential, sum, quotient; back y (g - sum(g y)): four operations.

    Bytes of a fused kernel, as PyTorch has it: it reads and writes once; back two are read.
    """
    floats = size * _WIDTH
    return Cost(1, 5 * floats, 4 * floats, 8 * floats, 12 * floats)


def _layer_norm(size: int) -> Made:
    w = Writer("float32")
    x = w.leaf("x", size, _WIDTH)
    weight, bias = w.leaf("weight", _WIDTH), w.leaf("bias", _WIDTH)
    return w.program(w.call("nn.functional.layer_norm", x, (_WIDTH,), weight, bias))


def _batch_norm(size: int) -> Made:
    w = Writer("float32")
    x = w.leaf("x", _BATCH, _CHANNELS, size, size)
    weight, bias = w.leaf("weight", _CHANNELS), w.leaf("bias", _CHANNELS)
    y = w.call("nn.functional.batch_norm", x, None, None, weight, bias, training=True)
    return w.program(y)


def _norm_cost(floats: Callable[[int], int]) -> Callable[[int], Cost]:
    """Mean 1, variance 3, normalise 2, scale and shift 2 (Ioffe and Szegedy 2015, algorithm 1).

    Back, for x by two sums and a line 8, for the weight 2, for the bias 1. Bytes of a fused kernel:
    x is read twice (moments, then values) and y written; back x and g are read twice.
    """

    def cost(size: int) -> Cost:
        n = floats(size)
        return Cost(1, 8 * n, 11 * n, 12 * n, 20 * n)

    return cost


WORKLOADS = (
    *(
        Workload(
            name=name,
            group="normalisation",
            title=f"{name} of rows of {_WIDTH}",
            make=_softmax(name),
            cost=_softmax_cost,
            sizes=(16, 256, 4096),
            quick=16,
            size_means="rows",
            cuda_sizes=(4096, 65536),
        )
        for name in ("softmax", "log_softmax")
    ),
    Workload(
        name="layer_norm",
        group="normalisation",
        title=f"layer_norm of rows of {_WIDTH}",
        make=_layer_norm,
        cost=_norm_cost(lambda n: n * _WIDTH),
        sizes=(16, 256, 4096),
        quick=16,
        size_means="rows",
        cuda_sizes=(4096, 65536),
    ),
    Workload(
        name="batch_norm",
        group="normalisation",
        title=f"batch_norm of {_BATCH} images of {_CHANNELS} channels, in training",
        make=_batch_norm,
        cost=_norm_cost(lambda n: _BATCH * _CHANNELS * n**2),
        sizes=(4, 16, 64),
        quick=4,
        size_means="side",
        cuda_sizes=(64, 128),
    ),
)
