"""Arithmetic, elementwise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad import dtypes
from refgrad.ops.composites import alias, composite
from refgrad.ops.kernels import either
from refgrad.ops.op import INPLACE, METHODS, UFUNCS, op
from refgrad.ops.ufuncs import binary, unary
from refgrad.tensor import Tensor

__all__ = [
    "abs", "absolute", "add", "addcdiv", "addcmul", "copysign", "deg2rad", "div", "divide",
    "float_power", "floor_divide", "fmod", "frexp", "gcd", "heaviside", "lcm", "ldexp", "lerp", "mul",
    "multiply", "neg", "negative", "nextafter", "positive", "pow", "rad2deg", "reciprocal", "remainder",
    "rsqrt", "rsub", "sgn", "sign", "sqrt", "square", "sub", "subtract", "true_divide",
]  # fmt: skip

LN2 = 0.6931471805599453


def flat(g: Any) -> Any:
    """The gradient of a function that is constant almost everywhere."""
    return np.zeros_like(g)


# --- sums, products, quotients -------------------------------------------------------------------


def _over(x: Any, y: Any) -> None:
    if getattr(y, "dtype", None) is not None and y.dtype.kind in "iub" and not np.all(y):
        raise RuntimeError("ZeroDivisionError")


def _floor_divide(x: Any, y: Any) -> Any:
    _over(x, y)
    return np.floor_divide(x, y)


def _trunc_divide(x: Any, y: Any) -> Any:
    _over(x, y)
    if getattr(x, "dtype", getattr(y, "dtype", None)).kind in "iub":
        return np.floor_divide(x - np.fmod(x, y), y)
    return np.trunc(np.true_divide(x, y))


def _remainder(x: Any, y: Any) -> Any:
    _over(x, y)
    return np.remainder(x, y)


def _fmod(x: Any, y: Any) -> Any:
    _over(x, y)
    return np.fmod(x, y)


_add = binary("add", np.add, lambda g: g, lambda g: g)
_sub = binary("sub", np.subtract, lambda g: g, lambda g: -g)
mul = binary("mul", np.multiply, lambda g, other: g * other, lambda g, input: g * input)
_div = binary(
    "div", np.true_divide,
    lambda g, other: g / other,
    lambda g, input, other: -g * (input / other) / other,              # d(x/y) = -(x/y) dy / y
    floats=True,
)  # fmt: skip
_floor_div = binary("div", _floor_divide, flat, flat, method=False, inplace=False)
_trunc_div = binary("div", _trunc_divide, flat, flat, method=False, inplace=False)
floor_divide = binary("floor_divide", _floor_divide)
# the rounded quotient x/y may lie on the other side of an integer than the true one
remainder = binary(                                                    # x - y floor(x/y)
    "remainder", _remainder, lambda g: g, lambda g, input, other: -g * np.floor_divide(input, other)
)  # fmt: skip
fmod = binary(                                                         # x - y trunc(x/y)
    "fmod", _fmod, lambda g: g, lambda g, input, other: -g * np.rint((input - np.fmod(input, other)) / other)
)  # fmt: skip
UFUNCS.update({np.floor_divide: floor_divide, np.remainder: remainder, np.fmod: fmod})


def _scaled(name: str, other: Any, alpha: Any) -> Any:
    if alpha == 1:
        return other
    if isinstance(alpha, float) and isinstance(other, Tensor) and other._array.dtype.kind in "iub":
        raise RuntimeError(
            "For integral input tensors, argument alpha must not be a floating point number."
        )
    return mul(other, alpha)


def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input + alpha * other."""
    return _add(input, other if alpha == 1 else _scaled("add", other, alpha))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input - alpha * other."""
    return _sub(input, other if alpha == 1 else _scaled("sub", other, alpha))


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """other - alpha * input."""
    return _sub(other, _scaled("rsub", input, alpha))


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """input / other, by `rounding_mode` "trunc" or "floor" rounded (its gradient is then zero).

    Raises:
        RuntimeError: another mode; a division of integers by zero.
    """
    modes = {None: _div, "trunc": _trunc_div, "floor": _floor_div}
    if rounding_mode not in modes:
        raise RuntimeError(
            "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
            f"'{rounding_mode}'"
        )
    return modes[rounding_mode](input, other)


def true_divide(input: Any, other: Any) -> Any:
    """input / other."""
    return _div(input, other)


for _function in (add, sub, div, true_divide):
    METHODS[_function.__name__] = INPLACE[_function.__name__] = _function
subtract, multiply, divide = alias("subtract", sub), alias("multiply", mul), alias("divide", div)

addcmul = op(
    lambda input, tensor1, tensor2, *, value=1: input + value * (tensor1 * tensor2),
    name="addcmul",
    promote=("input", "tensor1", "tensor2"),
    inplace=True,
)
addcmul.vjp(
    input=lambda g: g,
    tensor1=lambda g, tensor2, value: g * (tensor2 * value),
    tensor2=lambda g, tensor1, value: g * (tensor1 * value),
)
addcdiv = op(
    lambda input, tensor1, tensor2, *, value=1: input + value * (tensor1 / tensor2),
    name="addcdiv",
    promote=("input", "tensor1", "tensor2"),
    inplace=True,
)
addcdiv.vjp(
    input=lambda g: g,
    tensor1=lambda g, tensor2, value: g * (value / tensor2),
    tensor2=lambda g, tensor1, tensor2, value: -g * value * (tensor1 / tensor2) / tensor2,
)


@op(promote=("input", "end", "weight"), inplace=True)
def lerp(input, end, weight):
    """input + weight (end - input); from the nearer end, so that both ends are met exactly."""
    near = np.abs(weight) < 0.5
    return either(near, input + weight * (end - input), end - (end - input) * (1 - weight))


lerp.vjp(
    input=lambda g, weight: g * (1 - weight),
    end=lambda g, weight: g * weight,
    weight=lambda g, input, end: g * (end - input),
)

# --- powers --------------------------------------------------------------------------------------

_NUMBERS = (int, float)
_POWERS = {  # np.power of these exponents is up to 16 times slower
    1: lambda x: x * 1, 2: lambda x: x * x, 3: lambda x: x * x * x, -1: lambda x: 1 / x,
    -2: lambda x: 1 / (x * x), 0.5: np.sqrt, -0.5: lambda x: 1 / np.sqrt(x),
}  # fmt: skip


def _power(x: Any, y: Any) -> Any:
    if type(y) in _NUMBERS:
        if y in _POWERS and x.dtype.kind == "f":
            return _POWERS[y](x)
    elif getattr(y, "dtype", None) is not None and y.dtype.kind in "iu" and np.any(y < 0):
        if y.ndim == 0 < x.ndim:  # a Python number
            raise RuntimeError("Integers to negative integer powers are not allowed.")
        odd = np.where(y % 2 == 0, 1, x)  # 1/x as an integer: 0 unless x is 1 or -1
        return np.where(y < 0, np.where(np.abs(x) == 1, odd, 0), np.power(x, np.maximum(y, 0)))
    return np.power(x, y)


def _by_base(g: Any, input: Any, other: Any) -> Any:
    """y x^(y-1); where x = y = 0 zero, and not 0 * inf."""
    if type(other) in _NUMBERS:
        return g * (other * input ** (other - 1)) if other != 0 else np.zeros_like(g)
    return g * (other * input ** np.where((input == 0) & (other == 0), 1.0, other - 1))


def _by_exponent(g: Any, input: Any, other: Any, out: Any) -> Any:
    """x^y log x; where x = 0 and y >= 0 zero, and not 0 * -inf."""
    masked = (input == 0) & (np.real(other) >= 0)
    if type(input) not in _NUMBERS:
        log = np.log(np.where(masked, 1.0, input))
    else:
        log = np.log(input).item() if input != 0 else np.where(masked, 0.0, -np.inf)
    return g * (out * log)


pow = binary("pow", _power, _by_base, _by_exponent)
UFUNCS[np.power] = pow


@composite
def float_power(input: Any, exponent: Any) -> Any:
    """input ** exponent in float64, or complex128."""

    def wide(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.to(dtypes.complex128 if x.is_complex() else dtypes.float64)

    lonely = exponent if isinstance(exponent, Tensor) else input
    if not isinstance(lonely, Tensor):
        raise TypeError("float_power(): one of input and exponent must be a Tensor")
    return pow(wide(input), wide(exponent))


INPLACE["float_power"] = float_power
square = unary("square", np.square, lambda g, input: g * (2 * input))
sqrt = unary("sqrt", np.sqrt, lambda g, out: 0.5 * g / out, floats=True)
rsqrt = unary(
    "rsqrt", lambda x: 1 / np.sqrt(x), lambda g, out: -0.5 * g * out * out * out, floats=True
)  # from left to right: the cube alone may be beyond float16
reciprocal = unary("reciprocal", np.reciprocal, lambda g, out: -g * out * out, floats=True)

# --- signs and parts -----------------------------------------------------------------------------


def _by_sgn(g: Any, input: Any, out: Any) -> Any:
    """Of w = z / |z|: dw = (dz - w Re(conj(w) dz)) / |z|; zero where z = 0 and for reals."""
    if not np.iscomplexobj(input):
        return np.zeros_like(g)
    size = np.abs(input)
    return (g - np.real(g * out) * np.conj(out)) * (size != 0) / np.where(size == 0, 1.0, size)


neg = unary("neg", np.negative, lambda g: -g)


@composite
def positive(input: Any) -> Any:
    """`input` itself.

    Raises:
        RuntimeError: it is boolean.
    """
    if input.dtype is dtypes.bool:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


UFUNCS[np.positive] = positive
abs = unary(
    "abs", np.abs, lambda g, input: g * np.sign(np.conj(input))
)  # d|z| = Re(conj(z/|z|) dz)



def _sign(x: Any) -> Any:
    """As NumPy's, but 0 for nan."""
    return either(x == x, np.sign(x), 0).astype(x.dtype, copy=False)


