"""Gathering and scattering: reads and writes with an index for every element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.arrays import greatest, wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.indexing import _check_bounds, at_dim, placed_at, put_at, setitem
from refgrad.ops.kernels import add_at, reshaped
from refgrad.ops.op import INPLACE, METHODS, op
from refgrad.tensor import Tensor, wrap

__all__ = [
    "gather", "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "masked_scatter",
    "put", "scatter", "scatter_add", "scatter_reduce",
]  # fmt: skip


_INDICES = np.dtype(np.int32).char + np.dtype(np.int64).char


def grid(like: Any) -> list[Any]:
    """The place (i, j, k) of each element of an array, an array for each dimension."""
    n = like.ndim
    each = [beside(np.arange(s), like) for s in like.shape]
    return [reshaped(x, (-1,) + (1,) * (n - i - 1)) if i < n - 1 else x for i, x in enumerate(each)]


def along(index: Any, dim: int) -> tuple[Any, ...]:
    """The index that reads element `index[i, j, k]` of dimension `dim` at place (i, j, k)."""
    of_each = grid(index)
    of_each[dim] = index
    return tuple(of_each)


def _places(index: Any, dim: int, shape: tuple[int, ...]) -> Any:
    """The same elements of an array of `shape` by their numbers in row-major order.

    NumPy reads and adds by one index faster than by several: 200,000 elements in 0.5 ms in place of
    1.1, and in 0.7 in place of 3.3.
    """
    steps = [math.prod(shape[i + 1 :]) for i in range(index.ndim)]
    at = index * steps[dim]
    for i, part in enumerate(along(index, dim)):
        if i != dim:
            at += part * steps[i]
    return at


def _prepared(name: str, input: Any, dim: Any, index: Any) -> tuple[int, Any]:
    """`dim` from 0 and the index as integers, checked against `input`, for the op `name`.

    Raises:
        IndexError, RuntimeError: the index is out of bounds, or has another rank or dtype or is too
            large.
    """
    d = wrap_dim(dim, input.ndim)
    if index.size == 0:
        return d, index.astype(np.int64)
    if index.dtype.char not in _INDICES:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index")
    if max(index.ndim, 1) != max(input.ndim, 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    n = input.shape[d] if input.ndim else 1
    if index.view(f"u{index.itemsize}").max() >= n:  # a negative number is above all of these
        bad = int(index[(index < 0) | (index >= n)][0])
        raise RuntimeError(f"index {bad} is out of bounds for dimension {d} with size {n}")
    if any(
        i != d and a > b for i, (a, b) in enumerate(zip(index.shape, input.shape, strict=False))
    ):
        raise RuntimeError(
            f"Size does not match at dimension: expected index {list(index.shape)} to be no larger "
            f"than self {list(input.shape)} apart from dimension {d}"
        )
    return d, index


@op
def gather(input: Any, dim: Any, index: Any, *, sparse_grad: bool = False) -> Any:
    """out[i][j] = input[index[i][j]][j] for dim = 0, and so on."""
    d, index = _prepared("gather", input, dim, index)
    if index.size == 0 or input.ndim == 0 or index.ndim == 0:
        return np.reshape(np.take(np.reshape(input, (-1,)), np.reshape(index, (-1,))), index.shape)
    return np.take(np.reshape(input, (-1,)), _places(index, d, input.shape))


gather.vjp(
    input=lambda g, shape, dim, index: scatter_add(np.zeros_like(g, shape=shape), dim, index, g)
)


@op(inplace=True)
def scatter_add(input: Any, dim: Any, index: Any, src: Any) -> Any:
    """`input` with src[i][j] added to element [index[i][j]][j] for dim = 0, and so on."""
    d, index = _prepared("scatter", input, dim, index)
    out = np.copy(input, order="C")
    if index.size == 0:
        return out
    src = np.reshape(src, (-1,)) if src.ndim == 0 or index.ndim == 0 else src
    index = np.reshape(index, (-1,)) if index.ndim == 0 or out.ndim == 0 else index
    flat = np.reshape(out, (-1,))
    src = src[tuple(slice(n) for n in index.shape)]
    where = np.reshape(_places(index, d, out.shape or (1,)), (-1,))
    add_at(flat, (where,), np.reshape(src, (-1,)))
    return np.reshape(flat, out.shape)


def _part(g: Any, shape: tuple[int, ...], dim: Any, index: Any) -> Any:
    """The gradient of a `src` of `shape`, of which only the part that `index` covers was used."""
    used = gather(g, dim, index)
    if used.shape == shape:
        return used
    if len(shape) != index.ndim:
        return np.reshape(used, shape)
    return placed_at(used, tuple(slice(n) for n in index.shape), shape)


scatter_add.vjp(input=lambda g: g, src=lambda g, shape, dim, index: _part(g, shape, dim, index))


@op(method=False)
def _scatter(input: Any, dim: Any, index: Any, src: Any) -> Any:
    """`input` with src[i][j] written to element [index[i][j]][j] for dim = 0, and so on."""
    d, index = _prepared("scatter", input, dim, index)
    out = np.copy(input, order="C")
    if index.size == 0:
        return out
    if hasattr(src, "ndim"):
        src = np.reshape(src, (-1,)) if src.ndim == 0 or index.ndim == 0 else src
        scalar = src.shape == (1,) and index.ndim == 0
        src = src if scalar else src[tuple(slice(n) for n in np.atleast_1d(index).shape)]
    flat = np.reshape(out, (-1,)) if out.ndim == 0 or index.ndim == 0 else out
    flat[along(np.atleast_1d(index), d)] = src
    return np.reshape(flat, out.shape)


_scatter.vjp(
    input=lambda g, dim, index: _scatter(g, dim, index, 0.0),
    src=lambda g, shape, dim, index: _part(g, shape, dim, index),
)


@composite
def scatter(
    input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: Any = None
) -> Any:
    """`input` with `src`, or one `value`, written by index along `dim`, or reduced with what is there.

    Raises:
        RuntimeError: neither or both are given, the dtypes differ, or the reduction is unknown.
    """
    src = value if src is None else src
    if src is None:
        raise RuntimeError("scatter(): expected a tensor src or a number value")
    if isinstance(src, Tensor) and src.dtype is not input.dtype:
        raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype")
    if reduce is None:
        return _scatter(input, dim, index, src)
    if reduce not in ("add", "multiply"):
        raise RuntimeError("reduce argument must be either add or multiply.")
    if not isinstance(src, Tensor):
        src = wrap(np.full_like(index._array, src, dtype=input._array.dtype))
    if reduce == "add":
        return scatter_add(input, dim, index, src)
    return scatter_reduce(input, dim, index, src, "prod")


@composite
def scatter_reduce(
    input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """`input` with the elements of `src` that go to one place reduced: sum, prod, mean, amax, amin.

    Raises:
        RuntimeError: the reduction is unknown.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}."
        )
    if input.ndim == 0:
        whole = scatter_reduce(
            input.reshape(1), 0, index.reshape(1), src.reshape(1), reduce, include_self=include_self
        )
        return whole.reshape(())
    d = wrap_dim(dim, input.ndim)
    src = src[tuple(slice(n) for n in index.shape)]
    ones = wrap(np.ones_like(index._array, dtype=input._array.dtype))
    count = scatter_add(wrap(np.zeros_like(input._array)), d, index, ones)
    hit = count > 0
    if reduce in ("sum", "mean"):
        start = input if include_self else input.masked_fill(hit, 0)
        out = scatter_add(start, d, index, src)
        if reduce == "mean":
            total = count + 1 if include_self else count.masked_fill(~hit, 1)
            floating = out.dtype.is_floating_point or out.dtype.is_complex
            out = out / total if floating else out.div(total, rounding_mode="floor")
        return out
    return _reduce_slots(input, d, index, src, reduce, include_self, hit)


