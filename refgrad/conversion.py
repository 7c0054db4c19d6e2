"""Tensors from values: numbers, nested sequences, arrays, buffers, other tensors.

Each takes the keywords of `factory.Options`; without `dtype` Python floats give the default dtype.
"""

from __future__ import annotations

import warnings
from array import array as Buffer
from typing import Any, Unpack

import numpy as np

from refgrad import dtypes, literals
from refgrad.device import device, usable
from refgrad.dtypes import dtype
from refgrad.factory import Options, as_dtype, beside_input, finish, pick_dtype
from refgrad.tensor import Tensor, wrap

__all__ = ["as_tensor", "asarray", "from_numpy", "frombuffer", "tensor"]

_POINTLESS_COPY = (
    "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
    "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor)."
)


def tensor(data: Any, **options: Unpack[Options]) -> Tensor:
    """A new leaf with a copy of `data`: a number, nested sequences, an array or a tensor.

    Raises:
        ValueError: the sequences are ragged, an integer is too large.
        TypeError: text, an unknown option, an array of a dtype that PyTorch lacks.
        RuntimeError: an element is no number; integers are to require grad.
    """
    pick_dtype("tensor", options)
    wanted = as_dtype("tensor", options.get("dtype"))
    if isinstance(data, Tensor):
        warnings.warn(_POINTLESS_COPY, UserWarning, stacklevel=2)
    return finish(_copied(data, wanted), options)


def _copied(data: Any, wanted: dtype | None) -> Any:
    """A new array of what `tensor` takes."""
    if isinstance(data, Tensor):
        data = data._array
    if isinstance(data, np.generic):
        data = np.asarray(data)
    if not _is_array(data):
        return literals.array_of(data, wanted)
    return recast(_checked(data), wanted or dtypes.from_numpy(data.dtype), copy=True)


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array_function__") and hasattr(x, "dtype")


def _checked(array: Any) -> Any:
    """An array that a tensor may hold.

    Raises:
        TypeError: its dtype has no place in PyTorch.
        ValueError: its byte order is foreign, a stride negative or no whole number of elements.
    """
    dtypes.from_numpy(array.dtype)
    for stride in array.strides:
        if stride < 0:
            raise ValueError(
                "At least one stride in the given numpy array is negative, and "
                "tensors with negative strides are not currently supported. (You can "
                "probably work around this by making a copy of your array  with "
                "array.copy().) "
            )
        if stride % array.itemsize:
            raise ValueError(
                "given numpy array strides not a multiple of the element byte size. "
                "Copy the numpy array to reallocate the memory."
            )
    return array


def recast(array: Any, wanted: dtype, *, copy: bool = False) -> Any:
    """An array in another dtype; the imaginary part is dropped where none is wanted."""
    if array.dtype.kind == "c" and not wanted.is_complex:
        array = array.real
    with np.errstate(all="ignore"):
        return array.astype(wanted.numpy, copy=copy)


def new_tensor(self: Tensor, data: Any, **options: Unpack[Options]) -> Tensor:
    """A new leaf with a copy of `data`, in this tensor's dtype."""
    made = _copied(data, pick_dtype("new_tensor", options, self.dtype))
    return finish(made, beside_input(self, options))


def as_tensor(data: Any, *, dtype: Any = None, device: device | str | None = None) -> Tensor:
    """`data` as a tensor: itself, or sharing its memory, wherever the dtype allows.

    Raises as `tensor` does.
    """
    wanted = as_dtype("as_tensor", dtype)
    if isinstance(data, Tensor):
        made: Tensor = data.to(dtype=wanted, device=device)
        return made
    if _is_array(data) and not isinstance(data, np.generic):
        array = recast(_checked(data), wanted or dtypes.from_numpy(data.dtype))
    else:
        array = _copied(data, wanted)
    return finish(array, {"device": device})


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor that shares its memory with a NumPy array.

    Raises:
        TypeError: it is no array, or of a dtype that PyTorch lacks.
        ValueError: it has foreign byte order or negative strides.
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    return wrap(_checked(np.asarray(ndarray)))


def asarray(
    obj: Any,
    *,
    dtype: Any = None,
    device: device | str | None = None,
    copy: bool | None = None,
    requires_grad: bool | None = None,
) -> Tensor:
    """`obj` (a tensor, an array, a buffer, numbers) as a tensor, sharing memory where it can.

    `copy=True` never shares, `copy=False` always. A tensor keeps its history unless
    `requires_grad=False` says to detach it.

    Raises:
        ValueError: `copy=False` and the memory cannot be shared.
        RuntimeError: integers are to require grad.
    """
    wanted = as_dtype("asarray", dtype)
    where = {} if device is None else {"device": usable(device)}
    if isinstance(obj, Tensor) or (_is_array(obj) and not isinstance(obj, np.generic)):
        made = as_tensor(obj)
        if where and where["device"] != made.device:
            if copy is False:
                raise ValueError(f"can't alias tensor from device '{made.device}' to '{device}'.")
            made, copy = made.to(**where), None
        if wanted is not None and wanted is not made.dtype:
            if copy is False:
                raise ValueError(
                    f"can't alias tensor with dtype {made.dtype!r} into dtype "
                    f"{wanted!r}; leave copy out, or dtype"
                )
            made = made.to(wanted)
        elif copy:
            made = made.clone()
        if requires_grad is False and made.requires_grad:
            return made.detach()
        if requires_grad and not made.requires_grad:
            return finish(made._array, {"requires_grad": True, "device": made.device})
        return made
    if isinstance(obj, (bytes, bytearray, memoryview, Buffer)):
        made = frombuffer(obj, dtype=wanted or dtypes.get_default_dtype())
        array = made._array.copy() if copy else made._array
        return finish(array, {"requires_grad": bool(requires_grad), **where})
    if copy is False:
        raise ValueError("can't alias arbitrary sequence into a tensor.")
    return finish(_copied(obj, wanted), {"requires_grad": bool(requires_grad), **where})


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A 1-d tensor that shares the memory of a Python buffer; `offset` counts bytes.

    Raises:
        ValueError: the buffer is empty or no whole number of elements.
    """
    wanted = as_dtype("frombuffer", dtype)
    if wanted is None:
        raise TypeError("frombuffer() missing required argument 'dtype'")
    length, size = memoryview(buffer).nbytes, wanted.itemsize
    if length == 0 or count == 0:
        raise ValueError(f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer "
            f"length ({length} bytes) minus 1"
        )
    if count < 0 and (length - offset) % size:
        raise ValueError(
            f"buffer length ({length - offset} bytes) after offset ({offset} bytes) "
            f"must be a multiple of element size ({size})"
        )
    if offset + count * size > length:
        raise ValueError(
            f"requested buffer length ({count} * {size} bytes) after offset "
            f"({offset} bytes) must not be greater than actual buffer length "
            f"({length} bytes)"
        )
    array = np.frombuffer(buffer, wanted.numpy, count, offset)
    return finish(array, {"requires_grad": requires_grad})
