"""Sorting, and what stands where in the order: medians, quantiles, the k largest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.arrays import wrap_dim
from refgrad.ops.composites import composite, lay
from refgrad.ops.extrema import pick, share
from refgrad.ops.extremes import ceil, floor, round
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.ops.pointwise import lerp
from refgrad.ops.scattering import gather
from refgrad.ops.shaping import flatten, movedim, narrow, squeeze, unsqueeze
from refgrad.ops.strides import like_first
from refgrad.tensor import Tensor, wrap

__all__ = [
    "argsort", "kthvalue", "median", "mode", "msort", "nanmedian", "nanquantile", "quantile", "sort",
    "topk",
]  # fmt: skip


class sort_result(NamedTuple):
    """What sort returns."""

    values: Any
    indices: Any


class topk_result(NamedTuple):
    """What topk returns."""

    values: Any
    indices: Any


class kthvalue_result(NamedTuple):
    """What kthvalue returns."""

    values: Any
    indices: Any


class median_result(NamedTuple):
    """What median over a dimension returns."""

    values: Any
    indices: Any


class nanmedian_result(NamedTuple):
    """What nanmedian over a dimension returns."""

    values: Any
    indices: Any


class mode_result(NamedTuple):
    """What mode returns."""

    values: Any
    indices: Any


# --- sorting -------------------------------------------------------------------------------------


@op(method=False)
def order(input: Any, dim: Any, descending: Any) -> Any:
    """The indices that sort `input` along `dim`; stable, with nan as the largest."""
    dim = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return np.zeros_like(input, dtype=np.int64)
    if not descending:
        return np.argsort(input, axis=dim, kind="stable")
    last = input.shape[dim] - 1  # the reverse of an ascending order of the reverse is stable too
    return np.flip(last - np.argsort(np.flip(input, axis=dim), axis=dim, kind="stable"), axis=dim)


@composite
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
    """The elements in order along `dim`, and their indices."""
    at = order(input, dim, descending)
    return sort_result(lay(gather(input, dim, at), like_first, (input._array,)), at)


@composite
def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The indices that sort `input` along `dim`."""
    return order(input, dim, descending)


@composite
def msort(input: Any) -> Any:
    """The elements in ascending order along the first dimension."""
    return sort(input, 0).values


@composite
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along `dim`, and their indices.

    Raises:
        RuntimeError: there are not k elements.
    """
    n = input.shape[wrap_dim(dim, input.ndim)] if input.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError("selected index k out of range")
    at = order(input, dim, largest)
    at = narrow(at, dim, 0, k) if input.ndim else at
    return topk_result(gather(input, dim, at), at)


# --- one of the order ------------------------------------------------------------------------------


def _nans(x: Any, dim: int) -> Any:
    """How many are nan along `dim`, which stays."""
    return np.sum(x != x, axis=dim, keepdims=True)


def _checked(name: str, input: Any, dim: Any) -> int:
    dim = wrap_dim(dim, input.ndim)
    if input.ndim and input.shape[dim] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")
    return dim


@op(method=False)
def _kth(input: Any, k: Any, dim: Any) -> Any:
    """The index of the k-th smallest along `dim`, which stays."""
    dim = _checked("kthvalue", input, dim)
    n = input.shape[dim] if input.ndim else 1
    if not 1 <= k <= n:
        raise RuntimeError("kthvalue(): selected number k out of range for dimension")
    return np.take(order(input, dim, False), [k - 1], axis=dim) if input.ndim else np.zeros_like(input, dtype=np.int64)


@composite
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along `dim`, and its index."""
    return pick(kthvalue_result, input, dim, _kth(input, k, dim), keepdim)


@op(method=False)
def _middle(input: Any, dim: Any, ignore_nan: Any) -> Any:
    """The index of the lower median along `dim`, which stays; nan if there is one, unless ignored."""
    dim = _checked("median", input, dim)
    if input.ndim == 0:
        return np.zeros_like(input, dtype=np.int64)
    n, nans = input.shape[dim], _nans(input, dim)
    at = np.maximum(n - nans - 1, 0) // 2
    if not ignore_nan:
        at = np.where(nans > 0, n - nans, at)
    return np.take_along_axis(order(input, dim, False), at, axis=dim)


