"""When a session can be believed: the rule on made-up controls, and on sessions of pure chance."""

from __future__ import annotations

import random

import pytest

from conformance.bench.statistics import Interval, interval
from conformance.bench.verdict import INVALID, NOISY, VALID, is_noisy, judge


def control(median: float = 1.0, half: float = 0.02) -> Interval:
    return Interval(median, median - half, median + half, 0.95, 20)


@pytest.mark.parametrize(
    ("controls", "name", "said"),
    [
        ([control()] * 20, VALID, ""),
        ([control(1.015, 0.03), control(0.99, 0.03)] * 10, VALID, ""),
        ([control(half=0.08)] * 20, NOISY, "half-width"),
        ([control(half=0.3)] * 20, INVALID, "half-width"),
        ([control(1.019)] * 20, NOISY, "geometric mean"),
        ([control(1.08, 0.09)] * 20, INVALID, "geometric mean"),
        ([control(1.025), control(0.975)] * 10, NOISY, "leave out 1"),
        ([control(1.06), control(0.94)] * 10, INVALID, "leave out 1"),
        ([control()] * 19 + [control(1.04)], VALID, ""),  # one in twenty is chance
        ([Interval(1.0, None, None, 0.0, 1)], INVALID, "half-width"),
    ],
)
def test_the_rule(controls: list[Interval], name: str, said: str) -> None:
    found = judge({"backward": controls})
    assert found.name == name
    assert any(said in reason for reason in found.reasons) or not said
    assert found.controls == len(controls)


def test_without_a_control_nothing_is_known() -> None:
    found = judge({"backward": [], "step": []})
    assert (found.name, found.centre) == (INVALID, None)
    assert found.reasons == ("torch eager was not timed against itself",)


def test_the_worst_phase_gives_the_verdict_and_all_give_reasons() -> None:
    wide, wrong = [control(half=0.08)] * 8, [control(1.2)] * 8
    found = judge({"backward": wide, "step": wrong})
    assert found.name == INVALID
    assert found.centre == pytest.approx(1.2)
    assert {reason.partition(":")[0] for reason in found.reasons} == {"backward", "step"}


def test_of_sessions_of_pure_chance_few_are_noisy() -> None:
    rng = random.Random(1)
    verdicts = [
        judge({"step": [interval([rng.gauss(1, 0.03) for _ in range(20)]) for _ in range(30)]}).name
        for _ in range(200)
    ]
    assert verdicts.count(VALID) >= 195
    assert INVALID not in verdicts


@pytest.mark.parametrize(
    ("one", "noisy"),
    [(control(), False), (control(half=0.06), True), (control(1.05, 0.02), True)],
)
def test_a_case_is_noisy_by_its_own_control(one: Interval, noisy: bool) -> None:
    assert is_noisy([control(), one]) == noisy
