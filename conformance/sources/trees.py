"""Trees of arguments and results: the tensors in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def tensors_of(tree: Any) -> Iterator[torch.Tensor]:
    """The tensors among arguments, depth first."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from tensors_of(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors_of(item)
    elif isinstance(tree, slice):
        yield from tensors_of((tree.start, tree.stop, tree.step))
