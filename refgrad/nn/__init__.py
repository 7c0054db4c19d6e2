"""torch.nn: its functions, in `functional`."""

from __future__ import annotations

from refgrad.nn import functional as functional

__all__ = ["functional"]
