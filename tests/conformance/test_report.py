"""Reports: what they say of a journal, and that nothing in a journal gets out of its text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from conformance import journal as jl
from conformance.expectations import Expectation
from conformance.report import Summary, badge, evidence, html, junit, machine, markdown, summarise
from conformance.report.summary import WORST_FIRST
from conformance.report.terminal import show
from conformance.results import OUTCOMES, Result
from tests.conformance.journals import result, write

HOSTILE = "</script><script>alert(1)</script>\"'`|*_<img src=x onerror=alert(2)>\x00]]>{{7*7}}"

EVIDENCE = {
    "leaf": "weight",
    "index": [2, 0],
    "engine": -0.25,
    "reference": 0.25,
    "numerical": 0.25000000000000006,
    "bound": 3e-12,
    "absolute": 0.5,
    "relative": 2.0,
    "ulp": 9e15,
    "shape": [3, 4],
    "diagnosis": "sign",
    "verdict": "engine wrong: complex step gives 0.25, as torch",
}
REPRO = {"program": "v0 = torch.mul(x0, x1)", "script": "import torch\nprint(1)\n"}
WRONG = result("failed", "mul", evidence=EVIDENCE, repro=REPRO)


def summary(path: Path, *results: Result, end: bool = True, **fields: Any) -> Summary:
    expected = fields.pop("expected", ())
    return summarise(jl.read(write(path / "j.jsonl", *results, end=end, **fields)), expected)


def terminal(one: Summary) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(one, console)
    return console.export_text()


def rendered(one: Summary) -> dict[str, str]:
    """Every report's text."""
    return {
        "terminal": terminal(one),
        "html": html.render(one),
        "markdown": markdown.render(one),
        "junit": junit.render(one),
        "badge": badge.render(one),
        "json": json.dumps(machine.as_data(one), allow_nan=False),
    }


