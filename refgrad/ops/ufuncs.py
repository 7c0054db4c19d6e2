"""Elementwise ops of one or two tensors, by a ufunc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refgrad.graph import node
from refgrad.levels import Levels
from refgrad.libraries import on_device
from refgrad.mode import state
from refgrad.ops.arrays import as_array
from refgrad.ops.kernels import WIDE, rowwise
from refgrad.ops.op import MISSING, REAL_SCALARS, Op, given
from refgrad.ops.strides import iterated
from refgrad.tensor import UFUNCS, Tensor, wrap

ndarray = np.ndarray
_OPERANDS = (Tensor, int, float, complex, np.ndarray, np.generic)


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
        self.of_two = _of_two(self)
        _register(ufunc, self)

    def __call__(
        self, input: Any = MISSING, other: Any = MISSING, /, *more: Any, **kwargs: Any
    ) -> Any:
        if more or kwargs or other is MISSING:
            return super().__call__(*given(input, other, *more), **kwargs)
        made = self.of_two(input, other)
        return super().__call__(input, other) if made is NotImplemented else made


def takes(other: Any) -> bool:
    """Whether a Tensor computes with `other` itself.

    An array of a device is one of these: CuPy's reflected operators are no way back to a Tensor.
    """
    return isinstance(other, _OPERANDS) or on_device(other)


def _of_two(op: Binary) -> Callable[[Any, Any], Any]:
    """The call of `op` with two operands and nothing else, which Tensor has as its operator.

    It is a function, for Python gives a method of the op no Tensor: to call one from another
    function, as operators do, took a twentieth of a product.
    """
    ufunc, general = op.ufunc, super(Binary, op).__call__

    def of_two(input: Any, other: Any) -> Any:
        if Levels.open:
            return general(input, other) if takes(input) and takes(other) else NotImplemented
        first = second = False  # whether each requires grad
        if isinstance(input, Tensor):
            x = input._array
            dtype = x.dtype
            first = input._requires_grad
            if isinstance(other, Tensor):
                y = other._array
                second = other._requires_grad
                two = True
                if y.dtype is not dtype or (op.picky and dtype.kind not in op.kinds):
                    return general(input, other)
            elif type(other) in REAL_SCALARS and dtype.kind in op.inexact:
                y = other
                two = False
            else:
                return general(input, other) if takes(other) else NotImplemented
        elif isinstance(other, Tensor) and type(input) in REAL_SCALARS:
            x, y = input, other._array
            dtype = y.dtype
            second = other._requires_grad
            two = False
            if dtype.kind not in op.inexact:
                return general(input, other)
        else:
            return general(input, other) if takes(input) and takes(other) else NotImplemented
        try:
            if two and WIDE <= x.size > y.size and x.ndim > 1:
                with rowwise(x, y):
                    out = ufunc(x, y)
            else:
                out = ufunc(x, y)
        except op.failures:  # whose error says more
            return general(input, other)
        if type(out) is not ndarray:
            out = as_array(out)
        if two and out.ndim > 1 and not (x.flags.c_contiguous and y.flags.c_contiguous):
            out = iterated(out, (x, y))
        if not ((first or second) and state.enabled and op.vjps):
            return wrap(out)
        targets = (
            (input._node or input) if first else None,
            (other._node or other) if second else None,
        )
        saved = (x, y, input, other) if op.saved else None
        kept = out if op.saves_out else None
        # see `refgrad.graph` for what their gradients come in
        if out.dtype is dtype and not (two and x.shape != y.shape):
            return wrap(out, node(op, targets, op.vjps, None, None, saved, kept))
        shapes = (x.shape if first else None, y.shape if second else None)
        return wrap(out, node(op, targets, op.vjps, shapes, (dtype, dtype), saved, kept))

    return of_two


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


def pulled(
    name: str, formula: Callable[..., Any], by_input: Callable[..., Any]
) -> Callable[..., Any]:
    """The vjp g f'(x) of an elementwise op, on arrays `formula(g, x)`, recorded as a single node.

    It is linear in g; `by_input(h, g, x)`, h g f''(x), is its own vjp by x. As two nodes, of the
    slope and of the product with it, a recorded sin took 4.2 us, and so it takes 2.3.
    """
    made = Binary(name, formula, inplace=False, method=False, node_name=f"{name}BackwardBackward0")

    def vjp(g: Any, input: Any) -> Any:
        return made.of_two(g, input) if isinstance(input, Tensor) else formula(g, input)

    made.vjp(
        input=lambda g, other: vjp(g, other), other=lambda g, input, other: by_input(g, input, other)
    )
    return vjp


def _register(ufunc: Callable[..., Any], made: Op) -> None:
    if isinstance(ufunc, np.ufunc):
        UFUNCS.setdefault(ufunc, made)
        if not any("D" in loop.partition("->")[0] for loop in ufunc.types):
            made.reals()
