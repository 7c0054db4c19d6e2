"""Running one check on one case: what it says, or what is raised on the way, as Results."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import replace

from conformance.checks.base import Case, Check, Finding, ReferenceFailed
from conformance.errors import DeviceLost, EngineError, Unsupported
from conformance.results import Result

ERROR_LENGTH = 2000
SHRUNK = ("generated", "opinfo", "corpus")  # sources whose failures are shrunk


def judge(check: Check, case: Case) -> Iterator[Result]:
    """Run one check; what is raised on the way is a result too."""
    started = time.perf_counter()
    try:
        for finding in check.run(case):
            result = case.result(check.name, finding, time.perf_counter() - started)
            yield _explained(case, check, finding, result)
            started = time.perf_counter()
    except Unsupported as error:
        evidence = {"reason": error.reason, "missing": list(error.targets)}
        yield case.result(check.name, Finding("unsupported", evidence))
    except ReferenceFailed as error:
        yield case.result(check.name, Finding("inconclusive", {"reason": str(error)}))
    except DeviceLost:  # which would fail every check that follows: the worker is replaced
        raise
    except Exception as error:
        evidence = {"reason": one_line(error), "error": trimmed(error)}
        if isinstance(error, EngineError):
            evidence["verdict"] = f"engine wrong: {str(error).strip().partition(chr(10))[0]}"
        if isinstance(error, EngineError) and error.call:
            evidence["first_call"] = error.call
            called = {c.name: c.target for c in case.program.calls}
            if error.call in called:
                evidence["culprit"] = called[error.call]
        yield case.result(check.name, Finding("errored", evidence), time.perf_counter() - started)


def _explained(case: Case, check: Check, finding: Finding, result: Result) -> Result:
    """The Result with a shrunk Program, for the first failure of each op and check."""
    place = (case.source, case.sample.op, check.name)
    known = case.context.explained
    if finding.outcome != "failed" or case.source not in SHRUNK or place in known or finding.repro:
        return result
    from conformance.explain import explain

    known.add(place)
    return replace(result, repro=explain(case, check, finding))


def one_line(error: BaseException) -> str:
    """The class and the first line of an exception."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def trimmed(error: BaseException) -> str:
    """The end of its traceback; of an engine's error that of what the engine raised."""
    while isinstance(error, EngineError) and error.__cause__ is not None:
        error = error.__cause__
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= ERROR_LENGTH else "...\n" + text[-ERROR_LENGTH:]
