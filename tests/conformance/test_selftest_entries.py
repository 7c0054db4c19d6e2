"""One wrong entry among many: it is reported, found and named, and what is missed is said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from conformance.engines import load
from conformance.selftest import detection
from conformance.selftest.detection import (
    BOX,
    COMPARISON,
    Detection,
    by_black_box,
    by_comparison,
    by_gradcheck,
    measured,
    single,
)
from conformance.selftest.entries import command
from conformance.selftest.faults import faults
from conformance.selftest.functions import KINDS, Subject, near_square, subject


def made(kind: str, size: int, dtype: str = "float64") -> Subject:
    return subject(kind, size, dtype, np.random.default_rng(size))


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_any_kind_has_a_leaf_of_the_size(kind: str) -> None:
    for size in (1, 7, 12):
        one = made(kind, size, "float32")
        assert one.size == size
        (output,) = load("torch").run(one.program, one.values).outputs
        assert output.dtype == np.float32


def test_rows_and_columns_are_near_each_other() -> None:
    assert [near_square(n) for n in (1, 7, 12, 36)] == [(1, 1), (1, 7), (3, 4), (6, 6)]


@pytest.mark.parametrize("kind", ["elementwise", "softmax", "indexing"])
@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-9), ("float32", 2e-5)])
def test_one_wrong_entry_is_found_entry_by_entry(kind: str, dtype: str, error: float) -> None:
    change = single(5, error)
    said = by_comparison(made(kind, 36, dtype), lambda right, _: change(right))
    assert said.reported
    assert said.index == (0, 5)
    assert said.wrong_entries == 1
    assert "one entry of 36 is wrong, at (0, 5)" in said.sentence
    right = by_comparison(made(kind, 36, dtype), lambda right, _: right)
    assert not right.reported


def test_a_black_box_shows_it_to_differences() -> None:
    said = by_black_box(made("matmul", 100), single(42, 1e-8))
    assert said.reported
    assert said.index == (4, 2)
    assert said.slug == "single entry"
    assert not by_black_box(made("matmul", 100), single(42, 0.0)).reported


def test_gradcheck_is_asked_of_the_same_function() -> None:
    assert not by_gradcheck(made("elementwise", 36), single(5, 1e-6))
    assert by_gradcheck(made("elementwise", 36), single(5, 30.0))


@pytest.mark.parametrize("kind", ["matmul", "sort", "broadcast"])
def test_a_gradient_in_disorder_is_described(kind: str) -> None:
    one = made(kind, 36)
    seen = set()
    for fault in faults(one, np.random.default_rng(0)):
        said = by_comparison(one, fault.change, fault.keeps)
        assert said.reported, fault.name
        assert fault.described(said.slug, said.sentence), (fault.name, said.sentence)
        seen.add(fault.name)
    expected = {
        "matmul": {"permuted", "exchanged", "rolled", "flipped", "transposed", "sign", "factor"},
        "sort": {"unsorted"},
        "broadcast": {"unreduced", "one copy alone", "the mean for the sum"},
    }
    assert expected[kind] <= seen


def test_other_words_are_no_description() -> None:
    rolled = next(
        f for f in faults(made("scan", 12), np.random.default_rng(0)) if f.name == "rolled"
    )
    assert rolled.described("permuted", "the gradient is rolled by 1 along axis 0")
    assert not rolled.described("permuted", "the gradient is rolled by 1 along axis 1")
    assert not rolled.described("wrong", "the gradient is rolled by 1 along axis 0")


def test_a_function_without_a_gradient_is_left_out() -> None:
    assert measured((COMPARISON, "softmax", 1, "float64", 1, 0, False)) == (None, [])


def test_the_command_prints_what_it_found_or_json() -> None:
    args = ["-k", "scan", "--sizes", "4,13", "--entries", "1", "-j", "1"]
    said = CliRunner().invoke(command, args, standalone_mode=False)
    assert said.return_value == 0, said.output
    assert f"single wrong entries: {COMPARISON}" in said.stdout
    assert f"single wrong entries: {BOX}" in said.stdout
    assert "rolled" in said.stdout
    told = CliRunner().invoke(command, [*args, "--no-gradcheck", "--json"], standalone_mode=False)
    rows = json.loads(told.stdout)["entries"]
    assert {r["reported"] for r in rows} == {1}
    assert all(r["smallest"] <= r["limit"] for r in rows)


def test_what_is_missed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(*_: Any) -> Detection:
        return Detection(reported=False, seconds=0.1)

    monkeypatch.setattr(detection, "by_comparison", deaf)
    row, disorders = measured((COMPARISON, "matmul", 4, "float64", 2, 0, False))
    assert row is not None
    assert row.missed == 6
    assert row.smallest is None
    assert {d.missed for d in disorders} == {2}


@pytest.mark.parametrize("sizes", ["", "0", "a,b", "-3"])
def test_sizes_that_are_none_are_refused(sizes: str) -> None:
    said = CliRunner().invoke(command, ["--sizes", sizes])
    assert said.exit_code == 2
    assert "whole numbers joined by commas" in said.output
