"""What is said of readings: spread, ratios with a confidence interval, geometric means.

A ratio is of two readings of one round, so that what slows the machine for a while slows both. The
interval is of the median of these ratios, between two order statistics: the number of them below
the median is binomial whatever their distribution, so the coverage is exact for any n, nothing is
drawn at random, and a reading that was disturbed costs one place in the order. (A bootstrap of a
median resamples the same few values, and at n = 10 covers less than it says.) What neither knows is
that neighbouring rounds are alike; the control of torch against itself shows whether that matters.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

COVERAGE = 0.95


@dataclasses.dataclass(frozen=True)
class Spread:
    """Readings of one quantity: how many, the least, the median and the quartiles."""

    n: int
    min: float
    q1: float
    median: float
    q3: float

    @property
    def iqr(self) -> float:
        """The interquartile range."""
        return self.q3 - self.q1


@dataclasses.dataclass(frozen=True)
class Interval:
    """A median of n ratios, between two of them; `coverage` is what these two cover.

    `low` and `high` are None where n is 1: one ratio has no interval.
    """

    median: float
    low: float | None
    high: float | None
    coverage: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the interval's width, relative to the median; inf without an interval."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / 2 / self.median

    def holds(self, value: float) -> bool:
        """Whether the interval contains `value`; one without ends contains everything."""
        if self.low is None or self.high is None:
            return True
        return self.low <= value <= self.high


def spread(readings: Sequence[float]) -> Spread:
    """The spread of at least one reading; of a single one all figures are that one."""
    if len(readings) == 1:
        only = readings[0]
        return Spread(1, only, only, only, only)
    q1, median, q3 = statistics.quantiles(readings, n=4, method="inclusive")
    return Spread(len(readings), min(readings), q1, median, q3)


def interval(ratios: Sequence[float], coverage: float = COVERAGE) -> Interval:
    """The median of ratios and the narrowest pair of order statistics that covers it.

    The pair is symmetric in rank. Below n = 6 no pair reaches 95 %: it is then the least and the
    greatest, and `coverage` says what they cover.
    """
    ordered = sorted(ratios)
    n = len(ordered)
    median = statistics.median(ordered)
    if n == 1:
        return Interval(median, None, None, 0.0, 1)
    rank = 0
    while rank + 1 < (n + 1) // 2 and _covers(n, rank + 1) >= coverage:
        rank += 1
    return Interval(median, ordered[rank], ordered[n - 1 - rank], _covers(n, rank), n)


def _covers(n: int, rank: int) -> float:
    """The chance that the median lies between the order statistics `rank` from either end."""
    tail = sum(math.comb(n, k) for k in range(rank + 1))
    return 1.0 - tail / float(2 ** (n - 1))


def paired(times: dict[int, float], baseline: dict[int, float]) -> list[float]:
    """The ratios of the rounds in which both have a reading, in the order of the rounds."""
    return [times[r] / baseline[r] for r in sorted(times.keys() & baseline.keys())]


def geometric_mean(values: Iterable[float]) -> float | None:
    """The geometric mean of positive values, or None of none."""
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None


def binomial_tail(n: int, at_least: int, p: float) -> float:
    """The chance of `at_least` successes or more among n, each of probability p."""
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(at_least, n + 1))


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent b of y = a x^b by least squares on logarithms; None of fewer than two x."""
    if len({x for x, _ in points}) < 2:
        return None
    fitted = statistics.linear_regression(
        [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    )
    return fitted.slope
