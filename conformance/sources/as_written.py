"""What torch.compile made, watched and unwatched.

The compiler leaves alone what it first meets under a mode of dispatch, and from then on: it would
never run as compiled again, in the user's process either, and what is judged would not be what the
user runs. A mode of functions it compiles along with the function, or gives up. And of one function
it makes code for eight kinds of operands, by strides among other things: further ones get the
function as it is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch

_COMPILER = "torch._dynamo"
_PLENTY = 1_000_000


class AsWritten:
    """Of a mode: what torch.compile made runs inside as it is written, and outside as compiled."""

    _stance: AbstractContextManager[Any]
    _imported: bool

    def __enter__(self) -> Any:
        self._imported = _COMPILER in sys.modules
        made = torch.compiler.set_stance("force_eager") if self._imported else nullcontext()
        self._stance = made  # in force from here on
        self._stance.__enter__()
        mode: Any = super()
        return mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        mode: Any = super()
        try:
            mode.__exit__(*error)
        finally:
            self._stance.__exit__(*error)
            if not self._imported:  # the function was the first to call torch.compile
                recompile()


@contextmanager
def as_compiled() -> Iterator[None]:
    """Inside, all kinds of operands get code of their own; what was made so is let go at the end.

    Else the user's own next kind would be beyond the limit.
    """
    if _COMPILER not in sys.modules:
        yield
        return
    made = torch._dynamo.utils.counters["stats"]
    before = made["unique_graphs"]
    limits = {"recompile_limit": _PLENTY, "accumulated_recompile_limit": _PLENTY}
    try:
        with torch._dynamo.config.patch(limits):
            yield
    finally:
        if made["unique_graphs"] != before:
            recompile()


@contextmanager
def none_compiled(error: Exception) -> Iterator[None]:
    """What runs inside raises `error` where it comes to what torch.compile made.

    That is then compiled again, as it may have been given up before.
    """
    frames = sys.modules.get(f"{_COMPILER}.eval_frame")
    asked = getattr(frames, "_callback_from_stance", None)
    if asked is None:
        yield
        return

    def refuse(callback: Any) -> Any:
        if callable(callback):  # else it is code that torch keeps from being compiled
            recompile()
            raise error
        return asked(callback)

    with mock.patch.object(frames, "_callback_from_stance", refuse):
        yield


def recompile() -> None:
    """What was compiled under a mode is not kept, as what torch.cond makes of its branches."""
    if _COMPILER in sys.modules:
        torch._dynamo.reset()
