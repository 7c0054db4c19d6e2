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
from conformance.oracles.pairs import direction, hermitian
from conformance.program import Array

if TYPE_CHECKING:
    from conformance.checks.base import Case, Check, Finding

TENTH = 0.1
DRAWS = 2  # directions that are tried, where along the first the check decides nothing
AS_WELL = "judged at values nearby as well, beside the kink"
INSTEAD = "decided at values nearby; here not: {reason}"


def beside(case: Case, check: Check) -> Finding | None:
    """What the check says nearby: passed, or failed with what shows it; None where nothing.

    It passes on both sides of the kink, or on one where the other is outside the domain. Nothing is
    said where the case is itself one nearby, or another engine has judged each entry.
    """
    if case.beside or case.context.independent:
        return None
    within = may_read_a_triangle(case)
    for draw in range(DRAWS):
        rng = case.rng("beside", str(draw))
        along = direction(rng, case.program, case.values, within=within)
        sides = [side for step in (TENTH, -TENTH) if (side := _at(case, check, along, step))]
        failed = next((side for side in sides if side.outcome == "failed"), None)
        if failed is not None:
            return failed
        if sides and all(
            side.outcome == "passed" and side.evidence.get("diagnosis") != "kink" for side in sides
        ):
            return sides[0]
    return None


def may_read_a_triangle(case: Case) -> bool:
    """Whether a function that is not known is given a Hermitian matrix, and may read half of it."""
    unknown = case.program.opaque
    return unknown and any(hermitian(case.values[i.name]) for i in case.program.leaves)


def _at(case: Case, check: Check, along: dict[str, Array], step: float) -> Finding | None:
    """What the check says at values that are moved by so much; None outside the domain."""
    from conformance.checks.base import ReferenceFailed

    values = moved(case.program, case.values, along, step)
    near = case.context.case(replace(case.sample, values=values), case.source)
    near.beside = True
    try:
        found = next(iter(check.run(near)), None)
    except (EngineError, Unsupported, ProgramError, ReferenceFailed):
        return None
    if found is None or found.outcome != "failed":
        return found
    where = "at values that are moved by a tenth, beside a kink"
    evidence = found.evidence | {
        "description": f"{found.evidence.get('description', 'wrong')}, {where}"
    }
    return replace(found, evidence=evidence, repro=found.repro or near.repro(evidence))
