"""A gradient beside the right one: which entries are wrong, and what these have in common."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from conformance.program import Array

CLOSE = 1e-6  # of the gradient's scale: near enough to recognise a pattern
FINE = 1e-3  # of the error, where that is small: what a pattern may leave unexplained
LOOSE = 1e-3  # of the entries: so many may be anything, and the rest still makes a pattern
VISIBLE = 1e-4  # of the largest error: what is smaller is noise
CHANCE = 500.0  # a condition on the leaf's own values: so many times likelier than coincidence
PLAIN = 10.0  # the same, where the wrong entries are zero, or all off by one factor
RARE = 4.0  # the same, for conditions that few values meet
FOREIGN = 1000.0  # the same, for conditions on other inputs
_NAMES = {
    2.0: "2", 0.5: "1/2", 3.0: "3", 1 / 3: "1/3", 4.0: "4", 0.25: "1/4",
    math.pi: "pi", 1 / math.pi: "1/pi", 2 * math.pi: "2 pi", 1 / (2 * math.pi): "1/(2 pi)",
    math.log(2): "log 2", 1 / math.log(2): "1/log 2", math.log(10): "log 10",
    1 / math.log(10): "1/log 10", math.sqrt(2): "sqrt 2", math.sqrt(0.5): "1/sqrt 2",
    2 / math.sqrt(math.pi): "2/sqrt pi", math.sqrt(math.pi) / 2: "sqrt pi / 2",
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """A class slug and one sentence."""

    slug: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Wrong:
    """A gradient and the right one, of one shape, in double precision.

    `leaf` is its name among `values`, `gradients` has the right gradients of all leaves, `eps` is
    the epsilon of the dtype that they came in, and `noise` what rounding does to an entry, where it
    is more than some of these. `allowed` is the same entry by entry: much where rounding flips a
    switch, as it exchanges entries that tie.
    """

    engine: Array
    reference: Array
    values: Mapping[str, Array] = field(default_factory=dict)
    leaf: str = ""
    gradients: Mapping[str, Array | None] = field(default_factory=dict)
    eps: float = float(np.finfo(float).eps)
    noise: float = 0.0
    allowed: Array | float = 0.0

    @classmethod
    def of(cls, engine: Array, reference: Array, **fields: Any) -> Wrong:
        """The two in double precision."""
        wide = np.complex128 if reference.dtype.kind == "c" else np.float64
        eps = float(np.finfo(reference.dtype).eps) if reference.dtype.kind in "fc" else 0.0
        return cls(engine.astype(wide), reference.astype(wide), eps=eps, **fields)

    @property
    def shape(self) -> tuple[int, ...]:
        """The leaf's."""
        return tuple(self.reference.shape)

    @cached_property
    def size(self) -> float:
        """The largest magnitude of the right gradient."""
        return float(np.abs(self.reference).max(initial=0.0))

    @cached_property
    def error(self) -> float:
        """The largest error, of the entries that are off by more than is allowed, if any are."""
        gap = np.abs(self.engine - self.reference)
        largest = float(gap.max(initial=0.0, where=gap > self.allowed))
        return largest or float(gap.max(initial=0.0))

    @property
    def rounding(self) -> float:
        """What an entry may be off by without being wrong."""
        return max(16 * self.eps * self.size, self.noise)

    @cached_property
    def tolerance(self) -> float:
        """How far from the gradient what explains it may be."""
        return max(self.rounding, min(CLOSE * self.size, FINE * self.error))

    @cached_property
    def wrong(self) -> Array:
        """Which entries are, but for what may be rounding."""
        least = min(max(VISIBLE * self.error, self.rounding), self.error / 2)
        gap = np.abs(self.engine - self.reference)
        beyond = gap > np.maximum(least, self.allowed)
        return np.asarray(beyond if beyond.any() else gap > least)

    @cached_property
    def loose(self) -> int:
        """How many entries may be anything; 0 where they are not few."""
        if not np.any(self.allowed):
            return 0
        count = int(np.count_nonzero(self.allowed > VISIBLE * self.size))
        return count if count <= LOOSE * self.reference.size else 0

    def explained(self, made: Array, beside: Array | None = None) -> bool:
        """Whether `made` is the gradient (or what stands beside), as near as makes a pattern."""
        target = self.engine if beside is None else beside
        if made.shape != target.shape or not np.isfinite(made).all():
            return False
        size = float(np.abs(target).max(initial=0.0))
        near = self.tolerance * size / (self.size or 1.0) if beside is not None else self.tolerance
        gap = np.abs(made - target)
        if gap.max(initial=0.0) <= near:
            return True
        # what may be anything is off in both: where it is, and where it was brought from
        return bool(self.loose and np.count_nonzero(gap > near) <= 2 * self.loose)

    def part(self, which: Array) -> Wrong:
        """The entries of a mask alone, in one dimension."""
        return Wrong(self.engine[which], self.reference[which], eps=self.eps, noise=self.noise)


def factor(seen: Wrong) -> complex | None:
    """The one number that the right gradient was multiplied by, or None; not 1."""
    strong = np.abs(seen.reference) > 1e-3 * seen.size
    if not seen.size or not strong.any():
        return None
    ratios = seen.engine[strong] / seen.reference[strong]
    ratio = complex(np.median(ratios.real), np.median(ratios.imag))
    made = seen.reference * (ratio if seen.reference.dtype.kind == "c" else ratio.real)
    return ratio if seen.explained(made) and ratio != 1 else None


