"""Invariants that need no more of an engine than its port: run, and vjp with other arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from conformance.checks import rounding
from conformance.checks.base import Case
from conformance.checks.claims import (
    Claim,
    Fault,
    Invariant,
    narrowest,
    outputs_of,
)
from conformance.engines.base import Vjp
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.torch_autograd import perturbed, scale
from conformance.program import Array, Input, Program, Ref, Values, contiguous, map_refs

FAR = 20  # the power of two by which cotangents are scaled,
NEAR = 3  # and where the function computes in 16 bits, whose tolerance is above
HALF = 1e-4
EACH = 8  # leaves at most of which each is left out, and alone
VISIBLE = 1e6  # tolerances
OUTPUTS = 4  # a Program of more outputs is not taken apart


def linear(case: Case) -> Iterator[Claim | Fault]:
    """vjp(a c + b 1 + e) = a vjp(c) + b vjp(1) + vjp(e), with e of one entry alone.

    Ones and one entry are what .sum() and y[i] send, and what a rule may have a shortcut for.
    """
    a, b, rng = 0.75, -1.375, case.rng("linear")
    ones = [None if c is None else np.ones_like(c) for c in case.cotangents]
    single = [None if c is None else _single(rng, c) for c in case.cotangents]
    joint = [
        None if c is None or e is None else (a * c + b + e).astype(c.dtype)
        for c, e in zip(case.cotangents, single, strict=True)
    ]
    parts = (
        case.engine_vjp.gradients,
        case.engine.vjp(case.program, case.values, ones).gradients,
        case.engine.vjp(case.program, case.values, single).gradients,
    )
    found = case.engine.vjp(case.program, case.values, joint).gradients
    for name, gradient in found.items():
        seen = gradient is not None and scale(gradient) > case.nothing()
        if seen and all(_constant(gradient, part.get(name)) for part in parts):
            yield Fault("the gradient is the same for every cotangent, as if it were ignored", name)
            return
    expected: dict[str, Array | None] = {}
    terms: dict[str, float] = {}
    for name in found:
        each = [g for part in parts if (g := part.get(name)) is not None]
        if len(each) == len(parts) and len({g.shape for g in each}) == 1:
            with np.errstate(all="ignore"):
                expected[name] = (a * each[0] + b * each[1] + each[2]).astype(each[0].dtype)
            terms[name] = sum(map(scale, each))
    said = f"with the cotangent {a} c {b:+} + e in place of c, of ones and of e, one entry alone"
    moves = partial(rounding.moves, case, case.program, case.values, joint, found)
    yield Claim(found, expected, said, terms, finite=True, rounding=moves)


def _constant(gradient: Array | None, other: Array | None) -> bool:
    """Whether two gradients that are not zero are the same to the bit."""
    if gradient is None or other is None or not np.isfinite(gradient).all() or not gradient.any():
        return False
    return np.array_equal(gradient, other)


def _single(rng: np.random.Generator, cotangent: Array) -> Array:
    """1 at one entry, 0 at the others."""
    made = np.zeros_like(cotangent)
    if made.size:
        made.flat[int(rng.integers(made.size))] = 1
    return made


def undefined(case: Case) -> Iterator[Claim]:
    """An output without a cotangent counts as one with a cotangent of zeros.

    Where zeros meet an infinite slope they give nan, and that entry is not compared.
    """
    which = _differentiable(case)
    left_out = which[int(case.rng("undefined").integers(len(which)))]
    without, zeros = list(case.cotangents), list(case.cotangents)
    shown = case.cotangents[left_out]
    assert shown is not None
    without[left_out], zeros[left_out] = None, np.zeros_like(shown)
    found = case.engine.vjp(case.program, case.values, without).gradients
    expected = case.engine.vjp(case.program, case.values, zeros).gradients
    said = f"without a cotangent for output {left_out}, instead of zeros"
    terms = {n: scale(g) for n, g in case.engine_vjp.gradients.items() if g is not None}
    yield Claim(found, expected, said, terms, finite=True)


def apart(case: Case) -> Iterator[Claim]:
    """The gradient is the sum of those of the single outputs."""
    total: dict[str, Array | None] = {i.name: None for i in case.program.leaves}
    terms = dict.fromkeys(total, 0.0)
    for number in _differentiable(case):
        alone = [c if n == number else None for n, c in enumerate(case.cotangents)]
        found = case.engine.vjp(case.program, case.values, alone).gradients
        for name, g in found.items():
            before = total[name]
            if g is not None:
                with np.errstate(all="ignore"):
                    total[name] = g if before is None else before + g
                terms[name] += scale(g)
    said = "summed over the outputs, each with the others left out"
    yield Claim(total, case.engine_vjp.gradients, said, terms, finite=True)


def zero(case: Case) -> Iterator[Claim]:
    """Zero cotangents give zero gradients, wherever the gradient is finite at all."""
    zeros = [None if c is None else np.zeros_like(c) for c in case.cotangents]
    gradients = case.engine.vjp(case.program, case.values, zeros).gradients
    found: dict[str, Array | None] = {}
    expected: dict[str, Array | None] = {}
    for name, base in case.engine_vjp.gradients.items():
        g = gradients.get(name)
        if g is None or base is None or g.shape != base.shape:
            continue  # None is zero; a shape is another invariant's
        known = np.isfinite(base)
        found[name] = np.where(known, g, 0).astype(g.dtype)
        expected[name] = np.zeros_like(found[name])
    yield Claim(found, expected, "with cotangents of zeros", exact=True)


def scaled(case: Case) -> Iterator[Claim]:
    """A cotangent times a power of two gives the gradient times it: no gradient is clipped."""
    base = case.engine_vjp.gradients
    far_off = FAR if narrowest(case) < HALF else NEAR
    for power in (far_off, -far_off):
        far = [None if c is None else (c * 2.0**power).astype(c.dtype) for c in case.cotangents]
        gradients = case.engine.vjp(case.program, case.values, far).gradients
        found: dict[str, Array | None] = {}
        for name, g in base.items():
            there = gradients.get(name)
            if there is not None and g is not None and not _in_range(g, 2.0**power):
                there = g  # what over- or underflows there tells nothing
            elif there is not None:
                there = (there * 2.0**-power).astype(there.dtype)
            found[name] = there
        yield Claim(found, base, f"with cotangents times 2^{power}", finite=True)


def _in_range(gradient: Array, factor: float) -> bool:
    limits, size = np.finfo(gradient.dtype), scale(gradient)
    with np.errstate(over="ignore"):
        return bool(limits.tiny / limits.eps <= size * factor <= limits.max * limits.eps)


def mask(case: Case) -> Iterator[Claim]:
    """The gradients of some leaves, where the others do not require grad."""
    leaves = [i.name for i in case.program.leaves]
    for chosen in _masks(case, leaves):
        inputs = tuple(replace(i, requires_grad=i.name in chosen) for i in case.program.inputs)
        program = Program(inputs, case.program.calls, case.program.outputs)
        try:
            found = case.engine.vjp(program, case.values, case.cotangents).gradients
        except EngineError as error:
            if case.program.differentiates:
                raise Unsupported("the gradient that is taken inside needs every leaf") from error
            raise
        expected = {n: g for n, g in case.engine_vjp.gradients.items() if n in chosen}
        others = ", ".join(n for n in leaves if n not in chosen)
        yield Claim(found, expected, f"where {others} does not require grad")


def _masks(case: Case, leaves: list[str]) -> Iterator[set[str]]:
    """Which leaves require grad: some; of a user's function each alone, and all but each."""
    rng = case.rng("mask")
    chosen = {n for n in leaves if rng.random() < 0.5} or {leaves[int(rng.integers(len(leaves)))]}
    if len(chosen) == len(leaves):
        chosen.discard(leaves[int(rng.integers(len(leaves)))])
    yield chosen
    if case.users and len(leaves) <= EACH:
        sets = [{name} for name in leaves] + [set(leaves) - {name} for name in leaves]
        yield from (s for n, s in enumerate(sets) if s != chosen and s not in sets[:n])


