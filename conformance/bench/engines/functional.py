"""Engines whose gradients are functions: JAX and HIPS autograd. `vjp` is what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.bench.compiled import compile_program
from conformance.bench.engine import cotangent
from conformance.bench.engines.found import expressing, plain
from conformance.bench.workload import Workload
from conformance.errors import Unsupported
from conformance.program import Array

Function = Callable[..., Any]
Vjp = Callable[[Function, Sequence[Any]], tuple[Any, Callable[[Any], Sequence[Any]]]]


@dataclass(frozen=True)
class Problem:
    """A function of the leaves, once the constants are given; and what its backward starts from."""

    bound: Callable[[dict[str, Any]], Function]
    constants: dict[str, Any]
    leaves: dict[str, Any]
    seed: Any


class Functional:
    """`vjp(function, leaves)` gives the value, and a function that takes the cotangent back."""

    compile_seconds: float | None = None

    def __init__(self, problem: Problem, vjp: Vjp, wait: Function) -> None:
        self._function = problem.bound(problem.constants)
        self._names = tuple(problem.leaves)
        self._leaves = tuple(problem.leaves.values())
        self._seed = problem.seed
        self._vjp = vjp
        self._wait = wait
        self._value: Any = None
        self._found: Sequence[Any] = ()

    def forward(self) -> Any:
        """The function back."""
        self._value, back = self._vjp(self._function, self._leaves)
        return back

    def backward(self, made: Any) -> None:
        """The cotangent, taken back."""
        self._found = made(self._seed)

    def accumulate(self, made: Any) -> None:
        """Unsupported: a gradient is returned, and there is nothing that it adds to."""
        raise Unsupported("gradients are returned, and add to nothing")

    def step(self) -> Any:
        """There and back."""
        self.backward(self.forward())
        return self._value

    def clear(self) -> None:
        """Let value and gradients go."""
        self._value, self._found = None, ()

    def gradients(self) -> dict[str, Array]:
        """What came back, on the host."""
        return {name: np.asarray(g) for name, g in zip(self._names, self._found)}

    def synchronize(self) -> None:
        """Wait for the value and the gradients."""
        self._wait((self._value, self._found))


def problem(
    workload: Workload,
    size: int,
    table: dict[str, Function],
    place: Callable[[Array], Any],
    vjp: Vjp,
) -> Problem:
    """The workload in the words of a table, its arrays placed.

    At order 2 the function is the squared norm of the gradient. Raises Unsupported for what the
    table has not, for create_graph and for a check.
    """
    plain(workload, order=2)
    program, values = workload.make(size)
    compiled = compile_program(program, looked_up(table), methods=False).function
    leaves = {i.name: place(values[i.name]) for i in program.leaves}
    constants = {n: place(value) for n, value in values.items() if n not in leaves}
    with expressing():
        output = compiled(**constants, **leaves)
    weights = cotangent(tuple(output.shape), workload.dtype)
    one = place(np.ones((), workload.dtype))
    seed = one if weights is None else place(weights)

    def bound(constants: dict[str, Any]) -> Function:
        return lambda *given: compiled(**constants, **dict(zip(leaves, given)))

    def squared(constants: dict[str, Any]) -> Function:
        def norm(*given: Any) -> Any:
            _, back = vjp(bound(constants), given)
            return sum((g * g).sum() for g in back(seed))

        return norm

    if workload.order == 2:
        return Problem(squared, constants, leaves, one)
    return Problem(bound, constants, leaves, seed)


def looked_up(table: dict[str, Function]) -> Callable[[str], Any]:
    """The table as `compile_program` asks for names."""

    def resolve(path: str) -> Any:
        if path not in table:
            raise Unsupported(f"its map has no {path}", targets=(path,))
        return table[path]

    return resolve