sign = unary("sign", _sign, flat)
sgn = unary("sgn", lambda x: np.sign(x) if x.dtype.kind == "c" else _sign(x), _by_sgn)
UFUNCS[np.sign] = sgn  # right for complex numbers too
copysign = binary(
    "copysign", np.copysign,
    lambda g, input, out: g * (np.sign(input) * np.sign(out)), flat, floats=True,
)  # fmt: skip
nextafter = binary("nextafter", np.nextafter, lambda g, input, other: g * (input != other), flat)
heaviside = binary("heaviside", lambda x, y: np.where(x == 0, y, (x > 0).astype(x.dtype)))
deg2rad = unary("deg2rad", np.deg2rad, lambda g: g * 0.017453292519943295, floats=True)
rad2deg = unary("rad2deg", np.rad2deg, lambda g: g * 57.29577951308232, floats=True)
gcd = binary("gcd", np.gcd)
lcm = binary("lcm", np.lcm)
absolute, negative = alias("absolute", abs), alias("negative", neg)


class frexp_result(NamedTuple):
    """What frexp returns."""

    mantissa: Any
    exponent: Any


@op(unread=0)
def frexp(input):
    """input = mantissa * 2**exponent, with 0.5 <= |mantissa| < 1.

    Raises:
        RuntimeError: the dtype is not floating.
    """
    if input.dtype.kind != "f":
        raise RuntimeError("torch.frexp() only supports floating-point dtypes")
    return frexp_result(*np.frexp(input))


frexp.vjp(
    input=lambda g, out: _times_power(g, -out[1])
)  # 2^-e may overflow where the result does not


@op(method=False)
def _times_power(input, exponent):
    """input * 2**exponent, for integer exponents."""
    return np.ldexp(input, exponent)


_times_power.vjp(input=lambda g, exponent: _times_power(g, exponent))


@composite
def ldexp(input: Any, other: Any) -> Any:
    """input * 2**other."""
    return mul(input, pow(2.0, other))


INPLACE["ldexp"] = ldexp
