"""Evidence in words: what every report says of a result, in one order and one notation."""

from __future__ import annotations

from typing import Any

from conformance.results import Result


def number(value: Any) -> str:
    """A value as a reader compares it: every digit of a float that matters."""
    if isinstance(value, list):
        return f"[{', '.join(map(number, value))}]"
    return str(value)


def short(value: Any) -> str:
    """A size or an error: three digits are enough."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.3g}"
    return str(value)


def position(result: Result) -> str:
    """Where: "weight[2, 0]", "weight", or nothing."""
    leaf = result.evidence.get("leaf")
    if leaf is None:
        return ""
    index = result.evidence.get("index")
    inner = ", ".join(map(str, index)) if isinstance(index, list) else index
    return f"{leaf}[{inner}]" if index not in (None, [], "") else str(leaf)


def headline(result: Result) -> str:
    """The result in a line: op, check, where."""
    where = position(result)
    return f"{result.op}, {result.check}" + (f", {where}" if where else "")


def wrong(result: Result) -> tuple[str, ...]:
    """Whom the verdict ("engine wrong: ...") holds to be wrong: engine, reference, both, nobody."""
    accused, found, _ = str(result.evidence.get("verdict", "")).partition(" wrong")
    who = accused.split(" and ") if found else []
    return tuple(name for name in ("engine", "reference") if name in who)


def values(result: Result) -> list[tuple[str, str]]:
    """The three opinions on the worst entry, as (who, value)."""
    evidence = result.evidence
    rows: list[tuple[str, str]] = []
    for who in ("engine", "reference"):
        if who in evidence:
            rows.append((who, number(evidence[who])))
    if "numerical" in evidence:
        bound = evidence.get("bound")
        within = f" ± {short(bound)}" if bound is not None else ""
        rows.append(("numerical", number(evidence["numerical"]) + within))
    return rows


def errors(result: Result) -> list[tuple[str, str]]:
    """How far off it is, as (measure, size)."""
    names = {
        "absolute": "absolute error",
        "relative": "relative error",
        "ulp": "error in ULP",
        "tolerance": "tolerance",
    }
    evidence = result.evidence
    return [(name, short(evidence[key])) for key, name in names.items() if key in evidence]


def facts(result: Result) -> list[tuple[str, str]]:
    """What else is known, as (label, text)."""
    evidence = result.evidence
    rows = [
        ("where", position(result)),
        ("shape", number(evidence.get("shape", ""))),
        ("diagnosis", str(evidence.get("diagnosis") or "").replace("-", " ")),
        ("detail", str(evidence.get("description") or "")),
        ("first call", str(evidence.get("first_call") or "")),
        ("oracle", str(evidence.get("oracle") or "")),
        ("compared", f"{evidence['compared']:,} entries" if evidence.get("compared") else ""),
        ("lacks", ", ".join(evidence.get("missing") or ())),
        ("sample", str(evidence.get("label") or "")),
    ]
    return [(label, text) for label, text in rows if text]


def sentence(result: Result) -> str:
    """The verdict on it in a sentence, or the reason."""
    return str(result.evidence.get("verdict") or result.evidence.get("reason") or "")


def lines(result: Result) -> list[tuple[str, str]]:
    """Everything but the script, as (label, text), for plain reports."""
    rows: list[tuple[str, str]] = []
    if sentence(result):
        rows.append(("verdict", sentence(result)))
    rows += values(result)
    sizes = ", ".join(f"{name} {size}" for name, size in errors(result))
    if sizes:
        rows.append(("off by", sizes))
    rows += [row for row in facts(result) if row[0] != "where"]
    error = str(result.evidence.get("error") or "").strip()
    if error:
        rows.append(("error", "\n".join(error.splitlines()[-12:])))
    return rows
