"""`conformance selftest entries`: one wrong entry among many, and whole gradients in disorder."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from conformance.selftest.functions import BOXED, KINDS, SIZES

if TYPE_CHECKING:
    from conformance.selftest.detection import Disorder, Row, Task


@click.command("entries")
@click.option("-k", "words", metavar="WORDS", default="", help="Functions whose kind has it.")
@click.option(
    "--sizes",
    metavar="N,...",
    default=",".join(map(str, SIZES)),
    help="Elements of the leaf.  [default: 17 sizes from 1 to 1,000,000]",
)
@click.option(
    "--entries", "tries", type=click.IntRange(1), default=2, show_default=True,
    help="Of each function and size.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--no-gradcheck", is_flag=True, help="Leave out the comparison.")
@click.option("-v", "--verbose", is_flag=True, help="Progress, one line a function.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(
    *, words: str, sizes: str, tries: int, seed: int, jobs: int, no_gradcheck: bool,
    verbose: bool, as_json: bool,
) -> int:  # fmt: skip
    """One wrong entry among many: the smallest error that is reported.

    Functions of several kinds, with refgrad's gradient of their leaf spoilt. Any entry should be
    reported that is off by 1e-9 of the gradient's scale (1e-6 at a million elements) in float64,
    by 5e-6 in float32 or by 16 spreads where that is more; and whole gradients that are permuted,
    rolled, flipped, not sorted back, not summed; each with the right place and words. Then users'
    functions with the same fault, which only differences judge, at limits of their own. gradcheck's
    fast mode is asked about the same functions. Exit 1 where something within a limit is missed.
    """
    from conformance.cli.options import data, echo_json, talk
    from conformance.selftest.detection import BOX, COMPARISON, LIMITS

    kinds = [kind for kind in KINDS if words in kind]
    if not kinds:
        raise click.UsageError(f"no kind of function has {words!r}; there are {', '.join(KINDS)}")
    try:
        numbers = [int(size) for size in sizes.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.UsageError(f"--sizes {sizes!r} should be whole numbers joined by commas")
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that are started now
    tasks = [
        (route, kind, size, dtype, tries, seed, not no_gradcheck)
        for size in sorted(numbers, reverse=True)  # what takes longest first
        for kind in kinds
        for dtype in LIMITS
        for route in (COMPARISON, BOX)
        if route == COMPARISON or (dtype == "float64" and size in BOXED)
    ]
    console = talk()
    rows: list[Row] = []
    disorders: list[Disorder] = []
    with ProcessPoolExecutor(jobs, initializer=_one_thread) as pool:
        for row, more in pool.map(_measured, tasks):
            rows += [row] if row else []
            disorders += more
            if verbose and row:
                text = f"{row.route}, {row.kind}, {row.size} x {row.dtype}"
                console.print(text, highlight=False, markup=False)
    if as_json:
        echo_json(
            {"entries": [asdict(r) for r in rows], "disorders": [asdict(d) for d in disorders]}
        )
    else:
        _show(rows, disorders, data())
    return int(any(r.missed for r in rows) or any(d.missed for d in disorders))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _measured(task: Task) -> tuple[Row | None, list[Disorder]]:
    from conformance.selftest.detection import measured

    return measured(task)


def _show(rows: Sequence[Row], disorders: Sequence[Disorder], console: Any) -> None:
    from rich.table import Table

    from conformance.selftest.detection import BOX, COMPARISON

    for route in (COMPARISON, BOX):
        found = [r for r in rows if r.route == route]
        if not found:
            continue
        table = Table(title=f"single wrong entries: {route}", box=None)
        heads = ("dtype", "elements", "limit", "entries", "reported", "located", "described")
        for head in (*heads, "smallest", "worst", "ms", "gradcheck, fast", "smallest", "worst"):
            table.add_column(head, justify="left" if head == "dtype" else "right")
        for dtype in dict.fromkeys(r.dtype for r in found):
            of_dtype = [r for r in found if r.dtype == dtype]
            for size in sorted({r.size for r in of_dtype}):
                table.add_row(dtype, *_cells([r for r in of_dtype if r.size == size]))
            table.add_section()
        console.print(table)
    if disorders:
        table = Table(title="whole gradients in disorder", box=None)
        for head in ("fault", "dtype", "elements", "tried", "reported", "described", "ms"):
            table.add_column(head, justify="left" if head in ("fault", "dtype") else "right")
        for fault, dtype in dict.fromkeys((d.fault, d.dtype) for d in disorders):
            some = [d for d in disorders if (d.fault, d.dtype) == (fault, dtype)]
            sizes = [d.size for d in some]
            table.add_row(
                fault, dtype, f"{min(sizes):,} to {max(sizes):,}", str(len(some)),
                str(sum(d.reported for d in some)), str(sum(d.described for d in some)),
                f"{statistics.median(d.milliseconds for d in some):.0f}",
            )  # fmt: skip
        console.print(table)
    for text in (*map(_said_of_row, rows), *map(_said_of_disorder, disorders)):
        if text:
            console.print(text, highlight=False, markup=False)


def _cells(rows: Sequence[Row]) -> list[str]:
    """One size of one dtype; a limit may be larger than that for a function that rounds more."""
    smallest = [r.smallest for r in rows if r.smallest is not None]
    asked = [r for r in rows if r.seen is not None]
    theirs = [r.gradcheck for r in asked if r.gradcheck is not None]
    return [
        f"{rows[0].size:,}",
        f"{rows[0].limit:.0e}",
        str(sum(r.tried for r in rows)),
        str(sum(r.reported for r in rows)),
        str(sum(r.located for r in rows)),
        str(sum(r.described for r in rows)),
        f"{statistics.median(smallest):.1e}" if smallest else "",
        f"{max(smallest):.1e}" if smallest else "",
        f"{statistics.median(r.milliseconds for r in rows):.0f}",
        f"{sum(bool(r.seen) for r in asked)} of {len(asked)}" if asked else "",
        f"{statistics.median(theirs):.1e}" if theirs else "",
        f"{max(theirs):.1e}" if theirs else "",
    ]


def _said_of_row(row: Row) -> str:
    if not row.missed:
        return ""
    counts = f"{row.reported} reported, {row.located} located, {row.described} described"
    return f"MISSED: {row.route}, {row.kind}, {row.size} x {row.dtype}: {counts} of {row.tried}"


def _said_of_disorder(one: Disorder) -> str:
    if not one.missed:
        return ""
    said = one.said if one.reported else "not reported"
    return f"MISSED: {one.fault}, {one.kind}, {one.size} x {one.dtype}: {said}"
