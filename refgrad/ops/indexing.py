"""Ops that read and write by index."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.libraries import on_device
from refgrad.ops.arrays import wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.kernels import add_at, reshaped, widened
from refgrad.ops.op import op
from refgrad.ops.strides import columns, indexed
from refgrad.tensor import Tensor, wrap

__all__ = [
    "argwhere", "index_select", "masked_select", "nonzero", "select", "select_scatter",
    "slice_scatter", "take", "take_along_dim",
]  # fmt: skip

Index = Any

LONGEST = 32  # a sequence of so many parts is one index, whatever they are
SEQUENCE = (
    "Using a non-tuple sequence for multidimensional indexing is deprecated: write x[tuple(seq)] "
    "instead of x[seq], or x[torch.tensor(seq)] for one index."
)


def normalize(index: Index, ndim: int) -> tuple[Index, tuple[Any, ...] | None]:
    """PyTorch's reading of an index as two of NumPy's, applied in turn: basic, then advanced.

    PyTorch selects by integers first, so `x[0, :, i]` keeps the dimension of `i` in its place, where
    NumPy would move it to the front. The second is None where the first says all.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [_array_index(p) for p in parts]
    if not any(hasattr(p, "dtype") for p in parts):
        if not any(p is Ellipsis for p in parts):
            parts.append(Ellipsis)  # without it NumPy gives a scalar, no view, for a full index
        return tuple(parts), None
    used = sum(
        p.ndim if hasattr(p, "dtype") and p.dtype == bool else p is not None
        for p in parts
        if p is not Ellipsis
    )
    if not any(p is Ellipsis for p in parts):
        parts.append(Ellipsis)
    at = next(i for i, p in enumerate(parts) if p is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (ndim - used)
    first: list[Any] = []
    second: list[Any] = []
    for p in parts:
        if hasattr(p, "dtype"):
            first += [slice(None)] * (p.ndim if p.dtype == bool else 1)
            second.append(p)
        else:
            first.append(p)
            if not isinstance(p, int):
                second.append(slice(None))
    first.append(Ellipsis)  # as above
    return tuple(first), tuple(second)


def _array_index(p: Any) -> Any:
    """One part of an index: an int, a slice, None, Ellipsis, or an array of ints or bools."""
    if p is None or p is Ellipsis or type(p) is int:
        return p
    if isinstance(p, slice):
        if p.step is not None and int(p.step) <= 0:
            raise ValueError("step must be greater than zero")
        return slice(*(v if v is None else int(v) for v in (p.start, p.stop, p.step)))
    if isinstance(p, range):
        p = list(p)
    array = p if on_device(p) else np.asarray(p)
    if array.size == 0 and isinstance(p, (list, tuple)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    if array.dtype == np.uint8 and array.ndim:
        array = array.astype(bool)
    return int(array) if array.ndim == 0 and array.dtype.kind != "b" else array


def is_plain(index: Index) -> bool:
    """Whether NumPy reads an index as PyTorch does, and no element twice."""
    for p in index if type(index) is tuple else (index,):
        if type(p) is not slice and type(p) is not int and p is not None and p is not Ellipsis:
            return False
    return True


def read(x: Any, index: Index) -> Any:
    """x[index] on arrays, as PyTorch reads it.

    Raises:
        IndexError: an index is out of range, or there are too many.
    """
    first, second = normalize(index, x.ndim)
    if second is None:
        return x[first]
    x = x[first]
    return indexed(x[second], x, second)


@op(view=True, method=False, node_name="SelectBackward0")
def getitem(input: Any, index: Any) -> Any:
    """input[index]."""
    return read(input, index)


getitem.vjp(input=lambda g, shape, index: placed_at(g, index, shape))
getitem.adding(input=lambda total, g, index: _add(total, index, g))


@op(method=False)
def placed_at(values: Any, index: Any, size: Any) -> Any:
    """Zeros of `size` with `values` added at `index`, as often as an element is named."""
    out: Any = np.zeros_like(values, shape=size)
    if is_plain(index):
        out[index] = values
    else:
        _add(out, index, values)
    return out


placed_at.vjp(values=lambda g, index: getitem(g, index))


@op(method=False)
def put_at(input: Any, index: Any, values: Any) -> Any:
    """`input` with `values` added at `index`, as often as an element is named."""
    out = np.copy(input, order="C")
    _add(out, index, values)
    return out


def _add(out: Any, index: Any, values: Any) -> None:
    if is_plain(index):
        out[index] += values
        return
    first, second = normalize(index, out.ndim)
    if second is None:
        out[first] += values
    else:
        add_at(out[first], second, values)


put_at.vjp(input=lambda g: g, values=lambda g, index: getitem(g, index))


@op(method=False, node_name="CopySlices")
def setitem(input: Any, index: Any, value: Any) -> Any:
    """`input` with `value` at `index`; of several values for one element the last stays."""
    out = np.copy(input, order="C")
    first, second = normalize(index, out.ndim)
    if hasattr(value, "ndim"):
        into = out[first] if second is None else out[first][second]
        lead = value.ndim - into.ndim
        if lead > 0 and value.shape[:lead] == (1,) * lead:
            value = reshaped(value, value.shape[lead:])
        if value.dtype.kind == "c" and out.dtype.kind != "c":
            raise RuntimeError("value cannot be converted to the tensor's type without overflow")
    if second is None:
        out[first] = value
    else:
        out[first][second] = value
    return out


setitem.vjp(
    input=lambda g, index: setitem(g, index, 0.0),
    value=lambda g, index, shape: reshaped(getitem(g, index), shape)
    if np.prod(shape) == np.prod(getitem(g, index).shape) else getitem(g, index),
)  # fmt: skip


def as_index(index: Index) -> Index:
    """What stands in brackets: a sequence with more than numbers in it is a tuple, as PyTorch has it."""
    if isinstance(index, tuple) or not isinstance(index, Sequence):
        return index
    if len(index) >= LONGEST or not any(map(_selects, index)):
        return list(index)
    warnings.warn(SEQUENCE, stacklevel=3)
    return tuple(index)


def _selects(part: Any) -> bool:
    return part is None or part is Ellipsis or isinstance(part, (Tensor, Sequence, slice, np.ndarray))


setattr(Tensor, "__getitem__", lambda self, index: getitem(self, as_index(index)))  # noqa: B010


# --- along a dimension ---------------------------------------------------------------------------


def at_dim(dim: int, part: Any) -> tuple[Any, ...]:
    """The index that takes `part` of dimension `dim` and all of those before it."""
    return (slice(None),) * dim + (part,)


@composite
def select(input: Any, dim: int, index: Any) -> Any:
    """The slice at `index` of dimension `dim`, which is dropped."""
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    dim, i = wrap_dim(dim, input.ndim), int(index)
    if not -input.shape[dim] <= i < input.shape[dim]:
        raise IndexError(
            f"select(): index {i} out of range for tensor of size {list(input.shape)} at dimension {dim}"
        )
    return getitem(input, at_dim(dim, i))


@op
def index_select(input: Any, dim: Any, index: Any) -> Any:
    """The slices of dimension `dim` that `index`, a vector, names."""
    if index.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if input.ndim == 0:
        return np.copy(widened(input, index.shape if index.size != 1 else ()), order="C")
    d = wrap_dim(dim, input.ndim)
    index = reshaped(index, (-1,))
    _check_bounds(index, input.shape[d])
    return np.take(input, index, axis=d)


def _check_bounds(index: Any, n: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= n):
        raise IndexError("index out of range in self")


index_select.linear("input")
index_select.vjp(
    input=lambda g, shape, dim, index: placed_at(
        g if shape else np.sum(g),
        at_dim(wrap_dim(dim, len(shape)), reshaped(index, (-1,))) if shape else (),
        shape,
    )
)


@composite
def take(input: Any, index: Any) -> Any:
    """The elements that `index` names, in row-major order of `input`."""
    made = getitem(input.reshape(-1), index)
    return made if made._base is None else made.clone()


@composite
def masked_select(input: Any, mask: Any) -> Any:
    """The elements where `mask`, which broadcasts, is true, in one dimension."""
    from refgrad.ops.shaping import broadcast_tensors

    if mask.dtype.name != "bool":
        raise RuntimeError("masked_select: expected BoolTensor for mask")
    input, mask = broadcast_tensors(input, mask)
    if input.ndim == 0:
        input, mask = input.reshape(1), mask.reshape(1)
    return getitem(input, mask)


@composite
def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The indices of the elements that are not zero: a row an element, or a vector a dimension."""
    array = input._array
    if as_tuple:
        return tuple(wrap(np.copy(i)) for i in np.nonzero(np.atleast_1d(array)))
    if array.ndim == 0:
        return wrap(np.empty_like(array, shape=(int(array != 0), 0), dtype=np.int64))
    return wrap(columns(np.argwhere(array), ()))


@composite
def argwhere(input: Any) -> Any:
    """The indices of the elements that are not zero, a row each."""
    return nonzero(input)


@composite
def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """`input` with `src` as the slice at `index` of dimension `dim`."""
    d = wrap_dim(dim, input.ndim)
    slice_shape = tuple(n for i, n in enumerate(input.shape) if i != d)
    if tuple(src.shape) != slice_shape:
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {list(slice_shape)}"
        )
    return setitem(input, at_dim(d, index), src)


@composite
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """`input` with `src` as a slice of dimension `dim`."""
    return setitem(input, at_dim(wrap_dim(dim, input.ndim), slice(start, end, step)), src)


@composite
def take_along_dim(input: Any, indices: Any, dim: Any = None) -> Any:
    """The elements that `indices` names along `dim`; the other dimensions broadcast."""
    from refgrad.ops.scattering import gather
    from refgrad.ops.shaping import expand

    if dim is None:
        return getitem(input.reshape(-1), indices.reshape(-1))
    if input.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    d = wrap_dim(dim, input.ndim)
    a, b = list(input.shape), list(indices.shape)
    common = np.broadcast_shapes(tuple(a[:d] + a[d + 1 :]), tuple(b[:d] + b[d + 1 :]))
    input = expand(input, (*common[:d], a[d], *common[d:]))
    places = np.where(indices._array < 0, indices._array + a[d], indices._array)
    indices = expand(wrap(places), (*common[:d], b[d], *common[d:]))
    return gather(input, d, indices)
