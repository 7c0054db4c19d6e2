"""Grad modes: whether operations are recorded, per thread."""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Generator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _State(threading.local):
    enabled = True  # whether operations are recorded
    inference = False  # in inference mode nothing is, whatever the grad mode says
    asked = True  # what the grad mode says then


state = _State()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require grad are recorded in this thread."""
    return state.enabled or (state.inference and state.asked)


def is_inference_mode_enabled() -> bool:
    """Whether this thread is in inference mode, where `enable_grad` has no effect."""
    return state.inference


def _now() -> tuple[bool, bool, bool]:
    return state.enabled, state.inference, state.asked


def _set(mode: tuple[bool, bool, bool]) -> None:
    state.enabled, state.inference, state.asked = mode


def _set_grad(enabled: bool) -> None:
    state.asked = enabled
    state.enabled = enabled and not state.inference


class _Mode:
    """A mode as a context manager, re-entrant, and as a decorator of functions and generators."""

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool, bool]] = []

    def _apply(self) -> None:
        """Set the mode."""
        raise NotImplementedError

    def __enter__(self) -> None:
        self._before.append(_now())
        self._apply()

    def __exit__(self, *exc: object) -> None:
        _set(self._before.pop())

    def __call__(self, function: F) -> F:
        if inspect.isclass(function):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You "
                "should only decorate functions or methods.",
                FutureWarning,
                stacklevel=2,
            )
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before = _now()
            self._apply()
            try:
                return function(*args, **kwargs)
            finally:
                _set(before)

        return wrapped  # type: ignore[return-value]

    def _around_generator(self, function: F) -> F:
        """A generator that runs in this mode, while its caller stays in its own."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            resume, value = generator.send, None
            while True:
                before = _now()
                self._apply()
                try:
                    made = resume(value)
                except StopIteration as end:
                    return end.value
                finally:
                    _set(before)
                try:
                    resume, value = generator.send, (yield made)
                except GeneratorExit:
                    with self:
                        generator.close()
                    raise
                except BaseException as error:
                    resume, value = generator.throw, error

        return wrapped  # type: ignore[return-value]


class _Fixed(_Mode):
    """A mode without arguments: `@mode` decorates as `@mode()` does."""

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        _Mode.__init__(made)
        return made(function)

    def __init__(self) -> None:
        super().__init__()


class no_grad(_Fixed):
    """Within it nothing is recorded; as `@no_grad()` or `@no_grad` on a function too."""

    def _apply(self) -> None:
        _set_grad(False)


class enable_grad(_Fixed):
    """Within it operations are recorded, also inside `no_grad`."""

    def _apply(self) -> None:
        _set_grad(True)


class inference_mode(_Mode):
    """`no_grad` that `enable_grad` cannot undo; `inference_mode(False)` does, and records."""

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if not callable(mode):
            return made
        _Mode.__init__(made)
        made.mode = True
        return made(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.mode = bool(mode)

    def _apply(self) -> None:
        _set((not self.mode, self.mode, not self.mode))


class set_grad_enabled(_Mode):
    """Sets the mode at once; as a context manager it restores the former one at the end."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)
        self._outer = _now()
        self._apply()

    def _apply(self) -> None:
        _set_grad(self.mode)

    def __enter__(self) -> None:
        self._before.append(self._outer)
        self._apply()

    def __call__(self, function: F) -> F:
        _set(self._outer)
        return super().__call__(function)
