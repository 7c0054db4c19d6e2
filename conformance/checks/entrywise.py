"""A gradient by its entries, one at a time or all together: where it is wrong, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.arbitration import shown
from conformance.diagnosis import COTANGENT, MOST, diagnose, localise
from conformance.errors import EngineError, Unsupported
from conformance.oracles.directional import (
    Opinion,
    by_complex_step,
    by_stencil,
    moved,
    slope_nearby,
    steepens,
)
from conformance.oracles.pairs import direction, flat, inner
from conformance.oracles.stencil import FACTOR, Candidate
from conformance.oracles.torch_autograd import scale
from conformance.program import Array, Call, Program, Values

if TYPE_CHECKING:
    from conformance.checks.base import Case

EACH = 64  # entries that are looked at one by one
LOCALISED = 4096  # leaves of more entries are not searched
EVALUATIONS = 8000  # of the function: after so many a fault is not localised further
SAMPLED = 1000  # those that a look at a few of all entries may take
FIRST = 8  # entries: where most of them are wrong, a search would end with too many
DIGIT = 10.0  # slacks: a bound of so many settles that a gradient is right
POOR = 1e-5  # a bound above this part of the terms' sum decides nothing,
COARSE = 4.0  # nor one above so many tolerances, where these are more
NEIGHBOURS = 24  # points about a kink whose slopes are taken
NEARBY = 3e-7  # of the values: how far they are,
NEARER = 0.02  # and what is looked at about each, of that
SMOOTH = 1e-5  # of a slope: what it changes by so near where there is no kink


@dataclass(frozen=True)
class _Look:
    """The flat places that were looked at, the right gradient, and the entries that are not it.

    `off` has for each the part that is off: what was given, the derivative, and its bound.
    """

    places: list[int]
    right: Array
    off: dict[tuple[int, ...], tuple[float, float, float]]


@dataclass(frozen=True)
class Entrywise:
    """The function that is differentiated numerically, and the outputs' weights."""

    case: Case
    function: tuple[Program, Values]
    cotangents: list[Array | None]

    def slack(self, size: float, tangents: Mapping[str, Array]) -> float:
        """What is allowed along a direction, to a sum of terms of that size, beside the bound."""
        rounding = 10 * self.case.rounded(self.case.coarsest) * size
        return rounding + self.case.approximate(tangents)

    @property
    def poor(self) -> float:
        """A bound above this part of the terms' sum decides nothing."""
        return max(self.case.poor(POOR), COARSE * self.case.relative(self.case.coarsest))

    def candidate(self, value: float, size: float, tangents: Mapping[str, Array]) -> Candidate:
        """That a derivative is this, the sum of terms of that size; see `Candidate`."""
        slack = self.slack(size, tangents)
        return Candidate(value, slack, min(DIGIT * slack, self.poor * size))

    def along(self, tangents: Mapping[str, Array], candidate: Candidate | None = None) -> Opinion:
        """The derivative along a direction."""
        return by_stencil(
            self.case.reference, *self.function, self.cotangents, tangents, candidate=candidate
        )

    def unit(self, leaf: str, index: tuple[int, ...], part: complex = 1.0) -> dict[str, Array]:
        """The direction of one entry, or of its imaginary part."""
        tangents = {
            i.name: np.zeros(i.shape, complex if np.dtype(i.dtype).kind == "c" else float)
            for i in self.function[0].leaves
        }
        tangents[leaf][index] = part
        return tangents

    def at(self, leaf: str, index: tuple[int, ...]) -> Opinion:
        """The derivative with respect to one entry."""
        return self.along(self.unit(leaf, index))

    @property
    def composed(self) -> bool:
        """Whether a call hides others, whose conventions at a kink need not make one of its slopes.

        relu(x) - relu(-x) has 0 at 0, where it is smooth with slope 1.
        """
        return any(c.opaque is not None and not own_rule(c) for c in self.case.program.calls)

    def outside(
        self, gradients: Mapping[str, Array | None], others: Mapping[str, Array | None]
    ) -> dict[str, Any] | None:
        """The first entry that is wrong by itself; {} if none is, None where they are too many.

        At a kink that is a value outside the slopes on its two sides, unless the function is
        `composed`; elsewhere one that differs from the other gradient's and from the derivative.
        """
        leaves = self.case.program.leaves
        if sum(self.case.values[i.name].size for i in leaves) > EACH:
            return None
        for leaf in leaves:
            gradient, other = gradients.get(leaf.name), others.get(leaf.name)
            if gradient is None:
                continue
            if other is None or other.shape != gradient.shape:
                other = gradient
            for index in np.ndindex(gradient.shape):
                pair = float(np.real(gradient[index])), float(np.real(other[index]))
                found = self._outside(leaf.name, index, *pair)
                if found:
                    return found
        return {}

    def _outside(
        self, leaf: str, index: tuple[int, ...], value: float, other: float
    ) -> dict[str, Any]:
        unit = self.unit(leaf, index)
        opinion = self.along(unit, self.candidate(value, abs(value), unit))
        slack = self.slack(abs(value), unit)
        said = shown(opinion) | {"leaf": self.case.alias(leaf), "index": list(index)}
        said |= {"engine": value, "reference": other}
        if opinion.kink is not None:
            holds = self.composed or opinion.kink.holds(np.array(value), slack)
            if not holds and not self.among(unit, value, slack):
                text = "engine wrong: at a kink its value is outside the one-sided slopes"
                return said | {"verdict": text}
            return {}
        differs = not self.case.context.independent or abs(value - other) > slack
        if differs and abs(value - opinion.value) > opinion.bound + slack:
            return said | {
                "verdict": f"engine wrong: beside kinks {opinion.oracle} gives another value"
            }
        return {}

    def among(self, tangents: dict[str, Array], value: float, slack: float) -> bool:
        """Whether a value lies among different slopes at points nearby, where nothing is tied.

        Where three or more pieces meet (the middle one of three equal numbers that are sorted) a
        generalised gradient has values beyond the slopes from the two sides (Clarke 1983).
        """
        low, high = np.inf, -np.inf
        for slope in self._nearby(tangents):
            low, high = np.fmin(low, slope), np.fmax(high, slope)
            wide = slack + SMOOTH * max(abs(low), abs(high))
            if high - low > wide and low - wide <= value <= high + wide:
                return True
        return False

    def together(self, gradients: Mapping[str, Array | None]) -> dict[str, Any]:
        """As evidence, a direction that keeps ties and along which a gradient is wrong; else {}.

        Where entries tie each may have one of its own slopes, and all together none: those of a
        maximum that gives the whole cotangent to each. Where all are scaled or shifted at once they
        stay tied. If the function is smooth along that, at the point and about it, every
        generalised gradient gives its slope (Clarke 1983).
        """
        for said, tangents in self._keeping_ties():
            ours, size = inner(gradients, tangents)
            if not np.isfinite(ours):
                continue
            opinion = self.along(tangents, self.candidate(ours, size, tangents))
            slack = self.slack(size, tangents) + SMOOTH * max(size, abs(opinion.value))
            if not opinion.sure(POOR) or abs(ours - opinion.value) <= opinion.bound + slack:
                continue
            if all(abs(slope - opinion.value) <= slack for slope in self._nearby(tangents)):
                text = f"the gradient is wrong where entries tie: with all {said}, the function "
                text += f"changes at a rate of {opinion.value:.6g}, and by the gradient {ours:.6g}"
                who = f"engine wrong: of entries that tie {opinion.oracle} gives another sum"
                numbers = {"engine": ours, "reference": ours, "diagnosis": "ties"}
                return shown(opinion) | numbers | {"verdict": who, "description": text}
        return {}

    def steep(self, gradients: Mapping[str, Array | None]) -> str:
        """A sentence where a slope is infinite and the gradient is not; nothing where none is."""
        leaves = [i for i in self.case.program.leaves if gradients.get(i.name) is not None]
        if sum(self.case.values[i.name].size for i in leaves) > EACH:
            return ""
        for leaf in leaves:
            gradient = gradients[leaf.name]
            assert gradient is not None
            for index in np.ndindex(gradient.shape):
                given = (*self.function, self.cotangents, self.unit(leaf.name, index))
                if np.isfinite(gradient[index]) and steepens(self.case.reference, *given):
                    value = f"{gradient[index]:.6g}, and the slope is infinite"
                    return (
                        f"the gradient of {self.case.alias(leaf.name)} at {list(index)} is {value}"
                    )
        return ""

    def _keeping_ties(self) -> Iterator[tuple[str, dict[str, Array]]]:
        """The directions along which all entries are scaled or shifted, those that are finite."""
        values = {i.name: self.function[1][i.name] for i in self.function[0].leaves}
        finite = {n: np.isfinite(v) for n, v in values.items()}
        wide = {n: v.astype(np.result_type(v.dtype, float)) for n, v in values.items()}
        yield "scaled", {n: np.where(finite[n], v, 0) for n, v in wide.items()}
        yield "shifted by one", {n: finite[n].astype(v.dtype) for n, v in wide.items()}

    def _nearby(self, tangents: dict[str, Array]) -> Iterator[float]:
        """The slopes along a direction at points nearby, at random; nan where none is known."""
        program, values = self.function
        rng = self.case.rng("neighbours")
        for _ in range(NEIGHBOURS):
            near = moved(program, values, direction(rng, program, values), NEARBY)
            given = program, near, self.cotangents, tangents
            try:
                yield by_complex_step(*given).value
            except (Unsupported, EngineError):
                yield slope_nearby(self.case.reference, *given, NEARBY * NEARER)

    def wrong(self, leaf: str, gradient: Array) -> dict[str, Any]:
        """As evidence, which entries of a leaf's gradient are wrong, and what they have in common.

        {} where none is, or the leaf is too large to be searched.
        """
        if gradient.size > LOCALISED:
            return {}
        if gradient.size <= EACH:
            return self._wrong(leaf, gradient, list(range(gradient.size)))
        some = [int(n) for n in self.case.rng("sampled", leaf).permutation(gradient.size)[:EACH]]
        cuts = gradient.dtype.kind != "c"  # of complex numbers no half is searched
        if cuts and 2 * len(self._look(leaf, gradient, some[:FIRST], SAMPLED).off) <= FIRST:
            places, weary = self._searched(leaf, gradient)
            if weary:
                text = f"what is wrong is among {len(places)} of {gradient.size} entries"
                return {"description": f"{text}: it was not localised further"}
            if len(places) < MOST:
                return self._wrong(leaf, gradient, places)
        # which entries are right is not known: a few of all tell what the wrong share
        return self._wrong(leaf, gradient, some, sampled=True)

    def _searched(self, leaf: str, gradient: Array) -> tuple[list[int], bool]:
        """The flat entries at which a gradient contradicts the stencil, by bisection.

        And whether that took so long that entries are among them that do not.
        """
        rest = {i.name: np.zeros(i.shape) for i in self.case.program.leaves}
        largest = scale(gradient)
        spent = 0

        def disagreement(coordinates: Array) -> bool:
            nonlocal spent
            terms = flat(gradient) * coordinates
            ours, size = float(terms.sum()), float(np.abs(terms).sum())
            size = max(size, largest * float(np.abs(coordinates).max(initial=0.0)))
            tangents = rest | {leaf: coordinates.reshape(gradient.shape)}
            opinion = self.along(tangents, self.candidate(ours, size, tangents))
            spent += opinion.evaluations
            return abs(ours - opinion.value) > opinion.bound + self.slack(size, tangents)

        def weary() -> bool:
            return spent >= EVALUATIONS

        rng = self.case.rng("localise", leaf)
        return localise(disagreement, gradient.size, rng, weary=weary), weary()

    def _look(self, leaf: str, gradient: Array, places: list[int], evaluations: int) -> _Look:
        """Compare the entries at these flat places one by one, until so many evaluations."""
        size = scale(gradient)
        right = gradient.copy()
        off: dict[tuple[int, ...], tuple[float, float, float]] = {}
        parts: tuple[complex, ...] = (1.0, 1j) if gradient.dtype.kind == "c" else (1.0,)
        for count, place in enumerate(places):
            if evaluations <= 0:
                places = places[:count]
                break
            index = tuple(int(n) for n in np.unravel_index(place, gradient.shape))
            for part in parts:
                ours = float(np.real(np.conj(part) * gradient[index]))
                if not np.isfinite(ours):
                    continue  # which is judged by itself
                unit = self.unit(leaf, index, part)
                opinion = self.along(unit, self.candidate(ours, size, unit))
                evaluations -= opinion.evaluations
                allowed = opinion.bound + self.slack(size, unit)
                if not abs(ours - opinion.value) <= allowed:
                    right[index] += part * (opinion.value - ours)
                    off[index] = ours, opinion.value, opinion.bound
        return _Look(places, right, off)

    def _wrong(
        self, leaf: str, gradient: Array, places: list[int], *, sampled: bool = False
    ) -> dict[str, Any]:
        """What the stencil says of the entries at these flat places; {} if it confirms them all.

        The right gradient is the stencil's where the two differ, and else the engine's. Of those
        that are `sampled`, and where not all could be looked at, nothing is said of the others.
        """
        looked = self._look(leaf, gradient, places, SAMPLED if sampled else EVALUATIONS)
        sampled = sampled or len(looked.places) < len(places)
        places, right, bounds = looked.places, looked.right, looked.off
        if not bounds:
            return {}
        worst = max(bounds, key=lambda i: abs(bounds[i][0] - bounds[i][1]))
        values = self.case.values
        noise = max(bound for *_, bound in bounds.values()) / FACTOR
        if sampled:
            alike = {n: v.reshape(-1)[places] for n, v in values.items() if v.shape == right.shape}
            some, theirs = gradient.reshape(-1)[places], right.reshape(-1)[places]
            said = diagnose(some, theirs, some.shape, alike, leaf=leaf, noise=noise)
            text = f"of {len(places)} entries that were looked at: {said.sentence}"
        else:
            outputs = self.cotangents
            cotangent = {COTANGENT: outputs[0]} if len(outputs) == 1 else {}
            said = diagnose(
                gradient, right, gradient.shape, values,
                leaf=leaf, gradients=cotangent, noise=noise,
            )  # fmt: skip
            text = said.sentence
        found: dict[str, Any] = {"index": list(worst), "wrong_entries": len(bounds)}
        ours, numerical, bound = bounds[worst]
        found |= {"engine": ours, "numerical": numerical, "reference": ours, "bound": bound}
        found["description"] = text
        return found | ({} if self.case.context.independent else {"diagnosis": said.slug})


def own_rule(call: Call) -> bool:
    """Whether its gradient is by a rule that is not torch's: an autograd.Function, a custom op."""
    if call.opaque is None:
        return False
    from torch._ops import OpOverload, OpOverloadPacket

    from conformance.engines.torch import function_of

    if isinstance(call.own, OpOverloadPacket):
        overloads = [getattr(call.own, name) for name in call.own.overloads()]
    else:
        overloads = [call.own] if isinstance(call.own, OpOverload) else []
    if overloads:
        return not any(o._can_decompose() for o in overloads)
    custom = function_of(call)
    return custom is not None and not custom.__module__.startswith("torch.")
