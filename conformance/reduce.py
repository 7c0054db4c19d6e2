"""A graph reducer: from a Program that fails to a few calls on small tensors that still fail.

Each pass proposes smaller Programs: one call alone, a call bypassed or cut into a leaf, an output
dropped, a shape shrunk, a value simplified. A proposal is taken where it still runs and fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.engines.base import ALL, Engine
from conformance.errors import ConformanceError, ProgramError
from conformance.program import (
    Array,
    Call,
    Input,
    Program,
    Ref,
    Values,
    contiguous,
    layout,
    map_refs,
    map_tree,
    refs,
)
from conformance.sources.values import lay

Fails = Callable[[Program, Values], bool]
Case = tuple[Program, Values]

BUDGET = 500  # questions to the predicate
FEW = 16  # an input of at most so many elements is simplified one by one


@dataclass(frozen=True)
class Witness:
    """A Program that fails, its values, and the flat results of its calls by name."""

    program: Program
    values: Values
    kept: dict[str, tuple[Array, ...]]

    def array(self, ref: Ref) -> Array:
        """The value of an input, of a result, or of an element of one."""
        if ref.name in self.values:
            return self.values[ref.name]
        return self.kept[ref.name][int(ref.path[0]) if ref.path else 0]

    def uses(self, call: Call) -> list[Ref]:
        """The Refs to a call's results, each once."""
        everywhere = [r for c in self.program.calls for r in c.refs]
        everywhere += refs(self.program.outputs)
        return [r for r in dict.fromkeys(everywhere) if r.name == call.name]


Pass = Callable[[Witness], Iterator[Case]]


