"""What an engine is: something that runs a Program and differentiates it, NumPy in and out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from conformance.program import Array, Program, Values

ALL: tuple[str, ...] = ("*",)
"""`keep=ALL`: keep every call."""

Flat = tuple[Array | None, ...]


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; `orders` of derivative, `modes` of "reverse" and "forward"."""

    orders: tuple[int, ...]
    modes: tuple[str, ...]
    dtypes: tuple[str, ...]
    devices: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Run:
    """Flat outputs, and the flat results of the calls that were to be kept."""

    outputs: tuple[Array, ...]
    kept: dict[str, tuple[Array, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Vjp:
    """Flat outputs, a gradient for each leaf, and gradients of the kept calls' flat results.

    None is a gradient that did not arise: the outputs do not depend on that tensor.
    `differentiable` says of each output whether the engine differentiates it; () where it does not
    tell.
    """

    outputs: tuple[Array, ...]
    gradients: dict[str, Array | None]
    kept: dict[str, Flat] = field(default_factory=dict)
    differentiable: tuple[bool, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """The port that every engine implements; see `NamespaceEngine` for the common case.

    `standalone` claims that the engine needs no torch. Each method raises Unsupported where the
    engine lacks something, and EngineError where it fails.
    """

    name: str
    standalone: bool

    def describe(self) -> Capabilities:
        """What it can do here, now."""

    def missing(self, program: Program) -> tuple[str, ...]:
        """The targets of the Program that it lacks."""

    def run(self, program: Program, values: Values, *, keep: Collection[str] = ()) -> Run:
        """The outputs, without derivatives; `keep` names calls whose results are wanted."""

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        """The gradient of every leaf: one cotangent a flat output, None for zero."""

    def hvp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        tangents: Mapping[str, Array],
        route: str = "rr",
    ) -> dict[str, Array | None]:
        """The derivative of sum(vjp * tangents) for every leaf: the Hessian's product with t.

        The route is reverse over reverse, "fr" (forward over reverse) or "rf".
        """

    def curvature(
        self,
        program: Program,
        values: Values,
        tangents: Mapping[str, Array],
        others: Mapping[str, Array],
    ) -> tuple[Array | None, ...]:
        """Forward over forward: each flat output's second derivative along both directions."""

    def jvp(
        self, program: Program, values: Values, tangents: Mapping[str, Array]
    ) -> tuple[Array, ...]:
        """Forward mode: the tangent of each flat output; Unsupported without that mode."""
