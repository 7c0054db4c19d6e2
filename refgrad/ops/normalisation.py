"""Normalisation: layer, batch, instance, group and RMS norms, and vectors of unit length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad.layouts import channels_last, channels_last_3d
from refgrad.ops.composites import composite
from refgrad.ops.kernels import fitted, inner_over, reshaped, rowwise, sum_over
from refgrad.ops.op import op
from refgrad.ops.shaping import ints
from refgrad.tensor import Tensor, wrap

__all__ = [
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "native_batch_norm",
    "native_group_norm", "native_layer_norm", "rms_norm",
]  # fmt: skip

# --- the two standardisations --------------------------------------------------------------------


def _count(shape: Any, dims: Any) -> int:
    return max(math.prod(shape[d] for d in dims), 1)


def standardise(input: Any, weight: Any, bias: Any, dims: Any, across: Any, eps: Any) -> Any:
    """x * weight + bias of x = (input - mean) * rstd over `dims`; and x, rstd, mean and variance.

    rstd = 1 / sqrt(variance + eps), with the biased variance. `dims` count from 0, and the moments
    keep them; `across` is the shape in which the weight and the bias, either of them None, broadcast.
    """
    n = _count(input.shape, dims)
    mean = sum_over(input, dims, True) / n
    with rowwise(input, mean):
        x = input - mean
        variance = inner_over(x, x, dims) / n
        rstd = np.reciprocal(np.sqrt(variance + eps))
        x *= rstd
        out = np.copy(x) if weight is None else x * reshaped(weight, across)
        if bias is not None:
            out += reshaped(bias, across)
    return out, x, rstd, mean, variance


def _back(g: Any, out: Any, weight: Any, dims: Any, across: Any, shape: Any) -> Any:
    """The gradients of the input, the weight and the bias."""
    # dx = rstd (di - mean(di) - x mean(x di));  d rstd = -rstd^2 mean(x di);  d mean = mean(di)
    of_out, of_x, of_rstd, of_mean = g
    _, x, rstd, *_ = out
    of_input, of_weight, of_bias = shape
    n = _count(x.shape, dims)
    if weight is not None:
        weight = reshaped(weight, across)
    alike = tuple(i for i, m in enumerate(across) if m == 1)  # of these a weight is the same
    along = level = d = None
    with rowwise(x, rstd):
        if alike == dims and weight is not None and of_x is None:  # the sums are the vectors' too
            along, level = inner_over(of_out, x, dims), sum_over(of_out, dims, True)
            if of_input is not None:
                d = fitted(x, along / -n, of_out, level / n, rstd * weight)
        elif of_input is not None:
            d = of_out if weight is None else of_out * weight
            if of_x is not None:
                d = d + of_x
            shared, mean = inner_over(d, x, dims), sum_over(d, dims, True)
            if of_x is not None:
                shared, mean = shared + of_rstd * rstd, mean - of_mean / rstd
            d = fitted(x, shared / -n, d, mean / n, rstd)
    if of_weight is not None:
        along = reshaped(inner_over(of_out, x, alike) if along is None else along, of_weight)
    if of_bias is not None:
        level = reshaped(sum_over(of_out, alike, True) if level is None else level, of_bias)
    return d, along, level


def _standardising(name: str, node_name: str) -> Any:
    """One node in place of four, and no copy of the gradient by x for that of the weight."""
    made = op(
        standardise, method=False, name=name, node_name=node_name, differentiable=4, unread=0
    )
    return made.vjp(**{"input, weight, bias": _back})


layer_standardise = _standardising("native_layer_norm", "NativeLayerNormBackward0")
batch_standardise = _standardising("native_batch_norm", "NativeBatchNormBackward0")
group_standardise = _standardising("native_group_norm", "NativeGroupNormBackward0")


@op(method=False, node_name="FusedRmsNormBackward0", differentiable=2)
def rescale(input: Any, dims: Any, eps: Any) -> tuple[Any, Any]:
    """x * rrms over `dims`, with rrms = 1 / sqrt(mean(x^2) + eps); and rrms."""
    rrms = 1 / np.sqrt(inner_over(input, input, dims) / _count(input.shape, dims) + eps)
    with rowwise(input, rrms):
        return input * rrms, rrms


def _rescale_back(g: Any, out: Any, dims: Any, shape: Any) -> Any:
    # d out = rrms (dx - out mean(out dx));  d rrms = -rrms^2 mean(out dx)
    of_out, of_rrms = g
    x, rrms = out
    along = inner_over(of_out, x, dims) + of_rrms * rrms
    with rowwise(x, rrms):
        return (x * (along / -_count(shape, dims)) + of_out) * rrms


rescale.vjp(input=_rescale_back)


# --- layer norm and RMS norm ---------------------------------------------------------------------


def _last_dims(input: Any, normalized_shape: Any, weight: Any, bias: Any) -> tuple[int, ...]:
    shape = ints(normalized_shape)
    k = len(shape)
    if not k:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one "
            "element, but got normalized_shape = []"
        )
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given.shape) != shape:
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(given.shape)} and normalized_shape = {list(shape)}"
            )
    if input.ndim < k or tuple(input.shape[input.ndim - k :]) != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size{list(input.shape)}"
        )
    return tuple(range(input.ndim - k, input.ndim))


@composite(method=False)
def native_layer_norm(
    input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any]:
    """Layer norm; and the mean and 1 / sqrt(variance + eps) of each row, without a gradient."""
    out, _, rstd, mean, _ = _layer_norm(input, normalized_shape, weight, bias, eps)
    return out, mean.detach(), rstd.detach()


def _layer_norm(input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    dims = _last_dims(input, normalized_shape, weight, bias)
    across = (1,) * dims[0] + tuple(input.shape[dims[0] :])
    return layer_standardise(input.contiguous(), weight, bias, dims, across, eps)


@composite(method=False)
def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-05,
    cudnn_enable: bool = True,
) -> Any:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) over the last dimensions, times weight plus bias.

    Raises:
        RuntimeError: `normalized_shape` is not that of the last dimensions, the weight and the bias.
    """
    return _layer_norm(input, normalized_shape, weight, bias, eps)[0]


