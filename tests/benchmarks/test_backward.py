"""The backward pass of every workload at its quick size, engines side by side.

    make bench
    make bench ARGS='-k "chain and not create_graph" --benchmark-autosave'
    make bench ARGS='--benchmark-compare --benchmark-compare-fail=min:20%'

One group a workload. An engine that compiles forward and backward as one call is timed in a group
of its own, "NAME, forward and backward". These are a quick look for who changes refgrad: engines
are timed one after another, so their ratios drift with the machine. `conformance bench` interleaves
them.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conformance.bench.engine import Prepared, agree
from conformance.bench.engines import ENGINES
from conformance.bench.workload import Workload
from conformance.bench.workloads import WORKLOADS
from conformance.errors import Unsupported
from conformance.program import Array

ROUNDS, WARMUP = 25, 2


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=list(WORKLOADS))
def test_backward(benchmark: BenchmarkFixture, workload: Workload, engine: str) -> None:
    prepared = _prepared(engine, workload)
    wrong = agree(prepared, _reference(workload.name), workload.dtype)
    assert wrong is None, f"{engine} is not timed: {wrong}"
    backward, setup = _phase(prepared)
    benchmark.group = workload.name if setup else f"{workload.name}, forward and backward"
    benchmark.extra_info["nodes"] = workload.nodes(workload.quick)
    benchmark.pedantic(backward, setup=setup or prepared.clear, rounds=ROUNDS, warmup_rounds=WARMUP)


def _prepared(engine: str, workload: Workload) -> Prepared:
    reason = ENGINES[engine].available("cpu")
    if reason is not None:
        pytest.skip(reason)
    try:
        return ENGINES[engine].prepare(workload, workload.quick, "cpu")
    except Unsupported as error:
        pytest.skip(f"{engine}: {error}")


@functools.cache
def _reference(name: str) -> dict[str, Array]:
    workload = WORKLOADS[name]
    prepared = ENGINES["torch"].prepare(workload, workload.quick, "cpu")
    prepared.step()
    return prepared.gradients()


def _phase(prepared: Prepared) -> tuple[Any, Any]:
    """What is timed, and what goes before; nothing goes before where phases do not part."""

    def forward() -> tuple[tuple[Any], dict[str, Any]]:
        prepared.clear()
        return (prepared.forward(),), {}

    def backward(made: Any) -> None:
        prepared.backward(made)
        prepared.synchronize()

    def step() -> None:
        prepared.step()
        prepared.synchronize()

    try:
        forward()
    except Unsupported:
        return step, None
    return backward, forward
