"""Pooling to a given size: adaptive and fractional pools, and unpooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.libraries import beside, to_host
from refgrad.ops.composites import composite
from refgrad.ops.joining import stack
from refgrad.ops.op import op
from refgrad.ops.pooling import _batched, _greatest, deposit, pick
from refgrad.ops.windows import each

__all__ = ["adaptive_avg_pool1d"]


def _sizes(output_size: Any, spatial: Any) -> tuple[int, ...]:
    """The output's size; None keeps the input's."""
    d = len(spatial)
    sizes = (output_size,) * d if not isinstance(output_size, (tuple, list)) else tuple(output_size)
    if len(sizes) == 1:
        sizes = sizes * d
    if len(sizes) != d:
        raise RuntimeError(f"output_size must have {d} elements, not {len(sizes)}")
    sizes = tuple(n if s is None else int(s) for s, n in zip(sizes, spatial))
    if any(s < 0 for s in sizes):
        raise RuntimeError("elements of output_size must be greater than or equal to 0")
    return sizes


def _bins(n: int, size: int) -> list[tuple[int, int]]:
    """Where the bins of an adaptive pool start and end: they cover `n` and may overlap."""
    return [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]


def _bin_means(x: Any, dim: int, size: int) -> Any:
    n = x.shape[dim]
    if size == n:
        return x
    lead = (slice(None),) * dim
    if size and n % size == 0:
        return x.reshape(*x.shape[:dim], size, n // size, *x.shape[dim + 1 :]).mean(dim + 1)
    if not size:
        return x[(*lead, slice(0, 0))]
    return stack([x[(*lead, slice(a, b))].mean(dim) for a, b in _bins(n, size)], dim)


def _adaptive_avg(d: int, input: Any, output_size: Any) -> Any:
    x, bare = _batched(input, d, f"adaptive_avg_pool{d}d")
    sizes = _sizes(output_size, x.shape[2:])
    for i, size in enumerate(sizes):
        x = _bin_means(x, 2 + i, size)
    x = x.clone() if sizes == tuple(input.shape[-d:]) else x  # no pool returns its input
    return x.squeeze(0) if bare else x


@op(method=False, node_name="AdaptiveMaxPool2DBackward0", unread=0)
def bin_maximum(input: Any, sizes: Any) -> tuple[Any, Any]:
    """The maxima over the bins of (N, C, *spatial), and where they are in the flattened spatial ones."""
    n, c, *spatial = input.shape
    out: Any = np.zeros_like(input, shape=(n, c, *sizes))
    index: Any = np.zeros_like(input, shape=(n, c, *sizes), dtype=np.int64)
    bins = [_bins(k, s) for k, s in zip(spatial, sizes)]
    for place in np.ndindex(*sizes):
        spans = [b[i] for b, i in zip(bins, place)]
        kernel = tuple(b - a for a, b in spans)
        cut = input[(..., *(slice(a, b) for a, b in spans))]
        one = (1,) * len(kernel)
        best, which = _greatest(cut, kernel, one, one, one)
        at: Any = 0
        for k, (a, _), length in zip(np.unravel_index(which, kernel), spans, spatial):
            at = at * length + a + k
        here = (slice(None), slice(None), *(slice(i, i + 1) for i in place))
        out[here], index[here] = best, at
    return out, index


bin_maximum.vjp(input=lambda g, out, shape: deposit(g, out[1], shape[2:]))


def _adaptive_max(d: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    x, bare = _batched(input, d, f"adaptive_max_pool{d}d")
    out, index = bin_maximum(x, _sizes(output_size, x.shape[2:]))
    if bare:
        out, index = out.squeeze(0), index.squeeze(0)
    return (out, index) if return_indices else out


def _adaptive(d: int) -> Any:
    def adaptive_avg_pool(input: Any, output_size: Any) -> Any:
        return _adaptive_avg(d, input, output_size)

    def adaptive_max_pool(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        return _adaptive_max(d, input, output_size, return_indices)

    adaptive_avg_pool.__name__ = f"adaptive_avg_pool{d}d"
    adaptive_avg_pool.__doc__ = (
        f"The averages over `output_size` bins of (N, C, *) or (C, *), {d}-d."
    )
    adaptive_max_pool.__name__ = f"adaptive_max_pool{d}d"
    adaptive_max_pool.__doc__ = f"The maxima over `output_size` bins of (N, C, *) or (C, *), {d}-d."
    return composite(adaptive_avg_pool, method=False), composite(adaptive_max_pool, method=False)


adaptive_avg_pool1d, adaptive_max_pool1d = _adaptive(1)
adaptive_avg_pool2d, adaptive_max_pool2d = _adaptive(2)
adaptive_avg_pool3d, adaptive_max_pool3d = _adaptive(3)


# --- fractional max pools ------------------------------------------------------------------------


def _starts(sample: Any, n: int, size: int, kernel: int) -> Any:
    """Where the windows start that a random `sample` in [0, 1) chooses; the last one ends at `n`."""
    if size == 1:
        return np.array([n - kernel])
    alpha = (n - kernel) / (size - 1)
    starts = np.trunc((np.arange(size) + sample) * alpha) - np.trunc(sample * alpha)
    starts[-1] = n - kernel
    return starts.astype(np.int64)


@op(method=False, node_name="FractionalMaxPool2DBackward0", unread=0)
def fractional_maximum(input: Any, kernel: Any, sizes: Any, samples: Any) -> tuple[Any, Any]:
    """The maxima over windows that `samples` (N, C, d) places, and where they are."""
    n, c, *spatial = input.shape
    d = len(kernel)
    samples = to_host(samples)
    out: Any = np.zeros_like(input, shape=(n, c, *sizes))
    index: Any = np.zeros_like(input, shape=(n, c, *sizes), dtype=np.int64)
    for i, j in np.ndindex(n, c):
        # PyTorch's samples belong to the dimensions from the last to the first, but depth's is first
        drawn = samples[i, j] if d == 3 else samples[i, j][::-1]
        spans = [
            _starts(u, k, s, w)[:, None] + np.arange(w)
            for u, k, s, w in zip(drawn, spatial, sizes, kernel)
        ]
        grid = np.ix_(*(s.reshape(-1) for s in spans))
        cut = input[i, j][grid].reshape([v for s, w in zip(sizes, kernel) for v in (s, w)])
        cut = np.transpose(cut, (*range(0, 2 * d, 2), *range(1, 2 * d, 2))).reshape(*sizes, -1)
        which = np.argmax(cut, axis=-1)
        out[i, j] = np.take_along_axis(cut, which[..., None], -1)[..., 0]
        at: Any = 0
        for a, (k, span) in enumerate(zip(np.unravel_index(which, kernel), spans)):
            start = np.reshape(beside(span[:, 0], input), (-1, *(1,) * (d - 1 - a)))
            at = at * spatial[a] + start + k
        index[i, j] = at
    return out, index


fractional_maximum.vjp(input=lambda g, out, shape: deposit(g, out[1], shape[2:]))


def _fractional(
    d: int, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any,
    return_indices: bool, samples: Any,
) -> Any:  # fmt: skip
    from refgrad.ops.dropping import uniform_like

    if output_size is None and output_ratio is None:
        raise ValueError(
            f"fractional_max_pool{d}d requires specifying either an output_size or an output_ratio"
        )
    x, bare = _batched(input, d, f"fractional_max_pool{d}d")
    kernel = each(kernel_size, d, "kernel_size")
    if output_size is None:
        ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * d
        output_size = [int(n * r) for n, r in zip(x.shape[2:], ratios)]
    sizes = each(output_size, d, "output_size")
    if any(s + k - 1 > n for s, k, n in zip(sizes, kernel, x.shape[2:])):
        raise RuntimeError(
            f"fractional_max_pool{d}d(): pool size {kernel} too large relative to input size "
            f"{list(x.shape[2:])}"
        )
    if samples is None:
        samples = uniform_like(x, (*x.shape[:2], d)).to(x.device)
    out, index = fractional_maximum(x, kernel, sizes, samples)
    if bare:
        out, index = out.squeeze(0), index.squeeze(0)
    return (out, index) if return_indices else out


@composite(method=False)
def fractional_max_pool2d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """The maxima over windows of (N, C, H, W), placed at random, as many as `output_size`."""
    return _fractional(
        2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


@composite(method=False)
def fractional_max_pool3d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """The maxima over windows of (N, C, D, H, W), placed at random, as many as `output_size`."""
    return _fractional(
        3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


# --- unpooling -----------------------------------------------------------------------------------


@op(method=False, node_name="MaxUnpool2DBackward0")
def unpool(input: Any, indices: Any, size: Any) -> Any:
    """Zeros (N, C, *size) with the elements of `input` at `indices`; of several the last stays.

    Raises:
        RuntimeError: an index is out of range.
    """
    area = math.prod(size)
    if indices.size and (indices.min() < 0 or indices.max() >= area):
        raise RuntimeError(f"Found an invalid max index, output size is {list(size)}")
    n, c = input.shape[:2]
    out: Any = np.zeros_like(input, shape=(n, c, area))
    rows = (
        np.reshape(beside(np.arange(n), indices), (-1, 1, 1)),
        np.reshape(beside(np.arange(c), indices), (-1, 1)),
    )
    out[(*rows, np.reshape(indices, (n, c, -1)))] = np.reshape(input, (n, c, -1))
    return np.reshape(out, (n, c, *size))


def _stays(indices: Any, size: Any) -> Any:
    """Whether an element is the one that stays of those at its index."""
    own = np.reshape(beside(np.arange(indices.size), indices), indices.shape)
    return pick(unpool(own, indices, size), indices) == own


# PyTorch gives every element at an index the gradient, also those that were overwritten
unpool.vjp(input=lambda g, indices, size: pick(g, indices) * _stays(indices, size)).linear("input")


def _max_unpool(
    d: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Any:
    kernel, padding = each(kernel_size, d, "kernel_size"), each(padding, d, "padding")
    stride = kernel if stride is None or stride in ([], ()) else each(stride, d, "stride")
    if tuple(input.shape) != tuple(indices.shape):
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but "
            f"got indices tensor with shape: {list(indices.shape)}"
        )
    x, bare = _batched(input, d, f"max_unpool{d}d")
    if bare:
        indices = indices.unsqueeze(0)
    default = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(x.shape[2:], stride, kernel, padding)]
    if output_size is None:
        sizes = default
    else:
        sizes = list(output_size)[-d:] if len(output_size) >= d else list(output_size)
        if len(output_size) not in (d, d + 2):
            raise ValueError(
                f"output_size should be a sequence containing {d} or {d + 2} elements, but it has a "
                f"length of '{len(output_size)}'"
            )
        for size, n, s in zip(sizes, default, stride):
            if not n - s < size < n + s:
                raise ValueError(
                    f'invalid output_size "{sizes}" (dim must be between {n - s} and {n + s})'
                )
    out = unpool(x, indices, tuple(sizes))
    return out.squeeze(0) if bare else out


def _make_max_unpool(d: int) -> Any:
    def max_unpool(
        input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
        output_size: Any = None,
    ) -> Any:  # fmt: skip
        return _max_unpool(d, input, indices, kernel_size, stride, padding, output_size)

    max_unpool.__name__ = f"max_unpool{d}d"
    max_unpool.__doc__ = f"The inverse of max_pool{d}d where the maxima were, zeros elsewhere."
    return composite(max_unpool, method=False)


max_unpool1d, max_unpool2d, max_unpool3d = map(_make_max_unpool, (1, 2, 3))
