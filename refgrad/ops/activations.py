"""Activations."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import scipy.special as sps

from refgrad.ops import kernels
from refgrad.ops.arrays import wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.elementary import _sigmoid, sigmoid
from refgrad.ops.kernels import between, either, expit, kept
from refgrad.ops.op import INPLACE, METHODS, op
from refgrad.ops.pointwise import mul
from refgrad.ops.shaping import narrow, reshape
from refgrad.ops.ufuncs import unary
from refgrad.tensor import Tensor

__all__ = [
    "celu", "celu_", "hardshrink", "prelu", "relu", "relu_", "rrelu", "rrelu_", "selu", "selu_",
    "threshold", "threshold_",
]  # fmt: skip

SQRT_2PI = 2.5066282746310002
SQRT_8_PI = 1.5957691216057308
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _functional(made: Any, public: bool = False) -> Any:
    """`made` as torch.nn.functional has it, with `inplace` as a last argument; `public`: a method."""
    k = len(inspect.signature(made).parameters)

    def function(input: Any, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
        if len(args) == k:
            args, inplace = args[:-1], args[-1]
        if inplace:
            input.check_writable()
            return input.become(made(input.snapshot(), *args, **kwargs))
        return made(input, *args, **kwargs)

    function.__name__, function.__doc__, function.op = made.__name__, made.__doc__, made  # type: ignore[attr-defined]
    if public:
        METHODS[made.__name__] = INPLACE[made.__name__] = function
    return function


def _in_place(function: Any) -> Any:
    """`function` with `inplace`, under its name with an underscore."""

    def written(input: Any, *args: Any, **kwargs: Any) -> Any:
        return function(input, *args, inplace=True, **kwargs)

    written.__name__ = f"{function.__name__}_"
    written.__doc__ = f"{function.__name__}, in place."
    return written


# --- piecewise linear --------------------------------------------------------------------------------
# on a kink the slope is that of the side which the comparison leaves it on; nan lets g pass

@op(method=False, node_name="ThresholdBackward0")
def _where_on(g, made):
    """`g` where what relu made is not 0 or below."""
    return either(made <= 0, 0.0, g)


def _by_relu(g, out):
    return (_where_on if isinstance(g, Tensor) else _where_on.forward)(g, out)


_where_on.vjp(g=lambda h, made: _by_relu(h, made))
relu = _functional(unary("relu", lambda x: between(x, 0, None), _by_relu), public=True)


@op(method=False)
def threshold(input, threshold, value):
    """`input` where it is above `threshold`, else `value`."""
    return either(input <= threshold, value, input).astype(input.dtype, copy=False)


@op(method=False)
def hardtanh(input, min_val=-1.0, max_val=1.0):
    """`input` brought into [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    if input.dtype.kind in "iu":
        min_val, max_val = int(min_val), int(max_val)
    return between(input, min_val, max_val)


@op(method=False)
def leaky_relu(input, negative_slope=0.01):
    """`input` where it is positive, else negative_slope * input."""
    return either(input > 0, input, input * negative_slope)


@op(method=False)
def hardsigmoid(input):
    """(x + 3) / 6, brought into [0, 1]."""
    return between(input + 3.0, 0.0, 6.0) / 6.0


@op(method=False)
def softshrink(input, lambd=0.5):
    """`input` brought nearer to 0 by `lambd`, and 0 between."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return either(input > lambd, input - lambd, either(input < -lambd, input + lambd, input * 0))


@op
def hardshrink(input, lambd=0.5):
    """`input`, and 0 where it is within `lambd` of 0."""
    return either((input >= -lambd) & (input <= lambd), 0.0, input)


threshold.vjp(input=lambda g, input, threshold: either(input <= threshold, 0.0, g))
hardtanh.vjp(input=lambda g, input, min_val, max_val: either((input <= min_val) | (input >= max_val), 0.0, g))
leaky_relu.vjp(input=lambda g, input, negative_slope: either(input > 0, g, g * negative_slope))
hardsigmoid.vjp(input=lambda g, input: either((input > -3) & (input < 3), g / 6.0, 0.0))
softshrink.vjp(input=lambda g, input, lambd: either((input >= -lambd) & (input <= lambd), 0.0, g))
hardshrink.vjp(input=lambda g, input, lambd: either((input >= -lambd) & (input <= lambd), 0.0, g))
threshold, hardtanh, leaky_relu = _functional(threshold), _functional(hardtanh), _functional(leaky_relu)
hardsigmoid = _functional(hardsigmoid)


def relu6(input: Any, inplace: bool = False) -> Any:
    """`input` brought into [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace=inplace)


@op(method=False)
def _prelu(input, weight):
    return either(input > 0, input, weight * input)


_prelu.vjp(
    input=lambda g, input, weight: either(input > 0, g, g * weight),
    weight=lambda g, input: g * either(input > 0, 0.0, input),
)


@composite
def prelu(input: Any, weight: Any) -> Any:
    """`input` where it is positive, else weight * input, with one weight or one a channel (dim 1).

    Raises:
        RuntimeError: the weight is neither.
    """
    if weight.numel() != 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if input.ndim == 0 or weight.numel() != channels:
            raise RuntimeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{weight.numel()} and channel size = {channels}."
            )
        weight = reshape(weight, (-1,) + (1,) * (input.ndim - 2))
    elif weight.ndim and input.ndim != weight.ndim:
        weight = reshape(weight, (1,) * input.ndim)
    return _prelu(input, weight)


