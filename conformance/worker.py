"""A worker process: it draws the samples of an item, has them checked, and tells the parent.

The worker never writes the journal. What it prints, and what a crash prints, goes to its log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import hashlib
import importlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

from conformance.errors import DeviceLost, UsageError
from conformance.expectations import JUDGED_BY
from conformance.expression import Expression
from conformance.journal import encode
from conformance.results import Result, case_id
from conformance.settings import Settings
from conformance.sources.base import Item, Sample, Skipped

# Several workers share the machine, and torch's threads spin while they wait: one thread each,
# waiting asleep, unless the user says otherwise. Read when the libraries load, so set before.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}

LIVE = "conformance.worker:Live"
ERROR_LENGTH = 3000
DEVICE_LOST = 86  # the exit status of a worker whose device fails for good


class Harness(Protocol):
    """What a worker needs: where samples come from, and what judges them."""

    def describe(self) -> dict[str, Any]:
        """What the journal's header says of the engine."""

    def samples(self, item: Item) -> Iterable[Sample | Skipped]:
        """The samples of an item; the same each time."""

    def check(self, sample: Sample, item: Item) -> Iterable[Result]:
        """The results of one sample."""


class Live:
    """The harness of a real run; raises UsageError where the engine or a check cannot load."""

    def __init__(self, settings: Settings) -> None:
        from conformance import checks, sources

        self._sources = sources
        self._checks = checks
        self._settings = settings
        self._context = checks.context_for(settings)

    def describe(self) -> dict[str, Any]:
        """The engine's name and capabilities."""
        engine = self._context.engine
        return {"name": engine.name, **dataclasses.asdict(engine.describe())}

    def samples(self, item: Item) -> Iterator[Sample | Skipped]:
        """The samples of the source that made the item."""
        return self._sources.load(item.source).samples(item, self._settings)

    def check(self, sample: Sample, item: Item) -> Iterator[Result]:
        """All chosen checks."""
        from conformance.engines.torch import settle, unrounded

        with unrounded():
            yield from self._checks.check_sample(sample, self._context, item.source)
        settle(self._settings.device)


@dataclasses.dataclass(frozen=True)
class Casualty:
    """A sample that killed a worker or hung: the next worker names it instead of checking it."""

    sample: int
    outcome: str
    error: str
    op: str
    digest: str


@dataclasses.dataclass(frozen=True)
class Task:
    """Parent to worker: the samples of an item from number `start` on."""

    item: Item
    start: int = 0
    casualty: Casualty | None = None


@dataclasses.dataclass(frozen=True)
class Ready:
    """Worker to parent: the engine is loaded."""

    engine: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Refused:
    """Worker to parent: the run cannot start; `usage` tells a wrong request from our own fault."""

    message: str
    usage: bool


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Worker to parent: sample number `sample` is being made."""

    sample: int


@dataclasses.dataclass(frozen=True)
class Judging:
    """Worker to parent: sample number `sample` is being checked; `log` is the log's length then."""

    sample: int
    op: str
    digest: str
    log: int


@dataclasses.dataclass(frozen=True)
class Found:
    """Worker to parent: a result of a sample, with what expectations ask of it, and the journal's
    line for it."""

    sample: int
    result: Result
    line: str


@dataclasses.dataclass(frozen=True)
class Done:
    """Worker to parent: the item is finished; `samples` counts all that it has."""

    samples: int
    duration: float


Message = Ready | Refused | Drawing | Judging | Found | Done


