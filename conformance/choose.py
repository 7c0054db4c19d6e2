"""The interface through which every random decision of the harness is made.

A generator written against `Choose` has two drivers: `Seeded`, a random source for campaigns, and
one by hypothesis in the tests, which also shrinks what it drew. So that shrinking works, what
comes first is simpler: the first option, the low integer, False.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

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
    """Choose by Python's own random source: the same seed makes the same choices everywhere.

    Numbers in bulk come from NumPy's RandomState, whose stream is frozen, twenty times faster.
    """

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)
        self._uniform = self._random.random

    @cached_property
    def _bulk(self) -> np.random.RandomState:
        return np.random.RandomState(np.random.PCG64(self._random.getrandbits(64)))

    def integer(self, low: int, high: int) -> int:
        return low + int(self._uniform() * (high - low + 1))

    def of(self, options: Sequence[T]) -> T:
        return options[int(self._uniform() * len(options))]

    def flag(self, chance: float = 0.5) -> bool:
        return self._uniform() < chance

    def noise(self, count: int) -> list[float]:
        drawn: list[float] = self._bulk.standard_normal(count).tolist()
        return drawn


def subset(choose: Choose, options: Sequence[T], least: int = 1) -> tuple[T, ...]:
    """Some of the options, in random order: at least `least` of them."""
    rest = list(options)
    chosen = []
    for _ in range(choose.integer(least, len(rest))):
        chosen.append(rest.pop(choose.integer(0, len(rest) - 1)))
    return tuple(chosen)
