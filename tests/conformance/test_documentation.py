"""What the documentation says is what happens."""

from __future__ import annotations

import pytest

from tests.conformance.documentation import PAGE, Example, examples, masked, run, titles

TEXT = PAGE.read_text(encoding="utf-8")
SETUP, EXAMPLES = examples(TEXT)
TITLES = list(titles(TEXT))
RIGHT = ("A module",)


def test_each_heading_has_an_example() -> None:
    assert len(TITLES) == len(EXAMPLES) == 12


@pytest.mark.parametrize(
    ("title", "example"), zip(TITLES, EXAMPLES, strict=False), ids=TITLES[: len(EXAMPLES)]
)
def test_what_an_example_prints(title: str, example: Example) -> None:
    printed = run(SETUP, example)
    assert printed.startswith("ok:" if title in RIGHT else "NOT OK:"), printed
    assert masked(printed) == masked(example.printed)
