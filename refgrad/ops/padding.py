"""Padding, and taking elements along a dimension as a linear map that knows its transpose."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.arrays import wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.op import op
from refgrad.ops.windows import pad_spatial

__all__ = ["constant_pad_nd"]


@op(method=False, node_name="ConstantPadNdBackward0")
def constant_pad_nd(input: Any, pad: Any, value: Any = 0) -> Any:
    """`input` with `value` around its last dimensions: (before, after) each, the last one first.

    A negative width crops.

    Raises:
        RuntimeError: the widths are odd in number, too many, or crop more than there is.
    """
    if len(pad) % 2:
        raise RuntimeError(f"Length of pad must be even but instead it equals {len(pad)}")
    if len(pad) > 2 * input.ndim:
        raise RuntimeError(
            "Length of pad should be no more than twice the number of dimensions of the input. "
            f"Pad length is {len(pad)} while the input has {input.ndim} dimensions."
        )
    before, after = tuple(pad[-2::-2]), tuple(pad[::-2])
    out = pad_spatial(input, before, after, value)
    return np.copy(out) if out is input else out


constant_pad_nd.vjp(  # the transpose of padding is cropping, and of cropping padding
    input=lambda g, pad: constant_pad_nd(g, tuple(-p for p in pad), 0)
)


@op(method=False)
def resample(input: Any, dim: Any, index: Any, weight: Any = None) -> Any:
    """out[.., j, ..] = sum over k of weight[k, j] input[.., index[k, j], ..] along `dim`."""
    index, weight = beside(index, input), None if weight is None else beside(weight, input)
    if weight is None:
        return np.take(input, index[0], axis=dim)
    tail = (1,) * (input.ndim - 1 - dim)
    out = 0.0
    for i, w in zip(index, weight, strict=True):
        out = out + np.take(input, i, axis=dim) * np.reshape(w.astype(input.dtype), (-1, *tail))
    return out


@op(method=False)
def unsample(input: Any, dim: Any, index: Any, weight: Any, size: Any) -> Any:
    """The transpose of `resample`: out[.., index[k, j], ..] += weight[k, j] input[.., j, ..]."""
    n = index.shape[1]
    flat = np.reshape(index, (-1,))
    order = np.argsort(flat, kind="stable")
    found, starts = np.unique(flat[order], return_index=True)
    terms = np.take(input, order % max(n, 1), axis=dim)
    if weight is not None:
        tail = (1,) * (input.ndim - 1 - dim)
        weight = np.reshape(np.reshape(weight, (-1,))[order].astype(input.dtype), (-1, *tail))
        terms = terms * beside(weight, input)
    out = np.zeros_like(input, shape=(*input.shape[:dim], size, *input.shape[dim + 1 :]))
    if terms.size:
        out[(slice(None),) * dim + (found,)] = np.add.reduceat(terms, beside(starts, input), axis=dim)
    return out


resample.vjp(input=lambda g, shape, dim, index, weight: unsample(g, dim, index, weight, shape[dim]))
unsample.vjp(input=lambda g, dim, index, weight: resample(g, dim, index, weight))


# --- pad -----------------------------------------------------------------------------------------


def _source(n: int, before: int, after: int, mode: str) -> Any:
    """Which element of a dimension of length `n` each place of the padded one shows."""
    at = np.arange(-before, n + after)
    if mode == "circular":  # what negative widths crop does not come back
        first, last = max(-before, 0), n - max(-after, 0)
        return first + (at - first) % (last - first)
    if mode == "replicate":
        return np.clip(at, 0, n - 1)
    at = np.abs(at)
    return np.where(at > n - 1, 2 * (n - 1) - at, at)


@composite(method=False)
def pad(input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """`input` padded around its last dimensions: (before, after) each, the last dimension first.

    `mode` is 'constant' (with `value`, 0 by default), 'reflect', 'replicate' or 'circular'.

    Raises:
        RuntimeError: the widths do not fit the input or the mode.
        NotImplementedError: a mode other than 'constant' with other dimensions than the last 1 to 3
            of an input with one or two more.
    """
    pad = tuple(int(p) for p in pad)
    if mode == "constant":
        return constant_pad_nd(input, pad, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value not in (None, 0):
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    d = len(pad) // 2
    if len(pad) % 2 or d not in (1, 2, 3) or input.ndim not in (d + 1, d + 2):
        raise NotImplementedError(
            f"Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now: "
            f"{len(pad)} widths with an input of {input.ndim} dimensions"
        )
    input = input.contiguous() if mode == "circular" else input
    for i in range(d):
        before, after = pad[2 * i : 2 * i + 2]
        dim = wrap_dim(-1 - i, input.ndim)
        n = input.shape[dim]
        limit = {"reflect": n - 1, "circular": n, "replicate": max(before, after)}[mode]
        if max(before, after) > limit:
            raise RuntimeError(
                f"Padding size should be at most {limit} for mode '{mode}' at dimension {dim}, but got "
                f"({before}, {after}) for input of size {list(input.shape)}"
            )
        if n + before + after < 1 or (n == 0 and mode != "constant"):
            raise RuntimeError(
                f"input of size {list(input.shape)} with padding ({before}, {after}) is too small "
                f"at dimension {dim}"
            )
        if before or after:
            input = resample(input, dim, _source(n, before, after, mode)[None], None)
    return input.clone() if not any(pad) else input
