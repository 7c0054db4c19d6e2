"""The report as JUnit XML, which CI systems show: a suite a source, a test case a result."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from conformance.report.evidence import lines, sentence
from conformance.report.summary import Summary
from conformance.results import FAILING, UNDECIDED, Result

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(summary: Summary) -> str:
    """The whole document. A failure that was expected is a skipped test case with its reason."""
    expected = {id(result): str(known) for result, known in summary.verdict.expected}
    root = ElementTree.Element("testsuites", name=_clean(f"conformance {_engine(summary)}"))
    for source in summary.sources:
        results = [r for r in summary.journal.results if r.source == source.name]
        suite = ElementTree.SubElement(root, "testsuite", name=_clean(source.name))
        counts = {"failures": 0, "errors": 0, "skipped": 0}
        for result in results:
            kind = _case(suite, result, expected.get(id(result)))
            if kind:
                counts[kind] += 1
        suite.set("tests", str(len(results)))
        for name, count in counts.items():
            suite.set(name, str(count))
        suite.set("time", f"{sum(result.duration for result in results):.3f}")
    if not summary.journal.complete:
        suite = ElementTree.SubElement(
            root, "testsuite", name="run", tests="1", errors="1", failures="0", skipped="0"
        )
        case = ElementTree.SubElement(suite, "testcase", name="complete", classname="run")
        ElementTree.SubElement(case, "error", message=_clean(summary.journal.trouble or ""))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, result: Result, expected: str | None) -> str | None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_clean(f"{result.source}.{result.op}"),
        name=_clean(result.case),
        time=f"{result.duration:.3f}",
    )
    if expected is not None or result.outcome in UNDECIDED:
        reason = expected or f"{result.outcome}: {sentence(result) or _text(result)}"
        ElementTree.SubElement(case, "skipped", message=_clean(reason))
        return "skipped"
    if result.outcome not in FAILING:
        return None
    wrong = result.outcome in ("failed", "fallback")
    message = _clean(f"{result.outcome}: {sentence(result)}")
    element = ElementTree.SubElement(case, "failure" if wrong else "error", message=message)
    element.text = _clean(_text(result))
    return "failures" if wrong else "errors"


def _text(result: Result) -> str:
    return "\n".join(f"{label}: {value}" for label, value in lines(result))


def _engine(summary: Summary) -> str:
    return str(summary.journal.header["engine"])


def _clean(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
