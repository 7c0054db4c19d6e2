"""Germs: functions of one real number near a point, by their Taylor coefficients in mpmath.

    x = Germ.at(mpf(2), side=1, order=3)       # 2 + t for small t > 0
    sin(x * x).coefficients                    # sin((2 + t)^2) = c0 + c1 t + c2 t^2 + c3 t^3 + ...

Germs are compared as functions to the right of t = 0, so that max(x, 0) and floor(x) take the
branch of that side also where x is at the kink itself. A function is its value and its slope as a
germ, from which all orders follow; where either is not finite the coefficients are nan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from mpmath import mp, mpf

nan = mpf("nan")
Function = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Germ:
    """c0 + c1 t + c2 t^2 + ... for small t > 0."""

    coefficients: tuple[Any, ...]

    @staticmethod
    def at(x: Any, side: Any, order: int) -> Germ:
        """The germ of x + side t."""
        return Germ((x, mpf(side), *[mpf(0)] * (order - 1))[: order + 1])

    @property
    def order(self) -> int:
        """The number of derivatives that it has."""
        return len(self.coefficients) - 1

    @property
    def value(self) -> Any:
        """Where it starts."""
        return self.coefficients[0]

    @property
    def sign(self) -> int:
        """That of its values right of t = 0; 0 where all coefficients are."""
        for c in self.coefficients:
            if c != 0:
                return 1 if c > 0 else -1 if c < 0 else 0
        return 0

    def apply(self, value: Function, slope: Function) -> Germ:
        """f of this germ, from the value of f at a number and its derivative at a germ."""
        first = value(self.value)
        if mp.isnan(first):
            return Germ((nan,) * len(self.coefficients))
        if not self.order:
            return Germ((first,))
        along = Germ(tuple(n * c for n, c in enumerate(self.coefficients))[1:])
        moving = slope(Germ(self.coefficients[:-1])) * along
        return Germ((first, *(c / n for n, c in enumerate(moving.coefficients, 1))))

    def constant(self, value: Any) -> Germ:
        """A constant as a germ of the same order."""
        return Germ((mpf(value), *[mpf(0)] * self.order))

    def _zip(self, other: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        other = other if isinstance(other, Germ) else self.constant(other)
        return self.coefficients, other.coefficients

    def __neg__(self) -> Germ:
        return Germ(tuple(-c for c in self.coefficients))

    def __add__(self, other: Any) -> Germ:
        return Germ(tuple(a + b for a, b in zip(*self._zip(other), strict=True)))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Germ:
        return Germ(tuple(a - b for a, b in zip(*self._zip(other), strict=True)))

    def __rsub__(self, other: Any) -> Germ:
        return self.constant(other) - self

    def __mul__(self, other: Any) -> Germ:
        if not isinstance(other, Germ):
            return Germ(tuple(c * other for c in self.coefficients))
        a, b = self.coefficients, other.coefficients
        return Germ(
            tuple(sum((a[k] * b[n - k] for k in range(n + 1)), mpf(0)) for n in range(len(a)))
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Germ:
        a, b = self._zip(other)
        if b[0] == 0:
            return Germ((nan,) * len(a))
        found: list[Any] = []
        for n, c in enumerate(a):
            found.append((c - sum((b[k] * found[n - k] for k in range(1, n + 1)), mpf(0))) / b[0])
        return Germ(tuple(found))

    def __rtruediv__(self, other: Any) -> Germ:
        return self.constant(other) / self

    def __pow__(self, power: int) -> Germ:
        found = self.constant(1)
        for _ in range(power):
            found = found * self
        return found

    def __abs__(self) -> Germ:
        return -self if self.sign < 0 else self

    def __lt__(self, other: Any) -> bool:
        return self.__sub__(other).sign < 0

    def __gt__(self, other: Any) -> bool:
        return self.__sub__(other).sign > 0

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __ge__(self, other: Any) -> bool:
        return not self < other


def start(x: Any) -> Any:
    """Where a germ starts; a number itself."""
    return x.value if isinstance(x, Germ) else x


def elementary(value: Function, slope: Function) -> Function:
    """A function of numbers and germs; nan outside the domain and at poles."""

    @lru_cache(maxsize=10_000)
    def known(x: Any, precision: int) -> Any:
        try:
            found = value(x)
        except (ValueError, ZeroDivisionError):  # mpmath's words for a pole
            return nan
        return found if isinstance(found, mpf) else nan

    def at(x: Any) -> Any:
        return known(x, mp.prec)

    return lambda x: x.apply(at, slope) if isinstance(x, Germ) else at(x)


def floor(x: Any) -> Any:
    """The integer below; right of an integer, where the germ falls, the one below that."""
    if not isinstance(x, Germ):
        return mp.floor(x)
    below = mp.floor(x.value)
    return x.constant(below - int(x < below))


def power(x: Any, y: Any) -> Any:
    """x^y for x > 0, and for integers y where x < 0."""
    if x > 0:
        return exp(y * log(x))
    if x == 0 or isinstance(y, Germ) or y != mp.floor(y):
        return x * nan
    return exp(y * log(-x)) * (-1 if mp.fmod(y, 2) else 1)


@cache
def psi(n: int) -> Function:
    """The polygamma function of order n."""

    def value(x: Any) -> Any:
        if x <= 0 and (x == mp.floor(x) or x < -1000):  # a pole, or beyond what mpmath can sum
            return nan
        return mp.psi(n, x)

    return elementary(value, lambda x: psi(n + 1)(x))


@cache
def besseli(n: int) -> Function:
    """The modified Bessel function of the first kind."""
    below = abs(n - 1)
    slope = lambda x: (besseli(below)(x) + besseli(n + 1)(x)) / 2
    return elementary(lambda x: mp.besseli(n, x), slope)


def primitive(slope: Function) -> Function:
    """A function of which only the slope matters, as if it were 0 there."""
    return elementary(lambda x: mpf(0), slope)


def _exp(x: Any) -> Any:
    if abs(x) < mpf(2) ** 1040:
        return mp.exp(x)
    return mpf("inf") if x > 0 else mpf(0)  # beyond, mpmath takes a second


def _erfc(x: Any) -> Any:
    if x < mpf(10) ** 100:
        return mp.erfc(x)
    series = 1 - 1 / (2 * x * x) + 3 / (4 * x**4)  # mpmath's own overflows from 1e154 on
    return _exp(-x * x) / (x * mp.sqrt(mp.pi)) * series


def _bell(x: Any) -> Any:
    return 2 / mp.sqrt(mp.pi) * exp(-x * x)


exp: Function = elementary(_exp, lambda x: exp(x))
expm1 = elementary(mp.expm1, exp)
log = elementary(lambda x: mp.log(x) if x > 0 else nan, lambda x: 1 / x)
log1p = elementary(lambda x: mp.log1p(x) if x > -1 else nan, lambda x: 1 / (1 + x))
sqrt: Function = elementary(lambda x: mp.sqrt(x) if x >= 0 else nan, lambda x: 1 / (2 * sqrt(x)))
sin = elementary(mp.sin, lambda x: cos(x))
cos: Function = elementary(mp.cos, lambda x: -sin(x))
sinh = elementary(lambda x: (mp.expm1(x) - mp.expm1(-x)) / 2, lambda x: cosh(x))
cosh: Function = elementary(
    lambda x: (_exp(x) + _exp(-x)) / 2, sinh
)  # mp.cosh(1e300) takes a second
tanh = elementary(mp.tanh, lambda x: (1 / cosh(x)) ** 2)
atan = elementary(mp.atan, lambda x: 1 / (1 + x * x))
asin = elementary(mp.asin, lambda x: 1 / sqrt((1 - x) * (1 + x)))
erf = primitive(_bell)
erfc = elementary(_erfc, lambda x: -_bell(x))
erfinv: Function = elementary(mp.erfinv, lambda x: 1 / _bell(erfinv(x)))
lgamma = primitive(psi(0))
