"""Other tools on the battery: a numerical derivative with or without an error estimate, and what
those that check a claimed derivative say of a right one and of wrong ones.

Each is given the same function by NumPy at the same number, with its own defaults. numdifftools
and JAX are optional (`pip install 'refgrad-conformance[peers]'`).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance.selftest.battery import Known
from conformance.selftest.measured import CLAIMS, Found, Measured

Point = tuple[Known, float, float]  # a function, where, and its derivative there
Check = Callable[[Known, float, float], bool]  # whether a claimed derivative passes
Estimator = Callable[[Known, float], tuple[float, float]]  # derivative and error estimate

NOT_INSTALLED = "not installed"
JAX = "jax check_grads"
GRADCHECK_STEP = 1e-6  # its `eps`
JAX_STEP = 1e-4  # that of check_grads


def measure(points: Sequence[Point]) -> list[Measured]:
    """All tools at the same points."""
    return [
        _checked("gradcheck", gradcheck(fast=False), GRADCHECK_STEP, points),
        _checked("gradcheck, fast", gradcheck(fast=True), GRADCHECK_STEP, points),
        _estimated("scipy.differentiate", by_scipy, points),
        _optional(
            "numdifftools",
            "numdifftools",
            lambda: _estimated("numdifftools", by_numdifftools(), points),
        ),
        _optional("jax", JAX, lambda: _checked(JAX, by_jax(), JAX_STEP, points)),
    ]


def _optional(module: str, tool: str, make: Callable[[], Measured]) -> Measured:
    if importlib.util.find_spec(module) is None:
        return Measured(tool, missing=NOT_INSTALLED)
    return make()


def _checked(tool: str, check: Check, step: float, points: Sequence[Point]) -> Measured:
    """What a checker says of claims; beside it the error of the difference that it rests on."""
    made = Measured(tool)
    for known, x, truth in points:
        with np.errstate(all="ignore"):
            sides = [float(known(np.float64(x + s))) for s in (step, -step)]
            value = (sides[0] - sides[1]) / (2 * step)
        made.found.append(Found(known.kind, known.name, truth, value))
        if not truth:
            continue
        began = time.process_time()
        for name, wrong in CLAIMS.items():
            made.claim(name, check(known, x, truth * (1 + wrong)))
            made.calls += 1
        made.seconds += time.process_time() - began
    return made


def _estimated(tool: str, estimate: Estimator, points: Sequence[Point]) -> Measured:
    made = Measured(tool)
    for known, x, truth in points:
        began = time.process_time()
        with np.errstate(all="ignore"):
            value, bound = estimate(known, x)
        made.seconds += time.process_time() - began
        made.calls += 1
        bound = bound if np.isfinite(bound) else float("inf")  # it says that it does not know
        made.found.append(Found(known.kind, known.name, truth, value, bound))
    made.judge()
    return made


def gradcheck(*, fast: bool) -> Check:
    """torch.autograd.gradcheck on a custom Function whose backward pass claims the derivative."""
    import torch

    class Claimed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, known: Known, slope: float) -> torch.Tensor:
            ctx.slope = slope
            with np.errstate(all="ignore"):
                return torch.as_tensor(known(np.float64(x.item())), dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None]:
            return g * ctx.slope, None, None

    def check(known: Known, x: float, slope: float) -> bool:
        at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        apply: Callable[..., Any] = Claimed.apply
        return torch.autograd.gradcheck(
            lambda t: apply(t, known, slope), (at,), fast_mode=fast, raise_exception=False
        )

    return check


def by_scipy(known: Known, x: float) -> tuple[float, float]:
    """scipy.differentiate.derivative with its error estimate."""
    from scipy.differentiate import derivative

    found = derivative(known, np.float64(x))
    return float(found.df), float(found.error)


def by_numdifftools() -> Estimator:
    """numdifftools.Derivative with its error estimate."""
    import numdifftools

    def estimate(known: Known, x: float) -> tuple[float, float]:
        found = numdifftools.Derivative(known, full_output=True)(x)
        return float(found[0]), float(found[1])

    return estimate


def by_jax() -> Check:
    """jax.test_util.check_grads, both modes, on a function whose jvp claims the derivative."""
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)

    def check(known: Known, x: float, slope: float) -> bool:
        def function(t: Any) -> Any:
            with np.errstate(all="ignore"):
                return jnp.asarray(known(np.asarray(t)))

        def jvp(primals: Any, tangents: Any) -> Any:
            return claimed(*primals), slope * tangents[0]

        claimed = jax.custom_jvp(function)
        claimed.defjvp(jvp)
        try:
            check_grads(claimed, (x,), order=1)
        except AssertionError:
            return False
        return True

    return check