@composite(method=False)
def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """x / sqrt(mean(x^2) + eps) over the last dimensions, times weight; `eps` is the dtype's by default.

    Raises:
        RuntimeError: `normalized_shape` is not that of the last dimensions and the weight.
    """
    dims = _last_dims(input, normalized_shape, weight, None)
    if eps is None:
        eps = float(np.finfo(input.dtype.numpy).eps)
    x = rescale(input.contiguous(), dims, eps)[0]
    out = x.clone() if weight is None else x * weight  # x is saved: the caller may write to `out`
    return out if out.dtype is input.dtype else out.to(input.dtype)


# --- group, batch and instance norm --------------------------------------------------------------


def _channels(input: Any) -> tuple[int, ...]:
    """The shape in which a vector of channels broadcasts against (N, C, *)."""
    return (1, input.shape[1], *(1,) * (input.ndim - 2))


@composite(method=False)
def native_group_norm(
    input: Any, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Any, Any, Any]:
    """Group norm, and the mean and 1 / sqrt(variance + eps) of each group, (N, group)."""
    grouped = input.reshape(N, group, C // group, HxW)
    across = (1, group, C // group, 1)
    out, _, rstd, mean, _ = group_standardise(grouped, weight, bias, (2, 3), across, eps)
    return out.reshape(input.shape), mean.reshape(N, group), rstd.reshape(N, group)


@composite(method=False)
def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-05,
    cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    """(N, C, *) normalised over each of `num_groups` groups of channels, times weight plus bias.

    Raises:
        RuntimeError: the groups do not divide the channels, or weight and bias are not (C,).
    """
    if input.ndim < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {input.ndim}"
        )
    n, c = input.shape[:2]
    if num_groups <= 0 or c % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {list(input.shape)} and num_groups={num_groups}"
        )
    _check_vectors(c, weight=weight, bias=bias)
    area = math.prod(input.shape[2:])
    return native_group_norm(input, weight, bias, n, c, area, num_groups, eps)[0]


def _check_vectors(channels: int, **vectors: Any) -> None:
    for name, v in vectors.items():
        if v is not None and tuple(v.shape) != (channels,):
            raise RuntimeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, "
                f"{channels}, but got {name} of shape {list(v.shape)}"
            )


def _update(running: Any, batch: Any, momentum: float, scale: float = 1.0) -> None:
    """running = (1 - momentum) running + momentum scale batch, in place; of (C,) and (N, C, *)."""
    if running is not None:
        own = running._array
        new = reshaped(batch._array, (-1, *own.shape))
        new = np.sum(new, axis=0) * (momentum * scale / max(len(new), 1))
        own[...] = (1 - momentum) * own + new
        running.mark_written()


