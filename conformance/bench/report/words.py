"""Numbers as every report writes them."""

from __future__ import annotations

from conformance.bench.report.aims import Standing
from conformance.bench.report.summary import Summary
from conformance.bench.statistics import Interval, Spread
from conformance.bench.timing import BACKWARD, STEP

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def seconds(value: float) -> str:
    """ "12.3 µs"."""
    if value == 0:
        return "0 s"
    for unit, name in _TIMES:
        if value >= unit:
            return f"{_three(value / unit)} {name}"
    return f"{value / 1e-9:.2g} ns"


def spread(found: Spread) -> str:
    """ "11.8 µs, 0.4 µs, 30": the least, the interquartile range, and how many readings."""
    return f"{seconds(found.min)}, {seconds(found.iqr)}, {found.n}"


def size(value: float) -> str:
    """ "1.5 MiB"."""
    for unit, name in _BYTES:
        if value >= unit:
            return f"{_three(value / unit)} {name}"
    return f"{value:.0f} B"


def rate(value: float, what: str) -> str:
    """ "12.3 GFLOP/s" of operations or bytes a second."""
    for unit, name in _RATES:
        if value >= unit:
            return f"{_three(value / unit)} {name}{what}"
    return f"{value:.3g} {what}"


def ratio(interval: Interval) -> str:
    """ "0.43 [0.41, 0.45]"; without its interval where there is none."""
    if interval.low is None or interval.high is None:
        return factor(interval.median)
    return f"{factor(interval.median)} [{factor(interval.low)}, {factor(interval.high)}]"


def factor(value: float) -> str:
    """ "0.43": two decimals near 1, three digits elsewhere."""
    return f"{value:.2f}" if 0.1 <= value < 10 else f"{value:.3g}"


def standing(one: Standing) -> str:
    """An aim's value with its interval, or a dash."""
    if one.value is None:
        return "–"
    return ratio(one.interval) if one.interval is not None else factor(one.value)


def beside(one: Standing) -> str:
    """What else is to be said of an aim."""
    cases = f"{one.n} case{'s' if one.n != 1 else ''}" if one.n else ""
    worst = f"worst {one.worst}" if one.n > 1 and one.worst else one.worst
    return ", ".join(part for part in (cases, worst, one.beside) if part)


def headline(summary: Summary) -> str:
    """The session in one sentence."""
    ours = summary.means.get(summary.ours, {})
    if not ours:
        return f"{len(summary.cases)} cases, in none of which {summary.ours} was timed"
    n = max(mean.n for mean in ours.values())
    said = []
    if BACKWARD in ours:
        said.append(f"backward {factor(ours[BACKWARD].value)}")
    if STEP in ours:
        said.append(f"forward + backward {factor(ours[STEP].value)}")
    cases = f"{n} case{'s' if n > 1 else ''}"
    return f"{summary.ours}'s time over torch eager's: {', '.join(said)}, over {cases}"


def _three(value: float) -> str:
    """Three digits, not in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
