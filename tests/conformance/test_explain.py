"""A failure's explanation: a shrunk Program, and a script that fails where the bug is."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from conformance import checks
from conformance.child import in_child
from conformance.choose import Seeded
from conformance.engines import load
from conformance.errors import EngineError
from conformance.explain import explain, run
from conformance.program import Array, Call, Input, Program, Ref
from conformance.question import Question, comparison
from conformance.script import binding, runs
from conformance.settings import Settings
from conformance.sources import Sample
from conformance.sources.generated import draw
from conformance.sources.grammar import OPS
from tests.conformance.wrong_rules import WrongRule

BINDINGS = [binding(name) for name in ("torch", "refgrad", "torch on cpu:0")]
X = np.array([0.5, -1.5])
SINE = Program(
    (Input.of("x0", X, requires_grad=True),),
    (Call("v0", "torch.sin", (Ref("x0"),)),),
    Ref("v0"),
)
ONES = [np.ones(2)]


@pytest.mark.parametrize("engine", BINDINGS)
def test_a_script_exits_1_where_the_gradient_is_wrong_and_0_where_not(engine: str) -> None:
    for expected, code in ((np.cos(X), 0), (np.cos(X) + 1e-6, 1), (np.full(2, np.nan), 1)):
        text = comparison(Question("vjp", ONES), SINE, {"x0": X}, {"x0": expected}, engine)
        assert text is not None
        assert len(text.splitlines()) <= 25
        found, printed = run(text)
        assert found == code, printed
        assert "x0 is" in printed


def test_a_script_compares_outputs_too() -> None:
    for expected, code in ((np.sin(X), 0), (np.sin(X)[:1], 1)):
        text = comparison(
            Question("value"), SINE, {"x0": X}, {"0": expected}, "import refgrad as torch"
        )
        assert text is not None
        assert run(text)[0] == code


@pytest.mark.parametrize("engine", BINDINGS)
@pytest.mark.parametrize("kind", ["jvp", "rr", "fr", "rf", "ff"])
def test_a_script_asks_by_the_route_of_its_check(kind: str, engine: str) -> None:
    t, u = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    right = {"jvp": np.cos(X) * t, "ff": -np.sin(X) * t * u}.get(kind, -np.sin(X) * t)
    question = Question(kind, ONES, {"x0": t}, {"x0": u})
    name = "0" if kind in ("jvp", "ff") else "x0"
    for expected, code in ((right, 0), (right + 1e-6, 1)):
        text = comparison(question, SINE, {"x0": X}, {name: expected}, engine)
        assert text is not None
        assert len(text.splitlines()) <= 25
        found, printed = run(text)
        assert found == code, printed


@pytest.mark.parametrize("values", [np.linspace(0.0, 1.0, 100), np.full(100, 0.5)])
def test_a_larger_array_is_packed_and_many_values_are_too_many(values: Array) -> None:
    def text(x: Array, right: Array) -> str | None:
        large = Program((Input.of("x0", x, requires_grad=True),), SINE.calls, SINE.outputs)
        return comparison(Question("vjp", [np.ones(x.size)]), large, {"x0": x}, {"x0": right})

    for right, code in ((np.cos(values), 0), (np.cos(values) + 1e-6, 1)):
        short = text(values, right)
        assert short is not None
        assert len(short.splitlines()) <= 25
        assert run(short)[0] == code
    assert text(np.zeros(20_000), np.ones(20_000)) is None


def test_a_failing_sample_is_shrunk_and_its_script_holds_what_is_right() -> None:
    engine = WrongRule("torch.matmul", lambda g, x: 1.01 * g)
    context = checks.context_for(Settings(checks=("vjp",), standalone=0), engine)
    (check,) = checks.load(["vjp"])
    for number in range(20):
        program, values = draw(Seeded(number), OPS["matmul"])
        case = context.case(Sample("matmul", program, values), "generated")
        finding = next(check.run(case))
        if finding.outcome == "failed":
            break
    repro = explain(case, check, finding)
    assert repro["program"].count("torch.") == 1
    program, _ = Program.from_json(repro["witness"])
    assert str(program) == repro["program"]
    assert "torch.matmul" in repro["program"]
    assert not repro["verified"]
    assert len(repro["script"].splitlines()) <= 25
    assert run(repro["script"])[0] == 0


def test_the_script_was_seen_to_fail_where_the_engine_can_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WrongRule, "name", "refgrad")
    engine = WrongRule("torch.sin", lambda g, x: -g)
    context = checks.context_for(Settings(checks=("vjp",), standalone=0), engine)
    (check,) = checks.load(["vjp"])
    case = context.case(Sample("sin", SINE, {"x0": X}), "generated")
    repro = explain(case, check, next(check.run(case)))
    assert "import refgrad as torch" in repro["script"]
    assert repro["exit"] == 0  # refgrad is right, so the script says so
    assert not repro["verified"]


def test_a_script_of_torch_on_a_device_makes_its_tensors_there() -> None:
    assert binding("torch on cuda").splitlines() == [
        "import torch",
        "torch.set_default_device('cuda')",
    ]
    assert "put the engine's import here" in binding("refgrad on cuda")
    assert [runs(n) for n in ("torch", "torch on cuda", "refgrad", "refgrad on cuda", "mine")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_child_that_crashes_raises_or_hangs_gives_nothing() -> None:
    def fail() -> Any:
        raise EngineError("no")

    assert in_child(lambda: SINE) == SINE
    assert in_child(os.abort) is None
    assert in_child(fail) is None
    assert in_child(lambda: time.sleep(60), seconds=0.2) is None
    assert load("torch").run(SINE, {"x0": X}).outputs


def test_a_child_of_a_process_with_torch_threads_does_not_wait_for_them() -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    x = torch.full((1 << 20,), 0.5)
    try:
        torch.set_num_threads(2)
        total = float(x.exp().sum())  # starts the pool
        assert in_child(lambda: float(x.exp().sum())) == pytest.approx(total, rel=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_a_script_that_hangs_is_stopped() -> None:
    assert run("while True: pass", seconds=0.5)[0] is None
