"""Convolutions, of any number of spatial dimensions.

All of them are one trilinear form, <g, conv(x, w)>: a convolution is its derivative by g, a transposed
convolution its derivative by x, and the gradient of the weight its derivative by w. So each of the
three ops has the other two as its rules, and derivatives of any order are convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from refgrad.libraries import on_device
from refgrad.ops.composites import composite
from refgrad.ops.kernels import inner_over, reshaped, swapped
from refgrad.ops.op import op
from refgrad.ops.windows import count, each, pad_spatial, padded_size, put_inside, windows

__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolution",
]  # fmt: skip

# elements of window columns at a time: on the CPU they stay in cache between copy and product, or
# between product and the many sums that it is added up by; on a device each call is a launch, whose
# time small arrays do not fill, and only memory is a bound
_CACHED, _ADDED, _LAUNCHED = 1 << 18, 1 << 20, 1 << 27


def _batches(x: Any, elements: int, most: int = _CACHED) -> Iterator[slice]:
    """The images of `x`, with `elements` of columns each, as many as are best done at a time."""
    n = len(x)
    step = max(1, (_LAUNCHED if on_device(x) else most) // max(elements, 1))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _window_columns(
    x: Any, kernel: Any, places: Any, stride: Any, dilation: Any
) -> Iterator[tuple[slice, Any]]:
    """The windows of a padded x as (m, C * prod(kernel), prod(places)), of some images at a time."""
    inside = (..., *(slice(o) for o in places))
    rows, length = x.shape[1] * math.prod(kernel), math.prod(places)
    for some in _batches(x, rows * length):
        view = windows(x[some], kernel, stride, dilation)[inside]
        yield some, reshaped(view, (len(view), rows, length))


def _offsets(kernel: Any, places: Any, stride: Any, dilation: Any) -> Iterator[tuple[Any, Any]]:
    """Each element of a kernel, and the slices of a padded x that it meets at all places."""
    for k in np.ndindex(*kernel):
        yield (
            (..., *k),
            (..., *(
                slice(i * r, i * r + (o - 1) * s + 1, s)
                for i, r, o, s in zip(k, dilation, places, stride)
            )),
        )  # fmt: skip


def _correlate(
    x: Any, w: Any, places: Any, stride: Any, before: Any, after: Any, dilation: Any, groups: int
) -> Any:
    """y[n, o, p] = sum over c, k of w[o, c, k] x[n, c, stride p + dilation k - before]."""
    n, o, per, kernel = x.shape[0], w.shape[0], w.shape[1], w.shape[2:]
    if not n * o * math.prod(places) * per:
        return np.zeros_like(x, shape=(n, o, *places), order="C")
    out: Any = np.empty_like(x, shape=(n, o, *places), order="C")  # for views by another shape
    spatial = padded_size(x.shape[2:], before, after)
    if _lies_in_strips(x, spatial, kernel, places, stride):
        strips = _Strips(x, before, after, kernel, places, dilation)
        inside = (..., *(slice(q) for q in places))
        apart = min(per * math.prod(kernel[:-1]), strips.length) >= 64
        each = np.copy(np.moveaxis(w, -1, 0), order="C") if apart else w
        each = reshaped(each, (kernel[-1] if apart else 1, groups, o // groups, -1))
        for some, parts in strips.parts(groups, apart):
            # 8 images of 32 channels and 32 x 32 take 2.0 ms in place of 3.4 by windows, and 4 of
            # 3 and 8 x 8 0.03 in place of 0.08
            wide = np.matmul(each[0], parts[0])
            for i in range(1, len(parts)):
                wide += np.matmul(each[i], parts[i])
            del parts  # with what it holds in memory
            out[some] = reshaped(wide, (-1, o, places[0], *spatial[1:]))[inside]
        return out
    rows = reshaped(w, (groups, o // groups, per * math.prod(kernel)))
    flat = reshaped(out, (n, groups, o // groups, math.prod(places)))
    x = pad_spatial(x, before, after)
    for some, columns in _window_columns(x, kernel, places, stride, dilation):
        columns = reshaped(columns, (len(columns), *rows.shape[::2], columns.shape[2]))
        np.matmul(rows, columns, out=flat[some])
    return out


def _lies_in_strips(x: Any, spatial: Any, kernel: Any, places: Any, stride: Any) -> bool:
    """Whether `_Strips` are worth their edges; on a device each is a launch, and windows are one for all."""
    few = 2 * math.prod(spatial[1:]) <= 3 * math.prod(places[1:])
    return max(stride) == 1 < math.prod(kernel) and few and not on_device(x)


class _Strips:
    """A padded x with its spatial dimensions in one, and where each element of the kernel meets it.

    At stride 1 that is a single strip, of the same length for all. Places where it runs across an
    edge are met too, and are to be cut off.
    """

    def __init__(
        self, x: Any, before: Any, after: Any, kernel: Any, places: Any, dilation: Any
    ) -> None:
        n, c = x.shape[:2]
        self.kernel = kernel
        self.spatial = padded_size(x.shape[2:], before, after)
        steps = [math.prod(self.spatial[i + 1 :]) for i in range(len(kernel))]
        self.steps = [r * s for r, s in zip(dilation, steps)]
        self.offsets = [
            sum(i * s for i, s in zip(k, self.steps)) for k in np.ndindex(*kernel)
        ]
        area, self.length = math.prod(self.spatial), places[0] * steps[0]
        size = max(area, self.length + self.offsets[-1])
        self.flat: Any = np.zeros_like(x, shape=(n, c, size), order="C")
        put_inside(reshaped(self.flat[..., :area], (n, c, *self.spatial)), x, before, after)

    def parts(self, groups: int, apart: bool) -> Iterator[tuple[slice, list[Any]]]:
        """Of some images at a time what the kernel meets, (m, groups, K, length).

        K is C / groups * prod(kernel), or with `apart` it is done for each element of the kernel's
        last dimension, in the same memory: 8 images of 32 channels and 16 x 16 are copied in 26 us
        in place of 117, and with their products it takes 0.35 ms in place of 0.59.
        """
        c = self.flat.shape[1]
        outer, last = (self.kernel[:-1], self.kernel[-1]) if apart else (self.kernel, 1)
        step = self.steps[-1]
        reach = self.length + (last - 1) * step
        met = self._view((*outer, reach), (*self.steps[: len(outer)], 1))
        rows = c // groups * math.prod(outer)
        for some in _batches(self.flat, groups * rows * reach):
            strips = reshaped(met[some], (-1, groups, rows, reach))
            yield some, [strips[..., i * step : i * step + self.length] for i in range(last)]
            del strips  # before the next are made

    def _view(self, shape: Any, steps: Any) -> Any:
        """(N, C, *shape) of the flattened images, in no memory of its own."""
        flat = self.flat
        own = [s * flat.itemsize for s in steps]
        return np.ndarray((*flat.shape[:2], *shape), flat.dtype, flat, 0, (*flat.strides[:2], *own))

    def wide(self, y: Any) -> Any:
        """(N, O, *places) as (N, O, length): with zeros where strips run across an edge."""
        n, o, *places = y.shape
        wide: Any = np.zeros_like(y, shape=(n, o, places[0], *self.spatial[1:]), order="C")
        wide[(..., *(slice(q) for q in places))] = y
        return reshaped(wide, (n, o, self.length))

    def inner(self, y: Any) -> Any:
        """The sum over images and places of each channel of y, times what each element meets."""
        y = self.wide(y)
        met = self._view((*self.kernel, self.length), (*self.steps, 1))
        if met.dtype.kind == "f":
            # no strip stands in memory: 4 images of 64 channels and 32 x 32 0.09 ms for 0.31
            ones = (1,) * len(self.kernel)
            return np.vecdot(met, reshaped(y, (*y.shape[:2], *ones, -1))).sum(0)
        strips = [self.flat[..., o : o + self.length] for o in self.offsets]
        return np.stack([inner_over(y, strip, (0, 2))[0, :, 0] for strip in strips], 1)


def _spread(
    y: Any, w: Any, spatial: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """x[n, c, stride p + dilation k - padding] += w[o, c, k] y[n, o, p], of size `spatial`."""
    n, o, places = y.shape[0], y.shape[1], y.shape[2:]
    per, kernel = w.shape[1], w.shape[2:]
    if max(stride) == 1:  # a correlation with the kernel turned round: half the time of the columns
        full = [r * (k - 1) for r, k in zip(dilation, kernel)]
        before = tuple(f - p for f, p in zip(full, padding))
        after = tuple(s - q + p for s, q, p in zip(spatial, places, padding))
        turned = swapped(reshaped(w, (groups, o // groups, per, *kernel)), 1, 2)
        if math.prod(kernel) > 1:  # in order, for matmul has no BLAS for the flip: depthwise 1.0 ms for 2.2
            turned = np.copy(np.flip(turned, tuple(range(3, turned.ndim))), order="C")
        turned = reshaped(turned, (groups * per, o // groups, *kernel))
        return _correlate(y, turned, tuple(spatial), stride, before, after, dilation, groups)
    padded = tuple(
        max(s + 2 * p, (q - 1) * t + (k - 1) * r + 1)
        for s, p, q, t, k, r in zip(spatial, padding, places, stride, kernel, dilation)
    )
    rows = reshaped(w, (groups, o // groups, per * math.prod(kernel))).swapaxes(1, 2)
    y = reshaped(y, (n, groups, o // groups, math.prod(places)))
    out: Any = np.zeros_like(y, shape=(n, groups * per, *padded))
    if y.size:
        shape = (-1, groups * per, *kernel, *places)
        for some in _batches(y, groups * per * math.prod(kernel) * math.prod(places), _ADDED):
            columns = reshaped(rows @ y[some], shape)
            for k, at in _offsets(kernel, places, stride, dilation):
                meets = out[some][at]  # `[at] +=` would copy the sum to where it is, on a device
                np.add(meets, columns[(slice(None), slice(None), *k[1:])], out=meets)
    crop = tuple(-p for p in padding)
    rest = tuple(s + p - q for s, p, q in zip(spatial, padding, padded))
    return pad_spatial(out, crop, rest)


def _weight(
    y: Any, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """w[o, c, k] = sum over n, p of y[n, o, p] x[n, c, stride p + dilation k - padding]."""
    n, o, places = y.shape[0], y.shape[1], y.shape[2:]
    per = x.shape[1] // groups
    if not y.size or not x.size:
        return np.zeros_like(x, shape=(o, per, *kernel))
    spatial = padded_size(x.shape[2:], padding, padding)
    strips = None
    if _lies_in_strips(x, spatial, kernel, places, stride):
        strips = _Strips(x, padding, padding, kernel, places, dilation)
    else:
        x = pad_spatial(x, padding, padding)
    if o == groups and per == 1:  # a kernel for every channel: no product of matrices, 3 ms for 9
        if strips is not None:
            return reshaped(strips.inner(y), (o, per, *kernel))
        over = (0, *range(2, y.ndim))
        met = (x[at] for _, at in _offsets(kernel, places, stride, dilation))
        sums = [reshaped(inner_over(y, strip, over), (o,)) for strip in met]
        return reshaped(np.stack(sums, 1), (o, per, *kernel))
    rows = per * math.prod(kernel)
    total: Any = 0
    if strips is not None:
        y = reshaped(strips.wide(y), (n, groups, o // groups, -1))
        for some, parts in strips.parts(groups, False):
            total = total + _contracted(parts[0], y[some])
            del parts
    else:
        y = reshaped(y, (n, groups, o // groups, -1))
        for some, of in _window_columns(x, kernel, places, stride, dilation):
            total = total + _contracted(reshaped(of, (len(of), groups, rows, -1)), y[some])
    return reshaped(swapped(total, -1, -2), (o, per, *kernel))


def _contracted(columns: Any, y: Any) -> Any:
    """columns y^T, summed over images: more rows than those of y, put first they take half the time."""
    return np.sum(columns @ swapped(y, -1, -2), axis=0)


# --- the three ops -------------------------------------------------------------------------------


@op(method=False, node_name="ConvolutionBackward0")
def correlate(
    input: Any, weight: Any, size: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Any:
    """The convolution of (N, C, *) with (O, C / groups, *kernel), of spatial size `size`."""
    return _correlate(input, weight, size, stride, padding, padding, dilation, groups)


@op(method=False, node_name="ConvolutionBackward0")
def spread(
    input: Any, weight: Any, size: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Any:
    """The transposed convolution of (N, O, *) with (O, C / groups, *kernel), of size `size`."""
    return _spread(input, weight, size, stride, padding, dilation, groups)


@op(method=False, node_name="ConvolutionBackward0")
def weight_of(
    output: Any, input: Any, size: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Any:
    """The gradient by a weight with kernel `size` of <output, conv(input, weight)>."""
    return _weight(output, input, size, stride, padding, dilation, groups)


correlate.linear("input", "weight")
correlate.vjp(
    input=lambda g, weight, shape, stride, padding, dilation, groups:
        spread(g, weight, shape[2:], stride, padding, dilation, groups),
    weight=lambda g, input, shape, stride, padding, dilation, groups:
        weight_of(g, input, shape[2:], stride, padding, dilation, groups),
)  # fmt: skip
spread.vjp(
    input=lambda g, weight, shape, stride, padding, dilation, groups:
        correlate(g, weight, shape[2:], stride, padding, dilation, groups),
    weight=lambda g, input, shape, stride, padding, dilation, groups:
        weight_of(input, g, shape[2:], stride, padding, dilation, groups),
)  # fmt: skip
weight_of.vjp(
    output=lambda g, input, shape, stride, padding, dilation, groups:
        correlate(input, g, shape[2:], stride, padding, dilation, groups),
    input=lambda g, output, shape, stride, padding, dilation, groups:
        spread(output, g, shape[2:], stride, padding, dilation, groups),
)  # fmt: skip


# --- PyTorch's functions -------------------------------------------------------------------------


def convolution(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """A convolution, or a transposed one, of (N, C, *spatial) or (C, *spatial).

    Raises:
        RuntimeError: channels, groups, dtypes or sizes do not fit.
    """
    d = weight.ndim - 2
    if input.ndim not in (d + 1, d + 2):
        raise RuntimeError(
            f"Expected {d + 1}D (unbatched) or {d + 2}D (batched) input to "
            f"conv{'_transpose' if transposed else ''}{d}d, but got input of size: {list(input.shape)}"
        )
    if input.dtype is not weight.dtype:
        raise RuntimeError(
            f"Input type ({input.dtype!r}) and weight type ({weight.dtype!r}) should be the same"
        )
    if bias is not None and bias.dtype is not input.dtype:
        raise RuntimeError(
            f"Input type ({input.dtype!r}) and bias type ({bias.dtype!r}) should be the same"
        )
    if input.ndim == d + 1:
        out = convolution(
            input.unsqueeze(0),
            weight,
            bias,
            stride,
            padding,
            dilation,
            transposed,
            output_padding,
            groups,
        )
        return out.squeeze(0)
    stride, dilation = each(stride, d, "stride"), each(dilation, d, "dilation")
    extra = each(output_padding, d, "output_padding")
    if min(stride) < 1:
        raise RuntimeError("non-positive stride is not supported")
    if min(dilation) < 1:
        raise RuntimeError("dilation should be greater than zero")
    if isinstance(padding, str):
        input, padding = _named_padding(input, weight, padding, stride, dilation)
    else:
        padding = each(padding, d, "padding")
    if min(padding) < 0:
        raise RuntimeError("negative padding is not supported")
    kernel, spatial = weight.shape[2:], input.shape[2:]
    _check_channels(input.shape, weight.shape, bias, transposed, groups)
    if transposed:
        if any(e >= max(s, r) for e, s, r in zip(extra, stride, dilation)):
            raise RuntimeError(
                "output padding must be smaller than either stride or dilation, but got "
                f"output_padding: {extra} stride: {stride} dilation: {dilation}"
            )
        size = tuple(
            (n - 1) * s - 2 * p + r * (k - 1) + e + 1
            for n, s, p, r, k, e in zip(spatial, stride, padding, dilation, kernel, extra)
        )
        function = spread
    else:
        padded = tuple(n + 2 * p for n, p in zip(spatial, padding))
        if any(n < r * (k - 1) + 1 for n, r, k in zip(padded, dilation, kernel)):
            raise RuntimeError(
                f"Calculated padded input size per channel: {padded}. Kernel size: {tuple(kernel)}. "
                "Kernel size can't be greater than actual input size"
            )
        size = tuple(map(count, padded, kernel, stride, dilation))
        function = correlate
    if min(size) < 1:
        raise RuntimeError(f"Given input size per channel: {list(spatial)}. Calculated output size per "
                           f"channel: {list(size)}. Output size is too small")  # fmt: skip
    out = function(input, weight, size, stride, padding, dilation, groups)
    return out if bias is None else out + bias.reshape(-1, *(1,) * d)


def _named_padding(input: Any, weight: Any, padding: str, stride: Any, dilation: Any) -> Any:
    """Padding 'valid' or 'same' in numbers; what is uneven is added to the input's end first."""
    d = len(stride)
    if padding == "valid":
        return input, (0,) * d
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    from refgrad.ops.padding import constant_pad_nd

    total = [r * (k - 1) for r, k in zip(dilation, weight.shape[2:])]
    if any(t % 2 for t in total):
        widths = [w for t in reversed(total) for w in (0, t % 2)]
        input = constant_pad_nd(input, widths)
    return input, tuple(t // 2 for t in total)


def _check_channels(input: Any, weight: Any, bias: Any, transposed: bool, groups: int) -> None:
    if groups < 1:
        raise RuntimeError("non-positive groups is not supported")
    if weight[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got "
            f"weight of size {list(weight)} instead"
        )
    expected = weight[0] if transposed else weight[1] * groups
    if input[1] != expected:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight)}, expected input{list(input)} to have "
            f"{expected} channels, but got {input[1]} channels instead"
        )
    channels = weight[1] * groups if transposed else weight[0]
    if bias is not None and tuple(bias.shape) != (channels,):
        raise RuntimeError(
            f"Given weight of size {list(weight)}, expected bias to be 1-dimensional with {channels} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def _conv(d: int) -> Any:
    def conv(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        _check_weight(weight, d)
        return convolution(input, weight, bias, stride, padding, dilation, False, 0, groups)

    conv.__name__ = f"conv{d}d"
    conv.__doc__ = (
        f"Cross-correlation of (N, C, *spatial), {d}-d, with (O, C / groups, *kernel).\n\n"
        "    `padding` is a number a dimension, 'valid' or 'same'.\n\n"
        "    Raises:\n        RuntimeError: channels, groups, dtypes or sizes do not fit.\n    "
    )
    return composite(conv, method=False)


def _conv_transpose(d: int) -> Any:
    def conv_transpose(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Any:  # fmt: skip
        _check_weight(weight, d)
        return convolution(
            input, weight, bias, stride, padding, dilation, True, output_padding, groups
        )

    conv_transpose.__name__ = f"conv_transpose{d}d"
    conv_transpose.__doc__ = (
        f"The transpose of conv{d}d, of (N, C, *spatial) with (C, O / groups, *kernel).\n\n"
        "    Raises:\n        RuntimeError: channels, groups, dtypes or sizes do not fit.\n    "
    )
    return composite(conv_transpose, method=False)


def _check_weight(weight: Any, d: int) -> None:
    if weight.ndim != d + 2:
        raise RuntimeError(
            f"weight should have {d + 2} dimensions for a {d}-d convolution, but has {weight.ndim}"
        )


conv1d, conv2d, conv3d = map(_conv, (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_conv_transpose, (1, 2, 3))


@composite(method=False)
def conv_tbc(input: Any, weight: Any, bias: Any, pad: int = 0) -> Any:
    """conv1d of (time, batch, channels) with (kernel, channels, O) and (O,)."""
    out = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, 1, pad)
    return out.permute(2, 0, 1)
