"""One way to compare two arrays, with nan and inf as values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from conformance.oracles.pairs import flat
from conformance.oracles.torch_autograd import scale
from conformance.program import Array

# of the leaf's scale: what two right implementations in that dtype differ by at first look
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 4e-3, "bfloat16": 3e-2}


LITTLE = 0.375  # the power of epsilon: 1.3e-6 in float64, 2.5e-3 in float32


def little(dtype: Any) -> float:
    """The part of a derivative that a rule may lose in a dtype and count as precision."""
    eps = float(np.finfo(np.dtype(dtype)).eps)
    return float(eps**LITTLE)


@lru_cache(16)
def tiny(dtype: str) -> float:
    """The least normal number of a dtype."""
    return float(np.finfo(np.dtype(dtype)).tiny)


@dataclass(frozen=True)
class Difference:
    """The worst entry at which two arrays differ, or what keeps them from being compared.

    `kind` is "none", "shape", "dtype", "nan" (not finite in one alone) or "value". `index` is into
    the array; `error` and `tolerance` are absolute, and `count` is how many entries differ.
    """

    kind: str
    index: tuple[int, ...] | None = None
    left: Any = None
    right: Any = None
    error: float = 0.0
    tolerance: float = 0.0
    count: int = 0

    @property
    def severity(self) -> tuple[bool, float]:
        """An order from bad to worse."""
        return (self.kind != "value", self.error / self.tolerance if self.tolerance else np.inf)

    @property
    def part(self) -> tuple[complex, float, float]:
        """The part of the entry in which the two differ more, as a unit, and both values of it."""
        left, right = complex(self.left), complex(self.right)
        with np.errstate(invalid="ignore"):
            real, imaginary = np.nan_to_num(np.abs(flat(np.array(left - right))), nan=np.inf)
        if imaginary > real:
            return 1j, left.imag, right.imag
        return 1.0, left.real, right.real


@lru_cache(256)
def tolerance_for(dtype: Any, *, loose: bool = False) -> float:
    """The relative tolerance of a dtype; `loose` for the long chains of a model."""
    name = dtype if dtype in ("bfloat16", "complex32") else np.dtype(dtype).name
    name = {"complex128": "float64", "complex64": "float32", "complex32": "float16"}.get(name, name)
    return TOLERANCE.get(name, 1e-12) * (100 if loose and name == "float64" else 1)


def same(left: Array | None, right: Array | None) -> bool:
    """Whether they are equal, nan and all."""
    if left is None or right is None:
        return left is right
    return np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")


def compare(
    left: Array | None,
    right: Array | None,
    *,
    relative: float,
    absolute: Array | float = 0.0,
    floor: float = 0.0,
) -> Difference | None:
    """The worst difference of left from right, or None.

    An entry differs where |left - right| > max(relative * scale, absolute), the scale being the
    largest magnitude on the right, or `floor` where that is more. None counts as zeros. `absolute`
    may have one value an entry (of real and imaginary parts).
    """
    if left is None or right is None:
        there = right if left is None else left
        if there is None or not there.any():  # no gradient and a zero gradient are one derivative
            return None
        return Difference("none", left=left, right=right)
    if left.shape != right.shape:
        return Difference("shape", left=left.shape, right=right.shape)
    if left.dtype != right.dtype:
        return Difference("dtype", left=left.dtype.name, right=right.dtype.name)
    if left.dtype.kind not in "fc":
        unequal = (left != right).reshape(-1)
        wide = np.zeros(1)
        if not unequal.any():
            return None
        return _difference("value", left, right, unequal, unequal + wide[0], 0.0)
    a, b = flat(left), flat(right)
    with np.errstate(all="ignore"):
        error = np.abs(a - b)
        usual = relative * max(scale(b), floor)
        if usual < np.inf and np.maximum.reduce(error, initial=0.0) <= usual:  # as nearly always
            return None
        finite = np.isfinite(a) & np.isfinite(b)
        same = ~finite & ((a == b) | (np.isnan(a) & np.isnan(b)))
        tolerance = np.maximum(usual, absolute)
        wrong = ~same & (~finite | (error > tolerance))
    if not wrong.any():
        return None
    if (wrong & ~finite).any():
        return _difference("nan", left, right, wrong & ~finite, (wrong & ~finite) * 1.0, 0.0)
    return _difference("value", left, right, wrong, np.where(wrong, error, 0.0), tolerance)


def _difference(
    kind: str, left: Array, right: Array, wrong: Array, error: Array, tolerance: Any
) -> Difference:
    tolerances = np.broadcast_to(np.asarray(tolerance, float), wrong.shape)
    excess = error / np.maximum(tolerances, np.finfo(float).tiny)
    at = int(np.argmax(np.where(wrong, excess, -1.0)))
    entry = at // 2 if left.dtype.kind == "c" else at
    index = tuple(int(i) for i in np.unravel_index(entry, left.shape)) if left.ndim else ()
    return Difference(
        kind,
        index,
        left[index].item(),
        right[index].item(),
        float(error[at]) if kind == "value" else float("nan"),
        float(tolerances[at]),
        int(wrong.sum()),
    )


def measures(difference: Difference, dtype: Any) -> dict[str, Any]:
    """The evidence that a Difference gives: index, values, absolute, relative and ULP error."""
    evidence: dict[str, Any] = {
        "engine": plain(difference.left),
        "reference": plain(difference.right),
    }
    if difference.index is not None:
        evidence["index"] = list(difference.index)
    if difference.kind == "value":
        size = abs(difference.right)
        evidence["absolute"] = difference.error
        evidence["tolerance"] = difference.tolerance
        evidence["wrong_entries"] = difference.count
        if size:
            evidence["relative"] = difference.error / float(size)
        if np.dtype(dtype).kind in "fc" and size and np.isfinite(size):
            unit = np.spacing(np.asarray(size, np.empty(0, dtype).real.dtype))
            evidence["ulp"] = float(difference.error / float(unit))
    return evidence


def plain(value: Any) -> Any:
    """A number as data that JSON can hold; a complex one as its text."""
    if isinstance(value, complex):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return value
