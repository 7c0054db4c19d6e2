"""How far a run is, on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from conformance.results import OUTCOMES

STYLES = {
    "passed": "green",
    "failed": "bold red",
    "precision": "yellow",
    "fallback": "red",
    "errored": "red",
    "crashed": "bold red",
    "timeout": "red",
    "unsupported": "bright_black",
    "inconclusive": "yellow",
}
PLAIN_EVERY = 15.0  # seconds


class Reporter(Protocol):
    """What a run tells while it goes on."""

    def begin(self, total: int, done: int) -> None:
        """`total` items are to be run, `done` of them were done before."""

    def update(self, done: int, doing: str, counts: Mapping[str, int]) -> None:
        """`done` items are done; `doing` names what is being checked."""

    def close(self) -> None:
        """The run is over, or interrupted."""


def reporter(console: Console) -> Reporter:
    """The one that suits where `console` writes."""
    return Bar(console) if console.is_terminal else Lines(console)


def tally(counts: Mapping[str, int], *, markup: bool) -> str:
    """The counts by outcome, in one phrase."""
    parts = [
        f"[{STYLES[o]}]{counts[o]:,} {o}[/]" if markup else f"{counts[o]:,} {o}"
        for o in OUTCOMES
        if counts.get(o)
    ]
    return ", ".join(parts) or "nothing yet"


class Bar:
    """A bar with the counts beneath it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("[bold]verifying[/]"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[tally]}"),
            TextColumn("[bright_black]{task.fields[doing]}", markup=True),
            console=console,
            transient=True,
        )

    def begin(self, total: int, done: int) -> None:
        self._task = self._progress.add_task("", total=total, completed=done, tally="", doing="")
        self._progress.start()

    def update(self, done: int, doing: str, counts: Mapping[str, int]) -> None:
        self._progress.update(
            self._task, completed=done, tally=tally(counts, markup=True), doing=escape(doing)
        )

    def close(self) -> None:
        self._progress.stop()


class Lines:
    """A line every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._last = time.monotonic()
        self._total = 0

    def begin(self, total: int, done: int) -> None:
        self._total = total
        resumed = f", {done} of them done before" if done else ""
        self._print(f"verifying {total:,} items{resumed}")

    def update(self, done: int, doing: str, counts: Mapping[str, int]) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY:
            self._last = now
            self._print(
                f"{now - self._began:5.0f} s  {done:,}/{self._total:,}  "
                f"{tally(counts, markup=False)}  ({doing})"
            )

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
