"""NumPy's functions, read on Tensors: what a rule may call when it is itself recorded.

A ufunc finds its op by `UFUNCS`; the functions below translate NumPy's arguments to the op's. What
stands in neither raises TypeError, so a rule cannot leave the graph in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refgrad.ops.extremes import _where
from refgrad.ops.indexing import index_select
from refgrad.ops.joining import cat, stack
from refgrad.ops.op import FUNCTIONS
from refgrad.ops.reductions import any, mean, sum
from refgrad.ops.shaping import (
    broadcast_to,
    flip,
    movedim,
    permute,
    reshape,
    roll,
    squeeze,
    transpose,
    unsqueeze,
)
from refgrad.ops.triangles import diagonal, tril, triu
from refgrad.tensor import Tensor, wrap


def reads(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the reading of these NumPy functions on Tensors."""

    def register(reading: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = reading
        return reading

    return register


def _constant(x: Any, make: Callable[..., Any], dtype: Any, shape: Any) -> Any:
    like = x._array if isinstance(x, Tensor) else x
    shape = like.shape if shape is None else shape
    return wrap(make(like, dtype=dtype or like.dtype, shape=shape))


@reads(np.zeros_like)
def _(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    return _constant(x, np.zeros_like, dtype, shape)


@reads(np.ones_like)
def _(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    return _constant(x, np.ones_like, dtype, shape)


@reads(np.sum)
def _(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return x if axis == () else sum(x, axis, keepdims)


@reads(np.reshape)
def _(x: Any, shape: Any) -> Any:
    return reshape(x, shape)


@reads(np.broadcast_to)
def _(x: Any, shape: Any) -> Any:
    return broadcast_to(x, shape)


@reads(np.transpose)
def _(x: Any, axes: Any = None) -> Any:
    return permute(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


@reads(np.swapaxes)
def _(x: Any, axis1: int, axis2: int) -> Any:
    return transpose(x, axis1, axis2)


@reads(np.moveaxis)
def _(x: Any, source: Any, destination: Any) -> Any:
    return movedim(x, source, destination)


@reads(np.expand_dims)
def _(x: Any, axis: int) -> Any:
    return unsqueeze(x, axis)


@reads(np.squeeze)
def _(x: Any, axis: Any = None) -> Any:
    return squeeze(x, axis)


@reads(np.flip)
def _(x: Any, axis: Any = None) -> Any:
    return flip(x, tuple(range(x.ndim)) if axis is None else axis)


@reads(np.roll)
def _(x: Any, shift: Any, axis: Any = None) -> Any:
    return roll(x, shift, axis)


@reads(np.concatenate)
def _(xs: Any, axis: int = 0) -> Any:
    return cat(list(xs), axis)


@reads(np.stack)
def _(xs: Any, axis: int = 0) -> Any:
    return stack(list(xs), axis)


@reads(np.diagonal)
def _(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return diagonal(x, offset, axis1, axis2)


@reads(np.tril)
def _(x: Any, k: int = 0) -> Any:
    return tril(x, k)


@reads(np.triu)
def _(x: Any, k: int = 0) -> Any:
    return triu(x, k)


@reads(np.take)
def _(x: Any, indices: Any, axis: int) -> Any:
    return index_select(x, axis, indices)


@reads(np.where)
def _(condition: Any, x: Any, y: Any) -> Any:
    return _where(condition, x, y)


@reads(np.any)
def _(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return any(x, axis, keepdims)


@reads(np.mean)
def _(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return mean(x, axis, keepdims)
