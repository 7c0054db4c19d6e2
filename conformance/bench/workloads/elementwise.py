"""Large arrays: elementwise calls, broadcasting and reductions, which memory bandwidth bounds."""

from __future__ import annotations

import functools
import math

from conformance.bench.workload import Cost, Made, Workload, Writer

_ROWS = 64  # of the broadcast arrays at most


def _chain(size: int, dtype: str) -> Made:
    """exp(-tanh(sin(x) * w + x)), with a leaf for both."""
    w = Writer(dtype)
    x, c = w.leaf("x", size), w.leaf("w", size)
    y = w.call("add", w.call("mul", w.call("sin", x), c), x)
    return w.program(w.call("exp", w.call("neg", w.call("tanh", y))))


def _chain_cost(size: int, width: int) -> Cost:
    """Six calls on 14 arrays; back, ten products and sums on 26 arrays.

    Back, by call: exp 3, neg 2, tanh 3, mul 6 (both operands), sin 3, and add hands on the
    cotangent; the second gradient of x is added: 3. The cosine is counted as one operation.
    """
    return Cost(6, 6 * size, 10 * size, 14 * size * width, 20 * size * width)


def sides(size: int) -> tuple[int, int]:
    """Rows and columns of an array of about `size` elements."""
    rows = min(_ROWS, math.isqrt(size))
    return rows, size // rows


def _broadcast(size: int) -> Made:
    """x * scale + shift + column: a row twice and a column once, spread over a matrix."""
    w = Writer("float32")
    rows, columns = sides(size)
    x = w.leaf("x", rows, columns)
    scale, shift = w.leaf("scale", columns), w.leaf("shift", columns)
    column = w.leaf("column", rows, 1)
    y = w.call("add", w.call("mul", x, scale), shift)
    return w.program(w.call("add", y, column))


def _broadcast_cost(size: int) -> Cost:
    """Three calls that read and write a matrix; back, two products and three sums to a side."""
    return Cost(3, 3 * size, 5 * size, 4 * 6 * size, 4 * 8 * size)


def _reductions(size: int) -> Made:
    """Sum over rows, mean over columns, and the variance of all, multiplied."""
    w = Writer("float32")
    x = w.leaf("x", *sides(size))
    over_rows = w.call("sum", x, 0)
    over_columns = w.call("mean", x, 1)
    spread = w.call("var", x)
    total = w.call("mul", w.call("dot", over_rows, over_rows), spread)
    return w.program(w.call("mul", total, w.call("dot", over_columns, over_columns)))


def _reductions_cost(size: int) -> Cost:
    """Sum and mean read once, a variance twice (Chan, Golub and LeVeque 1983: two passes).

    Back, each writes a matrix, the variance reads one, and two additions join the three.
    """
    return Cost(7, 6 * size, 6 * size, 4 * 4 * size, 4 * 10 * size)


_LADDER = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_CUDA = (100_000, 10_000_000)

WORKLOADS = (
    *(
        Workload(
            name=name,
            group="elementwise",
            title=f"elementwise chain, {dtype}",
            make=functools.partial(_chain, dtype=dtype),
            cost=functools.partial(_chain_cost, width=width),
            sizes=_LADDER,
            quick=1_000,
            size_means="floats",
            dtype=dtype,
            cuda_sizes=_CUDA,
        )
        for name, dtype, width in (("elementwise", "float32", 4), ("elementwise64", "float64", 8))
    ),
    Workload(
        name="broadcast",
        group="elementwise",
        title="a row and a column spread over a matrix",
        make=_broadcast,
        cost=_broadcast_cost,
        sizes=(1_024, 65_536, 1_048_576),
        quick=1_024,
        size_means="floats",
        cuda_sizes=(1_048_576, 16_777_216),
    ),
    Workload(
        name="reductions",
        group="elementwise",
        title="sum, mean and variance of a matrix",
        make=_reductions,
        cost=_reductions_cost,
        sizes=(1_024, 65_536, 1_048_576),
        quick=1_024,
        size_means="floats",
        cuda_sizes=(1_048_576, 16_777_216),
    ),
)
