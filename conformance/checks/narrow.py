"""narrow: the engine's gradients in float32 against its own in float64, at the same numbers.

A rule that is right in float64 can overflow, cancel or hard-code a constant in float32. How far a
right float32 gradient may be off is measured at the point: by what an epsilon at the inputs does,
and where that does not explain it, by all that rounding does on the way (`checks.lost`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from conformance import diagnosis
from conformance.checks.base import VANISHING, Case, Finding, ReferenceFailed
from conformance.checks.compare import Difference, compare, measures
from conformance.checks.doubt import entry_of
from conformance.checks.lost import Rounding
from conformance.checks.numerical import NumericalCheck
from conformance.errors import EngineError, Unsupported
from conformance.oracles.directional import WIDE, another, apart, drawn_by, widest
from conformance.oracles.pairs import flat
from conformance.oracles.torch_autograd import SPREADS, Gradients, scale
from conformance.program import Array, Input, Program, Symbol, Values, map_tree

_NARROW = {"float64": "float32", "complex128": "complex64"}
_WIDE = {narrow: wide for wide, narrow in _NARROW.items()}
APART = 0.5  # of the values' scale: rounding moves them by less
UNDERFLOW = 2.0**20  # of float32's smallest normal numbers: terms below them are lost
FACTOR = 4.0  # times the tolerance of two float32 results: one whole forward and backward in it
KINK = "rounding in float32 decides on which side of a kink or a jump an operand is"
LOST = "rounding in float32 on the way may cost the gradient {:.1e}; it is off by {:.1e}"
CANCELLED = "terms that cancel in float32 may cost the gradient {:.1e}; it is off by {:.1e}"


class NarrowCheck:
    """float32 beside float64."""

    name = "narrow"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all leaves; none where no leaf has a dtype with a narrower one."""
        program = case.program
        if not any(i.dtype in (*_NARROW, *_WIDE) for i in program.leaves):
            wrong = _wrong_as_well(case, program, case.values)
            yield from [] if wrong is None else [wrong]
            return
        narrow, low = cast(program, case.values, _NARROW)
        wide, high = cast(narrow, low, _WIDE)
        cotangents = [_in(_NARROW, c) for c in case.steady_cotangents]
        dtype = "float32"
        try:
            ours = case.engine.vjp(narrow, low, cotangents)
            drawn, dtype = drawn_by(narrow), "float64"
            right = case.engine.vjp(wide, high, [_in(_WIDE, c) for c in cotangents])
        except (EngineError, Unsupported) as error:
            text = f"it does not run in {dtype}: {str(error).strip().splitlines()[0]}"
            yield Finding("unsupported", {"reason": text})
            return
        off = apart(ours.outputs, right.outputs)
        own = program.opaque
        if off > (another(narrow) if own else APART) or drawn_by(wide) != drawn:
            why = "numbers drawn anew, a kernel of one dtype, " if own else ""
            text = f"are others: {why}signs that are free, or a jump"
            text = "in float32 " + text if np.isfinite(off) else "are not finite in float32"
            yield Finding("unsupported", {"reason": f"its values {text}"})
            return
        programs = (narrow, low), (wide, high)
        rounding = Rounding(case, *programs, tuple(cotangents), right.gradients, off)
        found = _compared(case, rounding, ours.gradients)
        yield (_wrong_as_well(case, narrow, low) if found.outcome == "passed" else None) or found


def _wrong_as_well(case: Case, narrow: Program, low: Values) -> Finding | None:
    """What is wrong of a more precise gradient, where it is a less precise one that was asked for.

    Float32 hides a fault below 2e-5, bfloat16 one of 5 %; float64 shows it at the same numbers, or
    float32 in a kernel that knows no more.
    """
    less = any(i.dtype in WIDE for i in case.program.leaves)
    rounded = any(call.through and call.opaque is None for call in case.program.calls)
    widened, values = widest(case.engine, narrow, low) if less or rounded else (narrow, low)
    if widened is narrow:
        return None
    near = case.context.case(replace(case.sample, program=widened, values=values), case.source)
    try:
        found = list(NumericalCheck().run(near))
    except (EngineError, Unsupported, ReferenceFailed):
        return None
    wrong = next((f for f in found if f.outcome == "failed"), None)
    if wrong is None:
        return None
    said = wrong.evidence.get("description", "the gradient is wrong")
    evidence = wrong.evidence | {"description": f"{said}, in more precision as well"}
    return replace(wrong, evidence=evidence, repro=wrong.repro or near.repro(evidence))


def _in(dtypes: Mapping[str, str], array: Array | None) -> Array | None:
    return None if array is None else array.astype(dtypes.get(array.dtype.name, array.dtype.name))


def _compared(case: Case, rounding: Rounding, gradients: Gradients) -> Finding:
    """The finding for all leaves: the first that is wrong, else what is lost, else passed."""
    narrow, truth = rounding.narrow, rounding.truth
    compared = 0
    excused: Finding | None = None
    for leaf in narrow[0].leaves:
        found, right = gradients.get(leaf.name), truth[leaf.name]
        if found is not None and found.dtype.name != leaf.dtype:
            text = f"the gradient of a {leaf.dtype} leaf is {found.dtype.name}"
            said = {"leaf": case.alias(leaf.name), "diagnosis": "dtype", "description": text}
            return Finding("failed", said | {"verdict": f"engine wrong: {text}"})
        if found is None or right is None:
            if (found is None) is (right is None):
                continue
            text = "a gradient arises in one of float32 and float64 alone"
            said = {"leaf": case.alias(leaf.name), "verdict": f"engine wrong: {text}"}
            return Finding("failed", said | {"diagnosis": "float32"})
        compared += found.size
        finding = _judged(case, rounding, leaf, found, right)
        if finding is not None and finding.outcome == "failed":
            return finding
        excused = excused or finding
    return excused or Finding("passed", {"compared": compared})


