"""The derivative of a Program along a direction, contracted with cotangents, without any rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.engines.base import Engine
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.complex_step import Step
from conformance.oracles.estimate import Estimate, Kink
from conformance.oracles.pairs import contracted, flat
from conformance.oracles.stencil import EPS, Candidate, Function, Ladder, derivative
from conformance.oracles.torch_autograd import scale
from conformance.program import (
    Array,
    Call,
    Input,
    Program,
    Symbol,
    Values,
    contiguous,
    layout,
    leaves_of,
    map_tree,
)

SCALE = 1.0  # a direction is in proportion to the values, so its parameter's scale is 1
NOTHING = 1e-9  # a bound below this part of the function itself is that of a zero derivative
ALIKE = 1e-5  # what two short secants may differ by, where nothing lies between them,
SHORT, SHORTER = 5, 8  # of so many, each so many times shorter than the one before
SECANTS = (1e-4, 1e-8, 1e-12)  # steps whose secants show an infinite slope,
STEEPER = 10.0  # each so many times as steep as the one before
ANOTHER = 0.01  # of an output's scale: a user's function that is off by more is another
EXACT = 1e-13  # the complex step's error beside the sum of its absolute terms
WIDE = {
    "float32": "float64",
    "complex64": "complex128",
    "float16": "float64",
    "bfloat16": "float64",
    "complex32": "complex128",
}
_HALFWAY = {"float16": "float32", "bfloat16": "float32"}  # for kernels that know no float64
_COARSE = {  # the epsilons of dtypes in which a call may compute unseen; of bfloat16 an eighth,
    "float32": 2.0**-23, "complex64": 2.0**-23, "float16": 2.0**-10, "complex32": 2.0**-10,
    "bfloat16": 2.0**-10,  # or a stencil would have no step left
}  # fmt: skip
_CASTS = {
    "torch.Tensor.float": "float32", "torch.Tensor.half": "float16",
    "torch.Tensor.bfloat16": "bfloat16", "torch.Tensor.cfloat": "complex64",
    "torch.Tensor.chalf": "complex32",
}  # fmt: skip
_METHODS = {"float64": "double", "float32": "float", "complex128": "cdouble"}


@dataclass(frozen=True)
class Opinion:
    """A derivative with a bound, and whose it is.

    `ties` counts switches met on the way; `typical` is the size of the contracted function itself.
    `evaluations` says how often the function was asked for.
    """

    value: float
    bound: float
    oracle: str
    reason: str = ""
    kink: Kink | None = None
    ties: int = 0
    typical: float = 0.0
    evaluations: int = 0

    def sure(self, poor: float) -> bool:
        """Whether there is a derivative, and it is known."""
        there = self.kink is None and not self.reason and bool(np.isfinite(self.value))
        return there and self.decides(abs(self.value), poor)

    def decides(self, size: float, poor: float) -> bool:
        """Whether the bound is small beside `size` (the terms' sum) or beside the function."""
        return self.bound <= max(poor * max(size, abs(self.value)), NOTHING * self.typical)


def by_complex_step(
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> Opinion:
    """Exact to rounding, through refgrad's forward.

    Raises Unsupported and EngineError as `Step` does.
    """
    return of_step(Step(program, values, tangents), cotangents)


def of_step(step: Step, cotangents: Sequence[Array | None]) -> Opinion:
    """What a complex step that is taken says; raises Unsupported where the outputs are others."""
    found = step.directional
    if len(found.tangents) != len(cotangents):
        raise Unsupported("complex step: refgrad has another number of outputs")
    for cotangent, value in zip(cotangents, found.values, strict=True):
        if cotangent is None:
            continue
        kinds = np.iscomplexobj(cotangent), np.iscomplexobj(value)
        if cotangent.shape != value.shape or kinds[0] != kinds[1]:
            raise Unsupported("complex step: refgrad has an output of another shape or dtype")
    total, size = contracted(cotangents, found.tangents)
    return Opinion(total, EXACT * size, "complex step", ties=found.ties)


def by_stencil(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
    ladder: Ladder | None = None,
    candidate: Candidate | None = None,
) -> Opinion:
    """By differences of an engine's forward, in float64 where the Program runs in it."""
    program, values = widest(engine, program, values)
    along, weights = _outputs(engine, program, values, cotangents, tangents)
    eps = _coarsest(program)
    estimate = derivative(
        along, SCALE, weights=weights[None], ladder=ladder, eps=eps, candidate=candidate
    )
    return opinion(estimate, f"stencil on {engine.name}")


def slope_nearby(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
    within: float,
) -> float:
    """The slope of an engine's forward along a direction, of what lies within so short a way.

    By the first two of a few shorter and shorter steps that agree to `ALIKE`; nan where none do.
    """
    program, values = widest(engine, program, values)
    along, weights = _outputs(engine, program, values, cotangents, tangents)
    before = math.nan
    for n in range(SHORT):
        h = within / SHORTER**n
        slope = float((along(h) - along(-h)) @ weights / (2 * h))
        if abs(slope - before) <= ALIKE * max(abs(slope), abs(before)):
            return slope
        before = slope
    return math.nan


def steepens(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> bool:
    """Whether an engine's forward has an infinite slope along a direction, as sqrt has at 0.

    Its secants on one side grow without end as they shorten.
    """
    program, values = widest(engine, program, values)
    along, weights = _outputs(engine, program, values, cotangents, tangents)
    center = along(0.0)
    rounding = 64 * _coarsest(program) * float(np.abs(center) @ np.abs(weights))
    for side in (1.0, -1.0):
        changes = [abs(float((along(side * h) - center) @ weights)) for h in SECANTS]
        rates = [c / h for c, h in zip(changes, SECANTS, strict=True)]
        grows = all(b > STEEPER * a for a, b in itertools.pairwise(rates))
        if grows and rates[0] > 0 and changes[-1] > rounding:
            return True
    return False


def _outputs(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
) -> tuple[Function, Array]:
    """The outputs that have a cotangent, flat, by the way along a direction; and their weights."""
    weights = np.concatenate([flat(c) for c in cotangents if c is not None] or [np.zeros(0)])

    def along(t: float) -> Array:
        try:
            outputs = engine.run(program, moved(program, values, tangents, t)).outputs
        except EngineError:
            if t == 0:
                raise
            return np.full(len(weights), np.nan)  # outside the domain
        pairs = zip(outputs, cotangents, strict=True)
        flats = [flat(o) for o, c in pairs if c is not None]
        joined = flats[0] if len(flats) == 1 else np.concatenate(flats or [np.zeros(0)])
        return joined if len(joined) == len(weights) else np.full(len(weights), np.nan)

    return along, weights


def of_gradient(
    engine: Engine,
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    tangents: Mapping[str, Array],
    onto: Mapping[str, Array],
    ladder: Ladder | None = None,
    candidate: Candidate | None = None,
) -> Opinion:
    """The derivative along `tangents` of the inner product of an engine's gradient with `onto`.

    In float64, where the Program runs in it.
    """
    program, values = widest(engine, program, values)
    names = [i.name for i in program.leaves]
    weights = np.concatenate([flat(onto[n]) for n in names] or [np.zeros(0)])

    def along(t: float) -> Array:
        try:
            found = engine.vjp(program, moved(program, values, tangents, t), cotangents).gradients
        except EngineError:
            if t == 0:
                raise
            return np.full(len(weights), np.nan)
        parts = []
        for name in names:
            gradient = found[name]
            parts.append(flat(np.zeros_like(onto[name]) if gradient is None else gradient))
        return np.concatenate(parts)

    eps = _coarsest(program)
    estimate = derivative(
        along, SCALE, weights=weights[None], ladder=ladder, eps=eps, candidate=candidate
    )
    return opinion(estimate, f"stencil on {engine.name}'s gradient")


def opinion(estimate: Estimate, oracle: str) -> Opinion:
    """An Estimate of one number as an Opinion."""
    value, bound = float(estimate.value[0]), float(estimate.bound[0])
    kink, reason = estimate.kink, estimate.reason
    typical = 0.0 if estimate.size is None else float(estimate.size[0])
    return Opinion(
        value, bound, oracle, reason, kink, typical=typical, evaluations=estimate.evaluations
    )


def moved(program: Program, values: Values, tangents: Mapping[str, Array], t: float) -> Values:
    """The values with every leaf moved by t times its tangent; shared memory stays shared."""
    if t == 0:
        return values
    fresh = layout(program.inputs, values) if program.aliased else dict(values)
    for name in [leaf.name for leaf in program.leaves if leaf.name in tangents]:
        step = (t * tangents[name]).astype(values[name].dtype, copy=False)
        if program.aliased:
            fresh[name] += step  # what shares this memory moves with it
        else:
            fresh[name] = values[name] + step
    return fresh


def wide(
    program: Program, values: Values, dtypes: Mapping[str, str] = WIDE
) -> tuple[Program, Values]:
    """The same Program with float64 for every smaller float, and expanded leaves made whole.

    Itself where nothing is to be done: no input is narrower, and no call names a narrower dtype
    or casts to one. `dtypes` may say otherwise which dtype each becomes.
    """

    def symbol(leaf: Any) -> Any:
        return Symbol(f"torch.{dtypes[_dtype(leaf)]}") if _dtype(leaf) in dtypes else leaf

    def whole(i: Input) -> Input:
        dtype = dtypes.get(i.dtype, i.dtype)
        expanded = i.storage is None and 0 in i.strides
        return replace(i, dtype=dtype, strides=contiguous(i.shape) if expanded else i.strides)

    def widened(call: Call) -> Call:
        cast = dtypes.get(_CASTS.get(call.target, ""))
        if cast is not None:
            coarse = cast if cast in _COARSE else ""
            call = replace(call, target=f"torch.Tensor.{_METHODS[cast]}", through=coarse)
        unseen = getattr(call.opaque, "casts_to", "")  # of a black box that is given float64
        if unseen:
            call = replace(call, through=unseen)
        args, kwargs = map_tree(symbol, call.args), map_tree(symbol, call.kwargs)
        return replace(call, args=args, kwargs=kwargs)

    inputs = tuple(whole(i) for i in program.inputs)
    named = (leaf for c in program.calls for leaf in leaves_of((c.args, c.kwargs)))
    casts = any(_CASTS.get(c.target) in dtypes for c in program.calls)
    if inputs == program.inputs and not casts and not any(_dtype(x) in dtypes for x in named):
        return program, values
    made = {
        i.name: values[i.name].astype(i.dtype) if i.dtype in dtypes.values() else values[i.name]
        for i in inputs
    }
    calls = tuple(map(widened, program.calls))
    return Program(inputs, calls, program.outputs), layout(inputs, made)


def _dtype(leaf: Any) -> str:
    """The dtype that an argument names, or nothing."""
    return leaf.path.rpartition(".")[2] if isinstance(leaf, Symbol) else ""


def _coarsest(program: Program) -> float:
    """The epsilon to which what is differentiated is rounded."""
    dtypes = (np.dtype(leaf.dtype) for leaf in program.leaves)
    seen = [float(np.finfo(d).eps) for d in dtypes if d.kind in "fc"]
    return max([*seen, *(_COARSE[c.through] for c in program.calls if c.through), EPS])


def widest(engine: Engine, program: Program, values: Values) -> tuple[Program, Values]:
    """The Program in float64, where the engine runs it there and it is the same function.

    A user's kernel may be for one dtype alone, or know float32 and no float64; and numbers drawn in
    another dtype are others.
    """
    own = program.opaque
    for dtypes in (WIDE, _HALFWAY) if own else (WIDE,):
        widened, wide_values = wide(program, values, dtypes)
        if widened is program:
            break
        try:
            found = engine.run(widened, wide_values).outputs
        except (EngineError, Unsupported, ProgramError):
            continue
        if not own:
            return widened, wide_values
        drawn = drawn_by(widened)
        ours = engine.run(program, values).outputs
        if drawn_by(program) == drawn and apart(ours, found) <= another(program):
            return widened, wide_values
    return program, values


def another(program: Program) -> float:
    """What outputs in less precision are off by, of their scale, where it is another function.

    Other random numbers may show in little: a loss is a mean over many.
    """
    rounding = 64 * _coarsest(program)
    return rounding if any(drawn_by(program)) else max(ANOTHER, rounding)


def drawn_by(program: Program) -> tuple[bytes, ...]:
    """Where the user's functions that draw random numbers left the generators in their last run.

    In another dtype these are the same numbers only if as many were drawn.
    """
    return tuple(getattr(call.opaque, "left", b"") for call in program.calls)


def apart(narrow: Sequence[Array], right: Sequence[Array]) -> float:
    """How far outputs in less precision are off beside their scale; inf where one is not finite."""
    if len(narrow) != len(right):
        return np.inf
    most = 0.0
    for a, b in zip(narrow, right, strict=True):
        if a.shape == b.shape and np.isfinite(b).all() and scale(b):
            gap = float(np.abs(flat(a) - flat(b)).max(initial=0.0))
            most = max(most, gap / scale(b) if np.isfinite(gap) else np.inf)
    return most
