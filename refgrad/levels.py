"""The levels of forward mode that are open: which tangents an operation has to carry along.

Each nesting of forward mode is a level, numbered from 1 by one clock, so that a tangent of a level
that has been closed is never mistaken for one of a later level. A tangent of some level may itself
have tangents, of the levels below it only.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_numbers = itertools.count(1)
_lock = threading.Lock()


class Levels(threading.local):
    """The levels whose tangents operations of this thread carry, oldest first."""

    open = 0  # how many are open in all threads; while none is, no operation looks for tangents
    visible: tuple[int, ...] = ()


levels = Levels()


def enter() -> int:
    """Open a level, above all others of this thread, and return its number."""
    level = next(_numbers)
    levels.visible = (*levels.visible, level)
    with _lock:
        Levels.open += 1
    return level


def leave(level: int) -> None:
    """Close a level: what carries a tangent of it no longer does."""
    levels.visible = tuple(n for n in levels.visible if n != level)
    with _lock:
        Levels.open -= 1


@contextmanager
def only(visible: tuple[int, ...]) -> Iterator[None]:
    """Within it operations of this thread see tangents of these levels only."""
    before, levels.visible = levels.visible, visible
    try:
        yield
    finally:
        levels.visible = before


def below(level: int) -> tuple[int, ...]:
    """The visible levels that are older than `level`."""
    return tuple(n for n in levels.visible if n < level)
