"""One workload at one size: who takes part, and the rounds in which all take turns.

1. torch eager runs first; its gradients are the reference.
2. Each engine is prepared, compared with them, warmed up, and asked how long a round of its own
   takes. One whose gradients differ is not timed. torch eager enters once more, as the control.
3. In each round all take one reading, in an order drawn anew. An engine whose rounds are long
   sits out some of them; each ratio is of two readings of one round.
4. Memory, and on long chains the collector's share, are measured when the rounds are over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from conformance.bench.engine import Engine, Prepared
from conformance.bench.journal import (
    BASELINE,
    CONTROL,
    ERRORED,
    OUT_OF_MEMORY,
    SLOW,
    TIMED,
    UNSUPPORTED,
    WRONG,
    Phase,
    Result,
)
from conformance.bench.patience import Patience
from conformance.bench.places import Place
from conformance.bench.statistics import interval, paired, spread
from conformance.bench.timing import (
    HOST,
    PHASES,
    STEP,
    Counts,
    Timer,
    collector_share,
    preemptions,
)
from conformance.bench.watch import Overrun, limited
from conformance.bench.workload import Workload
from conformance.errors import Unsupported

ROUNDS = 60
FEW_ROUNDS = 6  # the fewest at which an interval covers 95 %
LEAST_ROUNDS = 3  # of an engine that sits out most of them
WARM_UP = 1  # and once more to calibrate
ONCE = 5.0  # seconds: an engine whose fewest rounds take more is timed once
LONGEST_REASON = 300  # characters
LONG_CHAIN = 10_000  # nodes: from here on the collector's share is measured

COSTED: tuple[Literal["forward", "backward", "step"], ...] = ("forward", "backward", "step")

Agree = Callable[[Prepared, dict[str, Any], str], str | None]


@dataclasses.dataclass
class Tools:
    """What a case needs from its session."""

    place: Place
    agree: Agree
    rng: random.Random
    deadline: float  # by `now`
    rounds: int = ROUNDS
    now: Callable[[], float] = time.perf_counter
    preempted: Callable[[], int] = preemptions
    processor: Callable[[], float] | None = None
    limited: Callable[[float], contextlib.AbstractContextManager[None]] = limited

    def left(self) -> float:
        """Seconds until the session must end."""
        return self.deadline - self.now()


@dataclasses.dataclass
class Entry:
    """One that takes part, and what is known of it."""

    label: str
    engine: Engine
    outcome: str = TIMED
    reason: str = ""
    timer: Timer | None = None
    cost: float = 0.0  # seconds of a round of its own
    took: float = 0.0  # seconds to prepare, compare and warm it up, or until it was broken off
    every: int = 1  # it takes part in every so many rounds
    times: dict[str, dict[int, float]] = dataclasses.field(default_factory=dict)
    memory: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict)
    collector: Mapping[str, float] | None = None
    compile_seconds: float | None = None
    clock: str = ""
    calls: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    counts: Counts = dataclasses.field(default_factory=Counts)

    def fail(self, outcome: str, reason: str) -> None:
        """Take part no longer."""
        self.outcome, self.reason, self.timer = outcome, reason, None


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a case costs by formula."""

    nodes: int
    flops: Mapping[str, float]
    bytes: Mapping[str, float]

    @property
    def work(self) -> float:
        """What grows with the size, as time does: operations, or nodes where these are more."""
        return max(self.flops.get(STEP, 0.0), float(self.nodes), 1.0)


def costs(workload: Workload, size: int) -> Costs:
    """The costs of a case; a model is built for it, so this may take a while, or raise."""
    return Costs(
        workload.nodes(size),
        {phase: float(workload.flops(size, phase)) for phase in COSTED},
        {phase: float(workload.bytes(size, phase)) for phase in COSTED},
    )


