"""Pooling: averages and maxima over windows, and their inverses."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.composites import composite
from refgrad.ops.kernels import add_at, reshaped
from refgrad.ops.op import op
from refgrad.ops.windows import each, pad_spatial

__all__ = ["avg_pool1d", "max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool3d"]


def _places(
    spatial: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[int, ...]:
    """How many windows each dimension has; with `ceil_mode` the last may hang over the end.

    Raises:
        RuntimeError: none fits, or the padding is more than half of a window.
    """
    found = []
    for n, k, s, p, r in zip(spatial, kernel, stride, padding, dilation):
        if k < 1 or s < 1 or r < 1:
            raise RuntimeError("kernel size, stride and dilation should be greater than zero")
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if 2 * p > (k - 1) * r + 1:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, "
                f"kernel_size={k} and dilation={r}"
            )
        room = n + 2 * p - r * (k - 1) - 1
        places = (room + s - 1 if ceil_mode else room) // s + 1
        if ceil_mode and (places - 1) * s >= n + p:
            places -= 1  # a window may not start beyond the input and its left padding
        if places < 1:
            raise RuntimeError(
                f"Given input size: {tuple(spatial)}. Calculated output size: {places} at a window of "
                f"{k}. Output size is too small"
            )
        found.append(places)
    return tuple(found)


def _overhang(
    spatial: Any, places: Any, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[int, ...]:
    """How far the last windows reach beyond the end of the input (negative: not to the end)."""
    return tuple(
        (o - 1) * s + (k - 1) * r + 1 - n - p
        for n, o, k, s, p, r in zip(spatial, places, kernel, stride, padding, dilation)
    )


@functools.lru_cache(256)
def _offsets(kernel: Any, stride: Any, dilation: Any, places: Any) -> tuple[Any, ...]:
    """For each place in a window, in row-major order, the slices of the padded input."""
    return tuple(
        (..., *(
            slice(k * r, k * r + (o - 1) * s + 1, s)
            for k, s, r, o in zip(offset, stride, dilation, places)
        ))
        for offset in np.ndindex(*kernel)
    )  # fmt: skip


def _batched(input: Any, d: int, name: str) -> tuple[Any, bool]:
    """`input` as (N, C, *spatial), and whether it had no N.

    Raises:
        RuntimeError: it has other dimensions, or an empty one.
    """
    if input.ndim not in (d + 1, d + 2) or 0 in input.shape[1:]:
        raise RuntimeError(
            f"{name}(): Expected {d + 1}D or {d + 2}D (batch mode) tensor with optional 0 dim batch size "
            f"for input, but got: {list(input.shape)}"
        )
    bare = input.ndim == d + 1
    return (input.unsqueeze(0) if bare else input), bare


# --- averages ------------------------------------------------------------------------------------


@functools.lru_cache(256)
def _divisor(
    spatial: Any, places: Any, kernel: Any, stride: Any, padding: Any, counted: bool, override: Any
) -> Any:
    """How many elements each window counts: an array of shape `places`, or a number for all."""
    if override is not None:
        return override
    sizes: Any = 1
    for n, o, k, s, p in zip(spatial, places, kernel, stride, padding):
        start = np.arange(o) * s - p
        end = np.minimum(start + k, n + p)  # what hangs over the right padding never counts
        if not counted:
            start, end = np.maximum(start, 0), np.minimum(end, n)
        sizes = np.multiply.outer(sizes, end - start)
    first = int(sizes.flat[0])
    return first if (sizes == first).all() else sizes


def _share(x: Any, divisor: Any) -> Any:
    """x / divisor in the dtype of x; of integers the whole part."""
    divisor = beside(divisor, x)
    if x.dtype.kind in "iu":
        return np.trunc(x / divisor).astype(x.dtype)
    return x / (divisor.astype(x.dtype) if hasattr(divisor, "astype") else float(divisor))


@op(method=False, node_name="AvgPool2DBackward0")
def average(
    input: Any, places: Any, kernel: Any, stride: Any, padding: Any, counted: Any, override: Any
) -> Any:
    """The averages over windows of (N, C, *spatial)."""
    spatial, ones = input.shape[2:], (1,) * len(kernel)
    over = _overhang(spatial, places, kernel, stride, padding, ones)
    x = pad_spatial(input, padding, over)
    out: Any = 0
    for at in _offsets(kernel, stride, ones, places):
        out = out + x[at]
    return _share(out, _divisor(spatial, places, kernel, stride, padding, counted, override))


@op(method=False, node_name="AvgPool2DBackwardBackward0")
def distribute(
    input: Any, spatial: Any, kernel: Any, stride: Any, padding: Any, counted: Any, override: Any
) -> Any:
    """The transpose of `average`: each window gives its elements equal shares."""
    places, ones = input.shape[2:], (1,) * len(kernel)
    over = _overhang(spatial, places, kernel, stride, padding, ones)
    share = _share(input, _divisor(spatial, places, kernel, stride, padding, counted, override))
    padded = tuple(n + p + o for n, p, o in zip(spatial, padding, over))
    out: Any = np.zeros_like(input, shape=(*input.shape[:2], *padded))
    for at in _offsets(kernel, stride, ones, places):
        out[at] += share
    return pad_spatial(out, tuple(-p for p in padding), tuple(-o for o in over))


average.vjp(
    input=lambda g, shape, kernel, stride, padding, counted, override: distribute(
        g, shape[2:], kernel, stride, padding, counted, override
    )
)
distribute.vjp(
    input=lambda g, shape, kernel, stride, padding, counted, override: average(
        g, shape[2:], kernel, stride, padding, counted, override
    )
)


def _avg_pool(
    d: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    counted: bool, override: Any,
) -> Any:  # fmt: skip
    kernel, padding = each(kernel_size, d, "kernel_size"), each(padding, d, "padding")
    stride = kernel if stride is None or stride in ([], ()) else each(stride, d, "stride")
    if override == 0:
        raise RuntimeError("divisor must be not zero")
    x, bare = _batched(input, d, f"avg_pool{d}d")
    if any(2 * p > k for p, k in zip(padding, kernel)):
        raise RuntimeError(
            f"pad should be at most half of effective kernel size, but got pad={max(padding)}, "
            f"kernel_size={min(kernel)} and dilation=1"
        )
    places = _places(x.shape[2:], kernel, stride, padding, (1,) * d, ceil_mode)
    out = average(x, places, kernel, stride, padding, counted, override)
    return out.squeeze(0) if bare else out


@composite(method=False)
def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """The averages over windows of (N, C, L) or (C, L); `stride` is the window's size by default."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@composite(method=False)
def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Any:  # fmt: skip
    """The averages over windows of (N, C, H, W) or (C, H, W)."""
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@composite(method=False)
def avg_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Any:  # fmt: skip
    """The averages over windows of (N, C, D, H, W) or (C, D, H, W)."""
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _lp_pool(
    d: int, input: Any, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Any:
    kernel = each(kernel_size, d, "kernel_size")
    means = _avg_pool(d, input**norm_type, kernel, stride, 0, ceil_mode, True, None)
    # relu and sign as PyTorch has them: a negative sum, of an odd power, counts with its sign
    total = means.sign() * means.abs().relu() * math.prod(kernel)
    return total ** (1.0 / norm_type)


@composite(method=False)
def lp_pool1d(
    input: Any, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p)^(1/p) over windows of (N, C, L)."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


@composite(method=False)
def lp_pool2d(
    input: Any, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p)^(1/p) over windows of (N, C, H, W)."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


@composite(method=False)
def lp_pool3d(
    input: Any, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^p)^(1/p) over windows of (N, C, D, H, W)."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# --- maxima --------------------------------------------------------------------------------------


def _flat(index: Any, size: int) -> Any:
    """Indices into the flattened spatial dimensions as indices into the whole flattened array."""
    n, c = index.shape[:2]
    base = reshaped(beside(np.arange(n * c), index), (n, c, *(1,) * (index.ndim - 2)))
    return index + base * size


@op(method=False, node_name="MaxPoolBackwardBackward0")
def pick(input: Any, index: Any) -> Any:
    """The elements of (N, C, *spatial) at `index`, which counts in the flattened spatial dimensions."""
    return reshaped(input, (-1,))[_flat(index, math.prod(input.shape[2:]))]


@op(method=False, node_name="MaxPoolBackward0")
def deposit(input: Any, index: Any, size: Any) -> Any:
    """The transpose of `pick`: (N, C, *places) added at `index` into zeros (N, C, *size)."""
    shape = (*input.shape[:2], *size)
    out: Any = np.zeros_like(input, shape=(math.prod(shape),))  # a reshape of it could be a copy
    flat = reshaped(_flat(index, math.prod(size)), (-1,))
    add_at(out, (flat,), reshaped(input, (-1,)))
    return reshaped(out, shape)


pick.vjp(input=lambda g, index, shape: deposit(g, index, shape[2:]))
deposit.vjp(input=lambda g, index: pick(g, index))


def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind in "fc" else np.iinfo(dtype).min


def _greatest(x: Any, kernel: Any, stride: Any, dilation: Any, places: Any) -> tuple[Any, Any]:
    """The maxima over the windows of a padded x, and which place of the window has each.

    As in PyTorch the first of equal elements is taken, but the last nan.
    """
    best: Any = None
    for i, at in enumerate(_offsets(kernel, stride, dilation, places)):
        v = x[at]
        if best is None:
            best, which = np.copy(v), np.zeros_like(v, dtype=np.min_scalar_type(math.prod(kernel)))
            continue
        later = (v > best) | (v != v)  # i is above what was there; where chance decides, no branch:
        which = np.maximum(which, later * which.dtype.type(i))  # 2e6 floats 4 ms in place of 12
        best = np.maximum(best, v)
    return best, which


@functools.lru_cache(256)
def _inside(spatial: Any, places: Any, kernel: Any, stride: Any, dilation: Any) -> tuple[Any, Any]:
    """Where windows that all lie inside start, and how far from there each place of one is.

    Both count in the flattened spatial dimensions: (places), and one number a place.
    """
    start: Any = 0
    beyond: Any = 0
    for n, o, k, s, r in zip(spatial, places, kernel, stride, dilation):
        start = np.add.outer(start * n, np.arange(o) * s)
        beyond = np.add.outer(beyond * n, np.arange(k) * r)
    return start, reshaped(beyond, (-1,))


@op(method=False, node_name="MaxPool2DWithIndicesBackward0", unread=0)
def maximum(
    input: Any, places: Any, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Any, Any]:
    """The maxima over windows of (N, C, *spatial), and where they are in the flattened spatial ones."""
    spatial = input.shape[2:]
    over = _overhang(spatial, places, kernel, stride, padding, dilation)
    x = pad_spatial(input, padding, over, _lowest(input.dtype))
    best, which = _greatest(x, kernel, stride, dilation, places)
    if not any(padding) and max(over) <= 0:
        start, beyond = _inside(spatial, places, kernel, stride, dilation)
        return best, beside(start, which) + beside(beyond, which)[which]
    index: Any = 0
    for i, k in enumerate(np.unravel_index(which, kernel)):
        n, o, s, p, r = spatial[i], places[i], stride[i], padding[i], dilation[i]
        start = reshaped(beside(np.arange(o) * s - p, which), (-1, *(1,) * (len(kernel) - 1 - i)))
        first = np.maximum(-(start // r), 0)  # where all is -inf the padding is not meant,
        at = start + np.maximum(k, first) * r
        index = index * n + np.minimum(at, n - 1)  # nor where a dilated window has nothing else
    return best, index


maximum.vjp(input=lambda g, out, shape: deposit(g, out[1], shape[2:]))


def _max_pool(
    d: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    kernel, padding = each(kernel_size, d, "kernel_size"), each(padding, d, "padding")
    dilation = each(dilation, d, "dilation")
    stride = kernel if stride is None or stride in ([], ()) else each(stride, d, "stride")
    x, bare = _batched(input, d, f"max_pool{d}d")
    places = _places(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    out, index = maximum(x, places, kernel, stride, padding, dilation)
    if bare:
        out, index = out.squeeze(0), index.squeeze(0)
    return (out, index) if return_indices else out


def _make_max_pool(d: int) -> Any:
    def max_pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        return _max_pool(
            d, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
        )

    def max_pool_with_indices(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = True,
    ) -> Any:  # fmt: skip
        return _max_pool(d, input, kernel_size, stride, padding, dilation, ceil_mode, True)

    max_pool.__name__ = f"max_pool{d}d"
    max_pool.__doc__ = f"The maxima over windows of (N, C, *) or (C, *), {d}-d; with `return_indices` where they are."
    max_pool_with_indices.__name__ = f"max_pool{d}d_with_indices"
    max_pool_with_indices.__doc__ = f"max_pool{d}d, with the indices of the maxima."
    return composite(max_pool, method=False), composite(max_pool_with_indices, method=False)


max_pool1d, max_pool1d_with_indices = _make_max_pool(1)
max_pool2d, max_pool2d_with_indices = _make_max_pool(2)
max_pool3d, max_pool3d_with_indices = _make_max_pool(3)
