"""Special functions: error, gamma, Bessel and their kin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special as sps

from refgrad.libraries import on_host, theirs
from refgrad.ops.composites import alias, composite
from refgrad.ops.kernels import kept
from refgrad.ops.op import INPLACE, UFUNCS, op
from refgrad.ops.pointwise import add, mul, sub
from refgrad.ops.ufuncs import binary, unary

__all__ = [
    "digamma", "erf", "erfc", "erfinv", "i0", "igamma", "igammac", "lgamma", "mvlgamma", "polygamma",
    "xlogy",
]  # fmt: skip

# SciPy's functions that no device library runs by itself
_hurwitz = theirs("special", "zeta", sps.zeta)
_bessel_iv, _bessel_ive = on_host(sps.iv, "iv"), on_host(sps.ive, "ive")
_airy = on_host(sps.airy, "airy")

SQRT_PI = 1.7724538509055159
SQRT_2PI = 2.5066282746310002
SQRT_2 = 1.4142135623730951


def _special(name: str, ufunc: Any, vjp: Any = None, **options: Any) -> Any:
    """An op of a ufunc of SciPy, which has no float16 loop and answers in a wider dtype."""

    def forward(x: Any) -> Any:
        return kept(ufunc(x), x)

    made = unary(name, forward, vjp, floats=True, **options)
    UFUNCS[ufunc] = made
    return made


def _of_two(name: str, ufunc: Any, input: Any, other: Any, **options: Any) -> Any:
    """The same of two operands, of one dtype or numbers."""

    def forward(x: Any, y: Any) -> Any:
        return kept(ufunc(x, y), x if hasattr(x, "dtype") else y)

    made = binary(name, forward, input, other, floats=True, **options)
    UFUNCS[ufunc] = made
    return made


# --- error functions -----------------------------------------------------------------------------

erf = _special("erf", sps.erf, lambda g, input: g * (2 / SQRT_PI * np.exp(-input * input)))
erfc = _special("erfc", sps.erfc, lambda g, input: g * (-2 / SQRT_PI * np.exp(-input * input)))


def _by_erfinv(x: Any) -> Any:
    y = kept(sps.erfinv(x), x)
    return 0.5 * SQRT_PI * np.exp(y * y)


erfinv = _special("erfinv", sps.erfinv, lambda g, input: g * _by_erfinv(input))
ndtr = _special("ndtr", sps.ndtr, lambda g, input: g * (np.exp(-0.5 * input * input) / SQRT_2PI),
                method=False, inplace=False)  # fmt: skip
ndtri = _special("ndtri", sps.ndtri, lambda g, out: g * (SQRT_2PI * np.exp(0.5 * out * out)),
                 method=False, inplace=False)  # fmt: skip
def _density_over_ndtr(x: Any) -> Any:
    """phi / Phi; below 0 by erfcx, where exp of a difference of large numbers loses all digits."""
    low, high = np.where(x > 0, 0.0, x), np.where(x > 0, x, 0.0)
    below = 2 / SQRT_2PI / sps.erfcx(low * (-1 / SQRT_2))
    return np.where(x > 0, np.exp(-0.5 * high * high) / (SQRT_2PI * sps.ndtr(high)), below)


log_ndtr = _special("log_ndtr", sps.log_ndtr, lambda g, input: g * _density_over_ndtr(input),
                    method=False, inplace=False)  # fmt: skip


# erfcx' = -2 E_1 and E_n' = -2 (n + 1) E_{n+1}, where E_n(x) = exp(x^2) i^n erfc(x) is erfcx's n-fold
# repeated integral; 2x erfcx - 2/sqrt(pi), the same number, cancels for large x


def _repeated(x: Any, n: int) -> Any:
    """E_n(x): upwards in n for small x, by the continued fraction where that would cancel."""
    far = x > 1.0
    near = np.where(far, 0.0, x)
    below, here = 2 / SQRT_PI + np.zeros_like(near), sps.erfcx(near)
    for k in range(1, n + 1):  # 2k E_k = E_{k-2} - 2x E_{k-1}
        below, here = here, (below - 2 * near * here) / (2 * k)
    z = np.where(far, x, 1.0)
    ratio, product = 0.0 * z, 1.0
    for k in range(400 + n, 0, -1):  # E_k / E_{k-1} = 1 / (2x + 2(k+1) E_{k+1} / E_k)
        ratio = 1 / (2 * z + 2 * (k + 1) * ratio)
        if k <= n:
            product = product * ratio
    return np.where(far, sps.erfcx(z) * product, here)


@op(method=False)
def _erfc_integral(input, n):
    """E_n(input) of the note above."""
    return _repeated(input, n)


_erfc_integral.vjp(input=lambda g, input, n: g * (-2 * (n + 1) * _erfc_integral(input, n + 1)))
erfcx = _special("erfcx", sps.erfcx, lambda g, input: g * (-2 * _erfc_integral(input, 1)),
                 method=False, inplace=False)  # fmt: skip

# --- gamma functions -----------------------------------------------------------------------------

lgamma = _special("lgamma", sps.gammaln, lambda g, input: g * kept(sps.psi(input), input))
digamma = _special("digamma", sps.psi, lambda g, input: g * polygamma(1, input))
gammaln, psi = alias("gammaln", lgamma), alias("psi", digamma)


@op(promote=("input",), floats=True, method=False, name="polygamma")
def _polygamma(n: Any, input: Any) -> Any:
    """The n-th derivative of digamma.

    Raises:
        RuntimeError: n is negative.
    """
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    if n == 0:
        return sps.psi(input)
    if n == 1:  # psi_1(x) = (pi / sin(pi x))^2 - psi_1(1 - x)
        low = input < 0.5
        upper = _hurwitz(2.0, np.where(low, 1 - input, input))
        reflected = (np.pi / np.sin(np.pi * np.where(low, input, 0.5))) ** 2 - upper
        return np.where(low, reflected, upper).astype(input.dtype)
    sign = 1.0 if n % 2 else -1.0
    return (sign * math.gamma(n + 1.0) * _hurwitz(n + 1.0, input)).astype(input.dtype)


_polygamma.vjp(input=lambda g, n, input: g * _polygamma(n + 1, input))


def polygamma(n: Any, input: Any) -> Any:
    """The n-th derivative of digamma."""
    return _polygamma(n, input)


@composite(name="polygamma")
def _polygamma_method(input: Any, n: Any) -> Any:
    return _polygamma(n, input)


INPLACE["polygamma"] = _polygamma_method


@composite
def mvlgamma(input: Any, p: int) -> Any:
    """The log of the multivariate gamma function of dimension `p`.

    Raises:
        RuntimeError: an element is not above (p - 1) / 2.
    """
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    total = mul(lgamma(input), 1.0)
    for i in range(1, p):
        total = add(total, lgamma(sub(input, i / 2)))
    return add(total, p * (p - 1) / 4 * math.log(math.pi))


INPLACE["mvlgamma"] = mvlgamma
multigammaln = mvlgamma


def _density(input: Any, other: Any) -> Any:
    """d gammainc(a, x) / dx = x^(a-1) e^-x / Gamma(a)."""
    return np.exp((input - 1) * np.log(other) - other - sps.gammaln(input))


_pair = {"promote": ("input", "other"), "floats": True, "inplace": True}
igamma = op(lambda input, other: sps.gammainc(input, other), name="igamma", **_pair)
igammac = op(lambda input, other: sps.gammaincc(input, other), name="igammac", **_pair)
igamma.vjp(other=lambda g, input, other: g * _density(input, other))
igammac.vjp(other=lambda g, input, other: -g * _density(input, other))
gammainc, gammaincc = igamma, igammac


@op(promote=("input", "other"), floats=True, method=False)
def zeta(input, other):
    """The Hurwitz zeta function: the sum of (k + other)^-input."""
    return _hurwitz(input, other) + 0.0 * input


zeta.vjp(other=lambda g, input, other: -g * input * zeta(input + 1, other))

# --- x log y -------------------------------------------------------------------------------------

xlogy = _of_two(
    "xlogy", sps.xlogy,
    lambda g, input, other: np.where((input == 0) & (other <= 0), 0.0, kept(sps.xlogy(g, other), g)),
    lambda g, input, other: g * (input / other),
)  # fmt: skip
xlog1py = _of_two(
    "xlog1py", sps.xlog1py,
    lambda g, input, other: np.where((input == 0) & (other <= -1), 0.0, sps.xlog1py(g, other)),
    lambda g, input, other: g * (input / (other + 1)),
    method=False, inplace=False,
)  # fmt: skip
entr = _special(
    "entr", sps.entr, lambda g, input: -g * (1 + np.log(input)), method=False, inplace=False
)

# --- Bessel functions ----------------------------------------------------------------------------
# I_n' = (I_{n-1} + I_{n+1}) / 2; so no 1/x, which would cancel at 0


@op(method=False)
def _iv(input, n):
    """The modified Bessel function I_n, n an integer."""
    return _bessel_iv(n, input).astype(input.dtype)


@op(method=False)
def _ive(input, n):
    """exp(-|x|) I_n(x)."""
    far = np.abs(input) > 1e8  # SciPy gives up far out; there 1 - n^2 / 2x is exact
    out = _bessel_ive(n, np.where(far, 1.0, input))
    tail = sps.i0e(input) * (1 - n * n / (2 * np.where(far, np.abs(input), 1.0)))
    return np.where(far, tail * np.sign(input) ** (n % 2), out).astype(input.dtype)


def _slope(g: Any, input: Any, n: int) -> Any:
    return g * (0.5 * (_iv(input, n - 1) + _iv(input, n + 1)))


def _scaled_slope(g: Any, input: Any, n: int) -> Any:
    near = 0.5 * (_ive(input, n - 1) + _ive(input, n + 1))
    return g * (near - np.sign(input) * _ive(input, n))


_iv.vjp(input=_slope)
_ive.vjp(input=_scaled_slope)
i0 = _special("i0", sps.i0, lambda g, input: g * kept(sps.i1(input), input))
i1 = _special("i1", sps.i1, lambda g, input: _slope(g, input, 1), method=False, inplace=False)
i0e = _special(
    "i0e", sps.i0e, lambda g, input: _scaled_slope(g, input, 0), method=False, inplace=False
)
i1e = _special(
    "i1e", sps.i1e, lambda g, input: _scaled_slope(g, input, 1), method=False, inplace=False
)

# without a derivative in PyTorch, so without one here


def _plain(name: str, ufunc: Any) -> Any:
    return _special(name, ufunc, method=False, inplace=False)


bessel_j0, bessel_j1 = _plain("bessel_j0", sps.j0), _plain("bessel_j1", sps.j1)
bessel_y0, bessel_y1 = _plain("bessel_y0", sps.y0), _plain("bessel_y1", sps.y1)
modified_bessel_i0 = _plain("modified_bessel_i0", lambda x: sps.i0(x))
modified_bessel_i1 = _plain("modified_bessel_i1", lambda x: sps.i1(x))
modified_bessel_k0, modified_bessel_k1 = (
    _plain("modified_bessel_k0", sps.k0),
    _plain("modified_bessel_k1", sps.k1),
)
scaled_modified_bessel_k0 = _plain("scaled_modified_bessel_k0", sps.k0e)
scaled_modified_bessel_k1 = _plain("scaled_modified_bessel_k1", sps.k1e)
spherical_bessel_j0 = _plain("spherical_bessel_j0", lambda x: np.sinc(x / np.pi))
airy_ai = _plain("airy_ai", lambda x: _airy(x)[0])
