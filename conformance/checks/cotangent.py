"""rr in the cotangent: what the second derivative of a rule makes of grad_output.

The gradient is linear in the cotangent c. So the derivative of Re <vjp(c), t> is J t, which the
complex step knows; where it does not, or where they differ, it is along d Re <vjp(d), t>, which
first order has judged. H t does not show it, since there c is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from conformance import arbitration
from conformance.checks import doubt
from conformance.checks.claims import other_cotangents
from conformance.checks.forward import ADJOINT, allowance
from conformance.checks.parting import alone
from conformance.engines.variants import Recording
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.pairs import contracted, flat, inner
from conformance.program import Array, Program, Values

if TYPE_CHECKING:
    from conformance.checks.base import Case, Check, Finding

ORACLE = "linearity in the cotangent"
FAINTER = 8.0  # times: a derivative by the values that is so much more than the outputs
_SAID = "with respect to the cotangent (grad_output) the gradient's derivative is {ours:.10g}, and "
_DUE = "should be {due:.10g}"


@dataclass(frozen=True)
class Slope:
    """The derivative of Re <vjp(c), t> along d by reverse over reverse, and Re <vjp(d), t>.

    `size` is the sum of absolute terms, the larger of the two that are finite, or what terms that
    cancel to nothing may have been: outputs over values.
    """

    found: float
    due: float
    size: float
    cotangents: Sequence[Array | None]
    tangents: Mapping[str, Array]

    @property
    def gap(self) -> float:
        """How far the two are apart."""
        gap = abs(self.found - self.due)
        return np.inf if math.isnan(gap) else gap


def judged(case: Case, check: Check, finding: Finding) -> Finding:
    """What `check` found of H t; or that the derivative in the cotangent is wrong, where it is."""
    try:
        if _exact(case):
            return finding
        slope = _slope(case)
        allowed = allowance(case, slope.tangents, slope.gap, slope.size)
    except Unsupported as error:
        note = f"not judged in the cotangent: {error.reason.partition(chr(10))[0]}"
        return replace(finding, evidence={"note": note, **finding.evidence})
    except EngineError as error:
        return _refused(case, error) if _passes_back(case) else finding
    if slope.gap <= allowed or slope.gap <= allowed + _lost(case, slope):
        return finding
    if not np.isfinite(slope.found) and len(case.program.calls) > 1 and not _blamed(case):
        return finding  # 0 times inf on the way, as of sqrt where tril leaves 0
    refusal = _refusal(case, slope)
    if refusal is not None:
        return _refused(case, refusal)
    if _first_order_wrong(case, slope):
        return finding
    wrong = _wrong(case, slope, allowed)

    def ask(program: Program, values: Values) -> dict[str, Array | None]:
        gradients = case.reference.vjp(program, values, slope.cotangents).gradients
        return {ORACLE: np.array([inner(gradients, slope.tangents)[0]])}

    looked = doubt.second_look(case, check, wrong, ask, ORACLE, 0, slope.gap)
    return finding if looked.outcome == "precision" else looked


def _passes_back(case: Case) -> bool:
    """Whether the gradient itself can be computed: else `vjp` tells that it cannot."""
    try:
        return bool(case.engine_vjp.gradients)
    except EngineError:
        return False


def _exact(case: Case) -> bool:
    """Whether, entry by entry, the derivative is the complex step's J t: no pass of its own."""
    second = case.second
    if second.pushed is None or second.together is None:
        return False
    gap = size = 0.0
    for c, found, due in zip(second.cotangents, second.together[1], second.pushed, strict=True):
        if c is None:
            continue
        if found is None or due is None or found.shape != due.shape:
            return False
        with np.errstate(invalid="ignore"):
            gap += float(np.abs(flat(found) - flat(due)).sum())
        size += float(np.abs(flat(due)).sum())
    return gap <= case.loosened(ADJOINT, case.coarsest) * size


def _slope(case: Case) -> Slope:
    """Along one random direction; 0 in it where outputs or gradients are not finite."""
    second, drawn = case.second, other_cotangents(case, "along")
    along = [
        None if c is None or d is None else np.where(c == 0, 0, d).astype(d.dtype)
        for c, d in zip(second.cotangents, drawn, strict=True)
    ]
    first = case.engine.vjp(case.program, case.values, along).gradients
    tangents = {n: _where_finite(first.get(n), t) for n, t in second.tangents.items()}
    graph = Recording(case.engine, case.program, case.values)
    found = graph.in_cotangents(second.cotangents, tangents)
    if any((tangents[n] != t).any() for n, t in second.tangents.items()):  # 0 times inf is nan
        along = [
            None if d is None else _where_finite(s, d) for d, s in zip(along, found, strict=True)
        ]
        first = case.engine.vjp(case.program, case.values, along).gradients
    with np.errstate(invalid="ignore"):
        ours, terms = contracted(along, found)
        due, size = inner(first, tangents)
    sizes = [x for x in (terms, size) if np.isfinite(x)]
    return Slope(ours, due, max(*sizes, sum(case.natural.values())), along, tangents)


