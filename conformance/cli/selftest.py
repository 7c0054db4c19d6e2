"""`conformance selftest`: what the harness catches, what it lets through, and how fast."""

from __future__ import annotations

import click

from conformance.cli.lazy import LazyGroup

# One line of help for each module of conformance.selftest that has a command.
_MEASUREMENTS = {
    "mutants": "Wrong rules: which check kills each, beside gradcheck.",
    "oracles": "Numerical derivatives against known ones, beside other tools.",
    "entries": "One wrong entry among many: the smallest error that is reported.",
    "alarms": "False alarms in the gradients of right rules.",
    "shrinking": "How small the Programs of planted faults become, and how fast.",
    "rates": "Checks a second, beside gradcheck, and where the time goes.",
}


class _Measurements(LazyGroup):
    package = "conformance.selftest"
    commands_help = _MEASUREMENTS


@click.group("selftest", cls=_Measurements)
def command() -> None:
    """Measure the harness itself: what it catches, what it lets through, and how fast."""