def same_tensor(case: Case) -> Iterator[Claim]:
    """One tensor passed as two arguments has the sum of their gradients."""
    pairs = _equals(case.program)
    first, second = pairs[int(case.rng("same tensor").integers(len(pairs)))]
    values = case.values | {second: case.values[first]}

    def merged(ref: Ref) -> Ref:
        return replace(ref, name=first) if ref.name == second else ref

    calls = []
    for call in case.program.calls:
        args, kwargs = map_refs(merged, (call.args, call.kwargs))
        calls.append(replace(call, args=args, kwargs=kwargs))
    inputs = tuple(i for i in case.program.inputs if i.name != second)
    one = Program(inputs, tuple(calls), map_refs(merged, case.program.outputs))
    try:
        two = case.engine.vjp(case.program, values, case.cotangents)
    except ProgramError:
        return  # the outputs have other shapes at these values
    if not _fit(two, case.cotangents):
        return
    expected = {n: g for n, g in two.gradients.items() if n not in (first, second)}
    parts = [g for n in (first, second) if (g := two.gradients[n]) is not None]
    with np.errstate(all="ignore"):
        expected[first] = sum(parts[1:], parts[0]) if parts else None
    given = {i.name: values[i.name] for i in inputs}
    found = case.engine.vjp(one, given, case.cotangents).gradients
    terms = {n: scale(g) for n, g in expected.items() if g is not None}
    terms[first] = sum(map(scale, parts))
    said = f"with {first} in the place of {second} too, against the sum of the two gradients"
    moves = partial(rounding.moves, case, one, given, case.cotangents, found)
    yield Claim(found, expected, said, terms, finite=True, rounding=moves)


