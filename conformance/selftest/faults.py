"""Ways in which a whole gradient is wrong, and the words that describe each rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from conformance.engines.base import Vjp
from conformance.program import Array
from conformance.selftest.functions import LEAF, Subject

Change = Callable[[Array, Vjp], Array]


@dataclass(frozen=True)
class Fault:
    """A change of a right gradient; a description is right that has a slug and some of the words.

    `keeps` are the calls whose gradients the change reads.
    """

    name: str
    change: Change
    slugs: tuple[str, ...]
    words: tuple[str, ...] = ("",)
    keeps: tuple[str, ...] = ()

    def described(self, slug: str, sentence: str) -> bool:
        """Whether that is what is wrong."""
        return slug in self.slugs and any(words in sentence for words in self.words)


def faults(subject: Subject, rng: np.random.Generator) -> Iterator[Fault]:
    """Those that the leaf's shape allows, each told from all others."""
    shape = subject.values[LEAF].shape
    size = subject.size
    yield Fault("sign", lambda g, _: -g, ("sign",))
    yield Fault("factor", lambda g, _: 1.5 * g, _FACTOR, ("1.5 ", "1.49", "1.50"))
    if size > 4:
        order = rng.permutation(size)
        yield Fault("permuted", lambda g, _: g.reshape(-1)[order].reshape(shape), _MOVED)
        yield _exchanged(subject, rng)
    for axis, length in enumerate(shape):
        if length > 2:  # of two, a roll, a flip and an exchange are one
            rolled, flipped = _along(axis)
            yield Fault("rolled", rolled, ("permuted",), (f"rolled by 1 along axis {axis}",))
            yield Fault("flipped", flipped, ("flipped",), (f"flipped along axis {axis}",))
    if len(shape) == 2 and shape[0] == shape[1] > 1:
        yield Fault("transposed", lambda g, _: g.T, ("transposed",), ("axes 0 and 1",))
    if subject.kind == "sort" and shape[1] > 3:
        places = np.argsort(subject.values[LEAF], -1)
        yield Fault(
            "unsorted", lambda g, _: np.take_along_axis(g, places, -1), ("unsorted", "flipped"),
        )  # fmt: skip
    if subject.kind == "broadcast":
        yield from _unreduced()


_FACTOR = ("missing factor", "factor along an axis", "wrong")
_MOVED = ("permuted", "flipped", "transposed", "unsorted")


def _along(axis: int) -> tuple[Change, Change]:
    return (lambda g, _: np.roll(g, 1, axis)), (lambda g, _: np.flip(g, axis))


def _exchanged(subject: Subject, rng: np.random.Generator) -> Fault:
    one, two = sorted(int(n) for n in rng.choice(subject.size, 2, replace=False))

    def change(right: Array, _: Vjp) -> Array:
        made = right.copy()
        made.flat[[one, two]] = right.flat[[two, one]]
        return made

    shape = subject.values[LEAF].shape
    named = [str(tuple(int(i) for i in np.unravel_index(n, shape))) for n in (one, two)]
    words = f"the entries at {named[0]} and {named[1]} are exchanged"
    return Fault("exchanged", change, _MOVED, (words, "order of the sorted"))  # so it may be


def _unreduced() -> Iterator[Fault]:
    """The gradient of a broadcast leaf before its sum, and one that is summed wrongly."""

    def wide(found: Vjp) -> Array:
        gradient = found.kept["v0"][0]
        assert gradient is not None
        return gradient

    def whole(_: Array, found: Vjp) -> Array:
        return wide(found)

    def first(_: Array, found: Vjp) -> Array:
        return np.array(wide(found)[0])

    def mean(_: Array, found: Vjp) -> Array:
        return np.asarray(wide(found).mean(0))

    slug = "not reduced over a broadcast dimension"
    yield Fault("unreduced", whole, (slug,), ("axes [0]",), ("v0",))
    yield Fault("one copy alone", first, ("missing sum",), ("over axis 0",), ("v0",))
    third = ("missing sum", "missing factor")
    yield Fault("the mean for the sum", mean, third, ("",), ("v0",))
