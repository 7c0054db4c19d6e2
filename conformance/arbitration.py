"""Who is wrong: every disagreement ends in one sentence, decided by a derivative without rules.

The sentence begins with its class, and a check's outcome follows from that: "engine wrong",
"reference wrong", "engine and reference wrong" and "both defensible" (a kink, where the engine does
not keep the reference's convention) fail; "precision" and "inconclusive" are outcomes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.errors import EngineError, Unsupported
from conformance.oracles import cancellation
from conformance.oracles.directional import Opinion, by_complex_step, by_stencil
from conformance.oracles.pairs import FAINT
from conformance.program import Array, Input

if TYPE_CHECKING:
    from conformance.checks.base import Case
    from conformance.checks.compare import Difference
    from conformance.diagnosis import Diagnosis

LOSSY = 1e-6  # of the derivative: two errors below are lost accuracy where they are of one size
ALIKE = 100.0  # which is within such a factor
DECISIVE = 0.3  # of the disagreement: a bound above it does not say who is right
NEAR = 0.1  # of the disagreement, beside the bound: a value so close is the derivative


@dataclass(frozen=True)
class Ruling:
    """The sentence, and the numerical derivative that it rests on, where one was taken."""

    verdict: str
    opinion: Opinion | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def evidence(self) -> dict[str, Any]:
        """The keys that a Result carries."""
        evidence: dict[str, Any] = {"verdict": self.verdict, **self.more}
        if self.opinion is not None:
            evidence |= shown(self.opinion)
        return evidence


def outcome(verdict: str) -> str:
    """What a check reports with that sentence: failed, precision or inconclusive."""
    named = verdict.partition(":")[0]
    return named if named in ("precision", "inconclusive") else "failed"


def of_two_modes(verdict: str) -> str:
    """The sentence where forward mode stood for the engine, and its backward pass beside it."""
    for said, meant in (
        ("engine and reference wrong", "engine wrong (both modes)"),
        ("precision: engine and reference both", "precision: both modes of the engine"),
        ("reference wrong", "engine wrong (backward)"),
        ("engine wrong", "engine wrong (forward)"),
    ):
        if verdict.startswith(said):
            return meant + verdict.removeprefix(said)
    return verdict


def shown(opinion: Opinion) -> dict[str, Any]:
    """An Opinion as evidence."""
    evidence: dict[str, Any] = {
        "numerical": opinion.value,
        "bound": opinion.bound,
        "oracle": opinion.oracle,
    }
    if opinion.reason:
        evidence["reason"] = opinion.reason
    if opinion.kink is not None:
        left, right = float(opinion.kink.left[0]), float(opinion.kink.right[0])
        evidence["slopes"] = {"left": left, "right": right, "jump": opinion.kink.jump}
    return evidence


def by_form(difference: Difference, said: Diagnosis, due: str = "") -> Ruling:
    """Where shape, dtype or presence differ there is nothing to measure; `due` is the dtype that
    a derivative has to have."""
    if difference.kind == "dtype" and difference.left == due:
        return Ruling(f"reference wrong: the gradient's dtype is {difference.right}, not {due}")
    return Ruling(f"engine wrong: {said.sentence}")


def cancelled(error: float, rounding: float) -> Ruling:
    """Where the terms of a derivative cancel, so that rounding on the way is all that differs."""
    return Ruling(
        f"precision: terms cancel, and rounding on the way may cost {rounding:.1e}; "
        f"the two differ by {error:.1e}"
    )


def entry(case: Case, leaf: Input, difference: Difference) -> Ruling:
    """Decide on the worst entry of a leaf's gradient by the derivative with respect to it alone."""
    assert difference.index is not None
    value = case.values[leaf.name]
    wide = np.complex128 if value.dtype.kind == "c" else np.float64
    unit = np.zeros(value.shape, wide)
    one, ours, theirs = difference.part
    size = abs(value[difference.index])
    step = float(size) if 0 < size < FAINT or 1e-3 < size < np.inf else 1.0
    unit[difference.index] = step * one
    if difference.kind == "value":
        narrow = {leaf.name: np.asarray(unit / step, value.dtype)}
        given = (case.program, case.values, case.steady_cotangents, narrow)
        rounding = cancellation.lost(case.reference, *given)
        if cancellation.silent(case.program):
            rounding = case.narrowed.get(leaf.name, 0.0)
        elif difference.error <= rounding:
            rounding = min(rounding, case.narrowed.get(leaf.name, np.inf))
        if difference.error <= rounding:
            return cancelled(difference.error, rounding)
    opinions = opinions_on(case, case.steady_cotangents, {leaf.name: unit})
    scaled = [_per_unit(o, step) for o in opinions]
    ruling = decide(ours, theirs, scaled, case.reference.name, case.nothing())
    if ruling.verdict.startswith(("reference wrong", "engine and reference wrong")):
        # terms of one call may cancel too: what that costs the reference nearby as well is rounding
        rounding = case.narrowed.get(leaf.name, 0.0)
        if difference.error <= rounding:
            return cancelled(difference.error, rounding)
    return ruling


