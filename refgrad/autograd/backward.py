"""The backward pass: gradients flow from the roots to the leaves, newest node first.

No recursion: the nodes that a gradient has reached wait and are visited by descending creation
number, which is a topological order, so each node is visited once, with its whole gradient. (To
collect and sort the nodes first took half as long again on a chain.)
"""

from __future__ import annotations

import gc
import operator
import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from refgrad.autograd.anomaly import anomaly
from refgrad.autograd.hooks import Hooks, changed, finished, prepared, shown, taken
from refgrad.graph import Node, Output, Writes
from refgrad.ops.arrays import as_array, cast, unbroadcast
from refgrad.ops.joining import total
from refgrad.tensor import Tensor, wrap

FREED = (
    "Trying to backward through the graph a second time, or through saved tensors that were "
    "already freed. The saved values of a graph are freed by backward() and autograd.grad(): pass "
    "retain_graph=True to the first of them if the graph is needed again."
)


ndarray = np.ndarray
_NODES = (Node, Output)
_SMALL, _HIGH = 256, 64  # elements of a gradient that waits to be added, and how many wait
_SEQ = operator.attrgetter("seq")


def reachable(roots: Sequence[Any]) -> list[Any]:
    """The nodes below `roots`, oldest first; leaves are left out."""
    order: list[Any] = [r for r in dict.fromkeys(roots) if isinstance(r, _NODES)]
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
        for target in node.targets:
            if type(target) is not tuple:
                if target not in seen:
                    seen.add(target)
                    if type(target) is not Tensor and isinstance(target, _NODES):
                        order.append(target)
                        stack.append(target)
                continue
            for t in target:
                if t not in seen:
                    seen.add(t)
                    if isinstance(t, _NODES):
                        order.append(t)
                        stack.append(t)
    order.sort(key=_SEQ)
    return order


def leading_to(order: Sequence[Any], wanted: set[Any]) -> tuple[set[Any], set[Any]]:
    """Those of `order` (oldest first) that a wanted target is below; these and `wanted` itself."""
    passing: set[Any] = set()
    needed = set(wanted)
    for node in order:
        if type(node) is Output:
            leads = node.parent in needed
        else:
            leads = False
            for target in node.targets:
                if type(target) is tuple:
                    leads = leads or not needed.isdisjoint(target)
                elif target in needed:
                    leads = True
        if leads:
            passing.add(node)
            needed.add(node)
    return passing, needed


def _wants_all(roots: Sequence[Any], wanted: set[Any]) -> bool:
    """Whether `wanted` are leaves, and there are no others below `roots`: all paths lead to them.

    Most often it is so; to find what leads to them took a tenth of a recorded pass.
    """
    if any(isinstance(t, _NODES) for t in wanted):
        return False
    stack: list[Any] = [r for r in roots if isinstance(r, _NODES)]
    seen = set(stack)
    while stack:
        node = stack.pop()
        for target in (node.parent,) if type(node) is Output else node.targets:
            for t in target if type(target) is tuple else (target,):
                if type(t) is Tensor or not isinstance(t, _NODES):
                    if t is not None and t not in wanted:
                        return False
                elif t not in seen:
                    seen.add(t)
                    stack.append(t)
    return True


class Gradients:
    """The gradients on their way, by target; those in `shared` lie in memory that others hold too.

    A recorded pass writes to none of them, and keeps no such account.

    The first gradient of a target is stored; the next is added, in place once the sum is our own.
    Small ones of a leaf wait in `piles`, to be added by one op: of 1,000 products of 8 floats by
    one factor that takes 2.5 ms in place of 2.7, and recorded 11 in place of 15.

    The nodes that have one wait in `run`, the newest last, as long as each is newer than the one
    before, which most are; the others in `heap`, the newest first. (A heap alone took 2.7 ms for
    these products, not recorded, in place of 2.1.)
    """

    __slots__ = ("heap", "of", "piles", "record", "run", "shared")

    def __init__(self, record: bool) -> None:
        self.of: dict[Any, Any] = {}
        self.piles: dict[Any, list[Any]] = {}
        self.shared: set[Any] = set()
        self.run: list[Any] = []
        self.heap: list[tuple[int, Any]] = []
        self.record = record

    def add(self, target: Any, r: Any, own: bool = False) -> None:
        """Add `r`, which others may hold unless it is our own, to the gradient of `target`."""
        of = self.of
        if target not in of:
            of[target] = r
            if not (own or self.record):
                self.shared.add(target)
            if isinstance(target, _NODES):
                self.send(target)
        elif target in self.piles:
            pile = self.piles[target]
            pile.append(r)
            if len(pile) == _HIGH:
                self.level(target)
        elif isinstance(target, Tensor) and _small(r._array if self.record else r):
            self.piles[target] = [r]
        elif self.record or target in self.shared:
            of[target] = of[target] + r
            self.shared.discard(target)
        else:
            of[target] += r

    def send(self, node: Any) -> None:
        """Let a node wait for its turn."""
        if not self.run or node.seq > self.run[-1].seq:
            self.run.append(node)
        else:
            heappush(self.heap, (-node.seq, node))

    def level(self, leaf: Any) -> None:
        """Add up what waits for `leaf`."""
        pile = self.piles[leaf]
        if pile:
            parts = [self.of[leaf], *pile]
            self.of[leaf] = total(parts) if self.record else total.forward(parts)
            self.shared.discard(leaf)
            pile.clear()


