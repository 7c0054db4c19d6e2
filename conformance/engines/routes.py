"""Second order by every route: reverse and forward mode, each over each, on any NamespaceEngine.

With c the cotangents, t the tangents and F(x) = Re <c, f(x)>, three routes give the product H t of
F's Hessian: `rr` differentiates <vjp, t> backward, `fr` carries t through the backward pass, `rf`
differentiates <c, jvp> backward. `ff` nests forward mode and gives each output's D2f(t, u).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.errors import EngineError, Unsupported
from conformance.program import Array, Program, Values

if TYPE_CHECKING:
    from conformance.engines.namespace import NamespaceEngine

Product = dict[str, Array | None]


def product(
    engine: NamespaceEngine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
    route: str,
) -> Product:
    """H t for every leaf; None where it does not arise. Raises Unsupported and EngineError."""
    with engine.failures():
        found = _ROUTES[route](engine, program, values, cotangents, tangents)
        names = [i.name for i in program.leaves]
        return {
            name: None if g is None else engine.to_numpy(g)
            for name, g in zip(names, found, strict=True)
        }


def _reverse_over_reverse(
    engine: NamespaceEngine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> Sequence[Any]:
    tensors = engine.inputs(program, values, grad=True)
    outputs = engine.execute(program, tensors)
    leaves = [tensors[i.name] for i in program.leaves]
    first = engine.grad(outputs, leaves, cotangents, create_graph=True)
    names = [i.name for i in program.leaves]
    return contracted(engine, dict(zip(names, first, strict=True)), tangents, leaves)


def contracted(
    engine: NamespaceEngine,
    gradients: Mapping[str, Any],
    tangents: Mapping[str, Array],
    wanted: Sequence[Any],
) -> Sequence[Any]:
    """The gradient of Re <gradients, tangents> in each wanted tensor; their graph is freed."""
    known = [(g, tangents.get(n)) for n, g in gradients.items() if g is not None]
    return engine.grad([g for g, _ in known], wanted, [t for _, t in known], create_graph=False)


def _forward_over_reverse(
    engine: NamespaceEngine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> Sequence[Any]:
    forward = _forward(engine)
    with forward.dual_level():
        tensors = _duals(engine, program, values, tangents)
        outputs = engine.execute(program, tensors)
        leaves = [tensors[i.name] for i in program.leaves]
        first = engine.grad(outputs, leaves, cotangents, create_graph=True)
        return [None if g is None else _owned(forward.unpack_dual(g).tangent) for g in first]


def _reverse_over_forward(
    engine: NamespaceEngine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> Sequence[Any]:
    forward = _forward(engine)
    with forward.dual_level():
        tensors = _duals(engine, program, values, tangents)
        outputs = engine.execute(program, tensors)
        moves = [forward.unpack_dual(o).tangent for o in outputs]
        pairs = [(m, c) for m, c in zip(moves, cotangents, strict=True) if m is not None]
        leaves = [tensors[i.name] for i in program.leaves]
        return engine.grad([m for m, _ in pairs], leaves, [c for _, c in pairs], create_graph=False)


def curvature(
    engine: NamespaceEngine,
    program: Program,
    values: Values,
    tangents: Mapping[str, Array],
    others: Mapping[str, Array],
) -> tuple[Array | None, ...]:
    """D2f(t, u) of each flat output by forward over forward; None for an integer output."""
    function = getattr(engine.namespace, "func", None)
    if function is None or not hasattr(function, "jvp"):
        raise Unsupported(f"{engine.name} has no func.jvp to nest forward mode with")
    if program.differentiates:
        raise Unsupported("a gradient that is taken inside has no graph in func.jvp")
    writes = any(call.in_place for call in program.calls)
    with engine.failures():
        fixed = engine.inputs(program, values, grad=False)
        leaves = program.leaves
        points = tuple(fixed[i.name] for i in leaves)
        differentiable: list[bool] = []

        def forward(*xs: Any) -> tuple[Any, ...]:
            named = {i.name: x for i, x in zip(leaves, xs, strict=True)}
            alone = [i.name for i in program.inputs if writes and i.storage is None]
            own = {n: fixed[n].clone() for n in alone}  # the transform's, to be written
            outputs = engine.execute(program, {**fixed, **own, **named})
            differentiable[:] = [o.is_floating_point() or o.is_complex() for o in outputs]
            return tuple(o for o, yes in zip(outputs, differentiable, strict=True) if yes)

        t, u = (
            tuple(engine.to_tensor(np.array(d[i.name]), i.dtype) for i in leaves)
            for d in (tangents, others)
        )
        try:
            second = function.jvp(lambda *xs: function.jvp(forward, xs, t)[1], points, u)[1]
        except EngineError as error:
            if "functorch transforms" in str(error):  # an autograd.Function that is not made for it
                raise Unsupported(str(error).partition(". ")[0]) from error
            raise
        found = iter(second)
        return tuple(engine.to_numpy(next(found)) if yes else None for yes in differentiable)


_ROUTES: dict[str, Callable[..., Sequence[Any]]] = {
    "rr": _reverse_over_reverse,
    "fr": _forward_over_reverse,
    "rf": _reverse_over_forward,
}


def _forward(engine: NamespaceEngine) -> Any:
    forward = getattr(engine.namespace.autograd, "forward_ad", None)
    if forward is None:
        raise Unsupported(f"{engine.name} has no forward mode")
    return forward


def _duals(
    engine: NamespaceEngine, program: Program, values: Values, tangents: Mapping[str, Array]
) -> dict[str, Any]:
    """The inputs, each leaf with its tangent and a graph."""
    tensors = engine.inputs(program, values, grad=True)
    for i in program.leaves:
        tangent = engine.to_tensor(np.array(tangents[i.name]), i.dtype)
        tensors[i.name] = _forward(engine).make_dual(tensors[i.name], tangent)
    return tensors


def _owned(tangent: Any) -> Any:
    """A tangent with memory of its own: torch's ZeroTensor has none, and reading it crashes."""
    return None if tangent is None else tangent.clone()
