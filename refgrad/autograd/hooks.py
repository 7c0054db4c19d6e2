"""Hooks: what users have called while gradients flow.

At a node, in PyTorch's order: the hooks of the tensor that it made, then the gradient that
`retain_grad` keeps, then the node's prehooks, its own rules, and its hooks. At a leaf: the tensor's
hooks, the accumulation, then the post-accumulate hooks.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad.ops.arrays import as_array
from refgrad.tensor import Tensor, wrap

_ids = itertools.count()


class Handle:
    """What registering a hook returns: `remove()` takes the hook off again."""

    def __init__(self, hooks: dict[int, Any], hook: Callable[..., Any]) -> None:
        self._hooks = hooks
        self.id = next(_ids)
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Hooks:
    """The hooks at one node, each kind in the order of registration."""

    __slots__ = ("after", "before", "retained", "tensor")

    def __init__(self) -> None:
        self.tensor: dict[int, Any] = {}
        self.retained: dict[int, Any] = {}
        self.before: dict[int, Any] = {}
        self.after: dict[int, Any] = {}

    @property
    def around(self) -> bool:
        """Whether hooks of the node itself are there."""
        return bool(self.before or self.after)

    def on_gradient(self, g: Any, record: bool) -> Any:
        """What the hooks of the tensor make of its gradient."""
        if self.tensor:
            g = changed(self.tensor, g, record)
        for keep in tuple(self.retained.values()):
            keep(shown(g, record))
        return g


def of(owner: Any) -> Hooks:
    """The hooks of a node or a leaf's accumulator, for one more."""
    if owner.hooks is None:
        owner.hooks = Hooks()
    hooks: Hooks = owner.hooks
    return hooks


def retain(tensor: Any) -> Handle:
    """Store the gradient that reaches a non-leaf in its `.grad`, as long as the tensor lives."""
    of_tensor = weakref.ref(tensor)

    def keep(g: Any) -> None:
        t = of_tensor()
        if t is not None:
            t._grad = g.clone() if t._grad is None else t._grad + g

    return Handle(of(tensor._node).retained, keep)


def shown(g: Any, record: bool) -> Any:
    """A gradient as users see it: a Tensor, and PyTorch's, the conjugate of the engine's."""
    t = g if record else wrap(as_array(g))
    return np.conj(t) if t._array.dtype.kind == "c" else t


def taken(t: Any, record: bool) -> Any:
    """The engine's gradient of what a user gave: the inverse of `shown`."""
    if t._array.dtype.kind == "c":
        return np.conj(t) if record else np.conj(t._array)
    return t if record else t._array


def changed(hooks: dict[int, Any], g: Any, record: bool) -> Any:
    """What the hooks of a tensor, one after another, make of its gradient.

    Raises:
        TypeError: a hook returned something else than a Tensor or None.
        RuntimeError: a hook returned a gradient of another shape or dtype.
    """
    t = before = shown(g, record)
    for hook in tuple(hooks.values()):
        made = hook(t)
        if made is None:
            continue
        if not isinstance(made, Tensor):
            raise TypeError(f"expected Variable, but hook returned '{type(made).__name__}'")
        if made._array.shape != t._array.shape:
            raise RuntimeError(f"hook '{_name(hook)}' has changed the size of value")
        if made._array.dtype != t._array.dtype:
            raise RuntimeError(
                f"hook '{_name(hook)}' has changed the type of value (was {t.dtype!r} got "
                f"{made.dtype!r})"
            )
        t = made
    return g if t is before else taken(t, record)


def prepared(hooks: dict[int, Any], gradients: Sequence[Any]) -> tuple[Any, ...]:
    """What prehooks make of the gradients (as shown) that reach a node."""
    given = tuple(gradients)
    for hook in tuple(hooks.values()):
        made = hook(given)
        if made is not None:
            given = _fitting(hook, made, given)
    return given


def finished(
    hooks: dict[int, Any], results: Sequence[Any], given: tuple[Any, ...]
) -> tuple[Any, ...]:
    """What hooks make of the gradients (as shown) that a node sends on, from those it was given."""
    sent = tuple(results)
    for hook in tuple(hooks.values()):
        made = hook(sent, given)
        if made is not None:
            sent = _fitting(hook, made, sent)
    return sent


def _fitting(hook: Any, made: Any, before: tuple[Any, ...]) -> tuple[Any, ...]:
    values: tuple[Any, ...] = made if isinstance(made, tuple) else (made,)
    if len(values) != len(before):
        raise RuntimeError(
            f"hook '{_name(hook)}' has returned an incorrect number of values (got {len(values)}, "
            f"but expected {len(before)})"
        )
    for m in values:
        if m is not None and not isinstance(m, Tensor):
            raise TypeError(f"expected Variable, but hook returned '{type(m).__name__}'")
    return values


def _name(hook: Any) -> str:
    return str(getattr(hook, "__name__", "<unknown>"))