def _small(a: Any) -> bool:
    return type(a) is np.ndarray and a.ndim > 0 and 0 < a.size <= _SMALL


def _holders(r: Any) -> int:
    """How many hold the base of `r`, by a count that differs between versions of Python."""
    base = r.base
    return sys.getrefcount(base)


_ALONE = _holders(np.empty(2).reshape(2, 1))  # where `r` alone does


def _sole(r: Any) -> bool:
    """Whether `r` shows all of its base, which no one else holds: a new array in another shape.

    It need not be copied to be a leaf's gradient.
    """
    base = r.base
    if type(base) is not ndarray or base.nbytes != r.nbytes or not r.flags.writeable:
        return False
    del base
    return _holders(r) == _ALONE


def walk(
    starts: Sequence[tuple[Any, Any]], *, wanted: set[Any] | None, retain: bool, record: bool
) -> Gradients:
    """Send the seeds in `starts` (target, gradient) back; return what reaches leaves and wanted.

    Gradients are arrays, or Tensors with `record`. `wanted` None means every leaf.

    The garbage collector waits for a recorded pass. It makes some ten containers a node, none of
    them garbage before its end: 1,000 nodes of 8 floats took 29 ms with the collector, 20 of them
    its own, and take 9 without.

    Raises:
        RuntimeError: a saved tensor was freed or written in place since.
    """
    if not (record and gc.isenabled()):
        return _walk(starts, wanted, retain, record)
    gc.disable()
    try:
        return _walk(starts, wanted, retain, record)
    finally:
        gc.enable()


def _walk(
    starts: Sequence[tuple[Any, Any]], wanted: set[Any] | None, retain: bool, record: bool
) -> Gradients:
    grads = Gradients(record)
    for target, seed in starts:
        grads.add(target, seed)
    passing: Any
    needed: Any
    passing, needed = None, None
    if wanted is not None:
        roots = [target for target, _ in starts]
        if _wants_all(roots, wanted):
            wanted = None
        else:
            passing, needed = leading_to(reachable(roots), wanted)
    watched = anomaly.enabled
    found: dict[Any, Any] = {}
    of, piles, shared, run, heap = grads.of, grads.piles, grads.shared, grads.run, grads.heap
    newest: Any = None  # of those that the last one sent to: most often it comes next
    while True:
        if newest is None:
            if heap and not (run and run[-1].seq > -heap[0][0]):
                node = heappop(heap)[1]
            elif run:
                node = run.pop()
            else:
                break
        elif (run and run[-1].seq > newest.seq) or (heap and -heap[0][0] > newest.seq):
            grads.send(newest)
            newest = None
            continue
        else:
            node = newest
        newest = None
        g = of.pop(node)
        around = watched
        if node.hooks is not None:
            g = node.hooks.on_gradient(g, record)
            around = watched or node.hooks.around
        if wanted is not None:
            if node in wanted:
                found[node] = g
            if node not in passing:
                continue
        if type(node) is Output:
            parent = node.parent
            parts = of.get(parent)
            if parts is None:
                parts = of[parent] = [None] * parent.op.outputs_of(parent)
                grads.send(parent)
            before = parts[node.index]  # of the forward, and of a rule that read `out`
            parts[node.index] = g if before is None else before + g
            continue
        if node.freed:
            raise RuntimeError(FREED)
        if node.seq < Writes.last:
            node.check_fresh()
        if type(g) is list:
            g = node.op.complete(g, node, record)
        if around:
            _send_watched(node, g, grads, needed)
        rules = node.rules
        shapes = node.shapes
        dtypes = node.dtypes
        i = -1
        for target in () if around else node.targets:
            i += 1
            if target is None or (
                needed is not None and type(target) is not tuple and target not in needed
            ):
                continue
            rule = rules[i]
            if rule.at is not None:  # most are: a call less of Python's
                r = rule.function(g, node.saved[rule.among if record else rule.at])
            elif not rule.needs:
                r = rule.function(g)
            elif (
                rule.into is not None
                and not record
                and type(before := of.get(target)) is ndarray
                and target not in shared
            ):
                rule.into(before, g, node)
                continue
            else:
                r = (rule.graph if record else rule.raw)(g, node, shapes and shapes[i])
            if dtypes is not None:  # else it is one array, as it has to be
                if type(target) is tuple:
                    for t, part, s, d in zip(target, r, shapes[i], dtypes[i], strict=True):
                        if t is not None and part is not None and (needed is None or t in needed):
                            own = rule.joint and type(part) is ndarray and part.base is None
                            grads.add(t, _fit(part, s, d, record), own)
                    continue
                if r is None:
                    continue
                a = r._array if record else r
                if a.shape != shapes[i] or a.dtype is not dtypes[i]:
                    r = _fit(r, shapes[i], dtypes[i], record)
            if target in of:
                if target in piles:  # as `add` does, without the call
                    pile = piles[target]
                    pile.append(r)
                    if len(pile) == _HIGH:
                        grads.level(target)
                elif record or (isinstance(target, Tensor) and _small(r)):
                    grads.add(target, r)
                elif target not in shared:
                    of[target] += r
                elif r is g or type(r) is not ndarray or r.base is not None:
                    grads.add(target, r)
                else:  # the sum lies where `r` did, which is no one else's
                    r += of[target]
                    of[target] = r
                    shared.discard(target)
                continue
            of[target] = r
            if not record and (
                r is g
                or type(r) is not ndarray
                or (r.base is not None and not (type(target) is Tensor and _sole(r)))
            ):
                shared.add(target)
            if type(target) is Node or (type(target) is not Tensor and isinstance(target, _NODES)):
                if newest is None:
                    newest = target
                elif target.seq > newest.seq:
                    grads.send(newest)
                    newest = target
                else:
                    grads.send(target)
        if shared:
            shared.discard(node)
        if not retain and (node.saved is not None or node.out is not None):
            node.release()
        g = r = None  # so that the next gradient may lie where these did
    for leaf in piles:
        grads.level(leaf)
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


