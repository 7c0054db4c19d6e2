"""The plots of the page: ratios by case, time against size, rates beneath the roofs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conformance.bench.journal import BASELINE
from conformance.bench.report import words
from conformance.bench.report.summary import MEANT, Case, Dot, Line, Summary
from conformance.bench.report.svg import Log, drawing, element, polyline, text, title

WIDTH = 1090.0
LABELS = 190.0  # what the names of cases take
ROW, LANE = 10.0, 7.0  # between two cases, and for each engine of a case
PANEL = (340.0, 210.0)
SPREAD_OUT = (1 / 16, 64.0)  # ratios beyond are drawn at the edge


def colours(summary: Summary) -> dict[str, str]:
    """The class of each engine's colour; torch eager has that of the ink."""
    return {BASELINE: "e-torch"} | {e: f"e{i}" for i, e in enumerate(summary.engines)}


def ratio_scale(summary: Summary) -> Log:
    """One axis for all plots of ratios: what they hold, within `SPREAD_OUT`, and 1."""
    ends = [1.0]
    for case in summary.cases:
        for engine in summary.engines:
            for ratio in (case.ratio(engine, phase) for phase in MEANT):
                if ratio is not None:
                    ends += [v for v in (ratio.low, ratio.median, ratio.high) if v is not None]
    low, high = SPREAD_OUT
    return Log.over([min(max(v, low), high) for v in ends], LABELS, WIDTH - 12)


def ratios(summary: Summary, cases: Sequence[Case], phase: str, scale: Log) -> str:
    """A dot and an interval for each engine and case, on a logarithmic axis with a line at 1."""
    classes = colours(summary)
    shown = [(c, [e for e in summary.engines if c.ratio(e, phase)]) for c in cases]
    shown = [(case, engines) for case, engines in shown if engines]
    if not shown:
        return ""
    parts, y = [], 26.0
    for case, engines in shown:
        lanes = len(engines)
        middle = y + lanes * LANE / 2
        kind = "case noisy" if case.noisy else "case"
        parts.append(text(LABELS - 14, middle + 4, case.name, class_=kind, text_anchor="end"))
        for lane, engine in enumerate(engines):
            parts.append(_interval(case, engine, phase, scale, y + (lane + 0.5) * LANE, classes))
        y += lanes * LANE + ROW
    grid = []
    for tick in scale.ticks(12):
        kind = "one" if tick == 1 else "grid"
        grid.append(element("line", x1=scale(tick), x2=scale(tick), y1=20, y2=y, class_=kind))
        grid.append(text(scale(tick), 13, f"{tick:g}", class_="tick", text_anchor="middle"))
    label = f"ratio of each engine's {phase} time to torch eager's"
    return drawing(WIDTH, y + 6, label, grid + parts)


def _interval(
    case: Case, engine: str, phase: str, scale: Log, y: float, classes: Mapping[str, str]
) -> str:
    ratio = case.ratio(engine, phase)
    assert ratio is not None
    said = title(f"{case.name}, {engine}: {words.ratio(ratio)}, n = {ratio.n}")
    parts = [said]
    if ratio.low is not None and ratio.high is not None:
        parts.append(element("line", x1=scale(ratio.low), x2=scale(ratio.high), y1=y, y2=y))
    x = scale(ratio.median)
    if scale.low <= ratio.median <= scale.high:
        parts.append(element("circle", cx=x, cy=y, r=3.4))
    else:  # beyond the axis: an arrow head at its end
        step = 6 if ratio.median > scale.high else -6
        parts.append(polyline([(x - step, y - 4), (x, y), (x - step, y + 4)], fill="none"))
    return element("g", *parts, class_=f"dot {classes[engine]}")


