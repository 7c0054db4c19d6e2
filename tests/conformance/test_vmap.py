"""Rules for vmap: of an autograd.Function, and of a custom op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance import check_gradients
from conformance.api import Report

Rule = Callable[[int, tuple[int | None, int | None], Tensor, Tensor], tuple[Tensor, int]]


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        shape, dtype=dtype, generator=torch.Generator().manual_seed(3)
    ).requires_grad_()


def failing(report: Report) -> set[str]:
    return {r.check for r in report.results if r.outcome == "failed"}


def first(size: int, dim: int | None, x: Tensor) -> Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def right(
    size: int, dims: tuple[int | None, int | None], x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    return torch.bmm(first(size, dims[0], x), first(size, dims[1], y)), 0


def doubled(
    size: int, dims: tuple[int | None, int | None], x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    return 2 * right(size, dims, x, y)[0], 0


def detached(
    size: int, dims: tuple[int | None, int | None], x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    return right(size, dims, x.detach(), y)


def elsewhere(
    size: int, dims: tuple[int | None, int | None], x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    return right(size, dims, x, y)[0], 1


def one_axis(
    size: int, dims: tuple[int | None, int | None], x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    return right(size, (dims[0], None if dims[1] is None else 0), x, y)


def all_batched(
    size: int, dims: tuple[int | None, int | None], x: Tensor, y: Tensor
) -> tuple[Tensor, int]:
    return torch.bmm(x.movedim(dims[0], 0), y.movedim(dims[1], 0)), 0  # type: ignore[arg-type]


def product(rule: Rule) -> Callable[..., Any]:
    """A matrix product with this rule for vmap, and right derivatives otherwise."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return x @ y

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            x, y = ctx.saved_tensors
            return grad @ y.mH, x.mH @ grad

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
            return rule(info.batch_size, in_dims, x, y)

    return Product.apply


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128])
def test_a_right_rule_passes(dtype: torch.dtype) -> None:
    report = check_gradients(product(right), leaf(2, 2, dtype=dtype), leaf(2, 2, dtype=dtype))
    assert report.ok
    assert "vmap: passed" in str(report)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (doubled, "times the right one"),
        (detached, "no gradient"),
        (elsewhere, "wrong"),
        (one_axis, "x1 in a batch along axis -1"),
        (all_batched, "x0 in a batch along axis -1: torch raised TypeError"),
    ],
)
def test_a_wrong_rule_is_found_and_described(rule: Rule, says: str) -> None:
    report = check_gradients(product(rule), leaf(2, 2), leaf(2, 2))
    assert failing(report) == {"vmap"}
    assert says in str(report)


class Exp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return grad * y


def test_a_function_under_vmap_without_a_jvp() -> None:
    report = check_gradients(lambda x: torch.vmap(Exp.apply)(x), leaf(2, 3), order=2)
    assert report.ok
    assert "jvp: unsupported" in str(report)


def test_a_generated_rule_within_other_calls() -> None:
    report = check_gradients(lambda x, w: (Exp.apply(x.sin()) * w).sum(0), leaf(3), leaf(2, 3))
    assert report.ok
    assert "vmap: passed" in str(report)
    refused = check_gradients(lambda x: Exp.apply(x) * torch.masked_select(x, x > 0).sum(), leaf(3))
    assert refused.ok
    assert "vmap: unsupported, under vmap:" in str(refused)


def test_a_batch_along_the_wrong_axis_of_the_output() -> None:
    report = check_gradients(product(elsewhere), leaf(1, 3), leaf(3, 4))
    assert failing(report) == {"vmap"}
    assert "output 0 of a batch has the shape [1, 2, 4], not [2, 1, 4]" in str(report)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_rule_of_a_custom_op(factor: float) -> None:
    name = f"conformance_tests::squared{int(factor)}"

    @torch.library.custom_op(name, mutates_args=())
    def squared(x: Tensor) -> Tensor:
        return x * x

    squared.register_autograd(
        lambda ctx, grad: 2 * ctx.saved_tensors[0] * grad,
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    plain = check_gradients(squared, leaf(3))
    assert plain.ok
    assert "vmap" not in str(plain)
    squared.register_vmap(lambda info, dims, x: (factor * x * x, dims[0]))
    report = check_gradients(squared, leaf(3))
    assert failing(report) == (set() if factor == 1 else {"vmap"})
    assert f"vmap: {'passed' if factor == 1 else 'failed'}" in str(report)
