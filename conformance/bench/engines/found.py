"""What is installed: without importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util


def missing(package: str) -> str | None:
    """None where the package can be imported; else what to do."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed; pip install '.[peers]'"


def version(*packages: str) -> dict[str, str]:
    """The installed versions by package."""
    return {package: importlib.metadata.version(package) for package in packages}


def nothing() -> None:
    """How to wait for the CPU: its work is done when a call returns."""