@_functional
def rrelu(
    input: Any, lower: float = 0.125, upper: float = 1 / 3, training: bool = False
) -> Any:
    """leaky_relu with a slope drawn from [lower, upper] for each element; outside training the mean."""
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    from refgrad import rand_like

    return _prelu(input, rand_like(input.detach()) * (upper - lower) + lower)


relu_, threshold_, hardtanh_ = _in_place(relu), _in_place(threshold), _in_place(hardtanh)
leaky_relu_, rrelu_ = _in_place(leaky_relu), _in_place(rrelu)


# --- exponential ---------------------------------------------------------------------------------


@op(method=False)
def elu(input, alpha=1.0, scale=1.0, input_scale=1.0):
    """scale * x where x is positive, else scale * alpha * (e^(input_scale x) - 1)."""
    low = alpha * np.expm1(input_scale * between(input, None, 0))
    return scale * either(input > 0, input, low)


def _by_elu(g: Any, input: Any, alpha: float, scale: float, input_scale: float) -> Any:
    """alpha * input_scale * e^(input_scale x) below; above, e^x would overflow."""
    low = np.exp(input_scale * either(input < 0, input, 0.0))
    return scale * either(input <= 0, g * (alpha * input_scale * low), g)


elu.vjp(input=_by_elu)
_elu = elu


@_functional
def elu(input: Any, alpha: float = 1.0) -> Any:
    """x where it is positive, else alpha * (e^x - 1)."""
    return _elu(input, alpha)


@_functional
def selu(input: Any) -> Any:
    """elu with the alpha and the scale that keep mean 0 and variance 1."""
    return _elu(input, SELU_ALPHA, SELU_SCALE)


@_functional
def celu(input: Any, alpha: float = 1.0) -> Any:
    """x where it is positive, else alpha * (e^(x / alpha) - 1)."""
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _elu(input, alpha, 1.0, 1.0 / alpha)


elu_, selu_, celu_ = _in_place(elu), _in_place(selu), _in_place(celu)


# --- smooth --------------------------------------------------------------------------------------


def _slope_of_silu(x: Any) -> Any:
    s = sigmoid(x) if np.iscomplexobj(x) else expit(x)
    return s * (1 + x * (1 - s))


@op(method=False)
def silu(input):
    """x sigmoid(x)."""
    return input * _sigmoid(input)


silu.vjp(input=lambda g, input: g * _slope_of_silu(input))
silu = _functional(silu)


@op(method=False, differentiable=2, unread=0)
def _gelu(input):
    """x Phi(x); and Phi(x), which the rule reads: it takes 10 ns an element, the rest of it 2."""
    cdf = kept(sps.ndtr(input), input)
    return input * cdf, cdf