def transposed_inputs(case: Case) -> Iterator[Claim]:
    """Inputs with their axes in another order in memory."""
    rng = case.rng("transposed inputs")

    def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
        return ordered(shape, rng)

    yield from _laid(case, strides, "with the axes of the inputs in another order in memory")


def strided_inputs(case: Case) -> Iterator[Claim]:
    """Inputs that are every second element of their memory."""

    def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(2 * s for s in contiguous(shape))

    yield from _laid(case, strides, "with inputs that are every second element of their memory")


def expanded_inputs(case: Case) -> Iterator[Claim]:
    """Leaves that are expanded along an axis, against copies of the same values.

    Equal slices are ties, and which of them a sort or a maximum takes may depend on the layout. The
    sum over the slices does not, and is what the gradient of the tensor before its expansion is.
    """
    rng = case.rng("expanded inputs")
    values, inputs = dict(case.values), []
    along: dict[str, int] = {}
    for i in case.program.inputs:
        axes = [n for n, size in enumerate(i.shape) if size > 1]
        if i.requires_grad and axes and i.storage is None and not i.name.startswith("p"):
            along[i.name] = axis = int(rng.choice(axes))
            first = case.values[i.name].take([0], axis)
            values[i.name] = np.ascontiguousarray(np.broadcast_to(first, i.shape))
            steps = list(contiguous(first.shape))
            steps[axis] = 0
            i = replace(i, strides=tuple(steps))
        inputs.append(i)
    plain = _restrided(case.program, {i.name: contiguous(i.shape) for i in inputs})
    laid = _restrided(case.program, {i.name: i.strides for i in inputs})
    try:
        base = case.engine.vjp(plain, values, case.cotangents)
    except EngineError:
        return  # equal slices are outside the domain: the matrix is singular
    if _finite(case.engine_vjp) and not _finite(base):
        return  # outside it too, if without an error: which pivots are zero is rounding
    if _chaotic(case, plain, values, base):
        return  # a norm of equal entries divides rounding by rounding
    said = "with expanded leaves, not their copies"
    # what a singular matrix or equal keys leave is rounding, beside the sizes at the case's values
    whole = {**outputs_of(case.engine_vjp), **case.engine_vjp.gradients}
    usual = {n: scale(g) for n, g in whole.items() if g is not None}
    for claim in _between(case, (plain, base), laid, values, said):
        sums = {n: _summed(g, along.get(n)) for n, g in claim.found.items()}
        right = {n: _summed(g, along.get(n)) for n, g in claim.expected.items()}
        sizes = {n: scale(g) for n, g in claim.expected.items() if g is not None}
        natural = case.natural
        terms = {n: max(z, usual.get(n, 0.0), natural.get(n, 0.0)) for n, z in sizes.items()}
        yield replace(claim, found=sums, expected=right, terms=terms)


