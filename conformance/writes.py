"""Writes in place: which values may share memory, and what they hold when a call is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def touched(above: Mapping[str, set[str]], call: Call) -> set[str]:
    """What shares memory, by `sharing`, with what a call writes into; nothing where it does not."""
    return {n for n, own in above.items() if own & above[call.name]} if call.in_place else set()


def writes(program: Program) -> dict[str, int]:
    """By name the number of the last call that writes into what may be the same memory."""
    above = sharing(program)
    last: dict[str, int] = {}
    for at, call in enumerate(program.calls):
        last |= dict.fromkeys(touched(above, call), at)
    return last


def _reads(call: Call, names: set[str]) -> bool:
    return any(ref.name in names for ref in call.refs)


def dependent(
    program: Program, hands_on: Callable[[Call, set[str]], bool] = _reads, until: str = ""
) -> set[str]:
    """The names that depend on a leaf when the call `until` is made, or at the end.

    `hands_on` says of a call whether it makes what depends on these names. A write in place makes
    all that shares its memory depend on them.
    """
    names = {i.name for i in program.leaves}
    above = sharing(program)
    for call in program.calls:
        if call.name == until:
            break
        if hands_on(call, names):
            names |= {call.name} | touched(above, call)
    return names


def differentiable(program: Program, until: str, known: Held) -> set[str]:
    """The names that a gradient has reached when the call `until` is made.

    It goes through no result that, by `known`, is no floating number.
    """

    def carries(ref: Ref) -> bool:
        results = known.get(ref.name, ())
        flat = results if isinstance(results, tuple) else (results,)
        at = ref.path[0] if ref.path else 0
        one = flat[at] if isinstance(at, int) and 0 <= at < len(flat) else None
        return one is None or one.dtype.kind in "fc"

    def hands_on(call: Call, names: set[str]) -> bool:
        detaches = call.target.rpartition(".")[2] in ("detach", "detach_")
        return call.grad and not detaches and any(r.name in names and carries(r) for r in call.refs)

    return dependent(program, hands_on, until)


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
