"""Forward passes that serve several checks: their graph is kept for second order to go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.engines.base import Engine, Vjp
from conformance.engines.variants import Recording, recorded
from conformance.errors import EngineError, Unsupported
from conformance.oracles.pairs import cotangents_for
from conformance.program import Array

if TYPE_CHECKING:
    from conformance.checks.base import Case

APART = 4  # passes of its own for each order take a tenth of the time of a generated Program


def shared(case: Case) -> bool:
    """Whether a pass of the engine may serve both orders: of one case in APART none does."""
    return case.context.independent and int(case.digest, 16) % APART > 0


def _plain(case: Case, engine: Engine) -> bool:
    """Whether a graph of the engine's may be kept: of a model it is large."""
    return recorded(engine) and not (case.loose or case.program.opaque)


def of_reference(case: Case) -> tuple[list[Array | None], Vjp] | None:
    """Cotangents for the reference's outputs, and its gradients with these.

    None where that fails, and where it would save nothing: the reference is what is judged.
    """
    if not (case.context.independent and _plain(case, case.reference) and case.differentiated):
        return None
    try:
        graph = Recording(case.reference, case.program, case.values, keep=False)
        outputs = tuple(map(graph.engine.to_numpy, graph.outputs))
        drawn = cotangents_for(case.rng("cotangents"), outputs)
        found = graph.grad(graph.weighed(drawn), create_graph=case.second_order)
        gradients = graph.arrays(found)
    except (EngineError, Unsupported):
        return None
    if case.second_order:
        case.reference_graph = graph, found
    return drawn, Vjp(outputs, gradients, differentiable=graph.differentiable)


def of_engine(case: Case) -> Vjp | None:
    """The engine's gradients; None where second order has a pass of its own."""
    if not (case.second_order and shared(case) and _plain(case, case.engine)):
        return None
    try:
        graph = Recording(case.engine, case.program, case.values, keep=False)
        found = graph.grad(graph.weighed(case.cotangents), retain_graph=True)
        gradients, outputs = graph.arrays(found), map(graph.engine.to_numpy, graph.outputs)
    except (EngineError, Unsupported):  # the engine's own method says more
        return None
    case.engine_graph = graph
    return Vjp(tuple(outputs), gradients, differentiable=graph.differentiable)
