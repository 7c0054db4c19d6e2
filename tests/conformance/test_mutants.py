"""The table of wrong rules: it is broad, one of each fault is killed, refgrad is whole again."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner

import refgrad
from conformance.mutants import MUTANTS
from conformance.mutants.hunt import hunt
from conformance.mutants.mutant import Mutant
from conformance.selftest.mutants import command

# what the issue names, in its order
FAULTS = (
    "sign", "factor", "bias", "1e-7 relative", "unbroadcast lead", "unbroadcast keep",
    "unbroadcast both", "axis", "negative axis", "cyclic permutation",
    "transposed only when square", "stale save", "missing conj", "overwrite",
    "third use dropped", "aliasing", "order of the walk",
    "ties", "clamp edge", "zero factor", "negative only", "|x| > 30 only", "overflow",
    "detached for non-leaf", "second order only", "forward only", "ff only", "requires_grad mask",
    "dtype leak", "float32 only", "complex only", "size-1 only", "0-d", "empty",
    "non-contiguous cotangent", "expanded cotangent", "duplicates", "negative step",
    "integer argument", "above 1,000 elements", "SIMD tail", "in-place after save", "hook order",
    "retain_graph reuse",
)  # fmt: skip

FIRST = {m.fault: name for name, m in reversed(MUTANTS.items())}  # one mutant of each fault


def test_the_table_is_broad() -> None:
    counts = Counter(m.fault for m in MUTANTS.values())
    assert len(MUTANTS) >= 150
    assert not set(FAULTS) - set(counts), "faults without a mutant"


def test_few_are_said_to_be_equivalent_and_why() -> None:
    declared = [m for m in MUTANTS.values() if m.equivalent]
    assert len(declared) <= 0.05 * len(MUTANTS)
    assert all(len(m.equivalent) > 20 for m in declared)


@pytest.mark.parametrize("name", FIRST.values())
def test_a_mutant_is_killed_and_taken_out_again(name: str) -> None:
    mutant = MUTANTS[name]
    kill = hunt(mutant, 20.0, compare=False)
    assert bool(kill.check) != bool(mutant.equivalent), f"{kill.examples} examples"
    assert kill.reached or mutant.equivalent
    x = refgrad.tensor([0.5, -2.0], dtype=refgrad.float64, requires_grad=True)
    (x.exp() * x).sum().backward()
    right = (x.exp() * (1 + x)).detach()
    assert refgrad.equal(x.grad, right) or (x.grad - right).abs().max() < 1e-15


def test_gradcheck_sees_the_same_mutant_on_the_same_samples() -> None:
    seen = hunt(MUTANTS["sign of sin.input"], 20.0)
    assert seen.check
    assert seen.gradcheck["slow"]
    assert seen.gradcheck["fast"]
    unseen = hunt(MUTANTS["sin.input off by 1e-7"], 20.0)
    assert unseen.check
    assert not unseen.gradcheck["slow"]


def test_the_command_prints_a_table_or_json_and_fails_for_a_survivor() -> None:
    run = CliRunner().invoke
    args = ["-k", "sign of sin.input", "--no-gradcheck", "-j", "1"]
    said = run(command, args, standalone_mode=False)
    assert said.return_value == 0
    assert "sign" in said.stdout
    told = run(command, [*args, "--json"], standalone_mode=False)
    (kill,) = json.loads(told.stdout)
    assert kill["check"] == "vjp"


def test_a_survivor_is_named_and_the_command_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Mutant("nothing at all", "none", ("torch.sin",), lambda reached: lambda: None)
    monkeypatch.setitem(MUTANTS, idle.name, idle)
    args = ["-k", idle.name, "--no-gradcheck", "-j", "1", "--seconds", "0.05"]
    said = CliRunner().invoke(command, args, standalone_mode=False)
    assert said.return_value == 1
    assert "nothing at all survives (its place was never reached)" in said.stdout