def _judged(
    case: Case, rounding: Rounding, leaf: Input, found: Array, right: Array
) -> Finding | None:
    """What is to be said of a leaf's gradient; None where it holds."""
    limits = np.finfo(found.dtype)
    eps = float(limits.eps)
    ours, relative = found.astype(right.dtype), FACTOR * case.relative(leaf.dtype)
    allowed = 2 * eps * np.abs(flat(right)) + UNDERFLOW * float(limits.tiny)
    difference = compare(ours, right, relative=relative, absolute=allowed)
    if difference is not None:
        allowed = allowed + SPREADS * rounding.spread[leaf.name]
        difference = compare(ours, right, relative=relative, absolute=allowed)
    if difference is None:
        return None
    natural = VANISHING * eps * case.natural[leaf.name]
    if difference.kind == "value" and max(scale(found), scale(right)) <= natural:
        return None  # both are no more than what rounding leaves of terms that cancel
    if difference.kind == "nan" and scale(right) > float(limits.max):
        return None  # the right gradient is beyond float32
    evidence = measures(difference, leaf.dtype) | {"leaf": case.alias(leaf.name)}
    if difference.index is not None:
        excused = _excused(rounding, leaf, (ours, right), (relative, allowed), difference)
        if excused is not None:
            return replace(excused, evidence=evidence | excused.evidence)
    said = diagnosis.diagnose(ours, right, tuple(leaf.shape))
    text = "its float32 gradient is not the float64 one, by more than rounding"
    evidence |= {"diagnosis": "float32", "description": said.sentence}
    return Finding("failed", evidence | {"verdict": f"engine wrong: {text}"})


def _excused(
    rounding: Rounding,
    leaf: Input,
    gradients: tuple[Array, Array],
    tolerances: tuple[float, Array],
    difference: Difference,
) -> Finding | None:
    """What explains every entry that differs and is no fault; None where nothing does."""
    ours, right = gradients
    relative, allowed = tolerances
    assert difference.index is not None
    entry = entry_of(ours, difference.index, right)
    lost = rounding.lost(leaf.name)
    gone = ~np.isfinite(flat(ours)) & (lost >= scale(right))  # as what is divided by nearly 0
    ours = np.where(gone, flat(right), flat(ours)).view(right.dtype).reshape(right.shape)
    allowed = np.maximum(allowed, lost)
    if compare(ours, right, relative=relative, absolute=allowed) is None:
        if rounding.jumps(leaf.name, entry):
            return Finding("unsupported", {"reason": KINK})
        return _precision(LOST.format(lost[entry], difference.error))
    allowed = np.maximum(allowed, lost + rounding.adds_up(leaf.name))
    if compare(ours, right, relative=relative, absolute=allowed) is None:
        return _precision(LOST.format(allowed[entry], difference.error))
    beyond = np.abs(flat(ours) - flat(right)) / np.maximum(allowed, relative * scale(right))
    (entries,) = np.nonzero(beyond > 1)
    entries = entries[np.argsort(-beyond[entries])]
    bounds = rounding.cancelled(leaf.name, entries)
    allowed[entries] = np.maximum(allowed[entries], bounds)
    if compare(ours, right, relative=relative, absolute=allowed) is None:
        return _precision(CANCELLED.format(float(bounds.max(initial=0.0)), difference.error))
    return None


def _precision(reason: str) -> Finding:
    return Finding("precision", {"reason": reason, "verdict": f"precision: {reason}"})


def cast(program: Program, values: Values, dtypes: Mapping[str, str]) -> tuple[Program, Values]:
    """The Program and its values with every dtype of the table replaced."""

    def named(leaf: object) -> object:
        if isinstance(leaf, Symbol):
            to = dtypes.get(leaf.path.removeprefix("torch."))
            return leaf if to is None else Symbol(f"torch.{to}")
        return leaf

    made = {
        i.name: rounded(values[i.name], dtypes[i.dtype]) if i.dtype in dtypes else values[i.name]
        for i in program.inputs
    }
    inputs = tuple(replace(i, dtype=dtypes.get(i.dtype, i.dtype)) for i in program.inputs)
    calls = tuple(
        replace(call, args=args, kwargs=kwargs)
        for call in program.calls
        for args, kwargs in [map_tree(named, (call.args, call.kwargs))]
    )
    return Program(inputs, calls, program.outputs), made


def rounded(array: Array, dtype: str) -> Array:
    """The nearest numbers of a dtype; those of bfloat16 are held in float32, as NumPy has none."""
    with np.errstate(over="ignore"):
        if dtype != "bfloat16":
            return array.astype(dtype)
        bits = array.astype(np.float32).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)  # half way goes to the even one
        halves = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
        return np.where(np.isfinite(array), halves.view(np.float32), array).astype(np.float32)
