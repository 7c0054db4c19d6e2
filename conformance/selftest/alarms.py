"""`conformance selftest alarms`: false alarms and undecided outcomes among right rules.

refgrad's rules are right as far as anybody knows, so whatever fails is an alarm until it is
listed in conformance/expectations with a witness. A leaf gradient is counted once for each leaf of
each sample and each check that compares it entry by entry and decides: the gradient itself by vjp,
the second-order product by rr, fr or rf. The directional derivatives of `numerical` and `ff` judge
the same gradients again, and are not counted again.

By default the checks are value, vjp, numerical and rr: all that compares first and second order
with the reference and with derivatives that no rule had a part in. The other routes and the
invariants can be asked for; they take as long again.
"""

from __future__ import annotations

import itertools
import os
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from conformance.cli.options import names
from conformance.settings import CHECKS, SECOND_ORDER_CHECKS

if TYPE_CHECKING:
    from conformance.checks import Context
    from conformance.expectations import Expectation
    from conformance.results import Result

DEFAULT_CHECKS = ("value", "vjp", "numerical", "rr")
ENTRYWISE = frozenset({"vjp", "rr", "fr", "rf"})
BLOCK = 20  # generated Programs of one op in a row
TURNS = ("generated", "generated", "generated", "opinfo")
MILLION = 1_000_000
SHOWN = 10  # undecided ones, in the table


@dataclass(frozen=True)
class Task:
    """A block of generated Programs of one op, or an entry of op_db, under one seed."""

    seed: int
    source: str
    key: str
    op: str
    checks: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """A result that is to be seen: what it is of, and what repeats it."""

    seed: int
    source: str
    op: str
    label: str
    check: str
    outcome: str
    verdict: str
    culprit: str = ""  # the call to blame
    script: str = ""


@dataclass
class Tally:
    """What the results of some samples come to.

    `gradients` as this module counts them, `judged` results that decided, `known` failures that
    are listed as the reference's; `cpu` in seconds.
    """

    samples: int = 0
    gradients: int = 0
    judged: int = 0
    known: int = 0
    precision: int = 0
    unsupported: int = 0
    alarms: list[Event] = field(default_factory=list)
    undecided: list[Event] = field(default_factory=list)
    cpu: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in what another has counted."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def undecided_share(self) -> float:
        """The part of all results, unsupported ones apart, that is inconclusive."""
        return len(self.undecided) / max(1, self.judged + len(self.undecided))

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {**asdict(self), "inconclusive share": self.undecided_share}


@click.command("alarms")
@click.option(
    "--gradients",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Leaf gradients in all, spread over the seeds.",
)
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True)
@names(
    "--check",
    "checks",
    known=(*CHECKS, *SECOND_ORDER_CHECKS),
    default=",".join(DEFAULT_CHECKS),
)
@click.option("-k", "words", metavar="WORDS", default="", help="Ops whose name has it.")
@click.option("-v", "--verbose", is_flag=True, help="A script for each alarm.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(
    *, gradients: int, seeds: int, seed: int, jobs: int, checks: tuple[str, ...], words: str,
    verbose: bool, as_json: bool,
) -> int:  # fmt: skip
    """False alarms in the gradients of right rules.

    refgrad is judged on generated Programs and op_db's samples, three blocks of twenty to one
    entry. A failure that no expectation lists is an alarm; each is printed with what repeats it.
    `--seed N --seeds 1 -k OP` meets the same samples of that op again. Exit 1 on any alarm, or
    where more than 0.5 % of the results decide nothing.
    """
    from conformance.cli.options import data, echo_json, talk
    from conformance.expectations import INCONCLUSIVE_CAP

    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, here and in the processes that are started
    console = talk()
    total, by_seed = Tally(), {}
    began = time.perf_counter()
    with ExitStack() as stack:
        crew = stack.enter_context(_Crew(jobs))
        for number in range(seed, seed + seeds):
            share = gradients * (number - seed + 1) // seeds - gradients * (number - seed) // seeds
            by_seed[number] = _campaign(crew, tasks(number, checks, words), share)
            total.add(by_seed[number])
            _tell(by_seed[number], f"seed {number}", console)
    wall = time.perf_counter() - began
    wrong = bool(total.alarms) or total.undecided_share > INCONCLUSIVE_CAP
    if as_json:
        rows = {str(n): t.to_json() for n, t in by_seed.items()}
        echo_json({"checks": checks, "seeds": rows, "all": total.to_json(), "seconds": wall})
    else:
        _show(by_seed, total, wall, data(), verbose)
    return int(wrong)


