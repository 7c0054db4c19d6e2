"""Many small tensors: what the bookkeeping of an engine costs."""

from __future__ import annotations

from conformance.bench.workload import Cost, Made, Workload, Writer

_SMALL = 8  # floats in a tensor
_LINK = 5  # calls in a link of the chain


def _product(size: int) -> Made:
    w = Writer("float32")
    x, y, z = (w.leaf(name, size) for name in "xyz")
    return w.program(w.call("Tensor.__mul__", w.call("Tensor.__mul__", x, y), z))


def _product_cost(size: int) -> Cost:
    """Two products; four in the backward pass."""
    return Cost(2, 2 * size, 4 * size, 2 * 3 * 4 * size, 4 * 3 * 4 * size)


def _chain(size: int) -> Made:
    w = Writer("float64")
    x, c = w.leaf("x", _SMALL), w.leaf("c", _SMALL)
    y = x
    for _ in range(size // _LINK):
        y = w.call("mul", w.call("sin", y), c)
        y = w.call("exp", w.call("neg", w.call("add", y, x)))
    return w.program(w.call("sum", y))


def _chain_cost(size: int) -> Cost:
    """A call is one operation an element, its derivative about two; three arrays each way."""
    floats = size * _SMALL
    return Cost(size // _LINK * _LINK + 1, floats, 2 * floats, 20 * floats, 24 * floats)


WORKLOADS = (
    Workload(
        name="product",
        group="small",
        title="product of three scalars (the seed)",
        make=_product,
        cost=_product_cost,
        sizes=(1,),
        quick=1,
        size_means="floats",
        tags=frozenset({"small"}),
    ),
    Workload(
        name="chain",
        group="small",
        title="chain of small calls on 8 floats",
        make=_chain,
        cost=_chain_cost,
        sizes=(100, 1_000, 10_000, 100_000),
        quick=100,
        size_means="nodes",
        dtype="float64",
        cuda_sizes=(1_000,),
        extra_sizes=(1_000_000,),
        tags=frozenset({"small"}),
    ),
)
