"""Journals made by hand, for the tests of reports and of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance import journal as jl
from conformance.results import Result, case_id
from conformance.settings import Settings


def result(outcome: str = "passed", op: str = "add", **fields: Any) -> Result:
    """A result of the check vjp on the CPU, but for what is given.

    That is `digest`, `source`, `check`, `device`, `evidence` and `repro`.
    """
    source, check = fields.pop("source", "opinfo"), fields.pop("check", "vjp")
    device = fields.pop("device", "cpu")
    case = case_id(source, op, fields.pop("digest", "abc123"), check, "float64", device)
    return Result(case, op, source, check, "float64", device, outcome, **fields)


def header(**fields: Any) -> dict[str, Any]:
    """A run's header."""
    return {
        "kind": "run",
        "schema": jl.SCHEMA,
        "run_id": "r1",
        "started": "2026-11-22T10:00:00+00:00",
        "engine": "refgrad",
        "reference": "torch",
        "environment": {"python": "3.11.7", "torch": "2.13.0", "transformers": None},
        "settings": Settings().to_json(),
        "cases_digest": "d1",
        "planned": {"opinfo": 547},
        **fields,
    }


def write(path: Path, *results: Result, end: bool = True, **fields: Any) -> Path:
    """A journal with these results, each a sample of an item of its own op."""
    with jl.Writer(path) as writer:
        writer.write(header(**fields))
        for number, one in enumerate(results):
            item = f"{one.source}/{one.op}"
            place = {"item": item, "sample": number}
            writer.write({"kind": "result", **one.to_json(), **place})
            done = jl.ItemDone(item, one.source, one.op, number + 1, 0.5)
            writer.write({"kind": "item", **vars(done)})
        if end:
            writer.write({"kind": "end", "counts": {}, "duration": 12.0, "exit": 0})
    return path
