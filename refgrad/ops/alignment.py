"""Connectionist temporal classification: the probability of a label sequence over all its alignments."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from refgrad.libraries import to_host
from refgrad.ops.composites import composite
from refgrad.ops.joining import cat
from refgrad.ops.losses import check_reduction, raised, reduced
from refgrad.ops.placing import constant
from refgrad.tensor import wrap

__all__ = ["ctc_loss"]

_NEVER = -1e30  # the log of 0, but finite: from minus infinities logaddexp's derivatives would be nan


def _ints(lengths: Any) -> Any:
    return np.asarray(to_host(getattr(lengths, "_array", lengths)), dtype=np.int64).reshape(-1)


def _extended(targets: Any, lengths: Any, blank: int) -> Any:
    """The labels with a blank before, between and after them, (N, 2 S + 1), padded with blanks."""
    n, longest = len(lengths), int(lengths.max(initial=0))
    labels = np.full((n, 2 * longest + 1), blank, dtype=np.int64)
    flat = to_host(targets._array)
    starts = np.cumsum(lengths) - lengths
    for i, (start, length) in enumerate(zip(starts, lengths)):
        own = flat[start : start + length] if flat.ndim == 1 else flat[i, :length]
        labels[i, 1 : 2 * length : 2] = own
    return labels


@composite(method=False)
def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: Any = "mean", zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """-log of the probability of each target, summed over its alignments (Graves et al., 2006).

    `log_probs` is (T, N, C) or (T, C); `targets` (N, S), or all of them one after another. The mean is that
    of the losses over their targets' lengths. The gradient is that of the loss for any `log_probs`;
    PyTorch's is that only after log_softmax.

    Raises:
        RuntimeError: the lengths do not fit, or `blank` is no class.
    """
    single = log_probs.ndim == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
        targets = targets.reshape(-1)
    frames, n, classes = log_probs.shape
    durations, lengths = _ints(input_lengths), _ints(target_lengths)
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    if len(durations) != n or len(lengths) != n:
        raise RuntimeError("input_lengths and target_lengths must be of size batch_size")
    if durations.max(initial=0) > frames or durations.min(initial=0) < 0:
        raise RuntimeError(
            f"Expected input_lengths to have value at most {frames}, but got value {durations.max()}"
        )
    on = functools.partial(constant, like=log_probs)
    labels = _extended(targets, lengths, blank)
    states = labels.shape[1]
    rows = np.arange(n)
    # a label may follow the one before the blank between them, unless it is the same
    skips = np.zeros(labels.shape, dtype=bool)
    skips[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    no_skip, later = on(~skips), on(np.arange(states)[None] >= 2)
    of_labels = raised(log_probs, _NEVER)[:, on(rows[:, None]), on(labels)]
    never = on(np.full((n, 2), _NEVER, dtype=log_probs.dtype.numpy))
    alpha = on(np.where(np.arange(states)[None] == 0, 0.0, _NEVER).repeat(n, 0)
                 .astype(log_probs.dtype.numpy))  # fmt: skip
    for t in range(int(durations.max(initial=0))):
        if t == 0:
            new = of_labels[0].masked_fill(later, _NEVER)
        else:
            padded = cat([never, alpha], 1)
            stay = np.logaddexp(alpha, padded[:, 1:-1])
            new = np.logaddexp(stay, padded[:, :-2].masked_fill(no_skip, _NEVER)) + of_labels[t]
        alive = on((t < durations)[:, None])
        alpha = new.where(alive, alpha)
    last = alpha[on(rows), on(2 * lengths)]
    before = alpha[on(rows), on(np.maximum(2 * lengths - 1, 0))]
    loss = -np.logaddexp(last, before.masked_fill(on(lengths == 0), _NEVER))
    impossible = wrap(loss._array > -_NEVER / 2)
    loss = loss.masked_fill(impossible, 0.0 if zero_infinity else np.inf)
    if check_reduction(reduction) == "mean":
        loss = loss / on(np.maximum(lengths, 1).astype(log_probs.dtype.numpy))
    if single and reduction == "none":
        return loss.squeeze(0)
    return reduced(loss, reduction)

