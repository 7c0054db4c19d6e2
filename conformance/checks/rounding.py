"""What rounding makes of an engine's gradients: each use of a tensor is moved by an epsilon.

Where the terms of a gradient cancel, two right ways to it differ by that, however small it is
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from conformance.checks.base import Case
from conformance.checks.doubt import AMPLIFIED, PROPORTIONAL, faint
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles import noise
from conformance.oracles.pairs import flat, gaussian
from conformance.oracles.torch_autograd import DRAWS
from conformance.program import Array, Program, Values

Gradients = Mapping[str, Array | None]
Cotangents = Sequence[Array | None]


def moves(
    case: Case, program: Program, values: Values, cotangents: Cotangents, gradients: Gradients
) -> dict[str, Array]:
    """How far an epsilon at the cotangents and on the way moves each entry of the gradients.

    What larger noise moves no further is a jump, not rounding, and counts nothing.
    """
    given = (program, values, cotangents, gradients)
    little, much = (_changes(case, *given, epsilons) for epsilons in (1.0, AMPLIFIED))
    found = {}
    for name, changed in little.items():
        smooth = np.median(much[name], 0) >= PROPORTIONAL * np.median(changed, 0)
        smooth |= changed.max(0) <= faint(case.coarsest, gradients)
        most = np.where(smooth, changed.max(0), 0.0)
        found[name] = np.maximum(most, np.median(most)) if most.size else most
    return found


def _changes(
    case: Case,
    program: Program,
    values: Values,
    cotangents: Cotangents,
    gradients: Gradients,
    epsilons: float,
) -> dict[str, Array]:
    """By leaf how far each draw of so much noise moves each entry, 0 where it is not finite."""
    rng = case.rng("rounding", str(epsilons))
    made = {n: np.zeros((DRAWS, flat(g).size)) for n, g in gradients.items() if g is not None}
    for draw in range(DRAWS):
        near = [_noisy(rng, c, epsilons) for c in cotangents]
        found = _gradients(case, program, values, near, rng, epsilons)
        for name, changed in made.items():
            base, other = gradients[name], found.get(name)
            if base is not None and other is not None and other.shape == base.shape:
                with np.errstate(all="ignore"):
                    change = np.abs(flat(other) - flat(base))
                changed[draw] = np.where(np.isfinite(change), change, 0.0)
    return made


def _gradients(
    case: Case,
    program: Program,
    values: Values,
    cotangents: Cotangents,
    rng: np.random.Generator,
    epsilons: float,
) -> Gradients:
    """Those with noise at each use of a tensor; without it where that cannot be."""
    try:
        made = noise.moved(case.engine, program, values, rng, epsilons)
        return case.engine.vjp(*made, cotangents).gradients
    except (EngineError, Unsupported, ProgramError):
        return case.engine.vjp(program, values, cotangents).gradients


def _noisy(rng: np.random.Generator, cotangent: Array | None, epsilons: float) -> Array | None:
    if cotangent is None:
        return None
    eps = epsilons * float(np.finfo(cotangent.dtype).eps)
    factor = 1 + gaussian(rng, cotangent.shape, cotangent.dtype) * eps
    return np.asarray(cotangent * factor).astype(cotangent.dtype)
