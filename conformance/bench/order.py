"""Which case comes next, where there is no time for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from conformance.bench.workload import Workload

Case = tuple[Workload, int]

LONG = 4.0  # times the time that is left for a case, on average


class Order:
    """The cases in their order, but that a long one waits until the others are over.

    How long a case takes is foretold by what its workload took at another size, in proportion to
    the work. Of a workload of which nothing is known yet, the case comes in its turn.
    """

    def __init__(self, cases: Sequence[Case], work: Callable[[Workload, int], float]) -> None:
        self._pending = deque(cases)
        self._late: deque[Case] = deque()
        self._work = work
        self._took: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._pending) + len(self._late)

    def next(self, left: float) -> Case:
        """Take the next case, with so many seconds left for all; raises IndexError at the end."""
        while self._pending:
            workload, size = self._pending.popleft()
            if self._likely(workload, size) <= LONG * left / (len(self) + 1):
                return workload, size
            self._late.append((workload, size))
        return self._late.popleft()

    def took(self, workload: Workload, size: int, seconds: float) -> None:
        """At that size, so many seconds are the least that a case takes."""
        self._took[workload.name] = (self._work(workload, size), seconds)

    def _likely(self, workload: Workload, size: int) -> float:
        known = self._took.get(workload.name)
        if known is None:
            return 0.0
        work, seconds = known
        return seconds * max(1.0, self._work(workload, size) / work)
