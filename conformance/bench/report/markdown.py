"""A session as Markdown, for a pull request or a README."""

from __future__ import annotations

from conformance.bench.journal import TIMED
from conformance.bench.report import aims, words
from conformance.bench.report.summary import MEANT, Case, Summary
from conformance.report.markdown import escaped


def render(summary: Summary, phase: str) -> str:
    """The whole page; the table of ratios is of one phase."""
    journal = summary.journal
    header = journal.header
    out = [f"# {escaped(words.headline(summary))}", ""]
    for text in (header["note"], journal.trouble):
        if text:
            out += [f"> **{escaped(text)}**", ""]
    out += [f"Session **{journal.verdict}**. {_where(summary)}", ""]
    if journal.end:
        out += [f"- {escaped(reason)}" for reason in journal.end["reasons"]]
        unreached = ", ".join(f"{name}/{size}" for name, size in journal.end["unreached"])
        out += [f"- not reached, for lack of time: {escaped(unreached)}"] if unreached else []
    out += ["", "| geometric mean of ratios to torch | backward | step | slower in |"]
    out += ["|---|---|---|---|"]
    for engine in summary.engines:
        means = summary.means[engine]
        values = " | ".join(f"{means[p].value:.3f}" if p in means else "–" for p in MEANT)
        slower = ", ".join(f"{means[p].slower} of {means[p].n}" for p in MEANT if p in means)
        out.append(f"| {escaped(engine)} | {values} | {slower} |")
    if summary.device == "cpu":
        out += ["", "## Aims", "", "| aim | at most | found | | |", "|---|---|---|---|---|"]
        for one in aims.standings(summary):
            cells = (one.title, f"{one.at_most:.2f}", words.standing(one), one.verdict)
            row = (*cells, words.beside(one))
            out.append(f"| {' | '.join(escaped(cell) for cell in row)} |")
    names = ("torch", *summary.engines, "torch against itself")
    out += ["", f"## Ratios to torch eager, {phase}", ""]
    out += [f"| case | {' | '.join(escaped(n) for n in names)} |", "|---" * (len(names) + 1) + "|"]
    out += [_row(case, summary.engines, phase) for case in summary.cases]
    out += ["", "## Not timed", ""]
    for name, engine in summary.journal.header["engines"].items():
        if engine["absent"]:
            out.append(f"- {escaped(name)}: {escaped(engine['absent'])}")
    for result in summary.failures:
        named = f"{result.workload}/{result.size} on {result.engine}"
        out.append(f"- {escaped(named)}: {result.outcome}: {escaped(result.reason)}")
    out += ["", f"## {escaped(summary.ours)} is slower in", ""]
    for loss in summary.losses:
        ratio = escaped(words.ratio(loss.ratio))
        name = escaped(f"{loss.case.name}, {loss.phase}, than {loss.other}")
        out.append(f"- {name}: {ratio}{'' if loss.clear else ' (within the interval of 1)'}")
    return "\n".join([*out, ""])


def _row(case: Case, engines: tuple[str, ...], phase: str) -> str:
    found = case.baseline.phases.get(phase)
    cells = [case.name, words.seconds(found.spread.median) if found else case.baseline.outcome]
    for engine in engines:
        ratio = case.ratio(engine, phase)
        result = case.engines.get(engine)
        said = "–" if result is None else result.outcome
        cells.append(words.ratio(ratio) if ratio else "unsupported" if said == TIMED else said)
    control = case.control.phases.get(phase) if case.control else None
    cells.append(words.ratio(control.ratio) if control and control.ratio else "–")
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def _where(summary: Summary) -> str:
    header = summary.journal.header
    known = header["environment"]
    versions = ", ".join(
        f"{name} {known[name]}" for name in ("python", "numpy", "torch") if known.get(name)
    )
    threads = header["threads"].get("asked")
    where = f"{known.get('cpu')}, {threads} thread(s), {versions}, commit {known.get('commit')}"
    return escaped(f"On {summary.device}: {where}.")