def opinions_on(
    case: Case, cotangents: list[Array | None], tangents: Mapping[str, Array]
) -> list[Opinion]:
    """What the oracles without rules say along a direction, the strongest first."""
    whole = {
        leaf.name: tangents.get(leaf.name, np.zeros(leaf.shape)) for leaf in case.program.leaves
    }
    found = []
    reason = ""
    try:
        found.append(by_complex_step(*case.numerical, cotangents, whole))
    except (Unsupported, EngineError) as error:
        reason = str(error)
    try:
        found.append(by_stencil(case.reference, *case.numerical, cotangents, whole))
    except (Unsupported, EngineError) as error:
        reason = f"{reason}; {error}" if reason else str(error)
    return found or [Opinion(float("nan"), float("inf"), "none", reason)]


def decide(
    ours: float, theirs: float, opinions: list[Opinion], reference: str, nothing: float = 0.0
) -> Ruling:
    """The sentence for two values that differ, given numerical opinions on the same derivative.

    A derivative that is exactly zero has no size of its own to hold rounding against: beside it
    `nothing` is no difference.
    """
    gap = abs(ours - theirs)
    kinked = next((o for o in opinions if o.kink is not None), None)
    blurred = kinked is not None and _blurred(kinked, gap)
    if blurred:  # the piece that was chosen there is known better than the slopes are
        kinked = None
    if kinked is not None and kinked.kink is not None:
        slack = 1e-9 * max((abs(v) for v in (ours, theirs) if np.isfinite(v)), default=0.0)
        kink = kinked.kink
        inside, theirs_inside = (bool(kink.holds(np.array(v), slack)) for v in (ours, theirs))
        where = "the function jumps here" if kink.jump else "the function has a kink here"
        if inside and theirs_inside:
            text = (
                f"both defensible (kink): {where}, and {ours:.6g} is a slope of it as well; "
                f"by {reference}'s convention it is {theirs:.6g}"
            )
        elif inside:
            text = f"reference wrong: {where}, and its value is outside the one-sided slopes"
        elif theirs_inside:
            text = f"engine wrong: {where}, and its value is outside the one-sided slopes"
        else:
            text = f"engine and reference wrong: {where}, and both are outside the one-sided slopes"
        return Ruling(text, kinked)
    plain = [
        o for o in opinions if np.isfinite(o.value) and o.kink is None and (blurred or not o.ties)
    ]
    sharp = [o for o in plain if _decisive(ours, theirs, o)]
    verdicts = {_side(ours, theirs, o): o for o in reversed(sharp)}
    names = [v for v in verdicts if v]
    sharpest = min(names, key=lambda v: verdicts[v].bound, default="")
    if sharpest and all(_agree(verdicts[v], verdicts[sharpest]) for v in names):
        opinion = verdicts[sharpest]
        if opinion.value == 0 == opinion.bound and gap <= nothing:
            text = f"precision: the derivative is exactly zero, and rounding leaves {gap:.1e} of it"
            return Ruling(text, opinion)
        return Ruling(_SENTENCES[sharpest].format(reference=reference, o=opinion), opinion)
    if names:
        text = "inconclusive: the numerical oracles contradict each other"
        both = {o.oracle: o.value for o in sharp}
        return Ruling(text, sharp[0], {"oracles": both, "reason": _said(text)})
    best = min(plain or opinions, key=lambda o: o.bound)
    if best.ties and not plain:
        text = (
            "both defensible (kink): a switch is met exactly where it switches; "
            f"by {reference}'s convention it is {theirs:.6g}"
        )
        return Ruling(text, best)
    why = best.reason or f"the bound {best.bound:.1e} does not separate the two values"
    return Ruling(f"inconclusive: {why}", best, {"reason": why})


