"""Wrong in the engine, not in a rule: the walk, accumulation, hooks, in-place, forward mode."""

from __future__ import annotations

import heapq
import math
from typing import Any

from conformance.mutants.mutant import Mutant, patch, rule

_WALK = "refgrad.autograd.backward"
_INPLACE = ("torch.Tensor.mul_", "torch.Tensor.add_", "torch.Tensor.copy_", "torch.Tensor.exp_")


def _counting(keep: int) -> Any:
    """`Gradients.add` that loses what comes after a target's first `keep` additions."""

    def change(original: Any) -> Any:
        def add(self: Any, target: Any, r: Any) -> None:
            if not self.of:  # a pass begins
                _COUNTS.clear()
            counts = _COUNTS.setdefault(id(self), {})
            counts[target] = counts.get(target, 0) + 1
            if counts[target] <= keep:
                original(self, target, r)

        return add

    return change


_COUNTS: dict[int, dict[Any, int]] = {}


def _overwriting(original: Any) -> Any:
    def add(self: Any, target: Any, r: Any) -> None:
        self.of.pop(target, None)
        original(self, target, r)

    return add


def _aliasing(original: Any) -> Any:
    def add(self: Any, target: Any, r: Any) -> None:
        if target in self.of and not self.record:
            self.of[target] += r  # in place, whoever else holds that memory
        else:
            original(self, target, r)

    return add


def _subtracting(original: Any) -> Any:
    def add(self: Any, target: Any, r: Any) -> None:
        original(self, target, -r if target in self.of else r)

    return add


def _second(original: Any) -> Any:
    def heappop(ahead: Any) -> Any:
        first = original(ahead)
        if not ahead:
            return first
        second = original(ahead)
        heapq.heappush(ahead, first)
        return second

    return heappop


def _last_sent(original: Any) -> Any:
    def heappush(heap: Any, item: Any) -> None:
        _, node = item
        original(heap, (-math.inf, node))

    return heappush


def _one_short(original: Any) -> Any:
    def leading_to(order: Any, wanted: Any) -> Any:
        passing, needed = original(order, wanted)
        if len(wanted) == 1 and len(passing) > 3:
            passing.discard(min(passing, key=lambda node: node.seq))
        return passing, needed

    return leading_to


def _released(original: Any) -> Any:
    def walk(starts: Any, *, wanted: Any, retain: bool, record: bool) -> Any:
        return original(starts, wanted=wanted, retain=record, record=record)

    return walk


def _not_cast(original: Any) -> Any:
    def cast(g: Any, dtype: Any) -> Any:
        array = getattr(g, "_array", g)
        if array.dtype.kind == "c" and dtype.kind != "c":
            return original(g.imag, dtype)
        return original(g, dtype)

    return cast


def _ones_for_none(original: Any) -> Any:
    def complete(self: Any, parts: Any, node: Any, record: bool) -> Any:
        filled = original(self, parts, node, record)
        return tuple(f if p is not None else f + 1.0 for p, f in zip(parts, filled, strict=True))

    return complete


def _leaves_alone(name: str) -> Any:
    """`Op.links` that sees no gradient to what another op made."""

    def change(original: Any) -> Any:
        def links(self: Any, values: Any) -> Any:
            found = original(self, values)
            if self.name != name or not found:
                return found
            targets, *others = found
            leaves = tuple(None if hasattr(t, "targets") else t for t in targets)
            return (leaves, *others) if any(t is not None for t in leaves) else ()

        return links

    return change


def _first_rule(name: str) -> Any:
    """`Op.links` that takes the first argument's rule where the second alone requires grad."""

    def change(original: Any) -> Any:
        def links(self: Any, values: Any) -> Any:
            found = original(self, values)
            if self.name != name or not found:
                return found
            (first, *others), (own, second, *rest), *as_they_are = found
            if first is not None or others[0] is None:
                return found
            return ((first, *others), (own, _scaled(second), *rest), *as_they_are)

        return links

    return change


class _scaled:
    """A rule whose gradient is twice the right one."""

    at = among = into = None

    def __init__(self, rule: Any) -> None:
        self.needs, self.saves = rule.needs, rule.saves
        self.function = lambda g, *needs: rule.function(g, *needs) * 2.0
        self.raw = lambda g, node, shape: rule.raw(g, node, shape) * 2.0
        self.graph = lambda g, node, shape: rule.graph(g, node, shape) * 2.0


