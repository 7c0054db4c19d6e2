"""The journal: strict JSON, whole lines, and clear words for what is not one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import journal as jl
from conformance.errors import JournalError
from conformance.results import OUTCOMES, Result
from tests.conformance.journals import header, result, write


@given(st.floats())
def test_every_float_comes_back(value: float) -> None:
    line = jl.encode({"value": value})
    back = float(json.loads(line, parse_constant=pytest.fail)["value"])
    assert math.isnan(back) if math.isnan(value) else back == value
    assert math.copysign(1, back) == math.copysign(1, value) or math.isnan(value)


def test_numpy_values_are_plain() -> None:
    record = {"a": np.float64(1.5), "b": np.arange(3), "c": np.bool_(True), "d": (1, 2j)}
    assert json.loads(jl.encode(record)) == {"a": 1.5, "b": [0, 1, 2], "c": True, "d": [1, "2j"]}


@pytest.mark.parametrize("value", [np.zeros(65), object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"journal"):
        jl.encode({"value": value})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    repro = {"program": "", "script": "s"}
    found = result("failed", evidence={"engine": float("nan")}, repro=repro)
    read = jl.read(write(tmp_path / "j.jsonl", result(), found))
    assert [r.outcome for r in read.results] == ["passed", "failed"]
    assert read.results[1].evidence == {"engine": "NaN"}
    assert read.results[1].repro == found.repro
    assert read.complete
    assert read.trouble is None
    assert read.items[0].item == "opinfo/add"


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    with jl.Writer(tmp_path / "j.jsonl") as writer:
        for count in range(1, 4):
            writer.write({"kind": "run"})
            assert (tmp_path / "j.jsonl").read_text().count("\n") == count


def test_a_journal_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl")
    with pytest.raises(JournalError, match=r"exists already: choose another --journal"):
        jl.Writer(path)
    with pytest.raises(JournalError, match=r"exists already: go on, choose another --journal"):
        jl.Writer(path, advice="go on, ")


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot write .*file/j.jsonl .*--journal"):
        jl.Writer(tmp_path / "file" / "j.jsonl")


def test_a_journal_without_an_end_is_incomplete(tmp_path: Path) -> None:
    read = jl.read(write(tmp_path / "j.jsonl", result(), end=False))
    assert not read.complete
    assert "no end line" in str(read.trouble)


def test_a_last_line_that_is_cut_off_is_named_and_the_rest_read(tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", result(), result("failed", digest="f00"))
    whole = path.read_bytes()
    for length in range(len(whole.splitlines(keepends=True)[0]), len(whole) - 1):
        path.write_bytes(whole[:length])
        read = jl.read(path)
        assert not read.complete
        assert read.cut_off == (whole[length - 1 : length] != b"\n")
    assert len(read.results) == 2


def test_appending_drops_what_was_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", result(), end=False)
    with path.open("a") as file:
        file.write('{"kind": "resu')
    with jl.Writer(path, append=True) as writer:
        writer.write({"kind": "end", "counts": {}, "duration": 1.0, "exit": 0})
    assert jl.read(path).complete


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a conformance journal: it is empty"),
        ("<html>\n", "is not a conformance journal: its first line is no JSON object"),
        ("[1]\n", "is not a conformance journal"),
        ('{"a": 1}\n', "its first line is no run header"),
        ('{"kind": "r', "its first line is cut off"),
        ('{"kind": "run", "schema": "conformance/9"}\n', "schema 'conformance/9'"),
    ],
)
def test_what_is_no_journal_is_said_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(text)
    with pytest.raises(JournalError) as caught:
        jl.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", result())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "garbage\n", *lines[1:]]))
    with pytest.raises(JournalError, match=r"damaged: line 2"):
        jl.read(path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot read .*absent.*No such file"):
        jl.read(tmp_path / "absent.jsonl")
    with pytest.raises(JournalError, match=r"cannot read .*directory"):
        jl.read(tmp_path)


def test_a_result_that_stands_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with jl.Writer(path) as writer:
        writer.write(header())
        for _ in range(2):
            writer.write({"kind": "result", **result().to_json(), "item": "i", "sample": 4})
        writer.write({"kind": "later", "of": "a version to come"})
    assert len(jl.read(path).results) == 1


def test_outcomes_are_a_fixed_set() -> None:
    with pytest.raises(ValueError, match=r"none of passed"):
        result("fine")
    assert {result(outcome).outcome for outcome in OUTCOMES} == set(OUTCOMES)


def test_the_digest_is_the_case_s_middle_part() -> None:
    assert result(op="nn.functional.linear", digest="3f9c2a").digest == "3f9c2a"
    assert result(op="a/b", digest="3f9c2a").digest == "3f9c2a"
    assert Result.from_json(result().to_json()) == result()
