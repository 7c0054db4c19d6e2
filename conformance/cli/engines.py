"""`conformance engines`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from conformance.cli.options import data, echo_json


@click.command("engines")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool) -> int:
    """List the engines that can run here, and why the others cannot."""
    from rich.markup import escape
    from rich.table import Table

    from conformance import engines
    from conformance.journal import plain

    rows: list[dict[str, Any]] = []
    for name, reason in engines.available().items():
        row: dict[str, Any] = {"name": name, "available": reason is None, "reason": reason}
        if reason is None:
            row["capabilities"] = plain(dataclasses.asdict(engines.load(name).describe()))
        rows.append(row)
    if as_json:
        echo_json(rows)
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("engine", "here", "what it can do"):
        table.add_column(column)
    for row in rows:
        capabilities = row.get("capabilities") or {}
        able = "; ".join(
            f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in capabilities.items()
            if key != "version" or value
        )
        table.add_row(
            f"[bold]{row['name']}[/]",
            "[green]yes[/]" if row["available"] else "[red]no[/]",
            escape(able or str(row["reason"])),
        )
    table.add_row("direct:MODULE:NAME", "", "an engine of yours: an instance, a class or a factory")
    data().print(table, highlight=False)
    return 0
