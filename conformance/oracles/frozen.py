"""A Program whose derivative is what autograd is meant to give.

Autograd does not differentiate through `detach`, through calls under no_grad, or into the padding
row of an embedding: by design its gradient is not the derivative of what is computed. Here those
results become constants, with the values that they had, so that a numerical derivative compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.engines.base import Engine
from conformance.errors import Unsupported
from conformance.program import Array, Call, Input, Program, Ref, Values, map_refs

_DETACHING = ("torch.detach", "torch.Tensor.detach", "torch.Tensor.data.__get__")
_EMBEDDING = "torch.nn.functional.embedding"


def frozen(engine: Engine, program: Program, values: Values) -> tuple[Program, Values]:
    """The Program with stopped gradients as constants; itself where nothing stops.

    `engine` says what the values are. Raises Unsupported where a call writes in place without
    gradient, which no constant can stand for.
    """
    differentiable = {leaf.name for leaf in program.leaves}
    stopped: list[Call] = []
    padded: list[Call] = []
    for call in program.calls:
        if not any(r.name in differentiable for r in call.refs):
            continue
        if not call.grad or call.target in _DETACHING:
            if call.in_place:
                raise Unsupported("a write in place without gradient has no numerical derivative")
            stopped.append(call)
            continue
        differentiable.add(call.name)
        if call.target == _EMBEDDING and _padding(call) is not None:
            padded.append(call)
    if not stopped and not padded:
        return program, values
    if stopped and any(c.in_place for c in program.calls):
        raise Unsupported("writes in place beside detached tensors have no numerical derivative")
    names = {c.name for c in stopped}
    weights = {w.name for c in padded if isinstance(w := _weight(c), Ref)}
    kept = engine.run(program, values, keep=names | weights).kept
    inputs, made = list(program.inputs), dict(values)
    constants: dict[str, Ref] = {}
    for name in names:
        flat = kept[name]
        if len(flat) != 1:
            raise Unsupported("a detached call with several results")
        constants[name] = _constant(inputs, made, flat[0])
    calls: list[Call] = []
    for call in program.calls:
        if call.name in names:
            continue
        args, kwargs = map_refs(lambda r: constants.get(r.name, r), (call.args, call.kwargs))
        call = replace(call, args=args, kwargs=kwargs)
        if any(call.name == p.name for p in padded):
            calls += _without_padding(call, inputs, made, kept)
        else:
            calls.append(call)
    outputs = map_refs(lambda r: constants.get(r.name, r), program.outputs)
    return Program(tuple(inputs), tuple(calls), outputs), made


def _padding(call: Call) -> int | None:
    """The padding row of an embedding call, where it has one."""
    found = call.args[2] if len(call.args) > 2 else call.kwargs.get("padding_idx")
    return found if isinstance(found, int) else None


def _constant(inputs: list[Input], values: Values, array: Array) -> Ref:
    name = f"k{sum(i.name.startswith('k') for i in inputs)}"
    inputs.append(Input.of(name, array, constant=True))
    values[name] = array
    return Ref(name)


def _weight(call: Call) -> Any:
    return call.args[1] if len(call.args) > 1 else call.kwargs.get("weight")


def _without_padding(
    call: Call,
    inputs: list[Input],
    values: Values,
    kept: Mapping[str, tuple[Array, ...]],
) -> list[Call]:
    """The same rows, with the padding row of the weight held constant."""
    weight, row = _weight(call), _padding(call)
    if not isinstance(weight, Ref) or weight.path or row is None:
        raise Unsupported("an embedding with a padding row of one of several results")
    array = values[weight.name] if weight.name in values else kept[weight.name][0]
    mask = np.zeros((len(array), 1), bool)
    mask[row] = True
    where = (_constant(inputs, values, mask), _constant(inputs, values, array.copy()), weight)
    fixed = Call(f"{call.name}_weight", "torch.where", where)
    kwargs = {k: v for k, v in call.kwargs.items() if k not in ("padding_idx", "weight")}
    return [
        fixed,
        replace(call, args=(call.args[0], Ref(fixed.name), None, *call.args[3:]), kwargs=kwargs),
    ]
