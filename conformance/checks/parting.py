"""Where two backward passes part, and what an engine does that one gradient does not show."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from conformance.checks.base import Case
from conformance.checks.compare import compare
from conformance.diagnosis import NONDETERMINISTIC, Diagnosis
from conformance.engines.base import ALL, Engine, Vjp
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.cancellation import results
from conformance.oracles.directional import moved
from conformance.oracles.pairs import cotangents_for, direction, flat
from conformance.program import Array, Call, Input, Program, Ref, Values, map_refs, refs
from conformance.writes import held

NUDGE = 1e-3  # of the values: far enough that every gradient that follows them moves
USES = 8  # of a leaf; more are not taken apart
LOOSER = 10.0  # times the tolerance of a leaf: rounding on the way is not the parting


@dataclass(frozen=True)
class Parting:
    """The call at which two backward passes part, the tensor that differs, and its gradient."""

    sentence: str
    target: str
    tensor: str = ""
    gradient: Array | None = None


def first_call(case: Case, other: Engine, leaf: str = "") -> Parting | None:
    """The call whose rule is to blame, or None where none stands out.

    The backward pass goes from the last call to the first. A call is to blame where the gradients
    of its results agree and that of an operand differs; by more than rounding on the way may, or
    where no call does, by more than a leaf's tolerance. Of several, the one that uses `leaf`.
    """
    try:
        ours = case.engine.vjp(case.program, case.values, case.cotangents, keep=ALL)
        theirs = other.vjp(case.program, case.values, case.cotangents, keep=ALL)
    except (EngineError, Unsupported):
        return None  # the gradients themselves are already in the evidence
    suspects: list[tuple[Call, str]] = []
    for looser in (LOOSER, 1.0):
        found = _suspects(case, ours, theirs, looser)
        suspects = suspects or found
        if case.loose and suspects:
            break
        guilty = [s for s in found if _excess_alone(case, other, s[0], theirs)]
        if guilty:  # an operand of several calls differs by the fault of any of them
            suspects = sorted(guilty, key=lambda suspect: suspect[1] != leaf)
            break
    else:
        hidden = None if case.loose else _hidden(case, other, theirs)
        if hidden is not None:
            text = f"{hidden.name} = {hidden.target}: alone, entries of its gradient differ"
            return Parting(text, hidden.target)
    if suspects:
        call, name = suspects[0]
        text = f"{call.name} = {call.target}: its gradient agrees, that of {name} differs"
        own = ours.kept.get(name, (ours.gradients.get(name),))
        return Parting(text, call.target, name, own[0] if len(own) == 1 else None)
    last = case.program.calls[-1] if case.program.calls else None
    if last is not None and last.name in _differing(case, ours, theirs, 1.0):
        text = f"{last.name} = {last.target}: the gradient differs from the start"
        return Parting(text, last.target)
    return None


def _differing(case: Case, ours: Vjp, theirs: Vjp, looser: float) -> set[str]:
    """The leaves and the calls whose gradients differ by so many times the tolerance."""
    differs: set[str] = set()
    for call in case.program.calls:
        pairs = zip(ours.kept.get(call.name, ()), theirs.kept.get(call.name, ()), strict=False)
        for left, right in pairs:
            if left is None and right is None:
                continue
            dtype = next(g.dtype for g in (left, right) if g is not None)
            relative = looser * case.relative(dtype)
            if compare(left, right, relative=relative) is not None:
                differs.add(call.name)
    for leaf in case.program.leaves:
        left, right = ours.gradients.get(leaf.name), theirs.gradients.get(leaf.name)
        relative = looser * case.relative(leaf.dtype)
        if compare(left, right, relative=relative) is not None:
            differs.add(leaf.name)
    return differs


def _suspects(case: Case, ours: Vjp, theirs: Vjp, looser: float) -> list[tuple[Call, str]]:
    """The calls, from the last, whose gradients agree while an operand's differs; with its name."""
    differs = _differing(case, ours, theirs, looser)
    return [
        (call, wrong[0])
        for call in reversed(case.program.calls)
        if call.name not in differs and (wrong := [r.name for r in call.refs if r.name in differs])
    ]


def first_forward(case: Case, tangents: Mapping[str, Array], other: Engine) -> Parting | None:
    """The same of forward mode: the first call whose result's tangent differs.

    None where a call's tangent cannot be had.
    """
    program = case.program
    try:
        kept = other.run(program, case.values, keep=ALL).kept
    except (EngineError, Unsupported):
        return None
    made = results(program, kept)
    if not any(call.in_place for call in program.calls):
        stages = [replace(program, outputs=made)]
    elif not case.loose:  # a later write would change what an earlier call returned
        stages = [
            replace(program, calls=program.calls[: n + 1], outputs=own)
            for n, call in enumerate(program.calls)
            if (own := tuple(ref for ref in made if ref.name == call.name))
        ]
    else:
        return None
    for stage in stages:
        try:
            ours = case.engine.jvp(stage, case.values, tangents)
            theirs = other.jvp(stage, case.values, tangents)
        except (EngineError, Unsupported, ProgramError):
            return None  # the tangents of the outputs are already in the evidence
        differs = {
            ref.name
            for ref, left, right in zip(refs(stage.outputs), ours, theirs, strict=True)
            if compare(left, right, relative=case.relative(right.dtype)) is not None
        }
        for call in stage.calls:
            if call.name in differs:
                text = f"{call.name} = {call.target}: the first result whose tangent differs"
                return Parting(text, call.target)
    return None


