"""A kink at one entry hides nothing of the others, and nan at a kink is no slope of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conformance import check_gradients


def leaf(*values: float) -> torch.Tensor:
    """A vector that requires grad."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


class Relu(torch.autograd.Function):
    """relu, with a gradient of `factor` times the right one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.factor * g * (x > 0), None


class Shrink(torch.autograd.Function):
    """softshrink, whose backward pass forgets the negative branch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.softshrink(x, 0.5)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * (x > 0.5)


class Squared(torch.autograd.Function):
    """relu squared; `detached` loses its second derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, detached: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.detached = detached
        return x.relu() ** 2

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        slope = 2 * x.relu()
        return g * (slope.detach() if ctx.detached else slope), None


class Heaviside(torch.autograd.Function):
    """A step, with the slope 1 where it is 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        out = (x > 0).double()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (out,) = ctx.saved_tensors
        return g * out


class Root(torch.autograd.Function):
    """sqrt, with the gradient 0 at 0."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, g / (2 * x.sqrt()), 0.0)


class Norm(torch.autograd.Function):
    """The norms of rows; at a row of zeros 0 / 0."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.norm(dim=-1)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g[:, None] * x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("seed", range(4))
def test_one_zero_hides_no_factor(seed: int) -> None:
    report = check_gradients(lambda x: Relu.apply(x, 3.0), leaf(0.0, 1.0, 2.0, -1.0), seed=seed)
    assert report.failed
    assert "3 times the right one" in str(report)
    assert "moved by a tenth" in str(report)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("function", [lambda x: Relu.apply(x, 2.0), Heaviside.apply])
def test_both_sides_of_a_kink_are_judged(function: Any, seed: int) -> None:
    assert check_gradients(function, leaf(0.0, 0.0), seed=seed).failed
    assert check_gradients(function, leaf(0.0), seed=seed).failed


def test_an_infinite_slope_is_told() -> None:
    report = check_gradients(Root.apply, leaf(0.0, 1.0, 2.0))
    assert report.ok, str(report)
    (found,) = (r for r in report.results if r.check == "numerical")
    assert "gradient of x0 at [0] is 0, and the slope is infinite" in found.evidence["note"]


def test_one_threshold_hides_no_branch() -> None:
    assert check_gradients(Shrink.apply, leaf(0.5, 1.0, -1.0, 2.0, -3.0)).failed


@pytest.mark.parametrize("seed", range(6))
def test_a_zero_among_right_entries_is_decided(seed: int) -> None:
    x = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[0] = 0.0
    report = check_gradients(lambda x: Relu.apply(x, 1.0), x.requires_grad_())
    assert report.ok, str(report)


@pytest.mark.parametrize("detached", [False, True])
def test_a_zero_hides_no_lost_second_order(detached: bool) -> None:
    report = check_gradients(
        lambda x: Squared.apply(x, detached), leaf(0.0, 1.0, 2.0, -1.0), order=2
    )
    assert report.failed is detached, str(report)


@pytest.mark.parametrize("function", [Norm.apply, lambda x: (x * x).sum(-1).sqrt()])
def test_nan_at_a_kink_is_wrong(function: Any) -> None:
    report = check_gradients(
        function, torch.tensor([[0.0, 0.0], [1.0, 2.0]]).double().requires_grad_()
    )
    assert "nan at a kink" in report.verdict
    assert check_gradients(lambda x: x.norm(dim=-1), leaf(0.0, 0.0)).ok


def test_an_infinite_slope_is_no_kink() -> None:
    assert not check_gradients(torch.sqrt, leaf(0.0, 1.0)).failed


def test_nan_at_second_order_where_the_gradient_is_smooth() -> None:
    report = check_gradients(lambda x: x.norm() ** 2, leaf(0.0, 0.0, 0.0), order=2)
    (found,) = (r for r in report.results if r.check == "rr")
    assert found.outcome == "failed"
    assert "nan where the gradient is smooth" in found.evidence["description"]
    assert check_gradients(lambda x: x.norm(), leaf(0.0, 0.0, 0.0), order=2).ok
