"""The report as Markdown, for a pull request or a job summary."""

from __future__ import annotations

import re

from conformance.progress import tally
from conformance.report.evidence import headline, lines
from conformance.report.summary import Finding, Summary

SHOWN = 50


def render(summary: Summary) -> str:
    """The whole page."""
    header = summary.journal.header
    state = "✅" if summary.state == "ok" else "❌" if summary.state != "incomplete" else "⚠️"
    out = [f"# {state} {escaped(header['engine'])}: {summary.headline}", ""]
    if summary.journal.trouble:
        out += [f"> **Incomplete run.** {summary.journal.trouble}", ""]
    out += ["| source | verified | checks |", "|---|---|---|"]
    for source in summary.sources:
        counts = tally(source.counts, markup=False)
        out.append(f"| {escaped(source.name)} | {source.sentence} | {counts} |")
    out.append("")
    if summary.inconclusive:
        out += [summary.inconclusive, ""]
    unexpected = [f for f in summary.failures if f.standing != "expected"]
    if unexpected:
        out += ["## Not as expected", ""]
        for finding in unexpected[:SHOWN]:
            out += _finding(finding)
        if len(unexpected) > SHOWN:
            out += [f"... and {len(unexpected) - SHOWN:,} more.", ""]
    if summary.verdict.expected:
        out += ["## Known failures", ""]
        known = dict.fromkeys(expectation for _, expectation in summary.verdict.expected)
        out += [f"- {escaped(str(expectation))}" for expectation in known]
        out.append("")
    if summary.missing:
        out += ["## Not covered", "", "| the engine lacks | samples |", "|---|---|"]
        out += [f"| {escaped(name)} | {count:,} |" for name, count in summary.missing[:SHOWN]]
        out.append("")
    environment = header.get("environment", {})
    versions = ", ".join(f"{key} {value}" for key, value in environment.items() if value)
    out += [f"{escaped(versions)}; started {escaped(header.get('started', ''))}.", ""]
    return "\n".join(out)


def _finding(finding: Finding) -> list[str]:
    result = finding.result
    out = [f"### {result.outcome}: {escaped(headline(result))}", "", *_fence(result.case), ""]
    for label, value in lines(result):
        out += (
            [f"- {label}:", "", *_indent(_fence(value)), ""]
            if "\n" in value
            else [f"- {label}: {escaped(value)}"]
        )
    script = (result.repro or {}).get("script")
    if script:
        out += ["", "<details><summary>script</summary>", "", *_fence(str(script), "python")]
        out += ["", "</details>"]
    return [*out, ""]


def _fence(text: str, language: str = "") -> list[str]:
    """A code block that no content can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip(), fence]


def _indent(rows: list[str]) -> list[str]:
    return ["  " + line for row in rows for line in row.splitlines()]


def escaped(text: str) -> str:
    """Text in which Markdown and HTML see nothing of theirs."""
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", str(text).replace("\n", " "))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
