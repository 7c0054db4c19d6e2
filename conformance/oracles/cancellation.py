"""How much rounding on the way may cost a derivative whose terms cancel.

Each result v on the way is rounded, and so is its tangent: by an epsilon of it. Through the adjoint
of v that error reaches the derivative, so that sum |adjoint v| |tangent v| bounds, to first order
and in epsilons, what rounding does to <cotangent, J tangent>. The sum is over the uses of each v,
since their adjoints may cancel too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from conformance.engines.base import ALL, Engine
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.directional import widest
from conformance.oracles.pairs import flat
from conformance.oracles.torch_autograd import DRAWS, SPREADS, perturbed
from conformance.program import Array, Call, Program, Ref, Values, map_refs, refs

EPSILONS = 64.0  # of the sum: an op rounds more than once


def results(program: Program, kept: Mapping[str, tuple[Array, ...]]) -> tuple[Ref, ...]:
    """A Ref to every flat result of every call."""
    used = {r for c in program.calls for r in c.refs} | set(refs(program.outputs))
    return tuple(
        Ref(name) if len(made) == 1 and Ref(name, (0,)) not in used else Ref(name, (n,))
        for name, made in kept.items()
        for n in range(len(made))
    )


def apart(program: Program) -> Program:
    """The same with a copy for each use of a tensor, so that each has an adjoint of its own."""
    calls: list[Call] = []

    def copied(ref: Ref) -> Ref:
        calls.append(Call(f"use{len(calls)}", "torch.clone", (ref,)))
        return Ref(calls[-1].name)

    for call in program.calls:
        args, kwargs = map_refs(copied, (call.args, call.kwargs))
        calls.append(replace(call, args=args, kwargs=kwargs))
    return replace(program, calls=tuple(calls))


def silent(program: Program) -> bool:
    """Whether a call that matters writes in place, so that `lost` says nothing."""
    return any(call.in_place for call in program.live().calls)


def lost(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> float:
    """What rounding may do to Re <cotangents, J tangents>; 0 where that cannot be said.

    It cannot by an engine without forward mode, nor of an output for which a call writes in place.
    """
    if silent(program):
        each = list(refs(program.outputs))
        if len(each) < 2:
            return 0.0
        return sum(
            lost(engine, replace(program, outputs=ref), values, [cotangent], tangents)
            for ref, cotangent in zip(each, cotangents, strict=True)
            if cotangent is not None
        )
    program = apart(program.live())
    try:
        kept = engine.run(program, values, keep=ALL).kept
        whole = replace(program, outputs=results(program, kept))
        moves = engine.jvp(whole, values, tangents)
        adjoints = engine.vjp(program, values, list(cotangents), keep=ALL).kept
    except (EngineError, Unsupported, ProgramError):
        return 0.0
    total = 0.0
    for ref, move in zip(refs(whole.outputs), moves, strict=True):
        adjoint = adjoints.get(ref.name, ())
        place = int(ref.path[0]) if ref.path else 0
        if place < len(adjoint) and (a := adjoint[place]) is not None and a.shape == move.shape:
            with np.errstate(all="ignore"):
                terms = np.abs(flat(a)) * np.abs(flat(move))
            eps = float(np.finfo(move.dtype).eps)
            total += eps * float(np.sum(terms[np.isfinite(terms)]))
    return EPSILONS * total


def narrowed(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    rng: np.random.Generator,
) -> dict[str, float]:
    """What rounding in the Program's own dtype may do to an entry of each leaf's gradient.

    That is measured: SPREADS times the most by which the engine's gradient differs from the one in
    float64 on the same values, and on some within an epsilon of them. Nothing is said where the
    Program runs in float64 as it is, or cannot.
    """
    most: dict[str, float] = {}
    for draw in range(1 + DRAWS):
        near = perturbed(program, values, rng) if draw else values
        widened, wide_values = widest(engine, program, near)
        if widened is program:
            return {}
        try:
            ours = engine.vjp(program, near, cotangents).gradients
            right = engine.vjp(widened, wide_values, cotangents).gradients
        except (EngineError, Unsupported, ProgramError):
            return {}
        for name, gradient in right.items():
            if gradient is None or (found := ours.get(name)) is None:
                continue
            with np.errstate(all="ignore"):
                gaps = np.abs(flat(found) - flat(gradient))
            gap = float(gaps[np.isfinite(gaps)].max(initial=0.0))
            most[name] = max(most.get(name, 0.0), SPREADS * gap)
    return most
