"""Inline SVG by hand: elements, logarithmic scales, text. Colours come from the page's style."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable


def element(name: str, *children: str, **attributes: object) -> str:
    """An element; "class_" is class, "stroke_width" is stroke-width. Children are SVG, not text."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{''.join(children)}</{name}>"


def text(x: float, y: float, words: str, **attributes: object) -> str:
    """Text at a point, escaped."""
    return element("text", html.escape(words), x=x, y=y, **attributes)


def title(words: str) -> str:
    """What a browser shows when the pointer rests on the element around it."""
    return element("title", html.escape(words))


def drawing(width: float, height: float, label: str, children: Iterable[str]) -> str:
    """A whole picture that fits the width of its place; `label` is for who cannot see it."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def polyline(points: Iterable[tuple[float, float]], **attributes: object) -> str:
    """A line through points."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=joined, **attributes)


def _number(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Log:
    """A logarithmic scale from [low, high] to [start, end] in user units."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, room: float = 0.04) -> Log:
        """A scale that holds positive values, with room at both ends and at least a factor of 2."""
        found = list(values)
        low, high = math.log(min(found)), math.log(max(found))
        spare = max(room * (high - low), (math.log(2) - (high - low)) / 2)
        return cls(math.exp(low - spare), math.exp(high + spare), start, end)

    def __call__(self, value: float) -> float:
        """The place of a value; beyond the ends it is the end."""
        value = min(max(value, self.low), self.high)
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 9) -> list[float]:
        """Round numbers within: powers of ten, with 2 and 5 between them where there is room."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1,)):
            found = [m * 10.0**d for d in decades for m in steps]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= most:
                break
        return found[:: math.ceil(len(found) / most)] if len(found) > most else found
