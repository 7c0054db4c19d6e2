"""What rounding in float32 costs a gradient: the second look of the check narrow.

Four things make a right gradient in float32 another than the one in float64. Rounding on the way
moves it as far: each use of a tensor is moved by float32's epsilon, and so are inputs and
cotangents (Monte Carlo arithmetic). Rounding within the rules adds up over many calls, as at the
fixed point of a loop, where each step rounds alike: then gradients in float32 scatter about those
in float64 as the inputs move by an epsilon, where a wrong rule leaves all of them as far off. At a
kink much less than that moves it as far. And terms cancel within one call, of which nothing can be
moved: they are as large as the steepest secant near the point, and what is left of them is off by
epsilons of that. What a constant that float32 cannot hold, or a step that it swallows, does to a
rule is more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conformance.checks.base import Case
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles import noise
from conformance.oracles.pairs import flat
from conformance.oracles.torch_autograd import Gradients, perturbed, scale, spread
from conformance.program import Array, Program, Values, layout

DRAWS = 12
LARGEST = 4.0  # times the largest of so many changes: rounding does no more
LESS = 1 / 64  # of that noise moves a smooth gradient by so much less,
PROPORTIONAL = 1 / 8  # or by less than this part
CANCELS = 16.0  # times less than the steepest secant is a gradient whose terms cancel,
CANCELLED = 128.0  # and these leave so many epsilons of the secant
FORWARD = 8.0  # times what the values are off by: a gradient is by no less
POWERS = range(-9, 3)  # of two, times the leaf's scale: the steps of these secants
MEASURED = 32  # entries at most that are measured one by one
_RATIO = float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Rounding:
    """A Program in float32 and in float64 at the same numbers, and what rounding does to it.

    `cotangents` are in float32, `truth` has the gradients in float64. What is measured is measured
    once, when it is first asked for.
    """

    case: Case
    narrow: tuple[Program, Values]
    wide: tuple[Program, Values]
    cotangents: tuple[Array | None, ...]
    truth: Gradients
    off: float  # what the values in float32 are off by, beside their scale

    @cached_property
    def spread(self) -> dict[str, Array]:
        """How far an epsilon of float32 at the inputs moves each entry of each leaf's gradient."""
        return spread(self._gradients, *self.narrow, self.truth, self.case.rng("narrow"))

    def _gradients(self, values: Values) -> Gradients:
        """Those in float64 at float32 numbers; none where they cannot be computed."""
        try:
            return self._in_float64(values, self.cotangents)
        except (EngineError, Unsupported):
            return {}

    def lost(self, leaf: str) -> Array:
        """How far rounding on the way may move each entry, of real and imaginary parts."""
        return LARGEST * self._largest(self._moves, leaf)

    def adds_up(self, leaf: str) -> Array:
        """How far float32's gradients scatter about float64's as inputs move by an epsilon.

        Nothing where there is but one call, or a rule of the user's: its scatter is its own fault.
        """
        right = self.truth[leaf]
        assert right is not None
        gaps = [draw[leaf] for draw in self._scatter if leaf in draw]
        if not gaps:
            return np.zeros(flat(right).size)
        return np.asarray(LARGEST * np.abs(gaps - np.mean(gaps, axis=0)).max(axis=0))

    def jumps(self, leaf: str, entry: int) -> bool:
        """Whether much less noise moves an entry about as far: an operand is at a kink."""
        most, little = (float(self._largest(m, leaf)[entry]) for m in (self._moves, self._less))
        return little > PROPORTIONAL * most

    def cancelled(self, leaf: str, entries: Array) -> Array:
        """How far these entries may be off where terms cancel within a call, or in its values.

        Of more than MEASURED the rest counts as the median of these.
        """
        right = self.truth[leaf]
        assert right is not None
        if not entries.size:
            return np.zeros(0)
        slopes = np.array([self._slope(leaf, int(entry)) for entry in entries[:MEASURED]])
        slopes = np.append(slopes, np.full(max(entries.size - MEASURED, 0), np.median(slopes)))
        cancels = slopes > CANCELS * np.abs(flat(right)[entries])
        epsilons = CANCELLED * float(np.finfo(np.float32).eps) * cancels
        return np.asarray(slopes * np.maximum(epsilons, FORWARD * self.off))

    def _slope(self, leaf: str, entry: int) -> float:
        """The steepest secant of the weighed outputs along one entry: the size of a rule's terms.

        Its steps are as large as the leaf, and parts of that.
        """
        program, values = self.wide
        steepest = 0.0
        size = scale(values[leaf]) or 1.0
        for step in (sign * size * 2.0**power for power in POWERS for sign in (1, -1)):
            near = layout(program.inputs, values)
            parts = near[leaf].dtype.kind == "c"
            place, unit = (entry // 2, 1j ** (entry % 2)) if parts else (entry, 1.0)
            near[leaf].flat[place] += step * unit
            steepest = max(steepest, self._weighed(self._outputs(near), self._here) / abs(step))
        return steepest

    @cached_property
    def _here(self) -> tuple[Array, ...]:
        return self._outputs(self.wide[1])

    def _outputs(self, values: Values) -> tuple[Array, ...]:
        try:
            return self.case.engine.run(self.wide[0], values).outputs
        except (EngineError, Unsupported):
            return ()

    def _weighed(self, outputs: tuple[Array, ...], base: tuple[Array, ...]) -> float:
        """What the outputs change by, each counting at most twice its own size or the usual one.

        Beyond that the secant of a function that grows fast says nothing of this point.
        """
        total = 0.0
        for cotangent, one, other in zip(self.cotangents, outputs, base, strict=False):
            if cotangent is None or one.shape != other.shape or not other.size:
                continue
            with np.errstate(all="ignore"):
                sizes = np.abs(other)
                finite = sizes[np.isfinite(sizes)]
                usual = finite.sum() / max(finite.size, 1)
                terms = np.abs(cotangent) * np.minimum(
                    np.abs(one - other), 2 * np.maximum(sizes, usual)
                )
            total += float(terms[np.isfinite(terms)].sum())
        return total

    @cached_property
    def _moves(self) -> list[Mapping[str, Array]]:
        return self._changes(1.0)

    @cached_property
    def _less(self) -> list[Mapping[str, Array]]:
        return self._changes(LESS)

    def _changes(self, weight: float) -> list[Mapping[str, Array]]:
        """How far each draw of so much noise moves the gradients in float64."""
        rng = self.case.rng("lost", str(weight))
        program, values = self.wide
        epsilons = weight * _RATIO

        def draw() -> Mapping[str, Array]:
            near = perturbed(program, values, rng, epsilons)
            made = noise.moved(self.case.engine, program, near, rng, epsilons)
            cotangents = [_moved(_wide(c), rng, epsilons) for c in self.cotangents]
            return _gaps(self.case.engine.vjp(*made, cotangents).gradients, self.truth)

        return _drawn(draw)

    @cached_property
    def _scatter(self) -> list[Mapping[str, Array]]:
        """Of each draw of inputs an epsilon away, float32's gradients less float64's there."""
        program, values = self.narrow
        if len(program.calls) < 2 or program.opaque:
            return []
        rng = self.case.rng("scatter")

        def draw() -> Mapping[str, Array]:
            near = perturbed(program, values, rng)
            found = self.case.engine.vjp(program, near, self.cotangents).gradients
            return _gaps(found, self._in_float64(near, self.cotangents))

        return _drawn(draw)

    def _in_float64(self, values: Values, cotangents: Sequence[Array | None]) -> Gradients:
        program, like = self.wide
        wide = {n: v.astype(like[n].dtype) for n, v in values.items()}
        return self.case.engine.vjp(program, wide, [_wide(c) for c in cotangents]).gradients

    def _largest(self, moves: Sequence[Mapping[str, Array]], leaf: str) -> Array:
        right = self.truth[leaf]
        assert right is not None
        nothing = np.zeros(flat(right).size)
        return np.asarray(np.max([nothing, *(np.abs(m[leaf]) for m in moves if leaf in m)], axis=0))


def _drawn(draw: Callable[[], Mapping[str, Array]]) -> list[Mapping[str, Array]]:
    """So many draws, less those that cannot be computed."""
    made = []
    for _ in range(DRAWS):
        try:
            made.append(draw())
        except (EngineError, Unsupported, ProgramError):
            continue
    return made


def _gaps(found: Gradients, right: Gradients) -> dict[str, Array]:
    """By leaf the difference of each entry, 0 where one is not finite."""
    made = {}
    for name, gradient in right.items():
        other = found.get(name)
        if gradient is not None and other is not None and other.shape == gradient.shape:
            with np.errstate(all="ignore"):
                made[name] = np.nan_to_num(flat(other) - flat(gradient), posinf=0.0, neginf=0.0)
    return made


def _moved(array: Array | None, rng: np.random.Generator, epsilons: float) -> Array | None:
    if array is None or array.dtype.kind not in "fc":
        return array
    eps = epsilons * float(np.finfo(array.dtype).eps)
    return np.asarray(array * (1 + eps * rng.standard_normal(array.shape))).astype(array.dtype)


def _wide(array: Array | None) -> Array | None:
    if array is None or array.dtype.kind not in "fc":
        return array
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
