"""Saved witnesses: Programs that once showed a fault, or sit where faults are likely.

Each is a JSON file under conformance/corpus: a Program as `Program.to_json` writes it with all
values inline, and beside it "op" and "note". `python -m conformance.sources.witnesses` writes the
hand-picked ones; `conformance repro JOURNAL CASE --witness FILE` adds a failure.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.errors import ProgramError, UsageError
from conformance.journal import Entry, Journal
from conformance.program import Program
from conformance.settings import Settings
from conformance.sources.base import Item, Sample, Skipped

DIRECTORY = Path(__file__).parent.parent / "corpus"


class Corpus:
    """The source `corpus`: every witness of a directory, in the order of their names."""

    name = "corpus"
    items_name_ops = True  # the op of every sample is its item's

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory

    def items(self, settings: Settings) -> list[Item]:
        """One item a witness; raises ProgramError for a file that is none."""
        paths = sorted(self._directory.glob("*.json"))
        return [Item(self.name, path.stem, _read(path)["op"]) for path in paths]

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """The witness itself."""
        yield load(self._directory / f"{item.key}.json")


def save(sample: Sample, path: Path) -> Path:
    """Write a witness; its label is the file's name, not its content."""
    size = max((x.size for x in sample.values.values()), default=0)
    data = sample.program.to_json(sample.values, inline=size)
    text = json.dumps({"op": sample.op, "note": sample.note, **data}, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def from_journal(journal: Journal, entry: Entry) -> Sample:
    """A case of a journal as a witness: the shrunk Program, or its sample drawn again.

    Raises UsageError where its source no longer draws that sample.
    """
    result = entry.result
    said = str(result.evidence.get("verdict") or result.evidence.get("reason") or "")
    note = f"{result.check} {result.outcome}" + (f": {said}" if said else "")
    kept = (result.repro or {}).get("witness")
    if kept is not None:
        return Sample(result.op, *Program.from_json(kept), note=note)
    drawn = _drawn(Settings.from_json(journal.settings), entry)
    if not isinstance(drawn, Sample) or drawn.program.digest(drawn.values) != result.digest:
        raise UsageError(f"{result.source} no longer draws the Program of {result.case}")
    return replace(drawn, op=result.op, label="", note=note)


def _drawn(settings: Settings, entry: Entry) -> Sample | Skipped | None:
    """The sample of an entry, from its source."""
    from conformance import sources
    from conformance.worker import item_name

    source = sources.load(entry.result.source)
    found = [item for item in source.items(settings) if item_name(item) == entry.item]
    samples = itertools.chain.from_iterable(source.samples(item, settings) for item in found)
    return next(itertools.islice(samples, entry.sample, None), None)


def load(path: Path) -> Sample:
    """Read a witness; raises ProgramError where the file is not one."""
    data = _read(path)
    program, values = Program.from_json(data)
    return Sample(data["op"], program, values, label=path.stem, note=data["note"])


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProgramError(f"{path} is not a witness ({error}); remove or repair it") from error
    texts = [data.get(key) for key in ("op", "note")] if isinstance(data, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ProgramError(f"{path} is not a witness: it needs the texts 'op' and 'note'")
    found: dict[str, Any] = data
    return found
