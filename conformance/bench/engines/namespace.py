"""Engines with torch's own surface: torch and refgrad, prepared in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from conformance.bench.compiled import compile_program
from conformance.bench.engine import cotangent
from conformance.bench.workload import Workload
from conformance.engines.namespace import resolve
from conformance.errors import Unsupported
from conformance.program import Array, Program, Values, layout


class Eager:
    """A workload in tensors of `namespace`: `backward` is the tensor's own method."""

    compile_seconds: float | None = None

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        leaves: dict[str, Any],
        seed: Any,
        synchronize: Callable[[], None],
    ) -> None:
        self.synchronize = synchronize
        self._function = function
        self._inputs = tuple(inputs)
        self._leaves = leaves
        self._seed = seed

    def forward(self) -> Any:
        """The output, with its graph."""
        return self._function(*self._inputs)

    def backward(self, made: Any) -> None:
        """`output.backward(cotangent)`, adding to the gradients that are there."""
        made.backward(self._seed)

    def accumulate(self, made: Any) -> None:
        """The same call; it adds where there are gradients."""
        made.backward(self._seed)

    def step(self) -> Any:
        """Forward and backward; the output."""
        made = self._function(*self._inputs)
        made.backward(self._seed)
        return made

    def clear(self) -> None:
        """Every leaf's grad to None."""
        for leaf in self._leaves.values():
            leaf.grad = None

    def gradients(self) -> dict[str, Array]:
        """The leaves' grads on the host."""
        grads = {name: leaf.grad for name, leaf in self._leaves.items()}
        return {name: g.detach().cpu().numpy() for name, g in grads.items() if g is not None}


class Differentiable(Eager):
    """The first gradient alone, with create_graph: it is kept apart, and no grad is written."""

    def __init__(self, grad: Callable[..., Any], *args: Any) -> None:
        super().__init__(*args)
        self._grad = grad
        self._found: Sequence[Any] = ()

    def backward(self, made: Any) -> None:
        """`grad(output, leaves, cotangent, create_graph=True)`"""
        leaves = list(self._leaves.values())
        self._found = self._grad(made, leaves, self._seed, create_graph=True)

    def accumulate(self, made: Any) -> None:
        """Unsupported: these gradients are returned, and add to nothing."""
        raise Unsupported("gradients with create_graph are returned, and add to nothing")

    def step(self) -> Any:
        """Forward and the differentiable gradient."""
        made = self.forward()
        self.backward(made)
        return made

    def clear(self) -> None:
        """Let the gradients go, and the graph with them."""
        self._found = ()

    def gradients(self) -> dict[str, Array]:
        """What `backward` found, on the host."""
        pairs = zip(self._leaves, self._found)
        return {name: g.detach().cpu().numpy() for name, g in pairs}


class Twice(Differentiable):
    """The gradient of the squared norm of the gradient; `backward` is both passes."""

    def backward(self, made: Any) -> None:
        """A differentiable gradient g, and the backward pass of sum(g * g)."""
        super().backward(made)
        norm: Any = sum((g * g).sum() for g in self._found)
        self._found = ()
        norm.backward()

    def accumulate(self, made: Any) -> None:
        """The same call; it adds where there are gradients."""
        self.backward(made)

    def clear(self) -> None:
        """Every leaf's grad to None."""
        Eager.clear(self)

    def gradients(self) -> dict[str, Array]:
        """The leaves' grads on the host."""
        return Eager.gradients(self)


def prepare(
    namespace: ModuleType | Any,
    workload: Workload,
    size: int,
    device: str,
    *,
    synchronize: Callable[[], None],
    compiler: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Eager:
    """The workload on a module that has torch's names; raises Unsupported for what it lacks.

    `compiler` wraps the function.
    """
    program, values = workload.make(size)

    def resolved(path: str) -> Any:
        if path == "torch.no_grad":
            return namespace.no_grad
        try:
            return resolve(namespace, path)
        except AttributeError as error:
            raise Unsupported(targets=(path,)) from error

    function = compile_program(program, resolved).function
    inputs = _placed(namespace, program, values, device)
    leaves = {i.name: t for i, t in zip(program.inputs, inputs) if i.requires_grad}
    with namespace.no_grad():
        shape = tuple(function(*inputs).shape)
    weights = cotangent(shape, workload.dtype)
    seed = None if weights is None else namespace.from_numpy(weights).to(device)
    if compiler is not None:
        function = compiler(function)
    args = (function, inputs, leaves, seed, synchronize)
    if workload.order == 2:
        return Twice(namespace.autograd.grad, *args)
    if workload.create_graph:
        return Differentiable(namespace.autograd.grad, *args)
    return Eager(*args)


def _placed(namespace: Any, program: Program, values: Values, device: str) -> list[Any]:
    """Tensors for the inputs on a device; the leaves require grad."""
    arrays = layout(program.inputs, values)
    placed = []
    for i in program.inputs:
        tensor = namespace.from_numpy(arrays[i.name]).to(device)
        placed.append(tensor.requires_grad_() if i.requires_grad else tensor)
    return placed
