"""The stencil's error stays within its bound, and what is no derivative is said to be none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.special as special

from conformance.oracles.stencil import Ladder, derivative, one_sided

Scalar = Callable[[float], float]

sin, cos, exp, log, tanh, sqrt = np.sin, np.cos, np.exp, np.log, np.tanh, np.sqrt


def _bump(x: float) -> float:
    return float(exp(-1 / (x * x))) if x else 0.0


def _bump_slope(x: float) -> float:
    return float(2 * exp(-1 / (x * x)) / x**3) if x else 0.0


# name: the function, its derivative, and the largest |x| at which it says anything
BATTERY: dict[str, tuple[Scalar, Scalar, float]] = {
    # smooth
    "sin": (sin, cos, 1e3),
    "exp": (exp, exp, 100),
    "tanh": (tanh, lambda x: 1 / np.cosh(x) ** 2, 300),
    "square": (lambda x: x * x, lambda x: 2 * x, 1e3),
    "cube": (lambda x: x * x * x, lambda x: 3 * x * x, 1e3),
    "line": (lambda x: 3 * x + 1, lambda x: 3.0, 1e3),
    "constant": (lambda x: 2.0, lambda x: 0.0, 1e3),
    "polynomial": (lambda x: x**9 - 3 * x**4, lambda x: 9 * x**8 - 12 * x**3, 1e3),
    "logistic": (special.expit, lambda x: special.expit(x) * special.expit(-x), 700),
    "erf": (special.erf, lambda x: 2 / sqrt(np.pi) * exp(-x * x), 20),
    "gauss": (lambda x: exp(-x * x), lambda x: -2 * x * exp(-x * x), 20),
    "root": (lambda x: sqrt(1 + x * x), lambda x: x / sqrt(1 + x * x), 1e3),
    "atan": (np.arctan, lambda x: 1 / (1 + x * x), 1e3),
    "asinh": (np.arcsinh, lambda x: 1 / sqrt(1 + x * x), 1e3),
    "log cosh": (lambda x: np.logaddexp(x, -x), tanh, 300),
    "bessel": (special.j0, lambda x: -special.j1(x), 100),
    "x exp": (lambda x: x * exp(-x), lambda x: (1 - x) * exp(-x), 100),
    "bump": (_bump, _bump_slope, 100),
    "softplus": (lambda x: np.logaddexp(0, x), special.expit, 700),
    "normal": (special.ndtr, lambda x: exp(-x * x / 2) / sqrt(2 * np.pi), 20),
    "mish": (
        lambda x: x * tanh(np.log1p(exp(x))),
        lambda x: tanh(np.log1p(exp(x))) + x * (1 - tanh(np.log1p(exp(x))) ** 2) * special.expit(x),
        30,
    ),
    "silu": (
        lambda x: x * special.expit(x),
        lambda x: special.expit(x) * (1 + x * special.expit(-x)),
        300,
    ),
    # stiff
    "tanh 1000x": (lambda x: tanh(1000 * x), lambda x: 1000 / np.cosh(1000 * x) ** 2, 0.3),
    "softplus 50x": (lambda x: np.logaddexp(0, 50 * x) / 50, lambda x: special.expit(50 * x), 10),
    "logistic 40x": (
        lambda x: special.expit(40 * x),
        lambda x: 40 * special.expit(40 * x) * special.expit(-40 * x),
        10,
    ),
    "cosh 20x": (lambda x: np.cosh(20 * x), lambda x: 20 * np.sinh(20 * x), 20),
    "power 50": (lambda x: np.float64(x) ** 50, lambda x: 50 * np.float64(x) ** 49, 100),
    "near a kink": (lambda x: sqrt(x * x + 1e-12), lambda x: x / sqrt(x * x + 1e-12), 100),
    "gamma": (
        lambda x: special.gammaln(abs(x) + 0.1),
        lambda x: np.sign(x) * special.psi(abs(x) + 0.1),
        100,
    ),
    # oscillating
    "sin 100x": (lambda x: sin(100 * x), lambda x: 100 * cos(100 * x), 100),
    "sin 10000x": (lambda x: sin(1e4 * x), lambda x: 1e4 * cos(1e4 * x), 10),
    "sin 32 pi x": (
        lambda x: x + sin(32 * np.pi * x),
        lambda x: 1 + 32 * np.pi * cos(32 * np.pi * x),
        10,
    ),
    "ripple": (lambda x: sin(x) + 1e-3 * sin(300 * x), lambda x: cos(x) + 0.3 * cos(300 * x), 100),
    "fine ripple": (
        lambda x: 1e-8 * sin(1e5 * x) + x,
        lambda x: 1e-3 * cos(1e5 * x) + 1,
        10,
    ),
    "beat": (
        lambda x: sin(50 * x) * sin(51 * x),
        lambda x: 50 * cos(50 * x) * sin(51 * x) + 51 * sin(50 * x) * cos(51 * x),
        10,
    ),
    "chirp": (lambda x: sin(exp(x)), lambda x: cos(exp(x)) * exp(x), 8),
    "sin x^2": (lambda x: sin(x * x), lambda x: 2 * x * cos(x * x), 30),
    "sin sin": (
        lambda x: sin(10 * sin(10 * x)),
        lambda x: 100 * cos(10 * x) * cos(10 * sin(10 * x)),
        30,
    ),
    # near-singular
    "log": (lambda x: log(abs(x)), lambda x: 1 / x, 1e3),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2, 1e3),
    "log and pole": (lambda x: log(abs(x)) + 1 / x, lambda x: 1 / x - 1 / x**2, 1e3),
    "runge": (
        lambda x: 1 / (1 + 1e6 * x * x),
        lambda x: -2e6 * x / (1 + 1e6 * x * x) ** 2,
        100,
    ),
    "log near 0": (lambda x: log(1e-3 + x * x), lambda x: 2 * x / (1e-3 + x * x), 100),
    "tan": (np.tan, lambda x: 1 / cos(x) ** 2, 100),
    "digamma": (special.psi, lambda x: special.polygamma(1, x), 30),
    "power 3/2": (lambda x: np.sign(x) * abs(x) ** 1.5, lambda x: 1.5 * abs(x) ** 0.5, 1e3),
    "cube root": (np.cbrt, lambda x: 1 / (3 * np.cbrt(x) ** 2), 1e3),
    "atanh": (np.arctanh, lambda x: 1 / (1 - x * x), 0.999),
    "logit": (special.logit, lambda x: 1 / (x * (1 - x)), 0.999),
    "square root": (lambda x: sqrt(abs(x)), lambda x: np.sign(x) / (2 * sqrt(abs(x))), 1e3),
    # cancelling
    "1e6 + sin": (lambda x: 1e6 + sin(x), cos, 1e3),
    "1e10 + sin": (lambda x: 1e10 + sin(x), cos, 1e3),
    "1 - cos": (lambda x: 1 - cos(x), sin, 1e3),
    "(1+x)^5 - 1 - 5x": (lambda x: (1 + x) ** 5 - 1 - 5 * x, lambda x: 5 * (1 + x) ** 4 - 5, 100),
    "sin^2 + cos^2": (lambda x: sin(x) ** 2 + cos(x) ** 2, lambda x: 0.0, 1e3),
    "exp - 1 - x": (lambda x: exp(x) - 1 - x, np.expm1, 50),
    "x - sin x": (lambda x: x - sin(x), lambda x: 1 - cos(x), 100),
    # scales
    "tiny": (lambda x: 1e-30 * sin(x), lambda x: 1e-30 * cos(x), 1e3),
    "huge": (lambda x: 1e30 * sin(x), lambda x: 1e30 * cos(x), 1e3),
    "huge and steep": (lambda x: 1e200 * tanh(30 * x), lambda x: 3e201 / np.cosh(30 * x) ** 2, 10),
    "log1p small": (lambda x: np.log1p(1e-8 * x), lambda x: 1e-8 / (1 + 1e-8 * x), 1e3),
}
SMOOTH = 22  # the first of the battery


def _points(seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    scales = np.repeat([1.0, 10.0, 100.0, 1e-2, 1e-5], (10, 4, 2, 4, 4))
    special_points = [0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 1e-8, 1e-12]
    return [*(rng.standard_normal(len(scales)) * scales).tolist(), *special_points]


def test_the_error_exceeds_the_bound_less_than_once_in_a_thousand() -> None:
    missed, total, relative = [], 0, []
    for number, (name, (f, slope, largest)) in enumerate(BATTERY.items()):
        for x in _points(number):
            with np.errstate(all="ignore"):
                x = np.float64(x)
                right = float(slope(x)) if abs(x) <= largest else np.nan
                if not (np.isfinite(right) and np.isfinite(f(x))):
                    continue
                found = derivative(lambda t, f=f: np.asarray(f(t)), 1.0, at=x)
            total += 1
            bound = found.bound[0] + 4 * np.finfo(float).eps * abs(right)
            if found.kink is not None:
                missed += [] if found.kink.holds(np.array(right)) else [(name, x)]
            elif abs(found.value[0] - right) > bound:
                missed.append((name, x))
            if number < SMOOTH and right:
                relative.append(found.bound[0] / abs(right))
    assert len(BATTERY) >= 60
    assert total > 1500
    assert len(missed) < total / 1000, missed
    assert np.median(relative) < 1e-10


@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (abs, -1, 1),
        (lambda x: max(x, 0.0), 0, 1),
        (lambda x: max(x, 0.0) + np.sin(3 * x), 3, 4),
        (lambda x: 1e-6 * abs(x) + x, 1 - 1e-6, 1 + 1e-6),
        (lambda x: np.exp(x) if x > 0 else 1 + 3 * x, 3, 1),
    ],
)
def test_a_kink_is_found_with_both_slopes(f: Scalar, left: float, right: float) -> None:
    found = derivative(lambda t: np.array([f(t)]), 1.0)
    assert found.kink is not None
    assert not found.kink.jump
    assert found.kink.left[0] == pytest.approx(left, abs=1e-9)
    assert found.kink.right[0] == pytest.approx(right, abs=1e-9)
    assert found.kink.holds(np.array((left + right) / 2))
    assert not found.kink.holds(np.array(max(left, right) + 0.1))


def test_a_kink_beside_the_point_is_none_of_its_business() -> None:
    found = derivative(lambda t: np.array([abs(t - 1e-3)]), 1.0)
    assert found.kink is None
    assert found.value[0] == pytest.approx(-1, abs=1e-8)


def test_a_jump_is_a_kink_of_its_own() -> None:
    found = derivative(lambda t: np.array([np.floor(t) + 2 * t]), 1.0)
    assert found.kink is not None
    assert found.kink.jump
    assert found.kink.left[0] == pytest.approx(2, abs=1e-6)
    assert found.kink.right[0] == pytest.approx(2, abs=1e-6)


def test_at_the_edge_of_the_domain_the_derivative_is_one_sided() -> None:
    with np.errstate(invalid="ignore"):
        found = derivative(lambda t: np.array([np.sqrt(t) ** 3 + 2 * t]), 1.0)
        assert found.kink is None
        assert abs(found.value[0] - 2) <= found.bound[0]
        found = derivative(lambda t: np.array([np.exp(t) if t >= 0 else np.nan]), 1.0)
    assert found.value[0] == pytest.approx(1, abs=1e-9)
    assert "one-sided, from the right" in found.reason


@pytest.mark.parametrize(
    "f", [np.cbrt, lambda t: np.sqrt(abs(t)), lambda t: t * np.sin(1 / t) if t else 0.0]
)
def test_no_derivative_gets_a_poor_bound(f: Scalar) -> None:
    found = derivative(lambda t: np.array([f(t)]), 1.0)
    assert found.bound[0] > 1e-3 or not np.isfinite(found.bound[0])


def test_where_f_is_not_finite_nothing_is_said() -> None:
    found = derivative(lambda t: np.array([np.inf]), 1.0)
    assert np.isnan(found.value).all()
    assert "not finite" in found.reason


def test_vectors_are_contracted_after_the_differences() -> None:
    rng = np.random.default_rng(0)
    x, d, w = rng.standard_normal((3, 50))
    offset = 1e8 * rng.choice([-1.0, 1.0], 50)
    offset -= offset.mean()

    def f(t: float) -> np.ndarray:
        return np.sin(x + t * d) + offset * 0

    each = derivative(f, 1.0)
    whole = derivative(f, 1.0, weights=w[None])
    right = np.cos(x) * d
    assert each.value.shape == (50,)
    assert (np.abs(each.value - right) <= each.bound).all()
    assert abs(whole.value[0] - (w * right).sum()) <= whole.bound[0]
    assert whole.bound[0] < 1e-9


def test_a_zero_weight_silences_a_value_that_is_not_finite() -> None:
    found = derivative(lambda t: np.array([np.nan, t]), 1.0, weights=np.array([[0.0, 2.0]]))
    assert found.value[0] == pytest.approx(2)


def test_a_function_that_rounds_is_no_function_without_slope() -> None:
    found = derivative(lambda t: np.array([np.float32(np.sin(np.float32(0.7 + t)))], float), 1.0)
    assert abs(found.value[0] - np.cos(0.7)) <= found.bound[0]


def test_one_sided_slopes_and_a_short_ladder() -> None:
    right = one_sided(lambda t: np.array([abs(t)]), 1.0, +1)
    left = one_sided(lambda t: np.array([abs(t)]), 1.0, -1, ladder=Ladder(steps=12))
    assert right.value[0] == pytest.approx(1)
    assert left.value[0] == pytest.approx(-1)
    assert left.evaluations < 12 * 7
