"""Functions and custom ops that compute in float32 on the way, as norms do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import Function

from conformance.api import check_gradients
from conformance.sources.black_box import BlackBox
from conformance.sources.casts import watched
from conformance.sources.function import as_program

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def _normed(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _pulled_back(x: torch.Tensor, g: torch.Tensor, factor: float) -> torch.Tensor:
    wide, g = x.float(), g.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    along = (g * wide).mean(-1, keepdim=True)
    return (factor * scale * (g - wide * scale * scale * along)).to(x.dtype)


class Norm(Function):
    """RMS norm in float32, whatever it is given."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return _normed(x.float()).to(x.dtype)

    @classmethod
    def backward(cls, ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return _pulled_back(ctx.saved_tensors[0], g, cls.factor)


class NormWrong(Norm):
    factor = 1.01


class Kernel(Norm):
    """Float32 is all that it knows inside."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        wide = x.float()
        assert wide.dtype == torch.float32
        return _normed(wide).to(x.dtype)


class Noisy(Function):
    """It draws in float32: in float64 it would be another function."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(x.shape, dtype=torch.float32)
        ctx.save_for_backward(drawn)
        return (x.float() * drawn).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return (g.float() * ctx.saved_tensors[0]).to(g.dtype)


def _op(name: str, factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    @torch.library.custom_op(f"test_casting::{name}", mutates_args=())
    def norm(x: torch.Tensor) -> torch.Tensor:
        return _normed(x.float()).to(x.dtype)

    norm.register_autograd(
        lambda ctx, g: _pulled_back(ctx.saved_tensors[0], g, factor),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    made: Callable[[torch.Tensor], torch.Tensor] = norm
    return made


NORM, NORM_WRONG = _op("norm", 1.0), _op("norm_wrong", 1.01)


def _x(dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [Norm.apply, NORM], ids=["Function", "custom_op"])
def test_a_right_rule_passes_and_is_decided(norm: Any, dtype: torch.dtype) -> None:
    for function in (norm, lambda x: norm(x.sin()).cos()):
        report = check_gradients(function, _x(dtype))
        assert not report.failed, report
        assert not report.inconclusive, report


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [NormWrong.apply, NORM_WRONG], ids=["Function", "custom_op"])
def test_a_rule_that_is_off_by_a_hundredth_does_not(norm: Any, dtype: torch.dtype) -> None:
    for function in (norm, lambda x: norm(x.sin()).cos()):
        report = check_gradients(function, _x(dtype))
        assert report.failed, report
        assert report.verdict.startswith("engine wrong: stencil on torch"), report


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("function", [Kernel.apply, Noisy.apply], ids=["Kernel", "Noisy"])
def test_what_needs_its_float32_raises_no_alarm(function: Any, dtype: torch.dtype) -> None:
    report = check_gradients(function, _x(dtype))
    assert not report.failed, report


def test_what_it_computes_in_is_said() -> None:
    program = as_program(BlackBox(Norm.apply, (_x(torch.float64),), {}))
    assert [c.through for c in program.program.calls] == ["float32"]
    (note,) = program.notes
    assert "computes in float32 on the way, and is held to that" in note


def test_random_numbers_are_drawn_as_often_as_before() -> None:
    torch.manual_seed(3)
    Noisy.apply(_x(torch.float64))
    after = torch.random.get_rng_state()
    torch.manual_seed(3)
    watched(Noisy.apply, (_x(torch.float64),), {})
    assert torch.equal(torch.random.get_rng_state(), after)


class Dropped(Function):
    """A loss that shows little of which numbers were drawn; in float64 these are others."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        kept = torch.rand_like(x) > 0.3
        ctx.save_for_backward(kept)
        return 1.0 + 0.03 * torch.where(kept, x, 0.0).mean()

    @classmethod
    def backward(cls, ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (kept,) = ctx.saved_tensors
        return torch.where(kept, cls.factor * 0.03 / kept.numel() * g, 0.0)


class DroppedWrong(Dropped):
    factor = 1.5


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_other_random_numbers_in_float64_are_no_fault(dtype: torch.dtype) -> None:
    for function in (Dropped.apply, lambda x: Dropped.apply(x.sin())):
        report = check_gradients(function, _x(dtype))
        assert not report.failed, report
        wrong = check_gradients(DroppedWrong.apply, _x(dtype))
        assert wrong.verdict.startswith("engine wrong: stencil on torch"), wrong