def _hidden(case: Case, other: Engine, theirs: Vjp) -> Call | None:
    """The call by which, alone, some entry of a gradient differs most beside itself.

    A small entry that is wrong is not seen beside large ones, until a later rule makes these small;
    and where a call writes into a view, the gradients on the way are not those of its operands.
    """
    excess = {
        call.name: _excess_alone(case, other, call, theirs, each=True)
        for call in case.program.calls
    }
    worst = max(case.program.calls, key=lambda call: excess[call.name])
    return worst if excess[worst.name] else None


def _excess_alone(
    case: Case, other: Engine, call: Call, theirs: Vjp, *, each: bool = False
) -> float:
    """By how many tolerances the two engines' rules differ on this call alone; 0 where they agree.

    It is given what it had in the Program. With `each`, entries are compared beside themselves and
    not beside the largest.
    """
    try:
        values = held(other, case.program, case.values, call)
        program, inputs = case.program.isolate(call.name, values)
        outputs = other.run(program, inputs).outputs
        kept = theirs.kept.get(call.name, ())
        cotangents: list[Array | None] = list(kept)
        if [None if c is None else c.shape for c in kept] != [o.shape for o in outputs]:
            rng = case.rng("alone", call.name)
            cotangents = cotangents_for(rng, outputs)
        left = case.engine.vjp(program, inputs, cotangents).gradients
        right = other.vjp(program, inputs, cotangents).gradients
    except (EngineError, Unsupported, ProgramError):
        return 0.0  # it cannot be cut out: the others are looked at
    most = 0.0
    for leaf in program.leaves:
        a, b = left.get(leaf.name), right[leaf.name]
        relative = case.relative(leaf.dtype)
        if each and b is not None:
            found = compare(a, b, relative=0.0, absolute=relative * np.abs(flat(b)))
        else:
            found = compare(a, b, relative=relative)
        if found is not None:
            most = max(most, found.severity[1] if found.kind == "value" else np.inf)
    return most


def behaviour(case: Case, leaf: str, engine: Array, reference: Array) -> Diagnosis | None:
    """What repeating shows: another result, none of the values' changes, a use that is missing."""
    try:
        again = case.engine.vjp(case.program, case.values, case.cotangents).gradients.get(leaf)
        if compare(again, engine, relative=0.0) is not None:
            return NONDETERMINISTIC
        return (
            _stale(case, leaf, engine, reference)
            or overwritten(case, leaf, engine)
            or _unsummed(case, leaf, engine, reference)
        )
    except (EngineError, Unsupported):
        return None  # the gradient that was got is judged without


def _stale(case: Case, leaf: str, engine: Array, reference: Array) -> Diagnosis | None:
    tangents = direction(case.rng("nudge"), case.program, case.values)
    values = moved(case.program, case.values, tangents, NUDGE)
    ours = case.engine.vjp(case.program, values, case.cotangents).gradients.get(leaf)
    theirs = case.reference.vjp(case.program, values, case.cotangents).gradients.get(leaf)
    unmoved = bool(engine.any()) and compare(ours, engine, relative=NUDGE**3) is None
    if unmoved and compare(theirs, reference, relative=1e-6) is not None:
        text = "the gradient does not follow the inputs: it is made of values saved earlier"
        return Diagnosis("stale", text)
    return None


def overwritten(case: Case, name: str, engine: Array) -> Diagnosis | None:
    """Whether the gradient of a leaf or a result is the sum over some of its uses, but not all."""
    program, values = case.program, case.values
    uses = sum(r.name == name for c in program.calls for r in c.refs)
    uses += sum(r.name == name for r in refs(program.outputs))
    if not 2 <= uses <= USES or any(c.in_place for c in program.calls):
        return None
    program, values = _from(case, name)
    program, values, names = _apart(program, values, name)
    found = case.reference.vjp(program, values, case.cotangents).gradients
    parts = [g for n in names if (g := found[n]) is not None]
    if len(parts) < 2:
        return None
    relative = 100 * case.relative(engine.dtype)
    total = np.sum(parts, axis=0)
    for number, part in enumerate(parts):
        for text, made in (
            (f"use {number + 1} alone", part),
            (f"all but use {number + 1}", total - part),
        ):
            other = compare(made, total, relative=relative) is not None
            if other and compare(engine, made.astype(engine.dtype), relative=relative) is None:
                sentence = f"of {len(parts)} uses of {name} the gradient counts {text}"
                return Diagnosis("overwritten accumulation", sentence)
    return None


