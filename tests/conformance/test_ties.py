"""Where entries tie: a rule that is right of each alone and wrong of all together is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conformance import check_gradients

Function = Callable[..., torch.Tensor]


def leaf(*rows: Any) -> torch.Tensor:
    """A tensor that requires grad."""
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


class Amax(torch.autograd.Function):
    """amax over the last axis, which gives each tied entry its share, or the whole cotangent."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, share: bool) -> torch.Tensor:
        out = x.amax(-1)
        ctx.save_for_backward(x, out)
        ctx.share = share
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, out = ctx.saved_tensors
        tied = x == out[..., None]
        return g[..., None] * (tied / tied.sum(-1, keepdim=True) if ctx.share else tied), None


class Maximum(torch.autograd.Function):
    """maximum, which where the two are equal gives the cotangent to both."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = ctx.saved_tensors
        return g * (a >= b), g * (b >= a)


def own(function: Function) -> Function:
    """The function as an autograd.Function, with the gradient that torch has."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(*given)
            return function(*given)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            given = [x.detach().requires_grad_() for x in ctx.saved_tensors]
            with torch.enable_grad():
                return torch.autograd.grad(function(*given), given, g)

    return Own.apply  # type: ignore[no-any-return]


@torch.library.custom_op("conformance_ties::amax", mutates_args=())
def amax(x: torch.Tensor) -> torch.Tensor:
    """The same as a custom op, with the whole cotangent."""
    return x.amax(-1)


def _saved(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _whole(ctx: Any, g: torch.Tensor) -> torch.Tensor:
    x, out = ctx.saved_tensors
    return g[..., None] * (x == out[..., None])  # type: ignore[no-any-return]


amax.register_autograd(_whole, setup_context=_saved)

WRONG: dict[str, tuple[Function, tuple[torch.Tensor, ...]]] = {
    "alone": (lambda x: Amax.apply(x, False), (leaf(1.0, 1.0, 0.0),)),
    "at zeros": (lambda x: Amax.apply(x, False), (leaf(0.0, 0.0, -1.0),)),
    "rows": (lambda x: Amax.apply(x, False), (leaf([1.0, 1.0, 0.0], [2.0, -1.0, 2.0]),)),
    "among other calls": (lambda x: Amax.apply(x.exp(), False) * 2, (leaf(1.0, 1.0, 0.0),)),
    "beside a zero": (lambda x: Amax.apply(x, False) + x[2].abs(), (leaf(1.0, 1.0, 0.0),)),
    "two leaves": (Maximum.apply, (leaf(1.0, 2.0), leaf(1.0, -2.0))),
    "a custom op": (amax, (leaf(1.0, 1.0, 0.0),)),
}
TIED = leaf([1.0, 1.0, -1.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0])
RIGHT: dict[str, Function] = {
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(0),
    "max": lambda x: x.max(-1).values,
    "max of all": lambda x: x.max(),
    "sort": lambda x: x.sort(-1).values,
    "median": lambda x: x.median(-1).values,
    "kthvalue": lambda x: x.kthvalue(2, -1).values,
    "cummax": lambda x: x.cummax(-1).values,
    "maximum": lambda x: torch.maximum(x, x.flip(-1)),
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp, summed": lambda x: x.clamp(-1, 1).sum(),
    "abs": torch.abs,
    "norm": lambda x: x.norm(dim=-1),
    "norm, inf": lambda x: torch.linalg.vector_norm(x, torch.inf, dim=-1),
    "topk": lambda x: x.topk(2, -1).values,
}
CONVENTIONS: dict[str, Function] = {
    "abs": lambda x: torch.relu(x) + torch.relu(-x),
    "relu of the right rule": lambda x: own(torch.relu)(x) + own(torch.relu)(-x),
    "a share": lambda x: Amax.apply(x, True),
}


@pytest.mark.parametrize("name", WRONG)
def test_more_than_the_cotangent_is_wrong(name: str) -> None:
    function, given = WRONG[name]
    report = check_gradients(function, *given)
    assert report.failed, str(report)
    (found,) = (r for r in report.results if r.check == "numerical")
    assert found.evidence["diagnosis"] == "ties"
    assert "where entries tie" in str(report)


def test_of_several_calls_the_wrong_one_is_named() -> None:
    function, given = WRONG["among other calls"]
    assert "first call: v1 = opaque:" in str(check_gradients(function, *given))


@pytest.mark.parametrize("name", RIGHT)
def test_what_torch_gives_at_ties_is_right(name: str) -> None:
    report = check_gradients(own(RIGHT[name]), TIED)
    assert not report.failed, str(report)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_is_right(name: str) -> None:
    report = check_gradients(CONVENTIONS[name], TIED)
    assert not report.failed, str(report)
