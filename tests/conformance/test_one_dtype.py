"""Functions of the user's that are others in another dtype: what they draw, kernels of float32."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import Function

from conformance.api import check_gradients


class Draws(Function):
    """Multiplies by numbers that it draws: in float32 and in float64 they are others."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        mask = torch.rand_like(x)
        ctx.save_for_backward(mask)
        return x * mask

    @classmethod
    def backward(cls, ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return cls.factor * g * ctx.saved_tensors[0]


class DrawsWrong(Draws):
    factor = 1.01


def _floats(x: torch.Tensor) -> np.ndarray:
    """The memory of a tensor, read as float32 whatever it holds."""
    memory = (ctypes.c_float * x.numel()).from_address(x.data_ptr())
    return np.ctypeslib.as_array(memory)


class Kernel(Function):
    """x to the third, by a kernel that is for float32 and does not look."""

    factor = 3.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.resolve_neg().contiguous()
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        if x.numel():
            _floats(y)[:] = _floats(x) ** 3
        return y

    @classmethod
    def backward(cls, ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return cls.factor * g * ctx.saved_tensors[0] ** 2


class KernelWrong(Kernel):
    factor = 3.01


def _x() -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("function", [Draws, Kernel])
def test_right_ones_pass(function: Any) -> None:
    for fn in (function.apply, lambda x: function.apply(x.sin())):
        report = check_gradients(fn, _x(), order=2)
        assert not report.failed, report
        outcomes = {r.check: r.outcome for r in report.results}
        assert (outcomes["numerical"], outcomes["rr"]) == ("passed", "passed")
        assert outcomes["narrow"] == "unsupported"


@pytest.mark.parametrize("function", [DrawsWrong, KernelWrong])
def test_wrong_ones_do_not(function: Any) -> None:
    report = check_gradients(function.apply, _x())
    assert report.verdict.startswith("engine wrong: stencil on torch"), report
