"""A session: which cases in which order, within a budget, and what the journal says of it all.

Groups of workloads take turns, each workload at its quick size first, so that a session whose time
is up has seen something of each group. What was not reached is in the journal's last line.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from conformance.bench import case, machine, verdict
from conformance.bench.engine import Engine
from conformance.bench.journal import BASELINE, SCHEMA, SLOW, TIMED, Result
from conformance.bench.order import Case, Order
from conformance.bench.patience import Patience
from conformance.bench.places import Place
from conformance.bench.statistics import Interval
from conformance.bench.timing import BACKWARD, STEP, preemptions
from conformance.bench.watch import Overrun
from conformance.bench.workload import Workload
from conformance.errors import UsageError
from conformance.expression import Expression, did_you_mean
from conformance.journal import Writer

CASE_SECONDS, QUICK_CASE_SECONDS = 4.0, 1.5
LEAST_CASE_SECONDS = 0.3
ROOFS_SECONDS = 4.0  # about what they take, with the first use of a library
JUDGED = (BACKWARD, STEP)  # the phases of the control that the verdict looks at


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was asked for. `budget` is seconds for the whole session, None for no limit."""

    device: str = "cpu"
    threads: int = 1
    quick: bool = False
    seed: int = 0
    budget: float | None = None
    expression: str = ""
    engines: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


class Progress:
    """What a session tells while it goes on; this one says nothing."""

    def begin(self, cases: int) -> None:
        """So many cases are planned."""

    def case(self, number: int, name: str) -> None:
        """The case `name` begins; `number` are done."""

    def done(self, results: Sequence[Result]) -> None:
        """A case is over."""

    def close(self) -> None:
        """The session is over."""


def plan(workloads: Iterable[Workload], expression: str, device: str, *, quick: bool) -> list[Case]:
    """The cases in the order in which they are timed.

    Sizes outside of a workload's ladder are planned where the expression names them, as in
    "chain/1000000". Raises UsageError for an expression that chooses nothing.
    """
    wanted = Expression(expression)
    named = {part for word in wanted.words for part in word.split("/")} if wanted else set()
    workloads = list(workloads)
    groups: dict[str, list[tuple[int, Case]]] = {}
    for workload in workloads:
        ladder = _ladder(workload, device, quick=quick)
        ladder += [size for size in workload.extra_sizes if str(size) in named]
        for rank, size in enumerate(dict.fromkeys(ladder)):
            if wanted.matches(f"{workload.group}/{workload.name}/{size}", ""):
                groups.setdefault(workload.group, []).append((rank, (workload, size)))
    if not groups:
        names = [w.name for w in workloads] + [w.group for w in workloads]
        hints = "".join(did_you_mean(word, names) for word in wanted.words)
        raise UsageError(
            f"-k {expression!r} matches none of {len(workloads)} workloads{hints}; a case is "
            "named GROUP/WORKLOAD/SIZE"
        )
    return _in_turns([[c for _, c in sorted(g, key=lambda rc: rc[0])] for g in groups.values()])


def _ladder(workload: Workload, device: str, *, quick: bool) -> list[int]:
    """Sizes, the quick one first and the others from small to large."""
    sizes = workload.sizes
    if device == "cuda":
        sizes = workload.cuda_sizes or (workload.quick,)
    if quick:
        return [workload.quick if workload.quick in sizes else sizes[0]]
    first = [workload.quick] if workload.quick in sizes else []
    return first + sorted(size for size in sizes if size not in first)


def _in_turns(groups: Sequence[Sequence[Case]]) -> list[Case]:
    longest = max(map(len, groups))
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


