"""Kernels: what forwards and rules share, faster than the line that each stands for.

On NumPy's own arrays each takes the way that its comment measures (float32, one thread); on Tensors
and on other arrays it is the line itself.
"""

from __future__ import annotations

import contextlib
import functools
import math
import string
from typing import Any

import numpy as np
import scipy.special as sps

from refgrad.libraries import Loaded, on_device

_MANY, WIDE, _LARGE = 1 << 11, 1 << 14, 1 << 16  # elements
_ROW, _BUFFER = 128, 8192  # elements of a row, and of NumPy's buffer unless it is told otherwise
_BITS = {np.dtype(f): np.dtype(i) for f, i in (("e", "i2"), ("f", "i4"), ("d", "i8"))}
_NUMBERS = frozenset((int, float))
_ATOMIC = "ilqILQefd"  # the dtypes that a device adds to one place from many threads


# --- other views of the same elements: NumPy's functions dispatch first, its methods do not -------


def reshaped(x: Any, shape: Any) -> Any:
    """np.reshape(x, shape)."""
    return x.reshape(shape) if type(x) is np.ndarray else np.reshape(x, shape)  # 0.1 us, not 0.6


def swapped(x: Any, a: int, b: int) -> Any:
    """np.swapaxes(x, a, b)."""
    return x.swapaxes(a, b) if type(x) is np.ndarray else np.swapaxes(x, a, b)  # 0.1 us, not 0.35


def turned(x: Any, order: Any) -> Any:
    """np.transpose(x, order)."""
    return x.transpose(order) if type(x) is np.ndarray else np.transpose(x, order)  # likewise


def widened(x: Any, shape: tuple[int, ...]) -> Any:
    """np.broadcast_to(x, shape)."""
    extra = len(shape) - x.ndim
    if type(x) is np.ndarray and x.flags.c_contiguous and x.size and extra >= 0:
        strides = [0] * extra
        for n, m, step in zip(x.shape, shape[extra:], x.strides):
            if n != m and n != 1:
                break
            strides.append(step if n == m else 0)
        else:  # 1.1 us in place of 1.8
            out = np.ndarray(shape, x.dtype, x, 0, strides)
            out.flags.writeable = False
            return out
    return np.broadcast_to(x, shape)


# --- sums ----------------------------------------------------------------------------------------


def sum_over(x: Any, axis: Any, keepdims: bool = False) -> Any:
    """np.sum(x, axis, keepdims)."""
    if type(x) is np.ndarray:  # 128 floats: 1.3 us in place of 3.1
        if x.size >= _MANY and x.dtype.char in "fd" and x.flags.c_contiguous:
            lead, rest = _split(x.ndim, axis)
            length = math.prod(x.shape[lead:])
            if lead < x.ndim and 16 <= length <= 4096:
                # rows by a product of matrices, with as many partial sums: 256 of 64 take 2.1 us in
                # place of 6.1, and batch norm's mean of 16 images of 32 channels 8 in place of 24
                rows = reshaped(x, (-1, length)) @ _ones(length, x.dtype)
                total = reshaped(rows, x.shape[:lead])
                if rest:
                    total = np.add.reduce(total, axis=rest, keepdims=keepdims)
                return reshaped(total, (*total.shape, *(1,) * (x.ndim - lead))) if keepdims else total
            if lead == x.ndim and rest == (*range(len(rest)),) and len(rest) < lead:
                # rows are added likewise: 256 of 256 take 3.4 us in place of 6.6, 4096 53 of 103
                count = math.prod(x.shape[: len(rest)])
                if count >= 64 and x.size > count:
                    rows = _ones(count, x.dtype) @ reshaped(x, (count, -1))
                    kept = (1,) * len(rest) if keepdims else ()
                    return reshaped(rows, (*kept, *x.shape[len(rest) :]))
        return np.add.reduce(x, axis=axis, keepdims=keepdims)
    return np.sum(x, axis=axis, keepdims=keepdims)


def _ones(length: int, dtype: Any) -> Any:
    """A vector of ones; short ones are made once, which saves 1 us of the 4 of a sum of 4,096."""
    return _kept_ones(length, dtype) if length <= 4096 else np.ones((length,), dtype)