def _by_gelu(g: Any, out: Any, input: Any) -> Any:
    # d out = (Phi(x) + x phi(x)) dx;  d Phi = phi(x) dx
    of_out, of_cdf = g
    density = np.exp(-0.5 * input * input) / SQRT_2PI
    by_out = of_out * (out[1] + input * density)
    return by_out if of_cdf is None else by_out + of_cdf * density


@op(method=False)
def _gelu_tanh(input):
    """x (1 + tanh(u)) / 2 = x sigmoid(2u), with 2u = sqrt(8/pi) (x + 0.044715 x^3)."""
    return input * expit(SQRT_8_PI * (input + 0.044715 * (input * input * input)))


def _by_gelu_tanh(g: Any, input: Any) -> Any:
    input = between(input, -64.0, 64.0)  # where s is 0 or 1 in full; x^3 would overflow
    square = input * input
    s = expit(SQRT_8_PI * (input + 0.044715 * (square * input)))
    return g * (s * (1 + input * ((1 - s) * (SQRT_8_PI * (1 + 0.134145 * square)))))


_gelu.vjp(input=_by_gelu)
_gelu_tanh.vjp(input=_by_gelu_tanh)


def gelu(input: Any, approximate: str = "none") -> Any:
    """x Phi(x), or ("tanh") its approximation by tanh.

    Raises:
        RuntimeError: another approximation.
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    return _gelu(input)[0] if approximate == "none" else _gelu_tanh(input)


@op(method=False)
def mish(input):
    """x tanh(log(1 + e^x))."""
    return input * np.tanh(kernels.softplus(input))


def _by_mish(g: Any, input: Any) -> Any:
    t = np.tanh(kernels.softplus(input))
    return g * (t + input * ((1 - t * t) * expit(input)))


mish.vjp(input=_by_mish)
mish = _functional(mish)


@op(method=False)
def hardswish(input):
    """x hardsigmoid(x)."""
    return input * between(input + 3.0, 0.0, 6.0) / 6.0


hardswish.vjp(
    input=lambda g, input: either(
        input <= -3, 0.0, either(input < 3, g * (input / 3.0 + 0.5), g)
    )
)
hardswish = _functional(hardswish)


@op(method=False)
def softplus(input, beta=1.0, threshold=20.0):
    """log(1 + e^(beta x)) / beta; x where beta x is above `threshold`."""
    z = input * beta
    return either(z > threshold, input, kernels.softplus(z) / beta)


softplus.vjp(
    input=lambda g, input, beta, threshold: either(
        input * beta > threshold, g, g * expit(input * beta)
    )
)


@op(promote=("input",), floats=True, method=False)
def softsign(input):
    """x / (1 + |x|)."""
    return input / (1 + np.abs(input))


def _by_softsign(g: Any, input: Any) -> Any:
    if np.iscomplexobj(input):  # d|x| = Re(conj(sgn x) dx)
        size = 1 + np.abs(input)
        return g / size - np.real(g * (input / (size * size))) * np.sign(np.conj(input))
    size = 1 + np.abs(input)
    return g / (size * size)


softsign.vjp(input=_by_softsign)


@op(promote=("input",), floats=True, method=False)
def tanhshrink(input):
    """x - tanh(x)."""
    return input - np.tanh(input)


def _by_tanhshrink(g: Any, input: Any) -> Any:
    t = np.tanh(input)
    return g * (t * t)  # 1 - (1 - t^2) would cancel


tanhshrink.vjp(input=_by_tanhshrink)


@op(method=False)
def logsigmoid(input):
    """log(sigmoid(x)) = -log(1 + e^-x)."""
    return -kernels.softplus(-input)


logsigmoid.vjp(input=lambda g, input: g * expit(-input))


def glu(input: Any, dim: int = -1) -> Any:
    """The first half along `dim` times the sigmoid of the second.

    Raises:
        RuntimeError: the length is odd, or `input` is 0-d.
    """
    if input.ndim == 0:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    dim = wrap_dim(dim, input.ndim)
    n = input.shape[dim]
    if n % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {n}")
    return mul(narrow(input, dim, 0, n // 2), sigmoid(narrow(input, dim, n // 2, n // 2)))
