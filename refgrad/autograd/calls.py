"""What a call of a user's Function leaves in the graph.

A call makes one `FunctionNode`, a node like any other: its single rule hands the gradients to the
user's `backward` and checks what comes back. Under `create_graph` that happens on recorded Tensors,
so a `backward` made of differentiable operations is differentiable itself. The user's code sees
PyTorch's gradients, df/dx + i df/dy, which are the conjugates of the engine's.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.autograd.hooks import shown, taken
from refgrad.device import place
from refgrad.graph import Links, Node, Output, node
from refgrad.mode import state
from refgrad.tensor import Tensor, wrap
from refgrad.views import View

__all__ = ["FunctionNode", "links", "record", "save"]

SEVERAL = (
    "If your Function modifies inplace an input that is a view of another Tensor, your Function "
    "cannot return more than one Tensor. Clone the input first, or split the Function in two."
)
NOT_RETURNED = (
    "Some elements marked as dirty during the forward method were not returned as output. The "
    "inputs that are modified inplace must all be outputs of the Function."
)
NOT_AN_INPUT = (
    "ctx.mark_dirty() received a tensor that was not an input. Only input Tensors that are "
    "modified in place should be given to it."
)


class Saved:
    """A saved tensor; an output is kept without its node, lest the two keep each other alive."""

    __slots__ = ("array", "index", "tensor")

    def __init__(self, t: Tensor, node: FunctionNode) -> None:
        made_by = t._node
        if made_by is node:
            self.tensor, self.array, self.index = None, t._array, 0
        elif type(made_by) is Output and made_by.parent is node:
            self.tensor, self.array, self.index = None, t._array, made_by.index
        else:
            self.tensor, self.array, self.index = t, None, -1

    def unpack(self, node: FunctionNode) -> Tensor:
        t = self.tensor
        owner: Any = node.output(self.index) if t is None else None
        if (owner.written if t is None else t.root()._written) > node.seq:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor saved by {node.name()} was written after it. Clone "
                "it before the write, or use the out-of-place operation."
            )
        return wrap(self.array, owner) if t is None else t


class FunctionNode(Node):
    """The node of one call of a Function. What it does not know itself, its context may."""

    __slots__ = ("ctx", "function", "outputs", "single", "specs")

    ctx: Any
    function: Any
    specs: list[Any]  # shape, dtype, device of each output; or None
    single: bool  # one output, which hangs on this node itself
    outputs: dict[int, Any]  # otherwise: weak references to the `Output`s

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.ctx, name)

    def name(self) -> str:
        """The Function's name and `Backward`."""
        return f"{self.function.__name__}Backward"

    def output(self, index: int) -> Any:
        """What the gradient of an output is addressed to."""
        if self.single:
            return self
        found = self.outputs[index]() if index in self.outputs else None
        if found is None:
            found = Output(self, index)
            self.outputs[index] = weakref.ref(found)
        return found

    def check_fresh(self) -> None:
        """Nothing: a saved tensor is checked when backward asks for it."""

    def release(self) -> None:
        """Drop the saved tensors; a Function that saved none can go back again."""
        if self.ctx._saved:
            self.ctx._saved = None

    def pull(self, g: Any, record: bool) -> list[Any]:
        """The gradients of all arguments, from the user's backward.

        Raises:
            RuntimeError: backward returned too many, too few, or gradients that do not fit.
        """
        parts = g if type(g) is tuple else (g,)
        given = [self._given(p, i, record) for i, p in enumerate(parts)]
        results = self.function.pullback()(self.ctx, *given)
        if type(results) is not tuple:
            results = (results,)
        (shapes,), (kinds,) = self.shapes or ((),), self.dtypes or ((),)
        n = len(shapes)
        if len(results) > n and all(r is None for r in results[n:]):
            results = results[:n]
        if len(results) != n:
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients "
                f"(expected {n}, got {len(results)})"
            )
        return [
            self._taken(r, i, shapes[i], kinds[i], record) if r is not None else None
            for i, r in enumerate(results)
        ]

    def _given(self, p: Any, index: int, record: bool) -> Any:
        """The gradient of one output, as the user's backward sees it."""
        if p is None:
            spec = self.specs[index]
            if spec is None or not self.ctx.materialize_grads:
                return None
            shape, dtype, where = spec
            return wrap(place(np.zeros(shape, dtype), where))
        return shown(p, record)

    def _taken(self, r: Any, index: int, shape: Any, dtype: Any, record: bool) -> Any:
        """A gradient that the user's backward gave, as the engine has it."""
        if not isinstance(r, Tensor):
            raise RuntimeError(f"expected Variable or None (got {type(r).__name__})")
        if dtype is None:
            raise RuntimeError(
                f"function {self.name()} returned a gradient different than None at position "
                f"{index + 1}, but the corresponding forward input was not a Variable"
            )
        array = r._array
        if array.shape != shape and not _expands(shape, array.shape):
            raise RuntimeError(
                f"Function {self.name()} returned an invalid gradient at index {index} - got "
                f"{list(array.shape)} but expected shape compatible with {list(shape)}"
            )
        if array.dtype.kind == "c" and dtype.kind != "c":
            raise RuntimeError(
                f"Function {self.name()} returned an invalid gradient at index {index} - "
                "expected isFloatingType(grad.scalar_type()) for a real input, but got "
                f"{r.dtype!r}"
            )
        return taken(r, record)


