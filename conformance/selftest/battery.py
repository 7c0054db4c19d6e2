"""Functions with known derivatives: one formula each, read by NumPy, torch and mpmath.

mpmath differentiates the formula at 320 digits, at the very number that the others are given, so a
truth is as good for the second derivative as for the first, in float32 and at complex numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special as special
from mpmath import mp

DIGITS = 320  # 1 - tanh in double is as little as 1e-308
SMOOTH = 9  # so often, and oftener, a function can be differentiated at 0

Formula = Callable[[Any, Any], Any]  # (namespace, x) -> f(x)


@dataclass(frozen=True)
class Known:
    """A function by its formula, its class, and the largest |x| at which it says anything.

    At 0 it has `smooth` derivatives. `analytic` says that the formula holds for complex numbers in
    NumPy too, `ruled` that torch and refgrad have it, with a rule, `narrow` that float32 can hold
    what it is about.
    """

    name: str
    kind: str
    formula: Formula
    largest: float
    smooth: int = SMOOTH
    analytic: bool = True
    ruled: bool = True
    narrow: bool = True

    def __call__(self, x: Any) -> Any:
        """f(x) by NumPy, in the dtype of x."""
        return self.formula(NUMPY, x)

    def truth(self, x: complex, order: int = 1) -> complex:
        """The derivative of that order; nan where there is none, or none that double can hold."""
        return _truth(self, x, order)

    def points(self, seed: int, count: int) -> list[float]:
        """So many numbers at which f and f' are finite: of five scales in turn, and a few of note.

        Fewer where the function says nothing at most of them.
        """
        rng = np.random.default_rng([seed, *self.name.encode()])
        drawn: list[float] = []
        for n in range(4 * count):
            x = NOTED[n // 4 % len(NOTED)] if n % 4 == 3 else _drawn(rng, n)
            if n % 4 == 3 and n // 4 >= len(NOTED):
                x = _drawn(rng, n)
            with np.errstate(all="ignore"):
                if abs(x) <= self.largest and np.isfinite(self(np.float64(x))):
                    drawn.append(x)
            if len(drawn) == count:
                break
        return [x for x in drawn if np.isfinite(self.truth(x))]


@cache
def _truth(known: Known, x: complex, order: int) -> complex:
    nothing = float("nan")
    if abs(x) > known.largest or (x == 0 and order > known.smooth):
        return nothing
    with mp.workdps(DIGITS):
        at = mp.mpc(x) if np.iscomplexobj(x) else mp.mpf(x)
        try:
            found = mp.diff(lambda t: known.formula(MPMATH, t), at, order)
        except (ValueError, ZeroDivisionError, OverflowError):  # outside the domain, or a pole
            return nothing
        made = complex(found)
        return made if np.iscomplexobj(x) or made.imag == 0 else nothing


NOTED = (0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 1e-8, 1e-12)
_SCALES = (1.0, 1.0, 10.0, 1.0, 1e-2, 100.0, 1.0, 1e-5)


def _drawn(rng: np.random.Generator, n: int) -> float:
    return float(rng.standard_normal() * _SCALES[n % len(_SCALES)])


NUMPY = SimpleNamespace(
    sin=np.sin, cos=np.cos, tan=np.tan, exp=np.exp, log=np.log, tanh=np.tanh, cosh=np.cosh,
    sqrt=np.sqrt, atan=np.arctan, asinh=np.arcsinh, atanh=np.arctanh, log1p=np.log1p,
    abs=np.abs, sign=np.sign, logaddexp=np.logaddexp, expit=special.expit, erf=special.erf,
    j0=special.j0, ndtr=special.ndtr, gammaln=special.gammaln, psi=special.psi,
    logit=special.logit,
)  # fmt: skip

MPMATH = SimpleNamespace(
    sin=mp.sin, cos=mp.cos, tan=mp.tan, exp=mp.exp, log=mp.log, tanh=mp.tanh, cosh=mp.cosh,
    sqrt=mp.sqrt, atan=mp.atan, asinh=mp.asinh, atanh=mp.atanh, log1p=lambda x: mp.log(1 + x),
    abs=abs, sign=mp.sign, logaddexp=lambda a, b: mp.log(mp.exp(a) + mp.exp(b)),
    expit=lambda x: 1 / (1 + mp.exp(-x)), erf=mp.erf, j0=lambda x: mp.besselj(0, x),
    ndtr=lambda x: mp.erfc(-x / mp.sqrt(2)) / 2, gammaln=mp.loggamma, psi=lambda x: mp.psi(0, x),
    logit=lambda x: mp.log(x / (1 - x)),
)  # fmt: skip


@cache
def in_torch() -> SimpleNamespace:
    """The same names of torch."""
    import torch

    names = {n: getattr(torch, n) for n in vars(NUMPY) if hasattr(torch, n)}
    names |= {n: getattr(torch.special, n) for n in ("expit", "erf", "ndtr", "gammaln", "psi")}
    return SimpleNamespace(**names)


def _cube_root(m: Any, x: Any) -> Any:
    return m.sign(x) * m.abs(x) ** (1 / 3)


def _mish(m: Any, x: Any) -> Any:
    return x * m.tanh(m.log1p(m.exp(x)))


# The functions of each class: name, formula, largest |x|, and what else is not as usual.
_REAL = {"analytic": False}
_WIDE = {"narrow": False}
_CLASSES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "smooth": (
        ("sin", lambda m, x: m.sin(x), 1e3),
        ("exp", lambda m, x: m.exp(x), 100),
        ("tanh", lambda m, x: m.tanh(x), 300),
        ("square", lambda m, x: x * x, 1e3),
        ("cube", lambda m, x: x * x * x, 1e3),
        ("line", lambda m, x: 3 * x + 1, 1e3),
        ("constant", lambda m, x: 0 * x + 2, 1e3),
        ("polynomial", lambda m, x: x**9 - 3 * x**4, 1e3),
        ("logistic", lambda m, x: m.expit(x), 700, _REAL),
        ("erf", lambda m, x: m.erf(x), 20),
        ("gauss", lambda m, x: m.exp(-x * x), 20),
        ("root", lambda m, x: m.sqrt(1 + x * x), 1e3),
        ("atan", lambda m, x: m.atan(x), 1e3),
        ("asinh", lambda m, x: m.asinh(x), 1e3),
        ("log cosh", lambda m, x: m.logaddexp(x, -x), 300, _REAL),
        # torch's is off by 4e-7 at 5, and has no rule
        ("bessel", lambda m, x: m.j0(x), 100, {"ruled": False, **_REAL}),
        ("x exp", lambda m, x: x * m.exp(-x), 100),
        ("bump", lambda m, x: m.exp(-1 / (x * x)), 100, {"smooth": 0}),
        ("softplus", lambda m, x: m.logaddexp(0 * x, x), 700, _REAL),
        ("normal", lambda m, x: m.ndtr(x), 20, _REAL),  # SciPy loses digits at complex numbers
        ("mish", _mish, 30),
        ("silu", lambda m, x: x * m.expit(x), 300, _REAL),
    ),
    "stiff": (
        ("tanh 1000x", lambda m, x: m.tanh(1000 * x), 0.3),
        ("softplus 50x", lambda m, x: m.logaddexp(0 * x, 50 * x) / 50, 10, _REAL),
        ("logistic 40x", lambda m, x: m.expit(40 * x), 10, _REAL),
        ("cosh 20x", lambda m, x: m.cosh(20 * x), 20),
        ("power 50", lambda m, x: x**50, 100),
        ("near a kink", lambda m, x: m.sqrt(x * x + 1e-12), 100),
        ("gamma", lambda m, x: m.gammaln(m.abs(x) + 0.1), 100, {"smooth": 0, **_REAL}),
    ),
    "oscillating": (
        ("sin 100x", lambda m, x: m.sin(100 * x), 100),
        ("sin 10000x", lambda m, x: m.sin(1e4 * x), 10),
        ("sin 32 pi x", lambda m, x: x + m.sin(32 * np.pi * x), 10),
        ("ripple", lambda m, x: m.sin(x) + 1e-3 * m.sin(300 * x), 100),
        ("fine ripple", lambda m, x: 1e-8 * m.sin(1e5 * x) + x, 10, _WIDE),
        ("beat", lambda m, x: m.sin(50 * x) * m.sin(51 * x), 10),
        ("chirp", lambda m, x: m.sin(m.exp(x)), 8),
        ("sin x^2", lambda m, x: m.sin(x * x), 30),
        ("sin sin", lambda m, x: m.sin(10 * m.sin(10 * x)), 30),
    ),
    "near-singular": (
        ("log", lambda m, x: m.log(m.abs(x)), 1e3, {"smooth": 0, **_REAL}),
        ("reciprocal", lambda m, x: 1 / x, 1e3, {"smooth": 0}),
        ("log and pole", lambda m, x: m.log(m.abs(x)) + 1 / x, 1e3, {"smooth": 0, **_REAL}),
        ("runge", lambda m, x: 1 / (1 + 1e6 * x * x), 100),
        ("log near 0", lambda m, x: m.log(1e-3 + x * x), 100),
        ("tan", lambda m, x: m.tan(x), 100),
        ("digamma", lambda m, x: m.psi(x), 30, {"smooth": 0}),
        ("power 3/2", lambda m, x: m.sign(x) * m.abs(x) ** 1.5, 1e3, {"smooth": 0, **_REAL}),
        ("cube root", _cube_root, 1e3, {"smooth": 0, **_REAL}),
        ("atanh", lambda m, x: m.atanh(x), 0.999),
        ("logit", lambda m, x: m.logit(x), 0.999, {"smooth": 0, **_REAL}),
        ("square root", lambda m, x: m.sqrt(m.abs(x)), 1e3, {"smooth": 0, **_REAL}),
    ),
    "cancelling": (
        ("1e6 + sin", lambda m, x: 1e6 + m.sin(x), 1e3),
        ("1e10 + sin", lambda m, x: 1e10 + m.sin(x), 1e3),
        ("1 - cos", lambda m, x: 1 - m.cos(x), 1e3),
        ("(1+x)^5 - 1 - 5x", lambda m, x: (1 + x) ** 5 - 1 - 5 * x, 100),
        ("sin^2 + cos^2", lambda m, x: m.sin(x) ** 2 + m.cos(x) ** 2, 1e3),
        ("exp - 1 - x", lambda m, x: m.exp(x) - 1 - x, 50),
        ("x - sin x", lambda m, x: x - m.sin(x), 100),
        ("1 - tanh", lambda m, x: 1 - m.tanh(10 + x), 6, _WIDE),
        ("x (1 - tanh)", lambda m, x: (10 + x) * (1 - m.tanh(10 + x)), 6, _WIDE),
        ("x log(1 + exp)", lambda m, x: (x - 20) * m.log(1 + m.exp(x - 20)), 9, _WIDE),
    ),
    "scales": (
        ("tiny", lambda m, x: 1e-30 * m.sin(x), 1e3),
        ("huge", lambda m, x: 1e30 * m.sin(x), 1e3),
        ("huge and steep", lambda m, x: 1e200 * m.tanh(30 * x), 10),
        ("log1p small", lambda m, x: m.log1p(1e-8 * x), 1e3),
    ),
}

BATTERY: tuple[Known, ...] = tuple(
    Known(name, kind, formula, largest, **(more[0] if more else {}))
    for kind, rows in _CLASSES.items()
    for name, formula, largest, *more in rows
)
