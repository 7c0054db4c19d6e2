"""Sources by name: where the Programs to verify come from."""

from __future__ import annotations

import importlib

from conformance.errors import UsageError
from conformance.sources.base import Item, Sample, Skipped, Source

_BUILT_IN = {
    "captured": ("conformance.sources.models", "Models"),
    "corpus": ("conformance.sources.corpus", "Corpus"),
    "edges": ("conformance.sources.edges", "Edges"),
    "generated": ("conformance.sources.generated", "Generated"),
    "opinfo": ("conformance.sources.opinfo", "OpInfo"),
    "pairs": ("conformance.sources.paired", "Pairs"),
}


def load(name: str) -> Source:
    """The source of that name, or of "user:MODULE:NAME" (what `conformance verify` checks).

    Raises UsageError where there is none or it cannot load.
    """
    if name.startswith("user:"):
        from conformance.sources.user import User

        return User(name)
    if name not in _BUILT_IN:
        raise UsageError(f"no source is named {name!r}; there are {', '.join(_BUILT_IN)}")
    module, attribute = _BUILT_IN[name]
    try:
        source: Source = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        raise UsageError(f"source {name!r} cannot load: {error}; install what it needs") from error
    return source


__all__ = ["Item", "Sample", "Skipped", "Source", "load"]
