"""Writes in place: which values may share memory, and what they hold when a call is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from conformance.engines.base import ALL, Engine
from conformance.program import Array, Call, Program, Ref, Values

Held = Mapping[str, Array | tuple[Array, ...]]

_VIEWS = frozenset((  # whose results may be views of what they are given
    "__getitem__", "adjoint", "as_strided", "atleast_1d", "atleast_2d", "atleast_3d",
    "broadcast_tensors", "broadcast_to", "chunk", "conj", "contiguous", "detach", "diagonal",
    "dropout", "expand", "expand_as", "flatten", "hsplit", "imag", "meshgrid", "moveaxis",
    "movedim", "narrow", "permute", "positive", "ravel", "real", "reshape", "reshape_as",
    "select", "split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split",
    "to", "transpose", "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
    "view_as_complex", "view_as_real", "vsplit", "dsplit", "H", "T", "mH", "mT",
))  # fmt: skip


def sharing(program: Program) -> dict[str, set[str]]:
    """By name the memory that it may lie in, by the names of what made this."""
    above: dict[str, set[str]] = {i.name: {i.storage or i.name} for i in program.inputs}
    for call in program.calls:
        view = call.target.rpartition(".")[2] in _VIEWS or call.opaque is not None
        shared = call.refs if view else [call.written] if call.written else []
        above[call.name] = {call.name}.union(*(above[r.name] for r in shared))
    return above


def writes(program: Program) -> dict[str, int]:
    """By name the number of the last call that writes into what may be the same memory."""
    above = sharing(program)
    last: dict[str, int] = {}
    for at, call in enumerate(program.calls):
        if call.in_place:
            last |= {name: at for name, own in above.items() if own & above[call.name]}
    return last


def differentiable(program: Program, until: str, known: Held) -> set[str]:
    """The names that a gradient has reached when the call `until` is made.

    A write in place hands it to all that shares memory; a result that is no floating number, by
    `known`, to nothing.
    """

    def carries(ref: Ref) -> bool:
        results = known.get(ref.name, ())
        flat = results if isinstance(results, tuple) else (results,)
        at = ref.path[0] if ref.path else 0
        one = flat[at] if isinstance(at, int) and 0 <= at < len(flat) else None
        return ref.name in names and (one is None or one.dtype.kind in "fc")

    names = {i.name for i in program.leaves}
    above = sharing(program)
    for call in program.calls:
        if call.name == until:
            break
        name = call.target.rpartition(".")[2]
        stops = not call.grad or name in ("detach", "detach_")
        if not stops and any(map(carries, call.refs)):
            names.add(call.name)
            if call.in_place:
                names |= {n for n, own in above.items() if own & above[call.name]}
    return names


def held(
    engine: Engine, program: Program, values: Values, call: Call, known: Held | None = None
) -> dict[str, Array | tuple[Array, ...]]:
    """All values as they are when `call` is made, by its engine.

    `known` has them as they were made, where that is known: only what was written into since is
    then computed again. Raises what the engine's `run` does.
    """
    at = [c.name for c in program.calls].index(call.name)
    short = replace(program, calls=program.calls[:at], outputs=())
    if known is None:
        known = {**values, **engine.run(short, values, keep=ALL).kept}
    found = dict(known)
    written = set[str]()
    above = sharing(program)
    for c in short.calls:
        written |= above[c.name] if c.in_place else set()
    stale = [ref for ref in dict.fromkeys(call.refs) if above[ref.name] & written]
    if not stale:
        return found
    arrays = engine.run(replace(short, outputs=tuple(stale)), values).outputs
    for ref, array in zip(stale, arrays, strict=True):
        before = found[ref.name]
        index = ref.path[0] if ref.path else 0
        if isinstance(before, tuple) and isinstance(index, int):
            found[ref.name] = (*before[:index], np.asarray(array), *before[index + 1 :])
        else:
            found[ref.name] = np.asarray(array)
    return found
