"""What a session's journal says, gathered once for every report. Pure: a Journal in, data out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from conformance.bench import roofs
from conformance.bench.journal import BASELINE, TIMED, UNSUPPORTED, Journal, Result
from conformance.bench.statistics import Interval, geometric_mean, interval, paired, slope
from conformance.bench.timing import BACKWARD, STEP
from conformance.bench.verdict import is_noisy

OURS = "refgrad"
MEANT = (BACKWARD, STEP)  # the phases of which geometric means are given
LARGE_PEAK = 16 << 20  # bytes: tensors from here on are large
LEAST_ON_LINE = 2  # sizes that make a line of time against size


@dataclasses.dataclass(frozen=True)
class Case:
    """A workload at a size: what each engine made of it, torch eager apart."""

    workload: str
    group: str
    size: int
    baseline: Result
    engines: Mapping[str, Result]
    control: Result | None

    @property
    def name(self) -> str:
        """ "matmul/512"."""
        return f"{self.workload}/{self.size}"

    @property
    def noisy(self) -> bool:
        """Whether torch against itself says that the figures of this case are noisy."""
        if self.control is None:
            return True
        found = [self.control.phases[p].ratio for p in MEANT if p in self.control.phases]
        ratios = [ratio for ratio in found if ratio is not None]
        return not ratios or is_noisy(ratios)

    def ratio(self, engine: str, phase: str) -> Interval | None:
        """An engine's time over torch eager's; None where either was not timed."""
        result = self.engines.get(engine)
        found = result.phases.get(phase) if result is not None else None
        return found.ratio if found is not None else None

    def ratio_between(self, engine: str, other: str, phase: str) -> Interval | None:
        """The time of one engine over that of another, from the rounds in which both took part."""
        if other == BASELINE:
            return self.ratio(engine, phase)
        ours, theirs = self.engines.get(engine), self.engines.get(other)
        if ours is None or theirs is None or not {phase} <= ours.phases.keys() & theirs.phases:
            return None
        times = [
            dict(zip(r.phases[phase].rounds, r.phases[phase].seconds, strict=True))
            for r in (ours, theirs)
        ]
        ratios = paired(*times)
        return interval(ratios) if ratios else None


@dataclasses.dataclass(frozen=True)
class Mean:
    """The geometric mean of ratios over `n` cases; `slower` of them are above 1."""

    value: float
    n: int
    slower: int


@dataclasses.dataclass(frozen=True)
class Loss:
    """A case in which our engine is slower than another; `clear` if the interval says so too."""

    case: Case
    other: str
    phase: str
    ratio: Interval

    @property
    def clear(self) -> bool:
        """Whether the whole interval is above 1."""
        return self.ratio.low is not None and self.ratio.low > 1


@dataclasses.dataclass(frozen=True)
class Line:
    """Time against size: (size, seconds) of one engine, and the exponent of the fitted power."""

    workload: str
    engine: str
    phase: str
    points: tuple[tuple[int, float], ...]
    slope: float | None


@dataclasses.dataclass(frozen=True)
class Dot:
    """A point beneath the roofs: operations a byte, operations a second, share of the roof."""

    case: Case
    engine: str
    intensity: float
    rate: float
    bandwidth: float
    share: float | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """Everything that reports show."""

    journal: Journal
    cases: tuple[Case, ...]
    engines: tuple[str, ...]
    means: Mapping[str, Mapping[str, Mean]]
    against: Mapping[str, Mapping[str, Mean]]
    losses: tuple[Loss, ...]

    @property
    def ours(self) -> str:
        """The engine whose losses are listed: refgrad where it took part."""
        return OURS if OURS in self.engines or not self.engines else self.engines[0]

    @property
    def device(self) -> str:
        """cpu or cuda."""
        return str(self.journal.header["device"])

    @property
    def noisy_cases(self) -> tuple[Case, ...]:
        """Those in which torch against itself was noisy."""
        return tuple(case for case in self.cases if case.noisy)

    @property
    def failures(self) -> tuple[Result, ...]:
        """What was not timed, but for what an engine cannot express."""
        fine = (TIMED, UNSUPPORTED)
        return tuple(r for r in self.journal.results if r.outcome not in fine)

    @property
    def disturbed(self) -> dict[str, float]:
        """The mean share of calls in which the kernel took the processor away, by engine."""
        shares: dict[str, list[float]] = {}
        for result in self.journal.results:
            if result.phases:
                shares.setdefault(result.engine, []).append(result.disturbed)
        return {engine: sum(some) / len(some) for engine, some in shares.items()}

    def roof(self, dtype: str) -> dict[str, float]:
        """The roofs of a dtype, as measured in the session."""
        return roofs.best(self.journal.roofs, dtype)

    def lines(self, phase: str) -> list[Line]:
        """Time against size of every workload that was timed at several sizes."""
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for case in self.cases:
            for name, result in ((BASELINE, case.baseline), *case.engines.items()):
                if phase in result.phases:
                    point = (case.size, result.phases[phase].spread.median)
                    found.setdefault((case.workload, name), []).append(point)
        return [
            Line(workload, engine, phase, tuple(sorted(points)), slope(points))
            for (workload, engine), points in found.items()
            if len(points) >= LEAST_ON_LINE
        ]

    def dots(self, phase: str = STEP) -> list[Dot]:
        """Where each case lies beneath the roofs, for torch eager and each engine."""
        found = []
        for case in self.cases:
            for name, result in ((BASELINE, case.baseline), *case.engines.items()):
                if phase not in result.phases or not result.flops.get(phase):
                    continue
                flops, moved = result.flops[phase], result.bytes[phase]
                seconds = result.phases[phase].spread.median
                roof = self.roof(result.dtype)
                intensity = flops / moved
                most = min(roof["gemm"], intensity * roof["copy"]) if roof else None
                share = flops / seconds / most if most else None
                found.append(Dot(case, name, intensity, flops / seconds, moved / seconds, share))
        return found


def summarise(journal: Journal) -> Summary:
    """Gather what a journal says, complete or not."""
    cases = _cases(journal.results)
    timed = {e for case in cases for e, r in case.engines.items() if r.outcome == TIMED}
    known = [e for e in journal.header["engines"] if e in timed]
    engines = tuple(sorted(known, key=lambda e: e != OURS))
    ours = engines[0] if engines else OURS
    others = [e for e in engines if e != ours]
    return Summary(
        journal,
        cases,
        engines,
        {e: _means(cases, e, BASELINE) for e in engines},
        {other: _means(cases, ours, other) for other in others},
        tuple(_losses(cases, ours, (BASELINE, *others))),
    )


def _cases(results: Iterable[Result]) -> tuple[Case, ...]:
    grouped: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        grouped.setdefault(result.case, []).append(result)
    found = []
    for (workload, size), some in grouped.items():
        baseline = next((r for r in some if r.engine == BASELINE), None)
        if baseline is None:  # the journal ends within this case
            continue
        control = next((r for r in some if r.control), None)
        engines = {r.engine: r for r in some if r is not baseline and not r.control}
        found.append(Case(workload, baseline.group, size, baseline, engines, control))
    order = {group: i for i, group in enumerate(dict.fromkeys(case.group for case in found))}
    names = {name: i for i, name in enumerate(dict.fromkeys(case.workload for case in found))}
    return tuple(sorted(found, key=lambda c: (order[c.group], names[c.workload], c.size)))


def _means(cases: Sequence[Case], engine: str, other: str) -> dict[str, Mean]:
    found = {}
    for phase in MEANT:
        ratios = [r.median for c in cases if (r := c.ratio_between(engine, other, phase))]
        value = geometric_mean(ratios)
        if value is not None:
            found[phase] = Mean(value, len(ratios), sum(r > 1 for r in ratios))
    return found


def _losses(cases: Sequence[Case], ours: str, others: Sequence[str]) -> Iterable[Loss]:
    for other in others:
        for phase in MEANT:
            lost = [
                Loss(case, other, phase, ratio)
                for case in cases
                if (ratio := case.ratio_between(ours, other, phase)) and ratio.median > 1
            ]
            yield from sorted(lost, key=lambda loss: -loss.ratio.median)


def per_node(result: Result, phase: str) -> float | None:
    """Seconds a node of the graph; None where the phase was not timed."""
    if phase not in result.phases or not result.nodes:
        return None
    return result.phases[phase].spread.median / result.nodes


def peak(result: Result) -> int | None:
    """Peak bytes: the most that a way of counting saw, for none sees what is not there."""
    found = [figures["peak"] for figures in result.memory.values()]
    return max((value for value in found if value is not None), default=None)


def peak_ratio(case: Case, engine: str) -> float | None:
    """Our peak memory over torch eager's, where the latter's tensors are large."""
    result = case.engines.get(engine)
    ours = peak(result) if result is not None else None
    theirs = peak(case.baseline)
    if ours is None or theirs is None or theirs < LARGE_PEAK:
        return None
    return ours / theirs
