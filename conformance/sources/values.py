"""Values of generated inputs, drawn by class: most faults sit at zeros, ties and large numbers.

A `Domain` is where an op is defined with a margin, so that results stay finite and well
conditioned; a class of values says what stands in an array; a layout says how it lies in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.choose import Choose

CLASSES = ("ordinary", "negative", "zeros", "ties", "big")
LAYOUTS = ("contiguous", "transposed", "strided")
BIG = 30.0
_WIDE = 4.0  # a bounded domain wider than this is clipped to, a narrower one squeezed into


@dataclass(frozen=True)
class Domain:
    """The interval [low, high], without the open interval (-gap, gap) about zero."""

    low: float = -math.inf
    high: float = math.inf
    gap: float = 0.0

    def holds(self, low: float, high: float, nearest: float) -> bool:
        """Whether numbers from low to high, the one nearest to zero at that distance, fit."""
        return self.low <= low and high <= self.high and (not self.gap or nearest >= self.gap)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of values that have a place in this domain."""
        possible = {
            "ordinary": True,
            "negative": self.low < -1.0,
            "zeros": self.low <= 0.0 <= self.high and not self.gap,
            "ties": True,
            "big": max(self.high, -self.low) > BIG,
        }
        return tuple(name for name in CLASSES if possible[name])

    def place(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard normal numbers moved into the domain, order kept where it can be."""
        if self.gap:
            z = z + np.copysign(self.gap, z)
        if self.high - self.low <= _WIDE:
            middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
            return middle + half * np.tanh(z)
        if self.low > -1.0:
            z = self.low + np.abs(z)
        return np.clip(z, self.low, self.high)


REAL = Domain()
UNIT = Domain(-0.9, 0.9)


def draw(
    choose: Choose, shape: Sequence[int], domain: Domain = REAL, kind: str | None = None
) -> NDArray[np.float64]:
    """A float64 array of the shape, of one class of values (drawn where kind is None)."""
    count = math.prod(shape)
    if kind is None:
        kind = choose.of(domain.classes)
    z = np.array(choose.noise(count), dtype=np.float64)
    if kind == "negative":
        z = -np.abs(z) - 0.125
    elif kind == "ties":
        z = np.floor(z) + 0.5
        z[-1:] = z[:1]
    elif kind == "big":
        z = np.copysign(BIG + 20.0 * np.abs(z), z)
    x = domain.place(z)
    if kind == "zeros" and count:
        near = np.abs(z) < 0.5
        near[np.abs(z).argmin()] = True
        x[near] = 0.0
    return x.reshape(shape)


def indices(choose: Choose, shape: Sequence[int], size: int) -> NDArray[np.int64]:
    """An int64 array of the shape, of indices below size; duplicates are likely."""
    if choose.flag(0.25):
        return np.full(shape, choose.integer(0, size - 1), dtype=np.int64)
    flat = [choose.integer(0, size - 1) for _ in range(math.prod(shape))]
    return np.array(flat, dtype=np.int64).reshape(shape)


def permutation(choose: Choose, size: int) -> list[int]:
    """The numbers below size in random order; the identity is the simplest."""
    rest = list(range(size))
    return [rest.pop(choose.integer(0, len(rest) - 1)) for _ in range(size)]


def lay(x: NDArray[Any], layout: str) -> NDArray[Any]:
    """The same values in another layout: dimensions reversed in memory, or every second element."""
    if layout == "transposed":
        return np.ascontiguousarray(x.T).T
    if layout == "strided" and x.ndim:
        room = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype)
        view = room[..., ::2]
        view[...] = x
        return view
    return x
