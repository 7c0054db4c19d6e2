"""What several commands share: lists of names, consoles, writing a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from conformance.errors import UsageError
from conformance.expression import did_you_mean


def names(
    *declared: str, known: tuple[str, ...] = (), default: str | None = None, **given: Any
) -> Callable[[Any], Any]:
    """An option of names joined by commas or given one by one, of a fixed set where one is known.

    The command gets a tuple without repetition; None where nothing is given and no `default`.
    """

    def split(
        ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        if not values:
            return None
        parts = [name.strip() for value in values for name in value.split(",")]
        found = tuple(dict.fromkeys(name for name in parts if name))
        if not found:
            raise click.BadParameter("no name is given", ctx, param)
        for name in found:
            group = name.partition(".")[0]  # invariants.linear is one of the invariants
            if known and name not in known and group not in known:
                message = f"{name!r} is none of {', '.join(known)}{did_you_mean(name, known)}"
                raise click.BadParameter(message, ctx, param)
        return found

    if default is not None:
        given |= {"default": (default,), "show_default": True}
    return click.option(*declared, multiple=True, callback=split, metavar="NAMES", **given)


def talk() -> Console:
    """The console for progress and hints."""
    return Console(stderr=True)


def data() -> Console:
    """The console for what was asked for; a log gets lines that are not broken."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def echo_json(value: Any) -> None:
    """Print data for a machine."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def write(path: Path, text: str) -> None:
    """Write a file, making its folder; raises UsageError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror}): choose another place") from error