class _Pull:
    """The rule of every FunctionNode: all gradients at once."""

    at = into = None
    needs = (None,)  # what the node has
    saves = joint = False  # its gradients may be those that it was given

    @staticmethod
    def raw(g: Any, node: FunctionNode, shape: Any) -> Any:
        return node.pull(g, record=False)

    @staticmethod
    def graph(g: Any, node: FunctionNode, shape: Any) -> Any:
        return node.pull(g, record=True)


class _Call:
    """What FunctionNodes have for an op."""

    name = node_name = "Function"
    names: tuple[str, ...] = ()
    unread = None

    @staticmethod
    def outputs_of(node: FunctionNode) -> int:
        return len(node.specs)

    @staticmethod
    def complete(parts: list[Any], node: FunctionNode, record: bool) -> tuple[Any, ...]:
        return tuple(parts)


_PULL = _Pull()
_CALL = _Call()


def links(args: Sequence[Any], needed: Sequence[bool]) -> Links:
    """Targets, rules, shapes and dtypes, one of each for all `args`: the rule gives all at once."""
    tensors = [isinstance(a, Tensor) for a in args]
    return (
        (tuple((a._node or a) if n else None for a, n in zip(args, needed, strict=True)),),
        (_PULL,),
        (tuple(a._array.shape if t else () for a, t in zip(args, tensors, strict=True)),),
        (tuple(a._array.dtype if t else None for a, t in zip(args, tensors, strict=True)),),
    )


def record(
    function: Any, ctx: Any, args: Sequence[Any], outputs: Sequence[Any], links: Links | None
) -> tuple[tuple[Any, ...], FunctionNode | None]:
    """The outputs of a call as its user gets them, and its node; no node where `links` is None.

    Raises:
        RuntimeError: an input was written in a way that the graph cannot follow.
    """
    inputs = {id(a) for a in args if isinstance(a, Tensor)}
    constant = {id(t) for t in ctx.non_differentiable}
    dirty = _written(ctx.dirty_tensors, inputs, outputs, recorded=links is not None)
    call: Any = None
    if links is not None:
        call = node(_CALL, *links, (), None, FunctionNode)
        call.function, call.ctx, call.outputs = function, ctx, {}
        call.single = len(outputs) == 1
        call.specs = [
            (o._array.shape, o._array.dtype, o.device) if isinstance(o, Tensor) else None
            for o in outputs
        ]
        ctx._node = weakref.ref(call)
    made = []
    for i, o in enumerate(outputs):
        if isinstance(o, Tensor):
            target = None
            if call is not None and id(o) not in constant and o._array.dtype.kind in "fc":
                target = call.output(i)
            o = _attach(o, target, i, is_input=id(o) in inputs, dirty=id(o) in dirty)
        made.append(o)
    return tuple(made), call


def _written(
    tensors: Sequence[Any], inputs: set[int], outputs: Sequence[Any], *, recorded: bool
) -> set[int]:
    """Note the writes to what was marked dirty, where the graph can follow them."""
    returned = {id(o) for o in outputs}
    count = sum(isinstance(o, Tensor) for o in outputs)
    for t in tensors:
        if id(t) not in inputs:
            warnings.warn(NOT_AN_INPUT, stacklevel=5)
        if id(t) not in returned:
            raise RuntimeError(NOT_RETURNED)
        if recorded:
            before, state.enabled = state.enabled, True
            try:
                t.check_writable()
            finally:
                state.enabled = before
            if t._base is not None and count > 1:
                raise RuntimeError(SEVERAL)
        t.mark_written()
    return {id(t) for t in tensors}


def _attach(o: Any, target: Any, index: int, *, is_input: bool, dirty: bool) -> Any:
    """One output, hanging on `target`; an input that was returned unchanged becomes a view."""
    if dirty:
        if target is not None:
            o._take_history(wrap(o._array, target))
        return o
    if target is None:
        if is_input:
            return o.detach()
        if o._requires_grad and o._base is None:
            o.detach_()
        return o
    if is_input:
        o = o.view_as(o)
    if isinstance(o, View):
        node = target.parent if isinstance(target, Output) else target
        o._function = node.name()
        if isinstance(target, Output):
            o._index = index
    o._node, o._requires_grad = target, True
    return o


def save(tensors: Sequence[Any], node: FunctionNode) -> tuple[Any, ...]:
    """What `save_for_backward` was given, as the node keeps it.

    Raises:
        TypeError: something else than Tensors and None.
    """
    for i, t in enumerate(tensors):
        if t is not None and not isinstance(t, Tensor):
            raise TypeError(
                f"save_for_backward can only save variables, but argument {i} is of type "
                f"{type(t).__name__}"
            )
    return tuple(None if t is None else Saved(t, node) for t in tensors)


def _expands(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether `shape` broadcasts to `to`."""
    return len(shape) <= len(to) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False)
    )
