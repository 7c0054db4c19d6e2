"""False alarms are counted and repeatable; a wrong rule, an exception and a crash are told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conformance import expectations
from conformance.mutants import MUTANTS
from conformance.selftest import alarms
from conformance.selftest.alarms import DEFAULT_CHECKS, Tally, Task
from conformance.sources.generated import Generated

FEW = ["--gradients", "40", "--seeds", "2", "-k", "sin", "-j", "1"]


def _run(*args: str) -> Any:
    return CliRunner().invoke(alarms.command, [*FEW, *args], standalone_mode=False)


def test_right_rules_raise_no_alarm_and_the_same_are_counted_again() -> None:
    said = _run("--json")
    assert said.return_value == 0, said.output
    told = json.loads(said.stdout)
    assert not told["all"]["alarms"]
    assert told["all"]["gradients"] >= 40
    assert set(told["seeds"]) == {"0", "1"}
    again = json.loads(_run("--json", "-j", "2").stdout)
    for one in (told, again):
        for tally in (one["all"], *one["seeds"].values()):
            del tally["cpu"]
    assert told["seeds"] == again["seeds"]


def test_a_wrong_rule_is_an_alarm_with_what_repeats_it() -> None:
    with MUTANTS["sin.input off by 1e-7"].applied():
        said = _run("-v")
    assert said.return_value == 1
    assert "alarm: generated " in said.stdout
    assert ", seed 0: vjp failed" in said.stdout
    assert "engine wrong" in said.stdout
    assert "import refgrad as torch" in said.stdout


def test_what_raises_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Generated, *args: Any) -> Iterator[Any]:
        raise ZeroDivisionError("no such Program")
        yield

    monkeypatch.setattr(Generated, "samples", broken)
    tally = alarms.judged(Task(0, "generated", "0-19", "sin", DEFAULT_CHECKS))
    (event,) = tally.alarms
    assert event.outcome == "errored"
    assert event.label == "after 0-19"
    assert "no such Program" in event.verdict


def test_a_death_costs_one_task_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "deadly.py"
    module.write_text("import os\n\ndef dies():\n    return (lambda x: os._exit(9), (1.0,))\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
    right = Task(0, "generated", "0-1", "sin", ("vjp",))
    deadly = Task(0, f"user:{module}:dies", f"{module}:dies", "dies", ("vjp",))
    with alarms._Crew(2) as crew:
        before, dead, after = crew.work(iter((right, deadly, right)))
    assert [e.outcome for e in dead.alarms] == ["crashed"]
    assert before.gradients == after.gradients > 0


def test_too_much_that_is_undecided_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectations, "INCONCLUSIVE_CAP", -1.0)
    assert _run().return_value == 1


def test_a_known_fault_of_torch_is_counted_apart() -> None:
    tally = alarms.judged(Task(0, "generated", "0-9", "digamma", ("vjp",)))
    assert tally.known
    assert not tally.alarms


def test_no_such_op_is_said() -> None:
    said = CliRunner().invoke(alarms.command, ["-k", "no such op", "-j", "1"])
    assert said.exit_code
    assert "no op has 'no such op' in its name" in str(said.exception)


def test_shares() -> None:
    event = alarms._event(Task(0, "generated", "0-1", "sin", ()), "x", "rr", "inconclusive", "why")
    tally = Tally(judged=99, undecided=[event])
    tally.add(Tally(judged=100))
    assert tally.undecided_share == pytest.approx(1 / 200)
