"""reentrant: a function that runs twice before its backward pass keeps its two runs apart.

A custom Function that keeps what it saves on the class, in a global or in a buffer that the next
call overwrites has right gradients in every test that calls it once, and wrong ones in a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from conformance import diagnosis
from conformance.checks.base import Case, Finding
from conformance.checks.compare import compare, measures
from conformance.errors import EngineError
from conformance.program import Call, Program, Ref, Values, map_refs

LATER = "_2"  # the suffix of the second run's names
NUDGE = 0.25  # how far the second run's values lie from the first's, in parts of each


class ReentrantCheck:
    """The Program beside itself at another point, in one graph."""

    name = "reentrant"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding: the first run's gradients, with the second between forward and backward."""
        program = case.program
        if not program.leaves or all(c is None for c in case.cotangents):
            return
        alone = case.engine_vjp
        if case.unsteady is not None:
            text = "two runs alone differ already: the function is not deterministic"
            yield Finding("inconclusive", {"reason": text})
            return
        silent = [None] * len(case.cotangents)
        try:
            both = case.engine.vjp(*twice(program, case.values), [*case.cotangents, *silent])
        except EngineError:  # the other point is outside the domain
            inward = twice(program, case.values, -NUDGE)
            try:
                both = case.engine.vjp(*inward, [*case.cotangents, *silent])
            except EngineError as error:
                text = f"the function refuses other values: {str(error).splitlines()[0]}"
                yield Finding("unsupported", {"reason": text})
                return
        compared = 0
        for leaf in program.leaves:
            found, expected = both.gradients.get(leaf.name), alone.gradients[leaf.name]
            compared += 0 if expected is None else expected.size
            difference = compare(found, expected, relative=case.relative(leaf.dtype))
            if difference is None:
                continue
            said = diagnosis.diagnose(found, expected, tuple(leaf.shape))
            evidence = measures(difference, leaf.dtype) if difference.index is not None else {}
            text = "a second call before the backward pass changes the first call's gradient"
            yield Finding(
                "failed",
                evidence
                | {"leaf": case.alias(leaf.name), "diagnosis": "not re-entrant"}
                | {"description": f"{text}: what the forward keeps is overwritten; {said.sentence}"}
                | {"verdict": f"engine wrong: {text}"},
            )
            return
        yield Finding("passed", {"compared": compared})


def twice(program: Program, values: Values, by: float = NUDGE) -> tuple[Program, Values]:
    """The Program and a second run of it with other leaves, as one Program; outputs in order."""
    rename = {i.name: i.name + LATER for i in program.inputs}
    rename |= {c.name: c.name + LATER for c in program.calls}

    def later(ref: Ref) -> Ref:
        return replace(ref, name=rename[ref.name])

    inputs, calls = list(program.inputs), list(program.calls)
    made = dict(values)
    for i in program.inputs:
        array = values[i.name]
        storage = None if i.storage is None else i.storage + LATER
        inputs.append(replace(i, name=rename[i.name], storage=storage))
        moves = i.requires_grad and i.storage is None
        made[rename[i.name]] = array * array.dtype.type(1 + by) if moves else array.copy()
    for call in program.calls:
        args, kwargs = map_refs(later, (call.args, call.kwargs))
        calls.append(_renamed(call, rename, args, kwargs))
    outputs = (program.outputs, map_refs(later, program.outputs))
    return Program(tuple(inputs), tuple(calls), outputs), made


def _renamed(call: Call, rename: dict[str, str], args: Any, kwargs: Any) -> Call:
    return replace(call, name=rename[call.name], args=args, kwargs=kwargs)
