"""Which classes of operands the calls of some Programs met: zeros, ties, empty tensors, layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from conformance.engines.base import ALL, Engine
from conformance.program import Array, Program, Ref, Values
from conformance.sources.values import BIG

CLASSES = (
    "zero",
    "tie",
    "big",
    "negative",
    "size-1",
    "rank 0",
    "rank 4+",
    "empty",
    "strided",
    "twice",
    "frozen",
)


def coverage(samples: Iterable[tuple[Program, Values]], engine: Engine) -> dict[str, Counter[str]]:
    """How many calls met each class, by target and class; the key "calls" counts all of them."""
    table: dict[str, Counter[str]] = {}
    for program, values in samples:
        kept = engine.run(program, values, keep=ALL).kept
        tensors = {**{name: (x,) for name, x in values.items()}, **kept}
        frozen = {i.name for i in program.inputs if not i.requires_grad}
        for call in program.calls:
            operands = [(ref, _element(tensors, ref)) for ref in call.refs]
            operands = [(ref, x) for ref, x in operands if x.dtype.kind == "f"]
            met = {name for _, x in operands for name in classes_of(x)}
            if len(operands) > len({ref for ref, _ in operands}):
                met.add("twice")
            if any(ref.name in frozen for ref, _ in operands):
                met.add("frozen")
            table.setdefault(call.target, Counter()).update({"calls", *met})
    return table


def _element(tensors: dict[str, tuple[Array, ...]], ref: Ref) -> Array:
    return tensors[ref.name][int(ref.path[0]) if ref.path else 0]


def classes_of(x: Array) -> Iterator[str]:
    """The classes that one floating array belongs to."""
    if not x.ndim:
        yield "rank 0"
    if x.ndim >= 4:
        yield "rank 4+"
    if 1 in x.shape:
        yield "size-1"
    if not x.flags.c_contiguous:
        yield "strided"
    if not x.size:
        yield "empty"
        return
    if (x == 0).any():
        yield "zero"
    if (x < 0).any():
        yield "negative"
    if np.abs(x).max() > BIG:
        yield "big"
    if len(np.unique(x)) < x.size:
        yield "tie"
