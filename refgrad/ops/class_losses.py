"""Losses of scores against classes: nll_loss, cross_entropy, and margins between classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.composites import composite
from refgrad.ops.kernels import add_at, rowwise, sum_over
from refgrad.ops.linear import linear
from refgrad.ops.losses import check_reduction, legacy, reduced
from refgrad.ops.op import op
from refgrad.ops.scattering import grid
from refgrad.ops.softmax import shifted
from refgrad.tensor import wrap

__all__: list[str] = []


def _classes(target: Any, classes: int, ignore_index: int | None) -> tuple[Any, Any]:
    """The targets as an array that is safe to index with, and which of them count; None for all.

    Raises:
        IndexError: a target is no class.
    """
    t = target._array
    if ignore_index is None or not 0 <= ignore_index < classes:  # then it is out of range as others
        if not t.size or (t.min() >= 0 and t.max() < classes):
            return t.copy(), None  # the caller may write to it before the way back
        if ignore_index is None:
            counted = np.ones_like(t, dtype=bool)
        else:
            counted = t != ignore_index
    else:
        counted = t != ignore_index
    bad = counted & ((t < 0) | (t >= classes))
    if bad.any():
        raise IndexError(f"Target {int(t[bad].reshape(-1)[0])} is out of bounds.")
    return np.where(counted, t, 0), None if counted.all() else counted


def _weights(weight: Any, t: Any, counted: Any, like: Any) -> Any:
    """The weight of each target, 0 where it is ignored, as an array; None where all are 1."""
    if weight is None:
        return None if counted is None else counted.astype(like.dtype.numpy)
    found = weight._array[t]
    return found if counted is None else found * counted


def _total(w: Any, t: Any) -> Any:
    """The sum of the weights, a number."""
    return t.size if w is None else np.sum(w)


def _at(t: Any) -> tuple[Any, ...]:
    """The index of the elements [n, t[n, *], *]."""
    first, *rest = grid(t)
    return (first, t, *rest)


@op(method=False, name="of_class")
def of_class(input: Any, t: Any) -> Any:
    """input[n, t[n, *], *] of (N, C, *), for classes t, (N, *)."""
    return input[_at(t)]


@op(method=False, name="at_class")
def at_class(input: Any, t: Any, classes: Any) -> Any:
    """Zeros (N, classes, *) with `input`, (N, *), at the classes t: the transpose of `of_class`."""
    out: Any = np.zeros_like(input, shape=(t.shape[0], classes, *t.shape[1:]))
    out[_at(t)] = input
    return out


of_class.vjp(input=lambda g, t, shape: at_class(g, t, shape[1]))
at_class.vjp(input=lambda g, t: of_class(g, t))


@op(method=False, name="nll_loss", node_name="NllLossBackward0")
def _mean_of_class(input: Any, t: Any, w: Any, counted: Any, total: Any) -> Any:
    """-(sum of w * input[n, t[n, *], *]) / total, in one node in place of six."""
    return _mean_of_picked(of_class(input, t), w, counted, total)


def _mean_of_picked(picked: Any, w: Any, counted: Any, total: Any) -> Any:
    if w is not None:
        picked = picked * w
    if counted is not None:  # 0 * inf would be nan
        picked = np.where(counted, picked, 0)
    return np.sum(picked) / -total


def _each_of_mean(g: Any, w: Any, counted: Any, total: Any) -> Any:
    each = g / -total if w is None else g * (w / -total)
    if counted is not None:  # where none counts, w / total is nan
        each = np.where(counted, each, 0.0)
    return each


def _mean_back(g: Any, t: Any, w: Any, counted: Any, total: Any, shape: Any) -> Any:
    each = _each_of_mean(g, w, counted, total)
    return at_class(np.broadcast_to(each, t.shape), t, shape[1])


_mean_of_class.vjp(input=_mean_back)


@composite(method=False)
def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """-weight[t] * input[t] of log-probabilities (N, C, *), (C,) and classes t (N, *), ().

    The mean is over the weights of the targets that are not ignored.

    Raises:
        ValueError, RuntimeError: the shapes do not fit.
        IndexError: a target is no class.
    """
    reduction = check_reduction(legacy(reduction, size_average, reduce))
    single = input.ndim == 1
    input, t, w, counted = _of_classes(input, target, weight, ignore_index)
    if reduction != "none":
        return _mean_of_class(input, t, w, counted, _divisor(reduction, w, t))
    loss = -of_class(input, t) if w is None else of_class(input, t) * wrap(-w)
    if counted is not None:  # 0 * inf would be nan
        loss = loss.masked_fill(wrap(~counted), 0)
    return loss.squeeze(0) if single else loss


def _divisor(reduction: str, w: Any, t: Any) -> Any:
    return _total(w, t) if reduction == "mean" else 1


def _of_classes(input: Any, target: Any, weight: Any, ignore_index: int) -> tuple[Any, ...]:
    """The input as (N, C, *), and the classes, their weights, and which count, as (N, *).

    Raises:
        ValueError, RuntimeError, IndexError: as `nll_loss`.
    """
    if input.ndim == 0:
        raise ValueError("Expected 1 or more dimensions (got 0)")
    if input.ndim > 1 and input.shape[0] != target.shape[0]:
        raise ValueError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
            f"({target.shape[0]})."
        )
    fits = (
        target.numel() == 1
        if input.ndim == 1
        else input.shape[:1] + input.shape[2:] == tuple(target.shape)
    )
    if not fits:
        raise RuntimeError(
            f"size mismatch (got input: {list(input.shape)} , target: {list(target.shape)})"
        )
    classes = input.shape[0 if input.ndim == 1 else 1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but got "
            f"weight tensor of shape: {list(weight.shape)}"
        )
    t, counted = _classes(target, classes, ignore_index)
    if input.ndim == 1:
        input, t = input.unsqueeze(0), t.reshape(1)
        counted = None if counted is None else counted.reshape(1)
    return input, t, _weights(weight, t, counted, input), counted


@op(method=False, name="cross_entropy", node_name="NllLossBackward0", differentiable=3, unread=0)
def _mean_of_scores(input: Any, t: Any, w: Any, counted: Any, total: Any) -> Any:
    """`_mean_of_class` of log_softmax(input, 1); and e^(x - max) and its sums, which the rule reads."""
    x = shifted(input, 1)
    picked = of_class.forward(x, t)
    e = np.exp(x, out=x)
    sums = sum_over(e, 1, True)
    picked -= np.log(sums)[:, 0]
    return _mean_of_picked(picked, w, counted, total), e, sums


def _scores_back(g: Any, out: Any, t: Any, w: Any, counted: Any, total: Any, shape: Any) -> Any:
    # with d the gradient of log_softmax: dx = d - e sum(d) / sum of e;  de = e dx
    of_loss, of_e, of_sums = g
    _, e, sums = out
    each = np.broadcast_to(_each_of_mean(of_loss, w, counted, total), t.shape)[:, None]
    share = each / sums
    if of_e is None and type(e) is np.ndarray:  # without an array that is zero but at the classes
        with rowwise(e, share):
            made = e * -share
        made[_at(t)] += each[:, 0]
        return made
    d = at_class(each[:, 0], t, shape[1])
    return d - e * share if of_e is None else d + e * (of_e + of_sums - share)


_mean_of_scores.vjp(input=_scores_back)


@composite(method=False)
def cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: Any = "mean", label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Cross entropy of softmax(input), (N, C, *) or (C,), and classes or class probabilities.

    A target of floating dtype and of the input's shape holds probabilities. `label_smoothing` mixes the
    uniform distribution in.

    Raises:
        RuntimeError: the smoothing is not in [0, 1], or the shapes do not fit.
        IndexError: a target is no class.
    """
    reduction = check_reduction(legacy(reduction, size_average, reduce))
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    dim = 0 if input.ndim == 1 else 1
    of_classes = target.shape != input.shape
    scores = input._array.dtype.kind == "f" and input._array.size
    if scores and of_classes and not label_smoothing and reduction != "none":
        input, t, w, counted = _of_classes(input, target, weight, ignore_index)  # one node, not two
        return _mean_of_scores(input, t, w, counted, _divisor(reduction, w, t))[0]
    classes = input.shape[dim]
    across = (-1, *(1,) * (input.ndim - 1 - dim))
    log_p = input.log_softmax(dim)
    if not of_classes:
        if not target.is_floating_point():
            raise RuntimeError(
                f"Expected floating point type for target with class probabilities, got {target.dtype!r}"
            )
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        if label_smoothing > 0:
            target = target * (1 - label_smoothing) + label_smoothing / classes
        loss = log_p * target
        if weight is not None:
            loss = loss * weight.reshape(across)
        if reduction == "none":
            return -loss.sum(dim)
        total = -loss.sum()
        return total if reduction == "sum" else total / (input.numel() / classes)
    loss = nll_loss(log_p, target, weight, None, ignore_index, None, reduction)
    if not label_smoothing:
        return loss
    smooth = -(log_p if weight is None else log_p * weight.reshape(across)).sum(dim)
    t, counted = _classes(target, classes, ignore_index)
    if counted is not None:
        smooth = smooth.masked_fill(wrap(~counted), 0)
    if reduction == "mean":
        smooth = smooth.sum() / float(_total(_weights(weight, t, counted, input), t))
    elif reduction == "sum":
        smooth = smooth.sum()
    return (1 - label_smoothing) * loss + smooth * (label_smoothing / classes)


