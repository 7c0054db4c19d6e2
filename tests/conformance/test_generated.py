"""The generator: every Program runs, is repeatable, and the classes that hurt all occur."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from conformance.choose import Seeded, subset
from conformance.engines import load
from conformance.program import Program, Values
from conformance.settings import Settings
from conformance.sources import Item, Sample, Skipped
from conformance.sources import values as classes
from conformance.sources.coverage import CLASSES, coverage
from conformance.sources.draft import LIMIT, resolve
from conformance.sources.generated import Generated, draw
from conformance.sources.grammar import FAMILIES, OPS
from conformance.sources.names import canonical
from conformance.sources.values import Domain
from tests.strategies import programs

TORCH = load("torch")


def runs(program: Program, values: Values) -> None:
    """Assert that a Program is well formed, finite, and has a gradient."""
    program.check()
    outputs = TORCH.run(program, values).outputs
    assert all(np.isfinite(y).all() and np.abs(y).max(initial=0) <= LIMIT for y in outputs)
    cotangents = [np.ones_like(y) for y in outputs]
    gradients = TORCH.vjp(program, values, cotangents).gradients
    assert any(g is not None for g in gradients.values())


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_drawn_and_runs(name: str) -> None:
    for number in range(8):
        program, values = draw(Seeded(f"{name}/{number}"), OPS[name])
        assert OPS[name].target in program.targets
        runs(program, values)


@given(programs())
@settings(max_examples=100)
def test_programs_that_hypothesis_draws_run(drawn: tuple[Program, Values]) -> None:
    runs(*drawn)


@given(programs(op="softmax"))
@settings(max_examples=20)
def test_hypothesis_draws_about_one_op(drawn: tuple[Program, Values]) -> None:
    assert "torch.softmax" in drawn[0].targets


def test_the_same_seed_draws_the_same_programs() -> None:
    def digests(seed: int) -> list[str]:
        source, chosen = Generated(), Settings(generated=40, seed=seed)
        samples = [s for item in source.items(chosen) for s in source.samples(item, chosen)]
        return [s.program.digest(s.values) for s in samples if isinstance(s, Sample)]

    assert digests(3) == digests(3)
    assert digests(3) != digests(4)


def test_as_many_programs_as_asked_for_spread_over_the_ops() -> None:
    chosen = Settings(generated=500, block=2)
    items = Generated().items(chosen)
    drawn = [s for item in items for s in Generated().samples(item, chosen)]
    assert len(drawn) == 500
    assert {item.op for item in items} == set(OPS)
    fewer = Generated().items(Settings(generated=40))
    assert all(any(item.op in family for item in fewer) for family in names_by_family())


def names_by_family() -> list[set[str]]:
    return [{op.name for op in family} for family in FAMILIES.values()]


def test_dtypes_take_turns_and_others_are_skipped() -> None:
    chosen = Settings(dtypes=("float64", "float32", "complex64"))
    drawn = list(Generated().samples(Item("generated", "0-1", "sum"), chosen))
    assert isinstance(drawn[0], Skipped)
    assert "complex64" in drawn[0].reason
    made = [s.program.inputs[0].dtype for s in drawn if isinstance(s, Sample)]
    assert sorted(made) == ["float32", "float64"]


def test_where_no_dtype_is_asked_for_a_few_are_not_float64() -> None:
    drawn = list(Generated().samples(Item("generated", "0-15", "sum"), Settings()))
    made = Counter(s.program.inputs[0].dtype for s in drawn if isinstance(s, Sample))
    assert made == {"float64": 12, "float32": 2, "complex128": 2}


def test_an_op_without_complex_numbers_says_so_or_falls_back() -> None:
    item = Item("generated", "0-7", "relu")
    asked = list(Generated().samples(item, Settings(dtypes=("complex128",))))
    assert len(asked) == 8
    said = [s.reason for s in asked if isinstance(s, Skipped)]  # a few meet real results
    assert len(said) >= 6
    assert all("complex128" in reason for reason in said)
    assert all(isinstance(s, Sample) for s in Generated().samples(item, Settings()))


def test_values_that_are_views_keep_their_strides() -> None:
    drawn = [draw(Seeded(n)) for n in range(100)]
    strides = {
        (i.strides == tuple(s // x.itemsize for s in x.strides))
        for program, values in drawn
        for i, x in ((i, values[i.name]) for i in program.inputs)
    }
    assert strides == {True}


def test_every_class_of_operand_occurs() -> None:
    drawn = [draw(Seeded(f"{name}/{n}"), OPS[name]) for name in OPS for n in range(10)]
    table = coverage(drawn)
    assert set(table) == {op.target for op in OPS.values()}
    counts = {name: sum(row[name] for row in table.values()) for name in ("calls", *CLASSES)}
    print(counts)
    rare = {name: count for name, count in counts.items() if count < counts["calls"] * 0.02}
    assert not rare


def test_graphs_share_and_leave_unused() -> None:
    drawn = [draw(Seeded(n))[0] for n in range(300)]
    outputs = [p.outputs if isinstance(p.outputs, tuple) else (p.outputs,) for p in drawn]
    assert any(len(tree) > 2 for tree in outputs)
    assert any(p.live().calls != p.calls for p in drawn)
    uses = [[r for call in p.calls for r in call.refs] for p in drawn]
    assert any(len(refs) > len(set(refs)) for refs in uses)
    assert any(len(p.calls) >= 6 for p in drawn)


def test_targets_are_named_as_a_capture_names_them() -> None:
    assert len(OPS) == sum(len(family) for family in FAMILIES.values())
    assert {op.target: canonical(resolve(op.target), (), {})[0] for op in OPS.values()} == {
        op.target: op.target for op in OPS.values()
    }


@pytest.mark.parametrize("kind", classes.CLASSES)
def test_values_of_a_class(kind: str) -> None:
    x = classes.draw(Seeded(1), (3, 4), kind=kind)
    met = {
        "ordinary": np.unique(x).size == 12,
        "negative": bool((x < 0).all()),
        "zeros": bool((x == 0).any() and (x != 0).any()),
        "ties": np.unique(x).size < 12 and bool((x != 0).all()),
        "big": bool((np.abs(x) >= 30).all()),
    }
    assert met[kind]


@pytest.mark.parametrize(
    "domain",
    [Domain(low=0.125), Domain(gap=0.125), Domain(-0.9, 0.9), Domain(-40.0, 8.0), Domain(0.25, 4)],
    ids=str,
)
def test_values_stay_in_their_domain(domain: Domain) -> None:
    for kind, seed in itertools.product(domain.classes, range(20)):
        x = classes.draw(Seeded(seed), (7,), domain, kind)
        nearest = float(np.abs(x).min())
        assert domain.holds(float(x.min()), float(x.max()), nearest), kind


@pytest.mark.parametrize("layout", classes.LAYOUTS)
def test_a_layout_keeps_the_values(layout: str) -> None:
    x = classes.draw(Seeded(1), (2, 3, 4))
    y = classes.lay(x, layout)
    np.testing.assert_array_equal(x, y)
    assert y.flags.c_contiguous == (layout == "contiguous")


def test_a_permutation_holds_every_number() -> None:
    drawn = {tuple(classes.permutation(Seeded(n), 3)) for n in range(100)}
    assert drawn == set(itertools.permutations(range(3)))


def test_a_subset_has_the_least_number_and_no_repetition() -> None:
    for seed in range(50):
        chosen = subset(Seeded(seed), range(5), 2)
        assert 2 <= len(chosen) == len(set(chosen))
