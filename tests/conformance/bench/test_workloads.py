"""The workloads: well-formed Programs, the same each time, with costs that grow as they should."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.bench.counted import counted
from conformance.bench.workload import Workload, Writer
from conformance.bench.workloads import WORKLOADS
from conformance.program import Ref

ALL = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
MODELS = {w.name for w in WORKLOADS.values() if w.group == "models"}
FORMULAS = [w for w in WORKLOADS.values() if w.name not in MODELS]
PHASES = ("forward", "backward", "step")


@ALL
def test_the_program_is_well_formed(workload: Workload) -> None:
    program, values = workload.make(workload.quick)
    program.check()
    assert isinstance(program.outputs, Ref)
    assert {i.dtype for i in program.leaves} == {workload.dtype}
    assert set(values) == {i.name for i in program.inputs}
    assert all(values[i.name].shape == i.shape for i in program.inputs)
    assert all(values[i.name].dtype.name == i.dtype for i in program.inputs)
    assert workload.nodes(workload.quick) == len(program.calls)


@ALL
def test_the_ladder(workload: Workload) -> None:
    assert workload.quick in workload.sizes
    for ladder in (workload.sizes, workload.cuda_sizes, workload.extra_sizes):
        assert list(ladder) == sorted(set(ladder))


@pytest.mark.parametrize("workload", FORMULAS, ids=lambda w: w.name)
def test_values_are_the_same_each_time(workload: Workload) -> None:
    digests = {p.digest(v) for p, v in (workload.make(workload.quick) for _ in range(2))}
    assert len(digests) == 1


@pytest.mark.parametrize("phase", PHASES)
@ALL
def test_costs_are_positive(workload: Workload, phase: str) -> None:
    assert workload.flops(workload.quick, phase) > 0
    assert workload.bytes(workload.quick, phase) > 0


@pytest.mark.parametrize("workload", FORMULAS, ids=lambda w: w.name)
def test_costs_grow_with_the_size_and_a_step_is_both_ways(workload: Workload) -> None:
    for cost in (workload.flops, workload.bytes):
        sizes = [*workload.sizes, *workload.cuda_sizes]
        steps = [cost(size) for size in sorted(set(sizes))]
        assert steps == sorted(set(steps))
        assert cost(workload.quick) == sum(cost(workload.quick, p) for p in PHASES[:2])


@pytest.mark.parametrize(
    ("name", "size", "growth"),
    [
        ("matmul", 64, 8),
        ("bmm", 64, 8),
        ("cholesky", 64, 8),
        ("conv2d_3x3", 16, 4),
        ("conv1d_3", 256, 2),
        ("attention", 128, 4),
        ("elementwise", 1_000, 2),
        ("softmax", 256, 2),
        ("lstm", 32, 2),
    ],
)
def test_flops_of_twice_the_size(name: str, size: int, growth: int) -> None:
    workload = WORKLOADS[name]
    assert workload.flops(2 * size) / workload.flops(size) == pytest.approx(growth, rel=0.02)


# What a formula knows and the count does not: work within one call, and arrays that are not read.
_OWN_FLOPS = {"cholesky", "solve", "softmax", "log_softmax", "layer_norm", "batch_norm"}
_OWN_FLOPS |= {"embedding", "scatter_add"}


@pytest.mark.parametrize(
    "workload", [w for w in FORMULAS if w.order == 1 and not w.check], ids=lambda w: w.name
)
def test_formulas_are_what_the_shapes_of_the_calls_come_to(workload: Workload) -> None:
    found, formula = counted(*workload.make(workload.quick)), workload.cost(workload.quick)
    assert found.nodes == formula.nodes
    if workload.name not in _OWN_FLOPS:
        assert 0.3 < formula.forward_flops / found.forward_flops < 2
        assert 0.3 < formula.backward_flops / found.backward_flops < 2
    if workload.name != "embedding":
        assert 0.4 < formula.forward_bytes / found.forward_bytes < 2


def test_a_product_is_counted_by_its_terms() -> None:
    w = Writer("float64")
    x = w.call("transpose", w.leaf("x", 3, 5), 0, 1)
    program, values = w.program(w.call("matmul", x, w.leaf("y", 3, 7)))
    cost = counted(program, values)
    assert (cost.nodes, cost.forward_flops) == (2, 2 * 3 * 5 * 7)
    assert cost.forward_bytes == 8 * (3 * 5 + 3 * 7 + 5 * 7)


def test_a_long_chain_neither_overflows_nor_dies_out() -> None:
    from conformance.bench.engines import ENGINES

    prepared = ENGINES["refgrad"].prepare(WORKLOADS["chain"], 10_000, "cpu")
    prepared.step()
    gradients = prepared.gradients()
    assert all(np.isfinite(g).all() and np.abs(g).min() > 1e-3 for g in gradients.values())
