"""half, half2: derivatives that are lost in float16 or bfloat16, though it can hold them.

A rule that is right in float64 may divide by a square that is beyond float16: the derivative is inf
or nan, or zero everywhere, where the right one is an ordinary number. Each call is judged alone,
since what leaves the range between two calls is no rule's fault; at the values that it had, and at
these times powers of two, where most of the range is. The same engine's derivative in float64, at
the same numbers, says what is right, and the stencil confirms it. How many digits are left of a
derivative that is finite is not judged: in 16 bits rounding within a rule explains nearly all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conformance.checks.base import Case, Finding
from conformance.checks.narrow import cast, rounded
from conformance.engines.base import ALL, Engine
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.directional import by_stencil, of_gradient
from conformance.oracles.pairs import flat, gaussian
from conformance.oracles.torch_autograd import DRAWS, scale
from conformance.program import Array, Program, Values, layout
from conformance.question import Named, Question, comparison
from conformance.writes import held

CLOSE = 0.1  # of a value's scale: what rounding within a function may cost
FAINT = 64.0  # smallest normal numbers: below, a derivative is lost to underflow
# by which power of two all tensors are scaled
TOGETHER = {"given": 0, "small": -6, "smaller": -10, "large": 7, "larger": 9}
POWERS = (-10, 5)  # of a tensor each, or of an entry
PLACES = (*TOGETHER, "scaled", "spread")
WEIGHTS = (-4, 6)  # the same of cotangents: a loss is often scaled up
_REAL = ("float64", "float32")


@dataclass(frozen=True)
class Format:
    """A floating dtype of 16 bits: its epsilon, its largest and its smallest normal number."""

    name: str
    eps: float
    largest: float
    tiny: float
    places: tuple[str, ...] = PLACES

    def holds(self, *arrays: Array | None) -> bool:
        """Whether it can hold all entries, with a factor of two to spare."""
        real = [a for a in arrays if a is not None and a.dtype.kind == "f"]
        return all(bool((np.abs(a) <= self.largest / 2).all()) for a in real)


FORMATS = (
    Format("float16", 2.0**-10, 65504.0, 2.0**-14),
    Format("bfloat16", 2.0**-7, 3.3895313892515355e38, 2.0**-126, ("given", "spread")),
)


@dataclass(frozen=True)
class _Point:
    """A call alone in 16 bits and in float64, at the same numbers, with what is asked of it."""

    format: Format
    narrow: tuple[Program, Values]
    wide: tuple[Program, Values]
    asked: Question  # in float64; the arrays are such that 16 bits hold them

    @property
    def faint(self) -> float:
        """Below it rounding makes zero of a derivative, beside terms as large as the cotangents.

        Where a tensor is used twice its gradients may cancel to anything.
        """
        used = [ref for call in self.narrow[0].calls for ref in call.refs]
        if len(set(used)) < len(used):
            return np.inf
        largest = max((scale(c) for c in self.asked.cotangents if c is not None), default=0.0)
        return max(FAINT * self.format.tiny, self.format.eps * largest)

    def ask(self, engine: Engine, program: Program, values: Values) -> Named:
        """What the engine says, in float64 whatever it is asked in."""
        found = self.asked.answer(engine, program, values, plain=False)
        return {n: None if g is None else g.astype(np.float64) for n, g in found.items()}


class HalfCheck:
    """First order, or reverse over reverse."""

    def __init__(self, order: int = 1) -> None:
        self.name = "half" if order == 1 else "half2"
        self.kind = "vjp" if order == 1 else "rr"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all calls, dtypes and places; none where a tensor is complex."""
        floating = [i for i in case.program.inputs if np.dtype(i.dtype).kind in "fc"]
        if not case.program.leaves or any(i.dtype not in _REAL for i in floating):
            return
        points = compared = 0
        reason = "no call has a derivative that it can hold at these values"
        for program, values in _calls(case):
            for form in FORMATS:
                for place in form.places:
                    try:
                        point = self._point(case, program, values, form, place)
                        if point is None:
                            continue
                        found = point.ask(case.engine, *point.narrow)
                    except (EngineError, Unsupported) as error:
                        reason = f"{form.name}: {str(error).splitlines()[0]}"
                        break
                    right = point.ask(case.engine, *point.wide)
                    failed = self._wrong(case, point, found, right)
                    if failed is not None:
                        yield failed
                        return
                    points += 1
                    compared += sum(g.size for g in right.values() if g is not None)
        if points:
            yield Finding("passed", {"compared": compared})
        else:
            yield Finding("unsupported", {"reason": reason})

    def _point(
        self, case: Case, program: Program, values: Values, form: Format, place: str
    ) -> _Point | None:
        """None where the values or the derivatives are beyond the dtype, or are others in it."""
        rng = case.rng(self.name, form.name, place, program.calls[-1].target)
        values = _placed(rng, program, values, place)
        narrow = cast(program, values, dict.fromkeys(_REAL, form.name))
        wide = cast(*narrow, {form.name: "float64"})
        engine = case.engine
        made = engine.run(*wide, keep=ALL)
        if not form.holds(*wide[1].values(), *(a for kept in made.kept.values() for a in kept)):
            return None
        weight = 2.0 ** rng.integers(*WEIGHTS)
        cotangents = [
            drawn(rng, o.shape, form, weight) if o.dtype.kind == "f" else None for o in made.outputs
        ]
        tangents = {i.name: drawn(rng, i.shape, form) for i in program.leaves}
        point = _Point(
            form, narrow, wide, Question(self.kind, cotangents, tangents, dtype=form.name)
        )
        first = engine.vjp(*wide, cotangents).gradients
        if not form.holds(*first.values(), *point.ask(engine, *wide).values()):
            return None
        for ours, right in zip(engine.run(*narrow).outputs, made.outputs, strict=True):
            far = np.abs(flat(ours) - flat(right)) > CLOSE * scale(right) + form.tiny
            if ours.shape != right.shape or not np.isfinite(flat(ours)).all() or far.any():
                return None  # another function: of that the check `value` tells
        return point

    def _wrong(self, case: Case, point: _Point, found: Named, right: Named) -> Finding | None:
        """The first leaf whose derivative is lost."""
        for leaf in point.wide[0].leaves:
            theirs = right.get(leaf.name)
            if theirs is None or not theirs.size:
                continue
            ours = found.get(leaf.name)
            ours = np.zeros_like(theirs) if ours is None else ours
            if not np.isfinite(ours).all():
                entry = int(np.argmin(np.isfinite(ours)))
            elif not ours.any() and scale(theirs) > point.faint:
                entry = int(np.argmax(np.abs(theirs)))
                if self._silenced(case, point, leaf.name):
                    continue
            else:
                continue
            if self._confirmed(case, point, leaf.name, entry, float(theirs.flat[entry])):
                return self._failed(case, point, leaf.name, entry, ours, theirs)
        return None

    def _silenced(self, case: Case, point: _Point, leaf: str) -> bool:
        """Whether an epsilon of the operands' scale makes the right derivative zero: at a kink."""
        program, values = point.wide
        rng = case.rng("moves")
        for _ in range(DRAWS):
            near = dict(values)
            for i in program.inputs:
                if i.dtype == "float64":
                    noise = rng.standard_normal(i.shape) * point.format.eps * scale(values[i.name])
                    near[i.name] = values[i.name] + noise
            try:
                other = point.ask(case.engine, program, layout(program.inputs, near))[leaf]
            except (EngineError, Unsupported):  # outside the domain
                continue
            if other is None or not other.any():
                return True
        return False

    def _confirmed(self, case: Case, point: _Point, leaf: str, entry: int, right: float) -> bool:
        """Whether the derivative without rules is that in float64, and not at a kink."""
        program, values = point.wide
        unit = {i.name: np.zeros(i.shape) for i in program.leaves}
        step = abs(float(values[leaf].flat[entry])) or 1.0
        unit[leaf].flat[entry] = step
        asked = point.asked
        if self.kind == "vjp":
            opinion = by_stencil(case.reference, program, values, asked.cotangents, unit)
        else:
            given = (asked.cotangents, asked.tangents or {}, unit)
            opinion = of_gradient(case.reference, program, values, *given)
        if opinion.kink is not None or not np.isfinite(opinion.value):
            return False
        return abs(opinion.value / step - right) <= opinion.bound / step + CLOSE / 10 * abs(right)

    def _failed(
        self, case: Case, point: _Point, leaf: str, entry: int, ours: Array, right: Array
    ) -> Finding:
        program, values = point.narrow
        name, call = point.format.name, program.calls[-1]
        index = [int(n) for n in np.unravel_index(entry, right.shape)]
        value, truth = float(ours.flat[entry]), float(right.flat[entry])
        what = "gradient" if self.kind == "vjp" else "Hessian-vector product"
        text = f"engine wrong: its {name} {what} is {value:.4g}; the right one is {truth:.4g}"
        same = [i.name for i in program.inputs if i.shape == right.shape and i.dtype == name]
        where = ", ".join(f"{n}{index or ''} = {values[n].flat[entry]:.4g}" for n in same)
        evidence = {
            "leaf": leaf, "index": index, "engine": value, "numerical": truth, "diagnosis": name,
            "description": f"where {where}", "verdict": text, "culprit": call.target,
            "against": "its own in float64",
        }  # fmt: skip
        script = comparison(
            point.asked, program, values, {leaf: right}, f"import {case.engine.name.split()[0]}",
            tolerance=max(CLOSE * scale(right), point.format.tiny),
        )  # fmt: skip
        repro = {"program": str(program), "script": script or case.script()}
        return Finding("failed", evidence, repro)


