"""Reports on sessions: what they say, and that nothing of a journal gets out of its text."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from conformance.bench.journal import Journal, read
from conformance.bench.report import aims, charts, html, machine, markdown, words
from conformance.bench.report.summary import Summary, peak, peak_ratio, summarise
from conformance.bench.report.svg import Log
from conformance.bench.report.terminal import show
from conformance.bench.statistics import Interval, Spread
from tests.conformance.bench import fakes
from tests.conformance.bench.fakes import FakeEngine, World, unsupported
from tests.conformance.bench.sessions import conduct

HOSTILE = "</script><script>alert(1)</script>\"'`|*_<img src=x onerror=alert(2)>]]>{{7*7}}"
LADDER = (
    fakes.workload("chain", "small", sizes=(1000, 10_000), quick=1000),
    fakes.workload("product", "small", sizes=(100,), quick=100),
    fakes.workload("matmul", "products", sizes=(100, 512), quick=100),
)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    world = World(noise=0.02)
    engines = [
        FakeEngine(world, "refgrad", 0.5),
        FakeEngine(world, "jax", 3.0, fails={"accumulate": unsupported(HOSTILE)}),
        FakeEngine(world, "jax.jit", 0.25, compile_seconds=2.0),
        FakeEngine(world, "autograd", fails={"prepare": ValueError(HOSTILE)}),
    ]
    path = tmp_path_factory.mktemp("bench") / "j.jsonl"
    return conduct(path, world, engines, LADDER, quick=False)


@pytest.fixture(scope="module")
def summary(journal: Journal) -> Summary:
    return summarise(journal)


def terminal(one: Summary) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(one, console, "backward")
    return console.export_text()


def rendered(one: Summary) -> dict[str, str]:
    return {
        "terminal": terminal(one),
        "html": html.render(one),
        "markdown": markdown.render(one, "backward"),
        "json": json.dumps(machine.as_data(one)),
    }


def test_means_are_geometric_and_against_each_engine(summary: Summary) -> None:
    assert summary.engines == ("refgrad", "jax", "jax.jit")
    assert summary.means["refgrad"]["backward"].value == pytest.approx(0.5, rel=0.01)
    assert summary.means["jax"]["step"].value == pytest.approx(3, rel=0.01)
    assert summary.against["jax"]["step"].value == pytest.approx(1 / 6, rel=0.01)
    assert summary.against["jax.jit"]["step"].slower == 5


def test_every_loss_is_listed_the_largest_first(summary: Summary) -> None:
    assert {loss.other for loss in summary.losses} == {"jax.jit"}
    step = [loss for loss in summary.losses if loss.phase == "step"]
    assert len(step) == 5
    assert all(loss.clear for loss in step)
    medians = [loss.ratio.median for loss in step]
    assert medians == sorted(medians, reverse=True)


def test_cases_stand_by_group_and_size(summary: Summary) -> None:
    names = [case.name for case in summary.cases]
    assert names == ["chain/1000", "chain/10000", "product/100", "matmul/100", "matmul/512"]


def test_lines_have_the_exponent_of_their_power(summary: Summary) -> None:
    lines = {(line.workload, line.engine): line for line in summary.lines("backward")}
    assert lines["chain", "refgrad"].slope == pytest.approx(1, abs=0.01)
    assert ("product", "torch") not in lines


def test_dots_lie_beneath_the_roofs_of_the_session(summary: Summary) -> None:
    dot = next(d for d in summary.dots() if (d.case.name, d.engine) == ("product/100", "torch"))
    assert dot.intensity == 10
    assert dot.rate == pytest.approx(300 * 100 / 3e-3, rel=0.03)
    assert dot.share == pytest.approx(dot.rate / 8e10)  # the lower of both roofs at 10 a byte


def test_peak_memory_is_compared_where_tensors_are_large(summary: Summary) -> None:
    assert peak_ratio(summary.cases[0], "refgrad") == pytest.approx(1.1)
    assert peak_ratio(summary.cases[0], "autograd") is None


def test_a_peak_is_the_most_that_any_way_of_counting_saw(summary: Summary) -> None:
    result = summary.cases[0].engines["refgrad"]
    seen = {"resident": {"peak": None, "held": None}, "traced": {"peak": 7, "held": 1}}
    assert peak(dataclasses.replace(result, memory=seen)) == 7
    seen["resident"] = {"peak": 9, "held": None}
    assert peak(dataclasses.replace(result, memory=seen)) == 9
    assert peak(dataclasses.replace(result, memory={})) is None


def test_aims_are_hit_missed_or_not_timed(summary: Summary) -> None:
    found = {one.title: one for one in aims.standings(summary)}
    assert found["backward, chains and fans of small tensors"].verdict == "miss"  # 0.5 for 0.45
    assert found["backward, chains and fans of small tensors"].n == 2
    assert found["matmul 512, backward"].verdict == "hit"
    assert found["matmul 512, backward"].interval is not None
    assert found["GPT-2 block, forward + backward"].verdict == "not timed"
    assert found["geometric mean of the suite, backward"].verdict == "hit"
    assert found["time over that of jax, forward + backward"].verdict == "hit"
    assert found["time over that of mygrad, forward + backward"].verdict == "not timed"
    assert found["peak memory on large tensors"].value == pytest.approx(1.1)
    flat = next(one for title, one in found.items() if title.startswith("time a node"))
    assert flat.value == pytest.approx(1, rel=0.05)


def test_the_terminal_and_markdown_say_the_same(summary: Summary) -> None:
    for text in (terminal(summary), markdown.render(summary, "backward")):
        assert re.search(r"chain/1000\b.*0\.50 \\?\[0\.\d\d, 0\.\d\d\\?\]", text)
        assert "not installed" in text
        assert "errored" in text
    assert "VALID  refgrad's time over torch eager's: backward 0.50" in terminal(summary)


def test_an_incomplete_session_says_so_everywhere(journal: Journal) -> None:
    half = dataclasses.replace(journal, end=None)
    for name, text in rendered(summarise(half)).items():
        assert "no end line" in text, name


def test_a_noisy_session_says_so_everywhere(journal: Journal) -> None:
    end = {**(journal.end or {}), "verdict": "noisy", "reasons": ["a gale blew"]}
    for name, text in rendered(summarise(dataclasses.replace(journal, end=end))).items():
        assert "gale" in text, name


def test_a_note_on_a_missing_gpu_is_in_every_report(journal: Journal) -> None:
    noted = dataclasses.replace(
        journal, header={**journal.header, "note": "no GPU was timed: none is here"}
    )
    for name, text in rendered(summarise(noted)).items():
        assert "no GPU was timed" in text, name


def test_a_session_that_timed_nothing_is_reported(tmp_path: Path) -> None:
    empty = conduct(tmp_path / "j.jsonl", budget=1e-9)
    for name, text in rendered(summarise(empty)).items():
        assert "invalid" in text.lower(), name


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_lets_nothing_out(summary: Summary) -> None:
    page = html.render(summary)
    assert "kernels for Zen" in page
    tags = Tags()
    tags.feed(page)
    assert [tag for tag, _ in tags.found].count("script") == 1
    assert not [tag for tag, _ in tags.found if tag in ("img", "link", "iframe")]
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not attributes.get("src"), tag
        assert not (attributes.get("href") or "").startswith("http"), tag
    assert "{{7*7}}" in page
    assert "url(" not in page


def test_every_plot_is_well_formed_and_has_a_label(summary: Summary) -> None:
    plots = re.findall(r"<svg.*?</svg>", html.render(summary), re.DOTALL)
    assert len(plots) >= 2 * 2 + 2 * 2 + 1  # groups, panels, a roofline
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.get("aria-label")
        width, height = (float(v) for v in (root.get("viewBox") or "").split()[2:])
        for circle in root.iter("circle"):
            assert 0 <= float(circle.get("cx") or -1) <= width
            assert 0 <= float(circle.get("cy") or -1) <= height


def test_a_ratio_beyond_the_axis_is_an_arrow_at_its_edge(summary: Summary) -> None:
    low, high = charts.SPREAD_OUT
    case = summary.cases[0]
    result = case.engines["jax"]
    far = {
        name: dataclasses.replace(phase, ratio=Interval(9 * high, 8 * high, 10 * high, 0.95, 9))
        for name, phase in result.phases.items()
    }
    engines = {**case.engines, "jax": dataclasses.replace(result, phases=far)}
    case = dataclasses.replace(case, engines=engines)
    odd = dataclasses.replace(summary, cases=(case,))
    plot = charts.ratios(odd, [case], "step", charts.ratio_scale(odd))
    assert low < 1 < high
    assert plot.count("<polyline") == 1


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.4, 3.0, [0.5, 1, 2]),
        (1.0, 1000.0, [1, 10, 100, 1000]),
        (1e-7, 1e3, None),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, ticks: list[float] | None) -> None:
    found = Log(low, high, 0, 1).ticks()
    assert ticks is None or found == pytest.approx(ticks)
    assert 2 <= len(found) <= 9
    assert all(low <= tick <= high for tick in found)


def test_a_scale_of_one_value_has_room(summary: Summary) -> None:
    scale = Log.over([5.0], 0, 100)
    assert scale(5.0) == pytest.approx(50)
    assert (scale(1e-9), scale(1e9)) == (0, 100)


@pytest.mark.parametrize(
    ("value", "said"),
    [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs"), (3.2e-8, "32 ns"), (123.4, "123 s")],
)
def test_times_are_in_words(value: float, said: str) -> None:
    assert words.seconds(value) == said


def test_a_spread_is_its_least_its_range_and_its_number() -> None:
    assert words.spread(Spread(30, 1e-5, 1.1e-5, 1.2e-5, 1.35e-5)) == "10 µs, 2.5 µs, 30"
    assert words.spread(Spread(1, 1e-5, 1e-5, 1e-5, 1e-5)) == "10 µs, 0 s, 1"


def test_sizes_rates_and_factors_are_in_words() -> None:
    assert words.size(3 << 20) == "3 MiB"
    assert words.size(12) == "12 B"
    assert words.rate(1.234e10, "FLOP/s") == "12.3 GFLOP/s"
    assert [words.factor(v) for v in (0.012, 0.5, 3.14159, 37.33)] == [
        "0.012",
        "0.50",
        "3.14",
        "37.3",
    ]


def test_reports_are_functions_of_the_journal_alone(journal: Journal) -> None:
    once, again = (rendered(summarise(read(journal.path))) for _ in range(2))
    assert once == again
