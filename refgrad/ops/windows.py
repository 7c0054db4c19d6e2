"""Sliding windows over the spatial dimensions of (N, C, *spatial) arrays, and unfold and fold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from refgrad.ops.composites import composite
from refgrad.ops.op import op


def each(value: Any, n: int, name: str = "expected") -> tuple[int, ...]:
    """`value`, an int or `n` of them (or one in a sequence), as `n` ints.

    Raises:
        RuntimeError: it has another length.
    """
    if not isinstance(value, (tuple, list)):
        return (int(value),) * n
    if len(value) == 1:
        return (int(value[0]),) * n
    if len(value) != n:
        raise RuntimeError(
            f"{name} must be a single int or a tuple of {n} ints, not {tuple(value)}"
        )
    return tuple(int(v) for v in value)


def pad_spatial(x: Any, before: Any, after: Any, fill: Any = 0) -> Any:
    """`x` with `fill` around its last dimensions; where a width is negative, cropped."""
    if not any(before) and not any(after):
        return x
    lead = x.ndim - len(before)
    old = x.shape[lead:]
    new = padded_size(old, before, after)
    if any(n < 0 for n in new):
        raise RuntimeError(
            f"The input size {list(old)}, plus negative padding {list(before)} and {list(after)}, "
            "resulted in a negative output size"
        )
    out: Any = np.zeros_like(x, shape=(*x.shape[:lead], *new))
    if fill:
        out[...] = fill
    put_inside(out, x, before, after)
    return out


def padded_size(size: Any, before: Any, after: Any) -> tuple[int, ...]:
    """The last dimensions with these widths around them."""
    return tuple(b + n + a for b, n, a in zip(before, size, after))


def put_inside(out: Any, x: Any, before: Any, after: Any) -> None:
    """Write `x` into `out` with these widths around it, or what a negative width leaves of it."""
    old, new = (a.shape[a.ndim - len(before) :] for a in (x, out))
    into: Any = tuple(slice(max(b, 0), m - max(a, 0)) for b, m, a in zip(before, new, after))
    taken: Any = tuple(slice(max(-b, 0), n - max(-a, 0)) for b, n, a in zip(before, old, after))
    if all(s.stop > s.start for s in (*into, *taken)):
        out[(..., *into)] = x[(..., *taken)]


def count(size: int, kernel: int, stride: int, dilation: int) -> int:
    """How many windows fit into `size`; not positive where none does."""
    return (size - dilation * (kernel - 1) - 1) // stride + 1


def windows(x: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
    """A view (N, C, *kernel, *places) of the windows of `x`, (N, C, *spatial)."""
    d = len(kernel)
    if type(x) is np.ndarray and x.flags.c_contiguous:  # 4 us in place of 20
        own = x.strides[2:]
        places = tuple(map(count, x.shape[2:], kernel, stride, dilation))
        steps = [n * t for by in (dilation, stride) for n, t in zip(own, by)]
        return np.ndarray(
            (*x.shape[:2], *kernel, *places), x.dtype, x, 0, (*x.strides[:2], *steps)
        )
    span = tuple(r * (k - 1) + 1 for k, r in zip(kernel, dilation))
    view: Any = sliding_window_view(x, span, axis=tuple(range(2, 2 + d)))
    view = view[
        (..., *(slice(None, None, s) for s in stride), *(slice(None, None, r) for r in dilation))
    ]
    return np.transpose(view, (0, 1, *range(2 + d, 2 + 2 * d), *range(2, 2 + d)))


def overlap_add(columns: Any, spatial: Any, stride: Any, dilation: Any) -> Any:
    """The transpose of `windows`: (N, C, *kernel, *places) added into zeros (N, C, *spatial)."""
    d = len(spatial)
    kernel, places = columns.shape[2 : 2 + d], columns.shape[2 + d :]
    out: Any = np.zeros_like(columns, shape=(*columns.shape[:2], *spatial))
    for offset in np.ndindex(*kernel):
        at: Any = tuple(
            slice(k * r, k * r + (o - 1) * s + 1, s)
            for k, r, o, s in zip(offset, dilation, places, stride)
        )
        meets = out[(..., *at)]  # `out[at] +=` would copy the sum to where it is, on a device
        np.add(meets, columns[(slice(None), slice(None), *offset)], out=meets)
    return out


# --- unfold and fold -----------------------------------------------------------------------------


@op(method=False, node_name="Im2ColBackward0")
def im2col(input: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """The windows of (N, C, H, W) as columns: (N, C * prod(kernel_size), places)."""
    n, c = input.shape[:2]
    view = windows(pad_spatial(input, padding, padding), kernel_size, stride, dilation)
    return np.reshape(view, (n, c * math.prod(kernel_size), math.prod(view.shape[-2:])))


@op(method=False, node_name="Col2ImBackward0")
def col2im(
    input: Any, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Any:
    """The transpose of `im2col`: columns added up where they came from."""
    padded = tuple(s + 2 * p for s, p in zip(output_size, padding))
    places = tuple(map(count, padded, kernel_size, stride, dilation))
    columns = np.reshape(
        input,
        (input.shape[0], input.shape[1] // math.prod(kernel_size), *kernel_size, *places),
    )
    crop = tuple(-p for p in padding)
    return pad_spatial(overlap_add(columns, padded, stride, dilation), crop, crop)


im2col.vjp(
    input=lambda g, shape, kernel_size, dilation, padding, stride: col2im(
        g, shape[2:], kernel_size, dilation, padding, stride
    )
)
col2im.vjp(
    input=lambda g, kernel_size, dilation, padding, stride: im2col(
        g, kernel_size, dilation, padding, stride
    )
)


@composite(method=False)
def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """The windows of (N, C, H, W) or (C, H, W) as columns: (N, C * prod(kernel_size), places).

    Raises:
        RuntimeError: the input has other dimensions, or no window fits.
    """
    k, r, p, s = (each(v, 2) for v in (kernel_size, dilation, padding, stride))
    if input.ndim not in (3, 4) or 0 in input.shape[-3:]:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
            f"dimensions for input, but got: {list(input.shape)}"
        )
    places = [count(n + 2 * q, *ksr) for n, q, *ksr in zip(input.shape[-2:], p, k, s, r)]
    if min(places) < 1:
        raise RuntimeError(
            f"Given input with spatial size {tuple(input.shape[-2:])}, kernel_size={k}, dilation={r}, "
            f"padding={p}, stride={s}, calculated shape of the array of sliding blocks as "
            f"{tuple(places)}, but its components must be at least one."
        )
    if input.ndim == 3:
        return im2col(input.unsqueeze(0), k, r, p, s).squeeze(0)
    return im2col(input, k, r, p, s)


@composite(method=False)
def fold(
    input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Any:  # fmt: skip
    """Columns (N, C * prod(kernel_size), places) added up to (N, C, *output_size).

    Raises:
        RuntimeError: the columns are not those of such windows.
    """
    size, k, r, p, s = (each(v, 2) for v in (output_size, kernel_size, dilation, padding, stride))
    if input.ndim not in (2, 3) or 0 in input.shape[-2:]:
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero "
            f"dimensions for input, but got: {list(input.shape)}"
        )
    if input.shape[-2] % math.prod(k):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but "
            f"got input.size(1)={input.shape[-2]} and kernel_size={k}."
        )
    places = [count(n + 2 * q, *ksr) for n, q, *ksr in zip(size, p, k, s, r)]
    if min(places) < 1 or math.prod(places) != input.shape[-1]:
        raise RuntimeError(
            f"Given output_size={size}, kernel_size={k}, dilation={r}, padding={p}, stride={s}, "
            "expected size of input's dimension 2 to match the calculated number of sliding blocks "
            f"{' * '.join(map(str, places))} = {math.prod(places)}, but got "
            f"input.size(2)={input.shape[-1]}."
        )
    if input.ndim == 2:
        return col2im(input.unsqueeze(0), size, k, r, p, s).squeeze(0)
    return col2im(input, size, k, r, p, s)