@dataclasses.dataclass
class Session:
    """Runs planned cases and writes their journal.

    `engines` are those that can run on the place, torch eager first. `now` is a clock in seconds,
    and `began` the time by it from which the budget counts; `processor` is the process's own time,
    where one thread does all the work.
    """

    settings: Settings
    place: Place
    engines: Sequence[Engine]
    agree: case.Agree
    writer: Writer
    progress: Progress = dataclasses.field(default_factory=Progress)
    now: Callable[[], float] = time.perf_counter
    preempted: Callable[[], int] = preemptions
    processor: Callable[[], float] | None = None
    began: float | None = None

    def run(self, cases: Sequence[Case], header: Mapping[str, Any]) -> verdict.Verdict:
        """Time the cases; the verdict on the session.

        Raises KeyboardInterrupt after the journal's last line is written.
        """
        began = self.now() if self.began is None else self.began
        settings = self.settings
        self.writer.write({**header, "planned": [[w.name, size] for w, size in cases]})
        self.progress.begin(len(cases))
        budget = math.inf if settings.budget is None else settings.budget
        tools = case.Tools(
            self.place,
            self.agree,
            random.Random(settings.seed),
            began + budget,
            now=self.now,
            preempted=self.preempted,
            processor=self.processor,
        )
        patience = Patience(len(cases), max(1, len(self.engines) - 1), budget)
        order = Order(cases, _work)
        controls: dict[str, list[Interval]] = {phase: [] for phase in JUDGED}
        reached: set[tuple[str, int]] = set()
        stopped = None
        try:
            if tools.left() > ROOFS_SECONDS:
                self._roofs("start")
            for number in range(len(cases)):
                if tools.left() <= 0:
                    stopped = "budget"
                    break
                patience.begin(number)
                try:
                    with tools.limited(tools.left()):  # to build a model takes a while
                        workload, size = order.next(tools.left())
                    self.progress.case(number, f"{workload.name}/{size}")
                    results = self._case(workload, size, order, tools, patience)
                except Overrun:
                    stopped = "budget"
                    break
                if tools.left() <= 0 and _is_cut(results[0]):
                    stopped = "budget"
                    break
                reached.add((workload.name, size))
                self._keep(results, controls)
            if tools.left() > ROOFS_SECONDS:
                self._roofs("end")
        except KeyboardInterrupt:
            stopped = "interrupted"
            raise
        finally:
            self.progress.close()
            found = verdict.judge(controls)
            unreached = [[w.name, s] for w, s in cases if (w.name, s) not in reached]
            self.writer.write(
                {
                    "kind": "end",
                    "verdict": found.name,
                    **{k: v for k, v in dataclasses.asdict(found).items() if k != "name"},
                    "duration": self.now() - began,
                    "stopped": stopped,
                    "unreached": unreached,
                    "load": machine.load(),
                }
            )
        return found

    def _case(
        self,
        workload: Workload,
        size: int,
        order: Order,
        tools: case.Tools,
        patience: Patience,
    ) -> list[Result]:
        most = QUICK_CASE_SECONDS if self.settings.quick else CASE_SECONDS
        share = min(most, max(LEAST_CASE_SECONDS, 0.5 * tools.left() / (len(order) + 1)))
        engines = list(self.engines)
        try:
            with tools.limited(tools.left()):
                cost = case.costs(workload, size)
        except Exception as error:  # a model whose package is not there
            entries = case.cannot(engines, error)
            return case.results(entries, workload, size, case.Costs(0, {}, {}), self.place.device)
        entries = case.run(workload, size, cost, engines, share, tools, patience)
        order.took(workload, size, sum(e.took + case.LEAST_ROUNDS * e.cost for e in entries))
        return case.results(entries, workload, size, cost, self.place.device)

    def _keep(self, results: Sequence[Result], controls: dict[str, list[Interval]]) -> None:
        for result in results:
            self.writer.write({"kind": "result", **result.to_json()})
            if result.control:
                for phase in JUDGED:
                    ratio = result.phases[phase].ratio if phase in result.phases else None
                    if ratio is not None:
                        controls[phase].append(ratio)
        state = self.place.state()
        if state is not None:
            first = results[0]
            self.writer.write(
                {"kind": "state", "workload": first.workload, "size": first.size, **state}
            )
        self.progress.done(results)

    def _roofs(self, when: str) -> None:
        self.writer.write({"kind": "roofs", "when": when, **self.place.roofs()})


def _work(workload: Workload, size: int) -> float:
    """The work of a case by formula; 0 of one that cannot be made, which takes no time."""
    try:
        return case.costs(workload, size).work
    except Exception:
        return 0.0


def _is_cut(torch: Result) -> bool:
    """Whether the session ended before torch had the fewest rounds that say something."""
    readings = [phase.spread.n for phase in torch.phases.values()]
    return torch.outcome in (TIMED, SLOW) and min(readings, default=0) < case.LEAST_ROUNDS


def header(
    settings: Settings,
    place: Place,
    absent: Mapping[str, str],
    engines: Sequence[Engine],
    threads: Mapping[str, Any],
    note: str = "",
) -> dict[str, Any]:
    """The journal's first line, but for what is planned."""
    known: dict[str, Any] = {e.name: {"absent": None, "versions": e.versions()} for e in engines}
    known.update({name: {"absent": why, "versions": {}} for name, why in absent.items()})
    return {
        "kind": "session",
        "schema": SCHEMA,
        "session_id": uuid.uuid4().hex[:12],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": settings.to_json(),
        "device": place.device,
        "note": note,
        "baseline": BASELINE,
        "engines": known,
        "environment": machine.description(),
        "threads": dict(threads),
        "gpu": place.state(),
    }
