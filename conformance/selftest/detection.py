"""One spoilt gradient before the harness: is it reported, where, and in what words."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from conformance import checks
from conformance.api import DIRECTIONS
from conformance.engines.base import Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.mutants.skew import skewed
from conformance.mutants.spoilt import Spoilt
from conformance.program import OPAQUE, Array, Call, Ref
from conformance.results import Result
from conformance.selftest.faults import Fault, faults
from conformance.selftest.functions import LEAF, Subject, subject
from conformance.settings import Settings
from conformance.sources.base import Sample
from conformance.streams import named

SOURCE = "entries"
LARGE = 4096  # elements, above which another limit holds
LIMITS = {"float64": 1e-9, "float32": 5e-6}  # of the leaf's scale
LARGE_LIMIT = 1e-6  # in float64
BEYOND = 1.1  # times what rounding may do, where that is more: the spoilt engine rounds by itself
GRADCHECKED = 1024  # elements, up to which gradcheck is asked
FINER = 4.0  # a step towards the smallest error that is reported
COARSER = 10.0  # the same of a black box
# A black box has its own: an error is seen beside the sum over all entries, and beside a bound.
BOX_LIMITS = ((256, 1e-8), (1024, 1e-6), (4096, 1e-5))
UNMOVED = ("sign", "factor", "exchanged")
WORST = 1e2  # errors above this are not tried

COMPARISON, BOX = "entry by entry", "black box"

Change = Callable[[Array], Array]


@dataclass(frozen=True)
class Detection:
    """What a check said of a leaf's gradient; `seconds` are of CPU."""

    reported: bool
    seconds: float
    index: tuple[int, ...] | None = None
    wrong_entries: int = 0
    slug: str = ""
    sentence: str = ""
    evidence: dict[str, Any] = field(default_factory=dict, repr=False)


def single(place: int, error: float) -> Change:
    """One entry off by so much of the largest magnitude; `place` is into the flat gradient."""

    def change(right: Array) -> Array:
        made = right.copy()
        made.flat[place] += error * np.abs(right).max(initial=0.0)
        return made

    return change


def by_comparison(
    subject: Subject, change: Callable[[Array, Any], Array], keeps: tuple[str, ...] = ()
) -> Detection:
    """torch against refgrad, entry by entry: the check vjp, refgrad's gradient being spoilt."""
    return _detected(subject, Spoilt(LEAF, change, keeps), TorchEngine(), "vjp")


def by_black_box(subject: Subject, change: Change) -> Detection:
    """A user's function with a wrong backward pass, and no reference: the check numerical."""
    function = user_function(subject, change)
    inputs = subject.program.inputs
    call = Call("v0", OPAQUE + "function", tuple(Ref(i.name) for i in inputs), opaque=function)
    box = replace(subject, program=replace(subject.program, calls=(call,), outputs=Ref("v0")))
    engine = TorchEngine()
    return _detected(box, engine, engine, "numerical")


def user_function(subject: Subject, change: Change | None) -> Callable[..., torch.Tensor]:
    """The subject as a function of torch's tensors, with the leaf's gradient changed."""
    names = [i.name for i in subject.program.inputs]
    engine = TorchEngine()

    def rule(gradient: torch.Tensor, operand: torch.Tensor) -> torch.Tensor:
        assert change is not None
        return torch.from_numpy(change(gradient.detach().numpy()))

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, tensors, strict=True))
        if change is not None:
            given[LEAF] = skewed(given[LEAF], rule)
        (output,) = engine.execute(subject.program, given)
        return output  # type: ignore[no-any-return]

    return function


