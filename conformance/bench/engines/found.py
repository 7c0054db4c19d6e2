"""What engines share: what is installed, how long a Program may be, and a first call."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from conformance.bench.engine import Prepared
from conformance.bench.workload import Workload
from conformance.errors import Unsupported

P = TypeVar("P", bound=Prepared)


def missing(package: str, what: str = "'.[peers]'") -> str | None:
    """None where the package can be imported; else what to install."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed; pip install {what}"


def version(*packages: str) -> dict[str, str]:
    """The installed versions by package; cupy is of a distribution that names its CUDA."""
    made = importlib.metadata.packages_distributions()
    return {
        package: importlib.metadata.version(made.get(package, [package])[0]) for package in packages
    }


def nothing() -> None:
    """How to wait for the CPU: its work is done when a call returns."""


def on_cpu(device: str) -> str | None:
    """None for the CPU; else why an engine that knows no other device cannot run."""
    return None if device == "cpu" else f"it runs on the CPU alone, not on {device}"


def within(workload: Workload, size: int, most: int) -> None:
    """Unsupported where the workload has more nodes than the engine is given."""
    nodes = workload.nodes(size)
    if nodes > most:
        raise Unsupported(f"{nodes:,} nodes would take too long; it is given at most {most:,}")


def plain(workload: Workload, *, order: int = 1) -> None:
    """Unsupported for what an engine whose gradients are plain ones cannot be asked for."""
    if workload.check:
        raise Unsupported(
            "the harness knows no engine of this name, so it checks no gradient on it"
        )
    if workload.create_graph:
        raise Unsupported("it has no create_graph")
    if workload.order > order:
        raise Unsupported("it has no second order")


def warmed(prepared: P) -> P:
    """The same after one step, which compiles: how long that took is kept."""
    start = time.perf_counter()
    with expressing():
        prepared.step()
        prepared.synchronize()
    prepared.compile_seconds = time.perf_counter() - start
    prepared.clear()
    return prepared


@contextmanager
def expressing() -> Iterator[None]:
    """A first call: what the engine raises in it is why it cannot express the workload."""
    try:
        yield
    except (Unsupported, MemoryError):
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        raise Unsupported(f"it raises {type(error).__name__}: {said}") from error
