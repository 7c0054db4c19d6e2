"""The harness's own work: one gradient check of a small Program."""

from __future__ import annotations

from conformance.bench.workload import Cost, Made, Workload, Writer

_WIDTH = 16


def _layer(size: int) -> Made:
    """tanh(linear(layer_norm(x))) on rows of 16."""
    w = Writer("float64")
    x = w.leaf("x", size, _WIDTH)
    y = w.call("nn.functional.layer_norm", x, (_WIDTH,))
    weight, bias = w.leaf("weight", _WIDTH, _WIDTH, scale=0.25), w.leaf("bias", _WIDTH)
    return w.program(w.call("tanh", w.call("nn.functional.linear", y, weight, bias)))


def _cost(size: int) -> Cost:
    """Of one forward and one backward pass: a check runs the forward some hundred times.

    2 n w^2 for the product, eight operations an element for the normalisation and one for tanh; as
    bytes, three calls that read and write, and the weight.
    """
    floats = size * _WIDTH
    flops, moved = 2 * floats * _WIDTH + 9 * floats, 8 * (6 * floats + _WIDTH**2)
    return Cost(3, flops, 2 * flops, moved, 2 * moved)


WORKLOADS = (
    Workload(
        name="gradient_check",
        group="harness",
        title="a gradient, and a numerical derivative along one direction",
        make=_layer,
        cost=_cost,
        sizes=(4, 64),
        quick=4,
        size_means="rows",
        dtype="float64",
        check=True,
    ),
)
