"""Comparisons, predicates, logic and bits: ops without a derivative."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.composites import alias, composite
from refgrad.ops.op import UFUNCS, op
from refgrad.ops.ufuncs import binary, unary
from refgrad.tensor import Tensor

__all__ = [
    "allclose", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "eq", "equal", "ge", "greater", "greater_equal", "gt", "isclose", "isfinite",
    "isinf", "isnan", "isneginf", "isposinf", "isreal", "le", "less", "less_equal", "logical_and",
    "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal", "signbit",
]  # fmt: skip

eq = binary("eq", np.equal)
ne = binary("ne", np.not_equal)
lt = binary("lt", np.less)
le = binary("le", np.less_equal)
gt = binary("gt", np.greater)
ge = binary("ge", np.greater_equal)
not_equal, less, less_equal = alias("not_equal", ne), alias("less", lt), alias("less_equal", le)
greater, greater_equal = alias("greater", gt), alias("greater_equal", ge)

logical_and = binary("logical_and", np.logical_and)
logical_or = binary("logical_or", np.logical_or)
logical_xor = binary("logical_xor", np.logical_xor)
logical_not = unary("logical_not", np.logical_not)

bitwise_and = binary("bitwise_and", np.bitwise_and)
bitwise_or = binary("bitwise_or", np.bitwise_or)
bitwise_xor = binary("bitwise_xor", np.bitwise_xor)
bitwise_left_shift = binary("bitwise_left_shift", np.left_shift)
bitwise_right_shift = binary("bitwise_right_shift", np.right_shift)
bitwise_not = unary("bitwise_not", np.invert)

isnan = unary("isnan", np.isnan, inplace=False)
isinf = unary("isinf", np.isinf, inplace=False)
isfinite = unary("isfinite", np.isfinite, inplace=False)
isposinf = unary("isposinf", lambda x: x == np.inf, inplace=False)
isneginf = unary("isneginf", lambda x: x == -np.inf, inplace=False)
isreal = unary("isreal", lambda x: np.imag(x) == 0, inplace=False)
signbit = unary("signbit", lambda x: np.signbit(x) if x.dtype.kind == "f" else x < 0, inplace=False)
UFUNCS[np.signbit] = signbit


@op
def isclose(
    input: Any, other: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False
) -> Any:
    """Whether |input - other| <= atol + rtol |other|, elementwise; infinities only if equal.

    Raises:
        RuntimeError: the dtypes differ, or a tolerance is negative.
    """
    if input.dtype != other.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}")
    if rtol < 0 or atol < 0:
        raise RuntimeError(
            f"rtol and atol must be greater than or equal to zero, but got {rtol}, {atol}"
        )
    close = input == other
    if input.dtype.kind == "b":
        return close
    if equal_nan and input.dtype.kind in "fc":
        close = close | (np.isnan(input) & np.isnan(other))
    off = np.abs(input - other)
    return close | (np.isfinite(off) & (off <= atol + np.abs(rtol * other)))


@composite
def allclose(
    input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close."""
    return bool(isclose(input, other, rtol, atol, equal_nan)._array.all())


@composite
def equal(input: Any, other: Any) -> bool:
    """Whether both have the same shape and elements.

    Raises:
        TypeError: one of them is not a Tensor.
    """
    for x in (input, other):
        if not isinstance(x, Tensor):
            raise TypeError(f"equal(): argument must be Tensor, not {type(x).__name__}")
    return input.shape == other.shape and bool(np.all(input._array == other._array))
