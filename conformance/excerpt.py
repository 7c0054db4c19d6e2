"""One call cut out of a Program, with the values that it had there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from conformance.errors import ProgramError
from conformance.program import Array, Call, Input, Program, Ref, Values, layout, map_refs, refs
from conformance.writes import differentiable


def isolate(
    program: Program, call_name: str, all_values: Mapping[str, Array | tuple[Array, ...]]
) -> tuple[Program, Values]:
    """See `Program.isolate`."""
    call = next((c for c in program.calls if c.name == call_name), None)
    if call is None:
        raise ProgramError(f"no call is named {call_name!r}; see print(program)")
    reached = differentiable(program, call_name, all_values)
    known = {i.name: i for i in program.inputs}
    inputs: dict[Ref, Input] = {}
    values: Values = {}
    for ref in call.refs:
        if ref in inputs:
            continue
        name = f"x{len(inputs)}"
        if ref.name in known:
            array = np.asarray(all_values[ref.name])
            grad = array.dtype.kind in "fc" and ref.name in reached
            given = replace(known[ref.name], name=name, storage=None, offset=0)
            inputs[ref] = replace(given, requires_grad=grad or given.requires_grad)
            values[name] = array
            continue
        results = all_values[ref.name]
        flat = results if isinstance(results, tuple) else (results,)
        array = _element(flat, ref)
        floating = array.dtype.kind in "fc"
        grad = floating and ref.name in reached
        inputs[ref] = Input.of(name, array, requires_grad=grad)
        values[name] = array

    def rename(ref: Ref) -> Ref:
        return Ref(inputs[ref].name)

    args, kwargs = map_refs(rename, (call.args, call.kwargs))
    alone = replace(call, name="v0", args=args, kwargs=kwargs, grad=True)
    made = tuple(inputs.values())
    calls: tuple[Call, ...] = (alone,)
    outputs: Ref | tuple[Ref, ...]
    if alone.in_place:  # a leaf cannot be written into; its copy can
        calls, outputs = _cloned_first(alone, {i.name for i in made if i.requires_grad})
    else:
        paths = {r for c in program.calls for r in c.refs} | set(refs(program.outputs))
        used = sorted({r.path for r in paths if r.name == call_name and r.path}, key=repr)
        outputs = tuple(Ref("v0", p) for p in used) if used else Ref("v0")
    return Program(made, calls, outputs), layout(made, values)


def _cloned_first(call: Call, leaves: set[str]) -> tuple[tuple[Call, ...], Ref]:
    """An in-place call alone: leaves are cloned first, and what it writes into is returned."""
    clones: dict[str, Call] = {}
    for ref in call.refs:
        if ref.name in leaves and ref.name not in clones:
            clones[ref.name] = Call(f"v{len(clones)}", "torch.clone", (ref,))

    def clone(ref: Ref) -> Ref:
        return Ref(clones[ref.name].name) if ref.name in clones else ref

    args, kwargs = map_refs(clone, (call.args, call.kwargs))
    alone = replace(call, name=f"v{len(clones)}", args=args, kwargs=kwargs)
    written = next(refs(kwargs.get("out", args)))
    return (*clones.values(), alone), written


def _element(flat: tuple[Array, ...], ref: Ref) -> Array:
    index = ref.path[0] if ref.path else 0
    if len(ref.path) > 1 or not isinstance(index, int) or not 0 <= index < len(flat):
        raise ProgramError(f"{ref} has no place among {len(flat)} flat results")
    return np.asarray(flat[index])