def drawn(
    rng: np.random.Generator, shape: tuple[int, ...], form: Format, weight: float = 1.0
) -> Array:
    """Gaussian numbers that the dtype holds, in float64."""
    return rounded(gaussian(rng, shape, "float64") * weight, form.name).astype(np.float64)


def _calls(case: Case) -> Iterator[tuple[Program, Values]]:
    """Each call that is differentiated, alone, with the values that it had."""
    program = case.program.live()
    if len(program.calls) == 1:
        yield program, case.values
        return
    kept: dict[str, Array | tuple[Array, ...]] = dict(case.values)
    kept |= case.engine.run(program, case.values, keep=ALL).kept
    for call in program.calls:
        try:
            there = held(case.engine, program, case.values, call, kept)
            alone, values = program.isolate(call.name, there)
        except ProgramError:
            continue
        if alone.leaves:
            yield alone, values


def _placed(rng: np.random.Generator, program: Program, values: Values, place: str) -> Values:
    """The values, times powers of two."""
    if place == "given":
        return values
    made = dict(values)
    for i in program.inputs:
        if i.dtype in _REAL:
            shape = i.shape if place == "spread" else ()
            power = TOGETHER.get(place)
            by = 2.0 ** (rng.integers(*POWERS, shape) if power is None else power)
            made[i.name] = values[i.name] * by
    return layout(program.inputs, made)
