"""Rounding in float32 that adds up over the steps of a loop is no fault; a wrong rule still is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance import checks
from conformance.checks.base import Finding
from conformance.checks.narrow import NarrowCheck
from conformance.engines.base import Engine, Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.program import Program
from conformance.settings import Settings
from conformance.sources.base import Sample
from conformance.sources.captured import capture


def sinkhorn(cost: torch.Tensor, steps: int) -> torch.Tensor:
    """Transport between uniform weights; the scale of u is free, and rounding of it stays."""
    a, b = torch.full((3,), 1 / 3, dtype=cost.dtype), torch.full((4,), 0.25, dtype=cost.dtype)
    kernel = torch.exp(-cost / 0.05)
    scaled = (1 / a)[:, None] * kernel
    u = torch.full_like(a, 1 / 3)
    for _ in range(steps):
        v = b / (kernel.mT @ u)
        u = 1.0 / (scaled @ v)
    return (cost * (u[:, None] * kernel * v)).sum()


class Off(TorchEngine):
    """torch, with gradients in float32 that are off by a factor."""

    def vjp(self, program: Program, *args: Any, **kwargs: Any) -> Vjp:
        found = super().vjp(program, *args, **kwargs)
        if any(leaf.dtype == "float32" for leaf in program.leaves):
            for gradient in found.gradients.values():
                if gradient is not None:
                    gradient *= np.float32(1 + 3e-4)
        return found


def narrow(engine: Engine, steps: int) -> Finding:
    torch.manual_seed(0)
    cost = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    made = capture(lambda cost: sinkhorn(cost, steps), (cost,))
    context = checks.context_for(Settings(standalone=0), engine, RefgradEngine())
    (finding,) = NarrowCheck().run(context.case(Sample("loop", made.program, made.values), "user"))
    return finding


def test_what_rounding_adds_up_to_in_a_loop_is_no_fault() -> None:
    found = narrow(TorchEngine(), 150)
    assert found.outcome == "precision", found.evidence
    assert found.evidence["verdict"].startswith("precision: rounding in float32 on the way may")


@pytest.mark.parametrize("steps", [1, 60])
def test_a_factor_in_float32_is_wrong_in_a_loop_too(steps: int) -> None:
    assert narrow(Off(), steps).outcome == "failed"
