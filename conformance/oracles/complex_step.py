"""Derivatives by the complex step: through refgrad's forward, without rules, or its backward pass.

Im f(x + iht) / h is f's derivative along t to rounding, for h so small that h^2 vanishes. Complex
leaves take the step in bicomplex numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.engines.namespace import dtype_name
from conformance.engines.refgrad import RefgradEngine
from conformance.errors import Unsupported
from conformance.oracles.bicomplex_array import BicomplexArray
from conformance.oracles.bicomplex_functions import Moving
from conformance.oracles.complex_array import ComplexArray, Trace
from conformance.oracles.pairs import FAINT
from conformance.program import Array, Program, Values, layout
from refgrad.tensor import wrap

STEP = np.float64(1e-170)  # its square is 0: an exact 0 times another stays one, and is a tie;
# no Python number, which would be 0 beside tangents in single precision


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
            if moves or (array.dtype.kind in "fc" and i.storage is None):
                step = STEP * self.tangents[i.name] if moves else 0.0
                tensors[i.name] = wrap(self._at(array, step, i.dtype))
            else:
                tensors[i.name] = self.to_tensor(array, i.dtype)
            if grad and i.requires_grad:
                tensors[i.name].requires_grad_()
        return tensors

    def _at(self, value: Array, step: Any, dtype: str) -> ComplexArray:
        """An array that passes for one of real or of complex numbers, and moves."""
        if np.dtype(dtype).kind == "c":
            return BicomplexArray.of(Moving(value, step), self.trace, dtype)
        z = np.empty(value.shape, complex)
        z.real, z.imag = value, step
        return ComplexArray(z, self.trace, dtype)

    def seed(self, cotangent: Array, output: Any) -> Any:
        """It passes for real too: rules make zeros like a gradient, and write into them."""
        return wrap(self._at(cotangent, 0.0, dtype_name(output)))


def _split(tensor: Any) -> tuple[Array, Array | None]:
    """A result's values and how they move; None for an integer one."""
    array = tensor._array
    if isinstance(array, BicomplexArray):
        return array.value, array.slope / STEP
    if isinstance(array, ComplexArray):
        return np.array(array.z.real), array.z.imag / STEP
    return np.array(array), np.zeros_like(array) if array.dtype.kind in "fc" else None


class Step:
    """A Program at x + iht, t being `tangents` by leaf name: its forward pass is run once.

    With `grad` its first-order backward pass may follow. Raises Unsupported where refgrad or the
    complex step lacks something, EngineError where refgrad fails on the complex array.
    """

    def __init__(
        self, program: Program, values: Values, tangents: Mapping[str, Array], *, grad: bool = False
    ) -> None:
        self.program = program
        self.tangents = tangents
        self._trace = Trace()
        self._engine = engine = _ComplexStepEngine(tangents, self._trace)
        grad = grad or program.differentiates
        with np.errstate(all="ignore"), engine.failures():
            with nullcontext() if grad else engine.namespace.no_grad():
                self._inputs = engine.inputs(program, values, grad=grad)
                self._outputs = engine.execute(program, self._inputs, grad=grad)
            found = [_split(o) for o in self._outputs]
        moves, outputs = tuple(t for _, t in found), tuple(v for v, _ in found)
        self.directional = Directional(moves, outputs, self._trace.ties)

    def second(
        self, cotangents: Sequence[Array | None]
    ) -> tuple[dict[str, Array], dict[str, Array], int]:
        """For each leaf the Hessian of <cotangents, outputs> times t, and the gradient.

        Rules of first order are used, and none of a rule's own derivatives, so the product is as
        right as the gradient is. The third is how many ties were met.
        """
        leaves = self.program.leaves
        with np.errstate(all="ignore"), self._engine.failures():
            inputs = [self._inputs[i.name] for i in leaves]
            found = self._engine.grad(self._outputs, inputs, cotangents, create_graph=False)
            gradients, products = {}, {}
            for leaf, tensor in zip(leaves, found, strict=True):
                still = np.zeros(leaf.shape, np.result_type(leaf.dtype, np.float64))
                value, moves = (still, None) if tensor is None else _split(tensor)
                gradients[leaf.name], products[leaf.name] = value, still if moves is None else moves
        return products, gradients, self._trace.ties


__all__ = ["Directional", "Step"]
