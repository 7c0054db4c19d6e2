"""One run: items from the sources, through the workers, into the journal. The parent alone writes.

Ctrl-C ends a run with everything so far in the journal, which then has no end line; `resume` goes
on after the last sample that was recorded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from conformance import expectations as known
from conformance import journal as jl
from conformance import sources as all_sources
from conformance.environment import environment
from conformance.errors import UsageError
from conformance.expression import Expression, did_you_mean
from conformance.pool import Event, Lost, Pool
from conformance.progress import Reporter
from conformance.results import FAILING, Result
from conformance.settings import Settings
from conformance.sources.base import Item, Source
from conformance.worker import (
    LIVE,
    Found,
    casualty_evidence,
    encode_result,
    item_name,
    make_result,
)

RUNS = Path("reports/runs")
PATIENCE = 0.2  # seconds between looks at Ctrl-C and at workers that hang
INTERRUPTED = 2

# What makes two environments too different for one journal.
_VERSIONS = ("python", "numpy", "scipy", "torch")


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a run ended: its journal, its exit code, and why it stopped early if it did."""

    journal: Path
    exit: int
    stopped: str = ""


def default_journal(engine: str, now: datetime) -> Path:
    """A new journal's place: one file a run, so that none overwrites another."""
    name = f"{now:%Y-%m-%d-%H%M%S}-" + re.sub(r"[^\w.-]+", "-", engine)
    found = RUNS / f"{name}.jsonl"
    number = 2
    while found.exists():
        found, number = RUNS / f"{name}-{number}.jsonl", number + 1
    return found


