"""How a call is timed: clocks, readings, and how many calls make a reading.

A reading is the mean over some calls, each of which is timed by itself: what comes between two
calls (gradients to None, the forward that a backward needs, a flush of a cache) is not timed, and
no more than one graph is alive. What a pair of marks costs is in each call; `overhead` measures it.

A call in which the kernel took the processor away is disturbed. The kernel counts these
(involuntary context switches of the process), so no call is disturbed for being slow. With one
thread such a call counts by the processor time that it took, which in an undisturbed call equals
what the clock says (seen here: 2.11 and 2.11 ms, where a disturbed one read 6.52 and 2.52). An
engine with threads of its own, such as JAX, is disturbed by them, and such a call counts what all
of them worked. With more threads, or on a device, a disturbed call is left out where another call
of the reading remains. The share of disturbed calls is in the journal.

The cyclic garbage collector is on while calls are timed, as it is for a user. It is run before
each engine's turn, after everything that was there before the first round was frozen, so that a
turn pays for what it makes itself. Then a step that does not count brings the engine's code and
data back into the caches, where a training loop has them: without it a step of 1.5 ms read what
the engine before had left (seen here: 1.44 of torch's time for a BERT block of 32 tokens, and 1.26
with it; 3.0 and 3.7 for a layer norm of 4 MB). Steps of 50 ms do without.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Protocol

from conformance.bench.engine import Prepared
from conformance.errors import Unsupported

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

FORWARD, BACKWARD, STEP, ACCUMULATE = "forward", "backward", "step", "accumulate"
PHASES = (FORWARD, BACKWARD, STEP, ACCUMULATE)
HOST = "host"  # the step once more, by the host's clock, where a device's reads the others

TARGET = 1e-3  # seconds that the calls of a reading take together, at least (more rounds say more)
TICKS = 1000  # and this many ticks of the clock, in each phase
MOST_CALLS = 1000
CALIBRATION = 3  # calls
LONG_STEP = 0.05  # seconds: longer ones are called once to calibrate, and start cold
MORE_CALLS = 4  # of a reading in which every call was disturbed


class Clock(Protocol):
    """Marks moments on a device; times are seconds."""

    name: str
    resolution: float  # seconds: no difference below it means anything

    def before(self) -> None:
        """Make ready for a call: the device is idle, its caches as they should be."""

    def mark(self) -> Any:
        """This moment."""

    def seconds(self, start: Any, end: Any) -> float:
        """From one mark to the other, once the device has reached both."""


class HostClock:
    """The process's own clock; `synchronize` waits for what a device has still to do."""

    name = "host"

    def __init__(
        self,
        synchronize: Callable[[], None],
        *,
        flush: Callable[[], None] | None = None,
        now: Callable[[], float] = time.perf_counter,
        resolution: float | None = None,
    ) -> None:
        self._synchronize, self._flush, self._now = synchronize, flush, now
        known = time.get_clock_info("perf_counter").resolution
        self.resolution = known if resolution is None else resolution

    def before(self) -> None:
        if self._flush is not None:
            self._flush()
        self._synchronize()

    def mark(self) -> float:
        self._synchronize()
        return self._now()

    def seconds(self, start: float, end: float) -> float:
        return end - start


