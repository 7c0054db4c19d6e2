"""What a journal says, gathered once for every report. Pure: a Journal in, a Summary out."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from conformance.expectations import INCONCLUSIVE_CAP, Expectation, Verdict, judge, load
from conformance.journal import Entry, Journal
from conformance.results import FAILING, OUTCOMES, UNDECIDED, Result

SLOWEST = 8


@dataclasses.dataclass(frozen=True)
class SourceSummary:
    """One source: how much of it was verified, out of how much.

    A sample is verified where a check decided and none failed; an entry (an op_db entry, a model,
    a block of graphs) where one of its samples is verified and none failed. `seconds` is the
    workers' time.
    """

    name: str
    entries: int
    entries_verified: int
    samples: int
    samples_verified: int
    counts: Mapping[str, int]
    seconds: float

    @property
    def sentence(self) -> str:
        """ "N of 547 entries, M of 14,110 samples"."""
        noun = {"captured": "models", "generated": "blocks", "pairs": "blocks"}.get(
            self.name, "entries"
        )
        return (
            f"{self.entries_verified:,} of {self.entries:,} {noun}, "
            f"{self.samples_verified:,} of {self.samples:,} samples"
        )


@dataclasses.dataclass(frozen=True)
class OpSummary:
    """One op of one source."""

    op: str
    source: str
    samples: int
    counts: Mapping[str, int]
    seconds: float

    @property
    def worst(self) -> str:
        """The outcome that a reader should see first."""
        return next(outcome for outcome in WORST_FIRST if self.counts.get(outcome))


@dataclasses.dataclass(frozen=True)
class Finding:
    """A result that did not pass, and how it stands to what was expected."""

    result: Result
    standing: str  # regression, expected, flaky, or "" where the outcome itself says enough
    expectation: Expectation | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """A journal, gathered."""

    journal: Journal
    verdict: Verdict
    sources: tuple[SourceSummary, ...]
    ops: tuple[OpSummary, ...]
    failures: tuple[Finding, ...]  # failing outcomes
    doubts: tuple[Finding, ...]  # precision and inconclusive
    missing: tuple[tuple[str, int], ...]  # targets that the engine lacks, by samples
    skipped: tuple[tuple[str, int], ...]  # other reasons to leave checks out, in how many samples
    absent: tuple[tuple[str, str], ...]  # entries without one sample, and why
    slowest: tuple[tuple[str, float], ...]  # samples, seconds

    @property
    def state(self) -> str:
        """incomplete, or the verdict's name."""
        return self.verdict.name if self.journal.complete else "incomplete"

    @property
    def headline(self) -> str:
        """The run in a sentence."""
        counts = self.verdict.counts
        failed = len(self.verdict.regressions) + len(self.verdict.flaky)
        ops = len({r.op for r in (*self.verdict.regressions, *self.verdict.flaky)})
        if self.verdict.name == "nothing":
            return "Nothing was checked."
        if failed:
            cases = "1 case is" if failed == 1 else f"{failed:,} cases are"
            return f"{cases} not as expected, in {ops:,} op{'s' if ops != 1 else ''}."
        known = len(self.verdict.expected)
        beside = f", beside {known:,} known failures" if known else ""
        lost = counts.get("precision", 0)
        lossy = f" ({lost:,} with lost precision)" if lost else ""
        return f"All {self.verdict.decided - known:,} checks that were decided hold{lossy}{beside}."

    @property
    def inconclusive(self) -> str | None:
        """The share of undecided checks, in a sentence; None where there is none."""
        count = self.verdict.counts.get("inconclusive", 0)
        if not count:
            return None
        share = self.verdict.inconclusive_share
        over = share > INCONCLUSIVE_CAP
        cap = f"above the cap of {INCONCLUSIVE_CAP:.1%}" if over else f"cap {INCONCLUSIVE_CAP:.1%}"
        return f"{count:,} of the checks were inconclusive, {share:.2%} ({cap})."


# The order in which outcomes matter to a reader.
WORST_FIRST = (
    "failed",
    "crashed",
    "errored",
    "timeout",
    "fallback",
    "precision",
    "inconclusive",
    "passed",
    "unsupported",
)
assert set(WORST_FIRST) == set(OUTCOMES)


