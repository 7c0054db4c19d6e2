"""The backward pass: gradients flow from the roots to the leaves, newest node first.

No recursion: the reachable nodes are collected with a stack and visited by descending creation
number, which is a topological order, so each node is visited once, with its whole gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.graph import Node, Output, Writes
from refgrad.mode import state
from refgrad.ops.arrays import as_array, cast, unbroadcast
from refgrad.tensor import wrap

FREED = (
    "Trying to backward through the graph a second time, or through saved tensors that were "
    "already freed. The saved values of a graph are freed by backward() and autograd.grad(): pass "
    "retain_graph=True to the first of them if the graph is needed again."
)


def reachable(roots: Sequence[Any]) -> list[Any]:
    """The nodes below `roots`, oldest first; leaves are left out."""
    order: list[Any] = [r for r in dict.fromkeys(roots) if isinstance(r, (Node, Output))]
    seen: set[Any] = set(order)
    stack = list(order)
    while stack:
        node = stack.pop()
        if type(node) is Output:
            parent = node.parent
            if parent not in seen:
                seen.add(parent)
                order.append(parent)
                stack.append(parent)
            continue
        for link in node.links:
            target = link[0]
            for t in target if type(target) is tuple else (target,):
                if t not in seen:
                    seen.add(t)
                    if isinstance(t, (Node, Output)):
                        order.append(t)
                        stack.append(t)
    order.sort(key=lambda node: node.seq)
    return order


def leading_to(order: Sequence[Any], wanted: set[Any]) -> set[Any]:
    """Those of `order` (oldest first) from which a wanted target can be reached, and `wanted`."""
    needed = set(wanted)
    for node in order:
        if type(node) is Output:
            if node.parent in needed:
                needed.add(node)
            continue
        for link in node.links:
            target = link[0]
            if any(t in needed for t in (target if type(target) is tuple else (target,))):
                needed.add(node)
                break
    return needed


class Gradients:
    """The gradients on their way, by target; those in `shared` lie in memory that others hold too.

    The first gradient of a target is stored; the next is added, in place once the sum is our own.
    """

    __slots__ = ("of", "record", "shared")

    def __init__(self, record: bool) -> None:
        self.of: dict[Any, Any] = {}
        self.shared: set[Any] = set()
        self.record = record

    def add(self, target: Any, r: Any) -> None:
        """Add `r`, which others may hold, to the gradient of `target`."""
        of = self.of
        if target not in of:
            of[target] = r
            self.shared.add(target)
        elif self.record or target in self.shared:
            of[target] = of[target] + r
            self.shared.discard(target)
        else:
            of[target] += r


def walk(
    starts: Sequence[tuple[Any, Any]], *, wanted: set[Any] | None, retain: bool, record: bool
) -> Gradients:
    """Send the seeds in `starts` (target, gradient) back; return what reaches leaves and wanted.

    Gradients are arrays, or Tensors with `record`. `wanted` None means every leaf.

    Raises:
        RuntimeError: a saved tensor was freed or written in place since.
    """
    grads = Gradients(record)
    for target, seed in starts:
        grads.add(target, seed)
    order = reachable([target for target, _ in starts])
    needed: Any = None if wanted is None else leading_to(order, wanted)
    found: dict[Any, Any] = {}
    of, shared = grads.of, grads.shared
    while order:
        node = order.pop()
        g = of.pop(node, None)
        if g is None:
            continue
        if node.hooks is not None:
            for hook in tuple(node.hooks):
                g = _call_hook(hook, g, record)
        if wanted is not None:
            if node in wanted:
                found[node] = g
            if node not in needed:
                continue
        if type(node) is Output:
            parts = of.get(node.parent)
            if parts is None:
                parts = of[node.parent] = [None] * node.parent.op.outputs_of(node.parent)
            before = parts[node.index]  # of the forward, and of a rule that read `out`
            parts[node.index] = g if before is None else before + g
            continue
        if node.freed:
            raise RuntimeError(FREED)
        if node.seq < Writes.last:
            node.check_fresh()
        if type(g) is list:
            g = node.op.complete(g, node, record)
        for target, rule, shape, dtype in node.links:
            if needed is not None and type(target) is not tuple and target not in needed:
                continue
            r = rule.graph(g, node, shape) if record else rule.raw(g, node, shape)
            if type(target) is tuple:
                for t, part, s, d in zip(target, r, shape, dtype, strict=True):
                    if t is not None and part is not None and (needed is None or t in needed):
                        grads.add(t, _fit(part, s, d, record))
                continue
            if r is None:
                continue
            a = r._array if record else r
            if a.shape != shape or a.dtype is not dtype:
                r = a = _fit(r, shape, dtype, record)
            if target not in of:
                of[target] = r
                if r is g or type(r) is not np.ndarray or r.base is not None:
                    shared.add(target)
            else:
                grads.add(target, r)
        if shared:
            shared.discard(node)
        if not retain and (node.raws is not None or node.out is not None):
            node.release()
    of.update(found)
    return grads


def _fit(r: Any, shape: Any, dtype: Any, record: bool) -> Any:
    """`r` in the shape and dtype of the input that it is the gradient of."""
    a = r._array if record else r
    if a.shape != shape:
        r = unbroadcast(r, shape)
        a = r._array if record else r
    if a.dtype != dtype:
        r = cast(r, dtype)
    return r


def _call_hook(hook: Any, g: Any, record: bool) -> Any:
    """What a tensor hook makes of `g`; it sees PyTorch's gradient, conjugated if complex."""
    before, state.enabled = state.enabled, record
    try:
        given = g if record else wrap(as_array(g))
        is_complex = given._array.dtype.kind == "c"
        made = hook(np.conj(given) if is_complex else given)
        if made is None:
            return g
        if is_complex:
            made = np.conj(made)
        return made if record else made._array
    finally:
        state.enabled = before


def accumulate(leaf: Any, g: Any, *, owned: bool, record: bool) -> None:
    """Add a gradient to `leaf.grad`: a fresh tensor at first, later in place unless recorded."""
    if leaf._hooks:
        for hook in tuple(leaf._hooks):
            changed = _call_hook(hook, g, record)
            owned = owned and changed is g
            g = changed
    array = g._array if record else as_array(g)
    is_complex = array.dtype.kind == "c"
    if record:
        g = np.conj(g) if is_complex else g
        leaf._grad = g if leaf._grad is None else leaf._grad + g
    else:
        if is_complex:
            array, owned = np.conj(array), True
        if leaf._grad is None:
            leaf._grad = wrap(array if owned else array.copy())
        elif leaf._grad._node is None:
            leaf._grad._array += array
            leaf._grad.mark_written()
        else:
            leaf._grad = leaf._grad + wrap(array)
    for post in tuple(leaf._post_hooks or ()):
        post(leaf)
