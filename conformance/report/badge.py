"""A badge: the verdict as a small SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape

from conformance.report.summary import Summary

_COLOURS = {
    "ok": "#2da44e",
    "regression": "#cf222e",
    "flaky": "#cf222e",
    "nothing": "#9a6700",
    "incomplete": "#9a6700",
}


def render(summary: Summary) -> str:
    """The SVG's text."""
    left = "gradients"
    passed = summary.verdict.counts.get("passed", 0)
    unexpected = len(summary.verdict.regressions) + len(summary.verdict.flaky)
    right = {
        "ok": f"{passed:,} checks hold",
        "nothing": "nothing checked",
        "incomplete": "incomplete run",
    }.get(summary.state, f"{unexpected:,} not as expected")
    wide = 6.6  # pixels a character, at 11 px
    a, b = round(len(left) * wide) + 14, round(len(right) * wide) + 14
    label = escape(f"{left}: {right}", {'"': "&quot;"})
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" role="img" \
aria-label="{label}">
  <title>{label}</title>
  <clipPath id="r"><rect width="{a + b}" height="20" rx="4"/></clipPath>
  <g clip-path="url(#r)">
    <rect width="{a}" height="20" fill="#444c56"/>
    <rect x="{a}" width="{b}" height="20" fill="{_COLOURS[summary.state]}"/>
  </g>
  <g fill="#fff" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11"
     text-anchor="middle">
    <text x="{a / 2}" y="14">{escape(left)}</text>
    <text x="{a + b / 2}" y="14">{escape(right)}</text>
  </g>
</svg>
"""
