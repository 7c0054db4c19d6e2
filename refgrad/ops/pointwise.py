"""Elementwise ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.op import INPLACE, METHODS, binary, unary

# --- arithmetic ----------------------------------------------------------------------------------

_add = binary("add", np.add, lambda g: g, lambda g: g)
_sub = binary("sub", np.subtract, lambda g: g, lambda g: -g)
mul = binary("mul", np.multiply, lambda g, other: g * other, lambda g, input: g * input)
div = binary(
    "div", np.true_divide,
    lambda g, other: g / other,
    lambda g, other, out: -g * out / other,                            # d(x/y) = -(x/y) dy / y
    floats=True,
)  # fmt: skip
floor_divide = binary("floor_divide", np.floor_divide)
remainder = binary("remainder", np.remainder)
pow = binary("pow", np.power)
neg = unary("neg", np.negative, lambda g: -g)
positive = unary("positive", np.positive, lambda g: g)
abs = unary("abs", np.abs, lambda g, input: g * np.sign(input))
sign = unary("sign", np.sign)
exp = unary("exp", np.exp, lambda g, out: g * out, floats=True)
sin = unary("sin", np.sin, lambda g, input: g * np.cos(input), floats=True)
cos = unary("cos", np.cos, lambda g, input: -g * np.sin(input), floats=True)
tanh = unary("tanh", np.tanh, lambda g, out: g * (1 - out * out), floats=True)


def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input + alpha * other."""
    return _add(input, other if alpha == 1 else mul(other, alpha))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input - alpha * other."""
    return _sub(input, other if alpha == 1 else mul(other, alpha))


METHODS.update(add=add, sub=sub)
INPLACE.update(add=add, sub=sub)

# --- comparison ----------------------------------------------------------------------------------

eq = binary("eq", np.equal)
ne = binary("ne", np.not_equal)
lt = binary("lt", np.less)
le = binary("le", np.less_equal)
gt = binary("gt", np.greater)
ge = binary("ge", np.greater_equal)

# --- bits ----------------------------------------------------------------------------------------

bitwise_and = binary("bitwise_and", np.bitwise_and)
bitwise_or = binary("bitwise_or", np.bitwise_or)
bitwise_xor = binary("bitwise_xor", np.bitwise_xor)
bitwise_left_shift = binary("bitwise_left_shift", np.left_shift)
bitwise_right_shift = binary("bitwise_right_shift", np.right_shift)
bitwise_not = unary("bitwise_not", np.invert)