def by_gradcheck(subject: Subject, change: Change | None) -> bool:
    """Whether gradcheck's fast mode, with its defaults, reports something."""
    given = TorchEngine().inputs(subject.program, subject.values, grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return not torch.autograd.gradcheck(
            user_function(subject, change),
            tuple(given.values()),
            fast_mode=True,
            raise_exception=False,
        )


def spreads(subject: Subject) -> tuple[Array, float]:
    """What the harness allows each entry of the leaf's gradient for rounding, and its scale.

    That is 0 where the whole gradient is no more than rounding, as of layer_norm of two numbers.
    """
    context = checks.context_for(_settings(subject, "vjp"), RefgradEngine(), TorchEngine())
    case = context.case(Sample(subject.kind, subject.program, subject.values), SOURCE)
    right = case.reference_vjp.gradients[LEAF]
    assert right is not None
    allowed = np.maximum(case.rounding(LEAF), case.narrowed.get(LEAF, 0.0))
    (leaf,) = (i for i in subject.program.leaves if i.name == LEAF)
    largest = 0.0 if case.vanishes(leaf, right) else float(np.abs(right).max(initial=0.0))
    return np.broadcast_to(allowed, (right.size,)), largest


def _settings(subject: Subject, check: str) -> Settings:
    dtype = subject.values[LEAF].dtype.name
    return Settings(checks=(check,), standalone=0, dtypes=(dtype,), directions=DIRECTIONS)


def _detected(subject: Subject, engine: Any, reference: Any, check: str) -> Detection:
    context = checks.context_for(_settings(subject, check), engine, reference)
    sample = Sample(subject.kind, subject.program, subject.values)
    began = time.process_time()
    (result,) = checks.check_sample(sample, context, SOURCE)
    return _said(result, time.process_time() - began)


def _said(result: Result, seconds: float) -> Detection:
    evidence = result.evidence
    leaf = evidence.get("leaf") == LEAF
    index = evidence.get("index")
    return Detection(
        result.outcome == "failed" and leaf,
        seconds,
        tuple(index) if leaf and index is not None else None,
        int(evidence.get("wrong_entries", 0)),
        str(evidence.get("diagnosis", "")),
        str(evidence.get("description", "")),
        {"outcome": result.outcome, **evidence},
    )


@dataclass(frozen=True)
class Row:
    """Single wrong entries of one function: how many were tried at the limit, and what was said.

    `smallest` is the least error reported, of the leaf's scale, in one of the entries; so is
    `gradcheck`'s, None where it was not asked. `seen` says whether it sees the error at the limit.
    """

    route: str
    kind: str
    size: int
    dtype: str
    limit: float
    tried: int
    reported: int
    located: int
    described: int
    smallest: float | None
    milliseconds: float
    gradcheck: float | None = None
    seen: bool | None = None

    @property
    def missed(self) -> int:
        """Entries of which anything that should be said was not."""
        return 3 * self.tried - self.reported - self.located - self.described


@dataclass(frozen=True)
class Disorder:
    """One whole gradient in disorder, and what was said of it."""

    fault: str
    kind: str
    size: int
    dtype: str
    reported: bool
    described: bool
    said: str
    milliseconds: float

    @property
    def missed(self) -> int:
        """What should be said and was not."""
        return 2 - self.reported - self.described


Task = tuple[str, str, int, str, int, int, bool]
"""Route, kind, size, dtype, entries, seed, and whether gradcheck is asked."""


def measured(task: Task) -> tuple[Row | None, list[Disorder]]:
    """What is found of one function; None where it has no gradient to spoil."""
    route, kind, size, dtype, tries, seed, compare = task
    label = f"{kind}/{size}/{dtype}"
    rng = named(label, seed=seed)
    made = subject(kind, size, dtype, rng)
    allowed, scale = spreads(made)
    if not scale:
        return None, []
    places = [int(n) for n in rng.choice(size, min(tries, size), replace=False)]
    if size > LARGE:  # seconds a check
        places = places[:1]
    if route == BOX:
        return _boxed(made, places, compare), []
    floor = LIMITS[dtype] if dtype == "float32" or size <= LARGE else LARGE_LIMIT
    limits = [max(floor, BEYOND * float(allowed[n]) / scale) for n in places]
    return _compared(made, places, limits, floor), list(_disordered(made, scale, rng))


def _compared(made: Subject, places: list[int], limits: list[float], floor: float) -> Row:
    def detected(place: int, error: float) -> Detection:
        change = single(place, error)
        return by_comparison(made, lambda right, _: change(right))

    found = [detected(n, e) for n, e in zip(places, limits, strict=True)]
    smallest = limits[0] if found[0].reported else None
    while smallest is not None and made.size <= LARGE:
        if not detected(places[0], smallest / FINER).reported:
            break
        smallest /= FINER
    return _row(COMPARISON, made, places, found, floor, smallest)


def _boxed(made: Subject, places: list[int], compare: bool) -> Row:
    limit = next(e for size, e in BOX_LIMITS if made.size <= size)
    places = places[:1]  # each takes a second or more
    found = [by_black_box(made, single(n, limit)) for n in places]
    smallest = limit if found[0].reported else None
    while smallest is not None:
        if not by_black_box(made, single(places[0], smallest / COARSER)).reported:
            break
        smallest /= COARSER
    row = _row(BOX, made, places, found, limit, smallest)
    if not compare or made.size > GRADCHECKED or by_gradcheck(made, None):
        return row
    error = limit
    while error < WORST and not by_gradcheck(made, single(places[0], error)):
        error *= FINER
    return replace(row, gradcheck=error if error < WORST else None, seen=error == limit)


def _row(
    route: str,
    made: Subject,
    places: list[int],
    found: Sequence[Detection],
    limit: float,
    smallest: float | None,
) -> Row:
    shape = made.values[LEAF].shape
    at = [tuple(int(i) for i in np.unravel_index(n, shape)) for n in places]
    pairs = list(zip(at, found, strict=True))
    return Row(
        route, made.kind, made.size, made.values[LEAF].dtype.name, limit, len(places),
        reported=sum(d.reported for d in found),
        located=sum(d.index == index and d.wrong_entries == 1 for index, d in pairs),
        described=sum(_names(d, index, made.size) for index, d in pairs),
        smallest=smallest,
        milliseconds=1000 * statistics.median(d.seconds for d in found),
    )  # fmt: skip


def _names(said: Detection, index: tuple[int, ...], size: int) -> bool:
    """Whether the sentence names the one entry; the error, where there is no other."""
    if size == 1:
        return "off by" in said.sentence or "times the right one" in said.sentence
    one = said.slug == "single entry" and f"at {index}" in said.sentence
    return one or f"(1 of {size} entries)" in said.sentence


def _disordered(made: Subject, scale: float, rng: np.random.Generator) -> Iterator[Disorder]:
    chosen = list(faults(made, rng))
    if made.size > LARGE:  # one of each name that moves entries
        chosen = list({f.name: f for f in chosen if f.name not in UNMOVED}.values())
    for fault in chosen:
        gaps: list[float] = []

        def change(
            right: Array, found: Vjp, fault: Fault = fault, gaps: list[float] = gaps
        ) -> Array:
            wrong = np.ascontiguousarray(fault.change(right, found))
            same = wrong.shape == right.shape
            gaps.append(float(np.abs(wrong - right).max(initial=0.0)) if same else np.inf)
            return wrong

        said = by_comparison(made, change, fault.keeps)
        if min(gaps, default=np.inf) < 1e-3 * scale:  # the gradient is the same in that order
            continue
        yield Disorder(
            fault.name, made.kind, made.size, made.values[LEAF].dtype.name,
            said.reported, fault.described(said.slug, said.sentence),
            f"{said.slug}: {said.sentence}", 1000 * said.seconds,
        )  # fmt: skip
