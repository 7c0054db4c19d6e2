"""Every exception that conformance raises on purpose.

Exception
├── ConformanceError
│   ├── UsageError          what the user asked for cannot be done (exit code 4)
│   ├── ProgramError        a Program, or the JSON it is read from, is not well formed
│   ├── CaptureError        a function could not be recorded faithfully as a Program
│   ├── EngineError         an engine raised while it ran a Program
│   │   └── DeviceLost      its device can do nothing more for this process
│   └── Unsupported         an engine lacks what a Program needs
└── AssertionError
    └── GradientMismatch    a derivative is not what it should be
"""

from __future__ import annotations

from collections.abc import Iterable


class ConformanceError(Exception):
    """The base of every error of this package; its message says what to do next."""


class UsageError(ConformanceError):
    """What the user asked for cannot be done: an unknown name, a module that does not import."""


class JournalError(UsageError):
    """A journal cannot be written, or a file is not one; the message names the file."""


class WorkerError(ConformanceError):
    """The worker processes cannot be kept running; the message ends with what the last one said."""


class ProgramError(ConformanceError):
    """A Program, or the JSON it is read from, is not well formed."""


class CaptureError(ConformanceError):
    """A function could not be recorded faithfully; the message names the call."""


class CompiledError(CaptureError):
    """A function could not be recorded since it calls what torch.compile made."""

    def __init__(self) -> None:
        super().__init__("torch.compile's code cannot be seen from outside")


class EngineError(ConformanceError):
    """An engine raised while it ran a Program; `__cause__` is what it raised, `call` where."""

    def __init__(self, message: str, *, call: str | None = None) -> None:
        super().__init__(message)
        self.call = call


class DeviceLost(EngineError):
    """The device fails for good in this process, as after an illegal access; begin a new one."""


class Unsupported(ConformanceError):
    """An engine lacks what a Program needs: `targets` it does not have, or a `reason`."""

    def __init__(self, reason: str = "", *, targets: Iterable[str] = ()) -> None:
        self.targets = tuple(targets)
        self.reason = reason or "lacks " + ", ".join(self.targets)
        super().__init__(self.reason)


class GradientMismatch(AssertionError):
    """A derivative is not what it should be; the message is the report."""
