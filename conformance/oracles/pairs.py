"""Real numbers for complex ones: every inner product of the harness is Re(conj(a) b)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from conformance.program import Array, Program, Values

_FLOAT64 = np.dtype(np.float64)
FAINT = 1e-100  # values below it are moved by parts of themselves, and not by 1e-3


def flat(array: Array) -> Array:
    """All entries as float64 in one dimension; a complex one as its real and imaginary part."""
    if array.dtype is _FLOAT64:
        return array.reshape(-1)
    if array.dtype.kind == "c":
        array = np.ascontiguousarray(array)
        return array.astype(np.complex128, copy=False).reshape(-1).view(np.float64)
    return array.astype(np.float64, copy=False).reshape(-1)


def inner(a: Mapping[str, Array | None], b: Mapping[str, Array]) -> tuple[float, float]:
    """The sum of a * b over the leaves of b, and that of its absolute terms; 0 times inf is 0."""
    total = size = 0.0
    for name, direction in b.items():
        value = a.get(name)
        if value is None:
            continue
        added, terms = _sums(flat(direction), flat(value))
        total += added
        size += terms
    return total, size


def _sums(weights: Array, values: Array) -> tuple[float, float]:
    """Of the products and of their magnitudes; a weight of 0 silences what is not finite."""
    terms = weights * values
    size = float(np.abs(terms).sum())
    if math.isnan(size):
        terms = np.where(weights == 0, 0.0, terms)
        size = float(np.abs(terms).sum())
    return float(terms.sum()), size


def contracted(cotangents: Sequence[Array | None], tangents: Iterable[Any]) -> tuple[float, float]:
    """The same for flat outputs; a zero cotangent silences what is not finite."""
    total = size = 0.0
    for cotangent, tangent in zip(cotangents, tangents, strict=True):
        if cotangent is None or tangent is None:
            continue
        if tangent.shape != cotangent.shape:
            tangent = np.broadcast_to(tangent, cotangent.shape)
        added, terms = _sums(flat(cotangent), flat(tangent))
        total += added
        size += terms
    return total, size


def gaussian(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Independent standard Gaussian entries."""
    dtype = np.dtype(dtype)
    made = rng.standard_normal(shape)
    if dtype.kind == "c":
        made = made + 1j * rng.standard_normal(shape)
    return np.asarray(made).astype(dtype)


def cotangents_for(rng: np.random.Generator, outputs: Iterable[Array]) -> list[Array | None]:
    """A Gaussian cotangent for each floating output; None for another."""
    return [gaussian(rng, o.shape, o.dtype) if o.dtype.kind in "fc" else None for o in outputs]


def direction(
    rng: np.random.Generator, program: Program, values: Values, *, within: bool = False
) -> dict[str, Array]:
    """A Gaussian direction for each leaf, in proportion to its values; 0 where one is not finite.

    The dtypes are float64 and complex128 whatever the leaf's. A Hermitian leaf stays one where a
    call takes its matrix for such, or with `within`.
    """
    made = {}
    for leaf in program.leaves:
        value = values[leaf.name]
        wide = np.complex128 if value.dtype.kind == "c" else np.float64
        along = gaussian(rng, value.shape, wide)
        finite = np.isfinite(value)
        if finite.all():
            along *= _change(np.abs(value, dtype=np.float64) if value.size else np.zeros(1))
        else:
            size = np.abs(value[finite], dtype=np.float64) if finite.any() else np.zeros(1)
            along = np.where(finite, along * _change(size), 0)
        if (within or program.takes_hermitian) and hermitian(value):
            along = (along + along.mT.conj()) / 2
        made[leaf.name] = along
    return made


def _change(sizes: Array) -> float:
    """What a change of values of these magnitudes is: their root mean square, or about that."""
    if 0 < sizes.max(initial=0.0) < FAINT:  # their squares vanish
        return float(sizes.max())
    within = np.minimum(sizes, 1e150).reshape(-1)
    typical = math.sqrt(float(within @ within) / sizes.size) if sizes.size else 0.0
    return max(typical, 1e-3) if typical else 1.0


def hermitian(array: Array) -> bool:
    """Whether these are matrices that are their own conjugate transposes, to the bit."""
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.shape[-1] < 2:
        return False
    return np.array_equal(array, array.mT.conj())
