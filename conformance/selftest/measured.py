"""What tools say of known derivatives, and what that comes to."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.oracles.estimate import Kink

SLACK = 4 * float(np.finfo(float).eps)  # of a derivative: rounding it to double, and comparing
TINY = float(np.finfo(float).tiny)
CLAIMS = {"right": 0.0, "0.09 %": 9e-4, "1e-4": 1e-4, "1e-6": 1e-6}  # by how much they are wrong


@dataclass(frozen=True)
class Found:
    """A derivative at one point beside the true one; `bound` is the tool's own, nan without.

    `size` is that of the function there, and `tiny` what its dtype cannot hold.
    """

    kind: str
    name: str
    truth: float
    value: float
    bound: float = float("nan")
    kink: Kink | None = None
    size: float = 0.0
    tiny: float = TINY

    @property
    def error(self) -> float:
        """Absolute; not finite where nothing was found."""
        return abs(self.value - self.truth)

    @property
    def answers(self) -> bool:
        """Whether there is a number, and one only."""
        return bool(np.isfinite(self.value)) and self.kink is None

    @property
    def outside(self) -> bool:
        """Whether the true error is more than the bound."""
        return not self.passes(self.truth)

    def passes(self, claim: float) -> bool:
        """Whether a claimed derivative is within the bound of what was found."""
        if self.kink is not None:
            return self.kink.holds(np.array(claim), SLACK * abs(claim) + self.tiny)
        if not np.isfinite(self.value):
            return not np.isfinite(self.bound)  # it says that it does not know
        return abs(claim - self.value) <= self.bound + SLACK * abs(claim) + self.tiny


@dataclass
class Measured:
    """A tool's derivatives, the seconds of CPU that they took, and what it says of claims.

    `claims` counts, for each of CLAIMS, how often the claim passed and how often it was made.
    `missing` says why there is nothing.
    """

    tool: str
    found: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    calls: int = 0
    claims: dict[str, tuple[int, int]] = field(default_factory=dict)
    missing: str = ""

    def judge(self) -> None:
        """Count the claims that pass by the tool's own bounds."""
        for name, wrong in CLAIMS.items():
            told = [f.passes(f.truth * (1 + wrong)) for f in self.found if f.truth]
            self.claims[name] = sum(told), len(told)

    def claim(self, name: str, passed: bool) -> None:
        """Count one claim."""
        yes, asked = self.claims.get(name, (0, 0))
        self.claims[name] = yes + passed, asked + 1

    @property
    def milliseconds(self) -> float:
        """Of one derivative, or of one verdict."""
        return 1000 * self.seconds / max(1, self.calls)

    def share(self, name: str) -> float:
        """The share of a claim that passes."""
        passed, asked = self.claims.get(name, (0, 0))
        return passed / asked if asked else float("nan")

    def only(self, kinds: Iterable[str]) -> Measured:
        """The part of some classes of functions; its time is not known."""
        return Measured(self.tool, [f for f in self.found if f.kind in set(kinds)])

    @property
    def bounded(self) -> bool:
        """Whether the tool says how far off it may be."""
        return bool(self.found) and not any(np.isnan(f.bound) for f in self.found)

    @property
    def outside(self) -> list[Found]:
        """Where the true error is more than the bound."""
        return [f for f in self.found if f.outside] if self.bounded else []

    @property
    def outside_share(self) -> float:
        """The share of them; nan for a tool without bounds."""
        return len(self.outside) / len(self.found) if self.bounded else float("nan")

    @property
    def unanswered(self) -> int:
        """How many points got no number."""
        return sum(not f.answers for f in self.found)

    @property
    def median_bound(self) -> float:
        """Beside the derivative, where that is not 0."""
        return _median([f.bound / abs(f.truth) for f in self.found if f.truth])

    @property
    def errors(self) -> list[float]:
        """Beside the derivative, where that is not 0."""
        return [f.error / abs(f.truth) for f in self.found if f.truth and f.answers]

    @property
    def median_error(self) -> float:
        """The median of these."""
        return _median(self.errors)

    @property
    def worst_error(self) -> float:
        """Beside the derivative or the function itself, whichever is larger."""
        sizes = ((f.error, max(abs(f.truth), f.size)) for f in self.found if f.answers)
        return max((e / s for e, s in sizes if s), default=float("nan"))

    def to_json(self, kinds: Sequence[str]) -> dict[str, Any]:
        """The numbers as plain data; what is not finite is None."""
        if self.missing:
            return {"tool": self.tool, "missing": self.missing}
        parts = {"all": self} | {k: self.only([k]) for k in kinds if self.only([k]).found}
        rows = {
            kind: {
                "points": len(part.found),
                "no answer": part.unanswered,
                "outside the bound": len(part.outside) if part.bounded else None,
                "median bound": finite(part.median_bound),
                "median error": finite(part.median_error),
                "worst error": finite(part.worst_error),
            }
            for kind, part in parts.items()
        }
        passed = {name: finite(self.share(name)) for name in self.claims}
        return {"tool": self.tool, "ms": self.milliseconds, "by class": rows, "passes": passed}


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if np.isfinite(value) else None


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")
