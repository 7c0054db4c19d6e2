"""What a tensor says of itself: its shape, dtype, device, strides and layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.device import device, device_of
from refgrad.layouts import CHANNELS_LAST
from refgrad.libraries import Loaded, on_device
from refgrad.size import Size


class Described:
    """The read-only attributes of a Tensor, all told by its array."""

    _array: Any

    @property
    def shape(self) -> Size:
        """Its shape."""
        return Size(self._array.shape)

    def size(self, dim: int | None = None) -> Any:
        """Its shape, or the length of one dimension."""
        from refgrad.ops.arrays import wrap_dim

        shape = self._array.shape
        return Size(shape) if dim is None else shape[wrap_dim(dim, len(shape))]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return int(self._array.ndim)

    def dim(self) -> int:
        """The number of dimensions."""
        return int(self._array.ndim)

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    nelement = numel

    @property
    def dtype(self) -> dtypes.dtype:
        """The dtype of its elements."""
        return dtypes.from_numpy(self._array.dtype)

    @property
    def device(self) -> device:
        """Where its memory is."""
        return device_of(self._array)

    @property
    def is_cuda(self) -> bool:
        """Whether its memory is on a CUDA device."""
        return on_device(self._array)

    @property
    def is_cpu(self) -> bool:
        """Whether its memory is the host's."""
        return not on_device(self._array)

    def get_device(self) -> int:
        """The number of its CUDA device; -1 on the CPU."""
        index = device_of(self._array).index
        return -1 if index is None else index

    @property
    def is_sparse(self) -> bool:
        """Whether only some elements are stored: never."""
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self._array.nbytes)

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return int(self._array.itemsize)

    def element_size(self) -> int:
        """Bytes an element."""
        return int(self._array.itemsize)

    def stride(self, dim: int | None = None) -> Any:
        """The strides in elements, or that of one dimension."""
        strides = tuple(s // self._array.itemsize for s in self._array.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether its elements lie in row-major order without gaps; by a format, channels last."""
        array, order = self._array, CHANNELS_LAST.get(memory_format)
        if order is not None:
            if len(order) != array.ndim:
                return False
            array = np.transpose(array, order)
        return bool(array.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating one."""
        return bool(self._array.dtype.kind == "f")

    def is_complex(self) -> bool:
        """Whether the dtype is a complex one."""
        return bool(self._array.dtype.kind == "c")

    def data_ptr(self) -> int:
        """The address of its first element."""
        if Loaded.cuda is not None and on_device(self._array):
            return Loaded.cuda.address(self._array)
        return int(self._array.__array_interface__["data"][0])
