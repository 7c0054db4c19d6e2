"""What is counted of memory: on arrays whose size is known."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from conformance.bench import memory
from tests.conformance.bench.fakes import FakeEngine, FakePrepared, World, unsupported

MIB = 1 << 20
SAVED, SCRATCH, GRADIENT = 24 * MIB, 40 * MIB, 8 * MIB


class Hungry(FakePrepared):
    """Saves an array, needs another for a while, and keeps a gradient."""

    def __init__(self, *missing: str) -> None:
        super().__init__(FakeEngine(World()), 100)
        self.missing = missing
        self.gradient: Any = None

    def forward(self) -> Any:
        if "forward" in self.missing:
            raise unsupported()
        return np.ones(SAVED // 8)

    def backward(self, made: Any) -> None:
        if "backward" in self.missing:
            raise unsupported()
        scratch = np.ones(SCRATCH // 8)
        self.gradient = np.full(GRADIENT // 8, scratch[0])

    def step(self) -> Any:
        made = np.ones(SAVED // 8)
        scratch = np.ones(SCRATCH // 8)
        self.gradient = np.full(GRADIENT // 8, scratch[0] * made[0])
        return made

    def clear(self) -> None:
        self.gradient = None


def test_traced_memory_is_exact() -> None:
    found = memory.on_host("refgrad", Hungry())["traced"]
    assert found["held"] == pytest.approx(SAVED, rel=1e-3)
    assert found["peak"] == pytest.approx(SAVED + SCRATCH + GRADIENT, rel=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is reset through /proc")
def test_resident_memory_sees_whoever_allocates() -> None:
    found = memory.on_host("torch", Hungry())
    assert set(found) == {"resident"}
    peak, held = found["resident"]["peak"], found["resident"]["held"]
    assert peak is not None
    assert held is not None
    assert held == pytest.approx(SAVED, rel=0.15)
    assert peak == pytest.approx(SAVED + SCRATCH + GRADIENT, rel=0.15)


@pytest.mark.parametrize("missing", ["forward", "backward"])
def test_an_engine_whose_phases_are_not_apart_has_a_peak_all_the_same(missing: str) -> None:
    found = memory.on_host("refgrad", Hungry(missing))["traced"]
    assert found["peak"] == pytest.approx(SAVED + SCRATCH + GRADIENT, rel=1e-3)
    assert (found["held"] is None) == (missing == "forward")


def test_what_the_resident_set_cannot_see_is_left_out() -> None:
    class Small(Hungry):
        def forward(self) -> Any:
            return np.ones(8)

        def backward(self, made: Any) -> None:
            self.gradient = np.ones(8)

    found = memory.on_host("torch", Small()).get("resident", {"peak": None})
    assert found["peak"] is None


def test_an_engine_that_cannot_be_counted_on_a_gpu_has_no_figures() -> None:
    assert memory.on_cuda("jax", Hungry()) == {}
