"""Hooks on tensors: handles that remove them, and retained gradients."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Handle:
    """What registering a hook returns: `remove()` takes the hook off again."""

    def __init__(self, owner: Any, attribute: str, hook: Callable[..., Any]) -> None:
        self._owner: Any = owner
        self._attribute = attribute
        self._hook = hook
        hooks = getattr(owner, attribute)
        if hooks is None:
            hooks = []
            setattr(owner, attribute, hooks)
        hooks.append(hook)

    def remove(self) -> None:
        """Take the hook off; a second call does nothing."""
        hooks = getattr(self._owner, self._attribute) or []
        if self._hook in hooks:
            hooks.remove(self._hook)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def retain(tensor: Any) -> None:
    """Store the gradient that reaches a non-leaf in its `.grad`, as long as the tensor lives."""
    of = weakref.ref(tensor)

    def keep(g: Any) -> None:
        t = of()
        if t is not None:
            t._grad = g.clone() if t._grad is None else t._grad + g

    Handle(tensor._node, "hooks", keep)
