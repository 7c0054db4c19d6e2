"""Trees of tuples, named tuples, lists and dicts, and their leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LEAF", "Spec", "flatten", "prefix", "tree_map", "unflatten"]


@dataclass(frozen=True)
class Spec:
    """The structure of a tree: what kind of node, its keys if a dict, and its children."""

    kind: type | None = None
    keys: tuple[Any, ...] = ()
    children: tuple[Spec, ...] = ()

    def __str__(self) -> str:
        if self.kind is None:
            return "*"
        parts = [str(c) for c in self.children]
        if self.kind is dict:
            return "{" + ", ".join(f"{k!r}: {p}" for k, p in zip(self.keys, parts)) + "}"
        if self.kind is list:
            return "[" + ", ".join(parts) + "]"
        return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"


LEAF = Spec()


def _parts(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The keys and the children of a node; None for a leaf."""
    if type(tree) is dict:
        return tuple(tree), tuple(tree.values())
    if type(tree) in (tuple, list) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return (), tuple(tree)
    return None


def flatten(tree: Any) -> tuple[list[Any], Spec]:
    """The leaves of a tree, depth first, and its structure."""
    found = _parts(tree)
    if found is None:
        return [tree], LEAF
    leaves: list[Any] = []
    specs = []
    for child in found[1]:
        below, spec = flatten(child)
        leaves += below
        specs.append(spec)
    return leaves, Spec(type(tree), found[0], tuple(specs))


def unflatten(leaves: Sequence[Any], spec: Spec) -> Any:
    """The tree of that structure with these leaves."""
    return _filled(iter(leaves), spec)


def _filled(leaves: Iterator[Any], spec: Spec) -> Any:
    if spec.kind is None:
        return next(leaves)
    children = [_filled(leaves, child) for child in spec.children]
    if spec.kind is dict:
        return dict(zip(spec.keys, children, strict=True))
    return spec.kind(*children) if hasattr(spec.kind, "_fields") else spec.kind(children)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to each leaf."""
    leaves, spec = flatten(tree)
    return unflatten([function(leaf) for leaf in leaves], spec)


def prefix(tree: Any, spec: Spec) -> list[Any] | None:
    """The leaves of `tree`, each as often as `spec` has leaves there; None if it is no prefix."""
    found = _parts(tree)
    if found is None:
        return [tree] * count(spec)
    keys, children = found
    if spec.kind not in (tuple, list, type(tree)) or type(tree) not in (tuple, list, spec.kind):
        return None
    if len(children) != len(spec.children) or keys != spec.keys:
        return None
    made: list[Any] = []
    for child, below in zip(children, spec.children, strict=True):
        leaves = prefix(child, below)
        if leaves is None:
            return None
        made += leaves
    return made


def count(spec: Spec) -> int:
    """How many leaves a tree of that structure has."""
    return 1 if spec.kind is None else sum(count(child) for child in spec.children)
