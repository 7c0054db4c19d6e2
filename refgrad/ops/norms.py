"""Norms and distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.ops.arrays import keep_dims
from refgrad.ops.composites import composite
from refgrad.ops.extrema import evenly
from refgrad.ops.extremes import clamp, where
from refgrad.ops.op import INPLACE, op
from refgrad.ops.pointwise import sub
from refgrad.ops.promotion import promote
from refgrad.ops.reductions import dims_of, sum
from refgrad.ops.shaping import broadcast_tensors

__all__ = ["cosine_similarity", "dist", "norm", "pairwise_distance", "renorm"]


@op(method=False)
def vector_norm(input: Any, ord: Any = 2, dim: Any = None, keepdim: Any = False, *, dtype: Any = None) -> Any:
    """(sum of |x|^ord)^(1/ord) over `dim`; for 0 the count of nonzeros, for +-inf max and min of |x|.

    Raises:
        RuntimeError: the dtype is neither floating nor complex, or an empty dimension has no norm.
    """
    if dtype is not None:
        input = input.astype(dtype.numpy, copy=False)
    if input.dtype.kind not in "fc":
        raise RuntimeError(
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {input.dtype}"
        )
    dims = dims_of(dim, input.ndim)
    size = np.abs(input)
    if ord in (math.inf, -math.inf):
        reduce = np.max if ord > 0 else np.min
        if ord > 0 and input.size == 0:
            return np.sum(size, axis=dims, keepdims=keepdim)
        return reduce(size, axis=dims, keepdims=keepdim)
    if ord == 0:
        return np.sum(size != 0, axis=dims, keepdims=keepdim).astype(size.dtype)
    if ord == 1:
        return np.sum(size, axis=dims, keepdims=keepdim)
    if ord == 2:
        out = np.sqrt(np.sum(size * size, axis=dims, keepdims=keepdim))
        return out if np.all((out > 1e-150) & (out < np.inf)) else _scaled(size, dims, keepdim)
    return np.sum(size**ord, axis=dims, keepdims=keepdim) ** (1.0 / ord)


def _scaled(size: Any, dims: Any, keepdim: bool) -> Any:
    """The 2-norm by way of the largest element, as squares overflow or vanish."""
    if size.size == 0:
        return np.sum(size, axis=dims, keepdims=keepdim)
    top = np.max(size, axis=dims, keepdims=True)
    unit = size / np.where((top == 0) | np.isinf(top), 1.0, top)
    top = np.where((top == 0) | np.isinf(top), 1.0, top)
    out = top * np.sqrt(np.sum(unit * unit, axis=dims, keepdims=True))
    return out if keepdim else np.reshape(out, np.sum(size, axis=dims).shape)


def _by_vector(g: Any, shape: Any, input: Any, ord: Any, dim: Any, keepdim: bool, out: Any) -> Any:
    """d |x|_p = sum of (|x| / |x|_p)^(p-1) d|x|; zero where the norm is, or where x is and p < 2."""
    if ord == 0:
        return np.zeros_like(input)
    dims = dims_of(dim, len(shape))
    sign = np.sign(np.conj(input))
    if ord in (math.inf, -math.inf):
        return evenly(g, shape, np.abs(input), dim, keepdim, out) * sign
    g, out = keep_dims(g, shape, dims, keepdim), keep_dims(out, shape, dims, keepdim)
    if ord == 1:
        return g * sign
    if ord == 2:
        unit = np.conj(input) / out
        return g * (np.where(out == 0, 0.0, unit) if np.any(out == 0) else unit)
    if ord < 2:
        none = input == 0
        return g * sign * np.where(none, 0.0, (np.where(none, 1.0, np.abs(input)) / out) ** (ord - 1))
    return g * sign * (np.abs(input) / np.where(out == 0, 1.0, out)) ** (ord - 1)


vector_norm.vjp(input=_by_vector)


@composite
def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The vector p-norm over `dim` (all by default), or the nuclear norm ("nuc") of matrices."""
    if p == "nuc":
        from refgrad import linalg

        return linalg.matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


@composite
def dist(input: Any, other: Any, p: Any = 2) -> Any:
    """The p-norm of input - other."""
    return vector_norm(sub(input, other), p)


@composite
def renorm(input: Any, p: Any, dim: int, maxnorm: Any) -> Any:
    """`input` with each slice along `dim` scaled down to a p-norm of at most `maxnorm`."""
    rest = tuple(i for i in range(input.ndim) if i != dim % input.ndim)
    size = vector_norm(input, p, rest, True)
    return input * where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)


INPLACE["renorm"] = renorm


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-08) -> Any:
    """The cosine of the angle between x1 and x2 along `dim`; norms count as at least `eps`."""
    x1, x2 = promote(broadcast_tensors(x1, x2))
    a, b = vector_norm(x1, 2, dim, True), vector_norm(x2, 2, dim, True)
    return sum((x1 / clamp(a, eps)) * (x2 / clamp(b, eps)), dim)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-06, keepdim: bool = False
) -> Any:
    """The p-norm of x1 - x2 + eps along the last dimension."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)
