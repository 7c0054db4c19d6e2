"""conformance: verify the gradients of any PyTorch program, on any engine.

Importing the package imports neither torch nor an engine; the names below load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.api import check_gradients
    from conformance.errors import GradientMismatch
    from conformance.program import Program

__all__ = ["GradientMismatch", "Program", "check_gradients"]

_HOMES = {
    "check_gradients": "conformance.api",
    "GradientMismatch": "conformance.errors",
    "Program": "conformance.program",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