def _send_watched(node: Any, g: Any, grads: Gradients, needed: Any) -> None:
    """Send the gradients of `node` on, with its own hooks called and, in anomaly mode, checked."""
    record = grads.record
    parts = g if type(g) is tuple else (g,)
    hooks = node.hooks or Hooks()
    given = prepared(hooks.before, [None if p is None else shown(p, record) for p in parts])
    if hooks.before:
        parts = tuple(None if t is None else taken(t, record) for t in given)
        g = parts if type(g) is tuple else parts[0]
        if g is None:
            return
    targets, results = _all_results(node, g, record, needed)
    if anomaly.enabled and anomaly.check_nan:
        for i, r in enumerate(results):
            if r is not None and np.isnan(r._array if record else r).any():
                raise RuntimeError(
                    f"Function '{node.name()}' returned nan values in its {i}th output."
                )
    if hooks.after:
        sent = [None if r is None else shown(r, record) for r in results]
        results = [
            None if t is None else taken(t, record) for t in finished(hooks.after, sent, given)
        ]
    for t, r in zip(targets, results, strict=True):
        if t is not None and r is not None:
            grads.add(t, r)


def _all_results(node: Any, g: Any, record: bool, needed: Any) -> tuple[list[Any], list[Any]]:
    """Where the gradients of `node` go, and these; None for what needs none, as PyTorch counts."""
    targets: list[Any] = []
    results: list[Any] = []
    unknown = (None,) * len(node.targets)
    sent = zip(node.targets, node.rules, node.shapes or unknown, node.dtypes or unknown)
    for target, rule, shape, dtype in sent:
        if target is None or (
            needed is not None and type(target) is not tuple and target not in needed
        ):
            targets.append(None)
            results.append(None)
            continue
        r = rule.graph(g, node, shape) if record else rule.raw(g, node, shape)
        several = type(target) is tuple
        for t, part, s, d in (
            zip(target, r, shape, dtype, strict=True) if several else ((target, r, shape, dtype),)
        ):
            if d is None and several:  # an argument that is no tensor
                continue
            unused = t is None or part is None or (needed is not None and t not in needed)
            if not (unused or d is None):
                part = _fit(part, s, d, record)
            targets.append(None if unused else t)
            results.append(None if unused else part)
    return targets, results


def accumulate(leaf: Any, g: Any, owned: bool, record: bool) -> None:
    """Add a gradient to `leaf.grad`: a fresh tensor at first, later in place unless recorded.

    A fresh one has the strides of the leaf, where these are dense.
    """
    before = leaf._grad
    if record:
        g = shown(g, record)
        leaf._grad = g.clone() if before is None else before + g
        return
    array = g
    if type(g) is not np.ndarray:
        array = as_array(g)
        owned = owned or array is not g  # a 0-d result came as a number: the array is new
    if array.dtype.kind == "c":
        array, owned = as_array(np.conj(array)), True
    if before is not None:
        before._array += array
        before.mark_written()
    elif owned and (array.ndim < 2 or array.strides == leaf._array.strides):
        leaf._grad = wrap(array)
    else:
        leaf._grad = wrap(np.empty_like(leaf._array))
        leaf._grad._array[...] = array


def accumulate_watched(leaf: Any, g: Any, owned: bool, record: bool) -> None:
    """The same with the hooks of `leaf`."""
    if leaf._hooks:
        g, owned = changed(leaf._hooks, g, record), False  # a hook may have kept it
    around = leaf._accumulator_hooks
    given: tuple[Any, ...] = ()
    if around is not None:
        given = prepared(around.before, (shown(g, record),))
        g, owned = taken(given[0], record), False
    accumulate(leaf, g, owned, record)
    if around is not None:
        finished(around.after, (), given)
    for post in tuple(leaf._post_hooks.values()) if leaf._post_hooks else ():
        made = post(leaf)
        if made is not None and not isinstance(made, Tensor):
            raise TypeError(f"expected Variable, but hook returned '{type(made).__name__}'")
