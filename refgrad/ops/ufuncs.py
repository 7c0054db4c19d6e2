"""Elementwise ops of one or two tensors, by a ufunc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refgrad.graph import Node
from refgrad.levels import Levels
from refgrad.mode import state
from refgrad.ops.arrays import as_array
from refgrad.ops.op import Op
from refgrad.ops.strides import iterated
from refgrad.tensor import UFUNCS, Tensor, wrap

_REAL_SCALARS = frozenset((bool, int, float))


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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
            return super().__call__(*args, **kwargs)
        input = args[0]
        x = input._array
        if Levels.open or x.dtype.kind not in self.kinds:
            return super().__call__(input)
        try:
            out = self.ufunc(x)
        except self.failures:  # whose error says more
            return super().__call__(input)
        if not isinstance(out, np.ndarray):
            out = as_array(out)
        if input._requires_grad and state.enabled and self.rules:
            save = (x,) if self.saved else None
            link = (input._node or input, self.rules[0][1], x.shape, x.dtype)
            node = Node(
                self, (link,), save, args if save else None, out if self.saves_out else None
            )
            return wrap(out, node)
        return wrap(out)


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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if Levels.open or kwargs or len(args) != 2:
            return super().__call__(*args, **kwargs)
        input, other = args
        left, right = isinstance(input, Tensor), isinstance(other, Tensor)
        x: Any = input._array if left else input
        y: Any = other._array if right else other
        if left and right:
            if x.dtype is not y.dtype or (self.picky and x.dtype.kind not in self.kinds):
                return super().__call__(input, other)
        elif left:
            if type(other) not in _REAL_SCALARS or x.dtype.kind not in self.inexact:
                return super().__call__(input, other)
        elif not right or type(input) not in _REAL_SCALARS or y.dtype.kind not in self.inexact:
            return super().__call__(input, other)
        try:
            out = self.ufunc(x, y)
        except self.failures:  # whose error says more
            return super().__call__(input, other)
        if not isinstance(out, np.ndarray):
            out = as_array(out)
        if left and right and not (x.flags.c_contiguous and y.flags.c_contiguous):
            out = iterated(out, (x, y))
        if state.enabled and self.rules:
            first = left and input._requires_grad
            second = right and other._requires_grad
            if first or second:
                (_, of_input), (_, of_other) = self.rules
                links: tuple[Any, ...]
                if first and second:
                    links = (
                        (input._node or input, of_input, x.shape, x.dtype),
                        (other._node or other, of_other, y.shape, y.dtype),
                    )
                elif first:
                    links = ((input._node or input, of_input, x.shape, x.dtype),)
                else:
                    links = ((other._node or other, of_other, y.shape, y.dtype),)
                node = (
                    Node(self, links, (x, y), args, out if self.saves_out else None)
                    if self.saved
                    else Node(self, links, None, None, out if self.saves_out else None)
                )
                return wrap(out, node)
        return wrap(out)


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
