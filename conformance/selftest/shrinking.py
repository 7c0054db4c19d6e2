"""`conformance selftest shrinking`: how small the Programs of planted faults become."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from conformance.checks import Case, Check, Context, Finding
    from conformance.mutants import Mutant

LEAST = 3  # calls of a graph in which a fault is met
ELEMENTS = 8  # of all inputs, for a fault of one op ...
SHARE = 0.9  # ... in so many of them
OPS = 5  # calls, for a fault of the engine
LIMIT = 2.0  # seconds
LINES = 25  # of a script


@dataclass(frozen=True)
class Shrinkage:
    """A fault met in a graph, and what is left of that; calls and elements before and after.

    `check` met it and `shown` shows it in the end; both are empty where no graph met it in time.
    `seconds` are of CPU, the child's included. `with_fault` and `without` are the script's exit
    codes in a process with the fault and in one without; `printed` is what it said with it.
    """

    name: str
    fault: str
    engine: bool
    check: str = ""
    shown: str = ""
    calls: tuple[int, int] = (0, 0)
    elements: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    lines: int = 0
    with_fault: int | None = None
    without: int | None = None
    program: str = ""
    script: str = ""
    printed: str = ""

    @property
    def met(self) -> bool:
        """Whether there is anything to shrink."""
        return bool(self.check)

    @property
    def few_calls(self) -> bool:
        """Whether the calls are as few as they should be."""
        return self.calls[1] <= (OPS if self.engine else 1)

    @property
    def small(self) -> bool:
        """Whether the elements are."""
        return self.elements[1] <= ELEMENTS

    @property
    def quick(self) -> bool:
        """Whether it took no longer than it may."""
        return self.seconds < LIMIT

    @property
    def short(self) -> bool:
        """Whether there is a script, and short."""
        return 0 < self.lines <= LINES

    @property
    def verified(self) -> bool:
        """Whether the script tells the engine with the fault from the one without."""
        return self.with_fault == 1 and self.without == 0


# What is held of every fault that was met; elements are held of a share of them.
ALWAYS: dict[str, Callable[[Shrinkage], bool]] = {
    "few enough calls": lambda s: s.few_calls,
    f"under {LIMIT:g} s": lambda s: s.quick,
    f"a script of {LINES} lines or fewer": lambda s: s.short,
    "the script exits 1 with the fault and 0 without": lambda s: s.verified,
}


@click.command("shrinking")
@click.option("-k", "words", metavar="WORDS", default="", help="Faults whose name or kind has it.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="CPU time to meet one fault in a graph.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Every fault's Program.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(
    *, words: str, seconds: float, seed: int, jobs: int, verbose: bool, as_json: bool
) -> int:
    """How small the Programs of planted faults become, and how fast.

    Each mutant of refgrad is met in a generated graph of three calls or more. The harness shrinks
    that as it does in a run, writes the script, and the script is run in two processes: one with
    the mutant, where it should exit 1, and one without, where it should exit 0. The aims: a fault
    of one op ends as one op, in 90 % with 8 elements or fewer; one of the engine with 5 ops or
    fewer; under 2 s; a script of 25 lines or fewer. Exit 1 where one is missed.
    """
    from conformance.cli.options import data, echo_json, talk
    from conformance.mutants import MUTANTS

    chosen = [m.name for m in MUTANTS.values() if words in m.name or words in m.fault]
    chosen = [name for name in chosen if not MUTANTS[name].equivalent]
    if not chosen:
        raise click.UsageError(f"no mutant has {words!r} in its name or fault")
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that are started now
    console, found = talk(), []
    with ProcessPoolExecutor(jobs, initializer=_one_thread) as pool:
        for number, one in enumerate(pool.map(_measured, [(n, seconds, seed) for n in chosen]), 1):
            found.append(one)
            said = ", ".join(misses(one)) or "as it should be"
            if said != "as it should be" or verbose:
                line = f"{number}/{len(chosen)} {one.name} ({one.fault}): {said}"
                console.print(line, highlight=False, markup=False)
    if as_json:
        echo_json([asdict(s) for s in found])
    else:
        _show(found, data(), verbose)
    return int(bool(missed(found)))


def misses(one: Shrinkage) -> list[str]:
    """What is not as it should be with one fault; its elements are counted among all."""
    if not one.met:
        return [f"not met in a graph of {LEAST} calls or more"]
    return [f"not {aim}" for aim, holds in ALWAYS.items() if not holds(one)]


def missed(found: Sequence[Shrinkage]) -> list[str]:
    """The aims that are missed by any of these."""
    met = [s for s in found if s.met]
    aims = [aim for aim, holds in ALWAYS.items() if not all(map(holds, met))]
    ops = [s for s in met if not s.engine]
    if sum(s.small for s in ops) < SHARE * len(ops):
        aims.append(f"{ELEMENTS} elements or fewer in {SHARE:.0%}")
    return aims


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _measured(task: tuple[str, float, int]) -> Shrinkage:
    from conformance.mutants import MUTANTS

    name, seconds, seed = task
    return shrinkage(MUTANTS[name], seconds, seed)


def shrinkage(mutant: Mutant, seconds: float, seed: int = 0) -> Shrinkage:
    """Meet the mutant in a graph, shrink that, and run the script with it and without it."""
    from conformance import explain
    from conformance.mutants import engine, script_with

    of_engine = mutant in engine.MUTANTS
    one: dict[str, Any] = {"name": mutant.name, "fault": mutant.fault, "engine": of_engine}
    explain.prepared()  # once for all that a process shrinks
    place = _met(mutant, seconds, seed)
    if place is None:
        return Shrinkage(**one)
    case, check, finding = place
    with mutant.applied():
        began = _cpu()
        shown = explain.shrunk(case, check, finding)
        spent = _cpu() - began
        text = explain.script_of(shown) or ""
    codes: tuple[int | None, int | None] = (None, None)
    printed = ""
    if text:
        with_fault, printed = explain.run(script_with(mutant, text))
        codes = with_fault, explain.run(text)[0]
    small = shown.case
    return Shrinkage(
        **one,
        check=check.name,
        shown=shown.check.name,
        calls=(len(case.program.calls), len(small.program.calls)),
        elements=(_elements(case), _elements(small)),
        seconds=spent,
        lines=len(text.splitlines()),
        with_fault=codes[0],
        without=codes[1],
        program=str(small.program),
        script=text,
        printed=printed,
    )


def _cpu() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _elements(case: Case) -> int:
    return sum(x.size for x in case.values.values())


def _met(mutant: Mutant, seconds: float, seed: int) -> tuple[Case, Check, Finding] | None:
    """The first graph of several calls in which a check finds the mutant, and what it says."""
    import time

    from conformance import checks
    from conformance.engines.refgrad import RefgradEngine
    from conformance.engines.torch import TorchEngine
    from conformance.mutants.hunt import SOURCE, fails_without, generated
    from conformance.settings import Settings

    settings = Settings(order=2, standalone=0, seed=seed, dtypes=(mutant.dtype,))
    context = checks.context_for(settings, RefgradEngine(), TorchEngine())
    end = time.process_time() + seconds
    for sample in generated(mutant, seed):
        if time.process_time() > end:
            break
        if len(sample.program.calls) < LEAST or context.engine.missing(sample.program):
            continue
        case = context.case(sample, SOURCE)
        with mutant.applied():
            found = _failure(context, case)
        if found is not None and not fails_without(found[0].name, sample, context):
            return case, *found
    return None


def _failure(context: Context, case: Case) -> tuple[Check, Finding] | None:
    """The first check that finds the engine wrong, and its finding."""
    import warnings

    from conformance.checks import invariants
    from conformance.checks.base import ReferenceFailed
    from conformance.errors import ConformanceError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check in invariants.due(context.checks, case):
            try:
                for finding in check.run(case):
                    verdict = str(finding.evidence.get("verdict", ""))
                    if finding.outcome == "failed" and not verdict.startswith("reference wrong"):
                        return check, finding
            except (ConformanceError, ReferenceFailed):  # it raises: nothing to compare
                continue
    return None


def _show(found: Sequence[Shrinkage], console: Any, verbose: bool) -> None:
    from rich.table import Table

    table = Table(title="faults, and what is left of the graphs in which they were met", box=None)
    heads = (
        "fault",
        "met",
        "calls",
        "to",
        "elements",
        "to",
        "worst",
        "s",
        "worst",
        "lines",
        "worst",
    )
    for head in (*heads, "verified"):
        table.add_column(head, justify="left" if head == "fault" else "right")
    groups = {"of one op": False, "of the engine": True}
    for title, engine in groups.items():
        rows = [s for s in found if s.engine is engine]
        for fault in dict.fromkeys(s.fault for s in rows):
            table.add_row(fault, *_row([s for s in rows if s.fault == fault]))
        if rows:
            table.add_row(title, *_row(rows), style="bold")
            table.add_section()
    console.print(table)
    for s in found:
        if verbose and s.met:
            console.print(f"\n{s.name}, by {s.shown}\n{s.program}", highlight=False, markup=False)
    for line in _summary(found):
        console.print(line, highlight=False, markup=False)


def _row(rows: Sequence[Shrinkage]) -> list[str]:
    met = [s for s in rows if s.met]
    cells = [f"{len(met)} of {len(rows)}"]
    if not met:
        return cells
    cells.append(f"{statistics.median(s.calls[0] for s in met):g}")
    cells.append(f"{max(s.calls[1] for s in met)}")
    for end in (0, 1):
        cells.append(f"{statistics.median(s.elements[end] for s in met):g}")
    cells.append(str(max(s.elements[1] for s in met)))
    times, lines = [s.seconds for s in met], [s.lines for s in met]
    cells += [f"{statistics.median(times):.2f}", f"{max(times):.2f}"]
    cells += [f"{statistics.median(lines):g}", str(max(lines))]
    return [*cells, str(sum(s.verified for s in met))]


def _summary(found: Sequence[Shrinkage]) -> list[str]:
    """One line an aim, and one for each fault that is not as it should be."""
    met = [s for s in found if s.met]
    lines = []
    for title, engine, aim in (("one op", False, "1 op"), ("the engine", True, f"{OPS} ops")):
        rows = [s for s in met if s.engine is engine]
        if rows:
            few, small = sum(s.few_calls for s in rows), sum(s.small for s in rows)
            text = f"faults of {title}: {few} of {len(rows)} end with {aim} or fewer, "
            lines.append(
                f"{text}{small} ({small / len(rows):.0%}) with {ELEMENTS} elements or fewer"
            )
    lines += [
        f"{aim}: {sum(map(holds, met))} of {len(met)}" for aim, holds in list(ALWAYS.items())[1:]
    ]
    lines += [f"{s.name}: {', '.join(misses(s))}" for s in found if misses(s)]
    aims = missed(found)
    return [*lines, f"MISSED: {'; '.join(aims)}" if aims else "all aims are met"]
