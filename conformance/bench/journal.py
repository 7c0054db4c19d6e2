"""The journal of a session: what was timed, one JSON object a line, flushed as it happens.

    {"kind": "session", "schema": "bench/1", "session_id", "started", "settings", "device", "note",
     "engines": {name: {"absent": reason | null, "versions"}}, "environment", "threads", "planned"}
    {"kind": "roofs", "when": "start" | "end", ...}
    {"kind": "result", "workload", "group", "size", "engine", "control", "outcome", "phases", ...}
    {"kind": "state", "workload", "size", ...}         of a GPU, after each case
    {"kind": "end", "verdict", "reasons", "duration", "stopped", "unreached", ...}

`journal.schema.json` beside this module says every field. A journal without its `end` line is of a
session that did not end, and every reader says so. Readers ignore kinds they do not know. The JSON
is strict, as in `conformance.journal`.

outcome is one of `OUTCOMES`: timed; wrong (the gradients are not torch's, so it was not timed);
unsupported; out of memory; slow (its budget allows less than the fewest rounds; one call may have
been timed); errored.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from conformance import journal as jl
from conformance.bench.statistics import Interval, Spread
from conformance.errors import JournalError

SCHEMA = "bench/1"
COMMAND = "conformance bench run"
CONTROL = "torch (control)"
BASELINE = "torch"

TIMED, WRONG, UNSUPPORTED = "timed", "wrong", "unsupported"
OUT_OF_MEMORY, SLOW, ERRORED = "out of memory", "slow", "errored"
OUTCOMES = (TIMED, WRONG, UNSUPPORTED, OUT_OF_MEMORY, SLOW, ERRORED)


def schema() -> dict[str, Any]:
    """The JSON schema of a journal's line."""
    text = resources.files("conformance.bench").joinpath("journal.schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@dataclasses.dataclass(frozen=True)
class Phase:
    """The readings of one phase: seconds a call, by round, and their ratio to torch eager's.

    `calls` make a reading. `host` is the median by the host's clock where a device's was read.
    """

    spread: Spread
    calls: int
    ratio: Interval | None
    rounds: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    host: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **dataclasses.asdict(self.spread),
            "calls": self.calls,
            "ratio": dataclasses.asdict(self.ratio) if self.ratio else None,
            "host": self.host,
            "rounds": list(self.rounds),
            "seconds": [float(f"{value:.5g}") for value in self.seconds],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Phase:
        """From plain data; raises KeyError or TypeError for what is none."""
        spread = Spread(*(data[field.name] for field in dataclasses.fields(Spread)))
        ratio = Interval(**data["ratio"]) if data["ratio"] else None
        return cls(
            spread,
            data["calls"],
            ratio,
            tuple(data["rounds"]),
            tuple(data["seconds"]),
            data["host"],
        )


@dataclasses.dataclass(frozen=True)
class Result:
    """One engine on one workload at one size.

    `flops` and `bytes` are those of a phase; `missing` says why a phase was not timed; `memory`
    holds peak and held bytes by the way of counting; `collector` the seconds of a step with the
    garbage collector and without it, on long chains; `disturbed` is the share of calls in which
    the kernel took the processor away.
    """

    workload: str
    group: str
    size: int
    dtype: str
    order: int
    device: str
    engine: str
    control: bool
    outcome: str
    reason: str = ""
    clock: str = ""
    nodes: int = 0
    flops: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bytes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    phases: Mapping[str, Phase] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    memory: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict)
    collector: Mapping[str, float] | None = None
    compile_seconds: float | None = None
    disturbed: float = 0.0

    @property
    def case(self) -> tuple[str, int]:
        """Workload and size."""
        return self.workload, self.size

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["phases"] = {name: phase.to_json() for name, phase in self.phases.items()}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """From plain data; raises KeyError or TypeError for what is none."""
        known = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        known["phases"] = {name: Phase.from_json(one) for name, one in data["phases"].items()}
        return cls(**known)


@dataclasses.dataclass(frozen=True)
class Journal:
    """A session that was read; `end` is None where it did not end."""

    path: Path
    header: dict[str, Any]
    results: tuple[Result, ...]
    roofs: tuple[dict[str, Any], ...]
    states: tuple[dict[str, Any], ...]
    end: dict[str, Any] | None
    cut_off: bool

    @property
    def complete(self) -> bool:
        """Whether the session came to its end, if only because its time was up."""
        return self.end is not None and not self.cut_off

    @property
    def trouble(self) -> str | None:
        """What is wrong with the journal, in one sentence, or None."""
        if self.cut_off:
            return "The journal's last line is cut off: the session was killed, or the disk full."
        if self.end is None:
            return "The journal has no end line: the session was interrupted, or still goes on."
        if self.end["stopped"] == "interrupted":
            return "The session was interrupted."
        return None

    @property
    def verdict(self) -> str:
        """valid, noisy, invalid, or incomplete."""
        if self.end is None or self.trouble:
            return "incomplete"
        return str(self.end["verdict"])


def read(path: str | os.PathLike[str]) -> Journal:
    """Read a session's journal, whole or not.

    Raises JournalError where the file cannot be read or is not one.
    """
    path = Path(path)
    header: dict[str, Any] | None = None
    results: list[Result] = []
    roofs: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    end: dict[str, Any] | None = None
    cut_off = False
    for number, record in jl.records(path, COMMAND):
        if record is None:
            cut_off = True
        elif header is None:
            header = jl.header_of(path, record, "session", SCHEMA, COMMAND)
        elif record.get("kind") == "result":
            try:
                results.append(Result.from_json(record))
            except (KeyError, TypeError, ValueError) as error:
                raise JournalError(f"{path}, line {number} is no result: {error!r}") from error
        elif record.get("kind") == "roofs":
            roofs.append(record)
        elif record.get("kind") == "state":
            states.append(record)
        elif record.get("kind") == "end":
            end = record
    if header is None:
        raise jl.not_a_journal(
            path, "it is empty" if not cut_off else "its first line is cut off", COMMAND
        )
    return Journal(path, header, tuple(results), tuple(roofs), tuple(states), end, cut_off)
