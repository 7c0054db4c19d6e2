"""PyTorch's dtypes as named constants, and its rules of type promotion.

The constants take PyTorch's names, so that inside this module `bool`, `int` and `float` mean
dtypes; the Python types are written `builtins.bool` and so on.
"""

from __future__ import annotations

import builtins
import enum
from typing import NoReturn, final

import numpy as np

__all__ = [
    "bfloat16", "bool", "can_cast", "cdouble", "cfloat", "chalf", "complex32", "complex64",
    "complex128", "double", "dtype", "float", "float16", "float32", "float64",
    "get_default_dtype", "half", "int", "int8", "int16", "int32", "int64", "long",
    "promote_types", "set_default_dtype", "short", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


@final
class dtype:
    """An element type; each is one object, compared by identity.

    Attributes:
        name: PyTorch's name without the prefix, "float64".
        itemsize: bytes an element.
        is_floating_point, is_complex, is_signed: as PyTorch's attributes of these names.
        numpy_or_none: the NumPy dtype, or None for bfloat16 and complex32, which NumPy lacks.
    """

    __slots__ = (
        "is_complex", "is_floating_point", "is_signed", "itemsize", "name", "numpy_or_none",
    )  # fmt: skip

    name: str
    itemsize: builtins.int
    is_floating_point: builtins.bool
    is_complex: builtins.bool
    is_signed: builtins.bool
    numpy_or_none: np.dtype | None

    def __new__(cls) -> dtype:
        raise TypeError("cannot create 'torch.dtype' instances")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"attribute {name!r} of 'torch.dtype' objects is not writable")

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype; TypeError where NumPy has none."""
        if self.numpy_or_none is None:
            raise TypeError(
                f"{self} has no NumPy dtype, so no tensor of it can be made here; "
                "use torch.float32 or torch.complex64"
            )
        return self.numpy_or_none

    def to_real(self) -> dtype:
        """The dtype of this one's real part."""
        return _REAL.get(self, self)

    def to_complex(self) -> dtype:
        """The complex dtype with this one's precision; RuntimeError for integers and bool."""
        try:
            return _COMPLEX[self]
        except KeyError:
            raise RuntimeError(f"Unknown Complex ScalarType for {_SCALAR_NAMES[self]}") from None


def _make(name: str, kind: str, itemsize: builtins.int, *, in_numpy: builtins.bool = True) -> dtype:
    self = object.__new__(dtype)
    for attribute, value in {
        "name": name,
        "itemsize": itemsize,
        "is_floating_point": kind == "f",
        "is_complex": kind == "c",
        "is_signed": kind in "ifc",
        "numpy_or_none": np.dtype(name) if in_numpy else None,
    }.items():
        object.__setattr__(self, attribute, value)
    return self


bool = _make("bool", "b", 1)
uint8 = _make("uint8", "u", 1)
int8 = _make("int8", "i", 1)
int16 = short = _make("int16", "i", 2)
int32 = int = _make("int32", "i", 4)
int64 = long = _make("int64", "i", 8)
uint16 = _make("uint16", "u", 2)
uint32 = _make("uint32", "u", 4)
uint64 = _make("uint64", "u", 8)
float16 = half = _make("float16", "f", 2)
bfloat16 = _make("bfloat16", "f", 2, in_numpy=False)
float32 = float = _make("float32", "f", 4)
float64 = double = _make("float64", "f", 8)
complex32 = chalf = _make("complex32", "c", 4, in_numpy=False)
complex64 = cfloat = _make("complex64", "c", 8)
complex128 = cdouble = _make("complex128", "c", 16)

_REAL = {complex32: float16, complex64: float32, complex128: float64}
_COMPLEX = {float16: complex32, bfloat16: complex64, float32: complex64, float64: complex128}
_COMPLEX |= {c: c for c in _REAL}

# The names that PyTorch's messages use.
_SCALAR_NAMES = {
    bool: "Bool", uint8: "Byte", int8: "Char", int16: "Short", int32: "Int", int64: "Long",
    uint16: "UInt16", uint32: "UInt32", uint64: "UInt64",
    float16: "Half", bfloat16: "BFloat16", float32: "Float", float64: "Double",
    complex32: "ComplexHalf", complex64: "ComplexFloat", complex128: "ComplexDouble",
}  # fmt: skip

ALL: tuple[dtype, ...] = tuple(_SCALAR_NAMES)

DTYPES: dict[np.dtype, dtype] = {d.numpy_or_none: d for d in ALL if d.numpy_or_none is not None}
"""From NumPy's dtype to ours; the fast path of `from_numpy`."""

PYTHON_TYPES: dict[type, dtype] = {
    builtins.bool: bool,
    builtins.int: int64,
    builtins.float: float64,
    builtins.complex: complex128,
}
"""What kind a Python scalar has; in promotion, floats and complex follow the default dtype."""


def from_numpy(numpy_dtype: np.dtype) -> dtype:
    """The dtype of a NumPy dtype; TypeError for one that PyTorch lacks (or of other byte order)."""
    try:
        return DTYPES[numpy_dtype]
    except KeyError:
        if not numpy_dtype.isnative:
            raise ValueError(
                "given numpy array has byte order different from the native byte "
                "order. Conversion between byte orders is currently not supported; "
                "use array.astype(array.dtype.newbyteorder('='))"
            ) from None
        raise TypeError(
            f"can't convert np.ndarray of type {numpy_dtype.type.__module__}."
            f"{numpy_dtype.type.__name__}. The only supported types are: "
            + ", ".join(d.name for d in DTYPES.values())
        ) from None


