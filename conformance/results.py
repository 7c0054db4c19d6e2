"""Result: what one check of one case found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

OUTCOMES = (
    "passed",
    "failed",  # a derivative or a value is wrong
    "precision",  # only the relative accuracy of a tiny derivative is lost
    "fallback",  # right, but computed by another engine than the one that claims it
    "errored",  # the engine, or the harness, raised
    "crashed",  # the worker process died
    "timeout",
    "unsupported",  # the engine lacks something the case needs
    "inconclusive",  # the oracle could not decide
)

# What makes a run exit 1 unless it is expected.
FAILING = frozenset({"failed", "fallback", "errored", "crashed", "timeout"})
# Neither right nor wrong: no derivative was judged.
UNDECIDED = frozenset({"unsupported", "inconclusive"})


@dataclasses.dataclass(frozen=True)
class Result:
    """One outcome with its evidence.

    `case` is "source/op/digest/check/dtype/device"; `duration` is in seconds. `evidence` is plain
    data that JSON can hold (see `conformance.journal` for nan and inf). Reports read these keys of
    it, all optional: leaf, index, engine, reference, numerical, bound, absolute, relative, ulp,
    tolerance, shape, diagnosis (a class slug), verdict (one sentence), first_call, culprit (the
    call to blame, by its name in torch), error (the end of a traceback), oracle, reason,
    missing (targets), compared (a count of entries).
    `repro` is {"program": text or JSON, "script": text}, or None.
    """

    case: str
    op: str
    source: str
    check: str
    dtype: str
    device: str
    outcome: str
    duration: float = 0.0
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)
    repro: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome {self.outcome!r} is none of {', '.join(OUTCOMES)}")

    @property
    def digest(self) -> str:
        """The case's middle part: the digest of its Program and values."""
        return self.case.removeprefix(f"{self.source}/{self.op}/").split("/", 1)[0]

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """The result that `to_json` made; other keys are ignored."""
        return cls(**{f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data})


def case_id(source: str, op: str, digest: str, check: str, dtype: str, device: str) -> str:
    """The one spelling of a case's name."""
    return f"{source}/{op}/{digest}/{check}/{dtype}/{device}"