def _batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Batch norm; and in training mean and 1 / sqrt(variance + eps), (1, C, *) of ones, else None."""
    shape = _channels(input)
    last = {4: channels_last, 5: channels_last_3d}.get(input.ndim)
    if last is None or not input.is_contiguous(memory_format=last):
        input = input.contiguous()
    if training:
        dims = (0, *range(2, input.ndim))
        out, _, rstd, mean, variance = batch_standardise(input, weight, bias, dims, shape, eps)
        _update(running_mean, mean, momentum)
        n = _count(input.shape, dims)
        _update(running_var, variance, momentum, n / (n - 1) if n > 1 else 1.0)
        return out, mean, rstd
    if running_mean is None or running_var is None:
        raise RuntimeError(
            "Expected running_mean and running_var to be defined when training=False"
        )
    rstd = (running_var + eps) ** -0.5
    scale = rstd if weight is None else rstd * weight
    x = (input - running_mean.reshape(shape)) * scale.reshape(shape)
    return (x if bias is None else x + bias.reshape(shape)), None, None


@composite(method=False)
def native_batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Batch norm; and in training each channel's mean and 1 / sqrt(variance + eps), without a gradient."""
    out, mean, rstd = _batch_norm(
        input, weight, bias, running_mean, running_var, training, momentum, eps
    )
    if mean is None:
        empty = wrap(np.zeros_like(input._array, shape=(0,)))
        return out, empty, empty
    c = input.shape[1]
    return out, mean.detach().reshape(c), rstd.detach().reshape(c)


def _check_batch(input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any) -> None:
    if input.ndim < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {input.ndim}"
        )
    _check_vectors(
        input.shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )


def _torch_order(name: str, function: Any) -> Any:
    """torch.NAME(input, weight, bias, ...): the arguments as in torch rather than torch.nn.functional."""

    def reordered(
        input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
        momentum: float, eps: float, cudnn_enabled: bool = True,
    ) -> Any:  # fmt: skip
        return function(input, running_mean, running_var, weight, bias, training, momentum, eps)

    reordered.__name__ = name
    reordered.__doc__ = f"nn.functional.{name}, with the weight and the bias before the statistics."
    return composite(reordered, method=False)


@composite(method=False)
def functional_batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-05,
) -> Any:  # fmt: skip
    """(N, C, *) normalised over each channel, times weight plus bias.

    In training by the batch's statistics, with which the running ones are updated in place (their
    variance by the unbiased one); else by the running ones.

    Raises:
        RuntimeError: a vector is not (C,), or the running statistics are missing.
        ValueError: in training, a channel has a single value.
    """
    if input.ndim == 1 and not input.numel():
        return input.clone()
    if training and input.ndim > 1 and input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    _check_batch(input, running_mean, running_var, weight, bias)
    return _batch_norm(
        input, weight, bias, running_mean, running_var, training, momentum, eps
    )[0]


@composite(method=False)
def functional_instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-05,
) -> Any:  # fmt: skip
    """(N, C, *) normalised over each channel of each image, times weight plus bias.

    Raises:
        RuntimeError: a vector is not (C,), or the running statistics are missing.
        ValueError: a channel of an image has a single value.
    """
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {input.shape}"
        )
    _check_batch(input, running_mean, running_var, weight, bias)
    if not use_input_stats:
        return _batch_norm(
            input, weight, bias, running_mean, running_var, False, momentum, eps
        )[0]
    dims = tuple(range(2, input.ndim))
    across = _channels(input)
    out, _, _, mean, variance = batch_standardise(input, weight, bias, dims, across, eps)
    n = _count(input.shape, dims)
    _update(running_mean, mean, momentum)
    _update(running_var, variance, momentum, n / (n - 1))
    return out


batch_norm = _torch_order("batch_norm", functional_batch_norm)
instance_norm = _torch_order("instance_norm", functional_instance_norm)


# --- others --------------------------------------------------------------------------------------


@composite(method=False)
def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta, of (N, C, *).

    Raises:
        ValueError: `input` has less than three dimensions.
    """
    from refgrad.ops.padding import constant_pad_nd
    from refgrad.ops.pooling import average

    if input.ndim < 3:
        raise ValueError(
            "Expected 3D or higher dimensionality                          "
            f"input (got {input.ndim} dimensions)"
        )
    if input.numel() == 0:
        return input
    n, c = input.shape[:2]
    squares = constant_pad_nd(
        (input * input).reshape(n, 1, c, -1), (0, 0, size // 2, (size - 1) // 2), 0
    )
    area = squares.shape[-1]
    means = average(squares, (c, area), (size, 1), (1, 1), (0, 0), True, None)
    return input / (means.reshape(input.shape) * alpha + k) ** beta


@composite(method=False)
def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """x / max(its p-norm over `dim`, eps)."""
    length = input.norm(p, dim, True).clamp_min(eps)
    made = input / length.expand_as(input)
    if out is None:
        return made
    assert isinstance(out, Tensor)
    return out.become(made)
