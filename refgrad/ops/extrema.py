"""The largest and the smallest along dimensions, and where they stand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.ops.arrays import keep_dims, wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.extremes import maximum, minimum
from refgrad.ops.op import op
from refgrad.ops.reductions import dims_of
from refgrad.ops.scattering import gather
from refgrad.ops.shaping import squeeze
from refgrad.tensor import Tensor

__all__ = ["amax", "amin", "aminmax", "argmax", "argmin", "max", "min"]


class max_result(NamedTuple):
    """What max over a dimension returns."""

    values: Any
    indices: Any


class min_result(NamedTuple):
    """What min over a dimension returns."""

    values: Any
    indices: Any


class aminmax_result(NamedTuple):
    """What aminmax returns."""

    min: Any
    max: Any


def evenly(g: Any, shape: Any, input: Any, dim: Any, keepdim: bool, out: Any) -> Any:
    """`g` shared evenly among the elements that equal `out`."""
    dims = dims_of(dim, len(shape))
    mask = input == keep_dims(out, shape, dims, keepdim)
    return mask * (keep_dims(g, shape, dims, keepdim) / np.sum(mask, axis=dims, keepdims=True))


def share(g: Any, input: Any, out: Any) -> Any:
    """`g` shared evenly among the elements of all of `input` that equal `out`; nan equals nan."""
    mask = (input == out) | ((input != input) & (out != out))
    return mask * (g / np.sum(mask))


def _check(name: str, input: Any, dim: Any) -> None:
    dims = dims_of(dim, input.ndim)
    for d in dims:
        if input.shape[d] == 0:
            raise IndexError(
                f"{name}(): Expected reduction dim {d} to have non-zero size."
                if dim not in (None, ())
                else f"{name}(): Expected reduction dim to be specified for input.numel() == 0."
            )


def _reduction(name: str, function: Any) -> Any:
    def forward(input, dim=(), keepdim=False):
        _check(name, input, dim)
        return function(input, axis=dims_of(dim, input.ndim), keepdims=keepdim)

    forward.__doc__ = f"The {name[1:]} over `dim` (all by default); ties share the gradient evenly."
    return op(forward, name=name).vjp(input=evenly)


amax = _reduction("amax", np.max)
amin = _reduction("amin", np.min)


def _full(name: str, function: Any) -> Any:
    def forward(input):
        if input.size == 0:
            raise RuntimeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify "
                "the reduction dim with the 'dim' argument."
            )
        return function(input)

    return op(forward, name=name, method=False).vjp(input=share)


_max, _min = _full("max", np.max), _full("min", np.min)


def _where_best(name: str, function: Any) -> Any:
    def forward(input, dim=None, keepdim=False):
        if input.size == 0:
            _check(name, input, dim)
        if input.dtype.kind == "b":
            input = input.astype(np.uint8)
        return function(input, axis=None if dim is None else wrap_dim(dim, input.ndim), keepdims=keepdim)

    def at(input, dim=None, keepdim=False):
        if input.ndim == 0:
            if dim is not None:
                wrap_dim(dim, 0)
            return np.zeros_like(input, dtype=np.int64)
        return forward(input, dim, keepdim)

    at.__doc__ = f"The index of the first {name[3:]} along `dim`, or in the flattened tensor."
    return op(at, name=name)


argmax = _where_best("argmax", np.argmax)
argmin = _where_best("argmin", np.argmin)


def pick(kind: Any, input: Any, dim: int, at: Any, keepdim: bool) -> Any:
    """The elements at `at` (whose `dim` has length 1) with their indices, as a `kind`."""
    values = gather(input, dim, at)
    if not keepdim and input.ndim:
        values, at = squeeze(values, dim), squeeze(at, dim)
    return kind(values, at)


def _overloads(name: str, full: Any, pairwise: Any, kind: Any, where: Any) -> Any:
    def function(
        input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None, axis: Any = None
    ) -> Any:
        dim = axis if dim is None else dim
        if isinstance(dim, Tensor):
            other = dim
        if other is not None:
            return pairwise(input, other)
        if dim is None:
            return full(input)
        if input.is_complex():
            raise RuntimeError(f"{name}(): does not support complex input")
        return pick(kind, input, dim, where(input, dim, True), keepdim)

    function.__name__ = name
    function.__doc__ = (
        f"The {name} of all elements; over `dim`, with indices; or of `input` and `other`, elementwise."
    )
    return composite(function)


max = _overloads("max", _max, maximum, max_result, argmax)
min = _overloads("min", _min, minimum, min_result, argmin)


@composite
def aminmax(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest and the largest over one dimension, or of all."""
    dims = () if dim is None else dim
    return aminmax_result(amin(input, dims, keepdim), amax(input, dims, keepdim))
