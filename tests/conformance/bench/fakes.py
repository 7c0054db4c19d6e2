"""A world of its own time: engines whose calls take what they are told, clocks that read it.

Nothing here looks at a real clock, so what is measured is exact, whatever machine the tests run on.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.bench.timing import Clock, HostClock
from conformance.bench.workload import Cost, Workload
from conformance.errors import Unsupported

FORWARD, BACKWARD, PREPARE = 1e-3, 2e-3, 0.01  # seconds


class World:
    """The time of the fakes, in seconds; the machine is slower at some times than at others."""

    def __init__(self, *, noise: float = 0.0, seed: int = 0) -> None:
        self.time = 100.0
        self.noise = noise
        self.preempted = 0
        self._rng = random.Random(seed)

    def now(self) -> float:
        """This moment."""
        return self.time

    def take(self, seconds: float) -> None:
        """Let time pass, more or less."""
        self.time += seconds * (1 + self.noise * self._rng.random())


def workload(name: str = "matmul", group: str = "products", **fields: Any) -> Workload:
    """A workload that costs what its size says; its Program is never made."""

    def cost(size: int) -> Cost:
        return Cost(size, 100 * size, 200 * size, 10 * size, 20 * size)

    made: dict[str, Any] = {"sizes": (10, 100, 1000), "quick": 100, "size_means": "rows"}
    return Workload(name, group, name, make=_never, cost=cost, **{**made, **fields})


def _never(size: int) -> Any:
    raise AssertionError("a fake engine makes no Program")


class FakeClock:
    """A clock of the world."""

    name = "fake"
    resolution = 1e-9

    def __init__(self, world: World) -> None:
        self._world = world

    def before(self) -> None:
        """The world is always ready."""

    def mark(self) -> float:
        """This moment."""
        return self._world.time

    def seconds(self, start: float, end: float) -> float:
        """From one mark to the other."""
        return end - start


class FakePrepared:
    """Takes `factor` times the usual; `fails` names the method that raises, and what."""

    def __init__(self, engine: FakeEngine, size: int) -> None:
        self.engine, self.size = engine, size
        self.compile_seconds: float | None = engine.compile_seconds
        self.live = 0  # gradients that are there
        self.log: list[str] = []

    def _do(self, method: str, seconds: float) -> None:
        self.log.append(method)
        self.engine.calls += 1
        if method in self.engine.fails and self.engine.calls > self.engine.fails_after:
            raise self.engine.fails[method]
        self.engine.world.take(self.engine.factor * seconds * self.size / 100)

    def forward(self) -> Any:
        """Takes `FORWARD`."""
        self._do("forward", FORWARD)
        return object()

    def backward(self, made: Any) -> None:
        """Takes `BACKWARD`."""
        self._do("backward", BACKWARD)
        self.live = 1

    def accumulate(self, made: Any) -> None:
        """Takes a little more; there must be gradients."""
        assert self.live, "nothing to add to"
        self._do("accumulate", 1.5 * BACKWARD)

    def step(self) -> Any:
        """Takes as long as both."""
        self._do("step", FORWARD + BACKWARD)
        self.live = 1
        return object()

    def clear(self) -> None:
        """No gradients."""
        self.live = 0

    def gradients(self) -> dict[str, np.ndarray[Any, Any]]:
        """Ones, times the engine's mistake."""
        return {"x": np.full(3, self.engine.mistake)}

    def synchronize(self) -> None:
        """Nothing is under way."""


@dataclasses.dataclass
class FakeEngine:
    """An engine by its costs and its faults."""

    world: World
    name: str = "torch"
    factor: float = 1.0
    mistake: float = 1.0
    prepares: float = PREPARE
    fails: Mapping[str, Exception] = dataclasses.field(default_factory=dict)
    fails_after: int = 0  # calls
    compile_seconds: float | None = None
    absent: str | None = None
    calls: int = 0
    prepared: list[FakePrepared] = dataclasses.field(default_factory=list)

    def available(self, device: str) -> str | None:
        """As it was told."""
        return self.absent

    def versions(self) -> dict[str, str]:
        """One."""
        return {self.name: "1.0"}

    def prepare(self, workload: Workload, size: int, device: str) -> FakePrepared:
        """Takes `prepares` seconds for each size of 100."""
        if "prepare" in self.fails:
            raise self.fails["prepare"]
        self.world.take(self.prepares * size / 100)
        self.prepared.append(FakePrepared(self, size))
        return self.prepared[-1]


class FakePlace:
    """A place in the world, a GPU if it is called cuda."""

    def __init__(self, world: World, device: str = "cpu") -> None:
        self.world, self.device = world, device
        self.released = 0

    def clock(self, engine: str, prepared: Any) -> Clock:
        """The world's."""
        return FakeClock(self.world)

    def check(self, engine: str, prepared: Any) -> Clock | None:
        """A host clock beside a device's."""
        if self.device == "cpu":
            return None
        return HostClock(prepared.synchronize, now=self.world.now, resolution=1e-9)

    def memory(self, engine: str, prepared: Any) -> dict[str, dict[str, int | None]]:
        """The same for all but refgrad, which takes a tenth more."""
        peak = 22 << 20 if engine == "refgrad" else 20 << 20
        return {"resident": {"peak": peak, "held": None}}

    def roofs(self) -> dict[str, Any]:
        """Some."""
        return {
            "copy": {"numpy": 8e9, "torch": 1e10},
            "gemm": {"float32": {"torch": 8e10}, "float64": {"torch": 4e10}},
            "call": {"numpy": 5e-7, "torch": 1.5e-6},
        }

    def state(self) -> dict[str, Any] | None:
        """A GPU's."""
        return (
            None
            if self.device == "cpu"
            else {
                "sm_mhz": 1000.0,
                "sm_max_mhz": 1980.0,
                "celsius": 40.0,
                "watts": 100.0,
                "slowed": [],
            }
        )

    def release(self) -> None:
        """Counts."""
        self.released += 1


def agree(prepared: Any, reference: dict[str, Any], dtype: str) -> str | None:
    """Whether the gradients are the reference's."""
    prepared.clear()
    prepared.step()
    found = prepared.gradients()
    prepared.clear()
    same = all(np.array_equal(found[name], value) for name, value in reference.items())
    return None if same else "the gradient of x is off"


def unsupported(reason: str = "cannot be said") -> Unsupported:
    """What an engine raises that lacks something."""
    return Unsupported(reason)
