"""`conformance repro`."""

from __future__ import annotations

from pathlib import Path

import click

from conformance.errors import UsageError


@click.command("repro")
@click.argument("journal", type=click.Path(path_type=Path))
@click.argument("case")
def command(*, journal: Path, case: str) -> int:
    """Print the standalone script that shows CASE, a case's name in JOURNAL or a part of it."""
    from conformance import journal as jl
    from conformance.expression import near

    results = [r for r in jl.read(journal).results if r.outcome != "passed"]
    found = [r for r in results if r.case == case] or [r for r in results if case in r.case]
    cases = list(dict.fromkeys(r.case for r in found))
    if not cases:
        names = {r.case for r in results}
        close = near(case, names) or sorted(names)[:3]
        hint = f"; there are {', '.join(close)}" if close else "; everything in it passed"
        raise UsageError(f"{journal} has no case {case!r} that did not pass{hint}")
    if len(cases) > 1:
        shown = ", ".join(cases[:5]) + (", ..." if len(cases) > 5 else "")
        raise UsageError(f"{case!r} is in the names of {len(cases)} cases: {shown}")
    script = next((r.repro["script"] for r in found if r.repro and r.repro.get("script")), None)
    if script is None:
        raise UsageError(f"{cases[0]} is {found[0].outcome}; the journal holds no script for it")
    click.echo(str(script).rstrip("\n"))
    return 0
