"""Helpers on arrays that rules and the engine share; each runs on arrays and on Tensors alike."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.dtypes import from_numpy
from refgrad.libraries import Loaded, on_device
from refgrad.ops.kernels import reshaped, sum_over


def as_array(x: Any) -> Any:
    """`x` as an array: NumPy's scalar, which an operation on 0-d arrays returns, becomes 0-d."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def accumulate(ufunc: Any, x: Any, axis: int) -> Any:
    """`ufunc.accumulate`, for an associative one, on a device too: there by doubling the reach."""
    if Loaded.cuda is None or not on_device(x):
        return ufunc.accumulate(x, axis=axis)
    out, reach = np.moveaxis(np.copy(x, order="C"), axis, 0), 1
    while reach < len(out):
        out[reach:] = ufunc(out[:-reach], out[reach:])
        reach *= 2
    return np.moveaxis(out, 0, axis)


def greatest(x: Any, least: Any, **options: Any) -> Any:
    """The maximum along an axis, or `least`, which no element is below, where there are none."""
    axis = options.get("axis")
    if (x.size if axis is None else x.shape[axis]) == 0:
        return np.full_like(np.sum(x, **options), least)
    return np.max(x, **options)


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes along which an input of `shape` was broadcast."""
    own = g.shape
    extra = len(own) - len(shape)
    axes = tuple([i + extra for i, n in enumerate(shape) if n == 1 and own[i + extra] != 1])
    if extra:
        total = sum_over(g, (*range(extra), *axes))
        return total if total.shape == shape else reshaped(total, shape)
    return sum_over(g, axes, True) if axes else g


def cast(g: Any, dtype: Any) -> Any:
    """`g` in NumPy's `dtype`; from complex to real the real part, as Re(g dz) asks of a real dz."""
    array = getattr(g, "_array", None)
    if array is None:
        if g.dtype.kind == "c" and dtype.kind != "c":
            g = g.real
        return g.astype(dtype)
    if array.dtype.kind == "c" and dtype.kind != "c":
        g = g.real
    return g.to(from_numpy(dtype))


def wrap_dim(dim: Any, ndim: int) -> int:
    """`dim` as an index from 0.

    Raises:
        IndexError: it is outside [-ndim, ndim), with 0-d arrays read as 1-d.
    """
    if type(dim) is int and -ndim <= dim < ndim:
        return dim + ndim if dim < 0 else dim
    dim = operator.index(dim)
    span = max(ndim, 1)
    if not -span <= dim < span:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got {dim})"
        )
    return int(dim + span if dim < 0 else dim)


def wrap_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """`dim` (None: all; an int; several) as a tuple of indices from 0.

    Raises:
        IndexError: one is out of range.
        RuntimeError: one stands there twice.
    """
    if dim is None:
        return tuple(range(ndim))
    if type(dim) is int and -ndim <= dim < ndim:
        return (dim + ndim if dim < 0 else dim,)
    dim = tuple(dim) if isinstance(dim, Sequence) else (dim,)
    dims = tuple([wrap_dim(d, ndim) for d in dim])
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"dim {dim} appears multiple times in the list of dims")
    return dims if ndim else ()


def keep_dims(g: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """`g`, the gradient of a reduction of `shape` over `dim`, with the reduced axes as size 1."""
    if keepdim:
        return g
    dims = wrap_dims(dim, len(shape))
    return reshaped(g, tuple([1 if i in dims else n for i, n in enumerate(shape)]))
