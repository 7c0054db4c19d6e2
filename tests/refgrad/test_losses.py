"""Losses of two dtypes: what PyTorch returns, and the dtypes of the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.refgrad.both import both, both_raise

PROBABILITIES = np.array([[0.2, 0.7, 0.4], [0.9, 0.1, 0.6]])
TARGETS = np.array([[0.3, 0.8, 0.1], [0.6, 0.2, 0.9]])
SIGNS = np.where(TARGETS > 0.5, 1.0, -1.0)

PLAIN = [
    "mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits", "kl_div",
    "poisson_nll_loss", "multilabel_soft_margin_loss",
]  # fmt: skip
LOSSES: dict[str, Any] = {
    name: lambda t, x, y, name=name, **r: getattr(t.nn.functional, name)(x, y, **r)
    for name in PLAIN
} | {
    "kl_div of logs": lambda t, x, y, **r: t.nn.functional.kl_div(x, y, log_target=True, **r),
    "smooth_l1_loss at 0": lambda t, x, y, **r: t.nn.functional.smooth_l1_loss(x, y, beta=0.0, **r),
    "mse_loss of a 0-d target": lambda t, x, y, **r: t.nn.functional.mse_loss(x, y[0, 0], **r),
    "l1_loss of a 0-d target": lambda t, x, y, **r: t.nn.functional.l1_loss(x, y[0, 0], **r),
    "mse_loss with weights": lambda t, x, y, **r: t.nn.functional.mse_loss(x, x * x, weight=y, **r),
    "cosine_embedding_loss": lambda t, x, y, **r: t.nn.functional.cosine_embedding_loss(
        x, y, t.tensor([1, -1]), **r
    ),
    "cosine_similarity": lambda t, x, y, **r: t.nn.functional.cosine_similarity(x, y),
    "margin_ranking_loss": lambda t, x, y, **r: t.nn.functional.margin_ranking_loss(
        x, y, t.tensor(SIGNS, dtype=t.float32), **r
    ),
    "triplet_margin_loss": lambda t, x, y, **r: t.nn.functional.triplet_margin_loss(
        x, y, y * y, **r
    ),
    "gaussian_nll_loss": lambda t, x, y, **r: t.nn.functional.gaussian_nll_loss(
        x, y, x * x + 0.5, **r
    ),
    "cross_entropy": lambda t, x, y, **r: t.nn.functional.cross_entropy(x, y, **r),
}  # fmt: skip

CONSTANT: dict[str, Any] = {  # where PyTorch has no derivative by the second tensor
    "soft_margin_loss": lambda t, x, y, **r: t.nn.functional.soft_margin_loss(x, y, **r),
    "binary_cross_entropy with weights": lambda t, x, y, **r: (
        t.nn.functional.binary_cross_entropy(x, x * x, y, **r)
    ),
    "binary_cross_entropy_with_logits with weights": lambda t, x, y, **r: (
        t.nn.functional.binary_cross_entropy_with_logits(x, x * x, y, **r)
    ),
    "binary_cross_entropy_with_logits with pos_weight": lambda t, x, y, **r: (
        t.nn.functional.binary_cross_entropy_with_logits(x, x * x, pos_weight=y, **r)
    ),
    "binary_cross_entropy_with_logits with both": lambda t, x, y, **r: (
        t.nn.functional.binary_cross_entropy_with_logits(x, y, y, pos_weight=y, **r)
    ),
}
DTYPES = [("float64", "float32"), ("float32", "float64"), ("float32", "float32")]


def found(loss: Any, dtypes: tuple[str, str], reduction: str, both_leaves: bool) -> Any:
    """A function of a module: the loss of two dtypes and its gradients, their dtypes apart."""

    def code(t: Any) -> Any:
        x, y = (
            t.tensor(values, dtype=getattr(t, dtype))
            for values, dtype in zip((PROBABILITIES, TARGETS), dtypes, strict=True)
        )
        leaves = [x, y] if both_leaves else [x]
        for leaf in leaves:
            leaf.requires_grad_()
        made = loss(t, x, y, reduction=reduction)
        results = [made, *t.autograd.grad(made, leaves, t.ones_like(made))]
        return [r.dtype for r in results], [r.float() for r in results]  # rounded on the way

    return code


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_two_dtypes(name: str, dtypes: tuple[str, str], reduction: str) -> None:
    both(found(LOSSES[name], dtypes, reduction, True))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("name", CONSTANT)
def test_a_loss_with_a_constant_of_another_dtype(
    name: str, dtypes: tuple[str, str], reduction: str
) -> None:
    both(found(CONSTANT[name], dtypes, reduction, False))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_huber_loss_has_the_dtype_of_its_input(dtypes: tuple[str, str]) -> None:
    def code(t: Any) -> Any:
        x, y = (t.tensor([0.5, 3.0], dtype=getattr(t, dtype)) for dtype in dtypes)
        return t.nn.functional.huber_loss(x, y * y)

    both(code)


def test_a_target_of_integers_is_no_target_of_logits() -> None:
    both_raise(
        lambda t: t.nn.functional.binary_cross_entropy_with_logits(t.zeros(2), t.tensor([0, 1])),
        match="can't be cast to the desired output type",
    )
