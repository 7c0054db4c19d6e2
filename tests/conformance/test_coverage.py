"""Class coverage: what is counted, what cannot be, and the command that prints it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from conformance.choose import Seeded
from conformance.cli import main
from conformance.program import Call, Input, Program, Ref, Values
from conformance.settings import Settings
from conformance.sources import Sample
from conformance.sources.coverage import CALLS, CLASSES, coverage, merged, short, why_not
from conformance.sources.draft import FOCUSES
from conformance.sources.generated import TURNS, Generated, draw
from conformance.sources.grammar import OPS


def one_call(target: str, *arrays: Any, frozen: tuple[int, ...] = ()) -> tuple[Program, Values]:
    named = {f"x{n}": np.asarray(array) for n, array in enumerate(arrays)}
    inputs = tuple(
        Input.of(name, array, requires_grad=n not in frozen)
        for n, (name, array) in enumerate(named.items())
    )
    return Program(inputs, (Call("v0", target, tuple(map(Ref, named))),), Ref("v0")), named


@pytest.mark.parametrize(
    ("array", "met"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], set()),
        ([1.0, 0.0], {"exact zero"}),
        ([2.0, 1.0, 2.0], {"tie"}),
        ([1.0, 31.0], {"|x| > 30"}),
        ([1.0, -2.0], {"negative"}),
        ([[1.0, 2.0]], {"size-1"}),
        (1.0, {"rank 0"}),
        (np.arange(1.0, 17.0).reshape(2, 2, 2, 2), {"rank 4+"}),
        (np.ones((2, 0)), {"empty"}),
        (np.arange(1.0, 7.0).reshape(2, 3).T, {"non-contiguous"}),
        (np.arange(1.0, 7.0)[::2], {"non-contiguous"}),
        ([1.0 + 2.0j, 40.0j], {"|x| > 30"}),
    ],
)
def test_an_operand_belongs_to_its_classes(array: Any, met: set[str]) -> None:
    (row,) = coverage([one_call("torch.sin", array)]).values()
    assert set(row) - {CALLS} == met
    assert row[CALLS] == 1


def test_twice_and_masks_are_of_calls() -> None:
    program, values = one_call("torch.mul", [1.0, 2.0], [3.0, 4.0], frozen=(1,))
    assert coverage([(program, values)]) == {"torch.mul": {CALLS: 1, "requires_grad mask": 1}}
    square = Program(program.inputs[:1], (Call("v0", "torch.mul", (Ref("x0"),) * 2),), Ref("v0"))
    assert coverage([(square, values)]) == {"torch.mul": {CALLS: 1, "same tensor twice": 1}}


def test_an_operand_counts_as_it_was_when_the_call_ran() -> None:
    program, values = one_call("torch.clone", [1.0, 2.0])
    calls = (
        *program.calls,
        Call("v1", "torch.exp", (Ref("v0"),)),
        Call("v2", "torch.Tensor.zero_", (Ref("v0"),)),
        Call("v3", "torch.sin", (Ref("v0"),)),
    )
    table = coverage([(Program(program.inputs, calls, (Ref("v1"), Ref("v3"))), values)])
    assert "exact zero" not in table["torch.exp"]
    assert table["torch.sin"]["exact zero"] == 1


def test_tables_add_up_and_what_is_short_is_told() -> None:
    table = coverage([one_call("torch.sin", [0.0, 1.0])])
    twice = merged([table, table])
    assert twice["torch.sin"]["exact zero"] == 2
    cells = short(twice, 3)
    assert ("sin", "exact zero", 2) in cells
    assert ("cos", "tie", 0) in cells
    assert ("sin", "exact zero", 2) not in short(twice, 2)
    assert not any(op == "log" and name == "exact zero" for op, name, _ in cells)


def test_what_cannot_be_is_rare_and_never_a_binary_op() -> None:
    impossible = [(op, name) for op in OPS for name in CLASSES if why_not(op, name)]
    assert len(impossible) < 0.12 * len(OPS) * len(CLASSES)
    assert not any(op in ("add", "mul", "maximum", "where", "cat") for op, name in impossible
                   if name != "rank 0")  # fmt: skip


@pytest.mark.parametrize("focus", FOCUSES)
def test_a_class_in_mind_is_met(focus: str) -> None:
    names = {"frozen": "requires_grad mask", "twice": "same tensor twice", "big": "|x| > 30"}
    name = names.get(focus, focus)
    drawn = {op: draw(Seeded(f"{op}/{focus}"), OPS[op], focus=focus) for op in OPS}
    met = [
        name in coverage([case]).get(OPS[op].target, {})
        for op, case in drawn.items()
        if not why_not(op, name)
    ]
    # a Program with no other input is given a gradient; not every shape fits twice
    assert sum(met) >= (0.5 if focus in ("frozen", "twice") else 0.9) * len(met)


def test_the_turns_name_every_focus() -> None:
    assert set(TURNS) - {""} == set(FOCUSES)


def test_a_block_meets_the_rare_classes_of_its_op() -> None:
    chosen = Settings(generated=40 * len(OPS), block=40)
    (item,) = (i for i in Generated().items(chosen) if i.op == "add")
    drawn = [s for s in Generated().samples(item, chosen) if isinstance(s, Sample)]
    row = coverage((s.program, s.values) for s in drawn)["torch.add"]
    assert min(row[name] for name in CLASSES) >= 3


def test_the_command_counts_and_fails_below_the_least(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["coverage", "--generated", "340", "-k", "sinh"]
    assert main([*given, "--least", "1000"]) == 1
    shown = capsys.readouterr().out
    assert "short: sinh, exact zero: " in shown
    assert "|x| > 30: the result, or what is left of the derivative" in shown
    assert main([*given, "--least", "0", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ops"]["sinh"]["calls"] >= 2
    assert data["short"] == []
    assert {"op": "sinh", "class": "same tensor twice", "reason": "it takes one tensor"} in data[
        "impossible"
    ]
