"""In-place forms: `x.sin_()` and `torch.sin_(x)`, and those that change a tensor's own geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refgrad.mode import state
from refgrad.ops.op import INPLACE, METHODS
from refgrad.ops.shaping import squeeze, swapaxes, swapdims, t, transpose, unsqueeze
from refgrad.ops.triangles import as_strided
from refgrad.tensor import Tensor, wrap
from refgrad.views import View

# --- what every op has ---------------------------------------------------------------------------


def of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of an op or a composite, a method."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.check_writable()
        return self.become(function(self.snapshot(*args, *kwargs.values()), *args, **kwargs))

    method.__name__ = f"{function.__name__}_"
    method.__doc__ = f"{function.__name__}, in place."
    return method


def _abs_(self: Tensor) -> Any:
    """The absolute values, in place.

    Raises:
        RuntimeError: it is complex.
    """
    if self.is_complex():
        raise RuntimeError("In-place abs is not supported for complex tensors.")
    return _abs(self)


_abs = of(INPLACE["abs"])
METHODS.update(abs_=_abs_, absolute_=_abs_)

# --- the geometry --------------------------------------------------------------------------------


def _turning(function: Callable[..., Any]) -> Callable[..., Any]:
    """The method that gives a tensor the geometry which the view `function` makes of it."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.check_writable()
        made = function(self.twin(), *args, **kwargs)
        self.mark_written()
        self.turn(made)
        return self

    method.__name__ = f"{function.__name__}_"
    method.__doc__ = f"{function.__name__}, in place: the memory stays, read another way."
    return method


for _function in (as_strided, squeeze, swapaxes, swapdims, t, transpose, unsqueeze):
    METHODS[f"{_function.__name__}_"] = _turning(_function)


def _set_(
    self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None
) -> Tensor:
    """Share the memory of `source` instead of its own; of nothing, be empty.

    Raises:
        RuntimeError: the dtypes differ, or one requires grad: there is no derivative.
    """
    self.check_writable()
    if source is None:
        source = wrap(np.empty_like(self._array, shape=(0,)))
    if source.dtype is not self.dtype:
        raise RuntimeError(
            f"Could not set tensor of type {source.dtype!r} to a tensor of type {self.dtype!r}"
        )
    if state.enabled and (self._requires_grad or source._requires_grad):
        raise RuntimeError("the derivative for 'set_' is not implemented: call it within no_grad")
    if size is not None:
        steps = wrap(np.empty(size, bool)).stride() if stride is None else stride
        source = as_strided(source.detach(), size, steps, storage_offset)
    if isinstance(self, View):
        requires_grad = self._requires_grad
        self.__class__ = Tensor
        self._base, self._node, self._requires_grad = None, None, requires_grad
    self.mark_written()
    self._array = source._array
    return self


def _fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """`fill_value` on the main diagonal; with `wrap` again below it, in a tall matrix.

    Raises:
        RuntimeError: it has less than two dimensions, or more and not of one length.
    """
    shape = self._array.shape
    if len(shape) < 2:
        raise RuntimeError("dimensions must larger than 1")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    places = np.arange(shape[0] if wrap and len(shape) == 2 else min(shape))
    columns = places % (shape[1] + 1)  # after each diagonal one row stays free
    places, columns = places[columns < shape[1]], columns[columns < shape[1]]
    self[(places, *(columns,) * (len(shape) - 1))] = fill_value
    return self


METHODS.update(set_=_set_, fill_diagonal_=_fill_diagonal_)

# --- as functions --------------------------------------------------------------------------------

_FUNCTIONS = [
    "abs", "acos", "acosh", "addmv", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctanh", "as_strided", "asin", "asinh", "atan", "atanh", "ceil", "clamp", "clamp_max",
    "clamp_min", "clip", "conj_physical", "cos", "cosh", "deg2rad", "detach", "erf", "erfc",
    "exp", "exp2", "expm1", "fill", "fix", "floor", "frac", "gcd", "i0", "index_put", "lcm",
    "ldexp", "log", "log10", "log1p", "log2", "logit", "nan_to_num", "neg", "negative",
    "rad2deg", "reciprocal", "round", "rsqrt", "sigmoid", "sin", "sinc", "sinh", "sqrt",
    "square", "tan", "tanh", "trunc", "xlogy", "zero",
]  # fmt: skip


def _named(name: str) -> Callable[..., Any]:
    def function(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return getattr(input, name)(*args, **kwargs)

    function.__name__ = name
    function.__doc__ = f"`input.{name}(...)`."
    return function


globals().update({f"{name}_": _named(f"{name}_") for name in _FUNCTIONS})
__all__ = [f"{name}_" for name in _FUNCTIONS]
