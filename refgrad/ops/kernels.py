"""Kernels: what forwards and rules share, faster than the line that each stands for.

On NumPy's own arrays each takes the way that its comment measures (float32, one thread); on Tensors
and on other arrays it is the line itself.
"""

from __future__ import annotations

import functools
import string
from typing import Any

import numpy as np
import scipy.special as sps

_LARGE = 1 << 16  # elements


def sum_over(x: Any, axis: Any, keepdims: bool = False) -> Any:
    """np.sum(x, axis, keepdims)."""
    if type(x) is np.ndarray:  # 128 floats: 1.3 us in place of 3.1
        if axis == (x.ndim - 1,) and x.size >= _LARGE and _rowwise(x):
            # 1000 rows of 1000: 0.07 ms in place of 0.20, with as many partial sums
            total = np.matmul(x, np.ones((x.shape[-1],), dtype=x.dtype))
            return total[..., None] if keepdims else total
        return np.add.reduce(x, axis=axis, keepdims=keepdims)
    return np.sum(x, axis=axis, keepdims=keepdims)


def _rowwise(x: Any) -> bool:
    """Whether rows of x may be summed by a matrix product: these are short and lie in order."""
    return x.dtype.char in "fd" and 16 <= x.shape[-1] <= 4096 and x.flags.c_contiguous


def max_over(x: Any, axis: Any, keepdims: bool = False) -> Any:
    """np.max(x, axis, keepdims)."""
    if type(x) is np.ndarray:  # 128 floats: 1.3 us in place of 3.1
        return np.maximum.reduce(x, axis=axis, keepdims=keepdims)
    return np.max(x, axis=axis, keepdims=keepdims)


def inner_over(x: Any, y: Any, axis: tuple[int, ...]) -> Any:
    """np.sum(x * y, axis, keepdims=True)."""
    if type(x) is np.ndarray is type(y) and x.shape == y.shape and axis and x.dtype.kind == "f":
        # the product never stands in memory; 1e6 floats: 0.11 ms by vecdot and 0.16 to 0.24 by
        # einsum in place of 0.32 to 0.49; 128 floats: 1.3 and 2.8 us in place of 3.5
        if axis == (x.ndim - 1,):
            return np.vecdot(x, y)[..., None]
        labels, kept = _labels(x.ndim, axis)
        return np.einsum(labels, x, y)[kept]
    return np.sum(x * y, axis=axis, keepdims=True)


@functools.lru_cache(maxsize=256)
def _labels(ndim: int, axis: tuple[int, ...]) -> tuple[str, tuple[Any, ...]]:
    """The sum of products over `axis` in einsum's words, and the index that keeps these axes."""
    own = string.ascii_letters[:ndim]
    rest = "".join(c for i, c in enumerate(own) if i not in axis)
    kept = tuple(None if i in axis else slice(None) for i in range(ndim))
    return f"{own},{own}->{rest}", kept


def expit(x: Any) -> Any:
    """scipy.special.expit: 1 / (1 + e^-x)."""
    if type(x) is np.ndarray and x.dtype.char == "f" and x.size > 1024:
        e = np.negative(x)  # 1e6 floats: 1.9 ms in place of 4.2
        np.exp(e, out=e)
        e += 1
        return np.reciprocal(e, out=e)
    return sps.expit(x)
