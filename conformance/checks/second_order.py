"""rr: Hessian-vector products by reverse over reverse, against torch's and the numerical ones.

Entries of a Hessian-vector product often cancel to nothing, so they are compared on the scale of
the whole product and of the gradient, not of the entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from conformance import arbitration, diagnosis
from conformance.arbitration import shown
from conformance.checks.base import Case, Finding, ReferenceFailed
from conformance.checks.compare import Difference, compare, measures
from conformance.errors import EngineError, Unsupported
from conformance.oracles.directional import of_gradient
from conformance.oracles.pairs import direction, inner
from conformance.oracles.torch_autograd import SPREADS, scale, spread
from conformance.program import Array, Values

FACTOR = 10.0  # times the tolerance of first order: a rule applied to a rule
POOR = 1e-4


class ReverseOverReverse:
    """Second order by differentiating the backward pass backward."""

    name = "rr"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding against the reference and the numerical derivative of its gradient."""
        if not case.program.leaves or all(c is None for c in case.cotangents):
            return
        cotangents = case.steady_cotangents
        wide = direction(case.rng("tangents"), case.program, case.values)
        tangents = {n: t.astype(case.values[n].dtype) for n, t in wide.items()}
        found = case.engine.hvp(case.program, case.values, cotangents, tangents)

        def reference(values: Values) -> Mapping[str, Array | None]:
            return case.reference.hvp(case.program, values, cotangents, tangents)

        try:
            expected = reference(case.values)
        except (EngineError, Unsupported) as error:
            raise ReferenceFailed(f"the reference has no second order here: {error}") from error
        first = case.reference_vjp.gradients
        floor = max(
            [scale(g) for g in (*expected.values(), *first.values()) if g is not None] or [0]
        )
        moves: Mapping[str, Array] | None = None
        worst: tuple[str, Difference] | None = None
        for leaf in case.program.leaves:
            left, right = _filled(found.get(leaf.name), expected[leaf.name])
            relative = FACTOR * case.relative(leaf.dtype)
            difference = compare(left, right, relative=relative, floor=floor)
            if difference is not None and difference.kind == "value":
                if moves is None:
                    moves = _spread(case, reference, expected)
                allowed = SPREADS * moves[leaf.name]
                difference = compare(left, right, relative=relative, floor=floor, absolute=allowed)
            if difference is not None and (
                worst is None or difference.severity > worst[1].severity
            ):
                worst = leaf.name, difference
        compared = sum(g.size for g in expected.values() if g is not None)
        evidence: dict[str, Any] = {"compared": compared}
        numerical = self._numerical(case, cotangents, wide, found, expected, floor)
        if worst is None:
            yield Finding(numerical.outcome, evidence | numerical.evidence)
            return
        name, difference = worst
        shape = tuple(case.values[name].shape)
        said = diagnosis.diagnose(found.get(name), expected[name], shape)
        evidence |= measures(difference, case.values[name].dtype)
        evidence |= {"leaf": case.alias(name), "diagnosis": said.slug, "description": said.sentence}
        if difference.index is None or np.iscomplexobj(case.values[name]):
            yield Finding("failed", evidence | {"verdict": f"engine wrong: {said.sentence}"})
            return
        onto = {n: np.zeros_like(t) for n, t in wide.items()}
        onto[name][difference.index] = 1.0
        opinion = of_gradient(case.reference, case.program, case.values, cotangents, wide, onto)
        ours, theirs = float(difference.left), float(difference.right)
        ruling = arbitration.decide(ours, theirs, [opinion], case.reference.name)
        yield Finding("failed", evidence | ruling.evidence())

    def _numerical(
        self,
        case: Case,
        cotangents: list[Array | None],
        tangents: dict[str, Array],
        found: Mapping[str, Array | None],
        expected: Mapping[str, Array | None],
        floor: float,
    ) -> Finding:
        """One joint direction u: <u, H t> against the derivative of <u, gradient> along t."""
        onto = direction(case.rng("onto"), case.program, case.values)
        for name, weights in onto.items():
            for product in (expected[name], found.get(name)):
                if product is not None and product.shape == weights.shape:
                    weights[~np.isfinite(product)] = 0
        opinion = of_gradient(case.reference, case.program, case.values, cotangents, tangents, onto)
        ours, size = inner(found, onto)
        theirs, _ = inner(expected, onto)
        evidence = {"engine": ours, "reference": theirs} | shown(opinion)
        slack = 100 * case.relative(case.dtype) * max(size, floor)
        if not np.isfinite(opinion.value):
            reason = opinion.reason or "no numerical derivative is finite"
            return Finding("inconclusive", evidence | {"reason": reason})
        if opinion.kink is not None:
            return Finding("passed", evidence | {"diagnosis": "kink"})
        poor = not opinion.decides(max(size, floor), POOR)
        error = abs(ours - opinion.value)
        if error <= opinion.bound + slack:
            if poor:
                why = opinion.reason or f"the bound is {opinion.bound:.1e} of {size:.1e}"
                return Finding("inconclusive", evidence | {"reason": why})
            return Finding("passed", evidence)
        if abs(ours - theirs) <= slack:
            text = f"engine and reference agree, and {opinion.oracle} gives another value"
            evidence |= {"verdict": f"engine and reference wrong: {text}", "absolute": error}
            return Finding("failed", evidence | {"diagnosis": "reference"})
        ruling = arbitration.decide(ours, theirs, [opinion], case.reference.name)
        return Finding("failed", evidence | ruling.evidence())


def _filled(left: Array | None, right: Array | None) -> tuple[Array | None, Array | None]:
    """None and zeros mean the same in second order, where a graph may end early."""
    if left is None and right is not None:
        return np.zeros_like(right), right
    if right is None and left is not None:
        return left, np.zeros_like(left)
    return left, right


def _spread(
    case: Case, reference: Any, expected: Mapping[str, Array | None]
) -> Mapping[str, Array]:
    def products(values: Values) -> Mapping[str, Array | None]:
        try:
            found: Mapping[str, Array | None] = reference(values)
        except (EngineError, Unsupported):
            return {}
        return found

    whole = {
        leaf.name: np.zeros(leaf.shape) if expected[leaf.name] is None else expected[leaf.name]
        for leaf in case.program.leaves
    }
    rng = case.rng("second order spread")
    return spread(products, case.program, case.values, whole, rng, case.natural)