def run(
    workload: Workload,
    size: int,
    cost: Costs,
    engines: list[Engine],
    budget: float,
    tools: Tools,
    patience: Patience,
) -> list[Entry]:
    """Time a case in about `budget` seconds, and never beyond the session's deadline.

    `engines` begins with torch eager. What it takes to prepare and compare them comes on top, and
    is what `patience` allows.
    """
    entries = [Entry(e.name, e) for e in engines] + [Entry(CONTROL, engines[0])]
    reference: dict[str, Any] | None = None
    try:
        for entry in entries:
            if entry.engine is engines[0]:
                allowed, refusal = tools.left(), None
            else:
                allowed = min(tools.left(), patience.allowed(entry.label, entries[0].took))
                refusal = patience.refusal(workload.name, entry.label, cost.work, entries[0].took)
            if entry is not entries[0] and reference is None:
                entry.fail(ERRORED, f"torch has no gradients to hold it to: {entries[0].reason}")
            elif refusal is not None:
                entry.fail(SLOW, refusal)
            else:
                reference = _begin(entry, workload, size, reference, allowed, tools)
                finished = entry.outcome != SLOW
                patience.took(workload.name, entry.label, cost.work, entry.took, finished=finished)
        gc.freeze()
        _rounds(entries, budget, tools)
        for entry in entries:
            _afterwards(entry, cost.nodes, tools)
    finally:
        for entry in entries:
            entry.timer = None
        gc.unfreeze()
        gc.collect()
        tools.place.release()
    return entries


def _begin(
    entry: Entry,
    workload: Workload,
    size: int,
    reference: dict[str, Any] | None,
    allowed: float,
    tools: Tools,
) -> dict[str, Any] | None:
    """Enter an engine within the seconds that it is allowed; the reference, if there is one now."""
    began = tools.now()
    with _outcome_of(entry, tools):
        try:
            with tools.limited(allowed):
                reference = _enter(entry, workload, size, reference, tools)
        except Overrun:
            entry.fail(SLOW, f"took more than {allowed:.2g} s to prepare and compare")
    entry.took = tools.now() - began
    return reference


def cannot(engines: list[Engine], error: Exception) -> list[Entry]:
    """Entries for a workload that cannot be made at all."""
    entries = [Entry(engine.name, engine) for engine in engines]
    for entry in entries:
        entry.fail(*_outcome(error))
    return entries


def _enter(
    entry: Entry, workload: Workload, size: int, reference: dict[str, Any] | None, tools: Tools
) -> dict[str, Any]:
    """Prepare, compare and warm up; the gradients. The first to enter is the reference."""
    prepared = entry.engine.prepare(workload, size, tools.place.device)
    if reference is None:
        prepared.clear()
        prepared.step()
        prepared.synchronize()
        reference = {name: value.copy() for name, value in prepared.gradients().items()}
        prepared.clear()
    else:
        wrong = tools.agree(prepared, reference, workload.dtype)
        if wrong is not None:
            entry.fail(WRONG, wrong)
            return reference
    entry.compile_seconds = prepared.compile_seconds
    device_clock = tools.place.clock(entry.engine.name, prepared)
    check = tools.place.check(entry.engine.name, prepared)
    timer = Timer(prepared, device_clock, check, tools.preempted, tools.now, tools.processor)
    timer.warm_up(WARM_UP)
    entry.cost = timer.calibrate()
    entry.timer, entry.clock = timer, device_clock.name
    entry.calls, entry.missing = timer.calls, timer.missing
    entry.counts = timer.counts
    return reference


@contextlib.contextmanager
def _outcome_of(entry: Entry, tools: Tools) -> Iterator[None]:
    """What an engine raises is its outcome; the others go on."""
    try:
        yield
    except Exception as error:
        entry.fail(*_outcome(error))
        del error  # its traceback holds the arrays
        gc.collect()
        if entry.outcome == OUT_OF_MEMORY:
            tools.place.release()


def _outcome(error: Exception) -> tuple[str, str]:
    """The outcome that an exception is, and the reason in words."""
    text = " ".join(str(error).split())[:LONGEST_REASON]
    if isinstance(error, Unsupported):
        return UNSUPPORTED, text
    kind = OUT_OF_MEMORY if _is_out_of_memory(error) else ERRORED
    return kind, f"{type(error).__name__}: {text}"


