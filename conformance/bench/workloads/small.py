"""Many small tensors: what the bookkeeping of an engine costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conformance.bench.workload import Cost, Made, Workload, Writer
from conformance.program import Ref

FLOATS = 8  # in a tensor
LINK = 5  # calls in a link of the chain


def product(size: int) -> Made:
    """x * y * z, as in the repository's first example."""
    w = Writer("float32")
    x, y, z = (w.leaf(name, size) for name in "xyz")
    return w.program(w.call("Tensor.__mul__", w.call("Tensor.__mul__", x, y), z))


def _product_cost(size: int) -> Cost:
    """Two products, and four in the backward pass; each has three arrays."""
    return Cost(2, 2 * size, 4 * size, 2 * 12 * size, 4 * 12 * size)


def chain(size: int) -> Made:
    """sin, mul, add, neg and exp one after another, and their sum.

    A link contracts, since its slope is at most 0.5; one that expands would overflow in a long
    chain.
    """
    w = Writer("float64")
    x = w.given("x", np.linspace(0.5, 1.5, FLOATS), requires_grad=True)
    c = w.given("c", np.linspace(0.1, 0.5, FLOATS), requires_grad=True)
    y = x
    for _ in range(size // LINK):
        y = w.call("mul", w.call("sin", y), c)
        y = w.call("exp", w.call("neg", w.call("add", y, x)))
    return w.program(w.call("sum", y))


def fan_out(size: int) -> Made:
    """One tensor used over and over: the sum of tanh(x * c), with a leaf for both."""
    w = Writer("float64")
    x, c = w.leaf("x", FLOATS), w.leaf("c", FLOATS)
    total = w.call("mul", x, c)
    for _ in range(size // 3):
        total = w.call("add", total, w.call("tanh", w.call("mul", x, c)))
    return w.program(w.call("sum", total))


def fan_in(size: int) -> Made:
    """One call with many operands: branches of one small tensor that a cat joins."""
    w = Writer("float64")
    x, c = w.leaf("x", FLOATS), w.leaf("c", FLOATS)
    branches: list[Ref] = [w.call("mul", x, c) for _ in range(size)]
    return w.program(w.call("sum", w.call("cat", branches)))


def elementwise_cost(nodes: Callable[[int], int]) -> Callable[[int], Cost]:
    """The cost of so many calls on 8 doubles.

    A call is one operation an element and its derivative two; either touches two arrays or three,
    which is counted as three, but for a chain's link: 12 arrays in five calls.
    """

    def cost(size: int) -> Cost:
        count = nodes(size)
        floats = count * FLOATS
        return Cost(count, floats, 2 * floats, 8 * 3 * floats, 8 * 3 * floats)

    return cost


_CHAINS = {
    "chain": (chain, "a chain of small calls", lambda n: n // LINK * LINK + 1),
    "fan_out": (fan_out, "one small tensor used over and over", lambda n: n // 3 * 3 + 2),
    "fan_in": (fan_in, "one call with many small operands", lambda n: n + 2),
}

WORKLOADS = (
    Workload(
        name="product",
        group="small",
        title="product of three scalars (the seed)",
        make=product,
        cost=_product_cost,
        sizes=(1,),
        quick=1,
        size_means="floats",
        tags=frozenset({"small"}),
    ),
    *(
        Workload(
            name=name,
            group="small",
            title=title,
            make=make,
            cost=elementwise_cost(nodes),
            sizes=(100, 1_000, 10_000, 100_000),
            quick=100,
            size_means="nodes",
            dtype="float64",
            cuda_sizes=(1_000,),
            extra_sizes=(1_000_000,) if name == "chain" else (),
            tags=frozenset({"small"}),
        )
        for name, (make, title, nodes) in _CHAINS.items()
    ),
)
