"""Intervals of medians cover what they say, for any distribution."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.bench.statistics import (
    COVERAGE,
    binomial_tail,
    geometric_mean,
    interval,
    paired,
    slope,
    spread,
)

RATIOS = st.lists(st.floats(0.01, 100), min_size=2, max_size=40)


@given(RATIOS)
def test_the_median_is_in_its_interval_and_both_ends_were_read(ratios: list[float]) -> None:
    found = interval(ratios)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.median <= found.high
    assert {found.low, found.high} <= set(ratios)
    assert found.n == len(ratios)


@given(RATIOS, st.randoms(use_true_random=False))
def test_the_order_of_the_rounds_does_not_matter(ratios: list[float], rng: random.Random) -> None:
    shuffled = ratios.copy()
    rng.shuffle(shuffled)
    assert interval(shuffled) == interval(ratios)


@pytest.mark.parametrize("n", [6, 7, 10, 20, 40])
def test_from_six_rounds_on_the_interval_covers_and_no_narrower_one_does(n: int) -> None:
    found = interval([float(i) for i in range(n)])
    assert found.low is not None
    assert found.coverage >= COVERAGE
    rank = int(found.low)
    inside = 1 - 2 * binomial_tail(n, n - rank - 1, 0.5)
    assert inside < COVERAGE or rank + 1 >= n / 2


@pytest.mark.parametrize("n", [2, 3, 5])
def test_of_fewer_rounds_the_interval_is_everything_and_says_what_it_covers(n: int) -> None:
    found = interval([float(i + 1) for i in range(n)])
    assert (found.low, found.high) == (1.0, float(n))
    assert found.coverage == 1 - 2 * 0.5**n


def test_one_ratio_has_no_interval() -> None:
    found = interval([1.2])
    assert (found.median, found.low, found.high, found.half_width) == (1.2, None, None, math.inf)
    assert found.holds(99.0)


@pytest.mark.parametrize("n", [6, 15])
def test_the_stated_coverage_is_kept_by_a_skewed_distribution(n: int) -> None:
    rng = random.Random(0)
    median = math.log(2)
    trials = 4000
    kept = sum(
        interval([rng.expovariate(1) for _ in range(n)]).holds(median) for _ in range(trials)
    )
    expected = interval([float(i + 1) for i in range(n)]).coverage
    assert kept / trials == pytest.approx(expected, abs=0.01)


def test_a_slow_quarter_hour_moves_no_paired_ratio() -> None:
    weather = [1.0, 1.0, 5.0, 1.0, 3.0, 1.0]
    theirs = dict(enumerate(weather))
    ours = {i: 0.5 * w for i, w in enumerate(weather)}
    del ours[4]  # it sat out
    assert paired(ours, theirs) == [0.5] * 5


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20))
def test_the_geometric_mean_of_inverses_is_the_inverse(values: list[float]) -> None:
    mean, inverse = geometric_mean(values), geometric_mean(1 / v for v in values)
    assert mean is not None
    assert inverse is not None
    assert mean * inverse == pytest.approx(1)


def test_the_geometric_mean_of_nothing_is_none() -> None:
    assert geometric_mean([]) is None


def test_quartiles_are_as_numpy_has_them() -> None:
    np = pytest.importorskip("numpy")
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    found = spread(values)
    assert (found.min, found.n) == (1.0, 6)
    assert [found.q1, found.median, found.q3] == pytest.approx(np.percentile(values, [25, 50, 75]))
    assert spread([2.0]).iqr == 0


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_a_power_has_its_exponent_for_slope(exponent: float) -> None:
    found = slope([(n, 3e-6 * n**exponent) for n in (10, 100, 1000)])
    assert found == pytest.approx(exponent, abs=1e-9)
    assert slope([(10, 1.0), (10, 2.0)]) is None