def overhead(clock: Clock, calls: int = 200) -> float:
    """Seconds that a pair of marks around nothing reads: what every timed call has in it."""
    found = []
    for _ in range(calls):
        start = clock.mark()
        found.append(clock.seconds(start, clock.mark()))
    return sorted(found)[calls // 2]


def calls_for(seconds: Sequence[float], clock: Clock) -> int:
    """How many calls make a reading well above the clock's resolution.

    `seconds` are those of the phases that a call has.
    """
    least = max(min(seconds), clock.resolution, 1e-9)
    wanted = max(TARGET / max(*seconds, least), TICKS * clock.resolution / least)
    return min(MOST_CALLS, max(1, math.ceil(wanted)))


def preemptions() -> int:
    """How often the kernel has taken the processor away from this process; 0 where unknown."""
    if resource is None:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


class Timer:
    """Takes readings of one prepared workload by one clock.

    `phases` are those that the workload's engine has; `missing` says why it lacks the others. A
    phase that raises Unsupported is struck off, so that it is asked for once. On a device, `check`
    is a host clock: a second opinion on the step, kept under `HOST`. `processor` is the process's
    own time, given where one thread does all the work.
    """

    def __init__(
        self,
        prepared: Prepared,
        clock: Clock,
        check: Clock | None = None,
        preempted: Callable[[], int] = preemptions,
        now: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] | None = None,
    ) -> None:
        self.prepared, self.clock, self.check = prepared, clock, check
        self.phases: tuple[str, ...] = PHASES
        self.missing: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self.counts = Counts()
        self.short = True  # whether a step is
        self._preempted, self._now, self._processor = preempted, now, processor

    def warm_up(self, times: int) -> None:
        """Run steps that do not count."""
        for _ in range(times):
            self.prepared.clear()
            self.prepared.step()
        self.prepared.clear()
        self.prepared.synchronize()

    def calibrate(self) -> float:
        """Choose the number of calls of each phase; returns what a round costs, in seconds."""
        wall = HostClock(self.prepared.synchronize, now=self._now)
        start = wall.mark()
        self.warm_up(1)
        cost = wall.seconds(start, wall.mark())
        self.short = cost < LONG_STEP
        tries = CALIBRATION if self.short else 1
        self.calls = dict.fromkeys(PHASES, tries)
        if not self.short:
            cost = 0.0
        for group in self._groups():
            start = wall.mark()
            found = self._take(group)
            took = wall.seconds(start, wall.mark()) / tries
            if not found:
                continue
            calls = calls_for(tuple(found.values()), self.clock)
            self.calls.update(dict.fromkeys(group, calls))
            cost += calls * took
        return cost

    def read(self) -> dict[str, float]:
        """One reading of each phase, in seconds a call."""
        found: dict[str, float] = {}
        gc.collect()
        if self.short:
            self.warm_up(1)
        for group in self._groups():
            found.update(self._take(group))
        return found

    def _groups(self) -> list[tuple[str, ...]]:
        """Phases that share their calls: a backward needs a forward, so both are timed."""
        together = tuple(p for p in (FORWARD, BACKWARD) if p in self.phases)
        alone = [(p,) for p in (STEP, ACCUMULATE) if p in self.phases]
        return ([together] if together else []) + alone

    def _take(self, group: tuple[str, ...]) -> dict[str, float]:
        try:
            if group == (STEP,):
                return self._steps()
            if group == (ACCUMULATE,):
                return {ACCUMULATE: self._accumulations()}
            return self._halves(with_backward=BACKWARD in group)
        except Unsupported as error:  # an engine without a backward of its own may have a forward
            lost = group[-1]
            self.missing[lost] = str(error)
            self.phases = tuple(phase for phase in self.phases if phase != lost)
            return self._take(group[:1]) if len(group) > 1 else {}
        finally:
            self.prepared.clear()

    def _timed(self, clock: Clock, call: Callable[[], Any], into: Reading) -> Any:
        clock.before()
        processor = self._processor
        before = self._preempted()
        began = processor() if processor is not None else 0.0
        start = clock.mark()
        made = call()
        end = clock.mark()
        worked = processor() - began if processor is not None else None
        disturbed = self._preempted() != before
        self.counts.calls += 1
        self.counts.disturbed += disturbed
        if disturbed and worked is not None:
            into.add(worked, disturbed=False)
        else:
            into.add(clock.seconds(start, end), disturbed=disturbed)
        return made

    def _halves(self, *, with_backward: bool) -> dict[str, float]:
        forward, backward = Reading(), Reading()
        prepared = self.prepared
        while (backward if with_backward else forward).wants(self.calls[FORWARD]):
            prepared.clear()
            made = self._timed(self.clock, prepared.forward, forward)
            if with_backward:
                self._timed(self.clock, functools.partial(prepared.backward, made), backward)
            del made
        found = {FORWARD: forward.mean()}
        return {**found, BACKWARD: backward.mean()} if with_backward else found

    def _steps(self) -> dict[str, float]:
        found = {STEP: self._step_by(self.clock)}
        return {**found, HOST: self._step_by(self.check)} if self.check is not None else found

    def _step_by(self, clock: Clock) -> float:
        reading = Reading()
        while reading.wants(self.calls[STEP]):
            self.prepared.clear()
            self._timed(clock, self.prepared.step, reading)
        return reading.mean()

    def _accumulations(self) -> float:
        reading = Reading()
        prepared = self.prepared
        prepared.clear()
        prepared.backward(prepared.forward())
        while reading.wants(self.calls[ACCUMULATE]):
            made = prepared.forward()
            self._timed(self.clock, functools.partial(prepared.accumulate, made), reading)
            del made
        return reading.mean()


@dataclasses.dataclass
class Counts:
    """How many calls were timed, and how many of them were disturbed."""

    calls: int = 0
    disturbed: int = 0


class Reading:
    """The calls of one reading."""

    def __init__(self) -> None:
        self._clean: list[float] = []
        self._disturbed: list[float] = []

    def wants(self, calls: int) -> bool:
        """Whether it needs another call: a few more than planned if all were disturbed."""
        taken = len(self._clean) + len(self._disturbed)
        return taken < (calls if self._clean else calls + MORE_CALLS)

    def add(self, seconds: float, *, disturbed: bool) -> None:
        """One call, and whether the processor was taken away in it."""
        (self._disturbed if disturbed else self._clean).append(seconds)

    def mean(self) -> float:
        """The mean of the undisturbed calls, or of all if none was."""
        kept = self._clean or self._disturbed
        return math.fsum(kept) / len(kept)


def collector_share(
    step: Callable[[], object], now: Callable[[], float], rounds: int = 3
) -> tuple[float, float]:
    """Seconds of a step with the cyclic garbage collector on, and with it off: medians.

    The two take turns. The collector is left as it was found.
    """
    was_on = gc.isenabled()
    times: dict[bool, list[float]] = {True: [], False: []}
    try:
        for _ in range(rounds):
            for on in (True, False):
                gc.collect()
                (gc.enable if on else gc.disable)()
                start = now()
                made = step()
                times[on].append(now() - start)
                del made
    finally:
        (gc.enable if was_on else gc.disable)()
    return _median(times[True]), _median(times[False])


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