def _is_out_of_memory(error: Exception) -> bool:
    """As torch, CuPy, XLA and Python say it."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def _plan(entries: list[Entry], budget: float, rounds: int) -> int:
    """How many rounds the budget allows, and how often each entry takes part."""
    live = [entry for entry in entries if entry.timer is not None]
    share = budget / max(1, len(live))
    own = max((e.cost for e in live if e.engine.name == BASELINE), default=0.0)
    wanted = min(rounds, max(FEW_ROUNDS, int(share / own) if own > 0 else rounds))
    for entry in live:
        affordable = share / entry.cost if entry.cost > 0 else math.inf
        if LEAST_ROUNDS * entry.cost > max(budget, ONCE) and entry.engine.name != BASELINE:
            entry.every = rounds  # once is all it gets
        elif affordable < wanted and entry.engine.name != BASELINE:
            entry.every = min(math.ceil(wanted / affordable), max(1, wanted // LEAST_ROUNDS))
    spent = sum(entry.cost / entry.every for entry in live)
    if spent > 0:
        wanted = min(rounds, max(wanted, int(budget / spent)))
    return wanted


def _rounds(entries: list[Entry], budget: float, tools: Tools) -> None:
    rounds = _plan(entries, budget, tools.rounds)
    began = tools.now()
    try:
        with tools.limited(tools.left()):
            for number in range(rounds):
                spent = tools.now() - began
                if spent > budget and number >= FEW_ROUNDS:
                    return
                if spent > 3 * budget and number >= LEAST_ROUNDS:
                    return
                order = [e for e in entries if e.timer is not None and number % e.every == 0]
                tools.rng.shuffle(order)
                for entry in order:
                    if tools.left() <= 0:
                        return
                    _read(entry, number, tools)
    except Overrun:
        return


def _read(entry: Entry, number: int, tools: Tools) -> None:
    assert entry.timer is not None
    with _outcome_of(entry, tools):
        for phase, seconds in entry.timer.read().items():
            entry.times.setdefault(phase, {})[number] = seconds


def _afterwards(entry: Entry, nodes: int, tools: Tools) -> None:
    """Memory and the collector's share; an engine that fails at it now keeps its readings."""
    if entry.timer is None or entry.label == CONTROL or tools.left() <= 0:
        return
    prepared = entry.timer.prepared
    with contextlib.suppress(Overrun, Unsupported, MemoryError), tools.limited(tools.left()):
        entry.memory = tools.place.memory(entry.engine.name, prepared)
        if nodes >= LONG_CHAIN:
            on, off = collector_share(lambda: _fresh_step(prepared), tools.now)
            entry.collector = {"on": on, "off": off}
    prepared.clear()


def _fresh_step(prepared: Prepared) -> Any:
    prepared.clear()
    return prepared.step()


def results(
    entries: list[Entry], workload: Workload, size: int, cost: Costs, device: str
) -> list[Result]:
    """What the journal keeps of a case."""
    return [
        Result(
            workload=workload.name,
            group=workload.group,
            size=size,
            dtype=workload.dtype,
            order=workload.order,
            device=device,
            engine=entry.label,
            control=entry.label == CONTROL,
            outcome=entry.outcome,
            reason=entry.reason,
            clock=entry.clock,
            nodes=cost.nodes,
            flops=cost.flops,
            bytes=cost.bytes,
            phases=_phases(entry, entries[0]) if entry.outcome == TIMED else {},
            missing=dict(entry.missing),
            disturbed=entry.counts.disturbed / max(1, entry.counts.calls),
            memory=entry.memory,
            collector=entry.collector,
            compile_seconds=entry.compile_seconds,
        )
        for entry in entries
    ]


def _phases(entry: Entry, baseline: Entry) -> dict[str, Phase]:
    host = entry.times.get(HOST, {})
    found: dict[str, Phase] = {}
    for name in (phase for phase in PHASES if entry.times.get(phase)):
        times = entry.times[name]
        ratios = paired(times, baseline.times.get(name, {})) if entry is not baseline else []
        found[name] = Phase(
            spread=spread(list(times.values())),
            calls=entry.calls[name],
            ratio=interval(ratios) if ratios else None,
            rounds=tuple(times),
            seconds=tuple(times.values()),
            host=spread(list(host.values())).median if host and name == STEP else None,
        )
    return found
