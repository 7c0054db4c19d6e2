"""`conformance repro`."""

from __future__ import annotations

from pathlib import Path

import click

from conformance.errors import UsageError


@click.command("repro")
@click.argument("journal", type=click.Path(path_type=Path))
@click.argument("case")
@click.option(
    "--witness",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Save the Program for the corpus, as conformance/corpus/NAME.json, and print no script.",
)
def command(*, journal: Path, case: str, witness: Path | None) -> int:
    """Print the standalone script that shows CASE, a case's name in JOURNAL or a part of it."""
    from conformance import journal as jl
    from conformance.expression import near

    read = jl.read(journal)
    entries = [e for e in read.entries if e.result.outcome != "passed"]
    exact = [e for e in entries if e.result.case == case]
    chosen = exact or [e for e in entries if case in e.result.case]
    found = [e.result for e in chosen]
    cases = list(dict.fromkeys(r.case for r in found))
    if not cases:
        names = {e.result.case for e in entries}
        close = near(case, names) or sorted(names)[:3]
        hint = f"; there are {', '.join(close)}" if close else "; everything in it passed"
        raise UsageError(f"{journal} has no case {case!r} that did not pass{hint}")
    if len(cases) > 1:
        shown = ", ".join(cases[:5]) + (", ..." if len(cases) > 5 else "")
        raise UsageError(f"{case!r} is in the names of {len(cases)} cases: {shown}")
    if witness is not None:
        from conformance.sources.corpus import from_journal, save

        if witness.exists():
            raise UsageError(f"{witness} exists already: choose another name")
        sample = from_journal(read, chosen[0])
        try:
            save(sample, witness)
        except OSError as error:
            raise UsageError(f"cannot write {witness} ({error.strerror})") from error
        click.echo(f"{witness}: {sample.op}, {sample.note}", err=True)
        return 0
    script = next((r.repro["script"] for r in found if r.repro and r.repro.get("script")), None)
    if script is None:
        raise UsageError(f"{cases[0]} is {found[0].outcome}; the journal holds no script for it")
    click.echo(str(script).rstrip("\n"))
    return 0
