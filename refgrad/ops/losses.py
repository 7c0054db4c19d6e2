"""Losses between predictions and targets of the same shape."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from refgrad.dtypes import can_cast
from refgrad.ops.composites import composite
from refgrad.ops.kernels import either
from refgrad.ops.op import op
from refgrad.ops.shaping import broadcast_tensors
from refgrad.tensor import wrap

__all__: list[str] = []

_REDUCTIONS = ("none", "mean", "sum")


def legacy(reduction: Any, size_average: Any, reduce: Any) -> Any:
    """The reduction that the deprecated `size_average` and `reduce` stand for, where they are given."""
    if size_average is None and reduce is None:
        return reduction
    warnings.warn(
        "size_average and reduce args will be deprecated, please use reduction instead.", stacklevel=3
    )
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def check_reduction(reduction: Any) -> Any:
    """`reduction` by its name; torch's functions, unlike those of nn.functional, number them.

    Raises:
        ValueError: there is no such reduction.
    """
    if isinstance(reduction, int) and 0 <= reduction < 3:
        return _REDUCTIONS[reduction]
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(loss: Any, reduction: Any) -> Any:
    """The mean, the sum, or the loss as it is."""
    reduction = check_reduction(reduction)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def _of_one_size(name: str, input: Any, target: Any) -> Any:
    """Both in the shape that they broadcast to, with a warning where theirs are not one."""
    if input.shape == target.shape:
        return input, target
    warnings.warn(
        f"{name}: using a target size ({target.shape}) that is different to the input size "
        f"({input.shape}). This will likely lead to incorrect results due to broadcasting. Please "
        "ensure they have the same size.",
        stacklevel=4,
    )
    return broadcast_tensors(input, target)


def written_over(loss: Any, like: Any) -> Any:
    """`loss` in the dtype of `like`, in whose memory PyTorch computes it.

    Raises:
        RuntimeError: that is an integer one.
    """
    if not can_cast(loss.dtype, like.dtype):
        raise RuntimeError(
            f"result type {loss.dtype!r} can't be cast to the desired output type {like.dtype!r}"
        )
    return loss.to(like.dtype)


@op(method=False)
def raised(input: Any, floor: Any) -> Any:
    """max(input, floor), with the gradient of `input` everywhere, as where torch clamps without grad."""
    return np.maximum(input, floor)


raised.vjp(input=lambda g: g)


# --- distances -----------------------------------------------------------------------------------


@op(method=False, promote=("input", "target"), node_name="MseLossBackward0")
def squared_error(input: Any, target: Any) -> Any:
    """(input - target)^2."""
    d = input - target
    return d * d


squared_error.vjp(  # d out = 2 (x - t) (dx - dt)
    input=lambda g, input, target: g * (2 * (input - target)),
    target=lambda g, input, target: g * (2 * (target - input)),
)


@op(method=False, node_name="HuberLossBackward0")
def huber(input: Any, delta: Any) -> Any:
    """x^2 / 2 up to `delta`, then delta (|x| - delta / 2)."""
    size = np.abs(input)
    return either(size <= delta, 0.5 * input * input, delta * (size - 0.5 * delta))


huber.vjp(  # d out = x within delta, delta sign(x) beyond
    input=lambda g, input, delta: g * either(
        np.abs(input) < delta, input, np.sign(input) * delta
    )
)  # fmt: skip


def scaled(loss: Any, weight: Any) -> Any:
    """loss * weight, where there is one."""
    return loss if weight is None else loss * weight


@composite(method=False)
def mse_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    weight: Any = None,
) -> Any:  # fmt: skip
    """(input - target)^2, weighted, reduced by 'mean' (over the weights), 'sum' or 'none'."""
    reduction = legacy(reduction, size_average, reduce)
    input, target = _of_one_size("mse_loss", input, target)
    loss = squared_error(input, target)
    if weight is None:
        return reduced(loss, reduction)
    return _weighted(loss, weight, reduction)


def _weighted(loss: Any, weight: Any, reduction: Any) -> Any:
    if weight.shape != loss.shape:
        raise ValueError("Weights and input must have the same size.")
    loss = loss * weight
    return loss.sum() / weight.sum() if check_reduction(reduction) == "mean" else reduced(loss, reduction)


@composite(method=False)
def l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    weight: Any = None,
) -> Any:  # fmt: skip
    """|input - target|, weighted and reduced."""
    reduction = legacy(reduction, size_average, reduce)
    input, target = _of_one_size("l1_loss", input, target)
    loss = (input - target).abs()
    if weight is None:
        return reduced(loss, reduction)
    return _weighted(loss, weight, reduction)


@composite(method=False)
def smooth_l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    beta: float = 1.0,
) -> Any:  # fmt: skip
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2; d = input - target.

    Raises:
        RuntimeError: `beta` is negative.
    """
    reduction = legacy(reduction, size_average, reduce)
    input, target = _of_one_size("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    d = input - target
    return reduced(d.abs() if beta == 0 else huber(d, beta) / beta, reduction)


@composite(method=False)
def huber_loss(
    input: Any, target: Any, reduction: Any = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2); d = input - target.

    Raises:
        RuntimeError: `delta` is not positive.
    """
    input, target = _of_one_size("huber_loss", input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    loss = written_over(huber(input - target, delta), input)
    return reduced(scaled(loss, weight), reduction)


# --- margins -------------------------------------------------------------------------------------


@composite(method=False)
def soft_margin_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: Any = "mean"
) -> Any:
    """log(1 + e^(-t x)); by logaddexp, since e^(-t x) overflows where the loss does not."""
    reduction = legacy(reduction, size_average, reduce)
    z = -target.to(input.dtype) * input
    return reduced(np.logaddexp(z, wrap(np.zeros_like(z._array))), reduction)


@composite(method=False)
def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Any:  # fmt: skip
    """x where the target is 1, max(0, margin - x) where it is -1."""
    reduction = legacy(reduction, size_average, reduce)
    hinge = (margin - input).clamp_min(0).masked_fill(target == 1, 0)
    near = input.masked_fill(target == -1, 0)
    return reduced(hinge + near, reduction)


@composite(method=False)
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Any = None,
    reduce: Any = None, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """max(0, -t (x1 - x2) + margin).

    Raises:
        RuntimeError: the numbers of dimensions differ.
    """
    reduction = legacy(reduction, size_average, reduce)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
            f"{input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    return reduced((-target * (input1 - input2) + margin).clamp_min(0), reduction)


@composite(method=False)
def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Any = None,
    reduce: Any = None, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """1 - cos(x1, x2) where the target is 1, max(0, cos(x1, x2) - margin) where it is -1.

    Raises:
        RuntimeError: the numbers of dimensions do not fit.
    """
    reduction = legacy(reduction, size_average, reduce)
    if target.ndim > 1 or input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found inputs with "
            f"sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    product = (input1 * input2).sum(-1)
    lengths = ((input1 * input1).sum(-1) + 1e-12) * ((input2 * input2).sum(-1) + 1e-12)
    cos = product / lengths.sqrt()
    positive = (1 - cos).masked_fill(target != 1, 0)
    negative = (cos - margin).clamp_min(0).masked_fill(target != -1, 0)
    return reduced(positive + negative, reduction)


@composite(method=False)
def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the p-norm of the difference + eps.

    Raises:
        ValueError: `margin` is not positive.
        RuntimeError: the numbers of dimensions differ.
    """
    from refgrad.ops.norms import pairwise_distance

    reduction = legacy(reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {anchor.ndim}D, positive {positive.ndim}D, and negative "
            f"{negative.ndim}D inputs"
        )

    def distance(x: Any, y: Any) -> Any:
        return pairwise_distance(x, y, p, eps)

    return _triplet(anchor, positive, negative, distance, margin, swap, reduction)


def _triplet(
    anchor: Any, positive: Any, negative: Any, distance: Any, margin: float, swap: bool, reduction: Any
) -> Any:
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced((margin + near - far).clamp_min(0), reduction)


@composite(method=False)
def triplet_margin_with_distance_loss(
    anchor: Any, positive: Any, negative: Any, *, distance_function: Any = None,
    margin: float = 1.0, swap: bool = False, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """`triplet_margin_loss` with a distance of one's own (by default `pairwise_distance`).

    Raises:
        ValueError: `margin` is not positive.
    """
    from refgrad.ops.norms import pairwise_distance

    check_reduction(reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    distance = pairwise_distance if distance_function is None else distance_function
    return _triplet(anchor, positive, negative, distance, margin, swap, reduction)
