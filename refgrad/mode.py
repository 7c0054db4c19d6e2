"""Grad modes: whether operations are recorded, per thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _State(threading.local):
    enabled = True


state = _State()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require grad are recorded in this thread."""
    return state.enabled


class _Mode:
    """A grad mode as a context manager, re-entrant, and as a decorator."""

    enabled: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(state.enabled)
        state.enabled = self.enabled

    def __exit__(self, *exc: object) -> None:
        state.enabled = self._before.pop()

    def __call__(self, function: F) -> F:
        enabled = self.enabled

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, state.enabled = state.enabled, enabled
            try:
                return function(*args, **kwargs)
            finally:
                state.enabled = before

        return wrapped  # type: ignore[return-value]


class no_grad(_Mode):
    """Within it nothing is recorded; as `@no_grad()` or `@no_grad` on a function too."""

    enabled = False

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        _Mode.__init__(made)
        return made(function)


class enable_grad(_Mode):
    """Within it operations are recorded, also inside `no_grad`."""

    enabled = True


class inference_mode(_Mode):
    """`no_grad` under its other name; `mode=False` leaves recording on."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.enabled = not mode


class set_grad_enabled(_Mode):
    """Sets the mode at once; as a context manager it restores the former one at the end."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.enabled = bool(mode)
        self._outer = state.enabled
        state.enabled = self.enabled

    def __enter__(self) -> None:
        self._before.append(self._outer)
        state.enabled = self.enabled

    def __call__(self, function: F) -> F:
        state.enabled = self._outer
        return super().__call__(function)