@composite(method=False)
def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
    size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
) -> Any:  # fmt: skip
    """sum over j != t of weight[t] max(0, margin - x[t] + x[j])^p / C, of (N, C) or (C,).

    Raises:
        ValueError: `p` is neither 1 nor 2, or the weights are not (C,).
        RuntimeError: the shapes do not fit, or a target is no class.
    """
    reduction = legacy(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    if input.ndim > 2 or (input.ndim == 2 and tuple(target.shape) != input.shape[:1]):
        raise RuntimeError(f"inconsistent target size: {list(target.shape)} but expected "
                           f"{list(input.shape[:1])}")  # fmt: skip
    single = input.ndim < 2
    x = input.reshape(1, -1) if single else input
    t = target._array.reshape(-1)
    classes = x.shape[1]
    if t.size and (t.min() < 0 or t.max() >= classes):
        raise RuntimeError("target out of range")
    z = (margin - x.gather(1, wrap(t[:, None])) + x).relu()
    z = (z if p == 1 else z * z).masked_fill(wrap(t[:, None] == beside(np.arange(classes), t)), 0)
    if weight is not None:
        z = z * weight[wrap(t)].unsqueeze(1)
    loss = z.sum(1) / classes
    return reduced(loss.reshape(()) if single and target.ndim == 0 else loss, reduction)


@composite(method=False)
def multilabel_margin_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: Any = "mean"
) -> Any:
    """sum over targets t and other classes j of max(0, 1 - x[t] + x[j]) / C, of (N, C) or (C,).

    The targets of a row end at its first -1.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    reduction = legacy(reduction, size_average, reduce)
    if input.ndim > 2 or input.shape != target.shape:
        raise RuntimeError(
            f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}"
        )
    x = input.reshape(-1, input.shape[-1]) if input.ndim else input.reshape(1, 1)
    t = target._array.reshape(x.shape)
    n, classes = x.shape
    meant = np.cumsum(t < 0, axis=1) == 0
    t = np.where(meant, t, 0)
    counts = np.zeros_like(t, shape=(n, classes), dtype=np.int32)
    add_at(counts, (beside(np.arange(n), t)[:, None], t), meant.astype(np.int32))
    is_target = counts > 0
    z = (1 - x.gather(1, wrap(t)).unsqueeze(2) + x.unsqueeze(1)).relu()
    z = z.masked_fill(wrap(~meant[:, :, None] | is_target[:, None, :]), 0)
    loss = z.sum((1, 2)) / classes
    return reduced(loss if input.ndim == 2 else loss.reshape(()), reduction)


@composite(method=False)
def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Any:  # fmt: skip
    """-(t log sigmoid(x) + (1 - t) log sigmoid(-x)), weighted, and averaged over the classes."""
    from refgrad.ops.activations import logsigmoid

    reduction = legacy(reduction, size_average, reduce)
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return reduced(loss.sum(-1) / input.shape[-1], reduction)


@composite(method=False)
def linear_cross_entropy(
    input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, weight: Any = None,
    reduction: Any = "mean", ignore_index: int | None = None, label_smoothing: float = 0.0,
    options: Any = None,
) -> Any:  # fmt: skip
    """`cross_entropy` of the scores input @ linear_weight^T + linear_bias.

    The weight is (C, I), or (C, *, I) for scores (N, C, *). `options` speak of memory only.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if input.ndim not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.ndim}")
    if linear_weight.ndim < 2 or linear_weight.shape[-1] != input.shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), got "
            f"{input.shape[-1]} and {list(linear_weight.shape)}, respectively"
        )
    shape = linear_weight.shape[:-1]
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    scores = linear(input, linear_weight.reshape(-1, input.shape[-1]), bias)
    scores = scores.reshape(*input.shape[:-1], *shape)
    if ignore_index is not None and target.shape == scores.shape:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(
        scores, target, weight, None, ignored, None, reduction, label_smoothing
    )