def _chaotic(case: Case, program: Program, values: Values, base: Vjp) -> bool:
    """Whether an epsilon at the inputs moves an output visibly."""
    near = perturbed(program, values, case.rng("chaotic"))
    try:
        moved = case.engine.run(program, near).outputs
    except EngineError:
        return True
    pairs = zip(moved, base.outputs, strict=False)
    gaps = ((a, b) for a, b in pairs if a.shape == b.shape and b.dtype.kind in "fc")
    with np.errstate(invalid="ignore"):
        return any(scale(a - b) > VISIBLE * (scale(b) or 1.0) * case.relative(b.dtype)
                   for a, b in gaps)  # fmt: skip


def _finite(found: Vjp) -> bool:
    arrays = (*found.outputs, *found.gradients.values())
    return all(a is None or bool(np.isfinite(a).all()) for a in arrays)


def _summed(gradient: Array | None, axis: int | None) -> Array | None:
    if gradient is None or axis is None or gradient.ndim <= axis:
        return gradient
    with np.errstate(all="ignore"):
        return np.asarray(gradient.sum(axis, keepdims=True))


def deterministic(case: Case) -> Iterator[Fault]:
    """The same twice."""
    if case.unsteady is not None:
        name, difference = case.unsteady
        base = case.engine_vjp.gradients[name]
        size = difference.error / (scale(base) or 1.0) if base is not None else difference.error
        text = f"two runs differ, by {size:.1e} of the gradient's scale"
        yield Fault(f"nondeterministic: {text}", name)


def recording(case: Case) -> Iterator[Claim]:
    """The outputs are the same with and without a graph."""
    plain = case.engine.run(case.program, case.values).outputs
    found = outputs_of(case.engine_vjp)
    expected: dict[str, Array | None] = {f"output {n}": y for n, y in enumerate(plain)}
    size = max((scale(y) for y in plain if y.dtype.kind in "fc"), default=0.0)
    yield Claim(found, expected, "under grad mode", dict.fromkeys(expected, size))


def _laid(
    case: Case, strides: Callable[[tuple[int, ...]], tuple[int, ...]], said: str
) -> Iterator[Claim]:
    """The same values in memory of these strides; inputs that a call writes into stay as they are.

    Where the outputs differ, the function is one of the layout, and nothing is claimed.
    """
    made = {i.name: strides(i.shape) for i in movable(case.program)}
    program = _restrided(case.program, made)
    if all(a.strides == b.strides for a, b in zip(program.inputs, case.program.inputs)):
        return
    yield from _between(case, (case.program, case.engine_vjp), program, case.values, said)


def _between(
    case: Case, plain: tuple[Program, Vjp], laid: Program, values: Values, said: str
) -> Iterator[Claim]:
    program, expected = plain
    if not _fit(expected, case.cotangents):
        return
    found = case.engine.vjp(laid, values, case.cotangents)
    size = max((scale(y) for y in expected.outputs if y.dtype.kind in "fc"), default=0.0)
    outputs = outputs_of(expected)
    same = Claim(outputs_of(found), outputs, said, dict.fromkeys(outputs, size))
    if same.worst(case) is not None and of_layout(case, program, laid, values):
        return
    yield same
    yield Claim(found.gradients, expected.gradients, said)


def of_layout(case: Case, plain: Program, laid: Program, values: Values) -> bool:
    """Whether the function is one of its inputs' layout, as as_strided is: by the reference."""
    ours, theirs = (case.reference.run(p, values).outputs for p in (plain, laid))
    pairs = zip(ours, theirs, strict=True)
    return not all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, equal_nan=True) for a, b in pairs
    )


