"""Variances and correlations."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from refgrad.ops.arrays import keep_dims
from refgrad.ops.complexes import complex, conj, imag, real
from refgrad.ops.composites import composite
from refgrad.ops.extremes import clamp
from refgrad.ops.op import op
from refgrad.ops.pointwise import sqrt
from refgrad.ops.products import matmul
from refgrad.ops.reductions import count, dims_of, mean, sum
from refgrad.ops.shaping import reshape, squeeze, unsqueeze
from refgrad.ops.triangles import diagonal

__all__ = ["corrcoef", "cov", "std", "std_mean", "var", "var_mean"]

INF = float("inf")


def _spread(input: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    if input.dtype.kind not in "fc":
        raise RuntimeError("std and var only support floating point and complex dtypes")
    dims = dims_of(dim, input.ndim)
    n = count(input.shape, dim)
    centre = np.sum(input, axis=dims, keepdims=True) / n if n else np.nan
    off = np.abs(input - centre)
    total = np.sum(off * off, axis=dims, keepdims=keepdim)
    return total / (n - correction) if n > correction else total / (total * 0)


def _by_spread(g: Any, shape: Any, input: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    """d var = sum of 2 Re(conj(x - mean) dx) / (n - correction)."""
    dims = dims_of(dim, len(shape))
    n = count(shape, dim)
    off = np.conj(input - np.mean(input, axis=dims, keepdims=True))
    return keep_dims(g, shape, dims, keepdim) * (2 / (n - correction) if n > correction else INF) * off


@op(method=False, name="var")
def _var(input, dim, correction, keepdim):
    return _spread(input, dim, correction, keepdim)


@op(method=False, name="std")
def _std(input, dim, correction, keepdim):
    return np.sqrt(_spread(input, dim, correction, keepdim))


def _by_std(g: Any, shape: Any, input: Any, dim: Any, correction: Any, keepdim: bool, out: Any) -> Any:
    """d std = d var / (2 std); zero where std is."""
    zero = out == 0
    g = np.where(zero, 0.0, 0.5 * g / np.where(zero, 1.0, out))
    return _by_spread(g, shape, input, dim, correction, keepdim)


_var.vjp(input=_by_spread)
_std.vjp(input=_by_std)


def _arguments(dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> tuple[Any, Any, bool]:
    """(dim, correction, keepdim) of PyTorch's overloads, of which one has `unbiased` first."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return dim, correction, keepdim


def _moment(name: str, function: Any, with_mean: bool) -> Any:
    def moment(
        input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
        correction: Any = None, axis: Any = None,
    ) -> Any:  # fmt: skip
        dim, correction, keepdim = _arguments(
            axis if dim is None else dim, unbiased, keepdim, correction
        )
        found = function(input, dim, correction, keepdim)
        return (found, mean(input, dim, keepdim)) if with_mean else found

    moment.__name__ = name
    moment.__doc__ = f"{name} over `dim`, with `correction` subtracted from the count in the divisor."
    return composite(moment, method=not with_mean)


var, std = _moment("var", _var, False), _moment("std", _std, False)
var_mean, std_mean = _moment("var_mean", _var, True), _moment("std_mean", _std, True)


@composite
def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariance matrix of variables in rows; `fweights` are counts, `aweights` importances."""
    if input.ndim > 2:
        raise RuntimeError(f"cov(): expected input to have two or fewer dimensions but got {input.ndim}")
    x = reshape(input, (1, -1)) if input.ndim < 2 else input
    w = None
    if fweights is not None:
        w = fweights if aweights is None else fweights * aweights
    elif aweights is not None:
        w = aweights
    total: Any = x.shape[1] if w is None else sum(w)
    centre = sum(x if w is None else x * w, 1, True) / total
    norm = total - correction
    if aweights is not None and correction != 0:
        norm = total - correction * sum(w * aweights) / total
    norm = builtins.max(norm, 0) if isinstance(norm, int) else clamp(norm, 0)
    off = x - centre
    weighted = off if w is None else off * w
    product = matmul(off, conj(weighted).mT)
    return squeeze(product / norm)


@composite
def corrcoef(input: Any) -> Any:
    """The correlation matrix of variables in rows."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    d = diagonal(c)
    deviation = sqrt(real(d))
    c = c / unsqueeze(deviation, 1) / unsqueeze(deviation, 0)
    if c.is_complex():
        return complex(clamp(real(c), -1, 1), clamp(imag(c), -1, 1))
    return clamp(c, -1, 1)