def summarise(journal: Journal, expectations: Sequence[Expectation] | None = None) -> Summary:
    """Gather a journal; the expectations are those of its engine unless given."""
    if expectations is None:
        expectations = load(journal.header.get("engine", ""), journal.settings.get("expectations"))
    verdict = judge(journal.results, expectations, whole=is_whole(journal))
    missing, skipped = _left_out(journal.entries)
    return Summary(
        journal=journal,
        verdict=verdict,
        sources=tuple(_sources(journal)),
        ops=tuple(_ops(journal.entries)),
        failures=tuple(_failures(journal.results, verdict)),
        doubts=tuple(
            Finding(result, "")
            for outcome in ("precision", "inconclusive")
            for result in journal.results
            if result.outcome == outcome
        ),
        missing=missing,
        skipped=skipped,
        absent=tuple(
            (f"{entry.result.source}/{entry.result.op}", str(entry.result.evidence["reason"]))
            for entry in journal.entries
            if entry.result.evidence.get("scope") == "item"
        ),
        slowest=_slowest(journal.entries),
    )


def is_whole(journal: Journal) -> bool:
    """Whether the run came to its end and left out no op and no sample."""
    settings = journal.settings
    return (
        journal.trouble is None
        and not settings.get("expression")
        and not settings.get("dtypes")
        and {"opinfo", "generated"} <= set(settings.get("sources") or ())
        and settings.get("samples_per_entry") is None
    )


def _verified(outcomes: Iterable[str]) -> bool:
    found = set(outcomes)
    return bool(found - UNDECIDED) and not found & FAILING


def _sources(journal: Journal) -> Iterable[SourceSummary]:
    planned = journal.header.get("planned", {})
    by_source: dict[str, list[Entry]] = defaultdict(list)
    for entry in journal.entries:
        by_source[entry.result.source].append(entry)
    for name in dict.fromkeys([*planned, *by_source]):
        samples: dict[tuple[str, int], list[str]] = defaultdict(list)
        items: dict[str, list[str]] = defaultdict(list)
        for entry in by_source[name]:
            if entry.result.evidence.get("scope") != "item":
                samples[entry.item, entry.sample].append(entry.result.outcome)
            items[entry.item].append(entry.result.outcome)
        done = [item for item in journal.items if item.source == name]
        yield SourceSummary(
            name=name,
            entries=planned.get(name, len(items)),
            entries_verified=sum(map(_verified, items.values())),
            samples=len(samples),
            samples_verified=sum(map(_verified, samples.values())),
            counts=Counter(entry.result.outcome for entry in by_source[name]),
            seconds=sum(item.duration for item in done),
        )


def _ops(entries: Iterable[Entry]) -> list[OpSummary]:
    grouped: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry.result.source, entry.result.op].append(entry)
    ops = [
        OpSummary(
            op=op,
            source=source,
            samples=len({(entry.item, entry.sample) for entry in group}),
            counts=Counter(entry.result.outcome for entry in group),
            seconds=sum(entry.result.duration for entry in group),
        )
        for (source, op), group in grouped.items()
    ]
    return sorted(ops, key=lambda op: (WORST_FIRST.index(op.worst), op.source, op.op))


def _failures(results: Iterable[Result], verdict: Verdict) -> Iterable[Finding]:
    known = {id(result): expectation for result, expectation in verdict.expected}
    flaky = set(map(id, verdict.flaky))
    found = []
    for result in results:
        if result.outcome in FAILING:
            expectation = known.get(id(result))
            standing = "expected" if expectation else "flaky" if id(result) in flaky else ""
            found.append(Finding(result, standing or "regression", expectation))
    rank = {"regression": 0, "flaky": 1, "expected": 2}
    return sorted(found, key=lambda f: (rank[f.standing], WORST_FIRST.index(f.result.outcome)))


def _left_out(
    entries: Iterable[Entry],
) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
    missing: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    seen: set[tuple[str, int, str]] = set()
    for entry in entries:
        evidence = entry.result.evidence
        reason = str(evidence.get("reason", "no reason was given"))
        if entry.result.outcome != "unsupported" or (entry.item, entry.sample, reason) in seen:
            continue
        seen.add((entry.item, entry.sample, reason))
        targets = evidence.get("missing")
        if targets:
            missing.update(targets)
        elif evidence.get("scope") != "item":
            skipped[reason] += 1
    return tuple(missing.most_common()), tuple(skipped.most_common())


def _slowest(entries: Iterable[Entry]) -> tuple[tuple[str, float], ...]:
    seconds: defaultdict[str, float] = defaultdict(float)
    for entry in entries:
        result = entry.result
        seconds[f"{result.source}/{result.op}/{result.digest}"] += result.duration
    order = sorted(seconds.items(), key=lambda pair: -pair[1])
    return tuple((name, time) for name, time in order[:SLOWEST] if time > 0)
