"""Distinct values, counts in bins, and places in a sorted sequence: ops without a derivative."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.arrays import as_array, wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.op import op
from refgrad.tensor import Tensor, wrap

__all__ = ["bincount", "bucketize", "histc", "isin", "searchsorted", "unique", "unique_consecutive"]


def _chosen(values: Any, inverse: Any, counts: Any, with_inverse: bool, with_counts: bool) -> Any:
    found = [wrap(values)]
    if with_inverse:
        found.append(wrap(inverse.astype(np.int64)))
    if with_counts:
        found.append(wrap(counts.astype(np.int64)))
    return found[0] if len(found) == 1 else tuple(found)


@composite
def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: Any = None,
) -> Any:  # fmt: skip
    """The distinct elements in order (or slices along `dim`), where each one went, and how often."""
    x = input._array
    dim = None if dim is None else wrap_dim(dim, x.ndim)
    values, inverse, counts = np.unique(
        x, return_inverse=True, return_counts=True, axis=dim, equal_nan=False
    )
    inverse = np.reshape(inverse, x.shape if dim is None else (-1,))
    return _chosen(values, inverse, counts, return_inverse, return_counts)


@composite
def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    """`input` with each run of equal elements (or slices along `dim`) as one of them."""
    x = input._array
    rows = np.reshape(x, (-1,)) if dim is None else np.moveaxis(x, wrap_dim(dim, x.ndim), 0)
    flat = np.reshape(rows, (len(rows), -1)) if rows.size else np.reshape(rows, (len(rows), 0))
    starts = np.ones_like(flat, shape=(len(rows),), dtype=bool)
    starts[1:] = np.any(flat[1:] != flat[:-1], axis=1)
    values = rows[starts]
    inverse = np.cumsum(starts) - 1
    counts = np.diff(np.append(np.flatnonzero(starts), beside(np.array([len(rows)]), starts)))
    if dim is None:
        inverse = np.reshape(inverse, x.shape)
    else:
        values = np.moveaxis(values, 0, wrap_dim(dim, x.ndim))
    return _chosen(values, inverse, counts, return_inverse, return_counts)


@op
def bincount(input: Any, weights: Any = None, minlength: Any = 0) -> Any:
    """How often each number from 0 stands in `input`, or the sum of its weights.

    Raises:
        RuntimeError: `input` is not 1-d, or has negative numbers.
    """
    if input.ndim != 1 or (input.size and np.min(input) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    out = np.bincount(input.astype(np.int64), weights, minlength)
    if weights is None:
        return out.astype(np.int64)
    return out.astype(weights.dtype if weights.dtype == np.float32 else np.float64)


@op
def histc(input: Any, bins: Any = 100, min: Any = 0, max: Any = 0) -> Any:
    """The counts in `bins` bins of one width from `min` to `max`; by default the range of `input`.

    Raises:
        RuntimeError: the range is empty or not finite.
    """
    if bins <= 0:
        raise RuntimeError("bins must be > 0")
    low, high = float(min), float(max)
    if low == high and input.size:
        low, high = float(np.min(input)), float(np.max(input))
    if low == high:
        low, high = low - 1, high + 1
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("max must be larger than min")
    x = np.reshape(input, (-1,)).astype(np.float64)
    inside = x[(x >= low) & (x <= high)]
    at = np.minimum(((inside - low) * bins / (high - low)).astype(np.int64), bins - 1)
    return np.bincount(at, minlength=bins).astype(input.dtype)


def _places(sequence: Any, values: Any, right: bool) -> Any:
    side = "right" if right else "left"
    if sequence.ndim == 1:
        return as_array(np.searchsorted(sequence, values, side=side))
    n = math.prod(sequence.shape[:-1])
    rows = np.reshape(sequence, (n, sequence.shape[-1]))
    wanted = np.reshape(values, (n, values.shape[-1]))
    found = [np.searchsorted(r, v, side=side) for r, v in zip(rows, wanted, strict=True)]
    return np.reshape(np.stack(found), values.shape) if found else np.zeros_like(values, dtype=np.int64)


def searchsorted(
    sorted_sequence: Any, input: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Any = None,
) -> Any:  # fmt: skip
    """Where to insert `input` into the last dimension of `sorted_sequence` to keep it in order.

    Raises:
        RuntimeError: the shapes do not fit, or `side` contradicts `right`.
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites")
    sequence = sorted_sequence._array
    if sorter is not None:
        sequence = np.take_along_axis(sequence, sorter._array, axis=-1)
    values = input._array if isinstance(input, Tensor) else beside(np.asarray(input), sequence)
    if sequence.ndim != 1 and sequence.shape[:-1] != values.shape[:-1]:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            "dimensions of boundaries tensor and input value tensor must match"
        )
    found = _places(sequence, values, right or side == "right")
    return wrap(found.astype(np.int32 if out_int32 else np.int64))


def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """The bucket between `boundaries` that each element falls in."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Any:
    """Whether each of `elements` stands in `test_elements`."""
    like = elements if isinstance(elements, Tensor) else test_elements
    x, y = (
        e._array if isinstance(e, Tensor) else beside(np.asarray(e), like)
        for e in (elements, test_elements)
    )
    return wrap(as_array(np.isin(x, y, invert=invert)))
