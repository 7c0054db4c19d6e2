"""Exponentials, logarithms, circular and hyperbolic functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special as sps

from refgrad.ops.composites import alias, composite
from refgrad.ops.extremes import clamp
from refgrad.ops.kernels import cosine, expit, sine
from refgrad.ops.op import INPLACE, UFUNCS, op
from refgrad.ops.pointwise import mul
from refgrad.ops.ufuncs import binary, pulled, unary

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin",
    "asinh", "atan", "atan2", "atanh", "cos", "cosh", "exp", "exp2", "expm1", "hypot", "log", "log10",
    "log1p", "log2", "logaddexp", "logaddexp2", "logit", "sigmoid", "sin", "sinc", "sinh", "tan", "tanh",
]  # fmt: skip

LN2 = 0.6931471805599453
PI = 3.141592653589793
LN10 = 2.302585092994046

exp = unary("exp", np.exp, lambda g, out: g * out, floats=True)
exp2 = unary("exp2", np.exp2, lambda g, out: g * (out * LN2), floats=True)
expm1 = unary("expm1", np.expm1, lambda g, input: g * np.exp(input), floats=True)  # out + 1 cancels
log = unary("log", np.log, lambda g, input: g / input, floats=True)
log2 = unary("log2", np.log2, lambda g, input: g / (input * LN2), floats=True)
log10 = unary("log10", np.log10, lambda g, input: g / (input * LN10), floats=True)
def _log1p(z: Any) -> Any:
    """NumPy's of complex numbers is log(1 + z), which loses a small z. 1 + z would lose -0j too."""
    if z.dtype.kind != "c":
        return np.log1p(z)
    x, y = z.real, z.imag
    near = 0.5 * np.log1p(x * (2.0 + x) + y * y) + 1j * np.arctan2(y, 1.0 + x)
    return np.where(np.abs(z) < 0.5, near, np.log(z - -1.0)).astype(z.dtype, copy=False)


log1p = unary("log1p", _log1p, lambda g, input: g / (1 + input), floats=True)
UFUNCS[np.log1p] = log1p


# 1 - x^2, which must not cancel near 1
_gap = unary(
    "_gap", lambda x: (1 - x) * (1 + x), lambda g, input: -2 * g * input,
    floats=True, method=False, inplace=False,
)  # fmt: skip


def _from_tanh(g: Any, x: Any) -> Any:
    """g (1 - tanh(x)^2) = g / cosh(x)^2, which does not cancel in the tails."""
    if x.dtype.kind == "c":
        t = np.tanh(x)
        return g * (1 - t * t)
    c = np.cosh(x)  # 8 floats: 0.7 us in place of 1.4 by exponentials; 1e6: 0.44 ms for 0.67
    c *= c
    return g / c if type(c) is not np.ndarray or c.size < 4096 else np.divide(g, c, out=c)


_by_sin = pulled("Sin", lambda g, x: g * cosine(x), lambda h, g, x: _by_cos(h * g, x))
_by_cos = pulled("Cos", lambda g, x: -g * sine(x), lambda h, g, x: -_by_sin(h * g, x))
_by_tanh = pulled("Tanh", _from_tanh, lambda h, g, x: -2 * (_by_tanh(h * g, x) * np.tanh(x)))

sin = unary("sin", np.sin, _by_sin, floats=True)
cos = unary("cos", np.cos, _by_cos, floats=True)
tan = unary("tan", np.tan, lambda g, out: g * (1 + out * out), floats=True)
asin = unary(
    "asin", np.arcsin, lambda g, input: g / np.sqrt(_gap(input)), floats=True
)
acos = unary(
    "acos", np.arccos, lambda g, input: -g / np.sqrt(_gap(input)), floats=True
)
atan = unary("atan", np.arctan, lambda g, input: g / (1 + input * input), floats=True)

sinh = unary("sinh", np.sinh, lambda g, input: g * np.cosh(input), floats=True)
cosh = unary("cosh", np.cosh, lambda g, input: g * np.sinh(input), floats=True)
tanh = unary("tanh", np.tanh, _by_tanh, floats=True)
asinh = unary(
    "asinh", np.arcsinh, floats=True,
    vjp=lambda g, input: g / (
        np.sqrt(1 + input * input) if np.iscomplexobj(input) else np.hypot(input, 1.0)),
)  # fmt: skip
acosh = unary(
    "acosh", np.arccosh, floats=True,                      # -(-1) keeps -0j, below the cut, where +1 does not
    vjp=lambda g, input: g / (np.sqrt(input - 1.0) * np.sqrt(input - -1.0)),
)  # fmt: skip
atanh = unary("atanh", np.arctanh, lambda g, input: g / _gap(input), floats=True)

arcsin, arccos, arctan = alias("arcsin", asin), alias("arccos", acos), alias("arctan", atan)
arcsinh, arccosh, arctanh = (
    alias("arcsinh", asinh),
    alias("arccosh", acosh),
    alias("arctanh", atanh),
)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x)) if x.dtype.kind == "c" else expit(x)


