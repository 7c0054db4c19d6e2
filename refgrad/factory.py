"""What all functions that make a tensor share: its size, its dtype, where it lives."""

from __future__ import annotations

import operator
from typing import Any, TypedDict

import numpy as np

from refgrad import dtypes, layouts
from refgrad.device import cpu, device, usable
from refgrad.device import place as placed
from refgrad.dtypes import dtype
from refgrad.tensor import Tensor, wrap


class Options(TypedDict, total=False):
    """The keywords of a function that makes a tensor.

    `layout`, `pin_memory` and `memory_format` are there for PyTorch's sake: only strided tensors
    in pageable memory can be made.
    """

    dtype: dtype | type | None
    layout: layouts.layout | None
    device: device | str | int | None
    pin_memory: bool | None
    requires_grad: bool
    memory_format: layouts.memory_format | None


class SizedOptions(Options, total=False):
    """`Options`, and the size by keyword."""

    size: Any


_PYTHON_DTYPES: dict[Any, dtype] = {
    float: dtypes.float64,
    int: dtypes.int64,
    bool: dtypes.bool,
    complex: dtypes.complex128,
}


def pick_dtype(name: str, options: Any, default: dtype | None = None) -> dtype:
    """The dtype that the options name, or else the default; checks the other options too.

    Raises:
        TypeError: an option is unknown, or of the wrong type.
        RuntimeError: the device, the layout or pinned memory cannot be had.
    """
    for key in options:
        if key not in Options.__annotations__:
            raise TypeError(f"{name}() got an unexpected keyword argument '{key}'")
    if options.get("device") is not None:
        usable(options["device"])
    layout = options.get("layout")
    if layout is not None and not isinstance(layout, layouts.layout):
        raise TypeError(
            f"{name}(): argument 'layout' must be torch.layout, not {type(layout).__name__}"
        )
    if options.get("pin_memory"):
        raise RuntimeError(
            "pin_memory=True requires a CUDA or other accelerator backend; use pin_memory=False"
        )
    wanted = as_dtype(name, options.get("dtype"))
    return wanted or default or dtypes.get_default_dtype()


def as_dtype(name: str, value: Any) -> dtype | None:
    """A dtype from a dtype, one of Python's number types, or None."""
    if value is None or isinstance(value, dtype):
        return value
    if isinstance(value, type) and value in _PYTHON_DTYPES:
        return _PYTHON_DTYPES[value]
    raise TypeError(f"{name}(): argument 'dtype' must be torch.dtype, not {type(value).__name__}")


def finish(array: Any, options: Any) -> Tensor:
    """The tensor of a new array on the device wanted, requiring grad if the options say so.

    Raises:
        RuntimeError: it is to require grad and has an integer dtype.
    """
    named = options.get("device")
    where = usable(named)
    if named is not None or where is not cpu:  # else it stays where it is
        array = placed(array, where)
    made = wrap(array)
    if options.get("requires_grad"):
        if array.dtype.kind not in "fc":
            raise RuntimeError(
                "Only Tensors of floating point and complex dtype can require gradients"
            )
        made._requires_grad = True
    return made


def beside_input(input: Tensor, options: Any) -> Any:
    """The options, with the device of `input` where they name none."""
    return {**options, "device": options.get("device") or input.device}


def pick_size(name: str, size: tuple[Any, ...], options: Any) -> tuple[int, ...]:
    """A shape from loose integers, from one sequence of them, or from the option `size`.

    Raises:
        TypeError: it is missing, given twice, or not of integers.
        RuntimeError: a dimension is negative.
    """
    if "size" in options:
        if size:
            raise TypeError(f"{name}() got multiple values for argument 'size'")
        size = (options.pop("size"),)
    elif not size:
        raise TypeError(f'{name}() missing 1 required positional arguments: "size"')
    if isinstance(size[0], (tuple, list)):
        if len(size) > 1:
            raise TypeError(f"{name}() takes 1 positional argument but {len(size)} were given")
        size = tuple(size[0])
        if size and isinstance(size[0], bool):  # PyTorch looks at the first alone
            raise TypeError(f"{name}(): argument 'size' must be tuple of ints, not of bool")
    elif isinstance(size[0], bool) or not _is_integer(size[0]):
        raise TypeError(
            f"{name}(): argument 'size' (position 1) must be tuple of ints, "
            f"not {type(size[0]).__name__}"
        )
    return one_size(name, size)


def one_size(name: str, size: Any) -> tuple[int, ...]:
    """A shape from one sequence of integers, with the errors of `pick_size`."""
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            f"{name}(): argument 'size' must be tuple of ints, not {type(size).__name__}"
        )
    for place, n in enumerate(size, start=1):
        if not _is_integer(n):
            raise TypeError(
                f"{name}(): argument 'size' failed to unpack the object at pos {place} "
                'with error "type must be tuple of ints,but got '
                f'{type(n).__name__}"'
            )
    shape = tuple(map(operator.index, size))
    for n in shape:
        if n < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {n}: {list(shape)}"
            )
    return shape


def _is_integer(n: Any) -> bool:
    if isinstance(n, Tensor):
        return n.ndim == 0 and n._array.dtype.kind in "iu"
    return isinstance(n, (int, np.integer))


def integer(name: str, argument: str, n: Any) -> int:
    """An integer argument; TypeError for anything else, a bool too."""
    if isinstance(n, bool) or not _is_integer(n):
        raise TypeError(f"{name}(): argument '{argument}' must be int, not {type(n).__name__}")
    return operator.index(n)


def number(name: str, argument: str, x: Any) -> Any:
    """A Python number from a number, a NumPy scalar or a 0-d tensor; TypeError for others.

    A tensor that requires grad is refused: its gradient would be lost.
    """
    if isinstance(x, Tensor) and x.ndim == 0 and not x.requires_grad:
        return x.item()
    if isinstance(x, np.generic):
        x = x.item()
    if not isinstance(x, (bool, int, float, complex)):
        raise TypeError(f"{name}(): argument '{argument}' must be Number, not {type(x).__name__}")
    return x


def check_tensor(name: str, x: Any) -> Tensor:
    """A Tensor argument; TypeError for anything else."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}"
        )
    return x


def empty_array(shape: tuple[int, ...], of: dtype, memory_format: Any = None) -> Any:
    """An uninitialised array whose dimensions lie in memory as `memory_format` says.

    Raises:
        RuntimeError: the format is a channels-last one and the rank does not fit.
    """
    order = layouts.CHANNELS_LAST.get(memory_format)
    if order is None:
        return np.empty(shape, of.numpy)
    if len(order) != len(shape):
        raise RuntimeError(f"required rank {len(order)} tensor to use {memory_format} format")
    inner = np.empty([shape[d] for d in order], of.numpy)
    return inner.transpose([order.index(d) for d in range(len(order))])


def empty_array_like(array: Any, of: dtype, memory_format: Any = None) -> Any:
    """An uninitialised array of the shape, and unless told otherwise the order, of `array`."""
    if memory_format in layouts.CHANNELS_LAST:
        return empty_array(array.shape, of, memory_format)
    expanded = any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))
    row_major = expanded or memory_format is layouts.contiguous_format
    return np.empty_like(array, dtype=of.numpy, order="C" if row_major else "K")