def _hooks_backward(original: Any) -> Any:
    def changed(hooks: Any, g: Any, record: bool) -> Any:
        return original(dict(reversed(list(hooks.items()))), g, record)

    return changed


def _hook_ignored(original: Any) -> Any:
    def changed(hooks: Any, g: Any, record: bool) -> Any:
        original(hooks, g, record)
        return g

    return changed


def _no_copy(original: Any) -> Any:
    def snapshot(self: Any, *others: Any) -> Any:
        from refgrad.tensor import wrap

        made = wrap(self._array, self._node)
        made._requires_grad = self._requires_grad
        return made

    return snapshot


def _without_inner(original: Any) -> Any:
    def give(t: Any, level: int, value: Any) -> None:
        from refgrad.levels import levels

        original(t, level, value.detach() if len(levels.visible) > 1 else value)

    return give


def _halved_tangent(original: Any) -> Any:
    def diagonal(rules: Any, call: Any, out: Any) -> Any:
        found = original(rules, call, out)
        return found * 0.5 if len(rules) == 2 else found

    return diagonal


def _curved(original: Any) -> Any:
    def diagonal(rules: Any, call: Any, out: Any) -> Any:
        from refgrad.levels import levels

        found = original(rules, call, out)
        return found * 1.5 if len(levels.visible) > 0 else found

    return diagonal


MUTANTS: tuple[Mutant, ...] = (
    patch("the third use of a tensor is lost", "third use dropped",
          f"{_WALK}:Gradients.add", _counting(1)),
    patch("the fourth use of a tensor is lost", "third use dropped",
          f"{_WALK}:Gradients.add", _counting(2)),
    patch("a second gradient overwrites the first", "overwrite",
          f"{_WALK}:Gradients.add", _overwriting),
    patch("a second gradient is added into shared memory", "aliasing",
          f"{_WALK}:Gradients.add", _aliasing),
    patch("a second gradient is subtracted", "accumulation",
          f"{_WALK}:Gradients.add", _subtracting),
    patch("two nodes change places", "order of the walk", f"{_WALK}:heappop", _second),
    patch("what was sent to last comes next", "order of the walk",
          f"{_WALK}:heappush", _last_sent),
    patch("the oldest node is left out for one leaf", "requires_grad mask",
          f"{_WALK}:leading_to", _one_short),
    patch("a graph that is kept is released", "retain_graph reuse",
          "refgrad.autograd:walk", _released),
    patch("the imaginary part for the real one", "complex only", f"{_WALK}:cast", _not_cast,
          dtype="complex128", targets=("torch.abs", "torch.real", "torch.mul")),
    patch("ones for an output that nothing reached", "several outputs",
          "refgrad.ops.op:Op.complete", _ones_for_none,
          targets=("torch.sort", "torch.split", "torch.linalg.svd", "torch.linalg.slogdet",
                   "torch.linalg.eigh", "torch.linalg.qr")),
    *(patch(f"{op} sees leaves alone", "detached for non-leaf", "refgrad.ops.op:Op.links",
            _leaves_alone(op), targets=(f"torch.{op}",))
      for op in ("softmax", "matmul", "sum")),
    *(patch(f"{op} doubles what alone requires grad", "requires_grad mask",
            "refgrad.ops.op:Op.links", _first_rule(op), targets=(f"torch.{op}",))
      for op in ("matmul", "where", "lerp")),
    patch("hooks in reverse", "hook order", "refgrad.autograd.backward:changed", _hooks_backward),
    patch("what a hook returns is ignored", "hook order",
          "refgrad.autograd.backward:changed", _hook_ignored),
    patch("an in-place call saves no copy", "in-place after save",
          "refgrad.tensor:Tensor.snapshot", _no_copy, targets=_INPLACE),
    rule("what copy_ overwrites keeps its gradient", "in-place after save", "_copy_over", "input",
         lambda right, g: g, targets=("torch.Tensor.copy_",)),
    rule("what a write to a view overwrites keeps its gradient", "in-place after save",
         "view_write", "input", lambda right, g: g, targets=_INPLACE),
    patch("nested tangents are cut", "ff only", "refgrad.ops.forward:give", _without_inner),
    patch("half the tangent of two operands", "forward only",
          "refgrad.ops.forward:_diagonal", _halved_tangent),
    patch("a tangent's own tangent is off", "ff only", "refgrad.ops.forward:_diagonal", _curved),
)  # fmt: skip
