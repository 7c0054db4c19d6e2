"""The journal: every line follows its schema, and what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from conformance.bench.journal import OUTCOMES, Result, read, schema
from conformance.errors import JournalError
from tests.conformance.bench.fakes import FakeEngine, World, unsupported
from tests.conformance.bench.sessions import conduct


@pytest.fixture
def path(tmp_path: Path) -> Path:
    world = World(noise=0.1)
    engines = [
        FakeEngine(world, "refgrad", 0.5),
        FakeEngine(world, "jax", fails={"accumulate": unsupported()}, compile_seconds=1.0),
        FakeEngine(world, "autograd", mistake=2.0),
        FakeEngine(world, "tinygrad", fails={"prepare": MemoryError()}),
    ]
    conduct(tmp_path / "j.jsonl", world, engines, device="cuda", quick=False)
    return tmp_path / "j.jsonl"


def test_every_line_follows_the_schema(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"session", "roofs", "result", "state", "end"}
    for line in lines:
        validator.validate(line)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("session", "schema", "bench/2"),
        ("session", "planned", [["matmul"]]),
        ("result", "outcome", "fine"),
        ("result", "surplus", 1),
        ("result", "phases", {"sideways": {}}),
        ("roofs", "when", "later"),
        ("end", "verdict", "good"),
    ],
)
def test_the_schema_refuses_what_is_wrong(path: Path, kind: str, field: str, value: object) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    line = next(line for line in lines if line["kind"] == kind)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**line, field: value}, schema())


def test_the_schema_knows_the_outcomes() -> None:
    known = schema()["$defs"]["result"]["properties"]["outcome"]["enum"]
    assert tuple(known) == OUTCOMES


def test_results_survive_writing_and_reading(path: Path) -> None:
    for result in read(path).results:
        assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_journal_without_its_end_is_incomplete(path: Path, tmp_path: Path) -> None:
    whole = path.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(whole[:-1]))
    journal = read(cut)
    assert (journal.complete, journal.verdict) == (False, "incomplete")
    assert "no end line" in (journal.trouble or "")
    assert journal.results == read(path).results
    cut.write_text("".join(whole)[:-20])
    assert "cut off" in (read(cut).trouble or "")


def test_kinds_from_later_are_left_alone(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"kind":"weather"}\n', *lines[1:]]))
    assert read(path).complete


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ('{"kind": "run", "schema": "conformance/1"}\n', "its first line is no session header"),
        ('{"kind": "session", "schema": "bench/9"}\n', "this version reads 'bench/1'"),
        ('{"kind": "session", "schema": "bench/1"}\n{"kind": "result"}\n', "line 2 is no result"),
    ],
)
def test_what_is_no_journal_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(JournalError, match=said):
        read(path)
