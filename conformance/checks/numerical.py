"""numerical: the engine's gradient against a derivative that no rule had a part in.

Along Gaussian directions, all leaves at once: first the complex step through refgrad's forward,
which is exact; where that has no reading, or contradicts, or meets a switch, the stencil on the
reference's forward with its measured bound. A poor bound is `inconclusive`, never a pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from conformance import arbitration
from conformance.arbitration import shown
from conformance.checks import blame, doubt
from conformance.checks.base import VANISHING, Case, Finding, ReferenceFailed
from conformance.checks.beside import AS_WELL, INSTEAD, beside, may_read_a_triangle
from conformance.checks.compare import compare, little, plain, tiny
from conformance.checks.entrywise import POOR, Entrywise, own_rule
from conformance.checks.parting import alone
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles import cancellation
from conformance.oracles.complex_step import Step
from conformance.oracles.directional import Opinion, of_step
from conformance.oracles.pairs import flat, hermitian, inner
from conformance.oracles.torch_autograd import SPREADS, scale
from conformance.program import Array, Input, Program, Values

_CONVENTION = "a switch is met exactly where it switches; the reference's convention is kept"
NOT_FINITE = "no entry of the gradient is finite"
_NOTHING = "no numerical derivative is finite"
_TOO_MANY = "several kinks meet here, and there are too many entries to look at each"
MORE = 2  # times as many directions, where errors within `rtol` are allowed
FINE = 1e-4  # tolerances above it are of 16 bits
BLIND = 0.45  # of a derivative: allowed so much, one that is twice as large would pass
FEW, MOST_LOST = 4, 16  # entries that are not finite, of a leaf and of all
_WHOLE = "the gradient is that of the whole function, through what it computes without gradient"
_BLAMELESS = "no gradient is finite where the function is smooth, and each call alone is right"
_TRIANGLE = (
    "the gradient is right where the matrix stays Hermitian, and nowhere else: so it should be if "
    "the function reads one triangle; give it (a + a.mH) / 2 to be judged along every direction"
)
_HERMITIAN = "judged along Hermitian directions, as the function takes its matrix for Hermitian"


class NumericalCheck:
    """Vector-Jacobian products contracted with directions."""

    name = "numerical"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all directions: the first failure, or the worst of them."""
        if not case.program.leaves or all(c is None for c in case.cotangents):
            return
        try:
            program, values = case.numerical
        except Unsupported as error:
            yield Finding("inconclusive", {"reason": error.reason})
            return
        judged = _Judged(case, program, values)
        lost = judged.lost()
        if lost is not None:
            if not case.users and doubt.blameless(case, self):  # as of sqrt(x - x)
                lost = Finding("passed", {"note": _BLAMELESS, "diagnosis": "not finite"})
            yield lost
            return
        whole = None if program is case.program else _Judged(case, case.program, case.values)
        if whole is not None and not judged.confirmed("direction") and whole.confirmed("whole"):
            yield Finding("passed", whole.along("whole", 0).evidence | {"note": _WHOLE})
            return
        findings = []
        several = MORE if case.settings.rtol else 1  # along one, errors of either sign may cancel
        for n in range(several * case.settings.directions):
            findings.append(judged.along("direction", n))
            if findings[-1].outcome == "failed":
                break
        order = ("failed", "inconclusive", "precision", "passed")
        worst = min(findings, key=lambda f: order.index(f.outcome))
        if worst.outcome == "failed" and whole is not None:
            again = [whole.along("whole", n) for n in range(max(2, len(findings)))]
            if all(f.outcome == "passed" for f in again):
                worst = Finding("passed", again[0].evidence | {"note": _WHOLE})
        triangle = worst.outcome == "failed" and may_read_a_triangle(case)
        if triangle and judged.confirmed("triangle", within=True):
            yield Finding("inconclusive", {"reason": _TRIANGLE})
            return
        kinked = worst.outcome != "failed" and worst.evidence.get("diagnosis") == "kink"
        yield (self._tied(case) if kinked else None) or self._nearby(judged, worst)

    def _tied(self, case: Case) -> Finding | None:
        """What is wrong of a call alone where entries tie, if its gradient is by one rule.

        That of a composition follows from conventions of its calls, and need be no generalised
        gradient: relu(x) - relu(-x) has 0 at 0, where it is smooth with slope 1.
        """
        calls = () if case.context.independent else case.program.live().calls
        for call in calls:
            if not (own_rule(call) or (len(calls) == 1 and call.opaque is None)):
                continue
            try:
                cut = alone(case, call)
                judged = _Judged(cut, *cut.numerical)
                found = {} if cut.rounds else judged.entrywise.together(judged.ours)
            except (EngineError, Unsupported, ProgramError, ReferenceFailed):
                continue  # it cannot be cut out
            if found:
                text = f"{call.name} = {call.target}: it is the same alone"
                found |= {"culprit": call.target} | ({"first_call": text} if calls[1:] else {})
                return Finding("failed", found, cut.repro(found))
        return None

    def _nearby(self, judged: _Judged, finding: Finding) -> Finding:
        """The finding, or at a kink and where nothing is decided what is found beside it."""
        case = judged.case
        kinked = finding.outcome != "inconclusive" and finding.evidence.get("diagnosis") == "kink"
        undecided = finding.outcome == "inconclusive" and "bound" in finding.evidence
        near = beside(case, self) if kinked or undecided else None
        if near is None or near.outcome == "failed":
            return finding if near is None else near
        if kinked:
            return replace(finding, evidence={"note": AS_WELL} | finding.evidence)
        steep = judged.entrywise.steep(judged.ours)
        note = "; ".join(filter(None, (INSTEAD.format(reason=finding.evidence["reason"]), steep)))
        kept = {k: v for k, v in near.evidence.items() if k != "reason"}
        return Finding("passed", kept | {"note": note, "diagnosis": "kink"})


