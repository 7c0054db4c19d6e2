"""`conformance verify`."""

from __future__ import annotations

from typing import Any

import click

from conformance.cli.options import data, echo_json, names, talk
from conformance.settings import DEVICES, from_profile, user_checks

INTERRUPTED, NOTHING_CHECKED = 2, 5
_WHAT = {
    "torch": "the gradients of your code, against numerical derivatives",
    "refgrad": "the same program on an engine without torch, as a second opinion",
}


@click.command("verify")
@click.argument("subject", metavar="MODULE:NAME")
@names(
    "--engine",
    "engines",
    default="torch,refgrad",
    help="Whose gradients to judge, one after the other.",
)
@click.option("--order", type=click.IntRange(1, 2), default=1, show_default=True)
@click.option("--half", is_flag=True, help="Judge it in float16 and bfloat16 too.")
@click.option(
    "--rtol",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Of a gradient's scale: what a rule that is approximate by design may be off.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help="One argument, as in 'float64[n, 3] in (0, 1)' or 'int64[n] in [0, 10)'; repeat for more.",
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Sets of arguments: drawn from the --input specs, or made up.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Where your code runs; modules and made-up arguments are brought there.",
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="For one case."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON.")
def command(
    *,
    subject: str,
    engines: tuple[str, ...],
    half: bool,
    device: str,
    as_json: bool,
    **options: Any,
) -> int:
    """Verify the gradients of a function or model of yours.

    MODULE:NAME is a function, an autograd.Function or an nn.Module, for which small inputs are made
    up, several sets of them; or a factory without arguments that returns (callable, args) or
    (callable, args, kwargs). Or --input describes the arguments, one each, from which sets are
    drawn: a size that is a name (n) is drawn too. MODULE may be a file ending in .py.

    The tensors among the arguments that require grad, and a module's parameters, are checked: the
    whole, then each call of it alone; or as a black box where it cannot be captured.
    """
    from conformance import journal as jl
    from conformance import run as running
    from conformance.progress import reporter
    from conformance.report import summarise
    from conformance.report.machine import as_data
    from conformance.report.terminal import show

    console = talk()
    summaries = []
    codes = []
    for engine in engines:
        settings = from_profile(
            "full",
            engine=engine,
            sources=(f"user:{subject}",),
            checks=user_checks(options["order"], half=half),
            jobs=1,
            place=device,
            device="cpu" if engine == "refgrad" else device,
            **options,
        )
        finished = running.run(settings, reporter(console))
        summary = summarise(jl.read(finished.journal))
        codes.append(finished.exit)
        summaries.append({**as_data(summary), "exit": finished.exit})
        if not as_json:
            click.secho(f"{engine}: {_WHAT.get(engine, 'an engine of yours')}", bold=True)
            if finished.exit == NOTHING_CHECKED and summary.missing:
                lacks = ", ".join(name for name, _ in summary.missing)
                click.echo(f"it has no opinion, since it lacks {lacks}\n")
            else:
                show(summary, data())
                click.echo()
        console.print(f"journal: {finished.journal}", highlight=False, markup=False)
        if finished.exit == INTERRUPTED:
            break
    if as_json:
        echo_json(summaries)
    return overall(codes)


def overall(codes: list[int]) -> int:
    """The exit code of several engines: a failure counts, an engine that lacks all does not."""
    for code in (INTERRUPTED, 1):
        if code in codes:
            return code
    return 0 if 0 in codes else codes[0]
