"""Tensors of a size, and sequences of numbers.

Each function takes the keywords of `factory.Options`; without `dtype` floats are of the default
dtype.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from refgrad import dtypes, literals
from refgrad.conversion import new_tensor, recast
from refgrad.dtypes import dtype
from refgrad.factory import (
    Options,
    SizedOptions,
    beside_input,
    check_tensor,
    empty_array,
    empty_array_like,
    finish,
    integer,
    number,
    one_size,
    pick_dtype,
    pick_size,
)
from refgrad.libraries import as_strided
from refgrad.tensor import Tensor

__all__ = [
    "arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace",
    "logspace", "ones", "ones_like", "scalar_tensor", "tril_indices", "triu_indices", "zeros",
    "zeros_like",
]  # fmt: skip


# --- of a size -----------------------------------------------------------------------------------


def empty(*sizes: Any, **options: Unpack[SizedOptions]) -> Tensor:
    """An uninitialised tensor of a size, loose integers or one tuple (or `size=`)."""
    return _made("empty", sizes, options, None)


def zeros(*sizes: Any, **options: Unpack[SizedOptions]) -> Tensor:
    """Zeros of a size, loose integers or one tuple (or `size=`)."""
    return _made("zeros", sizes, options, 0)


def ones(*sizes: Any, **options: Unpack[SizedOptions]) -> Tensor:
    """Ones of a size, loose integers or one tuple (or `size=`)."""
    return _made("ones", sizes, options, 1)


def _made(
    name: str, size: tuple[Any, ...], options: Any, value: Any, default: dtype | None = None
) -> Tensor:
    """A tensor of a size and one value; None leaves it uninitialised."""
    shape = pick_size(name, size, options)
    made = empty_array(shape, pick_dtype(name, options, default), options.get("memory_format"))
    return _filled(made, value, options)


def _filled(array: Any, value: Any, options: Any) -> Tensor:
    if value is not None:
        array[...] = value
    return finish(array, options)


def full(size: Any, fill_value: Any, **options: Unpack[Options]) -> Tensor:
    """A tensor of `size` with one value everywhere; its dtype follows the value's kind.

    Raises:
        RuntimeError: the value does not fit into the dtype.
    """
    shape = one_size("full", size)
    value = number("full", "fill_value", fill_value)
    wanted = pick_dtype("full", options, _dtype_of(value))
    return _filled(empty_array(shape, wanted), literals.fill_value(value, wanted), options)


def _dtype_of(*numbers: Any) -> dtype:
    """int64 for integers alone, else the default dtype or its complex."""
    if any(isinstance(x, complex) for x in numbers):
        return dtypes.default_complex()
    if any(isinstance(x, float) for x in numbers):
        return dtypes.get_default_dtype()
    return dtypes.bool if all(isinstance(x, bool) for x in numbers) else dtypes.int64


def scalar_tensor(s: Any, **options: Unpack[Options]) -> Tensor:
    """A 0-d tensor of a number, in the default dtype unless told otherwise."""
    options.setdefault("dtype", dtypes.get_default_dtype())
    return full((), number("scalar_tensor", "s", s), **options)


def empty_strided(size: Any, stride: Any, **options: Unpack[Options]) -> Tensor:
    """An uninitialised tensor with the strides given, in elements.

    Raises:
        RuntimeError: there are more or fewer strides than sizes; a stride is negative.
    """
    shape = one_size("empty_strided", size)
    if len(shape) != len(stride):
        raise RuntimeError(
            f"dimensionality of sizes ({len(shape)}) must match dimensionality of "
            f"strides ({len(stride)})"
        )
    if any(s < 0 for s in stride):
        raise RuntimeError(f"strides must not be negative, got {list(stride)}")
    of = pick_dtype("empty_strided", options).numpy
    last = sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if 0 not in shape else -1
    memory = np.empty(last + 1, of)
    steps = [s * of.itemsize for s in stride]
    return finish(as_strided(memory, shape, steps), options)


def eye(n: Any, m: Any = None, **options: Unpack[Options]) -> Tensor:
    """The identity matrix, n by m."""
    rows = integer("eye", "n", n)
    columns = rows if m is None else integer("eye", "m", m)
    for name, value in (("n", rows), ("m", columns)):
        if value < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {value}")
    return finish(np.eye(rows, columns, dtype=pick_dtype("eye", options).numpy), options)


# --- of another tensor's size --------------------------------------------------------------------


def empty_like(input: Tensor, **options: Unpack[Options]) -> Tensor:
    """An uninitialised tensor of the shape, dtype and memory order of `input`."""
    return _made_like("empty_like", input, options, None)


def zeros_like(input: Tensor, **options: Unpack[Options]) -> Tensor:
    """Zeros of the shape, dtype and memory order of `input`."""
    return _made_like("zeros_like", input, options, 0)


def ones_like(input: Tensor, **options: Unpack[Options]) -> Tensor:
    """Ones of the shape, dtype and memory order of `input`."""
    return _made_like("ones_like", input, options, 1)


def full_like(input: Tensor, fill_value: Any, **options: Unpack[Options]) -> Tensor:
    """One value in the shape, dtype and memory order of `input`."""
    wanted = pick_dtype("full_like", options, check_tensor("full_like", input).dtype)
    value = literals.fill_value(number("full_like", "fill_value", fill_value), wanted)
    return _made_like("full_like", input, options, value)


def _made_like(name: str, input: Tensor, options: Any, value: Any) -> Tensor:
    wanted = pick_dtype(name, options, check_tensor(name, input).dtype)
    array = empty_array_like(input._array, wanted, options.get("memory_format"))
    return _filled(array, value, beside_input(input, options))


# --- sequences -----------------------------------------------------------------------------------


def arange(*args: Any, **options: Any) -> Tensor:
    """start, start + step, ... below `end`, as arange(end) or arange(start, end, step=1).

    Raises:
        RuntimeError: `step` is zero or leads away from `end`; a bound is not finite.
    """
    names = ("end",) if len(args) == 1 and "end" not in options else ("start", "end", "step")
    if len(args) > len(names):
        raise TypeError(f"arange() takes at most 3 positional arguments but {len(args)} were given")
    given: dict[str, Any] = {"start": 0, "step": 1, **dict(zip(names, args, strict=False))}
    for key in ("start", "end", "step"):
        if key in options:
            given[key] = options.pop(key)
    if "end" not in given:
        raise TypeError('arange() missing 1 required argument: "end"')
    start, end, step = (number("arange", k, given[k]) for k in ("start", "end", "step"))
    if any(isinstance(x, complex) for x in (start, end, step)):
        raise RuntimeError("arange() takes real numbers")
    wanted = pick_dtype("arange", options, _dtype_of(start, end, step, 0))
    _refuse("arange", wanted, wanted is dtypes.bool or wanted.is_complex or wanted in _UNSIGNED)
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if wanted is dtypes.int64:
        start, end, step = int(start), int(end), int(step)
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    if all(isinstance(x, int) for x in (start, end, step)):
        count = -((start - end) // step)
    else:
        count = math.ceil((end - start) / step)
    if not (wanted.is_floating_point or wanted.is_complex):
        start, step = int(start), int(step)
    made = start + np.arange(count, dtype=np.result_type(type(start), type(step))) * step
    return finish(made.astype(wanted.numpy), options)


_UNSIGNED = (dtypes.uint16, dtypes.uint32, dtypes.uint64)


def _refuse(name: str, wanted: dtype, refused: bool) -> None:
    if refused:
        raise NotImplementedError(f'"{name}_cpu" not implemented for {wanted!r}')


def linspace(start: Any, end: Any, steps: Any, **options: Unpack[Options]) -> Tensor:
    """`steps` numbers at equal distance, `start` and `end` among them.

    Raises:
        RuntimeError: `steps` is negative; a bound is a tensor with dimensions.
    """
    wanted, made = _spaced("linspace", start, end, steps, options)
    return finish(recast(made, wanted), options)


def logspace(
    start: Any, end: Any, steps: Any, base: float = 10.0, **options: Unpack[Options]
) -> Tensor:
    """`steps` powers of `base`, with exponents at equal distance from `start` to `end`.

    Raises as `linspace` does.
    """
    wanted, made = _spaced("logspace", start, end, steps, options)
    if len(made) == 1:  # the start alone, not cut to an integer
        made = np.array([number("logspace", "start", start)], np.result_type(made, np.float64))
    with np.errstate(all="ignore"):
        powers = np.power(made.dtype.type(base), made)
    return finish(recast(powers, wanted), options)


def _spaced(name: str, start: Any, end: Any, steps: Any, options: Any) -> tuple[dtype, np.ndarray]:
    """The dtype wanted, and the points, in that dtype or float64 where it is an integer one.

    Counted from the nearer end, so that the middle is symmetric and `end` is exact.
    """
    for argument, bound in (("start", start), ("end", end)):
        if isinstance(bound, Tensor) and bound.ndim:
            raise RuntimeError(
                f"{name} only supports 0-dimensional start and end tensors, but got "
                f"{argument} with {bound.ndim} dimension(s)."
            )
    first, last = number(name, "start", start), number(name, "end", end)
    count = integer(name, "steps", steps)
    if count < 0:
        raise RuntimeError("number of steps must be non-negative")
    is_complex = isinstance(first, complex) or isinstance(last, complex)
    default = dtypes.default_complex() if is_complex else dtypes.get_default_dtype()
    wanted = pick_dtype(name, options, default)
    _refuse(name, wanted, wanted is dtypes.bool)
    inexact = wanted.is_floating_point or wanted.is_complex
    number_type = wanted.numpy.type if inexact else np.float64
    if not inexact:
        first, last = (literals.fill_value(bound, wanted) for bound in (first, last))
    low, high = number_type(first), number_type(last)
    step = (high - low) / number_type(max(count - 1, 1))
    places = np.arange(count).astype(number_type)
    made = np.where(np.arange(count) < count // 2, low + step * places, high - step * places[::-1])
    return wanted, (made if count != 1 else np.array([low])).astype(number_type)


def tril_indices(row: Any, col: Any, offset: int = 0, **options: Unpack[Options]) -> Tensor:
    """The rows and columns, stacked, of the lower triangle of a row by col matrix."""
    return _triangle("tril_indices", np.tril_indices, row, col, offset, options)


def triu_indices(row: Any, col: Any, offset: int = 0, **options: Unpack[Options]) -> Tensor:
    """The rows and columns, stacked, of the upper triangle of a row by col matrix."""
    return _triangle("triu_indices", np.triu_indices, row, col, offset, options)


def _triangle(name: str, indices: Any, row: Any, col: Any, offset: int, options: Any) -> Tensor:
    rows, columns = integer(name, "row", row), integer(name, "col", col)
    for argument, value in (("row", rows), ("col", columns)):
        if value < 0:
            raise RuntimeError(f"{argument} must be non-negative, got{value}")
    wanted = pick_dtype(name, options, dtypes.int64)
    _refuse(name, wanted, wanted not in (dtypes.int32, dtypes.int64))
    return finish(np.stack(indices(rows, offset, columns)).astype(wanted.numpy), options)


# --- methods of Tensor: a new tensor of its dtype ------------------------------------------------


def new_empty(self: Tensor, *sizes: Any, **options: Unpack[SizedOptions]) -> Tensor:
    """An uninitialised tensor of a size in this tensor's dtype."""
    return _made("new_empty", sizes, beside_input(self, options), None, self.dtype)


def new_zeros(self: Tensor, *sizes: Any, **options: Unpack[SizedOptions]) -> Tensor:
    """Zeros of a size in this tensor's dtype."""
    return _made("new_zeros", sizes, beside_input(self, options), 0, self.dtype)


def new_ones(self: Tensor, *sizes: Any, **options: Unpack[SizedOptions]) -> Tensor:
    """Ones of a size in this tensor's dtype."""
    return _made("new_ones", sizes, beside_input(self, options), 1, self.dtype)


def new_full(self: Tensor, size: Any, fill_value: Any, **options: Unpack[Options]) -> Tensor:
    """One value in `size`, in this tensor's dtype."""
    options["dtype"] = pick_dtype("new_full", options, self.dtype)
    return full(size, fill_value, **beside_input(self, options))


def new_empty_strided(self: Tensor, size: Any, stride: Any, **options: Unpack[Options]) -> Tensor:
    """An uninitialised tensor with the strides given, in this tensor's dtype."""
    options["dtype"] = pick_dtype("new_empty_strided", options, self.dtype)
    return empty_strided(size, stride, **beside_input(self, options))


for _method in (new_tensor, new_empty, new_zeros, new_ones, new_full, new_empty_strided):
    setattr(Tensor, _method.__name__, _method)
