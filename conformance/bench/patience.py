"""How long an engine may take to be prepared and compared, before it is given up on a case.

Compilers can take minutes for what is then timed in a second. Without a budget each engine has
`PREPARING` seconds, and `TORCH` times what torch took. Within a budget all engines together have
half of it: each is granted its part as the session goes on, with some credit to begin with, and may
save up. An engine that was broken off is not begun again before it has saved as much as it lost;
and none is begun of which a smaller size of the workload foretells that it takes too long.
"""

from __future__ import annotations

import dataclasses
import math

PREPARING = 20.0  # seconds
TORCH = 4
SHARE = 0.5  # of a budget
CREDIT = 5.0  # seconds
LEAST = 0.2  # seconds: less is no try


@dataclasses.dataclass
class Patience:
    """The patience of one session with `engines` engines over `cases` cases."""

    cases: int
    engines: int
    budget: float  # seconds, inf without one
    _number: int = 0
    _spent: dict[str, float] = dataclasses.field(default_factory=dict)
    _lost: dict[str, float] = dataclasses.field(default_factory=dict)
    _sizes: dict[tuple[str, str], tuple[float, float]] = dataclasses.field(default_factory=dict)

    def begin(self, number: int) -> None:
        """So many cases are over."""
        self._number = number

    def allowed(self, label: str, torch: float) -> float:
        """Seconds for an engine in this case, where torch took so many."""
        most = max(PREPARING, TORCH * torch)
        if math.isinf(self.budget):
            return most
        granted = SHARE * self.budget / self.engines * (self._number + 1) / self.cases
        return min(most, CREDIT + granted - self._spent.get(label, 0.0))

    def refusal(self, workload: str, label: str, work: float, torch: float) -> str | None:
        """Why an engine is not begun in this case, of so much work; None if it is."""
        allowed = self.allowed(label, torch)
        known = self._sizes.get((workload, label))
        if known is not None and known[0] < work:
            likely = known[1] * work / known[0]
            if likely > allowed:
                return f"would take {likely:.2g} s to prepare, by a smaller size"
        lost = self._lost.get(label, 0.0)
        if allowed < max(LEAST, lost):
            return "its time for being prepared, within the budget of the session, is used up"
        return None

    def took(
        self, workload: str, label: str, work: float, seconds: float, *, finished: bool
    ) -> None:
        """An engine took so long to be prepared, or was broken off then."""
        self._spent[label] = self._spent.get(label, 0.0) + seconds
        self._sizes[workload, label] = (work, seconds)
        if finished:
            self._lost.pop(label, None)
        elif not math.isinf(self.budget):
            self._lost[label] = min(seconds, PREPARING)
