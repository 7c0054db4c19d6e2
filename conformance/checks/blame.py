"""Which call of a Program is to blame for a failure: the evidence `culprit` and `first_call`.

Rules that differ can differ where values are right, so the engine is held against another one: the
reference, or refgrad where the engine is its own reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from conformance.checks.base import VANISHING, Case, natural
from conformance.checks.compare import compare
from conformance.checks.parting import Parting, first_call, first_forward
from conformance.engines.base import ALL, Engine
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.directional import of_gradient as by_differences
from conformance.oracles.pairs import contracted, cotangents_for, direction, inner
from conformance.oracles.torch_autograd import scale
from conformance.program import Array, Program, Values
from conformance.writes import held

LOOSE = 30.0  # times the tolerance: a fault stands out in the op alone
POOR = 1e-4  # of a derivative: above it a bound blames nothing


def of_gradient(case: Case, parting: Parting | None = None) -> dict[str, str]:
    """The call at which the backward passes part; `parting` where it is already known."""
    return _only(case) or _told(parting or first_call(case, case.witness))


def of_tangents(case: Case, tangents: Mapping[str, Array]) -> dict[str, str]:
    """The first call at which the tangents part."""
    return _only(case) or _told(first_forward(case, tangents, case.witness))


def of_second(case: Case, route: str) -> dict[str, str]:
    """The call that differs most at second order by that route when it is run alone.

    Where none does, by a route through forward mode: the first whose tangent differs, since a wrong
    tangent of a linear call has a right derivative of its own, 0.
    """
    if case.loose or len(case.program.calls) == 1:
        return _only(case)
    try:
        kept = case.reference.run(case.program, case.values, keep=ALL).kept
    except (EngineError, Unsupported):
        return {}
    values: dict[str, Array | tuple[Array, ...]] = {**case.values, **kept}
    found: dict[str, float] = {}
    for call in case.program.calls:
        try:
            there = held(case.reference, case.program, case.values, call, values)
            program, inputs = case.program.isolate(call.name, there)
            if not program.leaves:
                continue
            lacking = route == "rr" and case.witness.missing(program)
            judged = _unaided(case, program, inputs) if lacking else None
            excess = judged if lacking else _excess(case, program, inputs, route)
        except (EngineError, Unsupported, ProgramError):
            continue
        if excess is not None:
            found[call.name] = excess
    if found:
        worst = max(found, key=lambda name: found[name])
        (target,) = (c.target for c in case.program.calls if c.name == worst)
        text = f"{worst} = {target}: alone it differs at second order"
        return {"first_call": text, "culprit": target}
    if route == "rr":
        return {}
    along = _narrow(direction(case.rng("tangents"), case.program, case.values), case.values)
    return _told(first_forward(case, along, case.witness))


def _only(case: Case) -> dict[str, str]:
    calls = case.program.live().calls
    return {"culprit": calls[0].target} if len(calls) == 1 else {}


def _told(parting: Parting | None) -> dict[str, str]:
    if parting is None:
        return {}
    return {"first_call": parting.sentence, "culprit": parting.target}


def _excess(case: Case, program: Program, values: Values, route: str) -> float | None:
    """By how many tolerances the engine's product by the route misses the witness's by rr.

    None where it does not; 0 where the engine raises and the witness does not.
    """
    witness: Engine = case.witness
    rng = case.rng("alone", *program.targets)
    outputs = witness.run(program, values).outputs
    cotangents = cotangents_for(rng, outputs)
    sizes = natural(program, values, cotangents, outputs)
    tangents = _narrow(direction(rng, program, values), values)
    right = witness.hvp(program, values, cotangents, tangents)
    size = max((scale(h) for h in right.values() if h is not None), default=0.0)
    try:
        if route == "ff":
            others = _narrow(direction(rng, program, values), values)
            moves = case.engine.curvature(program, values, tangents, others)
            ours, terms = contracted(cotangents, moves)
            theirs, total = inner(right, others)
            allowed = LOOSE * case.relative(case.dtype) * max(terms, total, 1.0)
            gap = abs(ours - theirs)
            return None if gap <= allowed else float(np.nan_to_num(gap / allowed, nan=np.inf))
        left = case.engine.hvp(program, values, cotangents, tangents, route)
    except EngineError:
        return 0.0
    worst: float | None = None
    for leaf in program.leaves:
        a, b = left.get(leaf.name), right.get(leaf.name)
        zeros = np.zeros(leaf.shape, leaf.dtype)
        a, b = zeros if a is None else a, zeros if b is None else b
        lost = VANISHING * float(np.finfo(leaf.dtype).eps) * sizes[leaf.name]  # as of x / x
        relative = LOOSE * case.relative(leaf.dtype)
        found = compare(a, b, relative=relative, floor=size, absolute=lost)
        if found is not None:
            excess = found.severity[1] if found.kind == "value" else np.inf
            worst = max(worst or 0.0, excess)
    return worst


def _unaided(case: Case, program: Program, values: Values) -> float | None:
    """The same by rr of a call that the witness lacks, beside differences of its own gradient."""
    rng = case.rng("alone", *program.targets)
    cotangents = cotangents_for(rng, case.engine.run(program, values).outputs)
    along, onto = (direction(rng, program, values) for _ in range(2))
    product = case.engine.hvp(program, values, cotangents, _narrow(along, values))
    ours, size = inner(product, onto)
    opinion = by_differences(case.engine, program, values, cotangents, along, onto)
    allowed = opinion.bound + LOOSE * case.relative(case.dtype) * size
    if not opinion.sure(POOR) or abs(ours - opinion.value) <= allowed:
        return None
    return float(abs(ours - opinion.value) / allowed)


def _narrow(wide: Mapping[str, Array], values: Values) -> dict[str, Array]:
    return {n: t.astype(values[n].dtype) for n, t in wide.items()}
