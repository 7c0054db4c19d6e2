"""The battery and its table: truths are true, an oracle that lies is seen, peers may be missing."""

from __future__ import annotations

import importlib.util
import json
import math
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from conformance.oracles import stencil
from conformance.selftest import battery, graphs, oracles, peers
from conformance.selftest.battery import BATTERY
from conformance.selftest.graphs import Agreement
from conformance.selftest.measured import Found, Measured

KNOWN = {known.name: known for known in BATTERY}
SMALL = ["--points", "4", "--graphs", "12"]


def test_the_battery_is_broad() -> None:
    assert len(BATTERY) == len(KNOWN) >= 60
    kinds = {known.kind for known in BATTERY}
    assert kinds == {"smooth", "stiff", "oscillating", "near-singular", "cancelling", "scales"}
    assert all(known.points(0, 3) for known in BATTERY)


@pytest.mark.parametrize(
    ("name", "order", "x", "truth"),
    [
        ("sin", 1, 0.7, math.cos(0.7)),
        ("sin", 2, 0.7, -math.sin(0.7)),
        ("sin 100x", 1, 0.0, 100.0),
        ("reciprocal", 2, -0.5, -16.0),
        ("tanh", 1, 20.0, 1 / math.cosh(20) ** 2),
        ("1 - cos", 1, 1e-8, math.sin(1e-8)),
        ("tiny", 1, 0.0, 1e-30),
    ],
)
def test_truths_are_true(name: str, order: int, x: float, truth: float) -> None:
    assert KNOWN[name].truth(x, order) == pytest.approx(truth, rel=1e-14)


def test_at_complex_numbers_too_and_not_where_there_is_none() -> None:
    z = 0.3 + 0.4j
    assert KNOWN["square"].truth(z) == pytest.approx(2 * z)
    assert math.isnan(KNOWN["square root"].truth(0.0).real)
    assert math.isnan(KNOWN["erf"].truth(1e3).real)


FEW = tuple(KNOWN[name] for name in ("sin", "erf", "cube", "tanh 1000x", "chirp", "tan", "tiny"))


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battery, "BATTERY", FEW)


def _run(*args: str) -> Any:
    return CliRunner().invoke(oracles.command, [*SMALL, *args], standalone_mode=False)


@pytest.mark.usefixtures("_few")
def test_the_command_prints_tables_or_json() -> None:
    said = _run("--json", "--no-peers")
    assert said.return_value == 0, said.output
    told = json.loads(said.stdout)
    tools = {tool["tool"]: tool for tool in told["tools"]}
    smooth = tools["stencil, float64"]["by class"]["smooth"]
    assert smooth["median bound"] < 1e-10
    assert tools["complex step"]["by class"]["smooth"]["median error"] < 1e-14
    assert told["complex step on graphs"]["first order, float64"]["share"] == 1.0


@pytest.mark.usefixtures("_few")
def test_an_oracle_that_lies_about_its_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stencil, "FACTOR", 1e-4)
    said = _run("--no-peers")
    assert said.return_value == 1
    assert "aim missed: stencil, float64" in said.stdout
    assert "beyond the bound: stencil, float64" in said.stdout


def test_each_aim_can_be_missed() -> None:
    good = Found("smooth", "f", truth=1.0, value=1.0, bound=1e-12)
    wide = Found("smooth", "f", truth=1.0, value=1.0, bound=1e-9)
    right, wrong = Agreement(graphs=1000, held=1000), Agreement(graphs=1000, held=998)
    met = [Measured(oracles.FLOAT64, [good])]
    assert oracles.shortfalls(met, {"first": right}) == []
    missed = oracles.shortfalls([Measured(oracles.FLOAT64, [wide])], {"first": right})
    assert "median bound" in missed[0]
    missed = oracles.shortfalls(met, {"first": right, "second": wrong})
    assert "second, holds on 99.80%" in missed[0]


def test_a_graph_whose_complex_step_is_off_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for agreement in graphs.measure(0, 6).values():
        assert agreement.held == agreement.graphs > 0
    honest = graphs.by_complex_step

    def off(*args: Any) -> Any:
        opinion = honest(*args)
        return type(opinion)(opinion.value * (1 + 1e-9) + 1e-9, opinion.bound, opinion.oracle)

    monkeypatch.setattr(graphs, "by_complex_step", off)
    first = graphs.measure(0, 6)["first order, float64"]
    assert first.held < first.graphs
    assert first.far


def test_gradcheck_passes_what_the_stencil_does_not() -> None:
    points = [(KNOWN["sin"], 0.3, math.cos(0.3)), (KNOWN["exp"], 1.0, math.e)]
    theirs = {m.tool: m for m in peers.measure(points)}
    for mode in ("gradcheck", "gradcheck, fast"):
        assert theirs[mode].share("right") == theirs[mode].share("0.09 %") == 1.0
    ours = Measured(oracles.FLOAT64)
    for known, x, truth in points:
        found = stencil.derivative(lambda t, f=known: np.asarray(f(np.float64(t))), 1.0, at=x)
        values = float(found.value[0]), float(found.bound[0])
        ours.found.append(Found(known.kind, known.name, truth, *values))
    ours.judge()
    assert ours.share("right") == 1.0
    assert ours.share("0.09 %") == ours.share("1e-6") == 0.0
    assert theirs["scipy.differentiate"].bounded


def test_a_tool_that_is_not_there_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    gone = ("jax", "numdifftools")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in gone else found(n))
    theirs = {m.tool: m.missing for m in peers.measure([(KNOWN["sin"], 0.3, math.cos(0.3))])}
    assert theirs["numdifftools"] == theirs["jax check_grads"] == "not installed"
