"""`conformance run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from conformance.cli.options import data, echo_json, names, talk
from conformance.settings import (
    CHECKS,
    DEVICES,
    DTYPES,
    HALF_CHECKS,
    MORE_SOURCES,
    PRECISION_CHECKS,
    PROFILES,
    SECOND_ORDER_CHECKS,
    SOURCES,
    from_profile,
)

_CHECKS = (*CHECKS, *SECOND_ORDER_CHECKS, *PRECISION_CHECKS, *HALF_CHECKS)
# What --resume takes from the command line; the rest is the journal's.
_WITH_RESUME = {"resume", "journal", "jobs", "as_json"}


@click.command("run")
@click.option(
    "--engine",
    metavar="NAME",
    default="refgrad",
    show_default=True,
    help="refgrad, torch, or direct:MODULE:NAME for one from outside.",
)
@names(
    "--source",
    "sources",
    known=(*SOURCES, *MORE_SOURCES),
    default=",".join(SOURCES),
    help=f"Where programs come from; there are {' and '.join(MORE_SOURCES)} too.",
)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="ci", show_default=True)
@click.option(
    "-k",
    "expression",
    metavar="EXPR",
    default="",
    help="Only cases whose name matches, as in -k 'softmax and not log'.",
)
@names(
    "--check",
    "checks",
    known=_CHECKS,
    help=f"Only these checks: {', '.join(_CHECKS)}.",
)
@click.option("--order", type=click.IntRange(1, 2), default=1, show_default=True)
@names(
    "--dtype",
    "dtypes",
    known=DTYPES,
    help="Of what is differentiated, in opinfo and generated.  [default: float64, and in generated "
    "a few others]",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Where the engine runs; the reference stays on the CPU.",
)
@click.option("-j", "jobs", type=click.IntRange(1), help="Worker processes.  [default: all cores]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-x", "fail_fast", is_flag=True, help="Stop at the first unexpected failure.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="For one case; a worker that is silent for longer is replaced.",
)
@click.option("--strict", is_flag=True, help="Fail for what is unsupported or undecided, too.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A new file.  [default: reports/runs/DATE-TIME-ENGINE.jsonl]",
)
@click.option(
    "--expectations",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Failures that are known, beside those of the engine's own list: see conformance expect.",
)
@click.option("--resume", is_flag=True, help="Go on with --journal, or with the latest run.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def command(ctx: click.Context, /, *, resume: bool, as_json: bool, **options: Any) -> int:
    """Verify an engine's derivatives and write a journal.

    Every result is in the journal as soon as it is known; `conformance report` makes pages of it.
    """
    from conformance import journal as jl
    from conformance import run as running
    from conformance.progress import reporter
    from conformance.report import summarise
    from conformance.report.terminal import show

    options["jobs"] = options["jobs"] or _cores()
    console = talk()
    if resume:
        _check_resume(ctx)
        path = Path(options["journal"]) if options["journal"] else running.newest_journal()
        finished = running.resume(path, reporter(console), jobs=options["jobs"])
    else:
        finished = running.run(from_profile(**options), reporter(console))
    summary = summarise(jl.read(finished.journal))
    if as_json:
        from conformance.report.machine import as_data

        echo_json({**as_data(summary), "exit": finished.exit})
    else:
        show(summary, data())
    console.print(_where(finished), highlight=False, soft_wrap=True, markup=False)
    return finished.exit


def _where(finished: Any) -> str:
    path = finished.journal
    if finished.exit == 2:
        return f"interrupted; go on with: conformance run --resume --journal {path}"
    page = path.with_suffix(".html")
    return f"journal: {path}; a page of it: conformance report {path} --html {page}"


def _check_resume(ctx: click.Context) -> None:
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in _WITH_RESUME:
            raise click.UsageError(
                f"--resume goes on with the journal's own settings: leave out {parameter.opts[0]}",
                ctx,
            )


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
