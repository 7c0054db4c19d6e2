"""Ops that join tensors and take them apart."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.ops.arrays import wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.indexing import at_dim
from refgrad.ops.kernels import reshaped
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.ops.shaping import atleast_1d, atleast_2d, atleast_3d, expand, ints, reshape, unsqueeze
from refgrad.tensor import Tensor, wrap

__all__ = [
    "block_diag", "cartesian_prod", "cat", "chunk", "column_stack", "combinations", "concat",
    "concatenate", "dsplit", "dstack", "hsplit", "hstack", "meshgrid", "row_stack", "split",
    "split_with_sizes", "stack", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split", "vsplit",
    "vstack",
]  # fmt: skip


@op(promote=("tensors",), method=False)
def cat(tensors: Any, dim: Any = 0) -> Any:
    """The tensors one after another along `dim`; one of shape (0,) is passed over.

    Raises:
        RuntimeError: none is given, or their other dimensions differ.
    """
    if not tensors:
        raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")
    if any(x.ndim == 0 for x in tensors):
        raise RuntimeError("zero-dimensional tensor (at position 0) cannot be concatenated")
    kept = [x for x in tensors if x.shape != (0,)] or tensors[:1]
    d = wrap_dim(dim, kept[0].ndim)
    shape = kept[0].shape
    for x in kept:
        own = x.shape
        if own != shape and (own[:d], own[d + 1 :]) != (shape[:d], shape[d + 1 :]):
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {d}. Expected {list(shape)} but got "
                f"{list(own)}"
            )
    return np.concatenate(kept, axis=d)


def _cat_back(g: Any, shape: Any, dim: Any) -> list[Any]:
    """The slices of g, one for each tensor; `shape` holds all of their shapes."""
    d = wrap_dim(dim, g.ndim)
    parts, start = [], 0
    for s in shape:
        n = 0 if s == (0,) else s[d]
        part = g[at_dim(d, slice(start, start + n))]
        parts.append(reshaped(part, s) if s == (0,) else part)
        start += n
    return parts


cat.vjp(tensors=_cat_back)
concat = composite(lambda tensors, dim=0: cat(tensors, dim), method=False, name="concat")
concatenate = composite(lambda tensors, dim=0: cat(tensors, dim), method=False, name="concatenate")


@op(method=False)
def total(tensors: Any) -> Any:
    """The sum of tensors of one shape, of one dimension or more."""
    layers = np.concatenate(tensors).reshape(len(tensors), *tensors[0].shape)
    return np.add.reduce(layers)


total.vjp(tensors=lambda g, shape: [g] * len(shape))


@composite(method=False)
def stack(tensors: Any, dim: int = 0) -> Any:
    """The tensors, of one shape, along a new dimension.

    Raises:
        RuntimeError: none is given, or their shapes differ.
    """
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    for i, x in enumerate(tensors):
        if x.shape != tensors[0].shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(tensors[0].shape)} at "
                f"entry 0 and {list(x.shape)} at entry {i}"
            )
    return cat([unsqueeze(x, dim) for x in tensors], wrap_dim(dim, tensors[0].ndim + 1))


@composite(method=False)
def hstack(tensors: Any) -> Any:
    """The tensors side by side."""
    tensors = [atleast_1d(x) for x in tensors]
    return cat(tensors, 0 if tensors and tensors[0].ndim == 1 else 1)


@composite(method=False)
def vstack(tensors: Any) -> Any:
    """The tensors below one another."""
    return cat([atleast_2d(x) for x in tensors], 0)


row_stack = composite(lambda tensors: vstack(tensors), method=False, name="row_stack")


@composite(method=False)
def dstack(tensors: Any) -> Any:
    """The tensors behind one another."""
    return cat([atleast_3d(x) for x in tensors], 2)


@composite(method=False)
def column_stack(tensors: Any) -> Any:
    """Vectors as columns, matrices as they are, side by side."""
    return hstack([x if x.ndim > 1 else reshape(x, (x.numel(), 1)) for x in tensors])


# --- taking apart --------------------------------------------------------------------------------


@op(view=True, differentiable=None, node_name="UnbindBackward0")
def unbind(input: Any, dim: Any = 0) -> Any:
    """The slices along `dim`, which is dropped."""
    if input.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    d = wrap_dim(dim, input.ndim)
    return tuple(input[(*at_dim(d, i), ...)] for i in range(input.shape[d]))


unbind.vjp(
    input=lambda g, shape, dim: np.concatenate(
        tuple(p[at_dim(wrap_dim(dim, len(shape)), None)] for p in g), wrap_dim(dim, len(shape))
    )
)


@op(view=True, differentiable=None, method=False, node_name="SplitWithSizesBackward0")
def _split(input: Any, sizes: Any, dim: Any) -> Any:
    """Consecutive slices along `dim`, of the lengths in `sizes`."""
    ends = np.cumsum(sizes)
    return tuple(
        input[at_dim(dim, slice(int(e) - n, int(e)))] for n, e in zip(sizes, ends, strict=True)
    )


_split.vjp(input=lambda g, dim: np.concatenate(g, dim))


@composite
def split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> Any:
    """Consecutive slices along `dim`: of one length (the last may be shorter) or of those given.

    Raises:
        RuntimeError: the lengths do not add up.
    """
    if isinstance(split_size_or_sections, Sequence):
        return split_with_sizes(tensor, split_size_or_sections, dim)
    if tensor.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    size = operator.index(split_size_or_sections)
    d = wrap_dim(dim, tensor.ndim)
    n = tensor.shape[d]
    if size < 0 or (size == 0 and n):
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
    sizes = [builtins.min(size, n - i) for i in range(0, n, size)] if n else [0]
    return _split(tensor, tuple(sizes), d)


@composite
def split_with_sizes(input: Any, split_sizes: Any, dim: int = 0) -> Any:
    """Consecutive slices along `dim`, of the lengths in `split_sizes`.

    Raises:
        RuntimeError: they do not add up to the length of `dim`.
    """
    d, sizes = wrap_dim(dim, input.ndim), ints(split_sizes)
    if builtins.sum(sizes) != input.shape[d] or any(n < 0 for n in sizes):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {input.shape[d]} (input tensor's "
            f"size at dimension {d}), but got split_sizes={list(sizes)}"
        )
    return _split(input, sizes, d)


@composite
def chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    """At most `chunks` consecutive slices of one length along `dim`; the last may be shorter."""
    if input.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    d = wrap_dim(dim, input.ndim)
    n = input.shape[d]
    if n == 0:
        return _split(input, (0,) * chunks, d)
    return split(input, -(-n // chunks), d)


unsafe_split = composite(lambda tensor, split_size, dim=0: split(tensor, split_size, dim),
                         name="unsafe_split")  # fmt: skip
unsafe_chunk = composite(
    lambda input, chunks, dim=0: chunk(input, chunks, dim), name="unsafe_chunk"
)


@composite
def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> Any:
    """Slices along `dim`: so many of nearly one length, or split at the indices given."""
    if input.ndim == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor")
    d = wrap_dim(dim, input.ndim)
    n = input.shape[d]
    at = indices_or_sections
    if isinstance(at, Tensor):
        at = at.tolist()
    if isinstance(at, int):
        if at <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {at}")
        short, long = divmod(n, at)
        ends = [short * (i + 1) + builtins.min(i + 1, long) for i in range(at)]
    else:
        ends = [*ints(at), n]
    starts = [0, *ends[:-1]]  # each a view of its own: unlike split's, they may be written to
    return tuple(input[at_dim(d, slice(s, e))] for s, e in zip(starts, ends, strict=True))


def _named_split(name: str, rank: int, dims: tuple[int, int]) -> Any:
    def split_along(input: Any, indices_or_sections: Any) -> Any:
        if input.ndim < rank:
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {rank} dimension, but got a tensor "
                f"with {input.ndim} dimensions!"
            )
        d = dims[0] if input.ndim == 1 else dims[1]
        if isinstance(indices_or_sections, int) and input.shape[d] % indices_or_sections:
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {d}, but the size of the dimension "
                f"{input.shape[d]} is not divisible by the split_size {indices_or_sections}!"
            )
        return tensor_split(input, indices_or_sections, d)

    split_along.__name__ = name
    split_along.__doc__ = f"Slices along dimension {dims[1]}."
    return composite(split_along)


hsplit = _named_split("hsplit", 1, (0, 1))
vsplit = _named_split("vsplit", 2, (0, 0))
dsplit = _named_split("dsplit", 3, (2, 2))


# --- products of sets ----------------------------------------------------------------------------


@composite(method=False)
def meshgrid(*tensors: Any, indexing: str = "ij") -> Any:
    """The coordinates of the grid that the vectors span, one tensor for each.

    Raises:
        RuntimeError: `indexing` is neither "ij" nor "xy", or a tensor has two dimensions or more.
    """
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise RuntimeError(
            'torch.meshgrid: indexing must be one of "xy" or "ij", but received: ' + str(indexing)
        )
    if any(x.ndim > 1 for x in tensors):
        raise RuntimeError("torch.meshgrid: Expected 0D or 1D tensor in the tensor list")
    swap = indexing == "xy" and len(tensors) > 1
    if swap:
        tensors = (tensors[1], tensors[0], *tensors[2:])
    shape = tuple(x.numel() for x in tensors)
    made = [
        expand(reshape(x, (1,) * i + (-1,) + (1,) * (len(shape) - i - 1)) if x.numel()
               else reshape(x, (1,) * i + (0,) + (1,) * (len(shape) - i - 1)), shape)
        for i, x in enumerate(tensors)
    ]  # fmt: skip
    if swap:
        made[:2] = made[1], made[0]
    return tuple(made)


@composite(method=False)
def cartesian_prod(*tensors: Any) -> Any:
    """All tuples with an element of each vector, a row each."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([x.reshape(-1) for x in meshgrid(*tensors)], 1)


@composite(method=False)
def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All combinations of `r` elements of a vector, a row each."""
    import itertools

    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    pick = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(pick(range(input.numel()), r))
    if r == 0:
        return wrap(np.empty_like(input._array, shape=(0,)))
    return input[constant(np.array(rows, dtype=np.int64).reshape(-1, r), input)]


@composite(method=False)
def block_diag(*tensors: Any) -> Any:
    """The matrices along the diagonal of one, zeros elsewhere."""
    tensors = tuple(t if isinstance(t, Tensor) else wrap(np.asarray(t)) for t in tensors)
    blocks = [atleast_2d(x) for x in tensors]
    if not blocks:
        return wrap(np.zeros((1, 0), dtype=np.float32))
    width = builtins.sum(b.shape[1] for b in blocks)
    rows, before = [], 0
    for b in blocks:
        after = width - before - b.shape[1]
        left = wrap(np.zeros_like(b._array, shape=(b.shape[0], before)))
        right = wrap(np.zeros_like(b._array, shape=(b.shape[0], after)))
        rows.append(cat([left, b, right], 1))
        before += b.shape[1]
    return cat(rows, 0)