@functools.lru_cache(maxsize=64)
def _kept_ones(length: int, dtype: Any) -> Any:
    made = np.ones((length,), dtype)
    made.flags.writeable = False
    return made


@functools.lru_cache(maxsize=256)
def _split(ndim: int, axis: Any) -> tuple[int, tuple[int, ...]]:
    """Of the dimensions to be summed, where those at the end begin, and the others."""
    named = range(ndim) if axis is None else (axis,) if type(axis) is int else axis
    axes = {a % ndim for a in named}
    lead = ndim
    while lead - 1 in axes:
        lead -= 1
    return lead, tuple(sorted(axes - set(range(lead, ndim))))


class _Rows:
    """Within it NumPy's buffer holds less than a row of `_ROW` elements; as it was afterwards."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before = np.setbufsize(_ROW // 2)

    def __exit__(self, *error: object) -> None:
        np.setbufsize(self.before)


_AS_IT_IS = contextlib.nullcontext()


def rowwise(x: Any, v: Any) -> Any:
    """A context to compute with x and a v that broadcasts to its shape, element by element.

    Loops shorter than NumPy's buffer, 8,192 elements, run through it, though nothing is cast: 256
    rows of 256 floats less a column take 20 us, and 13 with a buffer that a row more than fills; of
    doubles 50 and 20.
    """
    if type(x) is np.ndarray and x.size >= WIDE and _fills(x.shape, v.shape):
        return _Rows()
    return _AS_IT_IS


@functools.lru_cache(maxsize=1024)
def _fills(shape: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """Whether NumPy's loops over `shape`, where `own` broadcasts to it, are long but not so long."""
    run, held = 1, None
    for n, m in zip(reversed(shape), (*reversed(own), *(1,) * (len(shape) - len(own)))):
        if n > 1 and held not in (None, m == 1):
            return _ROW <= run < _BUFFER
        if n > 1:
            run, held = run * n, m == 1
    return False


def fitted(x: Any, slope: Any, y: Any, level: Any, scale: Any) -> Any:
    """(x * slope + y - level) * scale, of x and y of one shape."""
    if type(x) is np.ndarray is type(y) and x.dtype == y.dtype:
        out = x * slope  # batch norm's gradient of 64 images of 32 channels: 1.5 ms in place of 1.7
        out += y
        out -= level
        out *= scale
        return out
    return (x * slope + y - level) * scale


def times(x: Any, y: Any) -> Any:
    """x * y, of an x that no one else has: in its memory where it can be."""
    if type(x) is np.ndarray is type(y) and x.dtype == y.dtype and x.shape == y.shape:
        x *= y  # 65,536 floats: 4 us in place of 6, and no page is touched that was not
        return x
    return x * y


def row_max(x: Any, axis: Any) -> Any:
    """np.max(x, axis, keepdims=True), for an axis or several."""
    if type(x) is np.ndarray:
        if x.dtype.char in "fd" and x.size >= _MANY and x.flags.c_contiguous:
            lead, rest = _split(x.ndim, axis)
            length = math.prod(x.shape[lead:])
            if not rest and 1 < length <= 1024 and x.size >= 64 * length:
                # by where it is, for which NumPy has a vector loop even in short rows: 256 rows of 64
                # take 9 us in place of 28
                at = x.reshape(-1, length).argmax(-1)
                at += np.arange(0, x.size, length)
                return x.reshape(-1)[at].reshape(*x.shape[:lead], *(1,) * (x.ndim - lead))
        return np.maximum.reduce(x, axis=axis, keepdims=True)  # 128 floats: 1.3 us in place of 3.1
    return np.max(x, axis=axis, keepdims=True)


def inner_over(x: Any, y: Any, axis: tuple[int, ...]) -> Any:
    """np.sum(x * y, axis, keepdims=True)."""
    if type(x) is np.ndarray is type(y) and x.shape == y.shape and axis and x.dtype.kind == "f":
        # the product never stands in memory; 1e6 floats: 0.11 ms by vecdot and 0.16 to 0.24 by
        # einsum in place of 0.32 to 0.49; 128 floats: 1.3 and 2.8 us in place of 3.5
        if axis == (x.ndim - 1,):
            return np.vecdot(x, y)[..., None]
        if x.size >= _LARGE and x.flags.c_contiguous and y.flags.c_contiguous:
            lead, rest = _split(x.ndim, axis)  # 2e6 floats, batch norm's: 0.16 ms in place of 0.25
            if lead < x.ndim:
                shape = (*x.shape[:lead], -1)
                rows = np.vecdot(reshaped(x, shape), reshaped(y, shape))
                total = np.add.reduce(rows, axis=rest, keepdims=True)
                return reshaped(total, (*total.shape, *(1,) * (x.ndim - lead)))
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


