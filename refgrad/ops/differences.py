"""Differences and integrals along a dimension."""

from __future__ import annotations

from typing import Any

from refgrad.ops.arrays import wrap_dim
from refgrad.ops.comparison import logical_xor
from refgrad.ops.joining import cat
from refgrad.ops.op import alias, composite
from refgrad.ops.reductions import sum
from refgrad.ops.scans import cumsum
from refgrad.ops.shaping import narrow, reshape

__all__ = ["cumulative_trapezoid", "diff", "trapezoid", "trapz"]


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
