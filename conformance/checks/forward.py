"""jvp: forward mode against the reference's, and against the engine's own backward pass.

The tangent of every output entry is compared; and <c, J t> with <J^T c, t>, which no second engine
has a part in. Where they differ, the complex step through refgrad's forward, or the stencil, rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from conformance import arbitration, diagnosis
from conformance.checks import blame, doubt
from conformance.checks.base import VANISHING, Case, Finding
from conformance.checks.beside import may_read_a_triangle
from conformance.checks.claims import narrowest
from conformance.checks.compare import Difference, compare, measures
from conformance.engines.base import Engine
from conformance.errors import EngineError, Unsupported
from conformance.oracles import cancellation
from conformance.oracles.frozen import forward_goes_on
from conformance.oracles.pairs import contracted, direction, flat, inner
from conformance.oracles.torch_autograd import SPREADS, scale, spread
from conformance.program import Array, Program, Values

GOES_ON = "forward mode goes on under no_grad, where the backward pass stops: by design they differ"
ADJOINT = 100.0  # times the tolerance, of the sum of absolute terms: two passes are compared


class ForwardCheck:
    """Jacobian-vector products."""

    name = "jvp"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all outputs."""
        if not case.program.leaves or all(c is None for c in case.cotangents):
            return
        within = may_read_a_triangle(case)
        wide = direction(case.rng("jvp"), case.program, case.values, within=within)
        tangents = {n: t.astype(case.values[n].dtype) for n, t in wide.items()}
        found = case.engine.jvp(case.program, case.values, tangents)
        compared = sum(t.size for t in found)
        evidence: dict[str, Any] = {"compared": compared}
        vanishing: list[str] = []
        try:
            expected = case.reference.jvp(case.program, case.values, tangents)
        except (Unsupported, EngineError) as error:
            evidence["note"] = f"no second opinion: {str(error).partition(chr(10))[0]}"
        else:
            worst = self._worst(case, tangents, found, expected, vanishing)
            if worst is not None:
                said = self._described(case, wide, found, expected, *worst)
                finding = Finding(arbitration.outcome(said["verdict"]), evidence | said)
                yield self._looked_at(case, tangents, finding, found, expected, *worst)
                return
        adjoint = self._adjoint(case, wide, tangents, found, evidence)
        if adjoint.outcome == "failed" and forward_goes_on(case.program):
            yield Finding("unsupported", {"reason": GOES_ON})
            return
        if vanishing and adjoint.outcome == "passed":
            text = "a tangent that vanishes beside the function has lost its relative accuracy"
            said = {"verdict": f"precision: {text}", "leaf": ", ".join(vanishing)}
            adjoint = Finding("precision", evidence | said)
        yield adjoint

    def _worst(
        self,
        case: Case,
        tangents: dict[str, Array],
        found: tuple[Array, ...],
        expected: tuple[Array, ...],
        vanishing: list[str],
    ) -> tuple[int, Difference] | None:
        """The output whose tangent differs most; those that only vanish are added to the list."""
        worst: tuple[int, Difference] | None = None
        spreads: dict[str, Array] | None = None
        for number, (left, right) in enumerate(zip(found, expected, strict=True)):
            if case.cotangents[number] is None:
                continue
            relative = case.relative(right.dtype)
            difference = compare(left, right, relative=relative)
            if difference is not None and difference.kind == "value":
                if spreads is None:
                    spreads = self._spreads(case, tangents, expected)
                allowed = SPREADS * spreads.get(str(number), np.zeros(1))
                difference = compare(left, right, relative=relative, absolute=allowed)
                if difference is not None and self._vanishes(case, tangents, number, left, right):
                    vanishing.append(f"output {number}")
                    continue
            if difference is not None and (
                worst is None or difference.severity > worst[1].severity
            ):
                worst = number, difference
        return worst

    @staticmethod
    def _vanishes(
        case: Case, tangents: dict[str, Array], number: int, left: Array, right: Array
    ) -> bool:
        """Whether tangents are no more than rounding beside the output and the relative moves."""
        moves = [scale(t) / (scale(case.values[n]) or 1.0) for n, t in tangents.items()]
        natural = scale(case.reference_run.outputs[number]) * max(moves, default=0.0)
        eps = float(np.finfo(right.dtype).eps)
        return max(scale(left), scale(right)) <= VANISHING * eps * natural

    def _spreads(
        self, case: Case, tangents: dict[str, Array], expected: tuple[Array, ...]
    ) -> dict[str, Array]:
        def moved(values: Values) -> dict[str, Array | None]:
            try:
                moves = case.reference.jvp(case.program, values, tangents)
            except (Unsupported, EngineError):
                return {}
            return {str(n): t for n, t in enumerate(moves)}

        base: dict[str, Array | None] = {
            str(n): t for n, t in enumerate(expected) if t.dtype.kind in "fc"
        }
        return spread(moved, case.program, case.values, base, case.rng("jvp spread"))

    def _described(
        self,
        case: Case,
        wide: dict[str, Array],
        found: tuple[Array, ...],
        expected: tuple[Array, ...],
        number: int,
        difference: Difference,
    ) -> dict[str, Any]:
        left, right = found[number], expected[number]
        said = diagnosis.diagnose(left, right, right.shape)
        evidence = measures(difference, right.dtype) if difference.index is not None else {}
        evidence |= {"leaf": f"output {number}", "diagnosis": said.slug, "route": "forward"}
        evidence["description"] = f"forward mode: {said.sentence}"
        if difference.index is None:
            due = case.reference_run.outputs[number].dtype.name
            ruling = arbitration.by_form(difference, said, due)
        else:
            unit: list[Array | None] = [None] * len(expected)
            only = np.zeros(right.shape, right.dtype)
            only[difference.index], ours, theirs = difference.part
            unit[number] = only
            cotangents = [
                None if c is None else unit[n] if n == number else np.zeros_like(c)
                for n, c in enumerate(case.cotangents)
            ]
            narrow = {n: t.astype(case.values[n].dtype) for n, t in wide.items()}
            rounding = cancellation.lost(
                case.reference, case.program, case.values, cotangents, narrow
            )
            if difference.kind == "value" and difference.error <= rounding:
                ruling = arbitration.cancelled(difference.error, rounding)
            else:
                opinions = arbitration.opinions_on(case, cotangents, wide)
                nothing = case.nothing(wide)
                ruling = arbitration.decide(ours, theirs, opinions, case.reference.name, nothing)
        evidence |= ruling.evidence()
        narrow = {n: t.astype(case.values[n].dtype) for n, t in wide.items()}
        return evidence | blame.of_tangents(case, narrow)

    def _looked_at(
        self,
        case: Case,
        tangents: dict[str, Array],
        finding: Finding,
        found: tuple[Array, ...],
        expected: tuple[Array, ...],
        number: int,
        difference: Difference,
    ) -> Finding:
        """The finding, or what a second look at that entry makes of it."""
        if difference.kind != "value" or difference.index is None:
            return finding

        def ask(program: Program, values: Values) -> dict[str, Array | None]:
            return {str(number): case.reference.jvp(program, values, tangents)[number]}

        right, key = expected[number], str(number)
        entry = doubt.entry_of(found[number], difference.index, right)
        looked = doubt.second_look(case, self, finding, ask, key, entry, difference.error)

        def tangent(engine: Engine, near: Values) -> Array | None:
            return engine.jvp(case.program, near, tangents)[number]

        return doubt.unless_scattered(case, looked, key, right, entry, difference.error, tangent)

    def _adjoint(
        self,
        case: Case,
        wide: dict[str, Array],
        tangents: dict[str, Array],
        found: tuple[Array, ...],
        evidence: dict[str, Any],
    ) -> Finding:
        """<c, J t> against <J^T c, t>."""
        gradients = case.engine_vjp.gradients
        backward, size = inner(gradients, tangents)
        forward, terms = contracted(case.cotangents, found)
        total = max(size, terms, sum(case.natural.values()))
        if not np.isfinite(forward) or not np.isfinite(backward):
            return Finding("passed", evidence)  # vjp and the comparison above judge each entry
        gap = abs(forward - backward)
        allowed = allowance(case, tangents, gap, total)
        if gap <= allowed:
            return Finding("passed", evidence)
        hidden = case.hidden(case.cotangents, tangents, max(abs(forward), abs(backward)))
        if gap <= hidden:
            ruling = arbitration.cancelled(gap, hidden)
            return Finding("precision", evidence | ruling.evidence())
        opinions = arbitration.opinions_on(case, case.steady_cotangents, wide)
        nothing = case.nothing(wide)
        ruling = arbitration.decide(forward, backward, opinions, "the backward pass", nothing)
        said: dict[str, Any] = {
            "engine": forward,
            "reference": backward,
            "absolute": gap,
            "tolerance": allowed,
        }
        said |= {"diagnosis": "adjoint", "relative": gap / abs(backward or 1.0)}
        text = "forward mode and the backward pass of the engine contradict each other"
        verdict = arbitration.of_two_modes(ruling.verdict)
        finding = Finding(
            arbitration.outcome(verdict),
            evidence
            | ruling.evidence()
            | said
            | {"description": text, "verdict": verdict}
            | (blame.of_tangents(case, tangents) or blame.of_gradient(case)),
        )

        def ask(program: Program, values: Values) -> dict[str, Array | None]:
            moves = case.reference.jvp(program, values, tangents)
            return {"adjoint": np.array([contracted(case.cotangents, moves)[0]])}

        return doubt.second_look(case, self, finding, ask, "adjoint", 0, gap)


def allowance(case: Case, tangents: Mapping[str, Array], gap: float, total: float) -> float:
    """What two right passes of an engine may differ by in <c, J t>, of absolute terms `total`.

    What rounding at the inputs does is measured where the `gap` is above the plain tolerance.
    """
    slack = case.loosened(ADJOINT, case.coarsest) * total
    if gap <= slack:
        return slack
    moved, _ = inner(
        {n: SPREADS * s for n, s in case.spread.items()},
        {n: np.abs(flat(t)) for n, t in tangents.items()},
    )
    if gap <= slack + moved:
        return slack + moved
    return max(slack, ADJOINT * narrowest(case) * total) + moved  # an op on the way may round more
