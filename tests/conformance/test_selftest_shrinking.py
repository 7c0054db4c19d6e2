"""Planted faults are met in graphs, shrunk, and shown by scripts; a miss of an aim is said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from conformance.explain import run
from conformance.mutants import MUTANTS, script_with
from conformance.selftest.shrinking import LEAST, Shrinkage, command, missed, misses, shrinkage

GOOD = Shrinkage(
    "a fault", "sign", engine=False, check="vjp", shown="vjp", calls=(5, 1), elements=(40, 2),
    seconds=0.3, lines=18, with_fault=1, without=0,
)  # fmt: skip


def test_a_fault_of_one_op_ends_as_one_op_with_a_script_that_tells_it() -> None:
    found = shrinkage(MUTANTS["matmul.input transposed when square"], 20.0)
    assert found.met
    assert found.calls[0] >= LEAST
    assert found.calls[1] == 1
    assert "torch.matmul" in found.program
    assert (found.with_fault, found.without) == (1, 0), found.printed
    assert found.lines <= 25
    assert "import refgrad as torch" in found.script
    assert "conformance" not in found.script


def test_a_fault_of_the_engine_ends_with_few_ops() -> None:
    found = shrinkage(MUTANTS["a second gradient is subtracted"], 20.0)
    assert found.engine
    assert found.calls[1] <= 5
    assert found.verified
    assert not misses(found)


def test_a_pass_that_raises_ends_as_a_script_that_raises() -> None:
    found = shrinkage(MUTANTS["a second gradient is added into shared memory"], 20.0)
    assert found.check == "rr"
    assert 0 < found.lines <= 25
    assert (found.with_fault, found.without) == (1, 0)


def test_a_fault_that_only_another_check_shows_alone() -> None:
    found = shrinkage(MUTANTS["mul for a transposed cotangent"], 20.0)
    assert found.calls[1] == 1
    assert found.shown != found.check
    assert found.verified


def test_a_script_asks_nothing_whose_answer_is_rounding() -> None:
    """The gradient of softmax's sum is 0, and its derivative; with other cotangents it is not."""
    found = shrinkage(MUTANTS["softmax sees leaves alone"], 20.0)
    assert found.verified, found.printed
    assert "torch.ones_like" not in found.script


def test_no_graph_in_time_is_said() -> None:
    found = shrinkage(MUTANTS["det.A times 0.99"], 1e-9)
    assert not found.met
    assert misses(found) == ["not met in a graph of 3 calls or more"]
    assert missed([found]) == []


def test_a_script_under_a_mutant() -> None:
    text = "import sys\nimport refgrad as torch\nx = torch.ones(1).requires_grad_()\n"
    text += "(x.sin()).sum().backward()\nsys.exit(int(x.grad.item() < 0))\n"
    assert run(text)[0] == 0
    assert run(script_with(MUTANTS["sign of sin.input"], text))[0] == 1


@pytest.mark.parametrize(
    ("bad", "aim"),
    [
        (replace(GOOD, calls=(5, 2)), "few enough calls"),
        (replace(GOOD, engine=True, calls=(9, 6)), "few enough calls"),
        (replace(GOOD, seconds=2.5), "under 2 s"),
        (replace(GOOD, lines=26), "a script of 25 lines or fewer"),
        (replace(GOOD, lines=0, with_fault=None, without=None), "a script of 25 lines or fewer"),
        (replace(GOOD, with_fault=0), "the script exits 1 with the fault and 0 without"),
        (replace(GOOD, without=1), "the script exits 1 with the fault and 0 without"),
        (replace(GOOD, elements=(40, 9)), "8 elements or fewer in 90%"),
    ],
)
def test_each_aim_can_be_missed(bad: Shrinkage, aim: str) -> None:
    assert missed([GOOD] * 8) == []
    assert aim in missed([*[GOOD] * 8, bad])


def test_some_may_be_larger() -> None:
    assert missed([*[GOOD] * 9, replace(GOOD, elements=(40, 2000))]) == []


def test_the_command_prints_the_aims_or_json() -> None:
    args = ["-k", "sign of sin.input", "-j", "1"]
    said = CliRunner().invoke(command, args, standalone_mode=False)
    assert said.return_value == 0, said.output
    assert "all aims are met" in said.stdout
    told = CliRunner().invoke(command, [*args, "--json"], standalone_mode=False)
    (one,) = json.loads(told.stdout)
    assert one["calls"][1] == 1
    assert CliRunner().invoke(command, ["-k", "no such fault"]).exit_code == 2
