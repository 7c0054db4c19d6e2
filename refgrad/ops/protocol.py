"""NumPy's functions, read on Tensors: what a rule may call when it is itself recorded.

A ufunc finds its op by `UFUNCS`; the functions below translate NumPy's arguments to the op's. What
stands in neither raises TypeError, so a rule cannot leave the graph in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refgrad.ops.op import FUNCTIONS
from refgrad.ops.reductions import sum
from refgrad.ops.shaping import broadcast_to, reshape
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
