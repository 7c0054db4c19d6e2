"""The summary as plain data, for `--json`."""

from __future__ import annotations

from typing import Any

from conformance.journal import plain
from conformance.report.evidence import sentence
from conformance.report.summary import Summary


def as_data(summary: Summary) -> dict[str, Any]:
    """What the terminal shows, as JSON data."""
    verdict = summary.verdict
    data: dict[str, Any] = plain(
        {
            "journal": str(summary.journal.path),
            "engine": summary.journal.header["engine"],
            "complete": summary.journal.complete,
            "trouble": summary.journal.trouble,
            "verdict": verdict.name,
            "headline": summary.headline,
            "counts": verdict.counts,
            "inconclusive_share": verdict.inconclusive_share,
            "sources": [
                {
                    "name": source.name,
                    "entries": source.entries,
                    "entries_verified": source.entries_verified,
                    "samples": source.samples,
                    "samples_verified": source.samples_verified,
                    "counts": source.counts,
                    "seconds": source.seconds,
                }
                for source in summary.sources
            ],
            "failures": [
                {
                    "case": finding.result.case,
                    "outcome": finding.result.outcome,
                    "standing": finding.standing,
                    "sentence": sentence(finding.result),
                }
                for finding in summary.failures
            ],
            "improvements": [str(expectation) for expectation in verdict.improvements],
            "missing_expectations": [str(expectation) for expectation in verdict.missing],
            "unsupported": dict(summary.missing),
            "left_out": dict(summary.skipped),
            "entries_without_samples": dict(summary.absent),
        }
    )
    return data
