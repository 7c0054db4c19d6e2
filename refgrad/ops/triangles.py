"""Diagonals, triangles and strided windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.arrays import wrap_dim
from refgrad.ops.indexing import put_at
from refgrad.ops.op import METHODS, composite, op
from refgrad.tensor import wrap

__all__ = [
    "as_strided", "as_strided_copy", "as_strided_scatter", "diag", "diag_embed", "diagflat", "diagonal",
    "diagonal_copy", "diagonal_scatter", "trace", "tril", "triu", "unfold_copy",
]  # fmt: skip


@op(inplace=True)
def tril(input: Any, diagonal: Any = 0) -> Any:
    """The lower triangle up to `diagonal`, zeros above."""
    return np.where(_lower(input.shape, diagonal), input, np.zeros_like(input))


@op(inplace=True)
def triu(input: Any, diagonal: Any = 0) -> Any:
    """The upper triangle from `diagonal`, zeros below."""
    return np.where(_lower(input.shape, diagonal - 1), np.zeros_like(input), input)


def _lower(shape: tuple[int, ...], k: int) -> Any:
    if len(shape) < 2:
        raise RuntimeError("tril and triu require a tensor with at least 2 dimensions")
    return np.arange(shape[-2])[:, None] >= np.arange(shape[-1]) - k


tril.vjp(input=lambda g, diagonal: tril(g, diagonal))
triu.vjp(input=lambda g, diagonal: triu(g, diagonal))


@op(view=True)
def diagonal(input: Any, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Any:
    """The diagonal over two dimensions, as a last dimension."""
    a, b = _two_dims(dim1, dim2, input.ndim)
    out = np.diagonal(input, offset, a, b)
    if isinstance(out, np.ndarray):
        out.flags.writeable = input.flags.writeable  # NumPy's own is read-only
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
    out = np.array(input, order="C")
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
    return diagonal(input, offset, dim1, dim2).clone()


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
    mask = wrap(np.zeros(tuple(input.shape), dtype=np.bool_))
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
    zeros = wrap(np.zeros(shape, dtype=input._array.dtype))
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


@op
def as_strided(input: Any, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """The elements at the strides given, of a contiguous tensor's memory, read into a new tensor.

    Raises:
        NotImplementedError: `input` is not contiguous, so that its memory holds other elements too.
    """
    if not input.flags.c_contiguous:
        raise NotImplementedError("refgrad's as_strided needs a contiguous tensor")
    size, stride = tuple(size), tuple(stride)
    return np.reshape(input, (-1,))[_places(size, stride, storage_offset or 0)]


as_strided.vjp(
    input=lambda g, shape, size, stride, storage_offset: np.reshape(
        put_at(
            np.zeros_like(g, shape=(int(np.prod(shape)),)),
            (_places(tuple(size), tuple(stride), storage_offset or 0),),
            g,
        ),
        shape,
    )
)


@composite
def as_strided_copy(input: Any, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """The elements at the strides given, in new memory."""
    return as_strided(input, size, stride, storage_offset)


@composite
def as_strided_scatter(
    input: Any, src: Any, size: Any, stride: Any, storage_offset: Any = None
) -> Any:
    """`input` with `src` at the places of a strided view."""
    from refgrad.ops.indexing import setitem

    places = _places(tuple(size), tuple(stride), storage_offset or 0)
    return setitem(input.reshape(-1), (places,), src).reshape(input.shape)


def _unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """The windows of `size` elements along a dimension, every `step`, as a last dimension."""
    if input.ndim == 0:
        if size > 1:
            raise RuntimeError(f"maximum size for tensor at dimension 0 is 1 but size is {size}")
        return input.reshape(1)[:size]
    d = wrap_dim(dimension, input.ndim)
    n = input.shape[d]
    if size > n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    start = np.arange(0, n - size + 1, step)
    windows = input[(slice(None),) * d + (wrap(start[:, None] + np.arange(size)),)]
    return windows.movedim(d + 1, -1)


METHODS["unfold"] = _unfold


@composite(method=False)
def unfold_copy(input: Any, dimension: int, size: int, step: int) -> Any:
    """The windows of `size` elements along a dimension, in new memory."""
    return _unfold(input, dimension, size, step)
