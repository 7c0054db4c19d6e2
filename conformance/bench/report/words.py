"""Numbers as every report writes them."""

from __future__ import annotations

from conformance.bench.report.aims import Standing
from conformance.bench.report.summary import Summary
from conformance.bench.statistics import Interval

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def seconds(value: float) -> str:
    """ "12.3 µs"."""
    for unit, name in _TIMES:
        if value >= unit:
            return f"{_three(value / unit)} {name}"
    return f"{value / 1e-9:.2g} ns"


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
    text = f"{interval.median:.2f}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{interval.low:.2f}, {interval.high:.2f}]"


def standing(one: Standing) -> str:
    """An aim's value with its interval, or a dash."""
    if one.value is None:
        return "–"
    return ratio(one.interval) if one.interval is not None else f"{one.value:.2f}"


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
    parts = []
    for phase, name in (("backward", "Backward"), ("step", "forward + backward")):
        if phase in ours:
            parts.append(f"{name} takes {ours[phase].value:.2f}")
    n = max(mean.n for mean in ours.values())
    return f"{parts[0]} of torch eager's time{_rest(parts[1:])}, over {n} cases"


def _rest(parts: list[str]) -> str:
    return "".join(f", {part}" for part in parts)


def _three(value: float) -> str:
    """Three digits, not in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
