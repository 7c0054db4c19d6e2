"""What is timed: a family of Programs, one for each size, with what each costs by formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from conformance.program import Array, Call, Input, Program, Ref, Values

Phase = Literal["forward", "backward", "step"]
Made = tuple[Program, Values]


@dataclass(frozen=True)
class Cost:
    """What one size costs: nodes of the graph, floating-point operations, bytes moved.

    Flops are multiplications and additions counted apart, and one for an elementary function.
    Bytes are what an engine moves that fuses nothing and keeps nothing in cache: a call reads each
    operand once and writes its result once; its derivative reads the cotangent and what it saved,
    and writes each gradient. An engine that fuses calls moves less, so its GB/s is an effective
    rate and may pass the roof.
    """

    nodes: int
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int


@dataclass(frozen=True)
class Workload:
    """A named family of Programs over a ladder of sizes.

    `make(size)` gives the Program and its values, the same each time; the Program returns one
    tensor. `size_means` says what is counted ("nodes", "floats", "rows and columns"). `quick` is
    the size for tests and a first look, `cuda_sizes` are worth a GPU, `extra_sizes` are run only
    where asked for. `order` 2 asks for the gradient of the squared norm of the gradient;
    `create_graph` for a first gradient that can be differentiated again; `check` for one gradient
    check of the harness in place of a gradient.
    """

    name: str
    group: str
    title: str
    make: Callable[[int], Made]
    cost: Callable[[int], Cost]
    sizes: tuple[int, ...]
    quick: int
    size_means: str
    dtype: str = "float32"
    order: int = 1
    create_graph: bool = False
    check: bool = False
    cuda_sizes: tuple[int, ...] = ()
    extra_sizes: tuple[int, ...] = ()
    tags: frozenset[str] = field(default_factory=frozenset)

    def nodes(self, size: int) -> int:
        """How many calls the forward records."""
        return self.cost(size).nodes

    def flops(self, size: int, phase: Phase = "step") -> int:
        """Floating-point operations of a phase; `step` is forward and backward."""
        cost = self.cost(size)
        return _of(phase, cost.forward_flops, cost.backward_flops)

    def bytes(self, size: int, phase: Phase = "step") -> int:
        """Bytes that a phase moves; `step` is forward and backward."""
        cost = self.cost(size)
        return _of(phase, cost.forward_bytes, cost.backward_bytes)


def _of(phase: Phase, forward: int, backward: int) -> int:
    return {"forward": forward, "backward": backward, "step": forward + backward}[phase]


class Writer:
    """Writes a Program call by call, with values drawn from a fixed seed.

    Names of calls are v0, v1, ... in order. Values are standard normal numbers times `scale`.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._rng = np.random.default_rng(0)
        self._inputs: list[Input] = []
        self._values: Values = {}
        self._calls: list[Call] = []

    def leaf(self, name: str, *shape: int, scale: float = 1.0) -> Ref:
        """An input that requires grad."""
        return self.given(name, self.normal(*shape) * scale, requires_grad=True)

    def constant(self, name: str, *shape: int, scale: float = 1.0) -> Ref:
        """A floating input that requires no grad."""
        return self.given(name, self.normal(*shape) * scale)

    def indices(self, name: str, below: int, *shape: int) -> Ref:
        """An int64 input with numbers in [0, below)."""
        return self.given(name, self._rng.integers(0, below, shape))

    def given(self, name: str, array: Array, *, requires_grad: bool = False) -> Ref:
        """An input with these values; floating ones are cast to the Program's dtype."""
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        self._inputs.append(Input.of(name, array, requires_grad=requires_grad))
        self._values[name] = array
        return Ref(name)

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers, float64."""
        return np.asarray(self._rng.standard_normal(shape))

    def call(self, target: str, *args: Any, **kwargs: Any) -> Ref:
        """Append a call; `target` without "torch." in front."""
        name = f"v{len(self._calls)}"
        self._calls.append(Call(name, f"torch.{target}", args, kwargs))
        return Ref(name)

    def program(self, output: Ref) -> Made:
        """The Program that returns `output`, and its values."""
        return Program(tuple(self._inputs), tuple(self._calls), output), self._values
