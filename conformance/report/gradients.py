"""What `check_gradients` found, for people and for assertions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from conformance.results import FAILING, Result

# The check that tells most comes first: the cause of what others see, then an entry-by-entry
# comparison, which names the leaf and the entry.
_TELLING = (
    *("invariants.deterministic", "invariants.unmodified", "invariants.linear"),
    *("vjp", "numerical", "rr", "narrow", "half", "half2", "reentrant", "vmap", "jvp", "value"),
    "invariants.mask",
)
_LONG, _HEAD, _TAIL = 60, 40, 10  # lines of a Program: how many are too many, and what is shown
_DETAILS = ("leaf", "index", "engine", "reference", "numerical", "bound", "absolute", "relative")
_WORDS = ("diagnosis", "description", "first_call", "error")
# A function may refuse float32, a layout or a batch, and have no forward mode.
_OPTIONAL = ("narrow", "vmap", "invariants", "jvp", "fr", "rf", "ff")
_COMPARING = ("value", "vjp")
_NAMES = {"engine": "torch", "reference": "second opinion"}


@dataclass(frozen=True, repr=False)
class Report:
    """What was found of a function.

    `ok` says that every check passed and something was compared; an inconclusive check is not ok.
    `worst` is the Result that tells most of what failed, or None. `results` has every check of
    every sample, and `samples` is how many sets of inputs were tried. str(report) is for people.
    """

    ok: bool
    verdict: str
    worst: Result | None
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    samples: int = 1

    @property
    def failed(self) -> bool:
        """Whether a derivative is wrong, or could not be computed."""
        return any(r.outcome in FAILING for r in self.results)

    @property
    def inconclusive(self) -> bool:
        """Whether nothing is known to be wrong, and not everything could be decided."""
        return not self.ok and not self.failed

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"<Report {str(self).partition(chr(10))[0]}>"

    def __str__(self) -> str:
        tried = "" if self.samples == 1 else f" ({self.samples} samples)"
        lines = [f"{'ok' if self.ok else 'NOT OK'}: {self.verdict}{tried}"]
        lines += [f"  {line}" for line in _checks(self.results)]
        lines += [f"  note: {note}" for note in self.notes]
        if self.worst is not None:
            lines += ["", *_details(self.worst)]
        return "\n".join(lines)


def summary(results: Iterable[Result], notes: Iterable[str], samples: int = 1) -> Report:
    """The Report of these results."""
    results, notes = tuple(results), tuple(dict.fromkeys(notes))
    failing = sorted((r for r in results if r.outcome in FAILING), key=_rank)
    undecided = [
        r for r in results if r.outcome not in ("passed", "precision", *FAILING) and not _refused(r)
    ]
    if failing:
        worst = failing[0]
        text = worst.evidence.get("verdict") or worst.evidence.get("reason", worst.outcome)
        return Report(False, str(text), worst, results, notes, samples)
    if undecided:
        reason = undecided[0].evidence.get("reason", undecided[0].outcome)
        text = f"{undecided[0].check} is {undecided[0].outcome}: {reason}"
        return Report(False, text, None, results, notes, samples)
    if not any(r.check == "numerical" for r in results):
        text = "nothing was compared: no output is differentiable"
        return Report(False, text, None, results, notes, samples)
    return Report(True, "every derivative agrees", None, results, notes, samples)


def _rank(result: Result) -> int:
    return _TELLING.index(result.check) if result.check in _TELLING else len(_TELLING)


def _refused(result: Result) -> bool:
    return _family(result) in _OPTIONAL and result.outcome == "unsupported"


def _family(result: Result) -> str:
    """The check, or the group that it is one of: "invariants" of "invariants.linear"."""
    return result.check.partition(".")[0]


def _checks(results: tuple[Result, ...]) -> list[str]:
    """One line a check: its worst outcome, and how much passed."""
    order = ("passed", "precision", "unsupported", "inconclusive")
    lines = []
    for check in dict.fromkeys(map(_family, results)):
        these = [r for r in results if _family(r) == check]
        if check != these[0].check and all(r.outcome in ("passed", "unsupported") for r in these):
            held = sum(r.outcome == "passed" for r in these)
            lines.append(f"{check}: passed, {held} of {len(these)}")
            continue
        worst = max(these, key=lambda r: order.index(r.outcome) if r.outcome in order else 9)
        line = _line(worst)
        if len(these) > 1:
            same = sum(r.outcome == worst.outcome for r in these)
            line += f" ({same} of {len(these)} {'samples' if check == worst.check else 'checks'})"
        lines.append(line)
    return lines


def _line(result: Result) -> str:
    evidence = result.evidence
    said = [f"{result.check}: {result.outcome}"]
    if "oracle" in evidence:
        said.append(f"against {evidence['oracle']}")
        said.append(f"bound {evidence['bound']:.1e}")
    if evidence.get("diagnosis") == "kink":
        said[1:] = ["at a kink, where the gradient is one of several"]
    elif "oracle" not in evidence and "compared" in evidence:
        said.append(f"{evidence['compared']} entries")
        if "against" in evidence and result.check in _COMPARING:
            said.append(f"against {evidence['against']}")
    if result.outcome != "passed" and "reason" in evidence:
        said.append(str(evidence["reason"]).strip().partition("\n")[0])
    return ", ".join(said)


def _details(worst: Result) -> list[str]:
    evidence: dict[str, Any] = worst.evidence
    if evidence.get("reference") == evidence.get("engine"):
        evidence = {k: v for k, v in evidence.items() if k != "reference"}
    lines = [f"{'sample':>15}: {evidence['label']}"] if evidence.get("label") else []
    lines += [f"{_NAMES.get(k, k):>15}: {evidence[k]}" for k in _DETAILS if k in evidence]
    lines += [f"{key.replace('_', ' '):>15}: {evidence[key]}" for key in _WORDS if key in evidence]
    if worst.repro is not None:
        lines += ["", *("    " + line for line in _cut(worst.repro["program"].splitlines()))]
    return lines


def _cut(lines: list[str]) -> list[str]:
    """The beginning and the end of a long Program."""
    if len(lines) <= _LONG:
        return lines
    left_out = f'... {len(lines) - _HEAD - _TAIL:,} lines; all: report.worst.repro["program"]'
    return [*lines[:_HEAD], left_out, *lines[-_TAIL:]]
