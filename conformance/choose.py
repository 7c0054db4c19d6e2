"""The interface through which every random decision of the harness is made.

A generator written against `Choose` has two drivers: `Seeded`, a random source for campaigns, and
one by hypothesis in the tests, which also shrinks what it drew. So that shrinking works, what
comes first is simpler: the first option, the low integer, False.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choose(Protocol):
    """A source of decisions."""

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included; low is the simplest."""
        ...

    def of(self, options: Sequence[T]) -> T:
        """One of the options; the first is the simplest."""
        ...

    def flag(self, chance: float = 0.5) -> bool:
        """True with the given chance; False is simpler."""
        ...

    def noise(self, count: int) -> list[float]:
        """As many independent standard normal numbers."""
        ...


class Seeded:
    """Choose by Python's own random source: the same seed makes the same choices everywhere."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)
        self._uniform = self._random.random
        self._normal = self._random.gauss

    def integer(self, low: int, high: int) -> int:
        return low + int(self._uniform() * (high - low + 1))

    def of(self, options: Sequence[T]) -> T:
        return options[int(self._uniform() * len(options))]

    def flag(self, chance: float = 0.5) -> bool:
        return self._uniform() < chance

    def noise(self, count: int) -> list[float]:
        normal = self._normal
        return [normal(0.0, 1.0) for _ in range(count)]


def subset(choose: Choose, options: Sequence[T], least: int = 1) -> tuple[T, ...]:
    """Some of the options, in random order: at least `least` of them."""
    rest = list(options)
    chosen = []
    for _ in range(choose.integer(least, len(rest))):
        chosen.append(rest.pop(choose.integer(0, len(rest) - 1)))
    return tuple(chosen)