def _from_sigmoid(g: Any, x: Any) -> Any:
    """g s(x) s(-x) = g / (2 + 2 cosh(x)): 1 - s(x) cancels in the upper tail."""
    if x.dtype.kind == "c":
        s = _sigmoid(x)
        return g * (s * (1 - s))
    c = np.cosh(x)
    c += 1
    return g * (0.5 / c)


_by_sigmoid = pulled(
    "Sigmoid", _from_sigmoid, lambda h, g, x: -(_by_sigmoid(h * g, x) * np.tanh(0.5 * x))
)
sigmoid = unary("sigmoid", _sigmoid, _by_sigmoid, floats=True)
UFUNCS[sps.expit] = sigmoid
_logit = unary(
    "logit", lambda x: sps.logit(x).astype(x.dtype), floats=True, method=False, inplace=False,
    vjp=lambda g, input: g / np.where((input < 0) | (input > 1), np.nan, input * (1 - input)),
)  # fmt: skip


def _over_square(z: Any, x: Any, y: Any) -> Any:
    """z / h^2, divided twice by h = hypot(x, y), as h^2 may overflow or vanish; zero where h is."""
    h = np.hypot(x, y)
    h = np.where(h == 0, 1.0, h)
    return z / h / h


atan2 = binary(
    "atan2", np.arctan2,
    lambda g, input, other: g * _over_square(other, input, other),
    lambda g, input, other: -g * _over_square(input, input, other),
    floats=True,
)  # fmt: skip
arctan2 = alias("arctan2", atan2)
hypot = binary(
    "hypot",
    np.hypot,
    lambda g, input, out: g * (input / out),
    lambda g, other, out: g * (other / out),
)

# e^x / (e^x + e^y) is a sigmoid of x - y: e^x may overflow, and x - out be inf - inf


def logistic(d: Any) -> Any:
    """1 / (1 + e^-d), without e^-d where it overflows: a complex infinity makes nan."""
    if not np.iscomplexobj(d):
        return expit(d)
    upper = np.real(d) >= 0
    e = np.exp(np.where(upper, -d, d))
    return np.where(upper, 1.0, e) / (1 + e)


def _share(g: Any, x: Any, y: Any, base: float = 1.0) -> Any:
    d = np.where((x == y) & np.isinf(x), 0.0, x - y)
    return g * logistic(d if base == 1.0 else d * base)


def _logaddexp(x: Any, y: Any) -> Any:
    if np.result_type(x, y).kind != "c":
        return np.logaddexp(x, y)
    larger = np.real(x) >= np.real(y)
    top, low = np.where(larger, x, y), np.where(larger, y, x)
    return np.where(x == y, x + LN2, top + np.log1p(np.exp(low - top)))


logaddexp = binary(
    "logaddexp", _logaddexp,
    lambda g, input, other: _share(g, input, other), lambda g, input, other: _share(g, other, input),
)  # fmt: skip
logaddexp2 = binary(
    "logaddexp2", np.logaddexp2,
    lambda g, input, other: _share(g, input, other, LN2),
    lambda g, input, other: _share(g, other, input, LN2),
)  # fmt: skip
UFUNCS[np.logaddexp] = logaddexp

# sinc(x) = R_0(pi x), where R_n(z) = j_n(z) / z^n is smooth, and R_n' = -z R_{n+1}


def _spherical(z: Any, n: int) -> Any:
    small = np.abs(z) < 1.0 + n
    near = np.where(small, z, 0.0)
    square, series, odd = near * near, 0.0, 1.0
    for k in range(1, n + 1):
        odd *= 2 * k + 1
    term = near * 0 + 1 / odd
    for k in range(1, 14 + n):  # sum of (-z^2/2)^k / (k! (2n + 2k + 1)!!)
        series = series + term
        term = term * (-0.5 * square / (k * (2 * n + 2 * k + 1)))
    far = np.where(small, 1.0, z)
    below, here = np.sin(far) / far, (np.sin(far) / far - np.cos(far)) / far
    if n == 0:
        here = below
    for k in range(1, n):  # j_{k+1} = (2k + 1) j_k / z - j_{k-1}
        below, here = here, (2 * k + 1) * here / far - below
    return np.where(small, series, here / far**n).astype(z.dtype)


@op(method=False)
def spherical(input: Any, n: Any) -> Any:
    """R_n(input) of the note above."""
    return _spherical(input, n)


spherical.vjp(input=lambda g, input, n: -g * (input * spherical(input, n + 1)))


@composite
def sinc(input: Any) -> Any:
    """sin(pi x) / (pi x), and 1 at 0."""
    return spherical(mul(input, PI), 0)


@composite
def logit(input: Any, eps: float | None = None) -> Any:
    """log(x / (1 - x)), with x clamped to [eps, 1 - eps]."""
    return _logit(input if eps is None else clamp(input, eps, 1 - eps))


INPLACE.update(sinc=sinc, logit=logit)