def _unsummed(case: Case, leaf: str, engine: Array, right: Array) -> Diagnosis | None:
    """Whether the gradient of a leaf that was broadcast is that of one of its copies, or a mean."""
    program, values = case.program, case.values
    given = next(i for i in program.inputs if i.name == leaf)
    kept = case.reference.run(program, values, keep=ALL).kept
    users = [c for c in program.calls if any(r.name == leaf for r in c.refs)]
    if len(users) != 1 or engine.shape != given.shape or given.storage is not None:
        return None
    wide = kept[users[0].name][0].shape if kept[users[0].name] else given.shape
    aligned = zip(reversed(given.shape), reversed(wide), strict=False)
    if len(wide) < len(given.shape) or any(n not in (1, m) for n, m in aligned):
        return None  # it is not broadcast
    if wide == given.shape:
        return None
    array = np.ascontiguousarray(np.broadcast_to(values[leaf], wide))
    whole = Input.of(leaf, array, requires_grad=True)
    inputs = tuple(whole if i.name == leaf else i for i in program.inputs)
    spread = Program(inputs, program.calls, program.outputs)
    gradient = case.reference.vjp(spread, values | {leaf: array}, case.cotangents).gradients[leaf]
    if gradient is None:
        return None
    shape = (1,) * (len(wide) - len(given.shape)) + given.shape
    axes = tuple(n for n, size in enumerate(shape) if size == 1 and wide[n] != 1)
    relative = 100 * case.relative(engine.dtype)
    for count in range(1, len(axes) + 1):
        for some in itertools.combinations(axes, count):
            rest = gradient.sum(axis=tuple(a for a in axes if a not in some), keepdims=True)
            sizes = ", ".join(str(wide[a]) for a in some)
            along = f"axis {some[0]}" if count == 1 else f"the axes {list(some)}"
            forms = [
                ("the mean", rest.mean(axis=some, keepdims=True)),
                ("that of the first copy alone", rest[_at(some, 0, rest.ndim)]),
                ("that of the last copy alone", rest[_at(some, -1, rest.ndim)]),
                ("the largest", rest.max(axis=some, keepdims=True)),
            ]
            for text, made in forms:
                found = np.asarray(made.reshape(given.shape), engine.dtype)
                other = compare(found, right, relative=relative) is not None
                if other and compare(engine, found, relative=relative) is None:
                    said = f"the gradient is not summed over {along} (of size {sizes}), along which"
                    return Diagnosis("missing sum", f"{said} {leaf} is broadcast: it is {text}")
    return None


def _at(axes: tuple[int, ...], index: int, count: int) -> tuple[slice, ...]:
    """One slice along some axes, which are kept."""
    one = slice(index, None) if index < 0 else slice(index, index + 1)
    return tuple(one if n in axes else slice(None) for n in range(count))


def _from(case: Case, name: str) -> tuple[Program, Values]:
    """The Program with the result of this call as a leaf that holds its value."""
    program, values = case.program, case.values
    if name in values:
        return program, values
    value = case.reference.run(program, values, keep=(name,)).kept[name][0]
    leaf = Input.of(name, value, requires_grad=True)
    calls = tuple(c for c in program.calls if c.name != name)
    return Program((*program.inputs, leaf), calls, program.outputs), values | {name: value}


def alone(case: Case, call: Call) -> Case:
    """The case of a call by itself, on the values that it had, with a leaf for each use.

    Raises EngineError, Unsupported or ProgramError where it cannot be cut out.
    """
    program, values = case.program.isolate(
        call.name, held(case.reference, case.program, case.values, call)
    )
    program, values = separate(program, values)
    return case.context.case(replace(case.sample, program=program, values=values), case.source)


def separate(program: Program, values: Values) -> tuple[Program, Values]:
    """The Program with a leaf for each use of one."""
    for leaf in program.leaves:
        if sum(r.name == leaf.name for c in program.calls for r in c.refs) > 1:
            program, values, _ = _apart(program, values, leaf.name)
    return program, values


def _apart(program: Program, values: Values, leaf: str) -> tuple[Program, Values, list[str]]:
    """The Program with one leaf for each use of this one."""
    given = next(i for i in program.inputs if i.name == leaf)
    names: list[str] = []

    def fresh(ref: Ref) -> Ref:
        if ref.name != leaf:
            return ref
        names.append(f"{leaf}_{len(names)}")
        return Ref(names[-1])

    calls = []
    for call in program.calls:
        args, kwargs = map_refs(fresh, (call.args, call.kwargs))
        calls.append(replace(call, args=args, kwargs=kwargs))
    outputs = map_refs(fresh, program.outputs)
    copies = [replace(given, name=n, storage=None, offset=0) for n in names]
    inputs = (*(i for i in program.inputs if i.name != leaf), *copies)
    apart = dict(values) | dict.fromkeys(names, values[leaf])
    return Program(inputs, tuple(calls), outputs), apart, names
