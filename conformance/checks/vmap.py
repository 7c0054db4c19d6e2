"""vmap: a rule of the user's own for batches gives what one sample after the other gives.

`torch.func.vmap`, and with it per-sample gradients and Jacobians, runs the `vmap` method of an
autograd.Function, or what `register_vmap` was given, in place of the forward pass. Nothing else
does, so that a mistake in it shows nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from conformance import diagnosis
from conformance.checks.base import Case, Finding
from conformance.checks.claims import Claim, Gradients, other_cotangents
from conformance.checks.compare import measures
from conformance.engines.base import Vjp
from conformance.engines.namespace import NamespaceEngine
from conformance.errors import EngineError
from conformance.oracles.directional import moved
from conformance.oracles.pairs import direction
from conformance.oracles.torch_autograd import scale
from conformance.program import Array, Call, Values

NEARBY = 0.1  # how far the second sample of a batch lies from the first, in parts of it


class VmapCheck:
    """Batches of two, along the first axis of every leaf and along the last of each alone."""

    name = "vmap"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding; none where no call has a rule of its own."""
        engine, program = case.engine, case.program
        rules = {call.name for call in program.calls if own_vmap(call)}
        apart = all(i.storage is None for i in program.inputs)
        if not rules or not apart or not isinstance(engine, NamespaceEngine):
            return
        if not program.leaves or all(c is None for c in case.cotangents):
            return
        names = [i.name for i in program.leaves]
        batches = [(names, 0), *(([name], -1) for name in names)]
        compared = 0
        for batched, axis in batches:
            where = f"with {', '.join(map(case.alias, batched))} in a batch along axis {axis}"
            try:
                for claim in _claims(case, engine, batched, axis):
                    wrong = _wrong(case, claim, where)
                    if wrong is not None:
                        yield wrong
                        return
                    compared += claim.compared
            except EngineError as error:
                reason = str(error).partition("\n")[0]
                own = error.call in rules
                unsupported = Finding("unsupported", {"reason": f"under vmap: {reason}"})
                yield _failed({}, f"{where}: {reason}") if own else unsupported
                return
        yield Finding("passed", {"compared": compared})


def _wrong(case: Case, claim: Claim, where: str) -> Finding | None:
    """What differs most, where anything does."""
    worst = claim.worst(case)
    if worst is None:
        return None
    name, difference = worst
    found, expected = claim.found[name], claim.expected[name]
    given = next(g for g in (expected, found) if g is not None)
    said = diagnosis.diagnose(found, expected, given.shape).sentence
    if name.startswith("output "):
        said = said.replace("the gradient", "the value")
    evidence = measures(difference, given.dtype) if difference.index is not None else {}
    evidence["leaf"] = case.alias(name)
    return _failed(evidence, f"{claim.said}, {where}: {said}")


def _failed(evidence: dict[str, Any], said: str) -> Finding:
    verdict = "engine wrong: its rule for vmap does not give what a loop over the samples gives"
    told = {"diagnosis": "vmap rule", "description": said, "verdict": verdict}
    return Finding("failed", evidence | told)


def _claims(
    case: Case, engine: NamespaceEngine, batched: Collection[str], axis: int
) -> Iterator[Claim]:
    """The outputs and gradients of both samples, under vmap and without."""
    samples, cotangents = _two(case, batched)
    looped = [case.engine_vjp, engine.vjp(case.program, samples[1], cotangents[1])]
    outputs, gradients = _mapped(case, engine, samples, cotangents, batched, axis)
    largest = [max(_sizes(found), default=0.0) for found in looped]
    for number, (found, size) in enumerate(zip(looped, largest, strict=True)):
        expected: dict[str, Array | None] = {
            f"output {n}": y
            for n, (y, c) in enumerate(zip(found.outputs, case.cotangents, strict=True))
            if c is not None
        }
        mapped: Gradients = {name: outputs[name][number] for name in expected}
        yield Claim(mapped, expected, f"of sample {number}", dict.fromkeys(expected, size))
    for number, found in enumerate(looped):
        expected = {n: found.gradients[n] for n in batched}
        parts = {n: _part(gradients[n], number, axis) for n in batched}
        yield Claim(parts, expected, f"of sample {number}")
    shared = [n for n in gradients if n not in batched]
    if shared:
        totals = {n: _total([found.gradients[n] for found in looped]) for n in shared}
        terms = {
            n: sum(scale(g) for f in looped if (g := f.gradients[n]) is not None) for n in shared
        }
        yield Claim({n: gradients[n] for n in shared}, totals, "of what is not batched", terms)


