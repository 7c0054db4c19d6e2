"""The examples of conformance/docs, run: `python -m tests.conformance.documentation` writes what
they print under each of them.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import conformance

PAGE = Path(conformance.__file__).parent / "docs" / "custom_functions.md"
_CODE = re.compile(r"```python( setup)?\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|-?inf|nan")


@dataclass(frozen=True)
class Example:
    """A block of code, and what the page says that it prints."""

    code: str
    printed: str


def examples(text: str) -> tuple[str, list[Example]]:
    """The lines that all examples share, and the examples."""
    setup, found = "", []
    for match in _CODE.finditer(text):
        if match[1]:
            setup += match[2]
        else:
            found.append(Example(match[2], match[3] or ""))
    return setup, found


def run(setup: str, example: Example) -> str:
    """What the example prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(setup + example.code, {"__name__": "docs"})
    return printed.getvalue()


def masked(text: str) -> str:
    """The text with every number as #: the last digits are the machine's."""
    return _NUMBER.sub("#", text)


def _rewritten(text: str) -> str:
    setup, _ = examples(text)
    pieces: list[str] = []
    end = 0
    for match in _CODE.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        code = f"```python{match[1] or ''}\n{match[2]}```\n"
        if not match[1]:
            code += f"\n```text\n{run(setup, Example(match[2], ''))}```\n"
        pieces.append(code)
    return "".join([*pieces, text[end:]])


def titles(text: str) -> Iterator[str]:
    """The heading of each example."""
    for match in re.finditer(r"^## (.+)$", text, re.MULTILINE):
        yield match[1]


if __name__ == "__main__":
    PAGE.write_text(_rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
