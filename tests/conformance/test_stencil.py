"""The stencil's error stays within its bound, and what is no derivative is said to be none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from conformance.oracles.estimate import Estimate
from conformance.oracles.stencil import Candidate, Ladder, derivative, one_sided
from conformance.selftest.battery import BATTERY
from conformance.selftest.measured import Measured
from conformance.selftest.oracles import elementwise

Scalar = Callable[[float], float]
ZERO = Candidate(0.0, 0.0, 0.0)


def _measured(dtype: type, count: int) -> Measured:
    drawn = {known: known.points(0, count) for known in BATTERY}
    return Measured("stencil", list(itertools.chain(*elementwise(drawn, dtype))))


def test_the_error_exceeds_the_bound_less_than_once_in_a_thousand() -> None:
    found = _measured(np.float64, 16)
    assert len(BATTERY) >= 60
    assert len(found.found) > 1000
    assert found.outside_share < 1e-3, found.outside
    assert found.only(["smooth"]).median_bound < 1e-10


def test_float32_has_wider_bounds_that_hold_too() -> None:
    found = _measured(np.float32, 3)
    assert not found.outside
    assert found.median_bound > 1e-6


@pytest.mark.parametrize("x", [14.24, 14.31, 15.86, 16.96])
def test_coarse_rounding_on_the_way_is_no_clean_slope(x: float) -> None:
    """Between two jumps of 1 - tanh, x (1 - tanh x) is a line, of another slope."""
    found = derivative(lambda t: np.array([t * (1 - np.tanh(t))]), 1.0, at=x)
    right = 1 - np.tanh(x) - x / np.cosh(x) ** 2
    assert abs(found.value[0] - right) <= found.bound[0]


def test_values_whose_squares_overflow() -> None:
    weights = np.array([[1.0, -2.0]])
    found = derivative(lambda t: 1e200 * np.array([np.sin(t), t]), 1.0, weights=weights)
    assert found.value[0] == pytest.approx(-1e200, rel=1e-9)
    assert found.bound[0] < 1e190


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


def test_one_side_of_a_kink_is_seen_from_a_few_steps() -> None:
    found = derivative(lambda t: np.array([abs(t)]), 1.0)
    assert found.kink is not None
    assert found.evaluations < 30 * 6 + 2 * 40  # the ladder of the center, and little beside it


def test_a_side_with_another_kink_is_looked_at_whole() -> None:
    """From far its slope is 3, exactly, and from near 1."""
    found = derivative(lambda t: np.array([1 + abs(t) + 2 * max(t - 1e-6, 0.0)]), 1.0)
    assert found.kink is None or abs(found.kink.right[0] - 1) <= found.kink.right_bound[0]


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


def test_a_jump_that_is_expected_is_seen_from_a_few_steps() -> None:
    def gradient(x: float) -> np.ndarray:  # of selu: its slope jumps at 0
        return np.array([1.05 if x > 0 else 1.76 * np.exp(x)])

    found = derivative(gradient, 1.0, candidate=Candidate(0.0, 1e-9, 1e-9, kinked=True))
    assert found.kink is not None
    assert found.kink.jump
    assert found.kink.left[0] == pytest.approx(1.76)
    assert found.evaluations < 50


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


def _asked(f: Callable[[float], float], at: float, value: float, size: float) -> Estimate:
    candidate = Candidate(value, 1e-11 * size, 1e-10 * size)
    return derivative(
        lambda t: np.array([f(t)]), 1.0, at=at, weights=np.ones((1, 1)), candidate=candidate
    )


def test_a_right_claim_is_confirmed_by_a_few_steps() -> None:
    found = _asked(np.sin, 0.7, np.cos(0.7), 1.0)
    assert abs(found.value[0] - np.cos(0.7)) <= found.bound[0] <= 1e-10
    assert found.evaluations <= 25
    assert found.evaluations < derivative(lambda t: np.array([np.sin(t)]), 1.0, at=0.7).evaluations


def test_a_small_derivative_of_a_large_value_is_confirmed_from_farther() -> None:
    """Its rounding is all that is seen from as near as of others."""
    found = _asked(lambda t: 2.0 + 1e-2 * t, 0.7, 1e-2, 5e-3)
    assert abs(found.value[0] - 1e-2) <= found.bound[0] <= 5e-13
    assert 13 < found.evaluations <= 31


def test_a_constant_of_many_terms_confirms_zero() -> None:
    values = np.linspace(0.1, 3, 37)
    found = derivative(
        lambda t: values.copy(), 1.0, at=0.5, weights=np.cos(values)[None], candidate=ZERO
    )
    assert (found.value[0], found.evaluations) == (0.0, 13)


def test_a_constant_confirms_zero_and_a_kink_does_not() -> None:
    assert _asked(lambda t: np.float64(3.0), 0.5, 0.0, 0.0).evaluations <= 13
    found = _asked(abs, 0.0, 0.0, 1.0)
    assert found.kink is not None


def test_no_wrong_claim_is_confirmed() -> None:
    """Off by 3e-9, where the bounds that are asked for are of 1e-10."""
    tried = 0
    for known in BATTERY:
        for x in known.points(5, 3):
            truth = float(np.real(known.truth(x)))
            for off in (3e-9, -1e-6, 1.0) if truth else ():
                value, size = truth * (1 + off), abs(truth)
                with np.errstate(all="ignore"):
                    found = _asked(known, x, value, size)
                settled = found.bound[0] <= 1e-10 * size
                assert not settled or abs(found.value[0] - value) > found.bound[0] + 1e-11 * size
                tried += 1
    assert tried > 400
