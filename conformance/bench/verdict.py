"""Whether a session can be believed: torch eager, timed against itself, says so.

A second torch eager, prepared on its own, takes its turns as an engine like any other, so in a
session that can be believed its ratio is 1. Of each phase looked at (backward, step) and all cases:

- noisy: more intervals leave out 1 than chance explains (at the coverage of each, less than one
  session in a hundred); or the geometric mean is over 1 % from 1, and over three standard errors (a
  half-width is about two of one case); or the median half-width is over 5 %.
- invalid: the geometric mean is over 5 % from 1, the median half-width is over 25 %, or more than
  half of at least 6 intervals leave out 1 by more than 2 %; or there is no control at all.
- valid: none of these.

A case of its own is noisy where the half-width of its control is over 5 %, or its interval leaves
out 1 by more than 2 %. A noisy session can be shown; only a valid one is a baseline.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from conformance.bench.statistics import Interval, binomial_tail, geometric_mean

VALID, NOISY, INVALID = "valid", "noisy", "invalid"
CHANCE = 0.01
CENTRE, CENTRE_AT_MOST = 0.01, 0.05
ERRORS = 3
HALF_WIDTH, HALF_WIDTH_AT_MOST = 0.05, 0.25
APART = 0.02
FEW = 6


@dataclasses.dataclass(frozen=True)
class Verdict:
    """valid, noisy or invalid, with the reasons and the figures behind it."""

    name: str
    reasons: tuple[str, ...]
    controls: int
    centre: float | None
    half_width: float | None
    apart: int


def judge(controls: Mapping[str, Sequence[Interval]]) -> Verdict:
    """The verdict over the control's intervals by phase; the worst phase gives the figures."""
    found = [_judge_phase(phase, ivs) for phase, ivs in controls.items() if ivs]
    if not found:
        return Verdict(INVALID, ("torch eager was not timed against itself",), 0, None, None, 0)
    rank = (VALID, NOISY, INVALID).index
    worst = max(found, key=lambda verdict: rank(verdict.name))
    reasons = tuple(reason for verdict in found for reason in verdict.reasons)
    return dataclasses.replace(worst, reasons=reasons)


def _judge_phase(phase: str, intervals: Sequence[Interval]) -> Verdict:
    centre = geometric_mean(iv.median for iv in intervals)
    assert centre is not None
    half = statistics.median(iv.half_width for iv in intervals)
    apart = [iv for iv in intervals if not iv.holds(1.0)]
    far = [iv for iv in apart if leaves_out(iv) > APART]
    miss = max(1 - iv.coverage for iv in intervals)
    reasons, name = [], VALID
    if len(apart) > 1 and binomial_tail(len(intervals), len(apart), miss) < CHANCE:
        reasons.append(
            f"{phase}: {len(apart)} of {len(intervals)} intervals of torch against itself leave "
            "out 1, more than chance explains"
        )
    errors = ERRORS * half / 2 / math.sqrt(len(intervals))
    if abs(centre - 1) > max(CENTRE, errors):
        reasons.append(f"{phase}: torch against itself has the geometric mean {centre:.3f}")
    if half > HALF_WIDTH:
        reasons.append(f"{phase}: the median half-width of torch against itself is {half:.1%}")
    if reasons:
        name = NOISY
    if (
        abs(centre - 1) > CENTRE_AT_MOST
        or half > HALF_WIDTH_AT_MOST
        or (len(intervals) >= FEW and len(far) > len(intervals) / 2)
    ):
        name = INVALID
    return Verdict(name, tuple(reasons), len(intervals), centre, half, len(apart))


def leaves_out(interval: Interval) -> float:
    """How far 1 lies outside an interval; 0 within."""
    if interval.low is None or interval.high is None:
        return 0.0
    return max(interval.low - 1, 1 - interval.high, 0.0)


def is_noisy(controls: Iterable[Interval]) -> bool:
    """Whether one case's own control says that its figures are noisy."""
    return any(iv.half_width > HALF_WIDTH or leaves_out(iv) > APART for iv in controls)
