"""Invariants of tensors whose negative or conjugate bit is set: they hold the other number.

The gradient that comes through `.conj()` has the one, through `.conj().imag` the other; a kernel
that reads memory sees neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from conformance.checks.base import Case
from conformance.checks.claims import Claim, Invariant, outputs_of
from conformance.checks.invariants_vjp import movable
from conformance.engines.namespace import NamespaceEngine
from conformance.engines.variants import Recording
from conformance.oracles.torch_autograd import scale
from conformance.program import Array, Input


@dataclass(frozen=True)
class Bit:
    """`opposite` makes the number that memory has to hold, `view` the tensor with the bit.

    `kinds` are those of the dtypes on which it tells.
    """

    name: str
    kinds: str
    opposite: Callable[[Array], Any]
    view: Callable[[Any, Any], Any]

    def memory(self, array: Array) -> Array:
        """What memory has to hold, so that with the bit it is this."""
        return np.asarray(self.opposite(array))

    def concerns(self, array: Array | None) -> bool:
        """Whether the bit makes another number of what memory holds."""
        return array is not None and array.dtype.kind in self.kinds


NEGATED = Bit("negated", "fc", np.negative, lambda names, tensor: names._neg_view(tensor))
CONJUGATED = Bit("conjugated", "c", np.conj, lambda names, tensor: names.conj(tensor))


def cotangents(bit: Bit, case: Case) -> Iterator[Claim]:
    """Cotangents with the bit."""
    held = [None if c is None else bit.memory(c) for c in case.cotangents]
    graph = Recording(case.engine, case.program, case.values)
    with graph.failures():
        names = graph.engine.namespace
        pairs = [(y, bit.view(names, c)) for y, c in graph.weighed(held)]
    found = graph.arrays(graph.grad(pairs))
    yield Claim(found, case.engine_vjp.gradients, f"with cotangents that are lazily {bit.name}")


def inputs(bit: Bit, case: Case) -> Iterator[Claim]:
    """Inputs with the bit, but those that share memory or that are written into."""
    names = [i.name for i in _held(bit, case)]
    values = case.values | {n: bit.memory(case.values[n]) for n in names}
    engine = case.engine
    assert isinstance(engine, NamespaceEngine)
    with engine.failures():
        tensors = engine.inputs(case.program, values, grad=False)
        tensors |= {n: bit.view(engine.namespace, tensors[n]) for n in names}
        for i in case.program.leaves:
            tensors[i.name].requires_grad_()
    graph = Recording(engine, case.program, case.values, inputs=tensors)
    said = f"with inputs that are lazily {bit.name}"
    expected = outputs_of(case.engine_vjp)
    outputs = dict(zip(expected, graph.outputs, strict=True))
    size = max((scale(y) for y in expected.values() if y is not None), default=0.0)
    yield Claim(graph.arrays(outputs), expected, said, dict.fromkeys(expected, size))
    found = graph.arrays(graph.grad(graph.weighed(case.cotangents)))
    yield Claim(found, case.engine_vjp.gradients, said)


def _held(bit: Bit, case: Case) -> list[Input]:
    return [i for i in movable(case.program) if bit.concerns(case.values[i.name])]


def _has_bits(case: Case) -> bool:
    """Whether the engine's tensors have such bits."""
    engine = case.engine
    return isinstance(engine, NamespaceEngine) and hasattr(engine.namespace, "_neg_view")


def _cotangents(bit: Bit, *, may_refuse: bool) -> Invariant:
    return Invariant(
        f"{bit.name}_cotangents",
        f"lazily {bit.name} cotangents give what copies of them give",
        partial(cotangents, bit),
        lambda case: _has_bits(case) and any(map(bit.concerns, case.cotangents)),
        may_refuse=may_refuse,
        of_signs=bit is NEGATED,
    )


def _inputs(bit: Bit) -> Invariant:
    return Invariant(
        f"{bit.name}_inputs",
        f"lazily {bit.name} inputs give what copies of them give",
        partial(inputs, bit),
        lambda case: _has_bits(case) and bool(_held(bit, case)),
        may_refuse=True,
        of_signs=bit is NEGATED,
    )


INVARIANTS = (
    _cotangents(NEGATED, may_refuse=True),  # as NumPy does: a rule of real numbers seldom meets one
    _cotangents(CONJUGATED, may_refuse=False),
    _inputs(NEGATED),
    _inputs(CONJUGATED),
)
