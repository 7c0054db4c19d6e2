"""Rows of a table by index: embedding, embedding_bag, one_hot."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.libraries import beside, to_host
from refgrad.ops.composites import composite
from refgrad.ops.kernels import add_rows_at
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.tensor import wrap

__all__ = ["embedding", "embedding_bag"]


@op(method=False, name="embedding")
def rows_of(weight: Any, indices: Any, padding_idx: Any) -> Any:
    """The rows of `weight`, (V, *), at `indices`."""
    if indices.dtype.kind not in "iu":
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, "
            f"Int; but got {indices.dtype} instead (while checking arguments for embedding)"
        )
    if indices.size and (indices.min() < 0 or indices.max() >= weight.shape[0]):
        raise IndexError("index out of range in self")
    return np.take(weight, indices, axis=0)


@op(method=False)
def add_rows(input: Any, index: Any, size: Any) -> Any:
    """Zeros (size, *) with the rows of `input`, (M, *), added at `index`, (M,)."""
    out: Any = np.zeros_like(input, shape=(size, *input.shape[1:]))
    add_rows_at(out, index, input)
    return out


add_rows.vjp(input=lambda g, index: rows_of(g, index, None))


def _rows_back(g: Any, shape: Any, indices: Any, padding_idx: Any) -> Any:
    # each row gets the sum of the gradients at its places; the padding's row none
    index = np.reshape(indices, (-1,))
    g = np.reshape(g, (index.size, *shape[1:]))
    if padding_idx is not None:
        kept = np.flatnonzero(index != padding_idx)
        index, g = index[kept], g[kept]
    return add_rows(g, index, shape[0])


rows_of.vjp(weight=_rows_back)


@op(method=False, node_name="EmbeddingBackward0")
def by_frequency(input: Any, indices: Any) -> Any:
    """The rows `input` at `indices`; the gradient of each is divided by how often its index occurs.

    By design that is the gradient of no function: in forward mode nothing is divided.
    """
    return np.copy(input, order="C")


def _divided(g: Any, indices: Any) -> Any:
    counts = np.bincount(np.reshape(indices, (-1,)), minlength=1)[indices]
    return g / np.reshape(counts, (*indices.shape, *(1,) * (g.ndim - indices.ndim)))


by_frequency.vjp(input=_divided).linear("input")


def _rows(weight: Any, indices: Any, padding_idx: Any, scale_grad_by_freq: Any) -> Any:
    rows = rows_of(weight, indices, padding_idx)
    return by_frequency(rows, indices) if scale_grad_by_freq else rows


def _padding(padding_idx: Any, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise AssertionError("Padding_idx must be within num_embeddings")
    return int(padding_idx) % rows


def _renormalise(weight: Any, indices: Any, max_norm: float, norm_type: float) -> None:
    """Shorten the rows in use to `max_norm`, in place and outside the graph, as PyTorch does."""
    used = np.unique(indices._array)
    rows = weight._array[used]
    lengths = np.linalg.norm(rows, ord=norm_type, axis=1)
    scale = np.where(lengths > max_norm, max_norm / (lengths + 1e-7), 1)
    weight._array[used] = rows * scale[:, None]
    weight.mark_written()


@composite(method=False)
def functional_embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """The rows of `weight`, (V, D), at the indices `input`; the row `padding_idx` gets no gradient.

    The gradient is dense, `sparse` or not.

    Raises:
        IndexError: an index is out of range.
    """
    if max_norm is not None:
        _renormalise(weight, input, max_norm, norm_type)
    return _rows(weight, input, _padding(padding_idx, weight.shape[0]), scale_grad_by_freq)


def embedding(
    weight: Any, indices: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:  # fmt: skip
    """nn.functional.embedding with the weight first; `padding_idx` -1 means none."""
    return _rows(weight, indices, padding_idx if padding_idx >= 0 else None, scale_grad_by_freq)


def _bags(
    input: Any, offsets: Any, include_last_offset: bool, weights: Any
) -> tuple[Any, Any, int, Any]:
    """Flat indices, the bag of each, the number of bags, flat weights."""
    if weights is not None and tuple(weights.shape) != tuple(input.shape):
        raise ValueError(
            "embedding_bag: If per_sample_weights is not None, then it must have the same shape as the "
            f"input ({input.shape}), but it has {weights.shape}"
        )
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None")
        n, length = input.shape
        flat = None if weights is None else weights.reshape(-1)
        return input.reshape(-1), np.repeat(beside(np.arange(n), input), length), n, flat
    if input.ndim != 1:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.ndim != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    starts = to_host(offsets._array)
    n = len(starts) - bool(include_last_offset)
    if starts.size and starts[0] != 0:
        raise RuntimeError("offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to "
                           f"start from position 0. However, got {starts[0]}")  # fmt: skip
    ends = np.append(starts[1:n], len(input)) if not include_last_offset else starts[1:]
    return input, beside(np.repeat(np.arange(n), ends - starts[:n]), input), n, weights


@composite(method=False)
def functional_embedding_bag(
    input: Any, weight: Any, offsets: Any = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Any = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:  # fmt: skip
    """The sum, mean or max of the rows of `weight` in each bag of indices.

    A bag is a row of a 2D `input`, or starts at one of `offsets` in a 1D one; an empty bag gives 0.

    Raises:
        ValueError: the arguments do not describe bags.
        NotImplementedError: weights with another mode than 'sum'.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum or mean")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for "
            f"mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )
    index, bag, n, weights = _bags(input, offsets, include_last_offset, per_sample_weights)
    if max_norm is not None:
        _renormalise(weight, index, max_norm, norm_type)
    pad = _padding(padding_idx, weight.shape[0])
    index = index[: len(bag)]
    if pad is not None:
        kept = wrap(np.flatnonzero(index._array != pad))
        index, bag = index[kept], bag[kept._array]
        weights = None if weights is None else weights[kept]
    if mode == "max":
        return _bag_maxima(weight, index._array, bag, n)
    rows = _rows(weight, index, None, scale_grad_by_freq)
    if weights is not None:
        rows = rows * weights[: len(bag)].unsqueeze(1)
    sums = add_rows(rows, bag, n)
    if mode == "sum":
        return sums
    counts = np.maximum(np.bincount(bag, minlength=n), 1).astype(weight.dtype.numpy)
    return sums / wrap(counts[:, None])


