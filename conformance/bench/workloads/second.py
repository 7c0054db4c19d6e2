"""Derivatives of derivatives: a gradient that can be differentiated, and its own backward pass."""

from __future__ import annotations

from dataclasses import replace

from conformance.bench.workload import Cost, Workload
from conformance.bench.workloads import convolutions, elementwise, products, sequences, small

_OF = {
    w.name: w for f in (small, elementwise, products, convolutions, sequences) for w in f.WORKLOADS
}


def _twice(workload: Workload) -> Workload:
    """The gradient of the squared norm of the gradient, for smaller sizes.

    The first backward pass is a forward for the second, which costs two of it: a backward pass
    costs some twice its forward (Griewank and Walther, Evaluating Derivatives, 4.2).
    """

    def cost(size: int) -> Cost:
        once = workload.cost(size)
        return replace(
            once,
            backward_flops=3 * once.backward_flops,
            backward_bytes=3 * once.backward_bytes,
        )

    return replace(
        workload,
        name=f"{workload.name}_twice",
        group="second",
        title=f"double backward: {workload.title}",
        cost=cost,
        order=2,
        sizes=workload.sizes[:-1] or workload.sizes,
        extra_sizes=(),
        cuda_sizes=workload.cuda_sizes[:1],
    )


def _differentiable(workload: Workload) -> Workload:
    """The first gradient with create_graph: the same arithmetic, recorded."""
    return replace(
        workload,
        name=f"{workload.name}_create_graph",
        group="second",
        title=f"create_graph backward: {workload.title}",
        create_graph=True,
        sizes=workload.sizes[:3],
        extra_sizes=(),
        cuda_sizes=workload.cuda_sizes[:1],
    )


WORKLOADS = (
    *(_differentiable(_OF[name]) for name in ("chain", "fan_out", "mlp")),
    *(_twice(_OF[name]) for name in ("product", "chain", "elementwise", "mlp", "attention")),
)
