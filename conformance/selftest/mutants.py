"""`conformance selftest mutants`: which check kills each wrong rule, beside gradcheck."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from conformance.mutants.hunt import Kill

NAMES = ("slow", "fast", "gradgrad")


@click.command("mutants")
@click.option(
    "-k", "words", metavar="WORDS", default="", help="Mutants whose name or fault has it."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="CPU time for one mutant.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--no-gradcheck", is_flag=True, help="Leave out the comparison.")
@click.option("-v", "--verbose", is_flag=True, help="One line a mutant.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(
    *, words: str, seconds: float, seed: int, jobs: int, no_gradcheck: bool, verbose: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Wrong rules: which check kills each, beside gradcheck.

    Each mutant is one thing of refgrad changed. It meets generated Programs about its op and
    op_db's samples, in turn; all checks of first and second order look at each. gradcheck and
    gradgradcheck, with their defaults, then see the mutant on the same samples (the first 19 and
    the one that killed it). Exit 1 where a mutant survives that is not declared equivalent, and
    where one that is does not survive a thousand samples.
    """
    from conformance.cli.options import data, echo_json, talk
    from conformance.mutants import MUTANTS

    chosen = [m for m in MUTANTS.values() if words in m.name or words in m.fault]
    if not chosen:
        raise click.UsageError(f"no mutant has {words!r} in its name or fault")
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that are started now
    kills = []
    console = talk()
    with ProcessPoolExecutor(jobs, initializer=_one_thread) as pool:
        tasks = [(m.name, seconds, seed, not no_gradcheck) for m in chosen]
        for number, kill in enumerate(pool.map(_hunt, tasks), 1):
            kills.append(kill)
            how = f"killed by {kill['check']}" if kill["check"] else "SURVIVES"
            if verbose or not kill["check"]:
                console.print(
                    f"{number}/{len(chosen)} {kill['name']} ({kill['fault']}): {how}, "
                    f"{kill['examples']} examples, {kill['milliseconds']:.0f} ms",
                    highlight=False, markup=False,
                )  # fmt: skip
    if as_json:
        echo_json(kills)
    else:
        _show(kills, data(), verbose)
    return int(any(_survived(k) for k in kills))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _hunt(task: tuple[str, float, int, bool]) -> dict[str, Any]:
    from conformance.mutants import MUTANTS
    from conformance.mutants.hunt import hunt

    name, seconds, seed, compare = task
    return as_data(hunt(MUTANTS[name], seconds, seed, compare=compare))


def as_data(kill: Kill) -> dict[str, Any]:
    """A Kill as plain data."""
    return {
        "name": kill.mutant.name,
        "fault": kill.mutant.fault,
        "check": kill.check,
        "verdict": kill.verdict,
        "examples": kill.examples,
        "milliseconds": kill.milliseconds,
        "reached": kill.reached,
        "equivalent": kill.mutant.equivalent,
        "gradcheck": kill.gradcheck,
    }


def _survived(kill: dict[str, Any]) -> bool:
    """Whether it lives and should not; or was killed and is said to be equivalent."""
    return bool(kill["check"]) == bool(kill["equivalent"])


def _show(kills: list[dict[str, Any]], console: Any, verbose: bool) -> None:
    from rich.table import Table

    table = Table(title="wrong rules", box=None)
    heads = ("fault", "mutants", "killed", "by", "examples", "worst", "ms", "worst", *NAMES)
    for head in heads:
        table.add_column(head, justify="left" if head in ("fault", "by") else "right")
    rows = [k for k in kills if not k["equivalent"]]
    for fault in dict.fromkeys(k["fault"] for k in rows):
        table.add_row(fault, *_row([k for k in rows if k["fault"] == fault]))
    table.add_section()
    table.add_row("all", *_row(rows), style="bold")
    console.print(table)
    for k in kills:
        if k["equivalent"]:
            console.print(f"equivalent: {k['name']}: {k['equivalent']}", highlight=False)
    for k in kills:
        if _survived(k):
            what = "is said to be equivalent, and was killed" if k["equivalent"] else "survives"
            where = "" if k["reached"] else " (its place was never reached)"
            console.print(f"{k['name']} {what}{where}", highlight=False)


def _row(kills: list[dict[str, Any]]) -> Iterable[str]:
    dead = [k for k in kills if k["check"]]
    checks = dict.fromkeys(k["check"].partition(".")[0] for k in dead)
    examples = [k["examples"] for k in dead] or [0]
    times = [k["milliseconds"] for k in dead] or [0.0]
    yield str(len(kills))
    yield str(len(dead))
    yield ", ".join(checks)
    yield f"{statistics.median(examples):g}"
    yield str(max(examples))
    yield f"{statistics.median(times):.0f}"
    yield f"{max(times):.0f}"
    for name in NAMES:
        asked = [k for k in kills if k["gradcheck"]]
        yield str(sum(k["gradcheck"].get(name, False) for k in asked)) if asked else ""