def either(condition: Any, x: Any, y: Any) -> Any:
    """np.where(condition, x, y).

    NumPy's branches at every element: where chance decides, 65,536 floats take 200 us. By their
    bits, those of y and those in which x differs where the condition holds, they take 20, and where
    one is zero 12.
    """
    if type(condition) is np.ndarray and condition.size >= 1024 and condition.dtype.char == "?":
        like = x if type(x) is np.ndarray else y
        bits = _BITS.get(like.dtype) if type(like) is np.ndarray else None
        if bits is not None:
            if _is_zero(y):
                return (x.view(bits) * condition).view(like.dtype)
            if _is_zero(x):
                return (y.view(bits) * ~condition).view(like.dtype)
            of_x, of_y = _bits_of(x, like, bits), _bits_of(y, like, bits)
            if of_x is not None and of_y is not None:
                out = of_x ^ of_y
                into = out if out.shape == condition.shape else None
                out = np.multiply(out, condition, out=into)
                out ^= of_y
                return out.view(like.dtype)
    return np.where(condition, x, y)


def _is_zero(v: Any) -> bool:
    return type(v) is float and v == 0 and math.copysign(1.0, v) > 0


def _bits_of(v: Any, like: Any, bits: Any) -> Any:
    """The elements of v in the dtype of `like`, as integers; None where NumPy finds another dtype."""
    if type(v) in _NUMBERS:
        v = np.array(v, like.dtype)
    return v.view(bits) if type(v) is np.ndarray and v.dtype == like.dtype else None


def between(x: Any, low: Any, high: Any) -> Any:
    """np.minimum(np.maximum(x, low), high), where None is no bound."""
    if type(x) is np.ndarray and x.dtype.char in "fd" and x.size >= 8192:
        least, most = -math.inf if low is None else low, math.inf if high is None else high
        if type(least) in _NUMBERS and type(most) in _NUMBERS and least == least and most == most:
            return np.clip(x, least, most)  # beside a number NumPy's maximum has no vector loop:
    x = x if low is None else np.maximum(x, low)  # 65,536 floats above 0 take 6 us in place of 20
    return x if high is None else np.minimum(x, high)


def kept(out: Any, x: Any) -> Any:
    """In the dtype of x: SciPy has no float16 loop, and answers in float64."""
    return out if out.dtype == x.dtype else out.astype(x.dtype)


def expit(x: Any) -> Any:
    """scipy.special.expit: 1 / (1 + e^-x)."""
    if type(x) is np.ndarray and x.dtype.char in "fd" and x.size > 1024:
        e = np.negative(x)  # 1e6 floats: 1.9 ms in place of 4.2; 1e5 doubles: 0.1 for 0.36
        np.exp(e, out=e)
        e += 1
        return np.reciprocal(e, out=e)
    return kept(sps.expit(x), x)


def softplus(x: Any) -> Any:
    """np.logaddexp(x, 0.0): log(1 + e^x), by way of max(x, 0) + log(1 + e^-|x|)."""
    if type(x) is np.ndarray and x.dtype.char in "fd" and x.size >= 64:
        e = np.abs(x)  # 4,096 floats: 7 us in place of 45; 1e5 doubles: 0.8 ms for 1.9
        np.negative(e, out=e)
        np.exp(e, out=e)
        np.log1p(e, out=e)
        e += between(x, 0, None)
        return e
    return np.logaddexp(x, 0.0)


def cosine(x: Any) -> Any:
    """np.cos(x), or that of a number within an epsilon of x: of many doubles by tan(x / 2).

    cos x = (1 - t^2) / (1 + t^2), which is off by at most one epsilon (DLMF 4.21.40).
    """
    if type(x) is np.ndarray and x.size >= 512 and _vector_tan(x):  # 1e5: 0.17 ms in place of 0.87
        square = _half_tan(x)
        square *= square
        out = 1 - square
        square += 1
        out /= square
        return out
    return np.cos(x)


