"""Diagonals, triangles and strided windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from refgrad.layouts import contiguous_format
from refgrad.libraries import as_strided as strided
from refgrad.libraries import beside, writeable
from refgrad.ops.arrays import wrap_dim
from refgrad.ops.complexes import view_as_real
from refgrad.ops.composites import composite
from refgrad.ops.indexing import at_dim, placed_at
from refgrad.ops.kernels import either
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.ops.shaping import inverse_order, permute
from refgrad.ops.strides import memory_order
from refgrad.tensor import wrap
from refgrad.views import View

__all__ = [
    "as_strided", "as_strided_copy", "as_strided_scatter", "diag", "diag_embed", "diagflat", "diagonal",
    "diagonal_copy", "diagonal_scatter", "trace", "tril", "triu", "unfold_copy",
]  # fmt: skip


@op(inplace=True)
def tril(input: Any, diagonal: Any = 0) -> Any:
    """The lower triangle up to `diagonal`, zeros above."""
    return either(_lower(input, diagonal), input, np.zeros_like(input))


@op(inplace=True)
def triu(input: Any, diagonal: Any = 0) -> Any:
    """The upper triangle from `diagonal`, zeros below."""
    return either(_lower(input, diagonal - 1), np.zeros_like(input), input)


def _lower(x: Any, k: int) -> Any:
    if x.ndim < 2:
        raise RuntimeError("tril and triu require a tensor with at least 2 dimensions")
    return beside(np.arange(x.shape[-2])[:, None] >= np.arange(x.shape[-1]) - k, x)


tril.vjp(input=lambda g, diagonal: tril(g, diagonal))
triu.vjp(input=lambda g, diagonal: triu(g, diagonal))


@op(view=True)
def diagonal(input: Any, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Any:
    """The diagonal over two dimensions, as a last dimension."""
    a, b = _two_dims(dim1, dim2, input.ndim)
    out = np.diagonal(input, offset, a, b)
    if hasattr(out.flags, "writeable"):  # NumPy's own is read-only
        out.flags.writeable = input.flags.writeable
    return out


def _two_dims(dim1: int, dim2: int, ndim: int) -> tuple[int, int]:
    a, b = wrap_dim(dim1, ndim), wrap_dim(dim2, ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return a, b


def _on_diagonal(shape: tuple[int, ...], offset: int, a: int, b: int) -> tuple[Any, ...]:
    """The index of the diagonal, for `shape` with dimensions a and b moved last."""
    n = max(0, min(shape[a] + min(offset, 0), shape[b] - max(offset, 0)))
    i = np.arange(n)
    return (Ellipsis, i - min(offset, 0), i + max(offset, 0))


@op(method=False)
def _put_diagonal(input: Any, values: Any, offset: Any, dim1: Any, dim2: Any) -> Any:
    """`input` with `values` added on its diagonal."""
    a, b = _two_dims(dim1, dim2, input.ndim)
    out = np.copy(input, order="C")
    moved = np.moveaxis(out, (a, b), (-2, -1))
    moved[_on_diagonal(input.shape, offset, a, b)] += values
    return out


_put_diagonal.vjp(
    input=lambda g: g,
    values=lambda g, offset, dim1, dim2: diagonal(g, offset, dim1, dim2),
)
diagonal.vjp(
    input=lambda g, shape, offset, dim1, dim2: _put_diagonal(
        np.zeros_like(g, shape=shape), g, offset, dim1, dim2
    )
)


@composite
def diagonal_copy(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The diagonal over two dimensions, in new memory."""
    return diagonal(input, offset, dim1, dim2).clone(memory_format=contiguous_format)


@composite
def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """`input` with `src` as its diagonal."""
    a, b = _two_dims(dim1, dim2, input.ndim)
    shape = diagonal(input, offset, dim1, dim2).shape
    if tuple(src.shape) != tuple(shape):
        raise RuntimeError(
            f"expected src to have a size equal to the slice of self. src size = {list(src.shape)}, "
            f"slice size = {list(shape)}"
        )
    mask = wrap(np.zeros_like(input._array, dtype=np.bool_))
    moved = np.moveaxis(mask._array, (a, b), (-2, -1))
    moved[_on_diagonal(tuple(input.shape), offset, a, b)] = True
    return _put_diagonal(input.masked_fill(mask, 0), src, offset, dim1, dim2)


@composite
def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices with the last dimension of `input` on their diagonal."""
    n = input.shape[-1] + abs(offset)
    ndim = input.ndim + 1
    a, b = wrap_dim(dim1, ndim), wrap_dim(dim2, ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape = list(input.shape[:-1])
    for at in sorted((a, b)):
        shape.insert(at, n)
    zeros = wrap(np.zeros_like(input._array, shape=tuple(shape)))
    return _put_diagonal(zeros, input, offset, a, b)


@composite
def diag(input: Any, diagonal: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix with a vector on its diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return diagonal_copy(input, diagonal)


@composite
def diagflat(input: Any, offset: int = 0) -> Any:
    """The matrix with all elements of `input` on its diagonal."""
    return diag_embed(input.reshape(-1), offset)


@composite
def trace(input: Any) -> Any:
    """The sum of the diagonal of a matrix."""
    if input.ndim != 2:
        raise RuntimeError("trace: expected a matrix")
    return diagonal(input).sum()


# --- windows -------------------------------------------------------------------------------------


def _places(size: Any, stride: Any, offset: int) -> Any:
    """Where each element of a strided view lies in its memory."""
    places = np.asarray(offset)
    for n, s in zip(size, stride, strict=True):
        places = places[..., None] + np.arange(n) * s
    return places


@op(view=True, method=False, node_name="AsStridedBackward0")
def _strided(input: Any, size: Any, stride: Any, offset: Any) -> Any:
    """The elements at the strides given, counted in row-major order; a view where that is memory's."""
    flat = np.reshape(input, (-1,))
    if getattr(getattr(input, "flags", None), "c_contiguous", False):
        steps = tuple(s * input.itemsize for s in stride)
        return strided(flat[offset:], size, steps, writeable=writeable(input))
    return flat[_places(size, stride, offset)]


