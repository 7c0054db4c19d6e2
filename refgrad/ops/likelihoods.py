"""Losses that are negative log-likelihoods or divergences of distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.ops.activations import logsigmoid
from refgrad.ops.composites import composite
from refgrad.ops.losses import (
    check_reduction,
    legacy,
    raised,
    reduced,
    scaled,
    squared_error,
    written_over,
)
from refgrad.ops.op import op
from refgrad.ops.special_functions import xlogy
from refgrad.tensor import Tensor, wrap

__all__: list[str] = []


@composite(method=False)
def kl_div(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    log_target: bool = False,
) -> Any:  # fmt: skip
    """target * (log(target) - input), of log-probabilities `input`; with `log_target` of two such.

    `reduction` may also be 'batchmean': the sum over the length of the first dimension.
    """
    reduction = legacy(reduction, size_average, reduce)
    if log_target:
        loss = target.exp() * (target - input)
    else:
        loss = xlogy(target, target) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0] if input.ndim else loss.sum()
    return reduced(loss, reduction)


@op(method=False, name="binary_cross_entropy")
def _binary_cross_entropy(input: Any, target: Any) -> Any:
    # as PyTorch has it a logarithm is at least -100, so that a certain and wrong prediction stays finite
    log_x, log_rest = np.maximum(np.log(input), -100.0), np.maximum(np.log1p(-input), -100.0)
    return (target - 1) * log_rest - target * log_x


_binary_cross_entropy.vjp(  # d out = (x - t) / (x (1 - x)) dx + (log(1 - x) - log(x)) dt
    input=lambda g, input, target: g * (input - target) / np.maximum(input * (1 - input), 1e-12),
    target=lambda g, input: g * (
        np.maximum(np.log1p(-input), -100.0) - np.maximum(np.log(input), -100.0)
    ),
)  # fmt: skip


@composite(method=False)
def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Any:  # fmt: skip
    """-(t log x + (1 - t) log(1 - x)) of probabilities x, weighted and reduced.

    Raises:
        ValueError: the shapes differ.
        RuntimeError: a probability is outside [0, 1].
    """
    reduction = legacy(reduction, size_average, reduce)
    if target.shape != input.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is "
            "deprecated. Please ensure they have the same size."
        )
    x = input._array
    if x.size and ((x < 0) | (x > 1)).any():
        raise RuntimeError("all elements of input should be between 0 and 1")
    loss = _binary_cross_entropy(input, target)
    return reduced(written_over(scaled(loss, weight), loss), reduction)


@composite(method=False)
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean", pos_weight: Any = None,
) -> Any:  # fmt: skip
    """Binary cross entropy of sigmoid(input), weighted and reduced; `pos_weight` weighs the positives.

    Raises:
        ValueError: the shapes differ.
    """
    reduction = legacy(reduction, size_average, reduce)
    if target.shape != input.shape:
        raise ValueError(
            f"Target size ({target.shape}) must be the same as input size ({input.shape})"
        )
    log_x = logsigmoid(input)
    if pos_weight is not None:
        log_x = written_over(log_x * ((pos_weight - 1) * target + 1), log_x)
    loss = scaled((1 - target) * input - log_x, weight)
    return reduced(written_over(loss, target), reduction)


@composite(method=False)
def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, size_average: Any = None,
    eps: float = 1e-8, reduce: Any = None, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """e^x - t x, or without `log_input` x - t log(x + eps); with `full` Stirling's term for log t!."""
    reduction = check_reduction(legacy(reduction, size_average, reduce))
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + stirling.masked_fill(target <= 1, 0)
    return reduced(loss, reduction)


@composite(method=False)
def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: Any = "mean",
) -> Any:  # fmt: skip
    """(log var + (input - target)^2 / var) / 2, where var is at least `eps`; `full` adds log(2 pi) / 2.

    Raises:
        ValueError: `var` is negative, or its shape does not fit.
    """
    if isinstance(var, Tensor):
        if (var._array < 0).any():
            raise ValueError("var has negative entry/entries")
    elif var < 0:
        raise ValueError("var has negative entry/entries")
    else:
        var = wrap(np.full_like(input._array, var))
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        elif input.ndim != var.ndim or any(v not in (1, n) for v, n in zip(var.shape, input.shape)):
            raise ValueError("var is of incorrect size")
    check_reduction(reduction)
    var = raised(var, eps)
    loss = 0.5 * (var.log() + squared_error(input, target) / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)
