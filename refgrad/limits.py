"""The limits of dtypes: finfo and iinfo."""

from __future__ import annotations

from typing import final

import numpy as np

from refgrad import dtypes
from refgrad.dtypes import dtype, get_default_dtype, is_inexact

__all__ = ["finfo", "iinfo"]


def _shown(value: float) -> str:
    return format(value, ".6g")


@final
class finfo:
    """Limits of a floating dtype (of the real part, for a complex one); floats, and a name.

    Attributes: bits, eps, max, min, tiny, smallest_normal, resolution, dtype. TypeError for others.
    """

    __slots__ = ("_dtype", "bits", "eps", "max", "min", "resolution", "smallest_normal", "tiny")

    def __init__(self, type: dtype | None = None) -> None:
        d = get_default_dtype() if type is None else type
        if not isinstance(d, dtype):
            raise TypeError(
                "finfo(): argument 'type' (position 1) must be torch.dtype, "
                f"not {d.__class__.__name__}"
            )
        if not is_inexact(d):
            raise TypeError(
                "torch.finfo() requires a floating point input type. "
                "Use torch.iinfo to handle 'torch.finfo'"
            )
        real = self._dtype = d.to_real()
        self.bits = real.itemsize * 8
        digits, exponent = _FORMATS[real]
        self.eps = 2.0 ** (1 - digits)
        self.max = (2.0 - self.eps) * 2.0**exponent
        self.min = -self.max
        self.tiny = self.smallest_normal = 2.0 ** (1 - exponent)
        self.resolution = float(f"1e-{int((digits - 1) * np.log10(2.0))}")

    @property
    def dtype(self) -> str:
        """The name of the (real) dtype, "float32"."""
        return self._dtype.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and other._dtype is self._dtype

    def __hash__(self) -> int:
        return hash(self._dtype)

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        values = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in names)
        return f"finfo({values}, dtype={self.dtype})"


# The bits of the significand, with the hidden one, and the largest exponent.
_FORMATS = {
    dtypes.float16: (11, 15),
    dtypes.bfloat16: (8, 127),
    dtypes.float32: (24, 127),
    dtypes.float64: (53, 1023),
}


@final
class iinfo:
    """Limits of an integer dtype. Attributes: bits, max, min, dtype. TypeError for others."""

    __slots__ = ("_dtype", "bits", "max", "min")

    def __init__(self, type: dtype) -> None:
        if not isinstance(type, dtype):
            raise TypeError(
                "iinfo(): argument 'type' (position 1) must be torch.dtype, "
                f"not {type.__class__.__name__}"
            )
        if is_inexact(type):
            raise TypeError(
                "torch.iinfo() requires an integer input type. "
                "Use torch.finfo to handle 'torch.iinfo'"
            )
        if type is dtypes.bool:
            raise TypeError("torch.bool is not supported by torch.iinfo")
        self._dtype = type
        self.bits = type.itemsize * 8
        self.max = 2 ** (self.bits - type.is_signed) - 1
        self.min = -(2 ** (self.bits - 1)) if type.is_signed else 0

    @property
    def dtype(self) -> str:
        """The dtype's name, "int32"."""
        return self._dtype.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and other._dtype is self._dtype

    def __hash__(self) -> int:
        return hash(self._dtype)

    def __repr__(self) -> str:
        return f"iinfo(min={_shown(self.min)}, max={_shown(self.max)}, dtype={self.dtype})"