def _two(case: Case, batched: Collection[str]) -> tuple[list[Values], list[list[Array | None]]]:
    """The case's values and others nearby; a cotangent for each output of both."""
    along = direction(case.rng("vmap"), case.program, case.values)
    near = moved(case.program, case.values, along, NEARBY)
    second = case.values | {n: near[n] for n in batched}
    return [case.values, second], [case.cotangents, other_cotangents(case, "vmap")]


def _mapped(
    case: Case,
    engine: NamespaceEngine,
    samples: list[Values],
    cotangents: list[list[Array | None]],
    batched: Collection[str],
    axis: int,
) -> tuple[dict[str, Array], dict[str, Array | None]]:
    """Outputs, and gradients of stacked leaves, by a backward pass through vmap."""
    program = case.program
    with engine.failures():
        tensors = engine.inputs(program, case.values, grad=True)
        for name in batched:
            stacked = np.stack([values[name] for values in samples], axis)
            dtype = next(i.dtype for i in program.leaves if i.name == name)
            tensors[name] = engine.to_tensor(stacked, dtype).requires_grad_()
        known = [n for n, c in enumerate(case.cotangents) if c is not None]

        def run(*each: Any) -> tuple[Any, ...]:
            outputs = engine.execute(program, tensors | dict(zip(batched, each, strict=True)))
            return tuple(outputs[n] for n in known)

        vmap = engine.namespace.func.vmap(run, in_dims=(axis,) * len(batched))
        outputs = vmap(*(tensors[name] for name in batched))
        seeds = []
        for n, output in zip(known, outputs, strict=True):
            stacked = np.stack([c[n] for c in cotangents])  # type: ignore[misc]
            if tuple(output.shape) != stacked.shape:
                text = f"output {n} of a batch has the shape {list(output.shape)}, not "
                rule = next(call.name for call in program.calls if own_vmap(call))
                raise EngineError(f"{text}{list(stacked.shape)}", call=rule)
            seeds.append(engine.seed(stacked, output))
        leaves = [i.name for i in program.leaves]
        found = engine.pulled_back(list(outputs), [tensors[n] for n in leaves], seeds)
        made = {f"output {n}": engine.to_numpy(y) for n, y in zip(known, outputs, strict=True)}
        arrays = (None if g is None else engine.to_numpy(g) for g in found)
        return made, dict(zip(leaves, arrays, strict=True))


def _sizes(found: Vjp) -> Iterator[float]:
    return (scale(y) for y in found.outputs if y.dtype.kind in "fc")


def _part(gradient: Array | None, number: int, axis: int) -> Array | None:
    return None if gradient is None else np.take(gradient, number, axis)


def _total(gradients: list[Array | None]) -> Array | None:
    known = [g for g in gradients if g is not None]
    return np.asarray(sum(known)) if known else None


def own_vmap(call: Call) -> bool:
    """Whether it has a rule for batches: an autograd.Function with one, a custom op with one."""
    if call.opaque is None:
        return False
    import torch

    from conformance.engines.torch import function_of

    custom = function_of(call)
    if custom is not None:
        return custom.generate_vmap_rule or custom.vmap is not torch.autograd.Function.vmap
    names = (getattr(call.own, key, None) for key in ("_qualified_op_name", "_name"))
    name = next((n for n in names if isinstance(n, str)), "")  # of a packet, of an overload
    return bool(name) and torch._C._dispatch_has_kernel_for_dispatch_key(name, "FuncTorchBatched")


__all__ = ["VmapCheck", "own_vmap"]
