"""Strategies for hypothesis: the generator of campaigns, driven by what hypothesis draws.

programs()          a random Program with its values, optionally about one op
choices()           a `Choose` to draw from
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from conformance.program import Program, Values
from conformance.sources import generated
from conformance.sources.grammar import OPS

T = TypeVar("T")


class Drawn:
    """Choose by hypothesis's draws, so that hypothesis shrinks what was chosen.

    Numbers in bulk are drawn as one small seed; 0 stands for 1.0, -1.0, 2.0, -2.0, ...
    """

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def of(self, options: Sequence[T]) -> T:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def flag(self, chance: float = 0.5) -> bool:
        return self._draw(st.integers(0, 99)) >= 100 * (1 - chance)

    def noise(self, count: int) -> list[float]:
        seed = self._draw(st.integers(0, 255))
        if not seed:
            return [float((n // 2 + 1) * (-1) ** n) for n in range(count)]
        normal = random.Random(seed).gauss
        return [normal(0.0, 1.0) for _ in range(count)]


@st.composite
def choices(draw: st.DrawFn) -> Drawn:
    """A `Choose`; draw from it only while the test case runs."""
    return Drawn(draw)


@st.composite
def programs(draw: st.DrawFn, op: str | None = None, **options: Any) -> tuple[Program, Values]:
    """A random Program and its values; about the op of that name where one is given."""
    return generated.draw(Drawn(draw), OPS[op] if op else None, **options)
