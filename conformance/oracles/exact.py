"""Derivatives of elementwise ops to more digits than a float has, from both sides, by mpmath.

A derivative is a coefficient of the function's germ at the float itself, to the right and to the
left: where the two differ there is a kink. Where it is not finite, and at infinity, it is what
those at two points tend to that are nearer and nearer. It is computed to ever more digits until
two results agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from mpmath import mp, mpf

from conformance.oracles.exact_functions import FUNCTIONS, Function
from conformance.oracles.germs import Germ, nan

_PRECISIONS = (100, 400, 1000)  # digits: numbers of float64 may differ by 1e600 in size
_AGREE = mpf(10) ** -20  # of their size: nearer, two derivatives are one
_SMALLEST = mpf(10) ** -340  # below every number of float64
_NEAR = (-300, -600, -1200)  # powers of two of a point's size: distances from it
_FAR = (64, 128, 256)  # powers of two in place of infinity
_CONVERGES = 4  # times smaller at least is the next step to a limit; a logarithm's is larger


@dataclass(frozen=True)
class Slopes:
    """The derivative from the left and from the right; nan where there is none on that side."""

    left: Any
    right: Any

    @property
    def smooth(self) -> bool:
        """Whether the two are one derivative."""
        return _near(self.left, self.right)

    @property
    def known(self) -> bool:
        """Whether there is a derivative on one side at least."""
        return not (mp.isnan(self.left) and mp.isnan(self.right))

    @property
    def value(self) -> Any:
        """The derivative, or the only one-sided one; nan at a kink."""
        if mp.isnan(self.left):
            return self.right
        return self.left if mp.isnan(self.right) or self.smooth else nan


@lru_cache(maxsize=100_000)
def derivative(
    target: str,
    arguments: tuple[Any, ...],
    orders: tuple[int, ...],
    extra: tuple[tuple[str, Any], ...] = (),
) -> Slopes:
    """The partial derivative of a function of `exact_functions`: floats in, mpf out.

    `orders` has the order of differentiation in each argument; of the mixed one, (1, 1), the sides
    are those of both. Raises KeyError for a target that is not in the table.
    """
    given = FUNCTIONS[target]
    function = partial(given, **dict(extra))
    if any(a != a for a in arguments):
        return Slopes(nan, nan)

    def side(s: int) -> Any:
        def along(*direction: int) -> Any:
            return _along(function, arguments, direction, sum(orders))

        if orders == (1, 1):
            return _settled(lambda: (along(s, s) - along(s, -s)) / 4)
        return _settled(lambda: s ** sum(orders) * along(*(s * bool(n) for n in orders)))

    return Slopes(side(-1), side(1))


def condition(
    target: str,
    arguments: tuple[Any, ...],
    orders: tuple[int, ...],
    extra: tuple[tuple[str, Any], ...] = (),
    nudge: float = 2.0**-51,
) -> float:
    """How far a derivative moves, in parts of itself, for each part by which arguments do.

    `nudge` is the part by which they do; what becomes undefined counts as unmoved.
    """
    base = derivative(target, arguments, orders, extra).value
    total = 0.0
    for place, x in enumerate(arguments):
        if not isinstance(x, float) or x == 0:
            continue
        moves = [0.0]
        for near in (x * (1 + nudge), x * (1 - nudge)):
            moved = (*arguments[:place], near, *arguments[place + 1 :])
            change = derivative(target, moved, orders, extra).value - base
            if base and mp.isfinite(change):
                moves.append(float(abs(change / base)) * abs(x / (near - x)))
        total += max(moves)
    return total


def _settled(compute: Callable[[], Any]) -> Any:
    """The result on which two precisions agree; nan where none do."""
    before = None
    for digits in _PRECISIONS:
        with mp.workdps(digits):
            found = compute()
        if before is not None:
            if found != 0 and _near(before, found):
                return found  # 0 may be what 1e-600 beside 1 looks like
            if digits == _PRECISIONS[-1] and abs(before) < _SMALLEST > abs(found):
                return mpf(0)
        before = found
    return nan


def _along(
    function: Function, arguments: tuple[Any, ...], direction: tuple[int, ...], order: int
) -> Any:
    """The derivative of that order along a direction, right of the point; or its limit there."""

    def at(distance: Any, infinity: Any) -> Any:
        given: list[Any] = []
        for x, v in zip(arguments, direction, strict=True):
            if isinstance(x, int):
                given.append(x)
                continue
            x = mpf(x) if mp.isfinite(x) else mp.sign(x) * infinity
            given.append(Germ.at(x + v * distance * (abs(x) or 1), v, order) if v else x)
        found = function(*given)
        if isinstance(found, Germ):
            return mp.factorial(order) * found.coefficients[order]
        return nan if mp.isnan(found) else mpf(0)  # a constant

    two = mpf(2)
    if not all(mp.isfinite(x) for x in arguments):
        return _limit(*(at(0, two**n) for n in _FAR))
    found = at(0, None)
    return found if mp.isfinite(found) else _limit(*(at(two**n, None) for n in _NEAR))


def _limit(one: Any, two: Any, three: Any) -> Any:
    """What is tended to by values at points ever nearer."""
    if not all(mp.isfinite(v) for v in (one, two, three)):
        return nan
    before, after = two - one, three - two
    if _near(two, three) or _CONVERGES * abs(after) <= abs(before):
        return three
    if before * after > 0 and abs(after) >= abs(before):
        return mp.sign(after) * mpf("inf")
    return nan


def _near(a: Any, b: Any) -> bool:
    if a == b or (mp.isnan(a) and mp.isnan(b)):
        return True
    if not (mp.isfinite(a) and mp.isfinite(b)):
        return False
    return bool(abs(a - b) <= _AGREE * max(abs(a), abs(b)))
