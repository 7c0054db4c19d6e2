"""The corpus: every witness loads, runs on torch, and is what the hand-picked table says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conformance import engines, sources
from conformance.errors import ProgramError
from conformance.program import Call, Input, Program, Ref
from conformance.settings import Settings
from conformance.sources import Item, Sample
from conformance.sources.captured import cotangents_for
from conformance.sources.corpus import DIRECTORY, Corpus, load, save
from conformance.sources.witnesses import write

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
