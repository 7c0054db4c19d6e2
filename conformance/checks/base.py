"""What a check is: something that judges one sample and says what it found."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from conformance.checks import passes
from conformance.checks.compare import Difference, compare, same, tolerance_for
from conformance.checks.second import SecondOrder
from conformance.engines.base import Engine, Run, Vjp
from conformance.engines.variants import Recording
from conformance.errors import EngineError, ProgramError, Unsupported
from conformance.oracles.cancellation import narrowed
from conformance.oracles.complex_step import Step
from conformance.oracles.directional import WIDE, moved, wide, widest
from conformance.oracles.frozen import frozen
from conformance.oracles.pairs import cotangents_for, direction, flat
from conformance.oracles.torch_autograd import SPREADS, scale, spread
from conformance.program import Array, Input, Program, Values
from conformance.results import Result, case_id
from conformance.script import binding
from conformance.settings import SECOND_ORDER_CHECKS, Settings
from conformance.sources.base import Sample
from conformance.streams import named

T = TypeVar("T")

STEPS = (1e-3, -1e-3, 1e-2)  # of the values: where a function that is constant is looked at
NOTHING = 4.0  # epsilons of terms of order 1, beside a derivative that is zero
ALONE = 1e-3  # of its terms' sum: more no stencil knows of a function of float32 alone
VANISHING = 64.0  # epsilons of outputs over values: a gradient below is rounding, or tiny
MODEL_CALLS = 50  # a Program of more calls is a model: its rounding adds up
USER = "user"  # the source of what is a user's own function, or how its name begins
SIGMAS = 3.0  # deviations of a sum of independent errors that are allowed
LAST_BITS = 100.0  # tolerances: two runs that differ by less differ by rounding alone
SCRIPT_ENTRIES = 20_000  # values beyond this are not written into a script


@dataclass(frozen=True)
class Finding:
    """What a check says of one sample; the harness makes a Result of it."""

    outcome: str
    evidence: dict[str, Any] = field(default_factory=dict)
    repro: dict[str, Any] | None = None  # where the check itself knows what shows it best


class Check(Protocol):
    """The port that every check implements."""

    name: str

    def run(self, case: Case) -> Iterator[Finding]:
        """Judge one sample; Unsupported and EngineError of the engine pass through."""


class ReferenceFailed(Exception):
    """The reference could not run the Program, so there is nothing to compare with."""


@dataclass
class Context:
    """What all checks of a run share: who is tested, who is asked, and how much."""

    engine: Engine
    reference: Engine
    settings: Settings
    checks: tuple[Check, ...]
    isolation: Any = None  # checks.standalone.Isolation, where the engine claims to stand alone
    met: set[tuple[str, str]] = field(default_factory=set)  # (source, op) already repeated alone
    explained: set[tuple[str, str, str]] = field(default_factory=set)  # (source, op, check)

    @property
    def independent(self) -> bool:
        """Whether the reference has rules of its own, so that agreeing with it says something."""
        ours, theirs = (e.name.partition(" on ")[0] for e in (self.engine, self.reference))
        return ours != theirs  # "torch on cuda" has torch's rules

    @cached_property
    def witness(self) -> Engine:
        """Another engine, which tells at which call the engine's derivatives part from its own.

        The reference; refgrad where that has the engine's own rules.
        """
        if self.independent:
            return self.reference
        from conformance import engines

        return engines.load("refgrad")

    def case(self, sample: Sample, source: str) -> Case:
        """The sample with what is computed of it once."""
        return Case(self, sample, source)


class Case:
    """One sample under judgement; what several checks need of it is computed once."""

    def __init__(self, context: Context, sample: Sample, source: str) -> None:
        self.context = context
        self.sample = sample
        self.program, self.values = sample.program, sample.values
        self.source = source
        self.engine = context.engine
        self.reference = context.reference
        self.settings = context.settings
        self.beside = False  # whether it is another case at values nearby
        self._step: Step | None = None
        self.reference_graph: tuple[Recording, dict[str, Any]] | None = None  # of its first pass
        self.engine_graph: Recording | None = None  # the same of the engine
        self._rounded: dict[Any, float] = {}
        self._directions: dict[tuple[str, int, bool], Mapping[str, Array]] = {}
        self.mutated: tuple[str, ...] = ()  # the values that the engine's backward pass changed

    @cached_property
    def digest(self) -> str:
        """The case's middle part."""
        return self.program.digest(self.values)

    @property
    def dtype(self) -> str:
        """The dtype of what is differentiated."""
        of = self.program.leaves or self.program.inputs
        return of[0].dtype if of else self.settings.main_dtype

    @cached_property
    def coarsest(self) -> str:
        """The dtype of least precision among what is differentiated."""
        floating = [i.dtype for i in self.program.leaves if np.dtype(i.dtype).kind in "fc"]
        return max(floating, key=tolerance_for, default="float64")

    @property
    def loose(self) -> bool:
        """Whether the Program is as long as a model."""
        return len(self.program.calls) > MODEL_CALLS

    @property
    def rounds(self) -> bool:
        """Whether an output has less precision than what is differentiated."""
        leaves = [np.finfo(i.dtype).eps for i in self.program.leaves]
        floating = [o.dtype for o in self.reference_run.outputs if o.dtype.kind in "fc"]
        outputs = [np.finfo(d).eps for d in floating]
        return bool(max(outputs, default=0.0) > max(leaves, default=1.0))

    def rounded(self, dtype: Any) -> float:
        """What rounding may do, beside a leaf's scale."""
        known = self._rounded.get(dtype)
        if known is None:
            least = tolerance_for(dtype, loose=self.loose)
            known = self._rounded[dtype] = max(least, self._unseen, self._of_outputs)
        return known

    @cached_property
    def _of_outputs(self) -> float:
        """The same of outputs in less precision than a leaf: so come cotangents, and their sums."""
        try:
            outputs = self.reference_run.outputs
        except ReferenceFailed:
            return 0.0
        return max((tolerance_for(o.dtype) for o in outputs if o.dtype.kind in "fc"), default=0.0)

    @cached_property
    def _unseen(self) -> float:
        """The same of the dtypes in which calls compute without showing it."""
        return max((tolerance_for(c.through) for c in self.program.calls if c.through), default=0.0)

    def relative(self, dtype: Any) -> float:
        """The tolerance beside a leaf's scale."""
        return max(self.rounded(dtype), self.settings.rtol)

    def loosened(self, roundings: float, dtype: Any) -> float:
        """The same for what adds up: so many times what rounding may do, or SIGMAS times `rtol`."""
        return max(roundings * self.rounded(dtype), SIGMAS * self.settings.rtol)

    def approximate(self, tangents: Mapping[str, Array]) -> float:
        """What `rtol` allows to a gradient along a direction, beside rounding.

        Each entry may be off by so much of its leaf's scale. Along a random direction that adds up
        as independent terms do; of a few entries as if all had one sign (Cauchy and Schwarz).
        """
        if not self.settings.rtol:
            return 0.0
        gradients = self.reference_vjp.gradients
        known = [(g, t) for n, t in tangents.items() if (g := gradients.get(n)) is not None]
        total = math.hypot(*(scale(g) * float(np.linalg.norm(flat(t))) for g, t in known))
        entries = sum(np.count_nonzero(t) for _, t in known)
        return self.settings.rtol * min(SIGMAS, math.sqrt(entries)) * total

    def rng(self, *labels: str) -> np.random.Generator:
        """Random numbers that depend on the case, the seed and the labels alone."""
        return named(self.digest, *labels, seed=self.settings.seed)

    def direction(self, label: str, number: int, *, within: bool = False) -> Mapping[str, Array]:
        """A direction along which it is judged; the same again where it is asked for again.

        `within` keeps Hermitian leaves Hermitian.
        """
        key = label, number, within
        if key not in self._directions:
            rng = self.rng(label, str(number))
            self._directions[key] = direction(rng, self.program, self.values, within=within)
        return self._directions[key]

    @cached_property
    def reference_run(self) -> Run:
        """The reference's outputs; raises ReferenceFailed."""
        if self._recorded is not None:
            return Run(self._recorded[1].outputs)
        return self._of_reference(lambda: self.reference.run(self.program, self.values))

    @property
    def differentiated(self) -> bool:
        """Whether there are gradients to be judged."""
        return bool(self.program.leaves) and any(c.name == "vjp" for c in self.context.checks)

    @property
    def second_order(self) -> bool:
        """Whether there is second order to be judged too."""
        return any(c.name in SECOND_ORDER_CHECKS for c in self.context.checks)

    @cached_property
    def cotangents(self) -> list[Array | None]:
        """A Gaussian cotangent for each flat output; None where the reference has no derivative.

        That is an integer output, or a floating one that it declares to have none (the rank and
        the singular values of lstsq, the statistics of native_layer_norm).
        """
        drawn, found = self._drawn
        which = found.differentiable or (True,) * len(drawn)
        return [c if yes else None for c, yes in zip(drawn, which, strict=True)]

    @cached_property
    def _drawn(self) -> tuple[list[Array | None], Vjp]:
        """A cotangent for each floating output, and the reference's gradients with these."""
        if self._recorded is not None:
            return self._recorded
        drawn = cotangents_for(self.rng("cotangents"), self.reference_run.outputs)
        return drawn, self._of_reference(
            lambda: self.reference.vjp(self.program, self.values, drawn)
        )

    @cached_property
    def _recorded(self) -> tuple[list[Array | None], Vjp] | None:
        """The same by one pass, with which second order goes on; None where there is none."""
        return passes.of_reference(self)

    @cached_property
    def steady_cotangents(self) -> list[Array | None]:
        """The same list, or one with zeros where an output is not finite."""
        pairs = list(zip(self.cotangents, self.reference_run.outputs, strict=True))
        if all(c is None or np.isfinite(o).all() for c, o in pairs):
            return self.cotangents
        return [None if c is None else np.where(np.isfinite(o), c, 0) for c, o in pairs]

    @cached_property
    def reference_vjp(self) -> Vjp:
        """The reference's gradients; raises ReferenceFailed."""
        return self._drawn[1]

    @cached_property
    def unrecorded_vjp(self) -> Vjp:
        """The same of a pass that records nothing; raises ReferenceFailed."""
        if self._recorded is None or not self.second_order:
            return self.reference_vjp
        given = (self.program, self.values, self.cotangents)
        return self._of_reference(lambda: self.reference.vjp(*given))

    @cached_property
    def users(self) -> bool:
        """Whether it is a function of the user's that is in question, and not the engine."""
        engine = self.engine.name.partition(" on ")[0]
        return self.source.partition(":")[0] == USER and engine == "torch"

    @cached_property
    def witness(self) -> Engine:
        """That of the context; of what it lacks, the engine's own rules on another device."""
        own = self.context.witness
        elsewhere = self.engine.name != self.reference.name
        return self.reference if elsewhere and own.missing(self.program) else own

    @cached_property
    def engine_vjp(self) -> Vjp:
        """The engine's gradients with the same cotangents; values it changes are put back."""
        before = {name: array.tobytes() for name, array in self.values.items()}
        given = (self.program, self.values, self.cotangents)
        found = passes.of_engine(self) or self.engine.vjp(*given)
        self.mutated = tuple(n for n, b in before.items() if self.values[n].tobytes() != b)
        for name in self.mutated:
            array = self.values[name]
            np.copyto(array, np.frombuffer(before[name], array.dtype).reshape(array.shape))
        return found

    @cached_property
    def unsteady(self) -> tuple[str, Difference] | None:
        """The first leaf whose gradient is another in a second run; to the bit, or to rounding.

        To rounding on a GPU, where additions come in any order, and of a user's function: LAPACK
        gives other last bits where memory is aligned in another way.
        """
        exact = self.settings.device == "cpu" and not self.users
        again = self.engine.vjp(self.program, self.values, self.cotangents).gradients
        for leaf in self.program.leaves:
            relative = 0.0 if exact else LAST_BITS * self.rounded(leaf.dtype)
            first = self.engine_vjp.gradients[leaf.name]
            differing = compare(again[leaf.name], first, relative=relative)
            if differing is not None:
                return leaf.name, differing
        return None

    @cached_property
    def engine_outputs(self) -> tuple[Array, ...]:
        """The engine's outputs: those of its backward pass, where there is one to be judged."""
        if self.differentiated:
            with contextlib.suppress(EngineError, Unsupported, ReferenceFailed):
                return self.engine_vjp.outputs
        return self.engine.run(self.program, self.values).outputs

    @cached_property
    def natural(self) -> dict[str, float]:
        """For each leaf the size of a gradient in proportion to outputs and values."""
        given = self.steady_cotangents, self.reference_run.outputs
        return natural(self.program, self.values, *given)

    @cached_property
    def numerical(self) -> tuple[Program, Values]:
        """The Program to differentiate numerically; raises Unsupported where there is none."""
        return frozen(self.reference, self.program, self.values)

    def step(self, tangents: Mapping[str, Array]) -> Step:
        """The complex step along a direction; the last is kept, for both orders ask for it."""
        known = self._step
        if known is None or not _same(known.tangents, tangents):
            known = self._step = Step(*self.numerical, tangents, grad=self.second_order)
        return known

    @cached_property
    def second(self) -> SecondOrder:
        """What the second-order checks share."""
        return SecondOrder(self)

    def close(self) -> None:
        """Let go of what refers to the case: arrays and graphs are then freed without a collector.

        On generated graphs that collector took 8 % of the time.
        """
        vars(self).pop("second", None)

    @cached_property
    def spread(self) -> dict[str, Array]:
        """How far an epsilon at the inputs moves the reference's gradients."""

        def gradients(values: Values) -> Mapping[str, Array | None]:
            try:
                return self.reference.vjp(self.program, values, self.cotangents).gradients
            except (EngineError, Unsupported):
                return {}

        reference = self.reference_vjp.gradients
        rng = self.rng("spread")
        return spread(gradients, self.program, self.values, reference, rng, self.natural)

    @cached_property
    def engine_spread(self) -> dict[str, Array]:
        """The same of the engine's own gradients; nothing where two backward passes differ."""
        base = self.engine_vjp.gradients

        def gradients(values: Values) -> Mapping[str, Array | None]:
            try:
                return self.engine.vjp(self.program, values, self.cotangents).gradients
            except (EngineError, Unsupported):
                return {}

        again = gradients(self.values)
        steady = {
            name: g
            for name, g in base.items()
            if g is not None and (b := again.get(name)) is not None and same(g, b)
        }
        rng = self.rng("engine spread")
        return spread(gradients, self.program, self.values, steady, rng, self.natural)

    @cached_property
    def narrowed(self) -> dict[str, float]:
        """What rounding in a dtype narrower than float64 may do to each leaf's gradient."""
        given = (self.program, self.values, self.cotangents)
        return narrowed(self.reference, *given, self.rng("narrowed"))

    def roundings(self, leaf: str) -> Iterator[Array | float]:
        """The same, first as the reference alone tells, which is often enough."""
        theirs = self.spread.get(leaf)
        yield 0.0 if theirs is None else SPREADS * theirs
        yield self.rounding(leaf)

    def rounding(self, leaf: str) -> Array | float:
        """What rounding may do to each entry of a leaf's gradient (of real and imaginary parts)."""
        theirs, ours = self.spread.get(leaf), self.engine_spread.get(leaf)
        if theirs is None or ours is None or theirs.shape != ours.shape:
            return 0.0 if theirs is None else SPREADS * theirs
        return np.asarray(SPREADS * np.maximum(theirs, ours))

    @cached_property
    def output_spread(self) -> dict[str, Array]:
        """How far an epsilon at the inputs moves each floating output, by its number."""

        def outputs(values: Values) -> dict[str, Array | None]:
            try:
                flat = self.reference.run(self.program, values).outputs
            except (EngineError, Unsupported):
                return {}
            return {str(n): o for n, o in enumerate(flat)}

        base: dict[str, Array | None] = {
            str(n): o for n, o in enumerate(self.reference_run.outputs) if o.dtype.kind in "fc"
        }
        largest = max((scale(v) for v in self.values.values() if v.dtype.kind in "fc"), default=0.0)
        natural = dict.fromkeys(base, largest)  # of an output whose terms cancel to exactly 0
        rng = self.rng("value spread")
        return spread(outputs, self.program, self.values, base, rng, natural)

    def hidden(
        self, cotangents: Sequence[Array | None], tangents: Mapping[str, Array], size: float
    ) -> float:
        """What terms of order 1 hide of a derivative, where the function is constant beside them.

        The logarithm of 1 + exp(-50) is 0, near by and far, and its derivative is not. Nothing of
        what is larger, or where the function changes along the direction by as much as a bit.
        """
        weights = sum(float(np.abs(c).sum()) for c in cotangents if c is not None)
        least = float(np.finfo(self.coarsest).eps) * weights
        return least if size <= least and self.constant(tangents) else 0.0

    def constant(self, tangents: Mapping[str, Array]) -> bool:
        """Whether the reference's outputs are the same to the bit at steps along a direction."""
        here = self.reference_run.outputs
        for step in STEPS:
            try:
                near = moved(self.program, self.values, tangents, step)
                outputs = self.reference.run(self.program, near).outputs
            except (EngineError, Unsupported):
                return False
            if not all(map(np.array_equal, here, outputs)):
                return False
        return True

    def poor(self, usual: float) -> float:
        """The part of the terms' sum above which a stencil's bound decides nothing."""
        return max(usual, ALONE) if self._unwidened else usual

    @cached_property
    def _unwidened(self) -> bool:
        """Whether a user's function has less than float64 to be differentiated in numerically."""
        if not self.program.opaque:
            return False
        program, _ = widest(self.reference, *self.numerical)
        return any(i.dtype in WIDE for i in program.leaves)

    @cached_property
    def outputs_narrowed(self) -> tuple[Array, ...]:
        """How far each output is from that in float64, where a Program that takes it uses less."""
        if any(i.dtype in WIDE for i in self.program.leaves or self.program.inputs):
            return ()
        widened, wide_values = wide(self.program, self.values)
        try:
            right = self.reference.run(widened, wide_values).outputs
        except (EngineError, Unsupported, ProgramError):
            right = ()
        with np.errstate(all="ignore"):
            gaps = [
                np.abs(flat(o) - flat(r))
                for o, r in zip(self.reference_run.outputs, right, strict=False)
            ]
        return tuple(np.where(np.isfinite(gap), gap, 0.0) for gap in gaps)

    def vanishes(self, leaf: Input, *gradients: Array) -> bool:
        """Whether the gradients of a leaf are no more than the rounding of terms that cancel.

        The terms are as large as outputs over values. Outputs that are all 0, as of a norm whose
        weight and bias are, tell no size: then as large as the cotangents.
        """
        silent = not any(map(np.any, self.reference_run.outputs))
        allowed = self.nothing() if silent else self.vanishing(leaf)
        return max(map(scale, gradients)) <= allowed

    def vanishing(self, leaf: Input) -> float:
        """What rounding may leave of terms as large as outputs over values."""
        return VANISHING * float(np.finfo(np.dtype(leaf.dtype)).eps) * self.natural[leaf.name]

    def nothing(self, *directions: Mapping[str, Array]) -> float:
        """What rounding may leave of a derivative that is exactly zero, along these directions."""
        cotangents = [c for c in self.cotangents if c is not None]
        size = NOTHING * float(np.finfo(self.coarsest).eps)
        for along in (cotangents, *(d.values() for d in directions)):
            size *= max(map(scale, along), default=0.0)
        return size

    def alias(self, leaf: str) -> str:
        """A leaf's name with the user's own, where there is one."""
        names = next((i.aliases for i in self.program.inputs if i.name == leaf), ())
        return f"{leaf} ({', '.join(names)})" if names else leaf

    def result(self, check: str, finding: Finding, duration: float = 0.0) -> Result:
        """The Result; what did not pass carries the Program and a script."""
        op, settings = self.sample.op, self.settings
        case = case_id(self.source, op, self.digest, check, self.dtype, settings.device)
        evidence = dict(finding.evidence)
        if finding.outcome == "inconclusive":
            evidence.setdefault("verdict", f"inconclusive: {evidence.get('reason', 'no reason')}")
        if self.sample.label:
            evidence.setdefault("label", self.sample.label)
        quiet = finding.outcome in ("passed", "unsupported")
        return Result(
            case,
            op,
            self.source,
            check,
            self.dtype,
            settings.device,
            finding.outcome,
            duration,
            evidence,
            None if quiet else finding.repro or self.repro(evidence),
        )

    def repro(self, evidence: Mapping[str, Any]) -> dict[str, Any]:
        """The Program as people read it, and a script that shows the gradients."""
        script = self.script()
        if not self.context.independent and {"leaf", "index", "numerical"} <= evidence.keys():
            leaf, index, truth = (evidence[key] for key in ("leaf", "index", "numerical"))
            by = f"by the {evidence.get('oracle', 'stencil')}"
            script += f"print({f'gradient {leaf} at {index} should be {truth}, {by}'!r})\n"
        return {"program": str(self.program), "script": script}

    def script(self) -> str:
        """A standalone script; a sentence where the values are too many for one."""
        entries = sum(v.size for v in self.values.values())
        if entries > SCRIPT_ENTRIES:
            return f"# {entries} values are too many for a script; save the Program instead\n"
        expect: dict[str, Array] = {}
        cotangents = None
        try:
            cotangents = self.cotangents
            found = self.reference_vjp.gradients
            if self.engine.name != self.reference.name:  # its own gradients are no truth
                expect = {name: g for name, g in found.items() if g is not None}
        except (ReferenceFailed, EngineError, Unsupported):
            pass  # the script then prints what it gets
        return self.program.script(
            self.values,
            engine_import=binding(self.engine.name),
            cotangents=cotangents,
            expect=expect or None,
        )

    def _of_reference(self, compute: Callable[[], T]) -> T:
        try:
            return compute()
        except (EngineError, Unsupported) as error:
            if self.engine.name == self.reference.name:
                raise  # what is judged is its own reference
            raise ReferenceFailed(f"the reference could not run it: {error}") from error


def natural(
    program: Program,
    values: Values,
    cotangents: Sequence[Array | None],
    outputs: Sequence[Array],
) -> dict[str, float]:
    """For each leaf what is finite of the outputs, weighed, over the leaf's scale."""
    pairs = zip(cotangents, outputs, strict=True)
    with np.errstate(all="ignore"):
        terms = [np.abs(c * o) for c, o in pairs if c is not None]
        sums = [t.sum() if np.isfinite(t).all() else np.nansum(t) for t in terms]
    total = float(sum(s for s in sums if np.isfinite(s)))
    return {i.name: total / (scale(values[i.name]) or 1.0) for i in program.leaves}


def _same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(a[n] is b[n] or same(a[n], b[n]) for n in a)
