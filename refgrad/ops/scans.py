"""Running sums, products and extremes along a dimension."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.libraries import beside
from refgrad.ops.arrays import accumulate, wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.elementary import logistic
from refgrad.ops.op import FUNCTIONS, op
from refgrad.ops.scattering import gather

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "logcumsumexp"]


def _in(name: str, input: Any, dtype: Any) -> Any:
    """`input` in the dtype that it is scanned in; bool is asked for in vain."""
    if dtype is not None:
        if dtype.numpy.kind == "b":
            raise NotImplementedError(f"\"{name}_out_cpu\" not implemented for 'Bool'")
        return input.astype(dtype.numpy, copy=False)
    return input.astype(np.int64) if input.dtype.kind in "bui" else input


def _reversed_cumsum(g: Any, dim: Any) -> Any:
    if g.ndim == 0:
        return g
    return np.flip(np.cumsum(np.flip(g, axis=dim), axis=dim), axis=dim)


@op(inplace=True)
def cumsum(input, dim, *, dtype=None):
    """The sums of the elements up to each one."""
    dim, x = wrap_dim(dim, input.ndim), _in("cumsum", input, dtype)
    return np.cumsum(x, axis=dim, dtype=x.dtype) if x.ndim else np.copy(x)


cumsum.linear("input")
cumsum.vjp(input=lambda g, dim: _reversed_cumsum(g, dim))  # x_i is in all sums from i on

# --- linear recurrences ----------------------------------------------------------------------------
# y_k = x_k + a_k y_{k-1}: what the backward pass of cumprod and logcumsumexp is, without a division


def _first(x: Any, dim: int) -> Any:
    """True at the first place of `dim`, in a shape that broadcasts."""
    n = x.shape[dim]
    return np.reshape(beside(np.arange(n) == 0, x), (n,) + (1,) * (x.ndim - 1 - dim))


@op(method=False)
def recurrence(input, decay, dim):
    """y_k = input_k + decay_k y_{k-1} along `dim`, where y before the first is 0."""
    x, a = np.moveaxis(input, dim, 0), np.moveaxis(decay, dim, 0)
    ys = [x[0]] if len(x) else []
    for k in range(1, len(x)):
        ys.append(x[k] + a[k] * ys[-1])
    return np.moveaxis(np.stack(ys), 0, dim) if ys else np.copy(input)


def back(g: Any, decay: Any, dim: int) -> Any:
    """The recurrence from the end: z_k = g_k + decay_{k+1} z_{k+1}."""
    next_decay = np.roll(decay, -1, axis=dim)  # what is rolled to the last place is not read
    return np.flip(recurrence(np.flip(g, axis=dim), np.flip(next_decay, axis=dim), dim), axis=dim)


def _by_decay(g: Any, decay: Any, dim: int, out: Any) -> Any:
    """z_k y_{k-1}; the first decay is not read."""
    first = _first(out, dim)
    return back(g, decay, dim) * np.where(first, 0.0, np.roll(out, 1, axis=dim))


recurrence.vjp(input=lambda g, decay, dim: back(g, decay, dim), decay=_by_decay)


@op(inplace=True)
def cumprod(input, dim, *, dtype=None):
    """The products of the elements up to each one."""
    dim, x = wrap_dim(dim, input.ndim), _in("cumprod", input, dtype)
    return np.cumprod(x, axis=dim, dtype=x.dtype) if x.ndim else np.copy(x)


def _by_factor(g: Any, input: Any, dim: Any, out: Any) -> Any:
    """d out_j / d x_k = (x_1 .. x_{k-1}) (x_{k+1} .. x_j); not out_j / x_k, as x_k may be 0."""
    if g.ndim == 0:
        return g
    dim = wrap_dim(dim, g.ndim)
    first = _first(out, dim)
    return back(g, input, dim) * np.where(first, 1.0, np.roll(out, 1, axis=dim))


cumprod.vjp(input=_by_factor)
FUNCTIONS[np.cumsum] = lambda x, axis: cumsum(x, axis)
FUNCTIONS[np.cumprod] = lambda x, axis: cumprod(x, axis)

# --- logcumsumexp ----------------------------------------------------------------------------------


@op
def logcumsumexp(input, dim):
    """The log of the sum of exp up to each element."""
    dim = wrap_dim(dim, input.ndim)
    if input.dtype.kind not in "fc":
        raise RuntimeError(f'"logcumsumexp_out_cpu" not implemented for {input.dtype}')
    if input.ndim == 0 or input.shape[dim] == 0:
        return np.copy(input)
    if input.dtype.kind == "c":
        from refgrad.ops.elementary import _logaddexp

        x = np.moveaxis(input, dim, 0)
        out = [x[0]]
        for k in range(1, len(x)):
            out.append(_logaddexp(out[-1], x[k]))
        return np.moveaxis(np.stack(out), 0, dim)
    return accumulate(np.logaddexp, input, dim)


def _by_term(g: Any, input: Any, dim: Any, out: Any) -> Any:
    """d x_k = w_k z_k, with z_k = g_k + (1 - w_{k+1}) z_{k+1} and w_k = 1 / (1 + e^(out_{k-1} - x_k)).

    Not e^(x_k - out_k), which has the rounding of out_k: the two weights would not add up to 1.
    """
    if g.ndim == 0:
        return g
    dim = wrap_dim(dim, g.ndim)
    before = np.roll(out, 1, axis=dim)
    both = (input == before) & np.isinf(input)  # -inf and -inf: e^0 for either
    d = np.where(both, 0.0, input - before)
    weight = np.where(both | _first(out, dim), 1.0, logistic(d))
    return weight * back(g, np.where(both, 1.0, logistic(-d)), dim)


logcumsumexp.vjp(input=_by_term)

# --- running extremes ------------------------------------------------------------------------------


class cummax_result(NamedTuple):
    """What cummax returns."""

    values: Any
    indices: Any


class cummin_result(NamedTuple):
    """What cummin returns."""

    values: Any
    indices: Any


@op(method=False)
def _leaders(input, dim, largest):
    """The index of the running extreme: at a tie the last, and nan beats all."""
    dim = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return np.zeros_like(input, dtype=np.int64)
    best = accumulate(np.maximum if largest else np.minimum, input, dim)
    places = np.arange(input.shape[dim]).reshape((-1,) + (1,) * (input.ndim - 1 - dim))
    places = beside(places, input)
    leads = (input == best) | ((input != input) & (best != best))
    return accumulate(np.maximum, np.where(leads, places, 0), dim).astype(np.int64)


@composite
def cummax(input: Any, dim: int) -> Any:
    """The largest element up to each one, and its index."""
    at = _leaders(input, dim, True)
    return cummax_result(gather(input, dim, at), at)


@composite
def cummin(input: Any, dim: int) -> Any:
    """The smallest element up to each one, and its index."""
    at = _leaders(input, dim, False)
    return cummin_result(gather(input, dim, at), at)
