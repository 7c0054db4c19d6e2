"""Functions of float16 and bfloat16: models in them, and kernels that know no float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import Function

from conformance.api import check_gradients
from conformance.specs import spec

DTYPES = [torch.float16, torch.bfloat16]


class Square(Function):
    """A kernel for float32 and less."""

    factor = 2.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype in (torch.float16, torch.bfloat16, torch.float32)
        ctx.save_for_backward(x)
        return x * x

    @classmethod
    def backward(cls, ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return cls.factor * g * ctx.saved_tensors[0]


class SquareWrong(Square):
    factor = 2.1


def _x(dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_kernel_passes(dtype: torch.dtype) -> None:
    for fn in (Square.apply, lambda x: Square.apply(x.sin()).sum(-1)):
        report = check_gradients(fn, _x(dtype), order=2)
        assert not report.failed, report
        outcomes = {r.check: r.outcome for r in report.results}
        assert (outcomes["numerical"], outcomes["rr"]) == ("passed", "passed")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_that_is_off_by_less_than_its_dtype_shows_is_found(dtype: torch.dtype) -> None:
    for fn in (SquareWrong.apply, lambda x: SquareWrong.apply(x.sin()).sum(-1)):
        report = check_gradients(fn, _x(dtype))
        assert report.verdict.startswith("engine wrong: stencil on torch"), report


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_captured_and_decided(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    report = check_gradients(model.to(dtype), _x(dtype), order=2)
    assert not report.failed, report
    assert not report.inconclusive, report
    assert not any("black box" in note for note in report.notes)
    assert next(model.parameters()).dtype == dtype


def test_inputs_are_drawn_in_sixteen_bits() -> None:
    report = check_gradients(
        lambda a, b: a.sin() * b, spec("bfloat16[n, 3]"), spec("float16[3] in (0, 1)"), samples=3
    )
    assert not report.failed, report
