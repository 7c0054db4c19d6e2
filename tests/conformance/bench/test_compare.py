"""Two sessions compared: what changed beyond noise, and which sessions do not compare."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from conformance.bench.compare import FASTER, SLOWER, compare
from conformance.bench.journal import Journal, Result
from conformance.errors import UsageError
from tests.conformance.bench.fakes import FakeEngine, World
from tests.conformance.bench.sessions import conduct


def session(tmp_path: Path, factor: float, *, noise: float = 0.02, **fields: Any) -> Journal:
    world = World(noise=noise, seed=round(factor * 100))
    path = tmp_path / f"{factor}-{noise}-{len(list(tmp_path.iterdir()))}.jsonl"
    return conduct(path, world, [FakeEngine(world, "refgrad", factor, **fields)])


def header(journal: Journal, **fields: Any) -> Journal:
    return dataclasses.replace(journal, header={**journal.header, **fields})


def ended(journal: Journal, **fields: Any) -> Journal:
    return dataclasses.replace(journal, end={**(journal.end or {}), **fields})


def test_the_same_code_has_not_changed(tmp_path: Path) -> None:
    found = compare(session(tmp_path, 0.5), session(tmp_path, 0.51))
    assert not found.regressed
    assert found.of(SLOWER) == found.of(FASTER) == ()
    assert len(found.changes) == 6  # two phases of three workloads


@pytest.mark.parametrize(("new", "direction"), [(0.65, SLOWER), (0.4, FASTER)])
def test_a_change_beyond_noise_is_found_in_every_ratio(
    tmp_path: Path, new: float, direction: str
) -> None:
    found = compare(session(tmp_path, 0.5), session(tmp_path, new))
    assert len(found.of(direction)) == 6
    assert found.regressed == (direction == SLOWER)
    for change in found.changes:
        assert change.factor == pytest.approx(new / 0.5, rel=0.05)


def test_what_is_within_the_noise_of_the_control_is_no_change(tmp_path: Path) -> None:
    old, new = session(tmp_path, 0.5), session(tmp_path, 0.57)
    assert compare(old, new).regressed

    def loud(result: Result) -> Result:
        phases = dict(result.phases)
        if result.control:
            for name, phase in phases.items():
                assert phase.ratio is not None
                wide = dataclasses.replace(phase.ratio, low=0.8, high=1.2)
                phases[name] = dataclasses.replace(phase, ratio=wide)
        return dataclasses.replace(result, phases=phases)

    noisy = dataclasses.replace(new, results=tuple(map(loud, new.results)))
    assert not compare(old, noisy).regressed


def test_an_engine_that_is_no_longer_timed_is_a_regression(tmp_path: Path) -> None:
    found = compare(session(tmp_path, 0.5), session(tmp_path, 0.5, mistake=2.0))
    assert found.regressed
    assert {(lost.engine, lost.outcome) for lost in found.lost} == {("refgrad", "wrong")}


@pytest.mark.parametrize("verdict", ["noisy", "invalid"])
def test_only_a_valid_session_is_a_baseline(tmp_path: Path, verdict: str) -> None:
    new = session(tmp_path, 0.5)
    old = ended(new, verdict=verdict, reasons=["too much wind"])
    with pytest.raises(UsageError, match=f"no baseline: the session is {verdict} .too much wind"):
        compare(old, new)


def test_an_incomplete_session_is_no_baseline_and_shows_nothing(tmp_path: Path) -> None:
    whole = session(tmp_path, 0.5)
    half = dataclasses.replace(whole, end=None)
    with pytest.raises(UsageError, match=r"no baseline: the session is incomplete \(The journal"):
        compare(half, whole)
    with pytest.raises(UsageError, match="shows nothing: the session is incomplete"):
        compare(whole, half)


def test_a_noisy_new_session_is_compared_with_a_warning(tmp_path: Path) -> None:
    old = session(tmp_path, 0.5)
    found = compare(old, ended(old, verdict="noisy", reasons=["wind"]))
    assert found.warnings == ("the new session is noisy (wind)",)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"device": "cuda"}, "device is cpu and cuda"), ({"threads": 4}, "threads is 1 and 4")],
)
def test_sessions_of_another_kind_do_not_compare(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    old = session(tmp_path, 0.5)
    if "threads" in fields:
        fields = {"settings": {**old.header["settings"], **fields}}
    with pytest.raises(UsageError, match=said):
        compare(old, header(old, **fields))


def test_other_versions_are_a_warning(tmp_path: Path) -> None:
    old = session(tmp_path, 0.5)
    environment = {**old.header["environment"], "numpy": "9.9"}
    found = compare(old, header(old, environment=environment))
    assert [w.endswith("and is 9.9") for w in found.warnings] == [True]


def test_cases_of_one_session_alone_are_named(tmp_path: Path) -> None:
    old = session(tmp_path, 0.5)
    fewer = dataclasses.replace(old, results=tuple(r for r in old.results if r.workload != "chain"))
    assert compare(old, fewer).only_old == ("chain/100",)
    assert compare(fewer, old).only_new == ("chain/100",)
