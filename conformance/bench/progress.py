"""How far a session is, on stderr: a bar on a terminal, a line a case elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from conformance.bench.journal import Result
from conformance.bench.report import words
from conformance.bench.session import Progress
from conformance.bench.timing import BACKWARD


def progress(console: Console) -> Progress:
    """The one that suits where `console` writes."""
    return _Bar(console) if console.is_terminal else _Lines(console)


class _Bar(Progress):
    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            TextColumn("[bold]timing[/]"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}", markup=False),
            console=console,
            transient=True,
        )

    def begin(self, cases: int) -> None:
        self._task = self._bar.add_task("", total=cases, doing="measuring the roofs")
        self._bar.start()

    def case(self, number: int, name: str) -> None:
        self._bar.update(self._task, completed=number, doing=name)

    def close(self) -> None:
        self._bar.stop()


class _Lines(Progress):
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._place = ""

    def begin(self, cases: int) -> None:
        self._cases = cases
        self._print(f"timing {cases} cases")

    def case(self, number: int, name: str) -> None:
        self._place = f"{time.monotonic() - self._began:5.0f} s  {number + 1}/{self._cases}  {name}"

    def done(self, results: Sequence[Result]) -> None:
        said = [f"{r.engine} {_said(r)}" for r in results]
        self._print(f"{self._place}  {', '.join(said)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _said(result: Result) -> str:
    phase = result.phases.get(BACKWARD)
    if phase is None:
        return result.outcome
    return f"{phase.ratio.median:.2f}" if phase.ratio else words.seconds(phase.spread.median)
