"""Views: tensors that share another's memory, and whose history is read through it.

A view keeps how it was made (`_made_by`, an op and its arguments). When the tensor it is a view of
was rewritten by a recorded in-place write, through itself or through any of its views, the view's
own node is out of date; it is made anew when it is next asked for, by replaying the op. So views
that nobody writes to cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.graph import Links, Writes, node
from refgrad.mode import state
from refgrad.tensor import LEAF_WRITE, Tensor, wrap

_new = object.__new__

SEVERAL = (
    "Output {index} of {name} is a view and {written} modified inplace. This view is the output of "
    "a function that returns multiple views. Such functions do not allow the output views to be "
    "modified inplace. You should replace the inplace operation by an out-of-place one."
)
UNRECORDED = (
    "A view was created in no_grad mode and {written} modified inplace with grad mode enabled. "
    "Make the view outside no_grad, or write to it inside."
)


TURNED = (
    "A view was made before what it views was given another geometry in place, as by t_() or "
    "unsqueeze_(). Make the view anew after such a call."
)

IN_FUNCTION = (
    "Output {index} of {name} is a view and {written} modified inplace. This view was created "
    "inside a custom Function (or because an input was returned as-is) and the autograd logic to "
    "handle view+inplace would override the custom backward associated with the custom Function, "
    "leading to incorrect gradients. You can fix this by cloning the output of the custom Function."
)


class View(Tensor):
    """A tensor made by a view op: it shares the memory of `_base`, which is no view itself."""

    _made_by: tuple[Any, tuple[Any, ...]]  # the op, and its arguments; the first is the parent
    _index: int | None  # which of several results it is
    _recorded: bool  # whether it was made in grad mode
    _function: str | None = None  # the node of the user's Function that returned it
    _own_node: Any
    _own_requires_grad: bool
    _seen: int  # when its history was last read through its base
    _made_at: int  # the last write before it was made

    def _refresh(self) -> None:
        """Make the nodes of this view, and of those between it and its base, anew if need be."""
        base = self._base
        if base is None:
            return
        if base._requires_grad and base.root()._written > self._made_at:
            view: Any = self
            while isinstance(view, View):  # PyTorch lets none of several views outlive any write
                if view._index is not None:
                    view._check_made_alone("its base or another view of its base has been")
                view = view._made_by[1][0]
        if base._rebased <= self._seen:
            return
        chain = [self]
        while isinstance(parent := chain[-1]._made_by[1][0], View) and parent._seen < base._rebased:
            chain.append(parent)
        self._check_base_unturned()
        for view in chain:
            view._check_made_alone("its base or another view of its base has been")
        before, state.enabled = state.enabled, True
        try:
            for view in reversed(chain):
                op, values = view._made_by
                made = op.on(values)
                made = made if view._index is None else made[view._index]
                view._seen = base._rebased
                view._own_node, view._own_requires_grad = made._own_node, made._own_requires_grad
        finally:
            state.enabled = before

    @property
    def _node(self) -> Any:
        if Writes.last != self._made_at:
            self._refresh()
        return self._own_node

    @_node.setter
    def _node(self, node: Any) -> None:
        self._own_node = node

    @property
    def _requires_grad(self) -> bool:
        if Writes.last != self._made_at:  # else nothing was written since
            self._refresh()
        return self._own_requires_grad

    @_requires_grad.setter
    def _requires_grad(self, value: bool) -> None:
        self._own_requires_grad = value

    def replay(self) -> Replay:
        """How this view is taken of its base."""
        views: list[Any] = [self]
        while isinstance(parent := views[-1]._made_by[1][0], View):
            views.append(parent)
        return Replay(views, parent)

    def check_writable(self) -> None:
        """Raise RuntimeError where PyTorch refuses a recorded in-place write to this view."""
        super().check_writable()
        base = self._base
        if not state.enabled or not (self._requires_grad or base._requires_grad):
            return
        if base._requires_grad and base._node is None:
            raise RuntimeError(f"a view of {LEAF_WRITE}")
        view: Any = self
        while isinstance(view, View):
            view._check_made_alone("is being")
            view = view._made_by[1][0]

    def _check_made_alone(self, written: str) -> None:
        """Raise RuntimeError where this view cannot have a history of its own through its base."""
        if self._function is not None and self._index is None:
            raise RuntimeError(IN_FUNCTION.format(index=0, name=self._function, written=written))
        if self._index is not None:
            name = self._function or self._made_by[0].node_name
            raise RuntimeError(SEVERAL.format(index=self._index, name=name, written=written))
        if not self._recorded:
            raise RuntimeError(UNRECORDED.format(written=written))

    def _check_base_unturned(self) -> None:
        """Raise RuntimeError where this view cannot be made anew from what it was made of."""
        view: Any = self
        while isinstance(view, View):
            parent = view._made_by[1][0]
            if parent._turned > view._made_at:
                raise RuntimeError(TURNED)
            view = parent

    def twin(self) -> Tensor:
        """Another view of the same memory and history."""
        made = View.__new__(View)
        made.__dict__.update(self.__dict__)
        return made

    def turn(self, made: Tensor) -> None:
        """Take over the array and the history of `made`, a view of the `twin` of this view."""
        for name in ("_array", "_made_by", "_index", "_seen", "_made_at"):
            setattr(self, name, getattr(made, name))
        self._tangents = None  # they are read through the twin
        if made._requires_grad:
            self._own_node, self._own_requires_grad = made._node, True
        self._turned = Writes.last

    def _take_history(self, made: Tensor) -> None:
        from refgrad.ops.copyslices import view_write

        base = self._base
        links: Links | tuple[()] = view_write.links((base, made, None))
        if not links:
            return
        self._check_base_unturned()
        replay = self.replay()
        saved = (None, None, replay, None, None, replay)
        base._node = node(view_write, *links, saved, None)
        base._requires_grad = True
        base._rebased = Writes.last
        base.retain_anew()


class Replay:
    """How a view is taken, through `views`, the last one first, of what is shaped as `base`."""

    def __init__(self, views: Sequence[Any], base: Tensor) -> None:
        made = [(*view._made_by, view._index) for view in reversed(views)]
        self._steps = [(op, values[1:], index) for op, values, index in made]
        strides = base._array.strides
        dense = base._array.flags.c_contiguous
        self._order = None if dense else sorted(range(len(strides)), key=lambda d: -strides[d])

    def __call__(self, x: Any) -> Any:
        """The view of an array or a Tensor `x`."""
        for op, rest, index in self._steps:
            x = op.on((x, *rest))
            x = x if index is None else x[index]
        return x

    def copy(self, x: Any) -> Any:
        """A copy of an array, in the base's order of dimensions: views of it are no copies."""
        order = self._order
        if order is None:
            out = np.empty_like(x, order="C")
        else:
            out = np.empty_like(x, order="C", shape=tuple(x.shape[d] for d in order))
            out = np.transpose(out, sorted(range(len(order)), key=order.__getitem__))
        out[...] = x
        return out


def make_view(array: Any, node: Any, op: Any, values: tuple[Any, ...], index: int | None) -> Tensor:
    """The result of a view op on `values[0]`: a View where it shares memory with it.

    Args:
        array: the result; where it is a copy, or its kind tells nothing, a plain Tensor is made.
        node: the node that made it, or None.
        index: which of several results it is.
    """
    source = values[0]
    base = getattr(array, "base", None)  # a copy may have one too, of its own
    shares = False
    if base is not None and isinstance(source, Tensor):
        own = source._array
        shares = bool(
            array.size if base is own or base is own.base else np.may_share_memory(array, own)
        )
    if not shares:
        return wrap(array, node)
    made = _new(View)
    made._array = array
    base = made._base = source._base if isinstance(source, View) else source
    made._made_by = (op, values)
    made._index = index
    made._recorded = state.enabled
    made._seen = base._rebased
    made._made_at = Writes.last
    made._own_node = node
    made._own_requires_grad = node is not None
    return made
