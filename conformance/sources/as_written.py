"""Modes of torch that watch a function, and torch.compile.

The compiler leaves alone what it first meets under a mode of dispatch, and from then on: it would
never run as compiled again, in the user's process either, and what is judged would not be what the
user runs. A mode of functions it compiles along with the function.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_COMPILER = "torch._dynamo"


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


def recompile() -> None:
    """What was compiled under a mode is not kept, as what torch.cond makes of its branches."""
    if _COMPILER in sys.modules:
        torch._dynamo.reset()