# --- the default dtype -----------------------------------------------------------------------

_default = float32


def get_default_dtype() -> dtype:
    """The floating dtype of tensors made from Python floats."""
    return _default


def set_default_dtype(d: dtype, /) -> None:
    """Sets the dtype that Python floats get; TypeError unless it is floating."""
    global _default
    if not isinstance(d, dtype):
        raise TypeError(
            "invalid dtype object: only floating-point types are supported as the default type"
        )
    if not d.is_floating_point:
        raise TypeError("only floating-point types are supported as the default type")
    _default = d
    _RESULTS.clear()


# --- promotion -------------------------------------------------------------------------------


def _promote(a: dtype, b: dtype) -> dtype | None:
    """The smallest dtype that holds both, by PyTorch's lattice; None where it refuses.

    bool < integers < floats < complex; within a kind the wider wins. uint16, uint32 and uint64
    stand outside: they promote with floats only.
    """
    if a is b:
        return a
    if a.is_complex or b.is_complex:
        if a in _LONELY or b in _LONELY:
            return None
        if not (is_inexact(a) and is_inexact(b)):
            return a if a.is_complex else b
        real = _promote(a.to_real(), b.to_real())
        assert real is not None
        return real.to_complex()
    if a.is_floating_point and b.is_floating_point:
        if a.itemsize == b.itemsize:  # float16 with bfloat16
            return float32
        return a if a.itemsize > b.itemsize else b
    if a.is_floating_point or b.is_floating_point:
        return a if a.is_floating_point else b
    if a in _LONELY or b in _LONELY:
        return None
    if a is bool or b is bool:
        return b if a is bool else a
    if a.itemsize == b.itemsize:  # int8 with uint8
        return int16
    return a if a.itemsize > b.itemsize else b


def is_inexact(d: dtype) -> builtins.bool:
    """Whether it is a floating or a complex dtype."""
    return d.is_floating_point or d.is_complex


_LONELY = frozenset((uint16, uint32, uint64))
_PROMOTED: dict[tuple[dtype, dtype], dtype] = {
    (a, b): promoted for a in ALL for b in ALL if (promoted := _promote(a, b)) is not None
}


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The dtype of an operation on two tensors of these dtypes.

    RuntimeError for the pairs with uint16, uint32 or uint64 that PyTorch refuses.
    """
    if type1 is type2:
        return type1
    try:
        return _PROMOTED[type1, type2]
    except KeyError:
        for position, d in enumerate((type1, type2), start=1):
            if not isinstance(d, dtype):
                raise TypeError(
                    f"promote_types(): argument 'type{position}' (position {position}) "
                    f"must be torch.dtype, not {type(d).__name__}"
                ) from None
        names = f"{_SCALAR_NAMES[type1]} and {_SCALAR_NAMES[type2]}"
        raise RuntimeError(
            "Promotion for uint16, uint32, uint64 types is not supported, "
            f"attempted to promote {names}"
        ) from None


class Category(enum.IntEnum):
    """How much say an operand has in the result's dtype; a lower number has more."""

    DIMENSIONED = 0
    ZERO_DIM = 1
    SCALAR = 2  # a Python number


DIMENSIONED, ZERO_DIM, SCALAR = Category.DIMENSIONED, Category.ZERO_DIM, Category.SCALAR

_RESULTS: dict[tuple[tuple[dtype, Category], ...], dtype] = {}


def result_type(*operands: tuple[dtype, Category]) -> dtype:
    """The dtype of an operation on these operands, each a dtype and a category.

    Within a category dtypes promote. A lower category is heard only if its kind (bool, integer,
    floating, complex) is above the higher one's. A Python number has the dtype that
    `PYTHON_TYPES` names; a float or complex counts as the default dtype or its complex.
    """
    try:
        return _RESULTS[operands]
    except KeyError:
        result = _RESULTS[operands] = _result_type(operands)
        return result


def _result_type(operands: tuple[tuple[dtype, Category], ...]) -> dtype:
    heard: dict[Category, dtype] = {}
    for d, category in operands:
        if category is SCALAR and d.is_complex:
            d = default_complex()
        elif category is SCALAR and d.is_floating_point:
            d = _default
        heard[category] = promote_types(heard[category], d) if category in heard else d
    result: dtype | None = None
    for category in reversed(Category):  # the least important first
        if category in heard:
            higher = heard[category]
            result = higher if result is None else _combine(higher, result)
    if result is None:
        raise RuntimeError("result_type() needs at least one operand")
    return result


def _combine(higher: dtype, lower: dtype) -> dtype:
    """The dtype of two operands of different categories."""
    if higher.is_complex:
        return higher
    if higher.is_floating_point:
        return higher.to_complex() if lower.is_complex else higher
    if is_inexact(lower):
        return lower
    return promote_types(higher, lower) if higher is bool else higher


def default_complex() -> dtype:
    """The complex dtype of Python's complex numbers."""
    if _default is bfloat16:
        raise RuntimeError("invalid default scalar type for complex")
    return _default.to_complex()


def _kind(d: dtype) -> builtins.int:
    return 3 if d.is_complex else 2 if d.is_floating_point else 0 if d is bool else 1


def can_cast(from_: dtype, to: dtype) -> builtins.bool:
    """Whether PyTorch's in-place operations may cast: never to a lower kind."""
    for position, d in (("from_", from_), ("to", to)):
        if not isinstance(d, dtype):
            raise TypeError(
                f"can_cast(): argument '{position}' must be torch.dtype, not {type(d).__name__}"
            )
    return _kind(from_) <= _kind(to)