def _median(name: str, kind: Any, ignore_nan: bool) -> Any:
    def of_all(input: Any) -> Any:
        if input.size == 0:
            return np.reshape(np.sum(input) * np.nan, ()).astype(input.dtype)
        x = np.reshape(input, (-1,))
        return np.reshape(x[_middle(x, 0, ignore_nan)], ())

    full = op(of_all, name=name, method=False).vjp(input=share)

    def median(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return full(input)
        return pick(kind, input, dim, _middle(input, dim, ignore_nan), keepdim)

    median.__name__ = name
    median.__doc__ = (
        "The lower median of all elements, or along `dim` with its index; "
        + ("nan is left out." if ignore_nan else "nan if there is one.")
    )
    return composite(median)


median = _median("median", median_result, False)
nanmedian = _median("nanmedian", nanmedian_result, True)


@op(method=False)
def _mode(input: Any, dim: Any) -> Any:
    """The index of the last of the most frequent values (of the smallest of these) along `dim`."""
    dim = _checked("mode", input, dim)
    if input.ndim == 0:
        return np.zeros_like(input, dtype=np.int64)
    rows = np.moveaxis(input, dim, -1)
    found = []
    for row in np.reshape(rows, (-1, rows.shape[-1])):
        values, counts = np.unique(row, return_counts=True)
        found.append(np.flatnonzero(row == values[np.argmax(counts)])[-1])
    at = np.reshape(beside(np.array([int(f) for f in found], dtype=np.int64), input), rows.shape[:-1] + (1,))
    return np.moveaxis(at, -1, dim)


@composite
def mode(input: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent value along `dim`, the smallest of several, and its last index."""
    return pick(mode_result, input, dim, _mode(input, dim), keepdim)


# --- quantiles -------------------------------------------------------------------------------------

_ROUNDED = {"lower": floor, "higher": ceil, "nearest": round}


def _quantile(
    input: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, ignore_nan: bool
) -> Any:
    name = "nanquantile" if ignore_nan else "quantile"
    if input.numel() == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if interpolation not in (*_ROUNDED, "linear", "midpoint"):
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but "
            f"got {interpolation}"
        )
    if not isinstance(q, Tensor):
        q = constant(np.asarray(q, dtype=input._array.dtype), input)
    if q.dtype is not input.dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
    if not np.all((q._array >= 0) & (q._array <= 1)):
        raise RuntimeError(f"{name}() q must be in the range [0, 1]")
    x = flatten(input) if dim is None or input.ndim == 0 else movedim(input, dim, -1)
    values = sort(x, -1).values
    n, nans = x.shape[-1], wrap(_nans(values._array, -1))
    ranks = (q if q.ndim else unsqueeze(q, 0)) * ((n - nans - 1).clamp(min=0) if ignore_nan else n - 1)
    if not ignore_nan and nans._array.any():
        ranks = ranks.masked_fill(nans > 0, n - 1)  # nan is sorted to the end
    if ranks.ndim < x.ndim:
        ranks = ranks.expand(*x.shape[:-1], ranks.shape[-1])
    if interpolation in _ROUNDED:
        ranks = _ROUNDED[interpolation](ranks)
    below = ranks.detach().long()
    out = gather(values, -1, below)
    if interpolation in ("linear", "midpoint"):
        weight = ranks - below if interpolation == "linear" else ranks * 0 + 0.5
        out = lerp(out, gather(values, -1, ceil(ranks.detach()).long()), weight)
    if keepdim:
        if dim is None:
            out = out.reshape((1,) * input.ndim + (-1,))
        else:
            out = movedim(unsqueeze(out, -2), -2, wrap_dim(dim, input.ndim)) if input.ndim else out
    return movedim(out, -1, 0) if q.ndim else squeeze(out, -1)


@composite
def quantile(
    input: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The q-quantiles along `dim` (of all by default); nan where there is one."""
    return _quantile(input, q, dim, keepdim, interpolation, False)


@composite
def nanquantile(
    input: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The q-quantiles along `dim` (of all by default) of what is not nan."""
    return _quantile(input, q, dim, keepdim, interpolation, True)
