"""Elementwise ops of one or two tensors, by a ufunc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refgrad.graph import node
from refgrad.levels import Levels
from refgrad.mode import state
from refgrad.ops.arrays import as_array
from refgrad.ops.kernels import WIDE, rowwise
from refgrad.ops.op import MISSING, REAL_SCALARS, Op, given
from refgrad.ops.strides import iterated
from refgrad.tensor import UFUNCS, Tensor, wrap

ndarray = np.ndarray


class Unary(Op):
    """An elementwise op of one tensor, by a ufunc; the general call with everything else left out."""

    failures = (ValueError, TypeError)  # a ufunc has no loop for the dtype
    elementwise = True

    def __init__(
        self, name: str, ufunc: Callable[..., Any], *, inplace: bool = True, **options: Any
    ) -> None:
        def forward(input: Any) -> Any:
            return ufunc(input)

        forward.__name__ = name
        forward.__doc__ = ufunc.__doc__
        super().__init__(forward, promote=("input",), inplace=inplace, **options)
        self.ufunc = ufunc
        _register(ufunc, self)

    def __call__(self, input: Any = MISSING, /, *more: Any, **kwargs: Any) -> Any:
        if more or kwargs or input is MISSING:
            return super().__call__(*given(input, *more), **kwargs)
        if not isinstance(input, Tensor):
            if type(input) is ndarray and input.dtype.kind in self.kinds:  # in a rule
                return self.ufunc(input)
            return super().__call__(input)
        x = input._array
        dtype = x.dtype
        if Levels.open or dtype.kind not in self.kinds:
            return super().__call__(input)
        try:
            out = self.ufunc(x)
        except self.failures:  # whose error says more
            return super().__call__(input)
        if type(out) is not ndarray:
            out = as_array(out)
        if not (input._requires_grad and state.enabled and self.vjps):
            return wrap(out)
        targets = (input._node or input,)
        saved = (x, input) if self.saved else None
        kept = out if self.saves_out else None
        if out.dtype is dtype:  # see `refgrad.graph` for what its gradient comes in
            return wrap(out, node(self, targets, self.vjps, None, None, saved, kept))
        return wrap(out, node(self, targets, self.vjps, (x.shape,), (dtype,), saved, kept))


class Binary(Op):
    """An elementwise op of two operands that broadcast, by a ufunc."""

    failures = (ValueError, TypeError)
    elementwise = True

    def __init__(
        self, name: str, ufunc: Callable[..., Any], *, inplace: bool = True, **options: Any
    ) -> None:
        def forward(input: Any, other: Any) -> Any:
            return ufunc(input, other)

        forward.__name__ = name
        forward.__doc__ = ufunc.__doc__
        super().__init__(forward, promote=("input", "other"), inplace=inplace, **options)
        self.ufunc = ufunc
        _register(ufunc, self)

    def __call__(
        self, input: Any = MISSING, other: Any = MISSING, /, *more: Any, **kwargs: Any
    ) -> Any:
        if more or kwargs or other is MISSING:
            return super().__call__(*given(input, other, *more), **kwargs)
        return self.of_two(input, other)

    def of_two(self, input: Any, other: Any) -> Any:
        """The call with both operands and nothing else, as an operator makes it."""
        if Levels.open:
            return super().__call__(input, other)
        first = second = False  # whether each requires grad
        if isinstance(input, Tensor):
            x = input._array
            dtype = x.dtype
            first = input._requires_grad
            if isinstance(other, Tensor):
                y = other._array
                second = other._requires_grad
                if y.dtype is not dtype or (self.picky and dtype.kind not in self.kinds):
                    return super().__call__(input, other)
            elif type(other) in REAL_SCALARS and dtype.kind in self.inexact:
                y = other
            else:
                return super().__call__(input, other)
        elif isinstance(other, Tensor) and type(input) in REAL_SCALARS:
            x, y = input, other._array
            dtype = y.dtype
            second = other._requires_grad
            if dtype.kind not in self.inexact:
                return super().__call__(input, other)
        else:
            return super().__call__(input, other)
        two = x is not input and y is not other
        try:
            if two and x.ndim > 1 and WIDE <= x.size > y.size:
                with rowwise(x, y):
                    out = self.ufunc(x, y)
            else:
                out = self.ufunc(x, y)
        except self.failures:  # whose error says more
            return super().__call__(input, other)
        if type(out) is not ndarray:
            out = as_array(out)
        if two and out.ndim > 1 and not (x.flags.c_contiguous and y.flags.c_contiguous):
            out = iterated(out, (x, y))
        if not ((first or second) and state.enabled and self.vjps):
            return wrap(out)
        targets = (
            (input._node or input) if first else None,
            (other._node or other) if second else None,
        )
        saved = (x, y, input, other) if self.saved else None
        kept = out if self.saves_out else None
        shape = out.shape
        if (  # see `refgrad.graph` for what their gradients come in
            out.dtype is dtype
            and (not first or x.shape == shape)
            and (not second or y.shape == shape)
        ):
            return wrap(out, node(self, targets, self.vjps, None, None, saved, kept))
        shapes = (x.shape if first else None, y.shape if second else None)
        return wrap(out, node(self, targets, self.vjps, shapes, (dtype, dtype), saved, kept))


def unary(
    name: str, ufunc: Callable[..., Any], vjp: Callable[..., Any] | None = None, **options: Any
) -> Unary:
    """An elementwise op of one tensor from a ufunc and its vjp, `lambda g, input: ...`."""
    made = Unary(name, ufunc, **options)
    if vjp is not None:
        made.vjp(input=vjp)
    return made


def binary(
    name: str,
    ufunc: Callable[..., Any],
    input: Callable[..., Any] | None = None,
    other: Callable[..., Any] | None = None,
    **options: Any,
) -> Binary:
    """An elementwise op of two operands from a ufunc and a vjp for each, or none."""
    made = Binary(name, ufunc, **options)
    if input is not None and other is not None:
        made.vjp(input=input, other=other)
    return made


def _register(ufunc: Callable[..., Any], made: Op) -> None:
    if isinstance(ufunc, np.ufunc):
        UFUNCS.setdefault(ufunc, made)
        if not any("D" in loop.partition("->")[0] for loop in ufunc.types):
            made.reals()
