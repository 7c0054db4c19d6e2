"""The reducer: a one-op bug ends as one op with few elements, and the rest keeps its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from conformance import engines
from conformance.choose import Seeded
from conformance.program import Call, Input, Program, Ref, Values
from conformance.reduce import reduce
from conformance.sources.generated import draw
from conformance.sources.grammar import OPS
from tests.conformance.wrong_rules import Rule, WrongRule, disagrees
from tests.strategies import programs

RULES: dict[str, Rule] = {
    "factor": lambda g, x: 1.01 * g,
    "sign": lambda g, x: -g,
    "at zero": lambda g, x: torch.where(x == 0, 0.5 * g, g),
    "negative only": lambda g, x: torch.where(x < 0, -g, g),
    "large only": lambda g, x: torch.where(x.abs() > 30, 0 * g, g),
    "size 1 only": lambda g, x: 2 * g if 1 in x.shape else g,
    "rank 4 only": lambda g, x: 2 * g if x.ndim >= 4 else g,
    "not contiguous": lambda g, x: g if x.is_contiguous() else 2 * g,
    "flipped": lambda g, x: g.flip(0) if g.ndim else g,
}
NAMES = ("sin", "mul", "sum", "softmax", "reshape", "__getitem__", "matmul", "cat", "index_add",
         "nn.functional.layer_norm", "nn.functional.conv1d", "where")  # fmt: skip


def witnesses(name: str, rule: Rule, count: int = 3) -> list[tuple[Program, Values, WrongRule]]:
    """Generated Programs on which the wrong rule shows; its results are no views to write into."""
    engine = WrongRule(OPS[name].target, rule)
    fails = disagrees(engine)
    drawn = (draw(Seeded(f"{name}/{n}"), OPS[name]) for n in range(60))
    plain = ((p, v) for p, v in drawn if not any(c.in_place for c in p.calls))
    return [(p, v, engine) for p, v in plain if fails(p, v)][:count]


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_of_one_op_ends_as_one_op(name: str) -> None:
    sizes = []
    for rule in RULES.values():
        for program, values, engine in witnesses(name, rule):
            fails = disagrees(engine)
            small, least = reduce(program, values, fails)
            assert fails(small, least)
            assert [c.target for c in small.calls] == [OPS[name].target], str(small)
            sizes.append(sum(x.size for x in least.values()))
    assert len(sizes) >= 10
    assert sum(size <= 8 for size in sizes) >= 0.9 * len(sizes)


def test_a_write_in_place_ends_as_the_call_that_makes_a_tensor() -> None:
    x0 = np.array([0.5, 1.5])
    calls = (
        Call("v0", "torch.clone", (Ref("x0"),)),
        Call("v1", "torch.Tensor.sin_", (Ref("v0"),)),
        Call("v2", "torch.exp", (Ref("v0"),)),
    )
    program = Program((Input.of("x0", x0, requires_grad=True),), calls, Ref("v2"))
    found, values = reduce(program, {"x0": x0}, lambda p, v: any("sin" in t for t in p.targets))
    assert found.targets == ("torch.sin",)
    assert found.outputs == Ref(found.calls[0].name)
    assert values["x0"].size == 1


def test_values_become_simple() -> None:
    program, values, engine = witnesses("mul", RULES["factor"], 1)[0]
    _, least = reduce(program, values, disagrees(engine))
    assert all(np.isin(x, (0, 1)).all() for x in least.values())


def test_the_same_witness_every_time() -> None:
    program, values, engine = witnesses("matmul", RULES["factor"], 1)[0]
    first = reduce(program, values, disagrees(engine))
    second = reduce(program, values, disagrees(engine))
    assert first[0] == second[0]
    assert first[0].digest(first[1]) == second[0].digest(second[1])


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_the_predicate_is_asked_no_more_than_the_budget(budget: int) -> None:
    program, values, engine = witnesses("softmax", RULES["factor"], 1)[0]
    fails, asked = disagrees(engine), []

    def count(program: Program, values: Values) -> bool:
        asked.append(program)
        return fails(program, values)

    small, least = reduce(program, values, count, budget=budget)
    assert len(asked) <= budget
    assert fails(small, least)


def test_what_takes_two_calls_ends_as_two() -> None:
    def fails(program: Program, values: Values) -> bool:
        makers = {c.name: c.target for c in program.calls}
        return any(
            c.target == "torch.sin" and makers.get(r.name) == "torch.exp"
            for c in program.calls
            for r in c.refs
        )

    x = np.array([[1.5, -2.5, 0.5], [0.25, 3.0, 7.0]])
    calls = [
        Call("v0", "torch.cos", (Ref("x0"),)),
        Call("v1", "torch.exp", (Ref("v0"),)),
        Call("v2", "torch.mul", (Ref("v1"), Ref("v0"))),
        Call("v3", "torch.sin", (Ref("v1"),)),
        Call("v4", "torch.add", (Ref("v3"), Ref("v2"))),
        Call("v5", "torch.sum", (Ref("v4"),), {"dim": 1}),
    ]
    inputs = (Input.of("x0", x, requires_grad=True),)
    small, least = reduce(Program(inputs, tuple(calls), Ref("v5")), {"x0": x}, fails)
    assert small.targets == ("torch.exp", "torch.sin")
    assert least["x0"].size == 1


def test_a_finite_program_stays_finite() -> None:
    def fails(program: Program, values: Values) -> bool:
        return "torch.log" in program.targets

    x = np.array([2.5, 3.5])
    call = Call("v0", "torch.log", (Ref("x0"),))
    program = Program((Input.of("x0", x, requires_grad=True),), (call,), Ref("v0"))
    small, least = reduce(program, {"x0": x}, fails)
    assert np.isfinite(engines.load("torch").run(small, least).outputs[0]).all()


@given(programs())
@settings(max_examples=25)
def test_any_program_reduces_to_one_that_runs(drawn: tuple[Program, Values]) -> None:
    program, values = drawn
    target = program.calls[-1].target
    small, least = reduce(program, values, lambda p, _: target in p.targets)
    assert target in small.targets
    assert engines.load("torch").run(small.check(), least).outputs
