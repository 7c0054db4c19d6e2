"""Rules that are right to `rtol` alone, and what rounding and other last bits may do to one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance import check_gradients
from conformance.errors import UsageError
from conformance.specs import spec

D = torch.float64


def leaf(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(shape, dtype=D, generator=generator).requires_grad_()


def square(spoiled: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """x * x, with a gradient to which this is done."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
            return spoiled(2 * ctx.saved_tensors[0] * g)

    return Square.apply


def scaled(by: float) -> Callable[..., Any]:
    return square(lambda g: g * (1 + by))


def spread(by: float) -> Callable[..., Any]:
    """Every entry is off by so much of the largest, with signs in turn."""

    def spoiled(g: Tensor) -> Tensor:
        signs = torch.arange(g.numel()).reshape(g.shape) % 2 * 2 - 1
        return g + signs * by * g.abs().max()

    return square(spoiled)


@pytest.mark.parametrize("rtol", [1e-6, 1e-3, 1e-2])
@pytest.mark.parametrize("size", [1, 20, 300])
@pytest.mark.parametrize("rule", [scaled, spread])
def test_what_is_within_rtol_passes_and_five_times_it_does_not(
    rule: Callable[[float], Callable[..., Any]], size: int, rtol: float
) -> None:
    assert check_gradients(rule(0.9 * rtol), leaf(size), rtol=rtol).ok
    assert check_gradients(rule(5 * rtol), leaf(size), rtol=rtol).failed
    assert check_gradients(rule(0.9 * rtol), leaf(size), rtol=1e-9).failed


def test_an_rtol_that_hides_a_factor_of_two_is_told() -> None:
    x = torch.tensor([1.0, 1e-3, 1e-3], dtype=D, requires_grad=True)
    report = check_gradients(scaled(0.0), x, rtol=0.4)
    assert report.inconclusive
    assert "is allowed of" in report.verdict


def test_an_rtol_out_of_range() -> None:
    with pytest.raises(UsageError, match="rtol"):
        check_gradients(torch.sin, leaf(2), rtol=2.0)
    with pytest.raises(UsageError, match="directions is 0"):
        check_gradients(torch.sin, leaf(2), directions=0)


def test_last_bits_that_change_from_run_to_run_are_rounding() -> None:
    turn = itertools.count()

    def jitter(by: float) -> Callable[..., Any]:
        return square(lambda g: g * (1 + by * (0.618034 * next(turn) % 1)))

    assert check_gradients(jitter(1e-15), leaf(4)).ok
    found = check_gradients(jitter(1e-7), leaf(4))
    assert found.worst is not None
    assert "nondeterministic" in found.verdict


class Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return g * y


@pytest.mark.parametrize("seed", range(4))
def test_float32_is_decided_where_the_function_is_tiny_or_huge(seed: int) -> None:
    assert check_gradients(Exp.apply, spec("float32[n]"), seed=seed).ok


@pytest.mark.parametrize("x", [-80.0, -20.0, 40.0, 59.0])
def test_one_float32_entry_far_out(x: float) -> None:
    assert check_gradients(Exp.apply, torch.tensor([x], requires_grad=True)).ok


def test_a_gradient_that_ignores_its_cotangent_is_said_to() -> None:
    report = check_gradients(square(lambda g: torch.ones_like(g)), leaf(2, 3))
    assert "the same for every cotangent" in report.verdict


def test_a_factor_is_told_beside_an_entry_that_is_not_finite() -> None:
    class Log(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.log()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * g / ctx.saved_tensors[0]

    x = torch.tensor([0.0, 2.0, 3.0], dtype=D, requires_grad=True)
    report = check_gradients(Log.apply, x)
    assert report.worst is not None
    assert report.worst.evidence["index"] != [0]
    assert report.worst.evidence["description"] == "the gradient is 2 times the right one"


@dataclass
class Pair:
    mean: Tensor
    rest: list[Tensor]


@pytest.mark.parametrize("wrong", [False, True])
def test_a_dataclass_of_results(wrong: bool) -> None:
    rule = scaled(0.1 if wrong else 0.0)
    report = check_gradients(lambda x: Pair(x.mean(), [rule(x), x.sin()]), leaf(3))
    assert report.ok is not wrong


def test_inputs_without_elements_are_told_of() -> None:
    report = check_gradients(torch.sin, leaf(0, 3))
    assert report.ok
    assert "no leaf has an element" in str(report)
    assert "no leaf has an element" not in str(check_gradients(torch.sin, leaf(1)))


class Attention(torch.autograd.Function):
    """softmax(q k^T) v; of equal keys the gradient of q is rounding."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        p = (q @ k.mT / 2).softmax(-1)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        q, k, v, p = ctx.saved_tensors
        in_p = g @ v.mT
        in_s = p * (in_p - (in_p * p).sum(-1, keepdim=True)) / 2
        return in_s @ k, in_s.mT @ q, p.mT @ g


@pytest.mark.parametrize("seed", range(3))
def test_attention_at_what_is_drawn(seed: int) -> None:
    given = (spec("float64[n, 4]"), spec("float64[m, 4]"), spec("float64[m, 4]"))
    report = check_gradients(Attention.apply, *given, seed=seed)
    assert report.ok, str(report)
