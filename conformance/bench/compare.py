"""What changed between two sessions, beyond noise: ratios to torch eager, case by case.

A ratio has changed where the intervals of the two sessions are apart and the medians differ by more
than a floor: 5 %, or what torch against itself differs by in that case in either session, if that
is more. (The same code in two sessions is paired with torch in each; what is left is chance, and
what memory layout does.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from conformance.bench.journal import Journal
from conformance.bench.report.summary import MEANT, Case, summarise
from conformance.bench.statistics import Interval
from conformance.bench.verdict import VALID
from conformance.errors import UsageError

FLOOR = 0.05
SLOWER, FASTER = "slower", "faster"


@dataclasses.dataclass(frozen=True)
class Change:
    """One ratio in both sessions."""

    case: str
    engine: str
    phase: str
    old: Interval
    new: Interval
    floor: float

    @property
    def factor(self) -> float:
        """The new ratio over the old."""
        return self.new.median / self.old.median

    @property
    def direction(self) -> str | None:
        """slower or faster, None within noise."""
        old, new = self.old, self.new
        if old.low is None or old.high is None or new.low is None or new.high is None:
            return None
        if new.low > old.high and self.factor > 1 + self.floor:
            return SLOWER
        if new.high < old.low and self.factor < 1 / (1 + self.floor):
            return FASTER
        return None


@dataclasses.dataclass(frozen=True)
class Lost:
    """An engine that was timed in the old session and no longer is."""

    case: str
    engine: str
    outcome: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything that both sessions timed, and what the new one has lost."""

    changes: tuple[Change, ...]
    lost: tuple[Lost, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    warnings: tuple[str, ...]

    def of(self, direction: str) -> tuple[Change, ...]:
        """The changes beyond noise in one direction, the largest first."""
        found = [change for change in self.changes if change.direction == direction]
        return tuple(sorted(found, key=lambda c: c.factor, reverse=direction == SLOWER))

    @property
    def regressed(self) -> bool:
        """Whether a ratio is worse, or an engine is no longer timed that was."""
        return bool(self.of(SLOWER) or self.lost)


def compare(old: Journal, new: Journal) -> Comparison:
    """Compare two sessions.

    Raises UsageError where the old one is no valid session, the new one is invalid or incomplete,
    or they are not of the same device and number of threads.
    """
    if old.verdict != VALID:
        raise UsageError(
            f"{old.path} is no baseline: the session is {old.verdict}{_because(old)}. Repeat it on "
            "a quiet machine, or with fewer cases and more time (-k, --budget)"
        )
    if new.verdict not in (VALID, "noisy"):
        raise UsageError(f"{new.path} shows nothing: the session is {new.verdict}{_because(new)}")
    for name in ("device", "threads"):
        theirs, ours = _setting(old, name), _setting(new, name)
        if theirs != ours:
            raise UsageError(f"the sessions do not compare: {name} is {theirs} and {ours}")
    before = {case.name: case for case in summarise(old).cases}
    after = {case.name: case for case in summarise(new).cases}
    both = [name for name in before if name in after]
    return Comparison(
        tuple(change for name in both for change in _changes(before[name], after[name])),
        tuple(lost for name in both for lost in _lost(before[name], after[name])),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        tuple(_warnings(old, new)),
    )


def _because(journal: Journal) -> str:
    reasons = [journal.trouble] if journal.trouble else (journal.end or {}).get("reasons", [])
    return f" ({'; '.join(reasons)})" if reasons else ""


def _setting(journal: Journal, name: str) -> Any:
    if name == "threads":
        return journal.header["settings"]["threads"]
    return journal.header[name]


def _changes(old: Case, new: Case) -> Iterable[Change]:
    for engine in old.engines:
        for phase in MEANT:
            before, after = old.ratio(engine, phase), new.ratio(engine, phase)
            if before is not None and after is not None:
                floor = max(FLOOR, _noise(old, phase), _noise(new, phase))
                yield Change(old.name, engine, phase, before, after, floor)


def _noise(case: Case, phase: str) -> float:
    """How far torch's ratio to itself may be from 1 in this case."""
    found = case.control.phases.get(phase) if case.control is not None else None
    ratio = found.ratio if found is not None else None
    if ratio is None or ratio.low is None or ratio.high is None:
        return 1.0
    return max(abs(ratio.low - 1), abs(ratio.high - 1))


def _lost(old: Case, new: Case) -> Iterable[Lost]:
    for engine, result in old.engines.items():
        now = new.engines.get(engine)
        if now is not None and result.phases and not now.phases:
            yield Lost(old.name, engine, now.outcome, now.reason)


def _warnings(old: Journal, new: Journal) -> Iterable[str]:
    if new.verdict != VALID:
        yield f"the new session is {new.verdict}{_because(new)}"
    before, after = old.header["environment"], new.header["environment"]
    for name in ("cpu", "python", "numpy", "scipy", "torch"):
        if before.get(name) != after.get(name):
            yield f"{name} was {before.get(name)} and is {after.get(name)}"
