"""The report as one self-contained HTML page: no external resource, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable

import jinja2

from conformance.report import evidence
from conformance.report.summary import WORST_FIRST, Finding, Summary
from conformance.results import OUTCOMES


def render(summary: Summary) -> str:
    """The whole page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("conformance.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    header = summary.journal.header
    return environment.get_template("page.html").render(
        summary=summary,
        verdict=summary.verdict,
        journal=summary.journal,
        header=header,
        settings=summary.journal.settings,
        outcomes=OUTCOMES,
        worst_first=WORST_FIRST,
        evidence=evidence,
        unexpected=by_op(f for f in summary.failures if f.standing != "expected"),
        expected=by_op(f for f in summary.failures if f.standing == "expected"),
        doubts=by_op(summary.doubts),
    )


def by_op(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """The findings of each op together, in the order in which the ops appear."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.result.op, []).append(finding)
    return list(grouped.items())


def duration(seconds: float) -> str:
    """ "12.3 s" or "4 min 05 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
