"""A session as plain data, for `--json`."""

from __future__ import annotations

import dataclasses
from typing import Any

from conformance.bench.report import aims
from conformance.bench.report.summary import Case, Summary
from conformance.journal import plain


def as_data(summary: Summary) -> dict[str, Any]:
    """What the terminal shows, as JSON data."""
    journal = summary.journal
    standings = aims.standings(summary) if summary.device == "cpu" else []
    data: dict[str, Any] = plain(
        {
            "journal": str(journal.path),
            "device": summary.device,
            "note": journal.header["note"],
            "complete": journal.complete,
            "trouble": journal.trouble,
            "verdict": journal.verdict,
            "reasons": journal.end["reasons"] if journal.end else [],
            "unreached": journal.end["unreached"] if journal.end else [],
            "means": {
                engine: {phase: dataclasses.asdict(mean) for phase, mean in means.items()}
                for engine, means in summary.means.items()
            },
            "aims": [{**dataclasses.asdict(one), "verdict": one.verdict} for one in standings],
            "losses": [
                {
                    "case": loss.case.name,
                    "other": loss.other,
                    "phase": loss.phase,
                    "ratio": dataclasses.asdict(loss.ratio),
                    "clear": loss.clear,
                }
                for loss in summary.losses
            ],
            "cases": [_case(case) for case in summary.cases],
        }
    )
    return data


def _case(case: Case) -> dict[str, Any]:
    return {
        "case": case.name,
        "group": case.group,
        "noisy": case.noisy,
        "torch": {name: phase.spread.median for name, phase in case.baseline.phases.items()},
        "engines": {
            engine: {
                "outcome": result.outcome,
                "reason": result.reason,
                "ratios": {
                    name: dataclasses.asdict(phase.ratio)
                    for name, phase in result.phases.items()
                    if phase.ratio is not None
                },
            }
            for engine, result in case.engines.items()
        },
    }