def newest_journal() -> Path:
    """The journal of the latest plain run; raises UsageError where there is none."""
    found = sorted(RUNS.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(f"there is no journal under {RUNS} to resume: name one with --journal")
    return found[-1]


def run(
    settings: Settings,
    reporter: Reporter,
    *,
    load: Callable[[str], Source] = all_sources.load,
    harness: str = LIVE,
    expected: Sequence[known.Expectation] | None = None,
) -> Finished:
    """Run what the settings ask for, into a new journal.

    Raises UsageError for a request that cannot be met, and WorkerError where workers do not start.
    """
    path = Path(settings.journal or default_journal(settings.engine, datetime.now()))
    settings = dataclasses.replace(settings, journal=str(path))
    with jl.Writer(path, advice="continue it with --resume, ") as writer:
        try:
            return _Run(settings, reporter, writer, load, harness, expected).carry_out(None)
        finally:
            if path.exists() and path.stat().st_size == 0:  # it did not come to a header
                path.unlink()


def resume(
    path: Path,
    reporter: Reporter,
    *,
    jobs: int | None = None,
    load: Callable[[str], Source] = all_sources.load,
    harness: str = LIVE,
    expected: Sequence[known.Expectation] | None = None,
) -> Finished:
    """Go on with an incomplete journal, with its own settings (`jobs` apart).

    Raises UsageError where the file is no journal, or was begun with other versions.
    """
    before = jl.read(path)
    if before.complete and not (before.end or {}).get("stopped"):
        return Finished(path, int((before.end or {}).get("exit", 0)))
    settings = Settings.from_json(before.settings)
    settings = dataclasses.replace(settings, journal=str(path), jobs=jobs or settings.jobs)
    now = environment()
    for name in _VERSIONS:
        then = before.header["environment"].get(name)
        if then != now[name]:
            raise UsageError(
                f"{path} was begun with {name} {then}, this is {now[name]}: start a new run"
            )
    with jl.Writer(path, append=True) as writer:
        return _Run(settings, reporter, writer, load, harness, expected).carry_out(before)


class _Run:
    """The state of one run."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        writer: jl.Writer,
        load: Callable[[str], Source],
        harness: str,
        expected: Sequence[known.Expectation] | None,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.writer = writer
        self.load = load
        self.harness = harness
        if expected is None:
            expected = known.load(settings.engine, settings.expectations)
        self.expected = expected
        self.began = time.monotonic()
        self.results: list[Result] = []
        self.recorded: set[tuple[str, int, str]] = set()  # before this run went on
        self.counts: Counter[str] = Counter()
        self.done = 0
        self.stopped = ""

    def carry_out(self, before: jl.Journal | None) -> Finished:
        expression = Expression(self.settings.expression)
        with Pool(self.settings, self.harness) as pool, _interrupts() as interrupt:
            pool.begin()
            items = self._items(expression)
            engine = pool.engine()
            if before is None:
                self.writer.write(self._header(items, engine))
            else:
                self.writer.write({"kind": "resume", "started": _now()})
            self._queue(pool, items, before)
            self.reporter.begin(len(items), self.done)
            try:
                while pool.busy and not interrupt.is_set() and not self.stopped:
                    for event in pool.events(PATIENCE):
                        self._record(event)
            finally:
                self.reporter.close()
            if pool.busy and interrupt.is_set():
                return Finished(self.writer.path, INTERRUPTED, "interrupted")
        return self._end()

    def _items(self, expression: Expression) -> list[Item]:
        """What is to be run; raises UsageError for a word of -k that names nothing."""
        chosen: list[Item] = []
        names: dict[str, bool] = {}  # of ops, and whether the expression may choose them
        complete = False  # whether a source told all its ops
        later = (*self.settings.chosen_checks, *self.settings.dtypes, self.settings.device)
        for name in self.settings.sources:
            source = self.load(name)
            told = bool(getattr(source, "items_name_ops", False))
            complete = complete or told
            for item in source.items(self.settings):
                named = expression.may_match(f"{name}/{item.op}/", later)
                names[item.op] = names.get(item.op, False) or named
                if named or not told:
                    chosen.append(item)
        if expression and complete and not any(names.values()):
            hints = "".join(did_you_mean(word, names) for word in expression.words)
            raise UsageError(f"-k {expression.text!r} matches none of {len(names)} ops{hints}")
        return chosen

    def _header(self, items: Sequence[Item], engine: dict[str, Any]) -> dict[str, Any]:
        settings = self.settings.to_json()
        what = [sorted(map(dataclasses.astuple, items))]
        what += [settings[key] for key in _CHOOSE_CASES]
        return {
            "kind": "run",
            "schema": jl.SCHEMA,
            "run_id": uuid.uuid4().hex,
            "started": _now(),
            "engine": self.settings.engine,
            "reference": self.settings.reference,
            "capabilities": engine,
            "environment": environment(),
            "settings": settings,
            "cases_digest": hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16],
            "planned": dict(Counter(item.source for item in items)),
        }

    def _queue(self, pool: Pool, items: Sequence[Item], before: jl.Journal | None) -> None:
        finished: set[str] = set()
        reached: dict[str, int] = {}
        if before is not None:
            finished = {done.item for done in before.items}
            for entry in before.entries:
                self._count(entry.result)
                self.recorded.add((entry.item, entry.sample, entry.result.case))
                reached[entry.item] = max(reached.get(entry.item, 0), entry.sample)
        for item in items:
            if item_name(item) in finished:
                self.done += 1
            else:
                pool.add(item, reached.get(item_name(item), 0))

    def _record(self, event: Event | Lost) -> None:
        item = event.item
        if isinstance(event, Lost):
            lost = event.casualty
            evidence = casualty_evidence(lost)
            result = make_result(
                self.settings, item, lost.op, lost.digest, "sample", lost.outcome, evidence
            )
            self._keep(item, lost.sample, result, encode_result(result, item, lost.sample))
            self._finish(item, lost.sample + 1, 0.0)
        elif isinstance(event.message, Found):
            found = event.message
            self._keep(item, found.sample, found.result, found.line)
        else:
            self._finish(item, event.message.samples, event.message.duration)
        self.reporter.update(self.done, item_name(item), self.counts)

    def _keep(self, item: Item, sample: int, result: Result, line: str) -> None:
        if (item_name(item), sample, result.case) in self.recorded:
            return
        self.writer.write_line(line)
        self._count(result)
        failed = result.outcome in FAILING
        if self.settings.fail_fast and failed and not any(e.covers(result) for e in self.expected):
            self.stopped = f"at the first failure, {result.case}"

    def _finish(self, item: Item, samples: int, duration: float) -> None:
        done = jl.ItemDone(item_name(item), item.source, item.op, samples, duration)
        self.writer.write({"kind": "item", **dataclasses.asdict(done)})
        self.done += 1

    def _count(self, result: Result) -> None:
        self.results.append(result)
        self.counts[result.outcome] += 1

    def _end(self) -> Finished:
        verdict = known.judge(self.results, self.expected, whole=False)
        code = verdict.exit_code(strict=self.settings.strict)
        end = {
            "kind": "end",
            "counts": dict(self.counts),
            "duration": time.monotonic() - self.began,
            "exit": code,
        }
        self.writer.write({**end, "stopped": self.stopped} if self.stopped else end)
        return Finished(self.writer.path, code, self.stopped)


# The settings that decide which cases a run has.
_CHOOSE_CASES = (
    "expression",
    "checks",
    "order",
    "dtypes",
    "device",
    "seed",
    "directions",
    "generated",
    "samples_per_entry",
    "models",
)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; only the main thread can wait so.

    After the first Ctrl-C the process is on its way out: those that follow are ignored to its end.
    """
    hit = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield hit
        return

    def handle(number: int, frame: FrameType | None) -> None:
        hit.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield hit
    finally:
        if hit.is_set():
            before[signal.SIGINT] = signal.SIG_IGN
        for number, handler in before.items():
            signal.signal(number, handler)
