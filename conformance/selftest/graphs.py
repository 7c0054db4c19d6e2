"""The complex step on generated Programs: how far it is from the engines' derivatives, and where
it has no reading.

Two engines' rules and the complex step are three ways to one number. The complex step holds where
it is within its bound, 1e-13 of the terms, of the derivative by either engine, or where both are no
more than the rounding of a derivative that vanishes (x / x).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.checks.base import VANISHING, Case, Context
from conformance.errors import EngineError, Unsupported
from conformance.oracles.complex_step import Step
from conformance.oracles.directional import EXACT, by_complex_step
from conformance.oracles.pairs import direction, inner
from conformance.oracles.torch_autograd import scale
from conformance.program import Array
from conformance.selftest.measured import finite
from conformance.sources.base import Sample

DTYPES = ("float64", "complex128")
ROUNDING = VANISHING * float(np.finfo(float).eps)


@dataclass
class Agreement:
    """First or second order on tie-free graphs: how many, how many hold, and the worst.

    An error is beside the sum of the terms; `far` are the labels of those that do not hold.
    """

    graphs: int = 0
    held: int = 0
    tied: int = 0
    not_finite: int = 0
    worst: float = 0.0
    far: list[str] = field(default_factory=list)
    fallbacks: Counter[str] = field(default_factory=Counter)  # reason
    ops: Counter[str] = field(default_factory=Counter)  # of the Programs without a reading

    @property
    def share(self) -> float:
        """The part that holds."""
        return self.held / self.graphs if self.graphs else float("nan")

    def add(self, label: str, error: float, ties: int) -> None:
        """Count one graph."""
        if not np.isfinite(error):
            self.not_finite += 1
            return
        if ties:
            self.tied += 1
            return
        self.graphs += 1
        self.worst = max(self.worst, error)
        if error <= EXACT:
            self.held += 1
        else:
            self.far.append(f"{label}: {error:.1e}")

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data."""
        names = ("graphs", "held", "tied", "not_finite", "worst", "far")
        counts = {"fallbacks": dict(self.fallbacks), "ops": dict(self.ops)}
        return {n: getattr(self, n) for n in names} | {"share": finite(self.share)} | counts


def measure(seed: int, count: int) -> dict[str, Agreement]:
    """The complex step at first order through the forward, at second through the backward pass.

    On so many Programs of real numbers, and as many of complex ones; by order and dtype.
    """
    from conformance.checks import context_for
    from conformance.engines.refgrad import RefgradEngine
    from conformance.engines.torch import TorchEngine
    from conformance.settings import Settings
    from conformance.sources.generated import Generated

    found: dict[str, Agreement] = {}
    source = Generated()
    for dtype in DTYPES:
        settings = Settings(dtypes=(dtype,), generated=count, seed=seed, standalone=0)
        context = context_for(settings, RefgradEngine(), TorchEngine())
        first = found[f"first order, {dtype}"] = Agreement()
        second = found[f"second order, {dtype}"] = Agreement()
        for item in source.items(settings):
            for sample in source.samples(item, settings):
                if isinstance(sample, Sample):
                    _judge(sample, context, first, second)
    return found


def _judge(sample: Sample, context: Context, first: Agreement, second: Agreement) -> None:
    case = context.case(sample, "oracles")
    if not case.program.leaves or all(c is None for c in case.cotangents):
        return
    for order, agreement in ((_first, first), (_second, second)):
        try:
            error, ties = order(case)
        except (Unsupported, EngineError) as error_:
            agreement.fallbacks[str(error_)] += 1
            agreement.ops[sample.op] += 1
            continue
        agreement.add(f"{sample.op}, {sample.label}", error, ties)


def _first(case: Case) -> tuple[float, int]:
    """The relative error along a direction, and the ties that were met."""
    tangents = direction(case.rng("direction"), case.program, case.values)
    opinion = by_complex_step(*case.numerical, case.steady_cotangents, tangents)
    errors = []
    for engine in (case.engine, case.reference):
        found = engine.vjp(case.program, case.values, case.steady_cotangents).gradients
        value, size = inner(found, tangents)
        size = max(size, opinion.bound / EXACT)
        errors.append(_relative(abs(value - opinion.value), size, _vanishing(case, tangents)))
    return min(errors), opinion.ties


def _second(case: Case) -> tuple[float, int]:
    """The same of the Hessian times a direction, at the worst entry."""
    wide = direction(case.rng("tangents"), case.program, case.values)
    program, values = case.numerical
    step = Step(program, values, wide, grad=True)
    exact, gradients, ties = step.second(case.steady_cotangents)
    size = max(map(scale, (*exact.values(), *gradients.values())), default=0.0)
    errors = []
    for engine in (case.engine, case.reference):
        try:
            found = engine.hvp(case.program, case.values, case.steady_cotangents, wide)
        except EngineError:  # torch has no second order of some
            continue
        gaps = [_gap(found.get(name), product) for name, product in exact.items()]
        vanishing = ROUNDING * max(case.natural.values())
        errors.append(_relative(max(gaps, default=0.0), size, vanishing))
    return min(errors, default=float("nan")), ties


def _gap(found: Array | None, exact: Array) -> float:
    gap = np.abs(exact if found is None else found - exact)
    return float(gap.max(initial=0.0))


def _vanishing(case: Case, tangents: dict[str, Array]) -> float:
    """What is left of a directional derivative that is 0."""
    moved = (case.natural[name] * scale(tangent) for name, tangent in tangents.items())
    return ROUNDING * max(moved, default=0.0)


def _relative(error: float, size: float, vanishing: float) -> float:
    """The error beside the terms; none where all of it is rounding."""
    return error / size if size > vanishing else float(error > vanishing)