def ordered(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """Strides, in elements, of a dense array whose axes lie in another order than the shape's."""
    real = [n for n, size in enumerate(shape) if size > 1]
    if len(real) < 2:
        return contiguous(shape)
    order = [int(n) for n in rng.permutation(len(shape))]
    if [n for n in order if n in real] == real:
        order.reverse()
    steps = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        steps[axis] = step
        step *= max(shape[axis], 1)
    return tuple(steps)


def movable(program: Program) -> list[Input]:
    """The inputs whose memory may lie otherwise: no other shares it, and nothing is written.

    A module's parameters and buffers lie as the module made them.
    """
    writes = any(call.in_place for call in program.calls)
    own = [i for i in program.inputs if i.storage is None and not i.constant]
    given = [i for i in own if not i.name.startswith("p")]
    return [i for i in given if i.requires_grad or not writes]


def _restrided(program: Program, strides: dict[str, tuple[int, ...]]) -> Program:
    inputs = tuple(
        replace(i, strides=strides[i.name]) if i.name in strides and i.storage is None else i
        for i in program.inputs
    )
    return Program(inputs, program.calls, program.outputs)


def _fit(found: Vjp, cotangents: list[Array | None]) -> bool:
    pairs = zip(found.outputs, cotangents, strict=False)
    same = all(c is None or c.shape == y.shape for y, c in pairs)
    return same and len(found.outputs) == len(cotangents)


def _differentiable(case: Case) -> list[int]:
    return [n for n, c in enumerate(case.cotangents) if c is not None]


def _equals(program: Program) -> list[tuple[str, str]]:
    """Pairs of leaves of one shape and dtype, each with memory of its own."""
    free = [i for i in program.leaves if i.storage is None]
    return [
        (a.name, b.name)
        for n, a in enumerate(free)
        for b in free[n + 1 :]
        if a.shape == b.shape and a.dtype == b.dtype and 0 not in a.shape
    ]


def _several_outputs(case: Case) -> bool:
    return 2 <= len(_differentiable(case)) <= OUTPUTS


def _several_leaves(case: Case) -> bool:
    return len(case.program.leaves) > 1


def has_axes(case: Case) -> bool:
    """Whether a leaf has an axis of two entries or more."""
    return any(math.prod(i.shape) > 1 for i in case.program.leaves)


def _two_axes(case: Case) -> bool:
    return any(sum(n > 1 for n in i.shape) > 1 for i in movable(case.program))


INVARIANTS = (
    Invariant("linear", "the gradient is linear in the cotangent", linear),
    Invariant(
        "undefined",
        "an output without a cotangent counts as one with zeros",
        undefined,
        _several_outputs,
    ),
    Invariant(
        "apart", "the gradient is the sum over the outputs of each one's", apart, _several_outputs
    ),
    Invariant("zero", "zero cotangents give zeros, not nan", zero),
    Invariant("scaled", "the gradient scales with the cotangent", scaled),
    Invariant(
        "mask",
        "a gradient does not depend on which other leaves require grad",
        mask,
        _several_leaves,
    ),
    Invariant(
        "same_tensor",
        "one tensor passed twice has the sum of the two gradients",
        same_tensor,
        lambda case: bool(_equals(case.program)),
        may_refuse=True,
    ),
    Invariant(
        "transposed_inputs",
        "the order of the inputs' axes in memory changes nothing",
        transposed_inputs,
        _two_axes,
        may_refuse=True,
    ),
    Invariant(
        "strided_inputs",
        "gaps in the inputs' memory change nothing",
        strided_inputs,
        has_axes,
        may_refuse=True,
    ),
    Invariant(
        "expanded_inputs",
        "an expanded leaf counts as its copy",
        expanded_inputs,
        has_axes,
        may_refuse=True,
    ),
    Invariant("deterministic", "two runs give the same gradients", deterministic),
    Invariant("recording", "recording a graph does not change the outputs", recording),
)
