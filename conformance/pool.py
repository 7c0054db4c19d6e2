"""Worker processes: started, fed, watched, and replaced when they die or hang."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from conformance import worker as work
from conformance.errors import UsageError, WorkerError
from conformance.settings import Settings
from conformance.sources.base import Item

STARTUP_TIMEOUT = 300.0  # seconds, for imports alone
LAST_WORDS_TIMEOUT = 2.0  # seconds that a hanging worker gets to write where it hangs

_spawn = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True)
class Event:
    """Something a worker reported about its item."""

    item: Item
    message: work.Found | work.Done


@dataclasses.dataclass(frozen=True)
class Lost:
    """A sample that kills whoever draws it: its item ends there, and the parent records it."""

    item: Item
    casualty: work.Casualty


class _Worker:
    """One process, and what it is doing."""

    def __init__(self, settings: Settings, harness: str, logs: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=logs, suffix=".log")
        os.close(descriptor)
        self.log = Path(name)
        self.connection, theirs = _spawn.Pipe()
        self.process = _spawn.Process(
            target=work.main, args=(theirs, settings, harness, name), daemon=True
        )
        with _quiet_start():
            self.process.start()
        theirs.close()
        self.ready = False
        self.task: work.Task | None = None
        self.at: work.Drawing | work.Judging = work.Drawing(0)
        self.heard = time.monotonic()

    def give(self, task: work.Task) -> None:
        self.task, self.at, self.heard = task, work.Drawing(0), time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died: seen when the connection is read
            self.connection.send(task)

    def hear(self) -> work.Message:
        """The next message, which may have to be waited for; EOFError where the process died."""
        message: work.Message = self.connection.recv()
        self.heard = time.monotonic()
        if isinstance(message, (work.Drawing, work.Judging)):
            self.at = message
        return message

    def abort(self) -> None:
        """Have a hanging process write where it hangs."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGABRT)
            self.process.join(LAST_WORDS_TIMEOUT)

    def stop(self) -> None:
        """Kill the process; what it was doing is lost."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def how_it_ended(self) -> str:
        """What became of the process, in a line."""
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"the worker died of {signal.Signals(-code).name}"
        if code == work.DEVICE_LOST:
            return "the device failed, and with it all that would follow in the worker"
        return f"the worker left with status {code}"

    def last_words(self) -> str:
        """What it printed since its last sample began."""
        start = self.at.log if isinstance(self.at, work.Judging) else 0
        text = self.log.read_bytes()[start:].decode(errors="replace")
        return work.tail(text.strip())


class Pool:
    """Runs items in up to `jobs` processes; a context manager, which kills what still runs.

    Raises UsageError where the engine cannot load, WorkerError where workers cannot be started.
    """

    def __init__(self, settings: Settings, harness: str = work.LIVE) -> None:
        self._settings = settings
        self._harness = harness
        self._queue: deque[work.Task] = deque()
        self._workers: list[_Worker] = []
        self._logs = tempfile.TemporaryDirectory(prefix="conformance-")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()
        self._logs.cleanup()

    def begin(self) -> None:
        """Start the first worker, which loads the engine meanwhile."""
        self._hire()

    def engine(self) -> dict[str, object]:
        """Wait for the first worker; returns what it says of the engine."""
        worker = self._workers[0]
        while not worker.connection.poll(0.1):
            self._watch_start(worker)
        return self._greet(worker)

    def add(self, item: Item, start: int = 0) -> None:
        """Put an item in the queue."""
        self._queue.append(work.Task(item, start))

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._queue) or any(worker.task for worker in self._workers)

    def events(self, patience: float) -> Iterator[Event | Lost]:
        """What happened within at most `patience` seconds; call again while `busy`."""
        self._feed()
        connections = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(connections), timeout=patience):
            assert isinstance(connection, Connection)
            yield from self._read(connections[connection])
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.ready:
                self._watch_start(worker)
            elif worker.task and now - worker.heard > self._settings.timeout:
                yield from self._bury(worker, "timeout")

    def _hire(self) -> _Worker:
        worker = _Worker(self._settings, self._harness, Path(self._logs.name))
        self._workers.append(worker)
        return worker

    def _feed(self) -> None:
        idle = [worker for worker in self._workers if worker.ready and not worker.task]
        for worker in idle[: len(self._queue)]:
            worker.give(self._queue.popleft())
        starting = sum(not worker.ready for worker in self._workers)
        room = self._settings.jobs - len(self._workers)
        for _ in range(min(room, len(self._queue) - starting)):
            self._hire()

    def _greet(self, worker: _Worker) -> dict[str, object]:
        try:
            message = worker.connection.recv()
        except EOFError:
            worker.process.join()
            raise WorkerError(
                f"a worker could not start with engine {self._settings.engine!r}: "
                f"{worker.how_it_ended()}\n{worker.last_words()}"
            ) from None
        if isinstance(message, work.Refused):
            raise UsageError(message.message) if message.usage else WorkerError(message.message)
        assert isinstance(message, work.Ready)
        worker.ready = True
        return message.engine

    def _watch_start(self, worker: _Worker) -> None:
        if time.monotonic() - worker.heard > STARTUP_TIMEOUT:
            worker.stop()
            raise WorkerError(
                f"a worker did not start within {STARTUP_TIMEOUT:.0f} s\n{worker.last_words()}"
            )

    def _read(self, worker: _Worker) -> Iterator[Event | Lost]:
        if not worker.ready:
            self._greet(worker)
            return
        try:
            yield from self._hear(worker)
            while worker.connection.poll():
                yield from self._hear(worker)
        except (EOFError, ConnectionResetError):
            worker.process.join()
            yield from self._bury(worker, "crashed")

    def _hear(self, worker: _Worker) -> Iterator[Event]:
        message = worker.hear()
        task = worker.task
        assert task is not None
        if isinstance(message, work.Done):
            worker.task = None
        if isinstance(message, (work.Found, work.Done)):
            yield Event(task.item, message)

    def _bury(self, worker: _Worker, outcome: str) -> Iterator[Lost]:
        """Replace a worker that is gone or hangs; its item goes on after the sample it was at."""
        if outcome == "timeout":
            worker.abort()
            reason = f"no answer within {self._settings.timeout:g} s"
        else:
            reason = worker.how_it_ended()
        worker.stop()
        self._workers.remove(worker)
        task, at = worker.task, worker.at
        if task is None:
            return
        error = f"{reason}\n{worker.last_words()}"
        if isinstance(at, work.Judging):
            # The next worker draws the sample again, names it with its script, and goes on.
            casualty = work.Casualty(at.sample, outcome, error, at.op, at.digest)
            self._queue.appendleft(work.Task(task.item, at.sample, casualty))
        elif task.casualty is not None and at.sample <= task.casualty.sample:
            yield Lost(task.item, task.casualty)
        else:
            digest = work.name_digest(task.item.key, str(at.sample))
            yield Lost(task.item, work.Casualty(at.sample, outcome, error, task.item.op, digest))


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """A child that starts here ignores Ctrl-C from its first instant, and has one thread."""
    missing = {key: value for key, value in work.ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(missing)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for key in missing:
            del os.environ[key]
