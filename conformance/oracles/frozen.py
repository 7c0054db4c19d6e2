"""A Program whose derivative is what autograd is meant to give.

Autograd does not differentiate through `detach`, through calls under no_grad, through a gradient
that was taken without create_graph, or into the padding row of an embedding: by design its gradient
is not the derivative of what is computed. Here those results become constants, with the values that
they had, so that a numerical derivative compares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.engines.base import Engine
from conformance.errors import Unsupported
from conformance.program import Array, Call, Input, Program, Ref, Values, map_refs
from conformance.writes import sharing, touched, writes

_DETACHING = ("torch.detach", "torch.Tensor.detach", "torch.Tensor.data.__get__")
_EMBEDDING = "torch.nn.functional.embedding"


def frozen(engine: Engine, program: Program, values: Values) -> tuple[Program, Values]:
    """The Program with stopped gradients as constants; itself where nothing stops.

    `engine` says what the values are. Raises Unsupported where a call writes in place without
    gradient, which no constant can stand for.
    """
    program = _steadied(program)
    differentiable = {leaf.name for leaf in program.leaves}
    above = sharing(program)
    stopped: list[Call] = []
    padded: list[Call] = []
    for call in program.calls:
        if not any(r.name in differentiable for r in call.refs):
            continue
        if not call.grad or call.target in _DETACHING or _first_order(call):
            if call.in_place:
                raise Unsupported("a write in place without gradient has no numerical derivative")
            stopped.append(call)
            continue
        differentiable |= {call.name} | touched(above, call)
        if call.target == _EMBEDDING and _padding(call) is not None:
            padded.append(call)
    if not stopped and not padded:
        return program, values
    written, made = writes(program), {c.name: at for at, c in enumerate(program.calls)}
    if any(written.get(c.name, -1) > made[c.name] for c in stopped):
        raise Unsupported("writes in place beside detached tensors have no numerical derivative")
    names = {c.name for c in stopped}
    weights = {w.name for c in padded if isinstance(w := _weight(c), Ref)}
    kept = engine.run(program, values, keep=names | weights).kept
    return _with_constants(program, values, kept, names, {c.name for c in padded})


def held(
    engine: Engine, program: Program, values: Values, names: Collection[str]
) -> tuple[Program, Values]:
    """The Program with constants for the results of some calls, as the engine has them."""
    return _with_constants(program, values, engine.run(program, values, keep=names).kept, names)


def _with_constants(
    program: Program,
    values: Values,
    kept: Mapping[str, tuple[Array, ...]],
    names: Collection[str],
    padded: Collection[str] = (),
) -> tuple[Program, Values]:
    inputs, made = list(program.inputs), dict(values)
    constants: dict[Ref, Ref] = {}
    for name in sorted(names):
        for number, array in enumerate(kept[name]):
            constants[Ref(name, (number,))] = _constant(inputs, made, array)
        if len(kept[name]) == 1:
            constants[Ref(name)] = constants[Ref(name, (0,))]

    def constant(ref: Ref) -> Ref:
        if ref.name in names and ref not in constants:
            raise Unsupported("a part of a constant result that is no tensor of its own")
        return constants.get(ref, ref)

    calls: list[Call] = []
    for call in program.calls:
        if call.name in names:
            continue
        args, kwargs = map_refs(constant, (call.args, call.kwargs))
        call = replace(call, args=args, kwargs=kwargs)
        if call.name in padded:
            calls += _without_padding(call, inputs, made, kept)
        else:
            calls.append(call)
    outputs = map_refs(constant, program.outputs)
    return Program(tuple(inputs), tuple(calls), outputs), made


def forward_goes_on(program: Program) -> bool:
    """Whether forward mode differentiates by design what reverse mode does not: under no_grad."""
    return any(
        not call.grad
        or _first_order(call)
        or (call.opaque is not None and getattr(call.opaque, "in_reverse_alone", False))
        for call in program.calls
    )


def _steadied(program: Program) -> Program:
    """The same with black boxes that hold constant what they compute without gradient."""
    steady = {c.name: getattr(c.opaque, "steady", None) for c in program.calls if c.opaque}
    if not any(steady.values()):
        return program
    calls = []
    for call in program.calls:
        held = steady.get(call.name)
        if held is not None:
            call = replace(call, opaque=held, through=held.through(call.through))
        calls.append(call)
    return replace(program, calls=tuple(calls))


def _first_order(call: Call) -> bool:
    """Whether it takes a gradient that is not to be differentiated again."""
    return call.target == "torch.autograd.grad" and not call.kwargs.get("create_graph")


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
