"""A check at values nearby, where it meets no kink: what is wrong there is wrong beside the kink.

At a kink a derivative is one of several, and along a direction that meets one little can be said of
the entries that do not. Where no other engine says what each of them should be, the same check is
made again at values that are moved by a tenth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.directional import moved
from conformance.oracles.pairs import direction

if TYPE_CHECKING:
    from conformance.checks.base import Case, Check, Finding

TENTH = 0.1
DRAWS = 2  # points that are tried, where at the first the check decides nothing
AS_WELL = "judged at values nearby as well, beside the kink"
INSTEAD = "decided at values nearby; here not: {reason}"


def beside(case: Case, check: Check) -> Finding | None:
    """What the check says nearby: passed, or failed with what shows it; None where nothing.

    Nothing is said where the case is itself one nearby, or another engine has judged each entry.
    """
    if case.beside or case.context.independent:
        return None
    for draw in range(DRAWS):
        along = direction(case.rng("beside", str(draw)), case.program, case.values)
        values = moved(case.program, case.values, along, TENTH)
        near = case.context.case(replace(case.sample, values=values), case.source)
        near.beside = True
        found = _found(near, check)
        if found is None:
            continue
        if found.outcome == "passed" and found.evidence.get("diagnosis") != "kink":
            return found
        if found.outcome == "failed":
            where = "at values that are moved by a tenth, beside a kink"
            said = {"description": f"{found.evidence.get('description', 'wrong')}, {where}"}
            evidence = found.evidence | said
            return replace(found, evidence=evidence, repro=found.repro or near.repro(evidence))
    return None


def _found(near: Case, check: Check) -> Finding | None:
    from conformance.checks.base import ReferenceFailed

    try:
        findings = list(check.run(near))
    except (EngineError, Unsupported, ProgramError, ReferenceFailed):  # outside the domain
        return None
    return findings[0] if findings else None