def tasks(seed: int, checks: tuple[str, ...], words: str = "") -> Iterator[Task]:
    """What one seed judges, without end: the ops and the entries in turn, in an order of its own.

    Raises UsageError where no op has the words in its name.
    """
    from conformance.choose import Seeded, subset
    from conformance.errors import UsageError
    from conformance.sources.grammar import OPS
    from conformance.sources.opinfo import entries

    choose = Seeded(f"alarms {seed}")
    ops = [name for name in OPS if words in name]
    drawn = [name for name in entries() if words in name]
    if not ops and not drawn:
        raise UsageError(f"no op has {words!r} in its name: `conformance ops` lists them")
    drawn = list(subset(choose, drawn, len(drawn))) if drawn else []
    blocks = (
        Task(seed, "generated", f"{first}-{first + BLOCK - 1}", op, checks)
        for first in itertools.count(0, BLOCK)
        for op in (subset(choose, ops, len(ops)) if ops else ())
    )
    if not ops:
        yield from (Task(seed, "opinfo", name, name, checks) for name in drawn)
        return
    left = deque(drawn)
    for source in itertools.cycle(TURNS):
        if source == "generated":
            yield next(blocks)
        elif left:
            name = left.popleft()
            yield Task(seed, "opinfo", name, name, checks)


def judged(task: Task) -> Tally:
    """The results of one task; what raises on the way is an alarm."""
    from conformance import sources
    from conformance.sources.base import Item, Sample

    began = time.process_time()
    context = _context(task.seed, task.checks)
    tally = Tally()
    item = Item(task.source, task.key, task.op)
    label = task.key
    try:
        for sample in sources.load(task.source).samples(item, context.settings):
            label = sample.label
            if isinstance(sample, Sample):
                _sample(task, sample, context, tally)
            elif sample.outcome == "unsupported":
                tally.unsupported += 1
            else:
                tally.alarms.append(_event(task, label, "sample", sample.outcome, sample.reason))
    except Exception:
        said = traceback.format_exc(limit=-3)
        tally.alarms.append(_event(task, f"after {label}", "sample", "errored", said))
    tally.cpu = time.process_time() - began
    return tally


def _sample(task: Task, sample: Any, context: Context, tally: Tally) -> None:
    from conformance.checks import check_sample
    from conformance.expectations import sentence
    from conformance.results import FAILING, UNDECIDED

    tally.samples += 1
    # not by the source's own name: failures of that are shrunk, and torch's are too many for it
    for result in check_sample(sample, context, "alarms"):
        if result.outcome not in UNDECIDED:
            tally.judged += 1
            if result.check in ENTRYWISE:
                tally.gradients += len(sample.program.leaves)
        if result.outcome in FAILING:
            if any(e.covers(result) for e in _expected()):
                tally.known += 1
                continue
            tally.alarms.append(_of(task, sample.label, result, sentence(result)))
        elif result.outcome == "inconclusive":
            tally.undecided.append(_of(task, sample.label, result, sentence(result)))
        elif result.outcome == "precision":
            tally.precision += 1
        elif result.outcome == "unsupported":
            tally.unsupported += 1


def _of(task: Task, label: str, result: Result, verdict: str) -> Event:
    script = (result.repro or {}).get("script", "") if result.outcome != "inconclusive" else ""
    culprit = str(result.evidence.get("culprit", ""))
    about = _event(task, label, result.check, result.outcome, verdict)
    return replace(about, culprit=culprit, script=script)


def _event(task: Task, label: str, check: str, outcome: str, verdict: str) -> Event:
    return Event(task.seed, task.source, task.op, label, check, outcome, verdict)


@cache
def _expected() -> tuple[Expectation, ...]:
    from conformance import expectations

    return expectations.load("refgrad")


@cache
def _context(seed: int, checks: tuple[str, ...]) -> Context:
    from conformance.checks import context_for
    from conformance.engines.refgrad import RefgradEngine
    from conformance.engines.torch import TorchEngine
    from conformance.settings import Settings

    settings = Settings(checks=checks, seed=seed, standalone=0)
    return context_for(settings, RefgradEngine(), TorchEngine())