class _Judged:
    """Both gradients, with cotangents that are zero where the function is not finite."""

    def __init__(self, case: Case, program: Program, values: Values) -> None:
        self.case = case
        self.smooth = program, values  # what is differentiated numerically
        self.cotangents = case.steady_cotangents
        self.steady = self.cotangents is case.cotangents
        self.entrywise = Entrywise(case, self.smooth, self.cotangents)
        program, values = case.program, case.values
        if self.steady:
            self.ours = case.engine_vjp.gradients
            self.theirs = case.reference_vjp.gradients
        else:
            self.ours = case.engine.vjp(program, values, self.cotangents).gradients
            self.theirs = case.reference.vjp(program, values, self.cotangents).gradients

    def confirmed(self, label: str, *, within: bool = False) -> bool:
        """Whether the complex step or the stencil confirms the gradient along two directions.

        `within` keeps Hermitian leaves Hermitian.
        """
        return all(self._confirmed(label, n, within) for n in range(2))

    def _confirmed(self, label: str, number: int, within: bool) -> bool:
        case = self.case
        tangents = dict(case.direction(label, number, within=within))
        ours, size = inner(self.ours, tangents)
        if not np.isfinite(ours):
            return False
        with contextlib.suppress(Unsupported, EngineError):
            exact = of_step(self._step(tangents), self.cotangents)
            if not exact.ties and abs(ours - exact.value) <= exact.bound:
                return True
        opinion = self.entrywise.along(tangents, self.entrywise.candidate(ours, size, tangents))
        return opinion.kink is None and _settles(
            opinion, ours, self.entrywise.slack(size, tangents), size
        )

    def lost(self) -> Finding | None:
        """The first entry that is not finite where the function has a derivative.

        Or, in a user's own function, one-sided slopes. Of a leaf FEW are tried, and MOST_LOST of
        all. Where an output is not finite, a zero cotangent times an infinite slope is no fault.
        """
        case = self.case
        if not self.steady:
            return None
        tried = 0
        smooth: list[tuple[Input, tuple[int, ...], Opinion]] = []
        for leaf in case.program.leaves:
            ours, theirs = self.ours.get(leaf.name), self.theirs.get(leaf.name)
            if ours is None or theirs is None or not ours.shape == theirs.shape == leaf.shape:
                continue
            if np.isfinite(ours).all():
                continue
            neither = ~np.isfinite(ours) & ~np.isfinite(theirs)  # else the check vjp tells
            neither &= np.isfinite(case.values[leaf.name])
            for place in np.flatnonzero(neither)[: min(FEW, MOST_LOST - tried)]:
                tried += 1
                index = tuple(int(n) for n in np.unravel_index(place, leaf.shape))
                opinion = self.entrywise.at(leaf.name, index)
                if self._finite(opinion):
                    smooth.append((leaf, index, opinion))
        if not smooth or not self._finite(self._along_all(smooth)):
            return None
        leaf, index, opinion = smooth[0]
        value = plain(self.ours[leaf.name][index].item())  # type: ignore[index]
        who = "engine and reference" if case.context.independent else "engine"
        said = {
            "leaf": case.alias(leaf.name), "index": list(index), "engine": value,
            "reference": plain(self.theirs[leaf.name][index].item()),  # type: ignore[index]
            "diagnosis": "not finite",
            "description": f"the gradient is {value} where the function is smooth",
            "verdict": f"{who} wrong: {opinion.oracle} gives a finite derivative, "
            f"{opinion.value:.6g}",
        }  # fmt: skip
        if opinion.kink is not None:
            left, right = float(opinion.kink.left[0]), float(opinion.kink.right[0])
            said["description"] = f"the gradient is {value} at a kink with finite slopes"
            said["verdict"] = (
                f"{who} wrong: {value} at a kink, where the slopes are {left:.6g} and {right:.6g}"
            )
        return Finding("failed", shown(opinion) | said | blame.of_gradient(case))

    def _finite(self, opinion: Opinion) -> bool:
        """Whether there is a derivative that is known, or in a user's function two slopes are."""
        kink = opinion.kink
        if kink is None or not self.case.users or kink.jump:
            return opinion.sure(POOR)
        size = max(abs(float(kink.left[0])), abs(float(kink.right[0])))
        return bool(max(kink.left_bound[0], kink.right_bound[0]) <= POOR * size)

    def _along_all(self, entries: list[tuple[Input, tuple[int, ...], Opinion]]) -> Opinion:
        """The derivative along all these entries at once, and those that share their place.

        Each alone may have one where the function has none, as x log(x / y) at (0, 0).
        """
        leaves = self.smooth[0].leaves
        tangents = {i.name: np.zeros(i.shape) for i in leaves}
        for leaf, index, _ in entries:
            for other in leaves:
                gradient = self.ours.get(other.name)
                if other.shape == leaf.shape and gradient is not None:
                    lost = not np.isfinite(gradient[index])
                    tangents[other.name][index] = 1.0 if lost or other is leaf else 0.0
        return self.entrywise.along(tangents)

    def along(self, label: str, number: int) -> Finding:
        """Judge along one direction of the case."""
        case = self.case
        tangents = dict(case.direction(label, number))
        if case.rounded(case.coarsest) > FINE or case.settings.rtol:  # nothing is to cancel
            tangents = {n: self._aligned(n, t) for n, t in tangents.items()}
        if not self._silence(tangents):
            return Finding("inconclusive", {"reason": NOT_FINITE})
        wrong_shape = [
            n for n, t in tangents.items()
            if (g := self.ours.get(n)) is not None and g.shape != t.shape
        ]  # fmt: skip
        if wrong_shape:
            names = ", ".join(wrong_shape)
            text = f"engine wrong: the gradient of {names} has another shape than the leaf"
            return Finding("failed", {"leaf": names, "diagnosis": "shape", "verdict": text})
        ours, size = inner(self.ours, tangents)
        theirs, size_theirs = inner(self.theirs, tangents)
        size = max(size, size_theirs) if np.isfinite(size) else size_theirs
        size = max(size, self._underflow())
        evidence: dict[str, Any] = {"engine": ours, "reference": theirs, "compared": 1}
        if case.program.takes_hermitian and any(map(hermitian, tangents.values())):
            evidence["note"] = _HERMITIAN
        slack = self.entrywise.slack(size, tangents)
        reason = ""
        exact = None
        try:
            exact = of_step(self._step(tangents), self.cotangents)
        except (Unsupported, EngineError) as error:
            reason = str(error)
        if exact is not None and abs(ours - exact.value) <= exact.bound + slack:
            if not exact.ties:
                return Finding("passed", evidence | shown(exact))
            if case.context.independent and abs(ours - theirs) <= slack:  # that piece's derivative
                note = {"diagnosis": "kink", "verdict": _CONVENTION, "ties": exact.ties}
                return Finding("passed", evidence | shown(exact) | note)
        candidate = self.entrywise.candidate(ours, size, tangents)
        kinked = exact is not None and exact.ties > 0
        opinion = self.entrywise.along(tangents, replace(candidate, kinked=kinked))
        if reason:
            evidence["fallback_reason"] = reason
        return self._against(opinion, exact, ours, theirs, size, tangents, evidence)

    def _step(self, tangents: Mapping[str, Array]) -> Step:
        program, values = self.smooth
        own = program is self.case.numerical[0]
        return self.case.step(tangents) if own else Step(program, values, tangents)

    def _against(
        self,
        opinion: Opinion,
        exact: Opinion | None,
        ours: float,
        theirs: float,
        size: float,
        tangents: dict[str, Array],
        evidence: dict[str, Any],
    ) -> Finding:
        case = self.case
        slack = self.entrywise.slack(size, tangents)
        evidence = evidence | shown(opinion)
        agrees = abs(ours - theirs) <= slack
        if opinion.kink is not None:
            if agrees:
                return self._at_a_kink(opinion, ours, slack, tangents, evidence)
            ruling = arbitration.decide(ours, theirs, [opinion], case.reference.name)
            kinked = {"diagnosis": "kink"} | ruling.evidence()
            if opinion.kink.holds(np.array([ours, theirs]), slack):
                return Finding("passed", evidence | kinked)  # which of the two, vjp judges
            outside = self.entrywise.outside(self.ours, self.theirs)
            if outside is None:
                return Finding(
                    "inconclusive", evidence | {"diagnosis": "kink", "reason": _TOO_MANY}
                )
            if not outside:  # where several kinks meet, what is right by each can leave the slopes
                text = "several kinks meet here, and each entry by itself is one of its derivatives"
                return Finding("passed", evidence | kinked | {"verdict": text})
            kinked |= outside | blame.of_gradient(case)
            finding = Finding("failed", evidence | kinked)
            return self._second_look(finding, tangents, abs(ours - theirs))
        if not np.isfinite(opinion.value):
            return Finding("inconclusive", evidence | {"reason": opinion.reason or _NOTHING})
        tied = exact is not None and exact.ties > 0 and agrees and case.context.independent
        if tied and not _settles(opinion, ours, slack, size):
            note = {"diagnosis": "kink", "verdict": _CONVENTION, "ties": exact.ties if exact else 0}
            return Finding("passed", evidence | note)
        error = abs(ours - opinion.value)
        if error <= opinion.bound + slack or self._within_spread(error - opinion.bound, tangents):
            blind = opinion.bound + slack > BLIND * max(abs(ours), abs(opinion.value))
            if blind and case.relative(case.coarsest) > FINE:
                why = (
                    "a factor of 2 would not be seen in it: the bound is "
                    f"{opinion.bound:.1e}, and {slack:.1e} is allowed of {abs(ours):.1e}"
                )
                return Finding("inconclusive", evidence | {"reason": why})
            if opinion.decides(size, self.entrywise.poor):
                return Finding("passed", evidence)
            if not agrees and exact is not None and not exact.ties and opinion.bound > slack:
                opinion = exact
            else:
                why = opinion.reason or f"the bound is {opinion.bound:.1e} of {size:.1e}"
                return Finding("inconclusive", evidence | {"reason": why})
        contradict = exact is not None and not exact.ties and _contradict(exact, opinion, slack)
        largest = max(abs(ours), abs(opinion.value), abs(exact.value) if exact else 0.0)
        if contradict and not self.case.hidden(self.cotangents, tangents, largest):
            why = "the complex step and the stencil contradict each other"
            both = {"oracles": {o.oracle: o.value for o in (exact, opinion) if o is not None}}
            return Finding("inconclusive", evidence | both | {"reason": why})
        if agrees and case.rounds and exact is None:
            why = "the function rounds to a narrower dtype: what the stencil sees are its steps"
            return Finding("inconclusive", evidence | {"reason": why})
        narrow = {n: t.astype(case.values[n].dtype) for n, t in tangents.items()}
        lost = cancellation.lost(case.reference, case.program, case.values, self.cotangents, narrow)
        lost = max(lost, self._narrowed(tangents), self._vanishing(tangents, ours, opinion))
        if agrees or abs(ours - theirs) <= lost:
            if opinion.reason and opinion.bound > arbitration.DECISIVE * error:
                return Finding("inconclusive", evidence | {"reason": opinion.reason})
            if error <= opinion.bound + lost:
                ruling = arbitration.cancelled(error, lost)
                return Finding("precision", evidence | ruling.evidence())
            if self._lossy(ours, opinion.value, tangents):
                text = "precision: in this dtype another engine's rules lose as much accuracy here"
                return Finding("precision", evidence | {"verdict": text})
            if self.entrywise.among(tangents, ours, slack):
                text = "several pieces meet here; the gradient lies among those of their slopes"
                return Finding("passed", evidence | {"diagnosis": "kink", "verdict": text})
        ruling = arbitration.decide(ours, theirs, [opinion], case.reference.name)
        verdict = ruling.evidence()
        if agrees:
            verdict |= self._both_wrong(opinion)
        else:
            verdict |= self._place(tangents)
        if not (agrees and case.context.independent):
            verdict |= blame.of_gradient(case)
        error = abs(ours - opinion.value)
        if "numerical" in verdict:
            error = abs(verdict.get("engine", ours) - verdict["numerical"])
        verdict |= {"absolute": error, "relative": error / abs(verdict.get("numerical") or 1.0)}
        finding = Finding(arbitration.outcome(verdict["verdict"]), evidence | verdict)
        return finding if agrees else self._second_look(finding, tangents, abs(ours - theirs))

    def _second_look(self, finding: Finding, tangents: dict[str, Array], gap: float) -> Finding:
        case = self.case

        def ask(program: Program, values: Values) -> dict[str, Array | None]:
            found = case.reference.vjp(program, values, self.cotangents).gradients
            return {"along": np.array(inner(found, tangents)[0])}

        return doubt.second_look(case, NumericalCheck(), finding, ask, "along", 0, gap)

    def _at_a_kink(
        self,
        opinion: Opinion,
        ours: float,
        slack: float,
        tangents: dict[str, Array],
        evidence: dict[str, Any],
    ) -> Finding:
        """Held to the reference's convention; and where there is no other, to the two slopes.

        Where several kinks meet, a convention right for each can leave the slopes along a joint
        direction, so each entry is then looked at alone.
        """
        assert opinion.kink is not None
        text = "the function has a kink here; the gradient is the reference's convention"
        passed = Finding("passed", evidence | {"diagnosis": "kink", "verdict": text})
        if self.case.context.independent or opinion.kink.holds(np.array(ours), slack):
            return passed
        outside = (
            {}
            if self.entrywise.among(tangents, ours, slack)
            else self.entrywise.outside(self.ours, self.theirs)
        )
        if outside is None:
            return Finding("inconclusive", evidence | {"diagnosis": "kink", "reason": _TOO_MANY})
        if not outside:
            return passed
        said = {"diagnosis": "kink"} | outside | blame.of_gradient(self.case)
        return Finding("failed", evidence | said)

    def _lossy(self, ours: float, truth: float, tangents: dict[str, Array]) -> bool:
        """Whether the witness's gradient is off by as much as the engine's, and both by little."""
        case = self.case
        if case.context.independent:
            return False
        try:
            found = case.witness.vjp(case.program, case.values, self.cotangents).gradients
        except (EngineError, Unsupported):
            return False
        theirs, _ = inner(found, tangents)
        most = little(case.dtype) * abs(truth)
        errors = sorted((abs(ours - truth), abs(theirs - truth)))
        return bool(errors[1] <= min(most, arbitration.ALIKE * errors[0]))

    def _narrowed(self, tangents: dict[str, Array]) -> float:
        """What a dtype narrower than float64 costs two engines, also of terms within one call."""
        if not self.case.context.independent:  # else a fault in that dtype alone is measured
            return 0.0
        if not self.case.narrowed:
            return 0.0
        total = 0.0
        for name, tangent in tangents.items():
            size = np.abs(flat(tangent))
            measured = self.case.narrowed.get(name, 0.0) * float(size.sum())
            moved = float((self.case.rounding(name) * size).sum())  # as vjp compares the two
            total += max(measured, moved)
        return total

    def _vanishing(self, tangents: dict[str, Array], ours: float, opinion: Opinion) -> float:
        """What rounding leaves of terms as large as outputs over values; 0 beside larger values."""
        natural = self.case.natural
        total = sum(
            VANISHING * float(np.finfo(self.case.values[n].dtype).eps) * natural[n] * scale(t)
            for n, t in tangents.items()
        )
        largest = max(abs(ours), abs(opinion.value))
        if largest <= total:
            return total
        return self.case.hidden(self.cotangents, tangents, largest)

    def _both_wrong(self, opinion: Opinion) -> dict[str, Any]:
        """Engine and reference agree and are wrong: which leaf, which entries, and how."""
        case = self.case
        who = "engine and reference" if case.context.independent else "engine"
        found: dict[str, Any] = {
            "verdict": f"{who} wrong: {opinion.oracle} gives another value",
            "diagnosis": "reference" if case.context.independent else "wrong",
        }
        leaves = case.program.leaves
        for leaf in sorted(leaves, key=self._holds) if leaves[1:] else leaves:
            gradient = self.ours.get(leaf.name)
            if gradient is None:
                gradient = np.zeros_like(case.values[leaf.name])
            place = self.entrywise.wrong(leaf.name, gradient)
            if place:
                return found | place | {"leaf": case.alias(leaf.name)}
        return found

    def _holds(self, leaf: Input) -> bool:
        """Whether a leaf's gradient holds along a direction of its own; one that does comes last.

        To look at each of its entries takes as many scans as it has entries.
        """
        case = self.case
        tangents = {i.name: np.zeros_like(case.values[i.name]) for i in case.program.leaves}
        tangents[leaf.name] = case.direction("leaf", 0)[leaf.name]
        ours, size = inner(self.ours, tangents)
        opinion = self.entrywise.along(tangents, self.entrywise.candidate(ours, size, tangents))
        return abs(ours - opinion.value) <= opinion.bound + self.entrywise.slack(size, tangents)

    def _aligned(self, name: str, tangent: Array) -> Array:
        """The direction with the signs of a leaf's gradient, where it is real and has such.

        A sign that an error within `rtol` may have made is none.
        """
        gradient = self.ours.get(name)
        if gradient is None or gradient.shape != tangent.shape or gradient.dtype.kind == "c":
            return tangent
        signed = np.isfinite(gradient)
        signed &= np.abs(gradient) > 2 * self.case.settings.rtol * scale(gradient)
        return np.where(signed, np.abs(tangent) * np.sign(gradient), tangent)

    def _silence(self, tangents: dict[str, Array]) -> bool:
        """Zero the directions in which the reference is not finite; whether any is left."""
        left = False
        for name, tangent in tangents.items():
            gradient = self.theirs.get(name)
            if gradient is not None and gradient.shape == tangent.shape:
                known = np.isfinite(gradient)
                if not known.all():
                    tangents[name] = tangent = np.where(known, tangent, 0)
            left = left or bool(tangent.any()) or tangent.size == 0
        return left

    def _underflow(self) -> float:
        """The terms of a gradient that is lost below the normal numbers of the dtype."""
        entries = sum(self.case.values[i.name].size for i in self.case.program.leaves)
        return entries * tiny(self.case.coarsest)

    def _within_spread(self, excess: float, tangents: dict[str, Array]) -> bool:
        """Whether rounding at the inputs alone moves the reference's gradient as far."""
        moved = 0.0
        for name, spread in self.case.spread.items():
            if name in tangents:
                moved += float(np.abs(spread * flat(tangents[name])).sum())
        return excess <= SPREADS * moved

    def _place(self, tangents: dict[str, Array]) -> dict[str, Any]:
        """The leaf and the entries that are to blame, against the reference."""
        for leaf in self.case.program.leaves:
            ours, theirs = self.ours.get(leaf.name), self.theirs.get(leaf.name)
            difference = compare(ours, theirs, relative=self.case.relative(leaf.dtype))
            if difference is not None:
                place = {"leaf": self.case.alias(leaf.name)}
                if difference.index is not None:
                    return place | {"index": list(difference.index)}
                return place
        return {}


def _settles(opinion: Opinion, ours: float, slack: float, size: float) -> bool:
    return opinion.decides(size, POOR) and abs(ours - opinion.value) <= opinion.bound + slack


def _contradict(a: Opinion, b: Opinion, slack: float) -> bool:
    return abs(a.value - b.value) > a.bound + b.bound + slack
