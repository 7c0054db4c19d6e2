"""How far rounding on the way may move an answer: operands are moved by an epsilon, at random.

Each use of a tensor by a call is moved by itself, as each call rounds by itself (Monte Carlo
arithmetic: Parker 1997). What is exact at the inputs, a tie or a sum that is 0, is so no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from conformance.engines.base import ALL, Engine
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.cancellation import results
from conformance.oracles.pairs import flat
from conformance.program import Array, Call, Input, Program, Ref, Values, map_refs
from conformance.writes import writes

Ask = Callable[[Program, Values], Mapping[str, Array | None]]

DRAWS = 12


def moved(
    engine: Engine, program: Program, values: Values, rng: np.random.Generator, epsilons: float
) -> tuple[Program, Values]:
    """The Program with every use multiplied by 1 + `epsilons` times an epsilon times a Gaussian.

    What may share memory with a tensor that is written in place later is left as it is.
    """
    program = program.live()
    kept = engine.run(program, values, keep=ALL).kept
    arrays = {Ref(i.name): values[i.name] for i in program.inputs}
    for ref in results(program, kept):
        arrays[ref] = kept[ref.name][int(ref.path[0]) if ref.path else 0]
    written = writes(program)
    inputs, calls, changed = list(program.inputs), [], dict(values)

    def noisy(at: int, ref: Ref) -> Ref:
        x = arrays.get(ref)
        if x is None or written.get(ref.name, -1) >= at or x.dtype.kind not in "fc" or not x.size:
            return ref
        number = len(inputs)
        noise = rng.standard_normal(x.shape) * epsilons * np.finfo(x.dtype).eps
        factor = np.asarray(1 + noise).astype(x.dtype)
        changed[f"noise{number}"] = factor
        inputs.append(Input.of(f"noise{number}", factor, requires_grad=False))
        calls.append(Call(f"moved{number}", "torch.mul", (ref, Ref(f"noise{number}"))))
        return Ref(calls[-1].name)

    for at, call in enumerate(program.calls):
        args, kwargs = map_refs(partial(noisy, at), (call.args, call.kwargs))
        calls.append(replace(call, args=args, kwargs=kwargs))
    return Program(tuple(inputs), tuple(calls), program.outputs), changed


def changes(
    engine: Engine,
    program: Program,
    values: Values,
    ask: Ask,
    key: str,
    entry: int | slice,
    rng: np.random.Generator,
    epsilons: float = 1.0,
    draws: int = DRAWS,
) -> Array:
    """By how much an entry, or the most of some, of an answer moves in each of so many draws.

    Draws that make it not finite are left out, and all where it cannot be asked.
    """
    found = []
    try:
        base = ask(program, values)[key]
        for _ in range(draws):
            other = ask(*moved(engine, program, values, rng, epsilons))[key]
            if base is None or other is None or base.shape != other.shape:
                return np.zeros(0)
            with np.errstate(invalid="ignore"):
                found.append(np.max(np.abs(flat(other)[entry] - flat(base)[entry])))
    except (EngineError, Unsupported, ProgramError):
        return np.zeros(0)
    changed: Array = np.asarray(found)
    return np.extract(np.isfinite(changed), changed)
