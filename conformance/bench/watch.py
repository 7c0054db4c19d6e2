"""A limit on what an engine may take, from the outside: an alarm that breaks into a call."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN = 0.25  # seconds


class Overrun(BaseException):
    """A call took longer than it may.

    No Exception, as KeyboardInterrupt is none: it comes at any place, and an engine that catches
    what its own code raises is not to take it for that.
    """


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Overrun in the block after so many seconds of real time.

    Infinity is no limit. The alarm waits for the end of a call into compiled code. Outside of the
    main thread, and where there are no alarms, nothing is limited.
    """
    alarms = hasattr(signal, "setitimer")
    if (
        not alarms
        or math.isinf(seconds)
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    armed = True

    def ring(number: int, frame: FrameType | None) -> None:
        if armed:
            raise Overrun

    before = signal.signal(signal.SIGALRM, ring)
    # Python ignores what is raised in a destructor or a callback, so the alarm rings again.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), AGAIN)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
