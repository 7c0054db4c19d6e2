"""The journal: what a run found, one JSON object a line, appended and flushed as it happens.

    {"kind": "run", "schema": "conformance/1", "run_id", "started", "engine", "reference",
     "environment", "settings", "cases_digest", "planned": {source: items}}
    {"kind": "result", "case", "op", "source", "check", "dtype", "device", "outcome", "duration",
     "evidence": {...}, "repro": {...} | null, "item", "sample"}
    {"kind": "item", "item", "source", "op", "samples", "duration"}
    {"kind": "end", "counts": {outcome: n}, "duration", "exit"}

`item` is the source's unit of work and `sample` counts from 0 within it; an `item` line says that
all its samples are done, so that a run can go on where it stopped. A `resume` line marks where one
did. A journal without an `end` line is an incomplete run. Readers ignore kinds they do not know.

The JSON is strict: nan and the infinities are the strings "NaN", "Infinity" and "-Infinity", which
`float` reads; complex numbers are strings such as "(1+2j)", which `complex` reads.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from conformance.errors import JournalError
from conformance.results import Result

SCHEMA = "conformance/1"
COMMAND = "conformance run"
INLINE_ENTRIES = 64  # arrays larger than this lie beside the journal, not in it


def plain(value: Any) -> Any:
    """`value` as strict JSON data.

    NumPy scalars and arrays of at most 64 entries are converted. Raises TypeError for anything
    that JSON cannot hold.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, complex):
        return str(complex(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "size"):  # NumPy, which is not imported for this
        if value.size > INLINE_ENTRIES:
            raise TypeError(f"an array of {value.size} entries is too large for the journal")
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written to the journal")


def encode(record: Mapping[str, Any]) -> str:
    """One line of a journal, without its newline."""
    return json.dumps(plain(record), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


class Writer:
    """Appends records to a journal, one flushed line each; use it as a context manager.

    Raises JournalError where the file exists already or cannot be written; `advice` is what else
    can be done with one that exists.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, append: bool = False, advice: str = ""
    ) -> None:
        self.path = Path(path)
        if self.path.exists() and not append:
            others = "choose another --journal, or remove it"
            raise JournalError(f"{self.path} exists already: {advice}{others}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if append:
                _drop_cut_off_line(self.path)
            self._file: io.TextIOWrapper = self.path.open("a" if append else "x", encoding="utf-8")
        except OSError as error:
            raise JournalError(
                f"cannot write {self.path} ({error.strerror}): choose another place with --journal"
            ) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        self.write_line(encode(record))

    def write_line(self, line: str) -> None:
        """Append a record that `encode` made elsewhere."""
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; nothing is waiting to be written."""
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class Entry:
    """A result and where it came from: the item's key and the sample's number within it."""

    result: Result
    item: str
    sample: int


@dataclasses.dataclass(frozen=True)
class ItemDone:
    """An item of which every sample is done."""

    item: str
    source: str
    op: str
    samples: int
    duration: float


@dataclasses.dataclass(frozen=True)
class Journal:
    """A journal that was read.

    `end` is None for an incomplete run; `cut_off` says that the last line is half a line.
    """

    path: Path
    header: dict[str, Any]
    entries: tuple[Entry, ...]
    items: tuple[ItemDone, ...]
    end: dict[str, Any] | None
    cut_off: bool

    @property
    def results(self) -> tuple[Result, ...]:
        """The results, in the order in which they came."""
        return tuple(entry.result for entry in self.entries)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.end is not None and not self.cut_off

    @property
    def trouble(self) -> str | None:
        """What is wrong with the journal, in one sentence, or None."""
        if self.cut_off:
            return "The journal's last line is cut off: the run was killed, or the disk is full."
        if self.end is None:
            return "The journal has no end line: the run was interrupted, or is still going on."
        if self.end.get("stopped"):
            return f"The run stopped early: {self.end['stopped']}."
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run, as plain data."""
        settings: dict[str, Any] = self.header.get("settings", {})
        return settings


def read(path: str | os.PathLike[str]) -> Journal:
    """Read a journal, whole or not; a result that stands in it twice is kept once.

    Raises JournalError where the file cannot be read or is not a journal.
    """
    path = Path(path)
    header: dict[str, Any] | None = None
    entries: dict[tuple[str, int, str], Entry] = {}
    items: dict[str, ItemDone] = {}
    end: dict[str, Any] | None = None
    cut_off = False
    for number, record in records(path):
        if record is None:
            cut_off = True
            continue
        kind = record.get("kind")
        if header is None:
            header = header_of(path, record, "run", SCHEMA)
        elif kind == "result":
            try:
                result = Result.from_json(record)
            except (TypeError, ValueError) as error:
                raise JournalError(f"{path}, line {number}: {error}") from error
            item, sample = record.get("item", ""), record.get("sample", number)
            entries[item, sample, result.case] = Entry(result, item, sample)
        elif kind == "item":
            fields: dict[str, Any] = {
                field.name: record.get(field.name) for field in dataclasses.fields(ItemDone)
            }
            items[fields["item"]] = ItemDone(**fields)
        elif kind == "resume":
            end = None
        elif kind == "end":
            end = record
    if header is None:
        raise not_a_journal(path, "it is empty" if not cut_off else "its first line is cut off")
    return Journal(path, header, tuple(entries.values()), tuple(items.values()), end, cut_off)


def records(path: Path, command: str = COMMAND) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The numbered records of a file of JSON lines; None for a last line that is cut off.

    Raises JournalError where the file cannot be read or is none that `command` writes.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    yield number, None
                    return
                try:
                    record = json.loads(raw)
                    if not isinstance(record, dict):
                        raise ValueError("not a JSON object")
                except ValueError as error:
                    if number == 1:
                        raise not_a_journal(
                            path, "its first line is no JSON object", command
                        ) from error
                    raise JournalError(
                        f"{path} is damaged: line {number} is no JSON object. "
                        "Remove that line to read the rest, or repeat the run"
                    ) from error
                yield number, record
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error


def header_of(
    path: Path, record: dict[str, Any], kind: str, schema: str, command: str = COMMAND
) -> dict[str, Any]:
    """A first record, which must be a header of this kind and schema; raises JournalError."""
    if record.get("kind") != kind:
        raise not_a_journal(path, f"its first line is no {kind} header", command)
    if record.get("schema") != schema:
        raise JournalError(
            f"{path} was written in the schema {record.get('schema')!r}; this version reads "
            f"{schema!r}. Read it with the version that wrote it"
        )
    return record


def not_a_journal(path: Path, why: str, command: str = COMMAND) -> JournalError:
    """The error that says so, and which command writes one."""
    return JournalError(
        f"{path} is not a {command.removesuffix(' run')} journal: {why}. "
        f"`{command} --journal FILE` writes one"
    )


def _drop_cut_off_line(path: Path) -> None:
    """Remove half a line at the end of a file: what a killed run left was never a record."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)
