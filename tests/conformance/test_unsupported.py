"""What PyTorch itself lacks is unsupported, and no fault of the function that uses it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conformance import check_gradients


@pytest.mark.parametrize("order", [1.0, 2.0, float("inf")])
def test_forward_mode_of_a_total_norm(order: float) -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x / torch.nn.utils.get_total_norm([x * 2, x.sum()], order)

    report = check_gradients(scaled, x)
    (found,) = (r for r in report.results if r.check == "jvp")
    assert found.outcome == "unsupported"
    assert "torch._foreach_norm" in found.evidence["reason"]
    assert report.ok, str(report)


def test_a_tangent_of_another_size_that_a_function_returns_is_its_fault() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x: torch.Tensor) -> torch.Tensor:
            return x.square().sum()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * 2 * ctx.saved_tensors[0]

        @staticmethod
        def jvp(ctx: Any, t: torch.Tensor) -> torch.Tensor:
            return t * 2 * ctx.saved_tensors[0]  # not summed

    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    report = check_gradients(Square.apply, x)
    (found,) = (r for r in report.results if r.check == "jvp")
    assert found.outcome in ("errored", "failed"), found.evidence
