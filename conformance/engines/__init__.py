"""Engines by name: "refgrad", "torch", or "direct:MODULE:NAME" for one from outside."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from conformance.engines.base import Engine
from conformance.errors import UsageError

_BUILT_IN = {
    "refgrad": ("conformance.engines.refgrad", "RefgradEngine"),
    "torch": ("conformance.engines.torch", "TorchEngine"),
}


def load(name: str, device: str = "cpu") -> Engine:
    """The engine of that name on a device; raises UsageError that says what was tried.

    An engine whose class takes no device runs where it says that it does.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
    elif name.startswith("direct:"):
        module, _, attribute = name.removeprefix("direct:").rpartition(":")
        if not module or not attribute:
            raise UsageError(f"engine {name!r}: write direct:MODULE:NAME, as in direct:my.engine:E")
    else:
        known = ", ".join(_BUILT_IN)
        raise UsageError(f"no engine is named {name!r}; there are {known}, direct:MODULE:NAME")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"engine {name!r}: importing {module} failed ({reason}); "
            "is it installed, and on PYTHONPATH?"
        ) from error
    if not hasattr(found, attribute):
        raise UsageError(f"engine {name!r}: module {module} has no {attribute!r}")
    made = getattr(found, attribute)
    if name in _BUILT_IN and device != "cpu":
        made = functools.partial(made, device)
    engine = _as_engine(name, made)
    if device != "cpu" and device not in (devices := engine.describe().devices):
        runs = ", ".join(devices)
        raise UsageError(f"engine {name!r} cannot run on {device} here, but on {runs}")
    return engine


def available() -> dict[str, str | None]:
    """Each built-in engine's name, and why it cannot run here (None where it can)."""
    reasons: dict[str, str | None] = {}
    for name in _BUILT_IN:
        try:
            load(name)
        except UsageError as error:
            reasons[name] = str(error)
        else:
            reasons[name] = None
    return reasons


def _as_engine(name: str, found: Any) -> Engine:
    if isinstance(found, type) or not isinstance(found, Engine):
        factory: Callable[[], Any] = found
        if not callable(found):
            raise UsageError(f"engine {name!r} is a {type(found).__name__}, {_EXPECTED}")
        try:
            found = factory()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(f"engine {name!r}: calling it failed ({reason})") from error
    if not isinstance(found, Engine):
        lacks = [n for n in _MEMBERS if not hasattr(found, n)]
        raise UsageError(
            f"engine {name!r} made a {type(found).__name__} without {', '.join(lacks)}, {_EXPECTED}"
        )
    return found


_MEMBERS = ("name", "standalone", "describe", "missing", "run", "vjp", "hvp", "jvp")
_EXPECTED = "not an Engine (an instance, a class, or a factory without arguments)"

__all__ = ["Engine", "available", "load"]
