"""Arrays from Python's numbers and nested sequences, with the dtypes that PyTorch infers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.dtypes import dtype
from refgrad.limits import finfo, iinfo
from refgrad.tensor import Tensor

_TEXT = (str, bytes)
_EXACT = frozenset(dtypes.PYTHON_TYPES)


def array_of(data: Any, wanted: dtype | None = None) -> np.ndarray:
    """A new array of a number or of nested sequences of numbers.

    Without `wanted`, bool, int, float and complex become bool, int64, the default dtype and its
    complex; NumPy's scalars and one-element tensors keep theirs; mixed ones promote.

    Raises:
        ValueError: the sequences are ragged; an integer does not fit into int64.
        TypeError: text, or a number and a sequence side by side.
        RuntimeError: an element is no number, or does not fit into `wanted`.
    """
    shape = _shape(data)
    if 0 in shape:
        return np.empty(shape, (wanted or _dtype_within(data)).numpy)
    flat = _flatten(data, shape)
    if wanted is None:
        wanted = _infer(flat)
    flat = [_scalar(x) if type(x) not in _EXACT else x for x in flat]
    with np.errstate(over="ignore"):
        return _convert(flat, wanted).reshape(shape)


def _is_sequence(x: Any) -> bool:
    if isinstance(x, (list, tuple, range)):
        return True
    if isinstance(x, (*_TEXT, dict, set, Tensor, np.generic)):
        return False
    return hasattr(x, "__len__") and hasattr(x, "__getitem__")


def _shape(data: Any) -> tuple[int, ...]:
    """The shape, read along the first elements."""
    if isinstance(data, _TEXT):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    sizes = []
    while _is_sequence(data):
        sizes.append(len(data))
        if sizes[-1] == 0:
            break
        data = data[0]
    if isinstance(data, str):
        raise ValueError("too many dimensions 'str'")
    return tuple(sizes)


def _flatten(data: Any, shape: Sequence[int]) -> list[Any]:
    """The numbers in order; every sequence must have the length that the shape has there."""
    flat = [data]
    for dim, size in enumerate(shape):
        for row in flat:
            if not _is_sequence(row):
                raise TypeError(
                    f"not a sequence: {type(row).__name__} at dim {dim}, where other "
                    "elements are sequences"
                )
            if len(row) != size:
                raise ValueError(
                    f"expected sequence of length {size} at dim {dim} (got {len(row)})"
                )
        flat = [x for row in flat for x in row]
    return flat


def _dtype_within(data: Any) -> dtype:
    """The dtype of all numbers within, whose nesting need not be even; none count as floats."""
    if not _is_sequence(data):
        return _infer([data])
    if isinstance(data, np.ndarray):
        return dtypes.from_numpy(data.dtype)
    found = [_dtype_within(x) for x in data]
    return functools.reduce(dtypes.promote_types, found or [dtypes.get_default_dtype()])


def _infer(flat: Iterable[Any]) -> dtype:
    kinds: dict[type, Any] = {}
    tensors = set()
    for x in flat:
        if isinstance(x, Tensor):
            tensors.add(x.dtype)
        else:
            kinds.setdefault(type(x), x)
    found = [_dtype_of_scalar(x) for x in kinds.values()]
    return functools.reduce(dtypes.promote_types, [*found, *tensors])


def _dtype_of_scalar(x: Any) -> dtype:
    if isinstance(x, np.generic):
        return dtypes.from_numpy(x.dtype)
    if isinstance(x, bool):
        return dtypes.bool
    if isinstance(x, int):
        return dtypes.int64
    if isinstance(x, float):
        return dtypes.get_default_dtype()
    if isinstance(x, complex):
        return dtypes.default_complex()
    if isinstance(x, _TEXT):
        raise TypeError(f"new(): invalid data type '{type(x).__name__}'")
    if _is_sequence(x):
        raise TypeError(f"'{type(x).__name__}' object stands where other elements are numbers")
    raise RuntimeError(f"Could not infer dtype of {type(x).__name__}")


def _scalar(x: Any) -> Any:
    """A Python number for a tensor of one element or a NumPy scalar; others as they are."""
    if isinstance(x, Tensor):
        if x.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return x.item()
    return x.item() if isinstance(x, np.generic) else x


def _convert(flat: list[Any], wanted: dtype) -> np.ndarray:
    target = wanted.numpy
    for x in flat:
        if type(x) not in _EXACT and not hasattr(x, "__float__") and not hasattr(x, "__index__"):
            raise TypeError(f"must be a number, not {type(x).__name__}")
        if isinstance(x, complex) and not (wanted.is_complex or wanted is dtypes.bool):
            raise TypeError(f"must be real number, not {type(x).__name__}")
    if wanted.is_complex:
        return np.array(flat, np.complex128).astype(target)
    if wanted.is_floating_point:
        return np.array(flat, np.float64).astype(target)
    if wanted is dtypes.bool:
        return np.array([bool(x) for x in flat])
    if wanted is dtypes.uint64:
        return np.array([_whole(x, wanted) for x in flat], np.uint64)
    if any(type(x) is not int for x in flat):
        flat = [_whole(x, wanted) for x in flat]
    try:
        wide = np.array(flat, np.int64)
    except OverflowError:
        raise ValueError("Overflow when unpacking long long") from None
    limits = iinfo(wanted)
    low = limits.min if wanted.is_signed else -limits.max  # PyTorch lets -1 wrap to 255
    if wide.min() < low or wide.max() > limits.max:
        raise _overflow(wanted)
    return wide.astype(target)


def _whole(x: Any, wanted: dtype) -> int:
    """A number cut to its integer part; a float must be in range before it is cut."""
    if isinstance(x, float):
        limits = iinfo(wanted)
        if not limits.min <= x <= limits.max:
            raise _overflow(wanted)
    return int(x)


def _overflow(wanted: dtype) -> RuntimeError:
    return RuntimeError(f"value cannot be converted to type {wanted.name} without overflow")


def fill_value(value: Any, wanted: dtype) -> Any:
    """A number, checked to fit into `wanted`, as `full` and its kin take it.

    Raises:
        RuntimeError: it is complex and `wanted` is not; it is finite and too large.
    """
    if wanted is dtypes.bool:
        return bool(value)
    if isinstance(value, complex) and not wanted.is_complex:
        if value.imag != 0:
            raise _overflow(wanted)
        value = value.real
    if wanted.is_floating_point or wanted.is_complex:
        limit = finfo(wanted).max
        number = complex(value)
        if any(limit < abs(part) < np.inf for part in (number.real, number.imag)):
            raise _overflow(wanted)
        return number if wanted.is_complex else number.real
    whole = _whole(value, wanted)
    limits = iinfo(wanted)
    low = limits.min if wanted.is_signed else -limits.max
    if not low <= whole <= limits.max:
        raise _overflow(wanted)
    return whole % 2**limits.bits if not wanted.is_signed else whole
