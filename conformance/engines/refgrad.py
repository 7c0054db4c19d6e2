"""refgrad as an engine: plain NumPy, no torch."""

from __future__ import annotations

import refgrad
from conformance.engines.base import Capabilities
from conformance.engines.namespace import NamespaceEngine


class RefgradEngine(NamespaceEngine):
    """refgrad on the CPU."""

    name = "refgrad"
    standalone = True

    def __init__(self) -> None:
        super().__init__(refgrad)

    def describe(self) -> Capabilities:
        """Reverse mode, twice; forward mode where refgrad has it."""
        found = super().describe()
        return Capabilities(
            found.orders, found.modes, ("float64", "float32"), ("cpu",), found.version
        )