def main(connection: Connection, settings: Settings, harness: str, log: str) -> None:
    """Serve tasks until the parent sends None or goes away. `harness` is MODULE:NAME."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _redirect_output(log)
    faulthandler.enable()
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, EOFError):  # the parent has gone
        try:
            module, _, name = harness.partition(":")
            make: Callable[[Settings], Harness] = getattr(importlib.import_module(module), name)
            ready = make(settings)
            connection.send(Ready(ready.describe()))
        except UsageError as error:
            connection.send(Refused(str(error), usage=True))
            return
        except Exception:
            connection.send(Refused(traceback.format_exc(), usage=False))
            return
        server = _Server(connection, settings, ready)
        while (task := connection.recv()) is not None:
            server.serve(task)


def _redirect_output(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _leave_with(parent: int) -> None:
    """End this process when the parent is gone, even in the middle of a check that hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class _Server:
    """Works one task after the other off."""

    def __init__(self, connection: Connection, settings: Settings, harness: Harness) -> None:
        self._send = connection.send
        self._settings = settings
        self._harness = harness
        self._expression = Expression(settings.expression)
        self._later = (*settings.chosen_checks, *settings.dtypes, settings.device)

    def serve(self, task: Task) -> None:
        began = time.perf_counter()
        item, count = task.item, 0
        self._send(Drawing(0))
        samples = iter(self._harness.samples(item))
        while True:
            try:
                sample = next(samples)
            except StopIteration:
                break
            except Exception as error:
                self._report(item, count, self._undrawn(item, count, error))
                count += 1
                break
            if count >= task.start:
                casualty = task.casualty
                if casualty is not None and casualty.sample == count:
                    self._report(item, count, self._named(item, sample, casualty))
                else:
                    self._sample(item, count, sample)
            count += 1
            del sample
            self._send(Drawing(count))
        self._send(Done(count, time.perf_counter() - began))

    def _sample(self, item: Item, number: int, sample: Sample | Skipped) -> None:
        if isinstance(sample, Skipped):
            self._report(item, number, self._skipped(item, sample))
            return
        digest = sample.program.digest(sample.values)
        start = f"{item.source}/{sample.op}/"
        if not self._expression.may_match(start, self._later, digest=digest):
            return
        self._send(Judging(number, sample.op, digest, os.fstat(2).st_size))
        began = time.perf_counter()
        try:
            for result in self._harness.check(sample, item):
                self._report(item, number, result)
        except DeviceLost:
            traceback.print_exc()
            os._exit(DEVICE_LOST)
        except Exception as error:
            evidence = {"error": tail(traceback.format_exc()), "reason": _one_line(error)}
            result = self._result(item, sample.op, digest, "sample", "errored", evidence)
            result = dataclasses.replace(
                result, duration=time.perf_counter() - began, repro=self._repro(sample)
            )
            self._report(item, number, result)

    def _report(self, item: Item, number: int, result: Result) -> None:
        if not self._expression.matches(result.case, result.digest):
            return
        try:
            line = encode_result(result, item, number)
        except TypeError as error:
            evidence = {"reason": f"a check gave evidence that the journal cannot hold: {error}"}
            result = dataclasses.replace(result, outcome="errored", evidence=evidence, repro=None)
            line = encode_result(result, item, number)
        judged = {k: v for k, v in result.evidence.items() if k in JUDGED_BY}
        self._send(Found(number, dataclasses.replace(result, evidence=judged, repro=None), line))

    def _result(
        self, item: Item, op: str, digest: str, check: str, outcome: str, evidence: dict[str, Any]
    ) -> Result:
        return make_result(self._settings, item, op, digest, check, outcome, evidence)

    def _skipped(self, item: Item, skipped: Skipped) -> Result:
        digest = name_digest(item.key, skipped.op, skipped.label)
        evidence = {"reason": skipped.reason, "label": skipped.label}
        if skipped.label == item.key:  # there is not one sample
            evidence["scope"] = "item"
        return self._result(item, skipped.op, digest, "sample", skipped.outcome, evidence)

    def _undrawn(self, item: Item, number: int, error: Exception) -> Result:
        evidence = {
            "reason": f"sample {number} could not be made: {_one_line(error)}",
            "error": tail(traceback.format_exc()),
        }
        digest = name_digest(item.key, str(number))
        return self._result(item, item.op, digest, "sample", "errored", evidence)

    def _named(self, item: Item, sample: Sample | Skipped, casualty: Casualty) -> Result:
        if isinstance(sample, Skipped):
            return self._skipped(item, sample)
        digest = sample.program.digest(sample.values)
        evidence = casualty_evidence(casualty)
        result = self._result(item, sample.op, digest, "sample", casualty.outcome, evidence)
        return dataclasses.replace(result, repro=self._repro(sample))

    def _repro(self, sample: Sample) -> dict[str, Any]:
        program = str(sample.program)
        try:
            script = sample.program.script(sample.values)
        except Exception as error:
            script = f"# The program could not be written as a script: {_one_line(error)}\n"
        return {"program": program, "script": script}


def make_result(
    settings: Settings,
    item: Item,
    op: str,
    digest: str,
    check: str,
    outcome: str,
    evidence: dict[str, Any],
) -> Result:
    """A result that the run itself gives, about a sample as a whole."""
    dtype, device = settings.main_dtype, settings.device
    case = case_id(item.source, op, digest, check, dtype, device)
    return Result(case, op, item.source, check, dtype, device, outcome, evidence=evidence)


def encode_result(result: Result, item: Item, sample: int) -> str:
    """The journal's line for a result."""
    place = {"item": item_name(item), "sample": sample}
    return encode({"kind": "result", **result.to_json(), **place})


def item_name(item: Item) -> str:
    """An item's name in the journal: no other item has it."""
    return "/".join(dict.fromkeys((item.source, item.op, item.key)))


def casualty_evidence(casualty: Casualty) -> dict[str, Any]:
    """The evidence for a crash or a timeout."""
    first, _, rest = casualty.error.partition("\n")
    return {"reason": first, "error": rest} if rest.strip() else {"reason": first}


def name_digest(*names: str) -> str:
    """Eight hex digits that stand for a sample that has no Program."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]


def tail(text: str) -> str:
    """The end of a long text."""
    return text if len(text) <= ERROR_LENGTH else "...\n" + text[-ERROR_LENGTH:]


def _one_line(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
