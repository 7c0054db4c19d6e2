"""Sums and products over dimensions, and what is counted or asked of all elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.arrays import keep_dims, wrap_dim, wrap_dims
from refgrad.ops.composites import composite
from refgrad.ops.kernels import reshaped, sum_over, widened
from refgrad.ops.op import op
from refgrad.tensor import Tensor

__all__ = ["all", "any", "count_nonzero", "mean", "nanmean", "nansum", "prod", "sum"]


def dims_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """`dim` as `wrap_dims`, where an empty tuple too means all."""
    return wrap_dims(None if dim == () or dim == [] else dim, ndim)


def spread(g: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """`g`, the gradient of a reduction of `shape` over `dim`, at every element that was reduced."""
    if not g.ndim:
        return widened(g, shape)
    return widened(keep_dims(g, shape, None if dim == () else dim, keepdim), shape)


def _widened(input: Any, dtype: Any) -> Any:
    """`input` in the dtype that sums and products are made in."""
    if dtype is not None:
        return input.astype(dtype.numpy, copy=False)
    return input.astype(np.int64) if input.dtype.kind in "bui" else input


@op
def sum(input, dim=None, keepdim=False, *, dtype=None):
    """The sum over `dim` (all by default)."""
    x = _widened(input, dtype)
    out = sum_over(x, dims_of(dim, input.ndim), keepdim)
    return out if out.dtype == x.dtype else out.astype(x.dtype)  # NumPy adds up in 64 bits


sum.linear("input")
sum.vjp(input=lambda g, shape, dim, keepdim: spread(g, shape, dim, keepdim))  # each element gets g


@op
def nansum(input, dim=None, keepdim=False, *, dtype=None):
    """The sum over `dim` of what is not nan."""
    input = _widened(input, dtype)
    axes, known = dims_of(dim, input.ndim), np.where(np.isnan(input), 0, input)
    return np.sum(known, axis=axes, keepdims=keepdim, dtype=input.dtype)


nansum.vjp(
    input=lambda g, shape, input, dim, keepdim: spread(g, shape, dim, keepdim) * ~np.isnan(input)
)


def count(shape: tuple[int, ...], dim: Any) -> int:
    """How many elements of `shape` are reduced to one over `dim`."""
    n = 1
    for d in dims_of(dim, len(shape)):
        n *= shape[d]
    return n


@op
def mean(input, dim=None, keepdim=False, *, dtype=None):
    """The mean over `dim` (all by default).

    Raises:
        RuntimeError: the dtype is neither floating nor complex.
    """
    if dtype is not None:
        input = input.astype(dtype.numpy, copy=False)
    if input.dtype.kind not in "fc":
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {input.dtype}"
        )
    total = sum_over(input, dims_of(dim, input.ndim), keepdim)
    n = count(input.shape, dim)
    return total / n if n else total * np.nan


mean.linear("input")
mean.vjp(
    input=lambda g, shape, dim, keepdim: spread(g / (count(shape, dim) or np.nan), shape, dim, keepdim)
)


@composite
def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean over `dim` of what is not nan."""
    return nansum(input, dim, keepdim, dtype=dtype) / sum(~(input != input), dim, keepdim)


# --- products ------------------------------------------------------------------------------------


def _others(x: Any, dim: int) -> Any:
    """The product of all other elements along `dim`: of those before times those after."""
    n = x.shape[dim]
    first = reshaped(beside(np.arange(n) == 0, x), (n,) + (1,) * (x.ndim - 1 - dim))
    before = np.where(first, 1.0, np.roll(np.cumprod(x, axis=dim), 1, axis=dim))
    back = np.cumprod(np.flip(x, axis=dim), axis=dim)
    after = np.flip(np.where(first, 1.0, np.roll(back, 1, axis=dim)), axis=dim)
    return before * after


def _by_factor(g: Any, shape: tuple[int, ...], input: Any, dim: Any, keepdim: bool, out: Any) -> Any:
    """out / x, but by the product of the others where a factor is 0, and to be differentiated.

    The derivatives of the quotient have x^2 in them, which overflows where that of prod does not.
    """
    if input.ndim == 0:
        return g
    g = spread(g, shape, dim, keepdim)
    if not isinstance(g, Tensor) and not np.any(input == 0):
        return g * spread(out, shape, dim, keepdim) / input
    if dim is None:
        return g * reshaped(_others(reshaped(input, (-1,)), 0), shape)
    return g * _others(input, wrap_dim(dim, len(shape)))


@op
def prod(input, dim=None, keepdim=False, *, dtype=None):
    """The product over one dimension, or of all elements."""
    axes, x = dims_of(dim, input.ndim), _widened(input, dtype)
    return np.prod(x, axis=axes, keepdims=keepdim, dtype=x.dtype)


prod.vjp(input=_by_factor)

# --- counts and questions --------------------------------------------------------------------------


def _question(name: str, function: Any) -> Any:
    def forward(input, dim=None, keepdim=False):
        out = function(input, axis=wrap_dims(dim, input.ndim), keepdims=keepdim)
        return out.astype(np.uint8) if input.dtype == np.uint8 else out

    forward.__doc__ = f"Whether {name} of the elements along `dim` are nonzero."
    return op(forward, name=name)


all = _question("all", np.all)
any = _question("any", np.any)


@op
def count_nonzero(input, dim=None):
    """How many elements along `dim` are not zero."""
    return np.sum(input != 0, axis=wrap_dims(dim, input.ndim), dtype=np.int64)