class Elements(HTMLParser):
    """The elements and attributes of a page, and what its tables say."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_report_shows_the_verdict(tmp_path: Path) -> None:
    for name, text in rendered(summary(tmp_path, result(), WRONG)).items():
        assert "not as expected" in text or name in ("junit",), name
    ok = tmp_path / "ok"
    for name, text in rendered(summary(ok, result())).items():
        assert "hold" in text or name == "junit", name


def test_a_failure_explains_itself(tmp_path: Path) -> None:
    texts = rendered(summary(tmp_path, WRONG))
    for name in ("terminal", "html", "markdown"):
        plain = Elements(texts[name]).text if name == "html" else texts[name].replace("\\", "")
        for part in ("mul", "weight[2, 0]", "-0.25", "0.25000000000000006", "3e-12", "sign"):
            assert part in plain, (name, part)
        assert "engine wrong: complex step gives 0.25, as torch" in plain
        assert "print(1)" in plain
        assert WRONG.case in plain
    assert "-0.25" in texts["junit"]


def test_samples_and_entries_are_counted(tmp_path: Path) -> None:
    results = [
        result(op="add", check="value"),
        result(op="mul", check="value"),
        result("failed", "mul"),
        result("unsupported", "qr", check="sample", evidence={"missing": ["torch.linalg.qr"]}),
        result("unsupported", "to_sparse", evidence={"reason": "no samples", "scope": "item"}),
    ]
    one = summary(tmp_path, *results)
    (source,) = one.sources
    assert source.sentence == "1 of 547 entries, 2 of 4 samples"
    assert one.missing == (("torch.linalg.qr", 1),)
    assert [op.op for op in one.ops] == ["mul", "add", "qr", "to_sparse"]
    assert one.skipped == ()
    assert one.absent == (("opinfo/to_sparse", "no samples"),)


def test_worst_first_knows_every_outcome() -> None:
    assert set(WORST_FIRST) == set(OUTCOMES)


@pytest.mark.parametrize("end", [True, False])
def test_an_incomplete_run_is_named_by_every_report(tmp_path: Path, end: bool) -> None:
    for name, text in rendered(summary(tmp_path, result(), end=end)).items():
        said = "incomplete" in text.lower() or "no end line" in text
        assert said is not end or name == "json", name
    assert ('"complete": true' in text) is end


def test_inconclusive_checks_are_counted_and_held_against_the_cap(tmp_path: Path) -> None:
    one = summary(tmp_path, result(), result("inconclusive", digest="f"))
    assert "50.00% (above the cap of 0.5%)" in str(one.inconclusive)
    assert "above the cap" in terminal(one)
    many = [result(digest=f"{n:06x}") for n in range(999)]
    few = summary(tmp_path / "few", *many, result("inconclusive", digest="f"))
    assert "0.10% (cap 0.5%)" in str(few.inconclusive)


def test_known_failures_stand_apart(tmp_path: Path) -> None:
    known = Expectation("mul", "*", "a known fault", "https://example.org/1")
    gone = Expectation("add", "*", "was wrong once")
    absent = Expectation("eigh", "*", "met no case")
    one = summary(tmp_path, result(), WRONG, expected=[known, gone, absent])
    assert one.state == "ok"
    texts = rendered(one)
    for name in ("terminal", "html", "markdown"):
        assert "known failures" in texts[name].lower(), name
    assert "was wrong once" in texts["terminal"]
    assert "met no case" in texts["html"]
    assert ("href", "https://example.org/1") in Elements(texts["html"]).attributes
    suite = ElementTree.fromstring(texts["junit"])
    assert suite.find(".//skipped") is not None
    assert suite.find(".//failure") is None


def test_only_https_becomes_a_link(tmp_path: Path) -> None:
    known = Expectation("mul", "*", "a known fault", "javascript:alert(1)")
    page = Elements(html.render(summary(tmp_path, WRONG, expected=[known])))
    assert not [value for name, value in page.attributes if name == "href"]


def hostile_summary(path: Path) -> Summary:
    """A journal with something hostile in every place that a report shows."""
    found = dict.fromkeys((*EVIDENCE, "error", "first_call", "oracle", "reason"), HOSTILE)
    repro = {"program": HOSTILE, "script": HOSTILE}
    bad = result("failed", HOSTILE, source=HOSTILE, evidence=found, repro=repro)
    lacks = result("unsupported", HOSTILE, digest="u", evidence={"missing": [HOSTILE]})
    skipped = result("unsupported", HOSTILE, digest="s", evidence={"reason": HOSTILE})
    known = Expectation("add", "*", HOSTILE, HOSTILE)
    return summary(
        path,
        bad,
        lacks,
        skipped,
        result("failed"),
        end=False,
        engine=HOSTILE,
        reference=HOSTILE,
        environment={HOSTILE: HOSTILE, "torch": HOSTILE},
        planned={HOSTILE: 1},
        expected=[known],
    )


def test_nothing_in_a_journal_becomes_markup(tmp_path: Path) -> None:
    texts = rendered(hostile_summary(tmp_path))
    page = Elements(texts["html"])
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "alert(1)" in page.text
    assert "{{7*7}}" in page.text
    ElementTree.fromstring(texts["junit"])
    ElementTree.fromstring(texts["badge"])
    outside_code = re.sub(r"(`{3,}).*?\n\s*\1", "", texts["markdown"], flags=re.DOTALL)
    assert "<img" not in outside_code
    assert "<script" not in outside_code


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    page = Elements(html.render(summary(tmp_path, result(), WRONG)))
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name == "src"]
    assert "@import" not in html.render(summary(tmp_path / "b", result()))


def test_a_page_of_many_results_stays_small(tmp_path: Path) -> None:
    results = [result(op=f"op{n % 500}", digest=f"{n:08x}") for n in range(15_000)]
    results += [
        result("failed", f"op{n % 500}", digest=f"f{n:07x}", evidence=EVIDENCE, repro=REPRO)
        for n in range(100)
    ]
    page = html.render(summary(tmp_path, *results))
    assert len(page) < 2_000_000
    assert page.count('class="finding"') == 100


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (-0.0, "-0.0"), (1 / 3, "0.3333333333333333"), ("NaN", "NaN"), ([1], "[1]")],
)
def test_values_are_shown_with_all_their_digits(value: Any, text: str) -> None:
    assert evidence.number(value) == text


@pytest.mark.parametrize(
    ("verdict", "who"),
    [
        ("engine wrong: ...", ("engine",)),
        ("reference wrong: ...", ("reference",)),
        ("engine and reference wrong: ...", ("engine", "reference")),
        ("undecided: the bound is poor", ()),
        ("", ()),
    ],
)
def test_who_is_wrong_is_read_from_the_verdict(verdict: str, who: tuple[str, ...]) -> None:
    assert evidence.wrong(result("failed", evidence={"verdict": verdict})) == who
