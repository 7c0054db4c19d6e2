"""torch.autograd.Function: operations whose forward and backward the user writes.

>>> class Cube(torch.autograd.Function):
...     @staticmethod
...     def forward(ctx, x):
...         ctx.save_for_backward(x)
...         return x**3
...
...     @staticmethod
...     def backward(ctx, grad):
...         (x,) = ctx.saved_tensors
...         return 3 * x**2 * grad
>>> y = Cube.apply(x)
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from refgrad.autograd import calls
from refgrad.autograd.backward import FREED
from refgrad.levels import levels
from refgrad.mode import state
from refgrad.ops.forward import push_function
from refgrad.ops.op import Op
from refgrad.tensor import Tensor

__all__ = ["Function", "FunctionCtx", "InplaceFunction", "once_differentiable"]


class FunctionCtx:
    """What forward leaves for backward: saved tensors, declarations, and any attribute."""

    needs_input_grad: tuple[bool, ...] = ()
    materialize_grads = True
    to_save: tuple[Any, ...] = ()
    saved_for_forward: tuple[Any, ...] | None = None
    dirty_tensors: tuple[Any, ...] = ()
    non_differentiable: tuple[Any, ...] = ()
    _saved: tuple[Any, ...] | None = ()
    _node: Any = None  # a weak reference to the node

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep `tensors` (Tensors or None) for backward, which finds them in `saved_tensors`."""
        self.to_save = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep `tensors` for `jvp`, which finds them in `saved_tensors`.

        Raises:
            AssertionError: one is neither a Tensor nor None.
        """
        for t in tensors:
            assert t is None or isinstance(t, Tensor), (
                "save_for_forward expects all arguments to be tensors; save the rest as attributes"
            )
        self.saved_for_forward = tensors

    def mark_dirty(self, *args: Any) -> None:
        """Declare inputs that forward wrote in place; each must be returned."""
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Any) -> None:
        """Declare outputs that have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros, and not None, for an output that no gradient reached."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The saved tensors, with the history that they had.

        Raises:
            RuntimeError: they were freed, or one was written in place since.
        """
        if self.saved_for_forward is not None:
            return self.saved_for_forward
        if self._saved is None:
            raise RuntimeError(FREED)
        if not self._saved:
            return ()
        node = self._node()
        return tuple(s.unpack(node) if isinstance(s, calls.Saved) else s for s in self._saved)


class Function:
    """An operation with a derivative of its own: subclass it, and call `apply`.

    Static methods of the subclass: `forward(ctx, *args)`, or `forward(*args)` together with
    `setup_context(ctx, inputs, output)`; `backward(ctx, *grads)`, or `vjp`, which is given a
    gradient for each output and returns one for each argument of forward, None where there is
    none; and, for forward mode, `jvp(ctx, *tangents)`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"{cls} should not be instantiated. Methods on autograd functions are all static, so "
            "you should invoke them on the class itself.",
            DeprecationWarning,
            stacklevel=2,
        )
        return super().__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated. Please use "
            "new-style autograd function with static forward method."
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The values of the operation."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save what backward needs; a Function that has it has a `forward` without `ctx`."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the arguments, given those of the outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """The tangents of the outputs, given those of the arguments."""
        raise NotImplementedError(
            "You must implement the jvp function for custom autograd.Function to use it with "
            "forward mode AD."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward and record the call.

        Raises:
            RuntimeError: an input was written in a way that the graph cannot follow.
        """
        ctx = FunctionCtx()
        separate = cls.setup_context is not Function.setup_context
        if separate:
            args = _bound(cls.forward, args, kwargs, defaults=True)
        elif kwargs:
            args = _bound(functools.partial(cls.forward, ctx), args, kwargs, defaults=False)
        needed = tuple(isinstance(a, Tensor) and a._requires_grad for a in args)
        ctx.needs_input_grad = needed
        links = calls.links(args, needed) if state.enabled and any(needed) else None
        before, state.enabled = state.enabled, False
        visible, levels.visible = levels.visible, ()  # the tangents are the affair of jvp
        try:
            if separate:
                raw = cls.forward(*args)
                cls.setup_context(ctx, args, raw)
            else:
                raw = cls.forward(ctx, *args)
            several = type(raw) is tuple
            outputs, node = calls.record(cls, ctx, args, raw if several else (raw,), links)
            if node is not None:
                # outputs count as such where they are the very tensors that forward returned
                ctx._saved = calls.save(ctx.to_save, node)
        finally:
            state.enabled, levels.visible = before, visible
        if visible:
            push_function(cls, ctx, args, outputs)
        ctx.to_save, ctx.saved_for_forward = (), None
        return outputs if several else outputs[0]

    @classmethod
    def pullback(cls) -> Callable[..., Any]:
        """The user's backward, under either of its names.

        Raises:
            RuntimeError: it has both.
        """
        if cls.vjp is Function.vjp:
            return cls.backward
        if cls.backward is not Function.backward:
            raise RuntimeError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You "
                "should only implement one of them."
            )
        return cls.vjp


class InplaceFunction(Function):
    """PyTorch's base for Functions with an `inplace` option; it adds nothing here."""


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a backward as not differentiable itself: to differentiate what it gave is an error."""

    @functools.wraps(function)
    def wrapper(ctx: Any, *args: Any) -> Any:
        before, state.enabled = state.enabled, False
        try:
            outputs = function(ctx, *args)
        finally:
            state.enabled = before
        if not (before and any(isinstance(a, Tensor) and a._requires_grad for a in args)):
            return outputs
        several = outputs if type(outputs) is tuple else (outputs,)
        refusing = tuple(o if o is None else _once(o.detach().requires_grad_()) for o in several)
        return refusing if type(outputs) is tuple else refusing[0]

    return wrapper


def _same(input: Any) -> Any:
    return input.copy()


def _refuse(g: Any) -> Any:
    raise RuntimeError(
        "trying to differentiate twice a function that was marked with @once_differentiable"
    )


_once = Op(_same, method=False, node_name="DelayedError")
_once.vjp(input=_refuse)


def _bound(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], *, defaults: bool
) -> tuple[Any, ...]:
    """All arguments of a call by position: backward gives a gradient for each of them.

    Raises:
        TypeError: forward does not take them, or only by keyword.
    """
    bound = inspect.signature(forward).bind(*args, **kwargs)
    if defaults:
        bound.apply_defaults()
    if bound.kwargs:
        raise TypeError(
            f"forward() got an unexpected keyword argument {next(iter(bound.kwargs))!r}: the "
            "arguments of an autograd.Function are positional"
        )
    return bound.args