def _reduce_slots(
    input: Any, d: int, index: Any, src: Any, reduce: str, include_self: bool, hit: Any
) -> Any:
    """Reductions that are no sum: the candidates of each place side by side, then one reduction.

    The k-th element that goes to a place takes slot k + 1 there; slot 0 is `input`'s own. Empty slots
    hold the reduction's neutral element.
    """
    i, dtype = index._array, input._array.dtype
    order = np.moveaxis(i, d, -1)
    same = order[..., :, None] == order[..., None, :]
    rank = np.moveaxis(np.sum(np.tril(same, -1), axis=-1), -1, d)
    depth = int(greatest(rank, -1)) + 2
    low, high = (
        (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    neutral = {"prod": 1, "amax": low, "amin": high}[reduce]
    slots = wrap(np.full_like(input._array, neutral, shape=(*input.shape, depth)))
    own = input if include_self else input.masked_fill(hit, neutral)
    slots = setitem(slots, (Ellipsis, 0), own)
    slots = setitem(slots, (*along(i, d), rank + 1), src)
    return getattr(slots, reduce)(-1)


@composite
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    """`input` with alpha * source's slices along `dim` added where `index` points."""
    if input.ndim == 0:
        return put_at(input.reshape(1), (index.reshape(-1),), source.reshape(-1) * alpha).reshape(
            ()
        )
    d = wrap_dim(dim, input.ndim)
    if source.dtype is not input.dtype:
        raise RuntimeError("index_add_(): self and source expected to have the same dtype")
    _check_bounds(index._array, input.shape[d])
    source = source if alpha == 1 else source * alpha
    if source.ndim == 0:
        source = source.reshape(1)
    return put_at(input, at_dim(d, index.reshape(-1)), source)


@composite
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """`input` with source's slices along `dim` written where `index` points."""
    if input.ndim == 0:
        return setitem(input.reshape(1), (index.reshape(-1),), source.reshape(-1)).reshape(())
    if source.dtype is not input.dtype:
        raise RuntimeError("index_copy_(): self and source expected to have the same dtype")
    d = wrap_dim(dim, input.ndim)
    return setitem(input, at_dim(d, index.reshape(-1)), source)


@composite
def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """`input` with `value` in the slices along `dim` where `index` points."""
    mask = np.zeros_like(input._array, dtype=np.bool_)
    if input.ndim == 0:
        mask[...] = index.numel() > 0
    else:
        mask[at_dim(wrap_dim(dim, input.ndim), np.reshape(index._array, (-1,)))] = True
    return input.masked_fill(wrap(mask), value)


@composite
def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """`input` with `values` written, or added, where the index tensors point."""
    index = tuple(slice(None) if i is None else i for i in indices)
    return put_at(input, index, values) if accumulate else setitem(input, index, values)


@composite
def index_reduce(
    input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """`input` with source's slices along `dim` reduced where `index` points: prod, mean, amax, amin."""
    if input.ndim == 0:
        whole = index_reduce(
            input.reshape(1), 0, index, source.reshape(1), reduce, include_self=include_self
        )
        return whole.reshape(())
    d = wrap_dim(dim, input.ndim)
    shape = [1] * source.ndim
    shape[d] = -1
    spread = index.reshape(tuple(shape)).expand(source.shape)
    return scatter_reduce(input, d, spread, source, reduce, include_self=include_self)


@composite
def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """`input` with `source` written, or added, at places in row-major order."""
    write = put_at if accumulate else setitem
    flat = write(input.reshape(-1), (index.reshape(-1),), source.reshape(-1))
    return flat.reshape(input.shape)


@composite
def masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    """`input` with the elements of `source`, in order, where `mask` is true."""
    from refgrad.ops.shaping import broadcast_tensors

    input, mask = broadcast_tensors(input, mask)
    n = int(np.sum(mask._array))
    if source.numel() < n:
        raise RuntimeError("masked_scatter: expected self and source to have enough elements")
    if input.ndim == 0:
        return masked_scatter(input.reshape(1), mask.reshape(1), source).reshape(())
    return setitem(input, mask, source.reshape(-1)[:n])


for _name in __all__:
    if _name != "gather":
        INPLACE[_name] = METHODS[_name]