def _bag_maxima(weight: Any, index: Any, bag: Any, n: int) -> Any:
    """The maximum of each column over each bag; its gradient goes to the first that has it."""
    width = weight.shape[1]
    at = np.zeros_like(index, shape=(n, width))
    empty = np.ones_like(index, shape=(n, 1), dtype=bool)
    for b in map(int, np.unique(bag)):
        rows = index[bag == b]
        at[b] = rows[np.argmax(weight._array[rows], axis=0)]
        empty[b] = False
    return weight[wrap(at), constant(np.arange(width), weight)].masked_fill(wrap(empty), 0.0)


def embedding_bag(
    weight: Any, indices: Any, offsets: Any, scale_grad_by_freq: bool = False, mode: int = 0,
    sparse: bool = False, per_sample_weights: Any = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:  # fmt: skip
    """nn.functional.embedding_bag with the weight first and the mode as a number (sum, mean, max)."""
    return functional_embedding_bag(
        indices, weight, offsets, None, 2.0, scale_grad_by_freq, ("sum", "mean", "max")[mode], sparse,
        per_sample_weights, include_last_offset, padding_idx,
    )  # fmt: skip


@composite(method=False)
def one_hot(input: Any, num_classes: int = -1) -> Any:
    """int64 with a last dimension of `num_classes` more, which is 1 at the class and 0 elsewhere.

    Raises:
        RuntimeError: a class is negative, or not below `num_classes`.
    """
    classes = getattr(input, "_array", input)
    if classes.dtype != np.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, got {input.dtype!r}")
    if classes.size == 0:
        if num_classes <= 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
    elif classes.min() < 0:
        raise RuntimeError("Class values must be non-negative.")
    elif num_classes == -1:
        num_classes = int(classes.max()) + 1
    elif num_classes < 1:
        raise RuntimeError("num_classes should be positive")
    elif classes.max() >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    return wrap((classes[..., None] == beside(np.arange(num_classes), classes)).astype(np.int64))