_strided.vjp(
    input=lambda g, shape, size, stride, offset: np.reshape(
        placed_at(g, (_places(size, stride, offset),), (math.prod(shape),)), shape
    )
)


def _base_of(input: Any) -> Any:
    """What a view, or views of views, is a view of."""
    base = input
    while isinstance(base, View) and base._tangents is None:
        base = base._made_by[1][0]
    return base


def _start(input: Any) -> int:
    """Where `input` begins in the memory of its base, in elements: torch's storage_offset()."""
    return int((input.data_ptr() - _base_of(input).data_ptr()) // input._array.itemsize)


def _out_of_bounds(size: Any, stride: Any, offset: int, held: int) -> str:
    return (
        f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset} are out "
        f"of bounds for storage of {held} elements"
    )


@composite
def as_strided(input: Any, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """The elements at the strides given of the memory that `input` lies in, a view.

    Read through a view, it is a view of that view's base: its gradient goes to all that it reads,
    where PyTorch's leaves out what lies outside of `input`.

    Raises:
        RuntimeError: the strides lead out of the memory, or do not fit the sizes.
        NotImplementedError: the base has gaps in its memory, or another dtype.
    """
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride):
        raise RuntimeError("mismatch in length of strides and shape")
    if any(s < 0 for s in stride):
        raise RuntimeError(
            f"as_strided: Negative strides are not supported at the moment, got strides: {list(stride)}"
        )
    base = _base_of(input)
    if base.is_complex() and not input.is_complex():
        base = view_as_real(base)
    array = base._array
    offset = _start(input) if storage_offset is None else storage_offset
    order = memory_order(array)
    if array.dtype != input._array.dtype or not np.transpose(array, order).flags.c_contiguous:
        raise NotImplementedError("as_strided of a tensor whose base has gaps or another dtype")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and (offset < 0 or last >= array.size):
        raise RuntimeError(_out_of_bounds(size, stride, offset, array.size))
    whole = base if array.flags.c_contiguous else permute(base, order)
    return _strided(whole, size, stride, offset)


@composite
def as_strided_copy(input: Any, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """The elements at the strides given, in new memory."""
    return as_strided(input, size, stride, storage_offset).clone(memory_format=contiguous_format)


@composite
def as_strided_scatter(
    input: Any, src: Any, size: Any, stride: Any, storage_offset: Any = None
) -> Any:
    """`input` with `src` at the places of a strided view of its memory.

    What of the view lies in gaps between the elements of `input` is dropped; one whose elements
    share memory is copied first.

    Raises:
        RuntimeError: the strides lead out of the memory.
    """
    from refgrad.ops.indexing import setitem

    size, stride = tuple(size), tuple(stride)
    if any(s == 0 and n > 1 for n, s in zip(input._array.shape, input._array.strides, strict=True)):
        input = input.clone(memory_format=contiguous_format)
    order = memory_order(input._array)
    lying = permute(input, order)
    array, start = lying._array, _start(input)
    own = _places(array.shape, [s // array.itemsize for s in array.strides], start)
    held = max(int(own.max(initial=start - 1)) + 1, _base_of(input)._array.size)
    offset = start if storage_offset is None else storage_offset
    places = _places(size, stride, offset)
    if places.size and (places.min() < 0 or places.max() >= held):
        raise RuntimeError(_out_of_bounds(size, stride, offset, held))
    element = np.full(held, -1)
    element[np.reshape(own, (-1,))] = np.arange(own.size)
    at = element[places]
    if (at < 0).any():
        kept = constant(at >= 0, input)
        src, at = (src if src.shape == size else src.expand(size))[kept], at[at >= 0]
    made = setitem(lying.reshape(-1), (at,), src).reshape(lying.shape)
    return permute(made, inverse_order(order, len(order)))


@op(view=True, name="unfold")
def _unfold(input: Any, dimension: Any, size: Any, step: Any) -> Any:
    """The windows of `size` elements along a dimension, every `step`, as a last dimension."""
    if input.ndim == 0:
        if size > 1:
            raise RuntimeError(f"maximum size for tensor at dimension 0 is 1 but size is {size}")
        return np.reshape(input, (1,))[:size]
    d = wrap_dim(dimension, input.ndim)
    n = input.shape[d]
    if size > n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    if size == 0:
        return np.zeros_like(input, shape=(*input.shape[:d], n // step + 1, *input.shape[d + 1 :], 0))
    options = {"writeable": input.flags.writeable} if isinstance(input, np.ndarray) else {}
    windows: Any = sliding_window_view(input, size, axis=d, **options)
    return windows[at_dim(d, slice(None, None, step))]


def _fold(g: Any, shape: tuple[int, ...], dimension: int, size: int, step: int) -> Any:
    """Each window added where it came from."""
    if not shape:
        return np.reshape(np.sum(g), ())
    d = wrap_dim(dimension, len(shape))
    into = np.arange(0, shape[d] - size + 1, step)[:, None] + np.arange(size)
    return placed_at(np.moveaxis(g, -1, d + 1), at_dim(d, into), shape)


_unfold.vjp(input=_fold)


@composite(method=False)
def unfold_copy(input: Any, dimension: int, size: int, step: int) -> Any:
    """The windows of `size` elements along a dimension, in new memory."""
    return _unfold(input, dimension, size, step).clone(memory_format=contiguous_format)
