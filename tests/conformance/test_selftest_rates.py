"""`selftest rates`: whose time counts, and of which round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conformance.cli import main  # noqa: E402
from conformance.engines.torch import TorchEngine  # noqa: E402
from conformance.selftest import rates  # noqa: E402
from conformance.sources import Sample  # noqa: E402


class Clock:
    """Stands still unless it is told that time has passed."""

    def __init__(self) -> None:
        self.now = 0.0

    def process_time(self) -> float:
        return self.now


@pytest.fixture
def samples() -> list[Sample]:
    return rates._drawn("generated", 30, seed=0)


def test_of_each_chunk_the_fastest_round_counts(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(rates, "time", clock)
    # Of 30 samples that is a chunk of 20 and one of 10. A round takes 1 second a sample, and one
    # chunk of each is disturbed: it takes 3.
    warm = iter([0.0] * len(samples))
    rounds: Iterator[float] = iter([3.0] * 20 + [1.0] * 10 + [1.0] * 20 + [3.0] * 10)

    class Meter:
        seconds = 0.0

    meter = Meter()

    def ours(_: Any) -> None:
        taken = next(warm, None)
        spent = next(rounds) if taken is None else taken
        clock.now += spent
        meter.seconds += spent / 4

    def judge(*_: Any) -> None:
        clock.now += 0.5

    prepared: list[Sample] = []

    def prepare(sample: Sample) -> Sample:
        clock.now += 100.0  # is not counted
        prepared.append(sample)
        return sample

    given = (samples, prepare, ours, {"theirs": judge}, 2, meter)
    found = rates._in_turns(rates.Rate("name", "aim"), *given)
    assert (found.samples, found.ours) == (30, 30.0)
    # Of the first 30 for the warm-up, then of both rounds.
    assert len(prepared) == 90
    count, seconds = found.gradchecks["theirs"]
    assert 0 < count <= 2 * rates.GRADCHECKED
    assert seconds == count * 0.5
    assert found.rate == 1.0
    assert found.reference == 30 / 4
    assert found.own_rate == pytest.approx(4 / 3)


def test_a_round_finds_nothing_that_an_earlier_one_remembers(samples: list[Sample]) -> None:
    for sample in samples:
        program = sample.program
        program.digest(sample.values)
        assert program.targets  # is remembered from here on
        fresh = rates._fresh(sample)
        assert fresh.program == program
        assert fresh.values is sample.values
        fields = set(type(program).__dataclass_fields__)
        assert set(vars(fresh.program)) == fields < set(vars(program))
        for call in fresh.program.calls:
            assert set(vars(call)) == set(type(call).__dataclass_fields__)


def test_the_function_is_the_program(samples: list[Sample]) -> None:
    engine = TorchEngine()
    for sample in samples:
        function, leaves = rates.on_torch(sample)
        taken = [t.clone() if t.is_leaf else t for t in leaves]
        made = function(*taken)
        no_cotangents = [None] * len(engine.run(sample.program, sample.values).outputs)
        expected = engine.vjp(sample.program, sample.values, no_cotangents)
        whole = zip(expected.outputs, expected.differentiable or (), strict=True)
        right = [output for output, yes in whole if yes]
        assert len(made) == len(right)
        for found, output in zip(made, right, strict=True):
            np.testing.assert_array_equal(engine.to_numpy(found), output)


def test_the_table_has_every_workload_and_its_aim(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["selftest", "rates", "--samples", "8", "--rounds", "1", "--no-profile", "--json"]
    assert main(given) == 0
    table = json.loads(capsys.readouterr().out)["rates"]
    assert [r["aim"] for r in table] == [
        "1,500 without torch's time", "450", f"{rates.PAIRS**2 / 10:.0f}", "300", "300",
    ]  # fmt: skip
    for row in table:
        assert row["samples"] > 0
        assert row["samples a second"] > 0
