"""One entry of a gradient at a time, by the stencil: where it is wrong, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.diagnosis import COTANGENT, MOST, diagnose, localise
from conformance.oracles.directional import Opinion, by_stencil
from conformance.oracles.pairs import flat
from conformance.oracles.stencil import Candidate
from conformance.oracles.torch_autograd import scale
from conformance.program import Array, Program, Values

if TYPE_CHECKING:
    from conformance.checks.base import Case

EACH = 64  # entries that are looked at one by one
LOCALISED = 4096  # leaves of more entries are not searched
DIGIT = 10.0  # slacks: a bound of so many settles that a gradient is right


@dataclass(frozen=True)
class Entrywise:
    """The function that is differentiated numerically, and the outputs' weights."""

    case: Case
    function: tuple[Program, Values]
    cotangents: list[Array | None]

    def slack(self, size: float) -> float:
        """What is allowed to a sum of terms of that size, beside the bound."""
        return 10 * self.case.relative(self.case.coarsest) * size

    def candidate(self, value: float, size: float, *, only: bool = False) -> Candidate:
        """That a derivative is this, the sum of terms of that size; see `Candidate`."""
        slack = self.slack(size)
        return Candidate(value, slack, DIGIT * slack, only)

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

    def wrong(self, leaf: str, gradient: Array) -> dict[str, Any]:
        """As evidence, which entries of a leaf's gradient are wrong, and what they have in common.

        {} where none is, or the leaf is too large to be searched.
        """
        if gradient.size > LOCALISED:
            return {}
        if gradient.size <= EACH:
            return self._wrong(leaf, gradient, list(range(gradient.size)))
        cuts = gradient.dtype.kind != "c"  # of complex numbers no half is searched
        places = self._searched(leaf, gradient) if cuts else []
        if cuts and len(places) < MOST:
            return self._wrong(leaf, gradient, places)
        # which entries are right is not known: a few of all tell what the wrong share
        places = [int(n) for n in self.case.rng("sampled", leaf).permutation(gradient.size)[:EACH]]
        return self._wrong(leaf, gradient, places, sampled=True)

    def _searched(self, leaf: str, gradient: Array) -> list[int]:
        """The flat entries at which a gradient contradicts the stencil, by bisection."""
        rest = {i.name: np.zeros(i.shape) for i in self.case.program.leaves}
        largest = scale(gradient)

        def disagreement(coordinates: Array) -> bool:
            opinion = self.along(rest | {leaf: coordinates.reshape(gradient.shape)})
            terms = flat(gradient) * coordinates
            most = largest * float(np.abs(coordinates).max(initial=0.0))
            slack = self.slack(max(float(np.abs(terms).sum()), most))
            return abs(float(terms.sum()) - opinion.value) > opinion.bound + slack

        return localise(disagreement, gradient.size, self.case.rng("localise", leaf))

    def _wrong(
        self, leaf: str, gradient: Array, places: list[int], *, sampled: bool = False
    ) -> dict[str, Any]:
        """What the stencil says of the entries at these flat places; {} if it confirms them all.

        The right gradient is the stencil's where the two differ, and else the engine's.
        """
        size = scale(gradient)
        slack = self.slack(size)
        right = gradient.copy()
        bounds: dict[tuple[int, ...], tuple[float, float, float]] = {}  # of the part that is off
        parts: tuple[complex, ...] = (1.0, 1j) if gradient.dtype.kind == "c" else (1.0,)
        for place in places:
            index = tuple(int(n) for n in np.unravel_index(place, gradient.shape))
            for part in parts:
                ours = float(np.real(np.conj(part) * gradient[index]))
                opinion = self.along(self.unit(leaf, index, part), self.candidate(ours, size))
                if not abs(ours - opinion.value) <= opinion.bound + slack:
                    right[index] += part * (opinion.value - ours)
                    bounds[index] = ours, opinion.value, opinion.bound
        if not bounds:
            return {}
        worst = max(bounds, key=lambda i: abs(bounds[i][0] - bounds[i][1]))
        values = self.case.values
        if sampled:
            alike = {n: v.reshape(-1)[places] for n, v in values.items() if v.shape == right.shape}
            some, theirs = gradient.reshape(-1)[places], right.reshape(-1)[places]
            said = diagnose(some, theirs, some.shape, alike, leaf=leaf)
            text = f"of {len(places)} entries that were looked at: {said.sentence}"
        else:
            outputs = self.cotangents
            cotangent = {COTANGENT: outputs[0]} if len(outputs) == 1 else {}
            said = diagnose(gradient, right, gradient.shape, values, leaf=leaf, gradients=cotangent)
            text = said.sentence
        found: dict[str, Any] = {"index": list(worst), "wrong_entries": len(bounds)}
        ours, numerical, bound = bounds[worst]
        found |= {"engine": ours, "numerical": numerical, "reference": ours, "bound": bound}
        found["description"] = text
        return found | ({} if self.case.context.independent else {"diagnosis": said.slug})
