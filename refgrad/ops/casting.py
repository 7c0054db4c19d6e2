"""Copies and changes of dtype."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.device import cpu as host
from refgrad.device import device, device_of, place, usable
from refgrad.layouts import contiguous_format, preserve_format
from refgrad.ops.arrays import unbroadcast
from refgrad.ops.composites import composite
from refgrad.ops.op import METHODS, op
from refgrad.ops.strides import copied, suggested
from refgrad.tensor import Tensor

__all__ = [
    "clone",
    "detach",
    "fill",
    "is_complex",
    "is_floating_point",
    "is_tensor",
    "numel",
    "result_type",
]


@op(node_name="ToCopyBackward0", method=False)
def to_dtype(input: Any, dtype: Any) -> Any:
    """A copy in another dtype; the backward pass casts the gradient back."""
    if input.dtype.kind == "c" and dtype.numpy.kind != "c":
        input = input.real
    return input.astype(dtype.numpy)


to_dtype.vjp(input=lambda g: g).linear("input")


@op(node_name="ToCopyBackward0", method=False)
def to_device(input: Any, device: Any) -> Any:
    """A copy on another device; the backward pass takes the gradient back to where `input` lives."""
    return place(input, device)


def _back(g: Any, input: Any) -> Any:
    where = device_of(getattr(input, "_array", input))
    return to_device(g, where) if isinstance(g, Tensor) else place(g, where)


to_device.vjp(input=_back).linear("input")


@op
def clone(input: Any, *, memory_format: Any = None) -> Any:
    """A copy, its dimensions in the same order in memory, or in that of `memory_format`.

    Raises:
        RuntimeError: the format is a channels-last one and the rank does not fit.
    """
    return copied(input, memory_format)


clone.vjp(input=lambda g: g).linear("input")


@op(inplace=True)
def fill(input: Any, value: Any) -> Any:
    """A tensor like `input`, filled with `value`, a number or a 0-d tensor.

    Raises:
        RuntimeError: `value` has dimensions.
    """
    if getattr(value, "ndim", 0):
        raise RuntimeError(
            f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions."
        )
    return np.full_like(input, value)


fill.vjp(input=lambda g: np.zeros_like(g), value=lambda g: g)


@op(method=False, node_name="CopyBackwards")
def _copy_over(input: Any, src: Any) -> Any:
    """The values of `src`, broadcast to the shape of `input`."""
    return np.copy(np.broadcast_to(src, input.shape), order="C")


_copy_over.vjp(input=lambda g: np.zeros_like(g), src=lambda g: g)


def _zero_(self: Any) -> Any:
    """Fill with zeros, in place."""
    return self.fill_(0)


def _copy_(self: Any, src: Any, non_blocking: bool = False) -> Any:
    """Take over the values of `src`, broadcast and cast, in place."""
    self.check_writable()
    return self.become(_copy_over(self.snapshot(src), to(src, self.device, self.dtype)))


METHODS.update(zero_=_zero_, copy_=_copy_)


@composite(method=False)
def detach(input: Any) -> Any:
    """`input.detach()`: the same memory, cut from the graph."""
    return input.detach()


@composite
def contiguous(input: Any, memory_format: Any = None) -> Any:
    """`input` itself where its elements lie as `memory_format` says, else a copy that does.

    The format is row-major order by default.
    """
    wanted = contiguous_format if memory_format is None else memory_format
    return input if input.is_contiguous(wanted) else clone(input, memory_format=wanted)


@composite
def to(input: Any, *args: Any, **kwargs: Any) -> Any:
    """`input` in another dtype or on another device: itself where nothing changes.

    Takes a dtype, a device, another tensor, or a device and a dtype; `copy` and `memory_format`.

    Raises:
        RuntimeError: the device is not usable here.
    """
    target, where = kwargs.pop("dtype", None), kwargs.pop("device", None)
    copy = kwargs.pop("copy", False)
    kwargs.pop("non_blocking", None)
    memory_format = kwargs.pop("memory_format", None)
    if kwargs:
        raise TypeError(f"to() got an unexpected keyword argument '{next(iter(kwargs))}'")
    for arg in args:
        if isinstance(arg, dtypes.dtype):
            target = arg
        elif isinstance(arg, Tensor):
            target, where = arg.dtype, arg.device
        elif isinstance(arg, (str, device)) or builtins.type(arg) is builtins.int:
            where = arg
        elif isinstance(arg, builtins.bool):
            copy = copy or (arg is True and arg is args[-1] and len(args) > 2)
    if where is not None and (wanted := usable(where)) is not input.device:
        input, copy = to_device(input, wanted), False
    kept = memory_format in (None, preserve_format)
    if target is not None and target is not input.dtype:
        made = to_dtype(input, target)
        return made if kept else contiguous(made, memory_format)
    if copy or not (kept or memory_format is suggested(input._array)):
        return clone(input, memory_format=memory_format)
    return input


@composite
def cuda(input: Any, device: Any = None, non_blocking: builtins.bool = False, **kwargs: Any) -> Any:
    """`input` on the CUDA device in use: itself where it lives there."""
    return to(input, "cuda" if device is None else device)


@composite
def cpu(input: Any, **kwargs: Any) -> Any:
    """`input` in the host's memory: itself where it lives there."""
    return input if input.device is host else to(input, host)


