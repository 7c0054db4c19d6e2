"""The corpus: every witness loads, runs on torch, and is what the hand-picked table says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance import engines, sources
from conformance import journal as jl
from conformance.cli import main
from conformance.errors import ProgramError
from conformance.program import Call, Input, Program, Ref
from conformance.results import Result
from conformance.settings import Settings
from conformance.sources import Item, Sample
from conformance.sources.captured import cotangents_for
from conformance.sources.corpus import DIRECTORY, Corpus, load, save
from conformance.sources.generated import Generated
from conformance.sources.witnesses import write
from conformance.worker import item_name
from tests.conformance.journals import header, result

TORCH = engines.load("torch")
ITEMS = Corpus().items(Settings())


def sample_of(item: Item) -> Sample:
    (sample,) = sources.load("corpus").samples(item, Settings())
    assert isinstance(sample, Sample)
    return sample


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.key)
def test_a_witness_runs_and_has_a_gradient(item: Item) -> None:
    sample = sample_of(item)
    assert sample.op == item.op
    assert sample.label == item.key
    assert sample.note
    outputs = TORCH.run(sample.program, sample.values).outputs
    gradients = TORCH.vjp(sample.program, sample.values, cotangents_for(outputs)).gradients
    assert any(g is not None for g in gradients.values())


def test_the_files_are_what_the_table_makes(tmp_path: Path) -> None:
    made = {path.name: path.read_text() for path in write(tmp_path)}
    kept = {path.name: path.read_text() for path in DIRECTORY.glob("*.json")}
    assert made.items() <= kept.items(), "run python -m conformance.sources.witnesses"


def test_a_shrunk_failure_is_saved_and_replayed(tmp_path: Path) -> None:
    x = np.linspace(-1.0, 1.0, 100)
    program = Program(
        (Input.of("x0", x, requires_grad=True),),
        (Call("v0", "torch.sin", (Ref("x0"),)),),
        Ref("v0"),
    )
    save(Sample("sin", program, {"x0": x}, note="larger than most"), tmp_path / "a.json")
    corpus = Corpus(tmp_path)
    (item,) = corpus.items(Settings())
    (found,) = corpus.samples(item, Settings())
    assert isinstance(found, Sample)
    assert found.program == program
    np.testing.assert_array_equal(found.values["x0"], x)


def generated_failure(**fields: Any) -> Result:
    """A failure of the first Program that is generated about sin."""
    chosen = Settings(generated=200)
    item = next(i for i in Generated().items(chosen) if i.op == "sin")
    sample = next(iter(Generated().samples(item, chosen)))
    assert isinstance(sample, Sample)
    digest = sample.program.digest(sample.values)
    evidence = {"verdict": "engine wrong: by a lot"}
    return result("failed", "sin", source="generated", digest=digest, evidence=evidence, **fields)


def journal_of(path: Path, failure: Result) -> Path:
    """A journal with that one result, as a run writes it."""
    chosen = Settings(generated=200)
    item = next(i for i in Generated().items(chosen) if i.op == "sin")
    with jl.Writer(path) as writer:
        writer.write(header(settings=chosen.to_json()))
        writer.write({"kind": "result", **failure.to_json(), "item": item_name(item), "sample": 0})
        writer.write({"kind": "end", "counts": {"failed": 1}, "duration": 1.0, "exit": 1})
    return path


def test_repro_saves_a_witness_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = generated_failure()
    path = journal_of(tmp_path / "run.jsonl", failure)
    witness = tmp_path / "sin-wrong.json"
    assert main(["repro", str(path), failure.case, "--witness", str(witness)]) == 0
    found = load(witness)
    assert (found.op, found.note) == ("sin", "vjp failed: engine wrong: by a lot")
    assert found.program.digest(found.values) == failure.digest
    assert main(["repro", str(path), failure.case, "--witness", str(witness)]) == 4
    assert "exists already" in capsys.readouterr().err


def test_repro_saves_the_shrunk_program_of_a_journal(tmp_path: Path) -> None:
    x = np.array([1.0, -2.0])
    shrunk = Program(
        (Input.of("x0", x, requires_grad=True),),
        (Call("v0", "torch.sin", (Ref("x0"),)),),
        Ref("v0"),
    )
    failure = generated_failure(repro={"witness": shrunk.to_json({"x0": x})})
    path = journal_of(tmp_path / "run.jsonl", failure)
    assert main(["repro", str(path), "sin", "--witness", str(tmp_path / "no" / "a.json")]) == 4
    assert main(["repro", str(path), "sin", "--witness", str(tmp_path / "a.json")]) == 0
    assert load(tmp_path / "a.json").program == shrunk


def test_a_program_that_is_no_longer_drawn_is_no_witness(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = generated_failure()
    stale = replace(failure, case=failure.case.replace(failure.digest, "00000000"))
    path = journal_of(tmp_path / "run.jsonl", stale)
    assert main(["repro", str(path), "sin", "--witness", str(tmp_path / "a.json")]) == 4
    assert "no longer draws" in capsys.readouterr().err


def test_the_corpus_comes_first() -> None:
    assert Settings().sources[0] == "corpus"


@pytest.mark.parametrize("text", ["", "[]", '{"op": "sin"}', '{"op": 1, "note": ""}'])
def test_a_file_that_is_no_witness_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ProgramError, match=r"broken\.json"):
        load(path)


def test_a_witness_without_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(json.dumps({"op": "sin", "note": "nothing"}))
    with pytest.raises(ProgramError, match="schema"):
        load(path)
