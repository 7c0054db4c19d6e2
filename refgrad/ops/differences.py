"""Differences and integrals along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.dtypes import get_default_dtype
from refgrad.ops.arrays import as_array, wrap_dim
from refgrad.ops.comparison import logical_xor
from refgrad.ops.composites import alias, composite
from refgrad.ops.joining import cat
from refgrad.ops.reductions import sum
from refgrad.ops.scans import cumsum
from refgrad.ops.shaping import narrow, reshape
from refgrad.tensor import Tensor, wrap

__all__ = ["cumulative_trapezoid", "diff", "gradient", "trapezoid", "trapz"]


def _ends(x: Any, dim: int) -> tuple[Any, Any]:
    """`x` without its first, and without its last, along `dim`."""
    n = max(x.shape[dim] - 1, 0)
    return narrow(x, dim, x.shape[dim] - n, n), narrow(x, dim, 0, n)


@composite
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th forward differences along `dim`.

    Raises:
        RuntimeError: `input` is 0-d, or n is negative.
    """
    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    dim = wrap_dim(dim, input.ndim)
    if n == 0:
        return input.clone()
    if prepend is not None or append is not None:
        input = cat([x for x in (prepend, input, append) if x is not None], dim)
    for _ in range(min(n, input.shape[dim])):
        after, before = _ends(input, dim)
        input = logical_xor(after, before) if input._array.dtype.kind == "b" else after - before
    return input


def _areas(y: Any, x: Any, dx: Any, dim: int) -> Any:
    """The areas of the trapezoids between neighbours."""
    if x is not None and dx is not None:
        raise RuntimeError("trapezoid() takes x or dx, not both")
    after, before = _ends(y, dim)
    if x is None:
        return (after + before) * ((1 if dx is None else dx) / 2)
    if x.ndim == 1 and y.ndim > 1:
        x = reshape(x, (-1,) + (1,) * (y.ndim - 1 - dim))
    elif x.ndim == 0:
        return (after + before) * (x * 0)
    step = diff(x, dim=dim - y.ndim if x.ndim >= y.ndim - dim else 0)
    return (after + before) * step / 2


@composite(method=False)
def trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The integral of y along `dim` by the trapezoidal rule, at places `x` or with step `dx`."""
    dim = wrap_dim(dim, y.ndim)
    return sum(_areas(y, x, dx, dim), dim)


@composite(method=False)
def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The integrals up to each place but the first."""
    dim = wrap_dim(dim, y.ndim)
    return cumsum(_areas(y, x, dx, dim), dim)


trapz = alias("trapz", trapezoid)


# --- the gradient of sampled values ----------------------------------------------------------------


def _slopes(f: Any, h: Any, dim: int, edge_order: int) -> Any:
    """Central differences of `f` with the steps `h` (one, or an array of them) along `dim`."""
    n = f.shape[dim]
    if n < edge_order + 1:
        raise RuntimeError(
            "torch.gradient expected each dimension size to be at least edge_order+1"
        )
    part = lambda start, length: narrow(f, dim, start, length)
    if hasattr(h, "ndim"):
        h = h.reshape((-1,) + (1,) * (f.ndim - 1 - dim))
        a, b = h[:-1], h[1:]  # the steps before and after each inner place
        inner = (
            part(0, n - 2) * _as(-b / (a * (a + b)), f)
            + part(1, n - 2) * _as((b - a) / (a * b), f)
            + part(2, n - 2) * _as(a / (b * (a + b)), f)
        ) if n > 2 else None
        steps = [_as(h[i], f) for i in ((0, 1, -1, -2) if edge_order == 2 else (0, 0, -1, -1))]
    else:
        inner = (part(2, n - 2) - part(0, n - 2)) / (2 * h) if n > 2 else None
        steps = [h] * 4
    front, back = ([part(i, 1) for i in at[: edge_order + 1]] for at in ((0, 1, 2), (n - 1, n - 2, n - 3)))
    parts = (_edge(front, *steps[:2]), inner, -_edge(back, *steps[2:]))
    return cat([p for p in parts if p is not None], dim)


def _as(constant: Any, like: Any) -> Any:
    return wrap(as_array(constant).astype(like._array.real.dtype))


def _edge(values: Any, h: Any, k: Any) -> Any:
    """The slope at the first of two places (or of three, of their parabola) that are h and k apart."""
    if len(values) == 2:
        return (values[1] - values[0]) / h
    by_one, by_two = values[1] - values[0], values[2] - values[1]
    return by_one / h + (by_one / h - by_two / k) * (h / (h + k))


@composite(method=False)
def gradient(input: Any, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> Any:
    """The slopes of sampled values along each of `dim` (all by default), as a tuple.

    `spacing` is one step, one a dimension, or a tensor of places a dimension.

    Raises:
        RuntimeError: `edge_order` is neither 1 nor 2, or the spacings do not fit the dimensions.
    """
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    spacing = 1 if spacing is None else spacing
    given = isinstance(spacing, (list, tuple))
    dims = range(input.ndim) if dim is None else dim if isinstance(dim, (list, tuple)) else (dim,)
    dims = [wrap_dim(d, input.ndim) for d in dims]
    steps = list(spacing) if given else [spacing] * len(dims)
    if len(steps) != len(dims):
        raise RuntimeError(
            "torch.gradient expected spacing to be unspecified, a scalar, or a list of one a dimension"
        )
    if input._array.dtype.kind in "bui":
        input = input.to(get_default_dtype())
    places = [np.diff(s._array) if isinstance(s, Tensor) and s.ndim else s for s in steps]
    return tuple(
        _slopes(input, s.item() if isinstance(s, Tensor) else s, d, edge_order)
        for d, s in zip(dims, places, strict=True)
    )
