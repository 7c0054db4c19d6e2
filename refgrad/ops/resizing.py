"""Resizing images: interpolation and pixel shuffles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.ops.composites import composite
from refgrad.ops.padding import resample

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]

# Where each place of the output looks in one dimension of the input: indices and weights of shape
# (taps, out). What PyTorch computes in float32 whatever the dtype is done so here.


def _nearest(n: int, out: int, factor: float | None, exact: bool) -> Any:
    scale = np.float32(1 / factor if factor else n / out)
    shift = np.float32(0.5 if exact else 0)
    at = np.floor((np.arange(out, dtype=np.float32) + shift) * scale).astype(np.int64)
    return np.minimum(at, n - 1)[None], None


def _source(n: int, out: int, factor: float | None, align_corners: bool) -> Any:
    if align_corners:
        return np.arange(out) * ((n - 1) / (out - 1) if out > 1 else 0.0)
    return (np.arange(out) + 0.5) * (1 / factor if factor else n / out) - 0.5


def _linear(n: int, out: int, factor: float | None, align_corners: bool) -> Any:
    at = np.maximum(_source(n, out, factor, align_corners), 0)
    i = np.minimum(np.floor(at).astype(np.int64), n - 1)
    t = np.clip(at - i, 0, 1)
    return np.stack([i, np.minimum(i + 1, n - 1)]), np.stack([1 - t, t])


def cubic(t: Any, a: float = -0.75) -> tuple[Any, ...]:
    """The weights of the four neighbours at -1 - t, -t, 1 - t and 2 - t: Keys's kernel."""

    def near(x: Any) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return far(t + 1), near(t), near(1 - t), far(2 - t)


def _cubic(n: int, out: int, factor: float | None, align_corners: bool) -> Any:
    at = _source(n, out, factor, align_corners)
    i = np.floor(at)
    taps = np.stack([i + k for k in (-1, 0, 1, 2)]).astype(np.int64)
    return np.clip(taps, 0, n - 1), np.stack(cubic(at - i))


def _antialiased(n: int, out: int, factor: float | None, align_corners: bool, order: int) -> Any:
    """A linear (order 1) or cubic (2) kernel as wide as the output's pixels are."""
    scale = 1 / factor if factor else n / out
    if align_corners:
        scale = (n - 1) / (out - 1) if out > 1 else 0.0
    width = max(scale, 1.0)
    support = order * width
    centre = scale * (np.arange(out) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), n)
    taps = first + np.arange((last - first).max(initial=1))[:, None]
    x = np.abs(taps - centre + 0.5) / width
    if order == 1:
        w = np.maximum(1 - x, 0)
    else:
        near, far = cubic(x, -0.5)[1], cubic(x - 1, -0.5)[0]
        w = np.where(x < 1, near, np.where(x < 2, far, 0))
    w = np.where(taps < last, w, 0)
    return np.minimum(taps, n - 1), w / w.sum(0)


_MODES = {  # the input's dimensions that each mode takes
    "nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "area": (3, 4, 5), "linear": (3,),
    "bilinear": (4,), "bicubic": (4,), "trilinear": (5,),
}  # fmt: skip


@composite(method=False)
def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:  # fmt: skip
    """(N, C, *spatial) resized to `size`, or by `scale_factor`.

    `mode` is nearest, nearest-exact, linear, bilinear, bicubic, trilinear or area.

    Raises:
        ValueError: the arguments contradict each other.
        NotImplementedError: the mode is unknown or not for inputs of that many dimensions.
    """
    corners = mode in ("linear", "bilinear", "bicubic", "trilinear")
    if align_corners is not None and not corners:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear | "
            "bicubic | trilinear"
        )
    if mode not in _MODES or input.ndim not in _MODES[mode]:
        raise NotImplementedError(
            f"Input Error: {input.ndim}D input with mode {mode!r}; the modes are those of 3D, 4D and 5D "
            "inputs: nearest | nearest-exact | linear | bilinear | bicubic | trilinear | area"
        )
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes")
    spatial = input.shape[2:]
    sizes, factors = _target(spatial, size, scale_factor, recompute_scale_factor)
    if min(sizes) < 1 or min(spatial) < 1:
        raise RuntimeError(
            f"Input and output sizes should be greater than 0, but got input {list(spatial)} output "
            f"{list(sizes)}"
        )
    if mode == "area":
        from refgrad.ops import adaptive

        pool = getattr(adaptive, f"adaptive_avg_pool{len(spatial)}d")
        return pool(input, sizes)
    if sizes == tuple(spatial) and (antialias or mode.endswith("linear")):
        return input.clone()
    for i, (n, out, factor) in enumerate(zip(spatial, sizes, factors)):
        if n == out and (antialias or mode.endswith("linear")):
            continue  # as in PyTorch, whatever the factor
        if mode.startswith("nearest"):
            if len(spatial) == 2 and mode == "nearest" and out in (n, 2 * n):
                factor = None  # as in PyTorch, in two dimensions alone
            taps = _nearest(n, out, factor, mode == "nearest-exact")
        elif antialias:
            taps = _antialiased(n, out, factor, bool(align_corners), 1 if mode == "bilinear" else 2)
        else:
            taps = (_cubic if mode == "bicubic" else _linear)(n, out, factor, bool(align_corners))
        input = resample(input, 2 + i, *taps)
    return input


