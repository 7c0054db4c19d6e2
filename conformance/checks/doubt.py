"""A second look at a failure: whether rounding on the way, and no call, is what differs.

Two right engines round differently. Where the terms of a derivative cancel, and where an operand
comes to lie on the other side of a kink or a jump, that is all there is to see. So each call is
judged alone, on the values that it had, and the reference is asked how far rounding moves its own
answer. Within a call, what is rounded beside a 1 does not move with an epsilon of the inputs: there
the two differ by either sign at values nearby.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from conformance import arbitration
from conformance.checks.base import Case, Check, Finding, ReferenceFailed
from conformance.checks.parting import alone
from conformance.engines.base import Engine
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.noise import DRAWS, Ask, changes
from conformance.oracles.pairs import flat
from conformance.oracles.torch_autograd import SPREADS, SWITCH, perturbed, scale
from conformance.program import Array, Program, Values

AMPLIFIED = 64.0  # epsilons: rounding then moves an answer by so much more, and a jump does not
PROPORTIONAL = AMPLIFIED / 8
LARGEST = 4.0  # times the largest change of DRAWS, where a fault of 5e-6 in float32 is to be seen
FAINT = 1e4  # epsilons of the largest gradient: no jump moves an answer by so little
FAR = 64.0  # times what two draws show: no more are needed
NEARBY, POINTS = 1e8, 16  # epsilons by which values are moved, so many times, to be rounded anew
SLIGHT = 2e-11  # of a leaf's scale: what is off by more is wrong, whatever its sign is elsewhere
SCATTERED = "rounding within a call: at values nearby the two engines differ by either sign"
DECIDED = "rounding on the way decides on which side of {what} an operand is; no call differs alone"


def second_look(
    case: Case, check: Check, finding: Finding, ask: Ask, key: str, entry: int, error: float
) -> Finding:
    """The finding, or what it comes to where no rule is to blame, or one of a call alone.

    `ask` gives the reference's answer for a Program and its values: of that the entry of `key`,
    among real and imaginary parts, differs by `error`. The calls of a model are not judged alone.
    """
    if finding.outcome != "failed" or not _composed(case.program.live()):
        return finding
    jump = check.name == "value"
    verdict = str(finding.evidence.get("verdict"))
    kinked = jump or "slopes" in finding.evidence or "(kink)" in verdict
    both = verdict.startswith("engine and reference wrong")  # which they are where many tie
    if case.loose and kinked:
        return finding
    if (kinked or both) and not case.loose:
        blamed = _alone(case, check)
        if blamed is not None:
            return Finding(blamed.outcome, finding.evidence | blamed.evidence)
    if kinked:
        what, decided = ("a jump", _jumps) if jump else ("a kink", _flips)
        if not decided(case, ask, key, entry, error):
            return finding
        why = DECIDED.format(what=what)
        said = {"reason": why, "verdict": f"inconclusive: {why}"}
        return Finding("inconclusive", finding.evidence | said)
    if error > FAR * _moves(case, ask, key, entry, 1.0, draws=2).max(initial=0.0):
        return finding
    little = _moves(case, ask, key, entry, 1.0)
    rounding = LARGEST * float(little.max(initial=0.0))
    if error > rounding:
        return finding
    much = _moves(case, ask, key, entry, AMPLIFIED)
    if not little.size or not much.size:
        return finding
    gradients = case.reference_vjp.gradients
    proportional = np.median(much) >= PROPORTIONAL * np.median(little)
    if proportional or little.max() <= faint(case.coarsest, gradients):
        ruling = arbitration.cancelled(error, rounding)
        return Finding("precision", finding.evidence | ruling.evidence())
    return finding


Derivative = Callable[[Engine, Values], Array | None]


def unless_scattered(
    case: Case,
    finding: Finding,
    key: str,
    right: Array,
    entry: int,
    error: float,
    derivative: Derivative,
) -> Finding:
    """The finding, or precision where rounding within a call is all that differs.

    `right` is the reference's derivative, and `derivative` gives an engine's at values nearby.
    """
    if finding.outcome != "failed" or not case.context.independent:
        return finding
    if not _scattered(case, key, right, entry, error, derivative):
        return finding
    return Finding("precision", finding.evidence | {"verdict": f"precision: {SCATTERED}"})


def _scattered(
    case: Case, key: str, right: Array, entry: int, error: float, derivative: Derivative
) -> bool:
    """Whether two derivatives differ by little, and by either sign at values nearby.

    A rule that is wrong is wrong on one side: the mean of what the two differ by is then more than
    its deviation.
    """
    if error > SLIGHT * scale(right):
        return False
    rng, gaps = case.rng("scattered", key), []
    for _ in range(POINTS):
        near = perturbed(case.program, case.values, rng, NEARBY)
        try:
            ours, theirs = (derivative(e, near) for e in (case.engine, case.reference))
        except (EngineError, Unsupported):
            return False
        if ours is None or theirs is None:
            return False
        gaps.append(float(flat(ours)[entry] - flat(theirs)[entry]))
    return bool(abs(np.mean(gaps)) <= np.std(gaps))


def faint(dtype: str, gradients: Mapping[str, Array | None]) -> float:
    """A change of a gradient's entry that no jump makes: rounding of the backward pass itself.

    It is measured by the largest gradient of all leaves: that of a key's bias is 0 in any
    attention, of terms as large as the gradient of the values.
    """
    largest = max((scale(g) for g in gradients.values() if g is not None), default=0.0)
    return FAINT * float(np.finfo(dtype).eps) * largest


def blameless(case: Case, check: Check) -> bool:
    """Whether several calls make up the case, and the check passes each alone."""
    return _composed(case.program.live()) and _alone(case, check) is None


def entry_of(array: Array, index: tuple[int, ...], other: Array) -> int:
    """The place, among real and imaginary parts, of the part of an entry that differs more."""
    place = int(np.ravel_multi_index(index, array.shape)) if array.shape else 0
    if array.dtype.kind != "c":
        return place
    with np.errstate(invalid="ignore"):
        gaps = np.abs(flat(array) - flat(other))[2 * place : 2 * place + 2]
    return 2 * place + int(gaps[1] > gaps[0])


def _composed(program: Program) -> bool:
    """Whether there is rounding on the way: several calls, or one that uses a tensor twice."""
    uses = [ref for call in program.calls for ref in call.refs]
    return len(program.calls) > 1 or len(set(uses)) < len(uses)


def _jumps(case: Case, ask: Ask, key: str, entry: int, error: float) -> bool:
    """Whether rounding moves the answer as far as the two differ."""
    return bool(_moves(case, ask, key, entry, SPREADS).max(initial=0.0) >= error)


def _flips(case: Case, *_: object) -> bool:
    """Whether rounding moves the reference's gradient by more than rounding: to another piece."""

    def ask(program: Program, values: Values) -> dict[str, Array | None]:
        return case.reference.vjp(program, values, case.cotangents).gradients

    gradients = case.reference_vjp.gradients
    return any(
        _moves(case, ask, name, slice(None), SPREADS).max(initial=0.0) > SWITCH * scale(gradient)
        for name, gradient in gradients.items()
        if gradient is not None and gradient.size
    )


def _moves(
    case: Case, ask: Ask, key: str, entry: int | slice, epsilons: float, draws: int = DRAWS
) -> Array:
    rng = case.rng("noise", key, str(epsilons))
    given = (case.reference, case.program, case.values)
    return changes(*given, ask, key, entry, rng, epsilons, draws)


def _alone(case: Case, check: Check) -> Finding | None:
    """What the first call says that fails alone, a leaf for each use, or that is not precise.

    None where all pass.
    """
    imprecise = None
    for call in case.program.live().calls:
        try:
            found = list(check.run(alone(case, call)))
        except (EngineError, Unsupported, ProgramError, ReferenceFailed):
            continue  # it cannot be cut out
        for said in found:
            if said.outcome not in ("failed", "precision"):
                continue
            text = f"{call.name} = {call.target}: it is the same alone"
            verdict = str(said.evidence.get("verdict", ""))
            about = {"verdict": verdict, "first_call": text, "culprit": call.target}
            if said.outcome == "failed":
                return Finding("failed", about)
            imprecise = imprecise or Finding("precision", about)
    return imprecise
