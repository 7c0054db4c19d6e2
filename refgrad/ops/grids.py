"""Images read at the points of a grid."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from refgrad.ops.arrays import as_array
from refgrad.ops.composites import composite
from refgrad.ops.placing import constant
from refgrad.ops.pooling import pick
from refgrad.ops.products import matmul
from refgrad.ops.resizing import cubic
from refgrad.tensor import wrap


def _warn_corners(align_corners: bool | None, name: str) -> bool:
    if align_corners is None:
        warnings.warn(
            f"Default {name} and affine_grid behavior has changed to align_corners=False since 1.3.0. "
            "Please specify align_corners=True if the old behavior is desired.",
            stacklevel=3,
        )
    return bool(align_corners)


@composite(method=False)
def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Any:
    """The grid (N, *spatial, d) of points where `theta`, (N, d, d + 1), sends those of an image.

    Raises:
        RuntimeError: `theta` or `size` has other dimensions.
    """
    align = _warn_corners(align_corners, "affine_grid")
    n, spatial = int(size[0]), [int(s) for s in size[2:]]
    d = len(spatial)
    if d not in (2, 3) or tuple(theta.shape) != (n, d, d + 1):
        raise RuntimeError(
            f"Expected a batch of {d}D affine matrices of shape {n}x{d}x{d + 1} for size {list(size)}. "
            f"Got {list(theta.shape)}."
        )
    axes = []
    for s in spatial:
        line = np.linspace(-1, 1, s) if s > 1 else np.zeros(s)
        axes.append(line if align else line * (s - 1) / s)
    points = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(spatial)], axis=-1)
    base = constant(points.reshape(-1, d + 1).astype(theta.dtype.numpy), theta)
    return matmul(base, theta.transpose(1, 2)).reshape(n, *spatial, d)


def _unnormalise(x: Any, size: int, align: bool) -> Any:
    return (x + 1) * ((size - 1) / 2) if align else ((x + 1) * size - 1) / 2


def _reflect(x: Any, low: float, high: float) -> Any:
    """x reflected at `low` and `high` until it lies between them."""
    if low == high:
        return x * 0.0
    span = high - low
    x = (x - low).abs()
    turns = np.floor(x._array / span)
    rest = x - _constant(turns * span, x)
    odd = _constant(turns % 2, x)
    return (1 - 2 * odd) * rest + odd * span + low


def _constant(array: Any, like: Any) -> Any:
    return wrap(as_array(array).astype(like.dtype.numpy))


def _clip(x: Any, size: int) -> Any:
    """x clipped to the image; as in PyTorch the gradient is zero at the borders themselves."""
    array = x._array
    inside = (array > 0) & (array < size - 1)
    return x * _constant(inside, x) + _constant(np.where(inside, 0, np.clip(array, 0, size - 1)), x)


def _pad_grid(x: Any, size: int, padding_mode: str, align: bool) -> Any:
    if padding_mode == "border":
        return _clip(x, size)
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        return _clip(_reflect(x, low, high), size)
    return x


def _look_up(input: Any, at: list[Any]) -> Any:
    """The elements of (N, C, *spatial) at integer coordinates (N, *places); zero outside."""
    n, c, *spatial = input.shape
    inside: Any = True
    flat: Any = 0
    for i, size in zip(at, spatial):
        inside = inside & (i >= 0) & (i < size)
        flat = flat * size + np.clip(i, 0, size - 1).astype(np.int64)
    index = np.broadcast_to(flat[:, None], (n, c, *flat.shape[1:]))
    return pick(input, wrap(index)) * _constant(inside[:, None], input)


@composite(method=False)
def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:  # fmt: skip
    """(N, C, *spatial) read at the points of `grid`, (N, *places, d), whose coordinates are in [-1, 1].

    The last coordinate of the image comes first in a point. `mode` is bilinear, nearest or bicubic;
    `padding_mode` (what is outside) zeros, border or reflection.

    Raises:
        ValueError: a mode is unknown.
        RuntimeError: the shapes do not fit.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but "
            f"got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    align = _warn_corners(align_corners, "grid_sample")
    d = input.ndim - 2
    if d not in (2, 3) or grid.ndim != input.ndim or grid.shape[-1] != d:
        raise RuntimeError(
            "grid_sampler(): expected 4D or 5D input and a grid of as many dimensions with a point in "
            f"each last one, but got sizes {list(input.shape)} and {list(grid.shape)}"
        )
    if input.shape[0] != grid.shape[0] or 0 in input.shape[2:] or (mode == "bicubic" and d == 3):
        raise RuntimeError(
            "grid_sampler(): expected grid and input to have the same batch size, a non-empty input and "
            f"4D for bicubic, but got sizes {list(input.shape)} and {list(grid.shape)}"
        )
    spatial = input.shape[2:]
    points = [_unnormalise(grid[..., d - 1 - i], n, align) for i, n in enumerate(spatial)]
    if mode == "bicubic":
        return _grid_cubic(input, points, padding_mode, align)
    points = [_pad_grid(x, n, padding_mode, align) for x, n in zip(points, spatial)]
    arrays = [x._array for x in points]
    if mode == "nearest":
        return _look_up(input, [np.rint(a) for a in arrays]) + 0.0 * grid.sum()
    floors = [np.floor(a) for a in arrays]
    out: Any = 0
    for corner in np.ndindex(*(2,) * d):
        weight: Any = 1
        for x, f, up in zip(points, floors, corner):
            t = x - _constant(f, x)
            weight = weight * (t if up else 1 - t)
        value = _look_up(input, [f + up for f, up in zip(floors, corner)])
        out = out + value * weight.unsqueeze(1)
    return out


def _grid_cubic(input: Any, points: list[Any], padding_mode: str, align: bool) -> Any:
    spatial = input.shape[2:]
    floors = [np.floor(x._array) for x in points]
    weights = [cubic(x - _constant(f, x)) for x, f in zip(points, floors)]
    out: Any = 0
    for i, wy in enumerate(weights[0]):
        for j, wx in enumerate(weights[1]):
            at = [
                _pad_grid(_constant(f + k - 1, p), n, padding_mode, align)._array
                for f, k, p, n in zip(floors, (i, j), points, spatial)
            ]
            out = out + _look_up(input, [np.trunc(a) for a in at]) * (wy * wx).unsqueeze(1)
    return out
