"""What an invariant claims of an engine: gradients that must agree, or a fault that was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from conformance.checks.base import Case
from conformance.checks.compare import TOLERANCE, Difference, compare, little
from conformance.engines.base import ALL, Vjp
from conformance.oracles.pairs import flat, gaussian
from conformance.oracles.torch_autograd import SPREADS, scale
from conformance.program import Array

Gradients = Mapping[str, Array | None]

# What NumPy holds in a wider dtype, so that no result shows it.
_WIDENED = {"bfloat16": "bfloat16", "chalf": "float16", "complex32": "float16"}


@dataclass(frozen=True)
class Claim:
    """Two sets of gradients that must agree entry by entry; `said` tells how `found` came about.

    `terms` has the size of the terms that a leaf's gradient is the sum of, where that counts.
    `exact` asks for equal bits. Entries of `expected` that are not finite are not compared where
    `finite` is set. `rounding` measures what rounding on the way does to `found`. Where the two are
    `alike`, computed in one way, what rounding within a rule costs is no excuse.
    """

    found: Gradients
    expected: Gradients
    said: str
    terms: Mapping[str, float] = field(default_factory=dict)
    exact: bool = False
    finite: bool = False
    alike: bool = False
    rounding: Callable[[], Mapping[str, Array]] | None = None

    @property
    def compared(self) -> int:
        """How many entries are compared."""
        return sum(g.size for g in self.expected.values() if g is not None)

    def worst(self, case: Case) -> tuple[str, Difference] | None:
        """The leaf that differs most, or None where the claim holds."""
        worst: tuple[str, Difference] | None = None
        for name, expected in self.expected.items():
            difference = self._difference(case, name, self.found.get(name), expected)
            if difference is not None and (
                worst is None or difference.severity > worst[1].severity
            ):
                worst = name, difference
        return worst

    def _difference(
        self, case: Case, name: str, found: Array | None, expected: Array | None
    ) -> Difference | None:
        if self.exact:
            return compare(found, expected, relative=0.0)
        if found is not None and expected is not None and found.shape == expected.shape:
            known = np.isfinite(expected) | (not self.finite)
            found, expected = np.where(known, found, 0), np.where(known, expected, 0)
        leaf = next((i for i in case.program.leaves if i.name == name), None)
        given = next(g for g in (expected, found, np.zeros(0)) if g is not None)
        relative = case.relative(leaf.dtype if leaf is not None else given.dtype)
        floor = self.terms.get(name, 0.0)
        difference = compare(found, expected, relative=relative, floor=floor)
        if difference is None or difference.kind != "value":
            return difference
        relative = max(relative, narrowest(case))
        if leaf is None:
            return compare(found, expected, relative=relative, floor=floor)
        assert found is not None
        assert expected is not None
        size = scale(expected)
        base = case.engine_vjp.gradients.get(name)
        grown = max(1.0, max(size, floor) / (scale(base) or 1.0)) if base is not None else 1.0
        allowed = case.rounding(name) * grown
        if np.size(allowed) not in (1, flat(found).size):  # of a gradient that was reduced
            allowed = float(np.max(allowed, initial=0.0))
        if not self.alike:
            allowed = allowed + SPREADS * grown * _parted(case, name)
        if case.users:  # whose calls hide terms that may cancel
            allowed = np.maximum(allowed, case.vanishing(leaf))
        if self.rounding is not None:
            allowed = allowed + SPREADS * self.rounding().get(name, np.zeros(1))
        difference = compare(found, expected, relative=relative, floor=floor, absolute=allowed)
        if difference is not None and case.vanishes(leaf, found, expected):
            return None
        return difference


def _parted(case: Case, leaf: str) -> float:
    """How far the engine's gradient is from the reference's, where it is off by a little alone.

    That is rounding within its rule, of which `vjp` tells.
    """
    ours, theirs = (v.gradients.get(leaf) for v in (case.engine_vjp, case.reference_vjp))
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = scale(ours - theirs)
    return gap if gap <= little(ours.dtype) * scale(theirs) else 0.0


def narrowest(case: Case) -> float:
    """The tolerance of the dtype with the least precision among the results."""
    kept = case.reference.run(case.program, case.values, keep=ALL).kept
    dtypes = {y.dtype for flat in kept.values() for y in flat if y.dtype.kind in "fc"}
    found = [case.relative(dtype) for dtype in dtypes]
    text = str(case.program)
    found += [TOLERANCE[held] for name, held in _WIDENED.items() if name in text]
    return max(found, default=0.0)


@dataclass(frozen=True)
class Fault:
    """Something that must not be, in a sentence, and the tensor at which it was seen."""

    said: str
    leaf: str = ""


@dataclass(frozen=True)
class Invariant:
    """What must hold of any engine, whatever the function: `states` says it in a sentence.

    `claims` makes what there is to compare on a case; `fits` says, without running anything,
    whether a case has anything to it. An engine `may_refuse` where it concerns a layout that the
    function does not take, other values, or a mode. What is `of_engine` no function can break. One
    that is `twice` takes the backward pass as something to be differentiated. What is `of_signs`
    kernels that read memory as it lies cannot hold.
    """

    name: str
    states: str
    claims: Callable[[Case], Iterator[Claim | Fault]]
    fits: Callable[[Case], bool] = lambda case: True
    may_refuse: bool = False
    of_engine: bool = False
    twice: bool = False
    of_signs: bool = False


def other_cotangents(case: Case, label: str) -> list[Array | None]:
    """Gaussian cotangents that are not the case's own."""
    rng = case.rng("invariants", label)
    return [None if c is None else gaussian(rng, c.shape, c.dtype) for c in case.cotangents]


def outputs_of(found: Vjp) -> dict[str, Array | None]:
    """Flat outputs by number, to be compared as gradients are."""
    return {f"output {n}": y for n, y in enumerate(found.outputs)}