def reduce(
    program: Program,
    values: Values,
    fails: Fails,
    *,
    budget: int = BUDGET,
    reference: Engine | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Case:
    """The smallest Program found that still fails, and its values; deterministic.

    `fails` is asked at most `budget` times and until `enough` says so, and only about Programs that
    run on `reference` (torch where it is None) with finite results, if the given one's results are
    finite.
    """
    if reference is None:
        from conformance import engines

        reference = engines.load("torch")
    kept = reference.run(program, values, keep=ALL).kept
    state = Witness(program, values, kept)
    finite = _finite(kept)
    seen = {program.digest(values)}
    left = budget

    def taken(candidate: Case) -> Witness | None:
        nonlocal left
        program, values = candidate
        try:
            values = layout(program.inputs, values)
            digest = program.digest(values)
            if digest in seen or left <= 0 or enough():
                return None
            seen.add(digest)
            kept = reference.run(program.check(), values, keep=ALL).kept
            if not finite or _finite(kept):
                left -= 1
                if fails(program, values):
                    return Witness(program, values, kept)
        except ConformanceError:  # it does not run: no smaller witness
            return None
        return None

    for group in PASSES:
        following: Witness | None = state
        while following is not None:
            state = following
            proposals = (case for propose in group for case in propose(state))
            following = next(filter(None, map(taken, proposals)), None)
    return state.program, state.values


def _finite(kept: dict[str, tuple[Array, ...]]) -> bool:
    return all(np.isfinite(x).all() for flat in kept.values() for x in flat if x.dtype.kind in "fc")


def _live(program: Program) -> Program:
    """The Program without the calls and the inputs that no output needs."""
    live = program.live()
    used = {r.name for call in live.calls for r in call.refs}
    used |= {r.name for r in refs(live.outputs)}
    return replace(live, inputs=tuple(i for i in live.inputs if i.name in used))


# Calls


def alone(w: Witness) -> Iterator[Case]:
    """Each call by itself, on the values that it had."""
    everything: dict[str, Array | tuple[Array, ...]] = {**w.values, **w.kept}
    for call in w.program.calls if len(w.program.calls) > 1 else ():
        try:
            yield w.program.isolate(call.name, everything)
        except ProgramError:  # an operand deep inside a structured result
            continue


def alone_in_other_layouts(w: Witness) -> Iterator[Case]:
    """Each call by itself, on tensors that are not contiguous: a result may have been a view."""
    for program, values in alone(w):
        for name in ("strided", "transposed"):
            laid = {key: lay(x, name) for key, x in values.items()}
            strides = {key: Input.of(key, x).strides for key, x in laid.items()}
            inputs = tuple(replace(i, strides=strides[i.name]) for i in program.inputs)
            yield replace(program, inputs=inputs), laid


def alone_and_wide(w: Witness) -> Iterator[Case]:
    """Each call by itself, with dimensions of size 1 as large as others: a square matrix for a row.

    The values are those that it had, repeated and scaled down.
    """
    for program, values in alone(w):
        size = max((n for i in program.inputs for n in i.shape), default=0)
        if size < 2 or not any(1 in i.shape for i in program.inputs):
            continue
        wide = {}
        for name, x in values.items():
            shape = tuple(size if n == 1 else n for n in x.shape)
            whole = np.array(np.broadcast_to(x, shape))
            if x.dtype.kind in "fc":
                whole *= np.linspace(1.0, 0.5, whole.size).reshape(shape).astype(x.real.dtype)
            wide[name] = whole
        inputs = tuple(
            Input.of(i.name, wide[i.name], requires_grad=i.requires_grad) for i in program.inputs
        )
        yield replace(program, inputs=inputs), wide


def out_of_place(w: Witness) -> Iterator[Case]:
    """A call that writes in place as the one that does not, in the place of what it wrote into."""
    for n, call in enumerate(w.program.calls):
        method = call.target.removeprefix("torch.Tensor.")
        if not call.in_place or method == call.target or not call.args:
            continue
        base = call.args[0]

        def other(ref: Ref, old: Any = base, new: str = call.name) -> Ref:
            return Ref(new) if ref == old else ref

        later = tuple(_mapped(c, other) for c in w.program.calls[n + 1 :])
        plain = replace(call, target=f"torch.{method.removesuffix('_')}")
        calls = (*w.program.calls[:n], plain, *later)
        outputs = map_refs(other, w.program.outputs)
        yield _live(replace(w.program, calls=calls, outputs=outputs)), w.values


def prefixes(w: Witness) -> Iterator[Case]:
    """The first calls only; the last one's floating results are the outputs."""
    for count in range(1, len(w.program.calls)):
        last = w.program.calls[count - 1]
        made = w.kept[last.name]
        single = len(made) == 1 and Ref(last.name, (0,)) not in w.uses(last)
        floating = [n for n, x in enumerate(made) if x.dtype.kind in "fc"]
        outputs = tuple(Ref(last.name, () if single else (n,)) for n in floating)
        if outputs:
            calls = w.program.calls[:count]
            yield _live(replace(w.program, calls=calls, outputs=outputs)), w.values


def bypassed(w: Witness) -> Iterator[Case]:
    """Each call's result replaced by an operand of the same shape and dtype."""
    for call in reversed(w.program.calls):
        made = w.kept[call.name]
        for ref in dict.fromkeys(call.refs):
            x = w.array(ref)
            if all(x.shape == y.shape and x.dtype == y.dtype for y in made):
                yield from _without(w, call, dict.fromkeys(w.uses(call), ref), {})


def cut(w: Witness) -> Iterator[Case]:
    """Each call's results that are used become leaves that hold their values."""
    for call in reversed(w.program.calls):
        taken = {i.name for i in w.program.inputs}
        free = (name for n in range(10**6) if (name := f"x{n}") not in taken)
        new = {ref: Ref(name) for ref, name in zip(w.uses(call), free)}
        yield from _without(w, call, new, {new[ref].name: w.array(ref) for ref in new})


def _without(w: Witness, call: Call, new: dict[Ref, Ref], leaves: Values) -> Iterator[Case]:
    """The Program without the call, its results replaced; outputs must still be results."""

    def other(ref: Ref) -> Ref:
        return new.get(ref, ref)

    calls = tuple(_mapped(c, other) for c in w.program.calls if c is not call)
    names = {c.name for c in calls}
    outputs = tuple(r for r in map(other, refs(w.program.outputs)) if r.name in names)
    if outputs:
        inputs = [Input.of(n, x, requires_grad=x.dtype.kind in "fc") for n, x in leaves.items()]
        whole = Program(w.program.inputs + tuple(inputs), calls, outputs)
        yield _live(whole), {**w.values, **leaves}


def _mapped(call: Call, other: Callable[[Ref], Ref]) -> Call:
    args, kwargs = map_refs(other, (call.args, call.kwargs))
    return replace(call, args=args, kwargs=kwargs)


def fewer_outputs(w: Witness) -> Iterator[Case]:
    """One output alone, or one output less."""
    outputs = tuple(refs(w.program.outputs))
    if len(outputs) == 1 and w.program.outputs != outputs[0]:
        yield replace(w.program, outputs=outputs[0]), w.values
    for n, ref in enumerate(outputs if len(outputs) > 1 else ()):
        yield _live(replace(w.program, outputs=ref)), w.values
        yield _live(replace(w.program, outputs=outputs[:n] + outputs[n + 1 :])), w.values


# Inputs and arguments


def fewer_leaves(w: Witness) -> Iterator[Case]:
    """One leaf less that requires grad."""
    for i in w.program.leaves if len(w.program.leaves) > 1 else ():
        yield _with_input(w, i, replace(i, requires_grad=False)), w.values


def plain_layouts(w: Witness) -> Iterator[Case]:
    """An input by itself, contiguous."""
    for i in w.program.inputs:
        plain = replace(i, strides=contiguous(i.shape), storage=None, offset=0)
        if plain != i:
            yield _with_input(w, i, plain), w.values


def _with_input(w: Witness, old: Input, new: Input) -> Program:
    inputs = tuple(new if i is old else i for i in w.program.inputs)
    return replace(w.program, inputs=inputs)


def fewer_inputs(w: Witness) -> Iterator[Case]:
    """One input in the place of another of its shape."""
    for keep in w.program.inputs:
        for i in w.program.inputs:
            if i is not keep and (i.shape, i.dtype) == (keep.shape, keep.dtype):

                def other(ref: Ref, old: str = i.name, new: str = keep.name) -> Ref:
                    return Ref(new) if ref.name == old else ref

                calls = tuple(_mapped(c, other) for c in w.program.calls)
                yield _live(replace(w.program, calls=calls)), w.values


def fewer_arguments(w: Witness) -> Iterator[Case]:
    """A call without one of its arguments or tensors, or with -1 for sizes."""
    for n, call in enumerate(w.program.calls):
        shorter = [
            replace(call, kwargs={k: v for k, v in call.kwargs.items() if k != key})
            for key in call.kwargs
        ]
        if len(call.args) > 1:
            shorter.append(replace(call, args=call.args[:-1]))
        for position, arg in enumerate(call.args):
            others: list[Any] = []
            if isinstance(arg, tuple) and arg and all(type(size) is int for size in arg):
                others = [(-1,)]
            elif isinstance(arg, list):
                others = [arg[:k] + arg[k + 1 :] for k in range(len(arg)) if len(arg) > 1]
            for less in others:
                args = call.args[:position] + (less,) + call.args[position + 1 :]
                shorter.append(replace(call, args=args))
        for other in shorter:
            calls = w.program.calls[:n] + (other,) + w.program.calls[n + 1 :]
            yield _live(replace(w.program, calls=calls)), w.values


# Shapes


def smaller(w: Witness) -> Iterator[Case]:
    """Every dimension of one size made smaller at once, or one of all inputs, or of one input."""
    sizes = sorted({n for i in w.program.inputs for n in i.shape if n > 1}, reverse=True)
    for size in sizes:
        for new in dict.fromkeys((1, 2, size // 2, size - 1)):
            if new >= size:
                continue
            yield from _resized(w, {i.name: _places(i, size) for i in w.program.inputs}, size, new)
            for axis in range(max(len(i.shape) for i in w.program.inputs)):  # of all at once
                here = {i.name: {axis} for i in w.program.inputs if axis in _places(i, size)}
                if len(here) > 1:
                    yield from _resized(w, here, size, new)
            for i in w.program.inputs:
                for axis in _places(i, size):
                    yield from _resized(w, {i.name: {axis}}, size, new)


def _places(i: Input, size: int) -> set[int]:
    return {axis for axis, n in enumerate(i.shape) if n == size}


def _resized(w: Witness, where: dict[str, set[int]], size: int, new: int) -> Iterator[Case]:
    """Dimensions cut to the new size: their first part or their last, arguments changed or not.

    An argument changes where it is an integer equal to the size; indices beyond it wrap around.
    """
    for part in (slice(new), slice(size - new, None)):
        program, values = _sliced(w, where, part, new)
        yield program, values

        def follow(leaf: Any) -> Any:
            return new if type(leaf) is int and leaf == size else leaf

        followed = tuple(
            replace(c, args=map_tree(follow, c.args), kwargs=map_tree(follow, c.kwargs))
            for c in program.calls
        )
        if followed != program.calls:
            yield replace(program, calls=followed), values


def _sliced(w: Witness, where: dict[str, set[int]], part: slice, new: int) -> Case:
    inputs, values = [], {}
    for i in w.program.inputs:
        axes = where.get(i.name, set())
        x = w.values[i.name][tuple(part if a in axes else slice(None) for a in range(len(i.shape)))]
        if x.dtype.kind in "iu" and x.size and x.max() >= new:
            x = x % new
        strides = contiguous(x.shape) if i.strides == contiguous(i.shape) else i.strides
        inputs.append(replace(i, shape=x.shape, strides=strides))
        values[i.name] = x
    return replace(w.program, inputs=tuple(inputs)), values


def lower_rank(w: Witness) -> Iterator[Case]:
    """Every input of the highest rank without its first, or its last, dimension of size 1."""
    highest = max((len(i.shape) for i in w.program.inputs), default=0)
    for axis in (0, -1) if highest > 1 else ():
        if all(i.shape[axis] == 1 for i in w.program.inputs if len(i.shape) == highest):
            inputs, values = [], dict(w.values)
            for i in w.program.inputs:
                if len(i.shape) == highest:
                    x = values[i.name] = w.values[i.name].squeeze(axis)
                    i = replace(i, shape=x.shape, strides=contiguous(x.shape))
                inputs.append(i)
            yield replace(w.program, inputs=tuple(inputs)), values


# Values


def simpler_values(w: Witness) -> Iterator[Case]:
    """An input of ones, zeros or whole numbers."""
    for i in w.program.inputs:
        x = w.values[i.name]
        if not np.isin(x, (0, 1)).all():
            for simple in (np.ones_like(x), np.zeros_like(x), np.rint(x).astype(x.dtype)):
                yield w.program, {**w.values, i.name: np.asarray(simple)}


def simpler_elements(w: Witness) -> Iterator[Case]:
    """One element of a small input made 1, 0, whole, or of one decimal."""
    for i in w.program.inputs:
        x = w.values[i.name]
        for place in map(tuple, np.argwhere(~np.isin(x, (0, 1))) if x.size <= FEW else ()):
            old = x[place]
            for new in (1, 0, np.rint(old), np.round(old, 1)):
                if new == old:
                    break
                y = np.array(x)
                y[place] = new
                yield w.program, {**w.values, i.name: y}


PASSES: tuple[tuple[Pass, ...], ...] = (
    (alone,),
    (alone_in_other_layouts,),
    (alone_and_wide,),
    (out_of_place,),
    (alone,),
    (prefixes,),
    (fewer_outputs, bypassed, cut),
    (plain_layouts, fewer_leaves, fewer_arguments),
    (simpler_values,),
    (smaller, lower_rank),
    (fewer_inputs,),
    (simpler_values,),
    (simpler_elements,),
    (plain_layouts, fewer_outputs, fewer_arguments, smaller, lower_rank),
)
