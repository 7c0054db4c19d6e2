"""One gradient check of the harness, on the engines that the harness itself knows."""

from __future__ import annotations

import numpy as np

from conformance.bench.engine import cotangent
from conformance.bench.workload import Workload
from conformance.engines.base import Engine
from conformance.errors import ConformanceError, Unsupported
from conformance.oracles.directional import by_stencil
from conformance.oracles.pairs import direction, inner
from conformance.program import Array

POOR = 1e-5  # a bound above this part of the derivative's terms decides nothing, as in a run


class Check:
    """A vector-Jacobian product and a stencil along one direction, both on the same engine.

    `step` is the check; it has no phases. What runs the Program is the harness's own interpreter,
    with arrays that cross the boundary each time, as in `conformance run`.
    """

    compile_seconds: float | None = None

    def __init__(self, engine: Engine, workload: Workload, size: int) -> None:
        self._engine = engine
        self._program, self._values = workload.make(size)
        output = engine.run(self._program, self._values).outputs[0]
        weights = cotangent(output.shape, workload.dtype)
        self._cotangents = [np.ones_like(output) if weights is None else weights]
        self._direction = direction(np.random.default_rng(2), self._program, self._values)
        self._found: dict[str, Array] = {}

    def forward(self) -> None:
        """Unsupported: a check is timed as a whole."""
        raise Unsupported("a gradient check is timed as a whole")

    def backward(self, made: object) -> None:
        """Unsupported: a check is timed as a whole."""
        raise Unsupported("a gradient check is timed as a whole")

    def accumulate(self, made: object) -> None:
        """Unsupported: a check is timed as a whole."""
        raise Unsupported("a gradient check is timed as a whole")

    def step(self) -> float:
        """Check once: the numerical derivative. Raises ConformanceError where the check fails."""
        problem = (self._program, self._values, self._cotangents)
        gradients = self._engine.vjp(*problem).gradients
        opinion = by_stencil(self._engine, *problem, self._direction)
        along, size = inner(gradients, self._direction)
        if not opinion.decides(size, POOR):
            raise ConformanceError(f"{self._engine.name}: the check's bound is poor: {opinion}")
        if abs(along - opinion.value) > opinion.bound + 1e-12 * size:
            raise ConformanceError(f"{self._engine.name}: {along} by rule, but {opinion}")
        self._found = {name: g for name, g in gradients.items() if g is not None}
        return opinion.value

    def clear(self) -> None:
        """Let the gradients go."""
        self._found = {}

    def gradients(self) -> dict[str, Array]:
        """The gradients that were checked."""
        return self._found

    def synchronize(self) -> None:
        """Nothing is pending: the arrays have come back."""
