"""Derivatives by the complex step: through refgrad's forward, without rules, or its backward pass.

Im f(x + iht) / h is f's derivative along t to rounding, for h so small that h^2 vanishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.engines.namespace import dtype_name
from conformance.engines.refgrad import RefgradEngine
from conformance.errors import Unsupported
from conformance.oracles.complex_array import ComplexArray, Trace
from conformance.oracles.pairs import FAINT
from conformance.program import Array, Program, Values, layout
from refgrad.tensor import wrap

STEP = 1e-170  # its square is 0: an exact 0 times another stays one, and is seen to be a tie


@dataclass(frozen=True)
class Directional:
    """The derivative of each flat output along one direction; None for an integer output.

    `ties` counts switches that were met exactly where they switch: with any, the derivative is one
    of several. `values` are the outputs themselves.
    """

    tangents: tuple[Array | None, ...]
    values: tuple[Array, ...]
    ties: int


class _ComplexStepEngine(RefgradEngine):
    """refgrad with leaves x + iht."""

    def __init__(self, tangents: Mapping[str, Array], trace: Trace) -> None:
        super().__init__()
        self.tangents = tangents
        self.trace = trace

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        if any(i.storage is not None and i.requires_grad for i in program.inputs):
            raise Unsupported("complex step: leaves that share memory")
        fresh = layout(program.inputs, values)
        tensors = {}
        for i in program.inputs:
            array = fresh[i.name]
            moves = i.requires_grad and i.name in self.tangents
            if moves and 0 < np.abs(self.tangents[i.name]).max(initial=0.0) < FAINT:
                raise Unsupported("complex step: the step vanishes beside values so near zero")
            if moves or (array.dtype.kind == "f" and i.storage is None):
                z = np.empty_like(array, dtype=complex)
                z.real, z.imag = array, STEP * self.tangents[i.name] if moves else 0.0
                tensors[i.name] = wrap(ComplexArray(z, self.trace, i.dtype))
            else:
                tensors[i.name] = self.to_tensor(array, i.dtype)
            if grad and i.requires_grad:
                tensors[i.name].requires_grad_()
        return tensors

    def seed(self, cotangent: Array, output: Any) -> Any:
        """Complex too: rules make zeros like a gradient, and write into them."""
        return wrap(ComplexArray(cotangent.astype(complex), self.trace, dtype_name(output)))

    def to_numpy(self, tensor: Any) -> Array:
        array = tensor._array
        return np.array(array.z if isinstance(array, ComplexArray) else array)


def directional(program: Program, values: Values, tangents: Mapping[str, Array]) -> Directional:
    """The derivative of the Program's outputs along `tangents` (by leaf name; real leaves alone).

    Raises Unsupported where refgrad or the complex step lacks something, EngineError where refgrad
    fails on the complex array.
    """
    _real(program)
    trace = Trace()
    engine = _ComplexStepEngine(tangents, trace)
    with np.errstate(all="ignore"):
        outputs = engine.run(program, values).outputs
    slopes: list[Array | None] = []
    for output in outputs:
        if output.dtype.kind == "c":
            slopes.append(output.imag / STEP)
        elif output.dtype.kind == "f":
            slopes.append(np.zeros(output.shape))
        else:
            slopes.append(None)
    return Directional(tuple(slopes), tuple(np.real(o) for o in outputs), trace.ties)


def second(
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> tuple[dict[str, Array], dict[str, Array], int]:
    """For each leaf the Hessian of <cotangents, outputs> times `tangents`, and the gradient.

    The first-order backward pass runs once, at x + iht: its rules are used, and none of a rule's
    own derivatives, so the product is as right as the gradient is. The third is how many ties were
    met. Raises as `directional` does.
    """
    _real(program)
    if any(c is not None and c.dtype.kind == "c" for c in cotangents):
        raise Unsupported("complex step: complex numbers among the outputs")
    trace = Trace()
    engine = _ComplexStepEngine(tangents, trace)
    with np.errstate(all="ignore"):
        found = engine.vjp(program, values, cotangents).gradients
    whole = {
        i.name: np.zeros(i.shape) if (g := found[i.name]) is None else g for i in program.leaves
    }
    products = {name: np.imag(g) / STEP for name, g in whole.items()}
    return products, {name: np.real(g) for name, g in whole.items()}, trace.ties


def _real(program: Program) -> None:
    for i in program.inputs:
        if np.dtype(i.dtype).kind == "c":
            raise Unsupported("complex step: complex numbers among the inputs")


__all__ = ["Directional", "directional", "second"]