def _cast(name: str, target: dtypes.dtype) -> Any:
    def cast(input: Any, *, memory_format: Any = None) -> Any:
        return to(input, target, memory_format=memory_format)

    cast.__name__ = name
    cast.__doc__ = f"`input` as {target!r}."
    return composite(cast)


float = _cast("float", dtypes.float32)
double = _cast("double", dtypes.float64)
half = _cast("half", dtypes.float16)
int = _cast("int", dtypes.int32)
long = _cast("long", dtypes.int64)
short = _cast("short", dtypes.int16)
byte = _cast("byte", dtypes.uint8)
char = _cast("char", dtypes.int8)
cfloat = _cast("cfloat", dtypes.complex64)
cdouble = _cast("cdouble", dtypes.complex128)
_bool = _cast("bool", dtypes.bool)


@composite
def type_as(input: Any, other: Any) -> Any:
    """`input` in the dtype of `other`."""
    return to(input, other.dtype)


@op(view=True, method=False)
def view_dtype(input: Any, dtype: Any) -> Any:
    """The same memory read as another dtype of the same width; it has no gradient."""
    if dtype.itemsize != input.itemsize:
        raise RuntimeError("refgrad's view(dtype) needs a dtype of the same width")
    return input.view(dtype.numpy)


def is_tensor(obj: Any) -> Any:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Any) -> Any:
    """Whether the dtype of `input` is a floating one."""
    return input.is_floating_point()


def is_complex(input: Any) -> Any:
    """Whether the dtype of `input` is a complex one."""
    return input.is_complex()


def numel(input: Any) -> Any:
    """The number of elements of `input`."""
    return input.numel()


def result_type(tensor1: Any, tensor2: Any) -> dtypes.dtype:
    """The dtype of an operation on two operands, each a Tensor or a Python number."""

    def described(x: Any) -> tuple[dtypes.dtype, dtypes.Category]:
        if isinstance(x, Tensor):
            return x.dtype, dtypes.DIMENSIONED if x.ndim else dtypes.ZERO_DIM
        return dtypes.PYTHON_TYPES[type(x)], dtypes.SCALAR

    return dtypes.result_type(described(tensor1), described(tensor2))


@composite
def sum_to_size(input: Any, *size: Any) -> Any:
    """`input` summed over the dimensions along which `size` would broadcast to its shape.

    Raises:
        RuntimeError: `size` does not broadcast to it.
    """
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], builtins.int) else size
    lead = input.ndim - len(shape)
    pairs = zip(shape, input.shape[builtins.max(lead, 0) :], strict=True)
    if lead < 0 or any(a not in (1, b) for a, b in pairs):
        raise RuntimeError(
            f"size {{{list(shape)}}} is not expandable to size {{{list(input.shape)}}}."
        )
    return unbroadcast(input, shape)


@composite
def type(input: Any, dtype: Any = None) -> Any:
    """`input` in another dtype; without one the name of its tensor type, "torch.FloatTensor"."""
    if dtype is None:
        return f"torch.{_TYPES[input.dtype]}Tensor"
    if isinstance(dtype, str):
        names = {f"torch.{name}Tensor": d for d, name in _TYPES.items()}
        if dtype not in names:
            raise ValueError(f"invalid type: {dtype!r}")
        dtype = names[dtype]
    return to(input, dtype)


_TYPES = {
    dtypes.float32: "Float", dtypes.float64: "Double", dtypes.float16: "Half",
    dtypes.int64: "Long", dtypes.int32: "Int", dtypes.int16: "Short", dtypes.int8: "Char",
    dtypes.uint8: "Byte", dtypes.bool: "Bool",
    dtypes.complex64: "ComplexFloat", dtypes.complex128: "ComplexDouble",
}  # fmt: skip