def sine(x: Any) -> Any:
    """np.sin(x); of many doubles 2 t / (1 + t^2), t = tan(x / 2), within 1.2 epsilons of it."""
    if type(x) is np.ndarray and x.size >= 512 and _vector_tan(x):  # 1e5: 0.17 ms in place of 0.84
        out = _half_tan(x)
        square = out * out
        square += 1
        out += out
        out /= square
        return out
    return np.sin(x)


def _vector_tan(x: Any) -> bool:
    """Whether NumPy has a vector loop for its tan, as for doubles with AVX-512; of sin it has none."""
    return x.dtype.char == "d" and _fast_tan()


def _half_tan(x: Any) -> Any:
    half = x * 0.5
    return np.tan(half, out=half)


@functools.cache
def _fast_tan() -> bool:
    try:
        loops = np.lib.introspect.opt_func_info("^tan$", "float64")
        return not loops["tan"]["dd"]["current"].startswith("baseline")
    except (AttributeError, KeyError):  # a NumPy that does not say
        return False


def add_rows_at(out: Any, index: Any, rows: Any) -> None:
    """np.add.at(out, index, rows), of (V, *), (M,) and (M, *); each sum is made in the order of M."""
    if type(out) is not np.ndarray or type(rows) is not np.ndarray or not rows.size:
        _add_each(out, index, rows)
        return
    m, width = len(index), math.prod(rows.shape[1:])
    if rows.size <= 1 << 15 and out.flags.c_contiguous:
        # element by element, for which NumPy has a loop: 64 rows of 64 take 24 us in place of 85
        places = (index % len(out))[:, None] * width + np.arange(width)
        np.add.at(reshaped(out, (-1,)), reshaped(places, (-1,)), reshaped(rows, (-1,)))
    elif rows.size > 2048 and out.dtype.char in "fdFD":
        # as the product of a sparse matrix, a one a column, with the rows: 1,000 rows of 64 take
        # 0.12 ms in place of 1.2
        from scipy import sparse

        ones, ends = np.ones(m, dtype=out.dtype), np.arange(m + 1)
        where = sparse.csc_array((ones, index % len(out), ends), shape=(len(out), m))
        out += np.reshape(where @ np.reshape(rows, (m, width)), out.shape)
    else:
        _add_each(out, index, rows)


def add_at(out: Any, index: tuple[Any, ...], values: Any) -> None:
    """np.add.at(out, index, values), for whole dimensions and arrays of indices or booleans."""
    arrays = [i for i in index if isinstance(i, np.ndarray)]
    if type(out) is not np.ndarray or len(arrays) != 1:
        _add_each(out, index, values)
    elif arrays[0].dtype == bool:  # which names no place twice
        out[index] += values
    elif len(index) == 1 == out.ndim == arrays[0].ndim:
        np.add.at(out, index, values)
    else:
        d = next(k for k, i in enumerate(index) if i is arrays[0])
        n, own = arrays[0].ndim, arrays[0].shape
        shape = (*out.shape[:d], *own, *out.shape[d + 1 :])
        rows = values if values.shape == shape else np.broadcast_to(values, shape)
        if d:  # NumPy takes 5 us to move nothing
            rows, out = np.moveaxis(rows, range(d, d + n), range(n)), np.moveaxis(out, d, 0)
        rows = reshaped(rows, (arrays[0].size, *rows.shape[n:]))
        add_rows_at(out, reshaped(arrays[0], (-1,)), rows)


def _add_each(out: Any, index: Any, values: Any) -> None:
    """`np.add.at(out, index, values)`, for every dtype on a device too."""
    if Loaded.cuda is None or not on_device(out):
        np.add.at(out, index, values)
        return
    add = Loaded.cuda.add_at
    if out.dtype.char in _ATOMIC:
        add(out, index, values)
    elif out.dtype.kind == "c":
        add(out.real, index, values.real)
        add(out.imag, index, values.imag)
    else:
        wide = out.astype(np.int32)
        add(wide, index, values.astype(np.int32))
        out[...] = wide.astype(out.dtype)
