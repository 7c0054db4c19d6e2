"""All workloads by name, in the order of the report: one module a family."""

from __future__ import annotations

from conformance.bench.workload import Workload
from conformance.bench.workloads import (
    convolutions,
    elementwise,
    harness,
    indexing,
    models,
    normalisation,
    products,
    second,
    sequences,
    small,
    solving,
)

_FAMILIES = (
    *(small, elementwise, products, convolutions, normalisation),
    *(indexing, sequences, solving, models, second, harness),
)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for family in _FAMILIES for workload in family.WORKLOADS
}

__all__ = ["WORKLOADS"]