_SENTENCES = {
    "engine": "engine wrong: {o.oracle} gives {o.value:.10g} (bound {o.bound:.1e}), as {reference}",
    "reference": "reference wrong: {o.oracle} gives {o.value:.10g} (bound {o.bound:.1e}), as the "
    "engine",
    "lossy": "precision: engine and reference both lose accuracy: {o.oracle} gives {o.value:.10g} "
    "(bound {o.bound:.1e})",
    "both": "engine and reference wrong: {o.oracle} gives {o.value:.10g} (bound {o.bound:.1e})",
}


def _agree(one: Opinion, other: Opinion) -> bool:
    """Whether two values are one within their bounds."""
    return abs(one.value - other.value) <= one.bound + other.bound


def _decisive(ours: float, theirs: float, opinion: Opinion) -> bool:
    """Whether the bound tells the two values apart, or the derivative from both."""
    gap = abs(ours - theirs)
    if not np.isfinite(gap):  # what is finite beside nan or inf: the bound must be small beside it
        finite = [abs(v) for v in (ours, theirs, opinion.value) if np.isfinite(v)]
        return bool(opinion.bound <= DECISIVE * max(1.0, *finite))
    nearer = min(abs(ours - opinion.value), abs(theirs - opinion.value))
    return opinion.bound <= DECISIVE * max(gap, nearer)


def _blurred(opinion: Opinion, gap: float) -> bool:
    """Whether the slopes at a kink are known too badly to tell two values apart."""
    kink = opinion.kink
    if kink is None or not np.isfinite(gap):
        return False
    return bool(gap <= max(kink.left_bound.max(), kink.right_bound.max()))


def _side(ours: float, theirs: float, opinion: Opinion) -> str:
    """Who is wrong, or nothing where the opinion does not say."""
    gap = abs(ours - theirs)
    slack = opinion.bound + (NEAR * gap if np.isfinite(gap) else 1e-6 * abs(opinion.value))
    near_ours = abs(ours - opinion.value) <= slack
    near_theirs = abs(theirs - opinion.value) <= slack
    if near_ours and near_theirs:
        return ""
    if near_theirs:
        return "engine"
    if near_ours:
        return "reference"
    errors = sorted((abs(ours - opinion.value), abs(theirs - opinion.value)))
    lossy = errors[1] <= min(LOSSY * abs(opinion.value), ALIKE * errors[0])
    return "lossy" if lossy else "both"


def _said(verdict: str) -> str:
    """A sentence without its class."""
    return verdict.partition(": ")[2]


def _per_unit(opinion: Opinion, step: float) -> Opinion:
    """An Opinion along `step` times a unit direction, as one along the unit."""
    kink = opinion.kink
    if kink is not None:
        kink = replace(
            kink,
            left=kink.left / step,
            right=kink.right / step,
            left_bound=kink.left_bound / step,
            right_bound=kink.right_bound / step,
        )
    return replace(opinion, value=opinion.value / step, bound=opinion.bound / step, kink=kink)
