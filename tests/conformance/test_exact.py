"""Derivatives by germs, held against differences, torch's values, and known ones at the edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mpmath import mp, mpf

from conformance.oracles.exact import condition, derivative
from conformance.oracles.exact_functions import FUNCTIONS
from conformance.sources.edges import Op, ops

INF, NAN = math.inf, math.nan
_PLACES = {"acosh": 1.3, "mvlgamma": 2.7}
# known up to a constant: of these the germ has the right slope, and its value is not asked for
_SLOPES_ONLY = {"acos", "atan2", "erf", "lgamma", "mvlgamma"}

OPS = list(ops())
NAMED = pytest.mark.parametrize("op", OPS, ids=[f"{o.name}{o.keywords or ''}" for o in OPS])


def ordinary(op: Op) -> tuple[Any, ...]:
    x = _PLACES.get(op.name, 0.3)
    return (*op.before, *((x, 0.7) if op.pairs else (x,)), *op.after)


def settings(op: Op) -> dict[str, Any]:
    return {k: v for k, v in op.keywords.items() if k != "reduction"}


@NAMED
def test_the_derivatives_are_limits_of_differences(op: Op) -> None:
    if op.name in _SLOPES_ONLY:
        return
    given, keywords = ordinary(op), settings(op)
    for place in range(len(op.before), len(op.before) + 1 + op.pairs):

        def along(x: Any, place: int = place) -> Any:
            numbers = [mpf(a) if isinstance(a, float) else a for a in given]
            numbers[place] = x
            return mpf(FUNCTIONS[op.target](*numbers, **keywords))

        for order in (1, 2):
            orders = tuple(order * (n == place) for n in range(len(given)))
            found = derivative(op.target, given, orders, tuple(sorted(keywords.items())))
            with mp.workdps(60):
                expected = mp.diff(along, mpf(given[place]), order)
                assert found.smooth
                assert abs(found.value - expected) < mpf(10) ** -20 * (1 + abs(expected))


@NAMED
def test_the_functions_are_torchs(op: Op) -> None:
    given = ordinary(op)
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True)
               if n in range(len(op.before), len(op.before) + 1 + op.pairs) and not
               (op.constant and n == 1) else
               torch.tensor(a, dtype=torch.float64) if op.constant and n == 1 else a
               for n, a in enumerate(given)]  # fmt: skip
    path = op.target.removeprefix("torch.").split(".")
    function: Any = torch
    for part in path:
        function = getattr(function, part)
    out = function(*tensors, **op.keywords)
    if op.name not in _SLOPES_ONLY:
        numbers = [mpf(a) if isinstance(a, float) else a for a in given]
        value = FUNCTIONS[op.target](*numbers, **settings(op))
        assert float(value) == pytest.approx(out.item(), rel=1e-9, abs=1e-12)
    leaf = len(op.before)
    (slope,) = torch.autograd.grad(out, tensors[leaf])
    orders = tuple(int(n == leaf) for n in range(len(given)))
    found = derivative(op.target, given, orders, tuple(sorted(settings(op).items())))
    assert float(found.value) == pytest.approx(slope.item(), rel=1e-7, abs=1e-12)


def test_the_mixed_derivative() -> None:
    found = derivative("torch.pow", (3.0, 2.0), (1, 1))
    assert found.smooth
    assert abs(found.value - (3 + 6 * mp.log(3))) < mpf(10) ** -14  # x^(y-1) (1 + y log x)
    assert derivative("torch.mul", (1e16, -2.0), (1, 1)).value == 1


@pytest.mark.parametrize(
    ("target", "x", "order", "expected"),
    [
        ("torch.sigmoid", 40.0, 1, math.exp(-40) / (1 + math.exp(-40)) ** 2),
        ("torch.tanh", 300.0, 1, 4 * math.exp(-600)),
        ("torch.expm1", -100.0, 1, math.exp(-100)),
        ("torch.sinc", 1e-300, 1, -math.pi**2 / 3 * 1e-300),  # of terms that agree to 1e-600
        ("torch.sinc", 0.0, 2, -math.pi**2 / 3),
        ("torch.asinh", 1e300, 1, 1e-300),
        ("torch.special.erfcx", 1e16, 1, -1e-32 / math.sqrt(math.pi)),
        ("torch.special.log_ndtr", -1e16, 1, 1e16),
        ("torch.digamma", 1.0, 1, math.pi**2 / 6),
        ("torch.lgamma", -0.5, 1, 0.03648997397857652),  # digamma
        ("torch.nn.functional.hardswish", 3.5, 1, 1.0),
        ("torch.floor", 2.5, 1, 0.0),
        ("torch.frac", 2.0, 1, 1.0),  # a jump: the slope is the same on both sides
        ("torch.sigmoid", INF, 1, 0.0),
        ("torch.nn.functional.silu", INF, 1, 1.0),
        ("torch.exp", INF, 1, INF),
        ("torch.sqrt", 0.0, 1, INF),
        ("torch.reciprocal", 0.0, 1, -INF),
    ],
)  # fmt: skip
def test_known_derivatives(target: str, x: float, order: int, expected: float) -> None:
    found = derivative(target, (x,), (order,))
    assert float(found.value) == pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize(
    ("target", "arguments", "orders", "left", "right"),
    [
        ("torch.abs", (0.0,), (1,), -1.0, 1.0),
        ("torch.relu", (-0.0,), (1,), 0.0, 1.0),
        ("torch.nn.functional.hardshrink", (0.5,), (1,), 0.0, 1.0),
        ("torch.nn.functional.softplus", (20.0,), (1,), 1 / (1 + math.exp(-20)), 1.0),
        ("torch.maximum", (2.0, 2.0), (0, 1), 0.0, 1.0),
        ("torch.hypot", (0.0, 0.0), (1, 0), -1.0, 1.0),
        ("torch.fmod", (6.0, 3.0), (0, 1), -2.0, -1.0),
        ("torch.acosh", (0.5,), (1,), NAN, NAN),
        ("torch.asin", (1.0,), (1,), INF, NAN),
        ("torch.special.entr", (0.0,), (1,), NAN, INF),
        ("torch.nn.functional.kl_div", (-1000.0, 0.0), (0, 1), NAN, -INF),  # log t + 1001
    ],
)
def test_the_two_sides_of_a_kink_and_of_an_edge(
    target: str, arguments: Any, orders: Any, left: float, right: float
) -> None:
    found = derivative(target, arguments, orders)
    assert [float(found.left), float(found.right)] == pytest.approx([left, right], nan_ok=True)
    assert found.known == (not math.isnan(left) or not math.isnan(right))
    if math.isfinite(left) and math.isfinite(right):
        assert not found.smooth
        assert mp.isnan(found.value)


def test_condition_is_how_far_the_derivative_moves_for_its_arguments() -> None:
    assert condition("torch.exp", (5.0,), (1,)) == pytest.approx(5.0)
    assert condition("torch.mul", (2.0, 3.0), (1, 0)) == pytest.approx(1.0)
    assert condition("torch.square", (0.0,), (1,)) == 0.0
    assert condition("torch.sin", (1e6,), (1,)) == pytest.approx(1e6 * abs(math.tan(1e6)), rel=1e-3)
