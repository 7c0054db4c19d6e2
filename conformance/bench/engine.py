"""What an engine of the benchmark is: it prepares a workload, and runs its phases alone."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from conformance.bench.workload import Workload
from conformance.errors import Unsupported
from conformance.program import Array


class Prepared(Protocol):
    """One workload at one size, compiled and placed on a device, ready to be timed.

    No method but `clear` clears gradients: the caller calls `clear()` before `backward` or `step`,
    outside of what it times, to have a first gradient (into None); without it they accumulate.
    What `forward` made serves one backward.
    """

    compile_seconds: float | None
    """The first call of a compiled engine, which is not part of any later one; None elsewhere."""

    def forward(self) -> Any:
        """Run the forward and record the graph; what backward needs."""

    def backward(self, made: Any) -> None:
        """The backward pass alone; Unsupported where an engine cannot run it apart."""

    def accumulate(self, made: Any) -> None:
        """The backward pass into gradients that are there; Unsupported where nothing adds up."""

    def step(self) -> Any:
        """Forward and backward as a user would call them; with jit, one compiled call."""

    def clear(self) -> None:
        """Set the gradients to None."""

    def gradients(self) -> dict[str, Array]:
        """After `step` or `backward`: the gradients by leaf name, on the host.

        A leaf that the output does not depend on may be left out.
        """

    def synchronize(self) -> None:
        """Wait until the device, or an asynchronous dispatch, is done."""


class Engine(Protocol):
    """An engine by name. Nothing is imported before `available`, `versions` or `prepare`."""

    name: str

    def available(self, device: str) -> str | None:
        """None if it can run here on "cpu" or "cuda"; else the reason in words."""

    def versions(self) -> dict[str, str]:
        """The packages that do the work, with their versions."""

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """Compile the workload and place its arrays; raises Unsupported with the reason."""


def cotangent(shape: tuple[int, ...], dtype: str) -> Array | None:
    """What the backward pass of an output starts from: fixed Gaussian numbers, None for a scalar.

    The same for every engine, so that their gradients can be compared.
    """
    if not shape:
        return None
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


_TOLERANCE = {"float32": 1e-3, "float64": 1e-8}


def agree(prepared: Prepared, reference: dict[str, Array], dtype: str) -> str | None:
    """None if one step gives the reference's gradients, else what is wrong in words.

    A leaf's entries may differ by 1e-3 (float32) or 1e-8 (float64) of its largest one, and by eight
    epsilons of the largest of all: a gradient that is zero but for rounding (a bias before a
    softmax) has no scale of its own. One that is left out counts as zero; one of another shape is
    wrong. Runs `clear` and `step`.
    """
    prepared.clear()
    prepared.step()
    prepared.synchronize()
    found = prepared.gradients()
    prepared.clear()
    largest = max((float(np.abs(g).max(initial=0.0)) for g in reference.values()), default=0.0)
    rounding = 8 * float(np.finfo(dtype).eps) * largest
    for name, expected in reference.items():
        got = found.get(name)
        if got is None:
            got = np.zeros_like(expected)
        if got.shape != expected.shape:
            return f"the gradient of {name} has shape {got.shape}, not {expected.shape}"
        scale = float(np.abs(expected).max(initial=0.0))
        error = float(np.abs(got - expected).max(initial=0.0))
        if not error <= _TOLERANCE[dtype] * scale + rounding:
            return f"the gradient of {name} is off by {error:.3g}, where its largest is {scale:.3g}"
    extra = sorted(set(found) - set(reference))
    return f"gradients that the reference has not: {', '.join(extra)}" if extra else None


__all__ = ["Engine", "Prepared", "Unsupported", "agree", "cotangent"]
