"""The command line. Data goes to stdout, talk to stderr; heavy imports stay inside the commands.

Exit codes: 0 all as expected, 1 a derivative is not, 2 interrupted, 3 our own error, 4 wrong usage
or an engine that cannot load, 5 nothing was checked.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from conformance.cli.lazy import LazyGroup
from conformance.errors import ConformanceError, UsageError

INTERRUPTED, OWN_ERROR, WRONG_USAGE = 2, 3, 4

_COMMANDS = {
    "run": "Verify an engine's derivatives and write a journal.",
    "verify": "Verify the gradients of a function or model of yours.",
    "report": "Report on a journal: terminal, HTML, Markdown, JUnit, badge.",
    "repro": "Print the script that shows a case.",
    "ops": "List what an engine covers of PyTorch's op_db.",
    "coverage": "Count which classes of operands the ops of a source meet.",
    "bench": "Time the backward pass, engine against engine: run, report, compare.",
    "selftest": "Measure the harness: wrong rules, oracles, false alarms, speed.",
    "expect": "Keep the list of failures that are known: accept, prune.",
    "engines": "List the engines that can run here.",
}


class _Commands(LazyGroup):
    package = "conformance.cli"
    commands_help = _COMMANDS


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="refgrad-conformance", prog_name="conformance")
def group() -> None:
    """Verify gradients: an autograd engine against torch.autograd and numerical derivatives.

    Exit codes: 0 all as expected, 1 a derivative is not, 2 interrupted, 3 an error of this
    program, 4 wrong usage or an engine that cannot load, 5 nothing was checked.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, with one line on stderr where something is wrong."""
    if "" not in sys.path:  # a user's module in the current folder, as with python -m
        sys.path.insert(0, "")
    try:
        code = group.main(
            args=list(args) if args is not None else None,
            prog_name="conformance",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "conformance"
        click.echo(f"{where}: {error.format_message()} (see {where} --help)", err=True)
        return WRONG_USAGE
    except click.ClickException as error:
        click.echo(f"conformance: {error.format_message()}", err=True)
        return WRONG_USAGE
    except UsageError as error:
        click.echo(f"conformance: {error}", err=True)
        return WRONG_USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("conformance: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConformanceError as error:
        click.echo(f"conformance: {error}", err=True)
        return OWN_ERROR
    except Exception:
        traceback.print_exc()
        click.echo("conformance: an error of conformance itself; please report it", err=True)
        return OWN_ERROR
    return code if isinstance(code, int) else 0