def _target(spatial: Any, size: Any, scale_factor: Any, recompute: Any) -> Any:
    """The output's size, and the factors that positions are computed with (None: from the sizes)."""
    d = len(spatial)
    if (size is None) == (scale_factor is None):
        raise ValueError("only one of size or scale_factor should be defined" if size is not None
                         else "either size or scale_factor should be defined")  # fmt: skip
    if size is not None:
        sizes = tuple(int(s) for s in size) if isinstance(size, (tuple, list)) else (int(size),) * d
        if len(sizes) != d:
            raise ValueError(
                f"Input and output must have the same number of spatial dimensions, but got input with "
                f"spatial dimensions of {list(spatial)} and output size of {list(sizes)}."
            )
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        return sizes, (None,) * d
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * d
    if len(factors) != d:
        raise ValueError(
            "Input and scale_factor must have the same number of spatial dimensions, but got input "
            f"with spatial dimensions of {list(spatial)} and scale_factor of shape {list(factors)}."
        )
    sizes = tuple(math.floor(float(n) * f) for n, f in zip(spatial, factors))
    return sizes, (None,) * d if recompute else tuple(map(float, factors))


@composite(method=False)
def upsample(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:  # fmt: skip
    """`interpolate`, by its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


@composite(method=False)
def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` by nearest neighbours."""
    return interpolate(input, size, scale_factor, "nearest")


@composite(method=False)
def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """Bilinear `interpolate` with aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


# --- shuffles ------------------------------------------------------------------------------------


@composite(method=False)
def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """(*, C r^2, H, W) as (*, C, H r, W r).

    Raises:
        RuntimeError: r^2 does not divide the channels.
    """
    r = int(upscale_factor)
    if input.ndim < 3:
        raise RuntimeError(
            f"pixel_shuffle expects input to have at least 3 dimensions, but got input with {input.ndim} "
            "dimension(s)"
        )
    *lead, c, h, w = input.shape
    if r <= 0 or c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
            f"upscale_factor, but input.size(-3)={c} is not divisible by {r * r}"
        )
    n = len(lead)
    x = input.reshape(*lead, c // (r * r), r, r, h, w)
    x = x.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    x = x.reshape(*lead, c // (r * r), h * r, w * r)
    return x.clone() if r == 1 else x


@composite(method=False)
def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """(*, C, H r, W r) as (*, C r^2, H, W).

    Raises:
        RuntimeError: r does not divide the height and the width.
    """
    r = int(downscale_factor)
    if input.ndim < 3:
        raise RuntimeError(
            "pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
            f"{input.ndim} dimension(s)"
        )
    *lead, c, h, w = input.shape
    if r <= 0 or h % r or w % r:
        raise RuntimeError(
            "pixel_unshuffle expects height and width to be divisible by downscale_factor, but "
            f"input.size(-2)={h}, input.size(-1)={w} are not divisible by {r}"
        )
    n = len(lead)
    x = input.reshape(*lead, c, h // r, r, w // r, r)
    x = x.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    x = x.reshape(*lead, c * r * r, h // r, w // r)
    return x.clone() if r == 1 else x


@composite(method=False)
def channel_shuffle(input: Any, groups: int) -> Any:
    """The channels of (N, C, *) dealt out from `groups` groups in turn.

    Raises:
        RuntimeError: `groups` does not divide the channels.
    """
    if input.ndim < 3:
        raise RuntimeError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}"
        )
    n, c, *spatial = input.shape
    if groups <= 0 or c % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups."
        )
    return input.reshape(n, groups, c // groups, *spatial).transpose(1, 2).reshape(n, c, *spatial)
