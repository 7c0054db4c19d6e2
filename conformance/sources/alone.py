"""The calls of a Program, each alone, with the values that it had in the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.engines.base import ALL
from conformance.program import OPAQUE, Call, Input, Program, Ref, Values, map_refs
from conformance.sources.base import Sample
from conformance.writes import held

_UNINITIALISED = frozenset((
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
))  # fmt: skip


def calls_alone(
    program: Program, values: Values, label: str, device: str = "cpu"
) -> Iterator[Sample]:
    """Each distinct call of a Program, with the values it had when torch ran it on that device.

    Distinct: by target, arguments, and the dtypes, shapes and strides of the tensors. A call whose
    result is whatever its memory held has nothing to be judged by.
    """
    from conformance.engines.torch import TorchEngine  # heavy: it imports torch

    engine = TorchEngine(device)
    kept = engine.run(program, values, keep=ALL).kept
    known: dict[str, Any] = {**values, **kept}
    seen: set[str] = set()
    for call in program.calls:
        if call.target.rpartition(".")[2] in _UNINITIALISED:
            continue
        alone, inputs = program.isolate(call.name, held(engine, program, values, call, known))
        key = _kind(alone)
        if key not in seen:
            seen.add(key)
            yield Sample(call.target.removeprefix(OPAQUE), alone, inputs, f"{label} {call.name}")


def _kind(program: Program) -> str:
    described = {i.name: _describe(i) for i in program.inputs}

    def describe(ref: Ref) -> str:
        return described.get(ref.name, ref.name)

    def text(call: Call) -> str:
        return f"{call.target} {map_refs(describe, (call.args, call.kwargs))!r}"

    return "; ".join(text(call) for call in program.calls)


def _describe(i: Input) -> str:
    return f"{i.dtype}{i.shape}{i.strides}{i.requires_grad}"
