"""Arrays of random numbers, by NumPy's generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.dtypes import dtype
from refgrad.limits import iinfo


def uniform(rng: np.random.Generator, shape: Any, of: dtype) -> Any:
    """Uniform on [0, 1), for a complex dtype on the square."""
    if of.is_complex:
        real, imag = (uniform(rng, shape, of.to_real()) for _ in range(2))
        return real + 1j * imag
    if of is dtypes.float16:  # on its own grid: rounding a finer draw could give 1
        return (rng.integers(0, 2048, shape) / 2048).astype(np.float16)
    need_inexact("uniform", of)
    return rng.random(shape, of.numpy)


def standard_normal(rng: np.random.Generator, shape: Any, of: dtype) -> Any:
    """Standard normal; a complex one has variance 1, half of it in each part."""
    if of.is_complex:
        real, imag = (standard_normal(rng, shape, of.to_real()) for _ in range(2))
        return ((real + 1j * imag) * np.sqrt(0.5)).astype(of.numpy)
    if of is dtypes.float16:
        return rng.standard_normal(shape, np.float32).astype(np.float16)
    need_inexact("normal", of)
    return rng.standard_normal(shape, of.numpy)


def need_inexact(name: str, of: dtype) -> None:
    if not (of.is_floating_point or of.is_complex):
        raise NotImplementedError(f'"{name}" not implemented for {of!r}')


def integers(rng: np.random.Generator, low: int, high: int, shape: Any, of: dtype) -> Any:
    """Integers in [low, high)."""
    if of.is_complex:
        raise RuntimeError("random integers need an integral, floating-point or boolean dtype")
    if low >= high:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    if not of.is_floating_point:
        least, most = (0, 1) if of is dtypes.bool else (iinfo(of).min, iinfo(of).max)
        if low < least or low > most:
            raise RuntimeError(f"from is out of bounds for {of!r}")
        if high - 1 > most:
            raise RuntimeError(f"to - 1 is out of bounds for {of!r}")
    drawn = rng.integers(low, high, shape, np.uint64 if of is dtypes.uint64 else np.int64)
    return np.asarray(drawn).astype(of.numpy)


def scaled_normal(rng: np.random.Generator, shape: Any, of: dtype, mean: Any, std: Any) -> Any:
    """An array of normal draws; RuntimeError for a negative deviation."""
    if np.ndim(std) == 0 and not std >= 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if not np.all(std >= 0):
        raise RuntimeError("normal expects all elements of std >= 0.0")
    return np.asarray(standard_normal(rng, shape, of) * std + mean).astype(of.numpy)


def probability(name: str, p: float) -> float:
    """A number in [0, 1]; RuntimeError for others."""
    if not 0 <= p <= 1:
        raise RuntimeError(f"{name} expects p to be in [0, 1], but got p={p}")
    return p
