"""From settings to a journal: threads set, libraries loaded, the place chosen, cases planned."""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path

from conformance.bench import machine
from conformance.bench.engine import agree
from conformance.bench.engines import ENGINES, engines
from conformance.bench.journal import BASELINE
from conformance.bench.places import Cuda, Host, Place
from conformance.bench.session import Progress, Session, Settings, header, plan
from conformance.bench.workloads import WORKLOADS
from conformance.errors import UsageError
from conformance.journal import Writer
from conformance.run import RUNS


@dataclasses.dataclass(frozen=True)
class Finished:
    """A session that is over: its journal, the verdict on it, and what is to be said beside."""

    journal: Path
    verdict: str
    note: str


def run(settings: Settings, path: Path | None, progress: Progress) -> Finished:
    """Run a session and write its journal.

    `machine.prepare` is to be called before anything that loads NumPy, this module included.
    Without a GPU, a session that asks for one times the CPU part and says so. Raises UsageError
    where torch, to which everything is held, cannot run, and for names and expressions that choose
    nothing; JournalError where the journal cannot be written.
    """
    began = time.perf_counter()
    names = tuple(dict.fromkeys((BASELINE, *(settings.engines or ENGINES))))
    device, note = settings.device, ""
    able, absent = engines(names, device)
    if BASELINE not in able and device != "cpu":
        note = f"no GPU was timed: {absent[BASELINE]}. What follows is the CPU part."
        device = "cpu"
        able, absent = engines(names, device)
    if BASELINE not in able:
        raise UsageError(f"torch eager, to which all is held, cannot run: {absent[BASELINE]}")
    cases = plan(WORKLOADS.values(), settings.expression, device, quick=settings.quick)
    threads = machine.limit(settings.threads)
    place: Place = Cuda() if device == "cuda" else Host()
    chosen = [able[name] for name in names if name in able]
    path = path or _new_journal(device)
    with Writer(path) as writer:
        session = Session(settings, place, chosen, agree, writer, progress, began=began)
        if device == "cpu" and settings.threads == 1:
            session.processor = time.process_time
        verdict = session.run(cases, header(settings, place, absent, chosen, threads, note))
    return Finished(path, verdict.name, note)


def _new_journal(device: str) -> Path:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return RUNS / f"{stamp}-bench-{device}.jsonl"