def named(ratio: complex, shape: tuple[int, ...] = ()) -> str | None:
    """A factor by name: 1/2, log 2, the size of an axis; None for one that has none."""
    if abs(ratio.imag) > CLOSE * abs(ratio):
        for value, name in ((1j, "i"), (-1j, "-i")):
            if abs(ratio - value) < CLOSE:
                return name
        return None
    number = ratio.real
    texts: dict[str, dict[int, list[str]]] = {
        name: {} for value, name in _NAMES.items() if _same(number, value)
    }
    sizes = [(n, f"the size of axis {axis}") for axis, n in enumerate(shape)]
    if len(shape) > 1:
        sizes.append((math.prod(shape), "the number of entries"))
    for n, what in sizes:
        if n < 2:
            continue
        forms = {float(n): f"{n}", 1 / n: f"1/{n}", n / (n - 1): f"{n}/{n - 1}"}
        forms |= {(n - 1) / n: f"{n - 1}/{n}"}
        if math.isqrt(n) ** 2 != n:
            forms |= {math.sqrt(n): f"sqrt {n}", 1 / math.sqrt(n): f"1/sqrt {n}"}
        for value, text in forms.items():
            if _same(number, value):
                texts.setdefault(text, {}).setdefault(n, []).append(what)
    if not texts:
        return None
    sign = "-" if number < 0 else ""
    facts = {
        text: [f"{n} is {' and '.join(whats)}" for n, whats in of.items()]
        for text, of in texts.items()
    }
    return " or ".join("; ".join([sign + text, *of]) for text, of in facts.items())


def _same(number: float, value: float) -> bool:
    return abs(abs(number) / value - 1) < CLOSE


@dataclass(frozen=True)
class Condition:
    """What holds of exactly the entries that are wrong."""

    kind: str
    said: str


def conditions(
    seen: Wrong, wrong: Array, visible: Array, *, plain: bool = False
) -> Iterator[Condition]:
    """What the wrong entries have in common, and no other has, the leaf's own values first.

    Of entries that are not `visible` it cannot be told whether they are wrong. What could be
    chance is left out; it is less likely chance where the wrong entries are wrong in a `plain` way.
    """
    count = int(wrong.sum())
    if not count or wrong.all():
        return
    for name, kind, said, holds in _candidates(seen):
        apart = holds & visible
        if (apart != wrong).any() or (apart == visible).all():
            continue
        odds = math.comb(int(visible.sum()), count)
        enough = RARE if kind in _FEW else PLAIN if plain else CHANCE
        if name and name != seen.leaf:
            enough = FOREIGN
        if odds >= enough:
            yield Condition(kind, said)


_FEW = ("zeros", "large", "not finite", "ties", "diagonal")


def _candidates(seen: Wrong) -> Iterator[tuple[str, str, str, Array]]:
    names = sorted(seen.values, key=lambda n: n != seen.leaf)
    for name in names:
        value = seen.values[name]
        if value.dtype.kind not in "fiu":
            continue
        try:
            value = np.broadcast_to(value, seen.shape)
        except ValueError:
            continue  # another shape: its entries are not the gradient's
        said = name or "the input"
        with np.errstate(invalid="ignore"):
            yield name, "zeros", f"{said} is 0", value == 0
            yield name, "not finite", f"{said} is not finite", ~np.isfinite(value)
            yield name, "negative", f"{said} < 0", value < 0
            yield name, "positive", f"{said} > 0", value > 0
            yield name, "ties", f"{said} has ties", _tied(value)
            for bound, kind in ((1, "above 1"), (30, "large")):
                yield name, kind, f"|{said}| > {bound}", np.abs(value) > bound
            yield name, "below 1", f"|{said}| < 1", np.abs(value) < 1
    if len(seen.shape) > 1:
        rows, columns = np.indices(seen.shape[-2:])
        places = (
            ("diagonal", "on the diagonal", rows == columns),
            ("off diagonal", "off the diagonal", rows != columns),
            ("upper triangle", "above the diagonal", rows < columns),
            ("lower triangle", "below the diagonal", rows > columns),
        )
        for kind, said, holds in places:
            yield "", kind, f"it is {said}", np.broadcast_to(holds, seen.shape)


def _tied(value: Array) -> Array:
    """Which entries occur more than once."""
    _, inverse, counts = np.unique(value, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse.reshape(value.shape)] > 1)


def slices(seen: Wrong) -> tuple[int, int] | None:
    """The axis and the index of the one slice that is wrong, all of it that can be seen."""
    visible = seen.wrong | (np.abs(seen.reference) > VISIBLE * seen.size)
    for axis, length in enumerate(seen.shape):
        if length < 2:
            continue
        others = tuple(n for n in range(len(seen.shape)) if n != axis)
        touched = np.flatnonzero(seen.wrong.any(axis=others))
        if len(touched) == 1:
            index = int(touched[0])
            ours, shown = seen.wrong.take(index, axis), visible.take(index, axis)
            if ours.size > 1 and (ours == shown).all() and int(ours.sum()) > 1:
                return axis, index
    return None


def orders(count: int) -> Iterator[tuple[int, ...]]:
    """The permutations of so many axes, but not the identity."""
    return itertools.islice(itertools.permutations(range(count)), 1, None)
