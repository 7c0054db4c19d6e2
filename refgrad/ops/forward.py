"""Forward mode: how an operation carries tangents along.

A tensor keeps its tangents in `_tangents`, by level. No op states a jvp: it follows from the vjp
rules. A rule r(g) is linear in the cotangent g, so with a dummy g its own vjp, along the tangent t,
is the transpose of the transpose: <r(g), t> = <g, J t>. Rules are written on Tensors too, so a
tangent computed this way is differentiable itself, in reverse mode and at the levels below.

- Of an elementwise op on reals the Jacobian is diagonal, its own transpose: the jvp is r(t).
- Of an op that is declared linear in an argument the jvp is the op on the tangent.
- A view op is linear: the tangent of a view is that view of its base's tangent, taken when it is
  asked for, so that a write to the base or to another of its views shows in it.
- An in-place write gives the tensor whose memory it is the tangent of what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.graph import Output
from refgrad.levels import below, levels, only
from refgrad.mode import state
from refgrad.ops.arrays import as_array, cast, unbroadcast
from refgrad.tensor import Tensor, wrap
from refgrad.views import TURNED, Replay, View

SIZE = (
    "Trying to set a forward gradient that has a different size than that of the original Tensor, "
    "this is not supported. Tensor is of size {} while the given forward gradient is of size {}."
)


def tangent(t: Any, level: int) -> Any:
    """The tangent of `t` at `level`, or None; that of a view is read through its base.

    Raises:
        RuntimeError: what it views was given another geometry in place since.
    """
    owner, steps = _owner(t, level)
    found = (owner._tangents or {}).get(level)
    if found is None:
        return None
    with only(below(level)):
        for view in reversed(steps):
            op, values = view._made_by
            if values[0]._turned > view._made_at:
                raise RuntimeError(TURNED)
            found = op.on((found, *values[1:]))
            found = found if view._index is None else found[view._index]
    return found


def tangents(t: Any) -> dict[int, Any] | None:
    """The tangents of `t` at all visible levels; None where it has none."""
    found = {n: v for n in levels.visible if (v := tangent(t, n)) is not None}
    return found or None


def _owner(t: Any, level: int) -> tuple[Any, list[Any]]:
    """The first of `t`, what it views, ... with a tangent of its own, else the last; the views."""
    steps = []
    while isinstance(t, View) and (t._tangents is None or level not in t._tangents):
        steps.append(t)
        t = t._made_by[1][0]
    return t, steps


def give(t: Any, level: int, value: Any) -> None:
    """Make `value` the tangent of `t` itself at `level`; those of closed levels are dropped."""
    kept = t._tangents or {}
    t._tangents = {n: kept[n] for n in levels.visible if n in kept} | {level: value}


def detached(t: Any) -> Any:
    """`t` cut from the graph, with its tangents, which are cut too."""
    made = t.detach()
    for level in levels.visible:
        value = tangent(t, level)
        if value is not None:
            with only(below(level)):
                give(made, level, detached(value))
    return made


def copied(t: Any) -> Any:
    """`t` as it is now, in memory of its own, with its history and its tangents."""
    made = wrap(t._array.copy(), t._node)
    made._requires_grad = t._requires_grad
    made._tangents = tangents(t)
    return made


# --- operations ----------------------------------------------------------------------------------


def at(values: Sequence[Any], place: Any) -> Any:
    """The argument of a rule, or a tuple of those that share it."""
    return tuple([values[i] for i in place]) if type(place) is tuple else values[place]


class Call:
    """An operation just done, as a rule reads it: what it saved, and its result as Tensors."""

    __slots__ = ("result", "saved")

    def __init__(self, saved: Any, result: Any) -> None:
        self.saved = saved
        self.result = result

    def saved_output(self) -> Any:
        """The result."""
        return self.result


def push(op: Any, values: Sequence[Any], raws: Sequence[Any], result: Any) -> Any:
    """Give `result` of `op` on `values` its tangents, and return it."""
    if not levels.visible or not op.vjps:
        return result
    made = [result] if isinstance(result, Tensor) else list(result)
    for level in levels.visible:
        given = {}
        for i in op.places:
            v = at(values, i)
            if isinstance(v, Tensor):
                t = tangent(v, level)
            elif type(v) in (list, tuple):
                t = [tangent(e, level) if isinstance(e, Tensor) else None for e in v]
                t = t if any(e is not None for e in t) else None
            else:
                t = None
            if t is not None:
                given[i] = t
        if not given:
            continue
        with only(below(level)):
            found = _tangents_of(op, values, raws, result, made, given)
        for m, t in zip(made, found, strict=False):
            if t is not None:
                give(m, level, t)
    recorded = next((m for m in made if m._requires_grad), None) if op.saves_out else None
    if recorded is not None:  # for a backward pass that is itself recorded
        node = recorded._node
        node = node.parent if isinstance(node, Output) else node
        node.tangents = tuple(m._tangents for m in made)
    return result


def _tangents_of(
    op: Any,
    values: Sequence[Any],
    raws: Sequence[Any],
    result: Any,
    made: list[Any],
    given: dict[Any, Any],
) -> Sequence[Any]:
    """The tangent of each result of `op`, from those of its arguments."""
    if op.view:
        if all(isinstance(m, View) for m in made):
            return ()
        found = op.on((given[0], *values[1:]))
        each = [found] if isinstance(found, Tensor) else found
        return [None if isinstance(m, View) else t for m, t in zip(made, each, strict=True)]
    if op.linear_in.issuperset(given):
        total: Any = None
        for i, t in given.items():
            term = op.on((*values[:i], t, *values[i + 1 :]))
            total = term if total is None else total + term
        return [total]
    call = Call(op.kept(values, raws), result)
    rules = [(rule, at(values, i), given[i]) for i, rule in op.rules if i in given]
    arrays = [made[0]._array, *(v._array for _, v, _ in rules if op.elementwise)]
    if op.elementwise and all(a.dtype.kind == "f" for a in arrays):
        return [_diagonal(rules, call, arrays[0])]
    return _transposed(op, rules, call, made)


def _diagonal(rules: list[Any], call: Call, out: Any) -> Any:
    """The jvp of an elementwise op on reals: J is its own transpose."""
    total: Any = None
    for rule, value, t in rules:
        if t._array.shape != out.shape:
            t = np.broadcast_to(t, out.shape)
        r = rule.graph(t, call, value._array.shape)
        total = r if total is None else total + r
    return total if total._array.dtype == out.dtype else cast(total, out.dtype)


def _transposed(op: Any, rules: list[Any], call: Call, made: list[Any]) -> list[Any]:
    """The jvp as the gradient of <r(g), t> with respect to g."""
    from refgrad.autograd.backward import walk

    enabled = state.enabled
    differentiated = made if op.differentiable is None else made[: op.differentiable]
    dummies = [
        wrap(np.zeros_like(m._array)).requires_grad_(m._array.dtype.kind in "fc")
        for m in differentiated
    ]
    seeds: list[Any] = []
    given = [call.result, *(call.saved or ())]
    state.enabled = True
    try:
        alone = isinstance(call.result, Tensor) or op.differentiable == 1
        g = dummies[0] if alone else tuple(dummies)
        for rule, value, t in rules:
            if isinstance(t, list):
                arrays = [e._array if isinstance(e, Tensor) else None for e in value]
                shapes = tuple(
                    None if e is None else () if a is None else a.shape
                    for e, a in zip(value, arrays, strict=True)
                )
                parts = zip(rule.graph(g, call, shapes), arrays, t, strict=True)
            else:
                parts = zip(
                    [rule.graph(g, call, value._array.shape)], [value._array], [t], strict=True
                )
            for r, array, direction in parts:
                if r is None or direction is None or not r._requires_grad:
                    continue
                seeds.append((_fitted(r, array), direction))
                given.append(direction)
        # what is recorded here depends on the dummies by their shapes alone
        state.enabled = enabled and any(_requires_grad(v) for v in given)
        record = state.enabled or bool(levels.visible)
        of = walk(
            [(r._node or r, d if record else d._array) for r, d in seeds],
            wanted=set(dummies), retain=True, record=record,
        ).of  # fmt: skip
    finally:
        state.enabled = enabled
    return [_zero_or(of.get(d), d, record) for d in dummies]


def _fitted(r: Any, array: Any) -> Any:
    """`r`, the gradient of an argument `array`, in its shape and dtype."""
    if r._array.shape != array.shape:
        r = unbroadcast(r, array.shape)
    return r if r._array.dtype == array.dtype else cast(r, array.dtype)


def _zero_or(found: Any, dummy: Any, record: bool) -> Any:
    if dummy._array.dtype.kind not in "fc":
        return None
    if found is None:
        return wrap(np.zeros_like(dummy._array))
    return found if record else wrap(as_array(found))


def _requires_grad(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value._requires_grad
    return isinstance(value, (list, tuple)) and any(_requires_grad(v) for v in value)


# --- in-place writes -----------------------------------------------------------------------------


def overwrite(t: Any, made: Any) -> None:
    """Give `t`, in whose memory the values of `made` now stand, the tangents of `made`."""
    for level in levels.visible:
        _put(t, level, tangent(made, level))


def _put(t: Any, level: int, new: Any) -> None:
    """Make `new`, None for zero, the tangent of `t`: that of what it views changes with it."""
    from refgrad.ops.copyslices import view_write

    owner, steps = _owner(t, level)
    whole = (owner._tangents or {}).get(level)
    if new is None and whole is None:
        return
    with only(below(level)):
        new = wrap(np.zeros_like(t._array)) if new is None else new
        if steps:
            whole = wrap(np.zeros_like(owner._array)) if whole is None else whole
            new = view_write(whole, new, Replay(steps, owner))
    give(owner, level, new)


# --- users' Functions ----------------------------------------------------------------------------


def push_function(function: Any, ctx: Any, args: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Give the outputs of a user's Function the tangents that its `jvp` finds.

    Raises:
        RuntimeError: `jvp` returned too many or too few, or tangents that do not fit.
    """
    dirty = {id(t) for t in ctx.dirty_tensors}
    for level in levels.visible:
        given = [tangent(a, level) if isinstance(a, Tensor) else None for a in args]
        if all(t is None for t in given):
            continue
        with only(below(level)):
            for i, a in enumerate(args):
                if given[i] is not None and id(a) in dirty:
                    given[i] = given[i].clone()  # which jvp may write to as forward to `a`
                if given[i] is None and isinstance(a, Tensor) and ctx.materialize_grads:
                    given[i] = wrap(np.zeros_like(a._array))
            found = function.jvp(ctx, *given)
        found = found if type(found) is tuple else (found,)
        if len(found) != len(outputs):
            raise RuntimeError(
                f"{function.__name__}'s jvp returned an invalid number of forward gradients "
                f"(expected {len(outputs)} but got {len(found)})"
            )
        for i, (o, t) in enumerate(zip(outputs, found, strict=True)):
            if t is None or not isinstance(o, Tensor) or o._array.dtype.kind not in "fc":
                continue
            if not isinstance(t, Tensor):
                raise RuntimeError(
                    f"expected Variable or None (got {type(t).__name__}) for grad output {i}."
                )
            if t._array.shape != o._array.shape:
                raise RuntimeError(SIZE.format(list(o.shape), list(t.shape)))
            if id(o) in dirty:
                _put(o, level, t)
            else:
                give(o, level, t)