def time_against_size(summary: Summary, lines: Sequence[Line]) -> str:
    """One workload: a line for each engine, both axes logarithmic."""
    classes = colours(summary)
    width, height = PANEL
    x = Log.over((size for line in lines for size, _ in line.points), 52, width - 12)
    y = Log.over((time for line in lines for _, time in line.points), height - 26, 10)
    parts = []
    for tick in x.ticks(5):
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=10, y2=height - 26, class_="grid"))
        parts.append(text(x(tick), height - 11, _size(tick), class_="tick", text_anchor="middle"))
    for tick in y.ticks(5):
        parts.append(element("line", x1=52, x2=width - 12, y1=y(tick), y2=y(tick), class_="grid"))
        said = words.seconds(tick)
        parts.append(text(47, y(tick) + 4, said, class_="tick", text_anchor="end"))
    for line in sorted(lines, key=lambda one: one.engine in (BASELINE, summary.ours)):
        points = [(x(size), y(time)) for size, time in line.points]
        drawn = [polyline(points, fill="none")]
        for (size, time), (px, py) in zip(line.points, points, strict=True):
            said = title(f"{line.engine} at {size:,}: {words.seconds(time)}")
            drawn.append(element("circle", said, cx=px, cy=py, r=2.8))
        parts.append(element("g", *drawn, class_=f"dot {classes[line.engine]}"))
    label = f"time of {lines[0].workload} against its size"
    return drawing(width, height, label, parts)


def _size(value: float) -> str:
    """A size on an axis: 1,000, then 1e4."""
    return f"{value:,.0f}" if value < 1e4 else f"{value:.0e}".replace("e+0", "e")


def roofline(summary: Summary, dots: Sequence[Dot], roof: Mapping[str, float]) -> str:
    """Operations a second against operations a byte, beneath the roofs of the session."""
    classes = colours(summary)
    width, height = WIDTH, 420.0
    x = Log.over([dot.intensity for dot in dots] + _corners(roof), 84, width - 16)
    rates = [dot.rate for dot in dots] + ([roof["gemm"]] if roof else [])
    y = Log.over(rates, height - 40, 14)
    parts = []
    for tick in x.ticks():
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=14, y2=height - 40, class_="grid"))
        parts.append(text(x(tick), height - 22, f"{tick:g}", class_="tick", text_anchor="middle"))
    for tick in y.ticks():
        parts.append(element("line", x1=84, x2=width - 16, y1=y(tick), y2=y(tick), class_="grid"))
        said = words.rate(tick, "FLOP/s")
        parts.append(text(79, y(tick) + 4, said, class_="tick", text_anchor="end"))
    parts.append(
        text(width - 16, height - 5, "operations a byte", class_="tick", text_anchor="end")
    )
    if roof:
        parts += _roof(roof, x, y)
    for dot in dots:
        share = "" if dot.share is None else f", {dot.share:.0%} of the roof"
        said = (
            f"{dot.case.name}, {dot.engine}: {words.rate(dot.rate, 'FLOP/s')}, "
            f"{words.rate(dot.bandwidth, 'B/s')}{share}"
        )
        drawn = element("circle", title(said), cx=x(dot.intensity), cy=y(dot.rate), r=3.6)
        parts.append(element("g", drawn, class_=f"dot {classes[dot.engine]}"))
    return drawing(width, height, "rate against intensity, beneath the measured roofs", parts)


def _corners(roof: Mapping[str, float]) -> list[float]:
    """The ridge, where both roofs are as high."""
    return [roof["gemm"] / roof["copy"]] if roof else []


def _roof(roof: Mapping[str, float], x: Log, y: Log) -> list[str]:
    ridge = roof["gemm"] / roof["copy"]
    left = max(x.low, y.low / roof["copy"])
    points = [(left, left * roof["copy"]), (ridge, roof["gemm"]), (x.high, roof["gemm"])]
    copy, gemm = words.rate(roof["copy"], "B/s"), words.rate(roof["gemm"], "FLOP/s")
    start = (x(left) + 8, y(left * roof["copy"]) - 10)
    return [
        polyline([(x(a), y(b)) for a, b in points], class_="roof", fill="none"),
        text(x(x.high), y(roof["gemm"]) - 6, f"GEMM {gemm}", class_="tick", text_anchor="end"),
        text(*start, f"copy {copy}", class_="tick"),
    ]