def _lost(case: Case, slope: Slope) -> float:
    """What rounding leaves of terms of order 1, where nearly nothing of them is in the outputs.

    The cross entropy of what is certain is 0, and its derivative e^-60, of 1 - 1 and of e^-60. Of a
    function that is small all over, the derivative is no larger than its outputs and values are.
    """
    from conformance.checks.base import VANISHING

    pairs = zip(slope.cotangents, case.reference_run.outputs, strict=True)
    known = [(np.abs(d), np.abs(o)) for d, o in pairs if d is not None]
    with np.errstate(all="ignore"):
        outputs = sum(float(np.nansum(d * o)) for d, o in known)
    if not FAINTER * outputs < max(abs(slope.found), abs(slope.due)):
        return 0.0
    return VANISHING * float(np.finfo(case.coarsest).eps) * sum(float(d.sum()) for d, _ in known)


def _where_finite(judge: Array | None, array: Array) -> Array:
    """The array, but 0 where `judge` is not finite."""
    if judge is None or judge.shape != array.shape:
        return array
    return np.where(np.isfinite(judge), array, 0).astype(array.dtype)


def _first_order_wrong(case: Case, slope: Slope) -> bool:
    """Whether it is the gradient that is wrong, which `vjp` or `numerical` tells."""
    wide = {
        n: t.astype(np.complex128 if t.dtype.kind == "c" else np.float64)
        for n, t in slope.tangents.items()
    }
    opinions = arbitration.opinions_on(case, list(slope.cotangents), wide)
    ruling = arbitration.decide(slope.found, slope.due, opinions, "first order")
    return ruling.verdict.startswith("reference wrong")


def _refusal(case: Case, slope: Slope) -> EngineError | None:
    """What backward() raises where autograd.grad leaves a derivative out without a word."""
    graph = Recording(case.engine, case.program, case.values)
    weighed = graph.weighed(case.second.cotangents)
    with graph.failures():
        for _, cotangent in weighed:
            cotangent.requires_grad_()
    gradients = graph.grad(weighed, create_graph=True)
    with graph.failures():
        pairs = [
            (g, graph.engine.seed(slope.tangents[n].copy(), g))
            for n, g in gradients.items()
            if g is not None and g.requires_grad
        ]
    try:
        graph.backward(pairs)
    except EngineError as error:
        return error
    except Unsupported:  # a derivative that is not on the way to the cotangent
        pass
    return None


def _refused(case: Case, error: EngineError) -> Finding:
    from conformance.checks.base import Finding

    said = f"its backward pass cannot be differentiated: {str(error).partition(chr(10))[0]}"
    about = {"diagnosis": "refused", "description": said, "verdict": f"engine wrong: {said}"}
    return Finding("failed", about | _blamed(case))


def _wrong(case: Case, slope: Slope, allowed: float) -> Finding:
    from conformance.checks.base import Finding

    said = (_SAID + _DUE).format(ours=slope.found, due=slope.due)
    if slope.found == 0:
        said += ", as of a detached grad_output"
    evidence = {
        "engine": slope.found, "numerical": slope.due, "bound": allowed, "oracle": ORACLE,
        "diagnosis": "cotangent",
        "description": f"reverse over reverse: {said}", "verdict": f"engine wrong: {said}",
    }  # fmt: skip
    if np.isfinite(slope.gap):
        evidence |= {"absolute": slope.gap, "relative": slope.gap / abs(slope.due or 1.0)}
    return Finding("failed", evidence | _blamed(case))


def _blamed(case: Case) -> dict[str, str]:
    """The first call that is wrong in its cotangent alone."""
    calls = case.program.live().calls
    if len(calls) == 1:
        return {"culprit": calls[0].target}
    for call in () if case.loose else calls:
        try:
            cut = alone(case, call)
            if not cut.program.leaves:
                continue
            slope = _slope(cut)
            if slope.gap <= allowance(cut, slope.tangents, slope.gap, slope.size):
                continue
        except (Unsupported, EngineError, ProgramError):
            continue
        text = f"{call.name} = {call.target}: alone it is wrong in its cotangent"
        return {"first_call": text, "culprit": call.target}
    return {}
