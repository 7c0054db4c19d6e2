"""Progress: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from conformance import progress

COUNTS = {"passed": 1234, "failed": 1}


def test_a_log_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    console = Console(file=log)
    reporter = progress.reporter(console)
    reporter.begin(10, 2)
    reporter.update(3, "opinfo/add", COUNTS)
    assert log.getvalue() == "verifying 10 items, 2 of them done before\n"
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    reporter.update(4, "opinfo/[add]", COUNTS)
    assert "4/10  1,234 passed, 1 failed  (opinfo/[add])" in log.getvalue()
    reporter.close()


def test_a_terminal_gets_a_bar_with_counts() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    reporter = progress.reporter(console)
    reporter.begin(10, 0)
    reporter.update(4, "opinfo/[add]", COUNTS)
    reporter.close()
    assert "4/10" in screen.getvalue()
    assert "1,234 passed, 1 failed" in screen.getvalue()
    assert "opinfo/[add]" in screen.getvalue()