def _campaign(crew: _Crew, due: Iterator[Task], gradients: int) -> Tally:
    """Tasks in their order until so many gradients are judged; the same with any number of jobs."""
    tally = Tally()
    for found in crew.work(due):
        tally.add(found)
        if tally.gradients >= gradients:
            break
    return tally


class _Crew:
    """`judged` in so many processes, in this one where it is one; a context manager."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave()

    def work(self, due: Iterator[Task]) -> Iterator[Tally]:
        """The tallies, in the order of the tasks."""
        if self._jobs == 1:
            _one_thread()
            yield from map(judged, due)
            return
        given: deque[tuple[Task, Future[Tally]]] = deque()
        for task in due:
            given.append((task, self._submit(task)))
            if len(given) > self._jobs:
                yield self._first(given)
        while given:
            yield self._first(given)

    def _submit(self, task: Task) -> Future[Tally]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._jobs, initializer=_one_thread)
        return self._pool.submit(judged, task)

    def _first(self, given: deque[tuple[Task, Future[Tally]]]) -> Tally:
        task, future = given.popleft()
        try:
            return future.result()
        except BrokenProcessPool:  # one of those at work: it is told by working alone
            self._leave()
            rest = [each for each, _ in given]
            given.clear()
            tally = _alone(task)
            given.extend((each, self._submit(each)) for each in rest)
            return tally

    def _leave(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _alone(task: Task) -> Tally:
    """A task in a process of its own, which may die of it."""
    with ProcessPoolExecutor(1, initializer=_one_thread) as pool:
        try:
            return pool.submit(judged, task).result()
        except BrokenProcessPool as error:
            return Tally(alarms=[_event(task, task.key, "sample", "crashed", str(error))])


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _tell(tally: Tally, name: str, console: Any) -> None:
    text = f"{name}: {tally.gradients:,} leaf gradients, {len(tally.alarms)} alarms"
    console.print(text, highlight=False)
    for event in tally.alarms:
        console.print(f"  {_line(event)}", highlight=False, markup=False, soft_wrap=True)


def _line(event: Event) -> str:
    where = f"{event.source} {event.op}, {event.label}, seed {event.seed}"
    blamed = f" [{event.culprit}]" if event.culprit else ""
    return f"{where}: {event.check} {event.outcome}: {event.verdict}{blamed}"


def _show(
    by_seed: dict[int, Tally], total: Tally, wall: float, console: Any, verbose: bool
) -> None:
    from rich.table import Table

    table = Table(title="right rules", box=None)
    heads = ("seed", "samples", "leaf gradients", "results", "alarms", "known faults of torch")
    for head in (*heads, "precision", "inconclusive", "share", "unsupported"):
        table.add_column(head, justify="right")
    for number, tally in by_seed.items():
        table.add_row(str(number), *_row(tally))
    table.add_section()
    table.add_row("all", *_row(total), style="bold")
    console.print(table)
    for title, events in (("alarm", total.alarms), ("inconclusive", total.undecided[:SHOWN])):
        for event in events:
            console.print(f"{title}: {_line(event)}", highlight=False, markup=False, soft_wrap=True)
            if verbose and event.script:
                console.print(event.script, highlight=False, markup=False, soft_wrap=True)
    _counted(total.undecided, console)
    rate = total.gradients / wall if wall else 0.0
    if rate:
        minutes = MILLION / rate / 60
        text = f"{rate:,.0f} leaf gradients a second; {MILLION:,} take {minutes:.0f} min"
        console.print(text, highlight=False)


def _counted(undecided: Sequence[Event], console: Any) -> None:
    """Which ops and checks decide nothing most often."""
    counts = Counter(f"{e.op} {e.check}" for e in undecided).most_common(SHOWN)
    if counts:
        text = ", ".join(f"{name} {count}" for name, count in counts)
        console.print(f"inconclusive most often: {text}", highlight=False, soft_wrap=True)


def _row(tally: Tally) -> Iterator[str]:
    for number in (tally.samples, tally.gradients, tally.judged, len(tally.alarms), tally.known):
        yield f"{number:,}"
    yield f"{tally.precision:,}"
    yield f"{len(tally.undecided):,}"
    yield f"{tally.undecided_share:.2%}"
    yield f"{tally.unsupported:,}"
