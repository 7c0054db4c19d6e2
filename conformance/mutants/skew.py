"""A tensor of torch whose gradient passes through a wrong rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (gradient, operand) -> gradient


class _Skew(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rule: Rule) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.rule(g, *ctx.saved_tensors), None


def skewed(x: torch.Tensor, rule: Rule) -> torch.Tensor:
    """A copy of x; the gradient that reaches x through it is what the rule makes of the right."""
    made: torch.Tensor = _Skew.apply(x, rule)  # type: ignore[no-untyped-call]
    return made
