"""`conformance selftest oracles`: numerical derivatives against known ones, beside other tools.

On the battery: the stencil elementwise in float64, float32 and on complex numbers (real and
imaginary part are two derivatives), along directions of torch's forward, and on refgrad's gradient
for second order; the complex step through refgrad's forward and through its backward pass. On
generated Programs, real and complex: the complex step against both engines. On the battery's points
in float64: other tools, with their defaults.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from conformance.selftest.measured import CLAIMS, TINY, Found, Measured

if TYPE_CHECKING:
    from conformance.oracles.complex_step import Step
    from conformance.program import Array, Program, Values
    from conformance.selftest.battery import Known
    from conformance.selftest.graphs import Agreement

OUTSIDE = 1e-3  # the share of errors beyond the stated bound has to be less
BOUND = 1e-10  # the median bound on smooth functions in float64, beside the derivative
HELD = 0.999  # of the tie-free graphs the complex step is right on
TOGETHER = 4  # points in one direction
FLOAT64 = "stencil, float64"

Points = dict["Known", list[float]]


@click.command("oracles")
@click.option(
    "--points", type=click.IntRange(1), default=24, show_default=True, help="Of each function."
)
@click.option(
    "--graphs",
    "count",
    type=click.IntRange(1),
    default=1200,
    show_default=True,
    help="Generated Programs for the complex step.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--peers/--no-peers", default=True, help="Measure other tools beside ours.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(*, points: int, count: int, seed: int, peers: bool, as_json: bool) -> int:
    """Numerical derivatives against known ones, beside other tools.

    Exit 1 where the stencil's true error exceeds its bound at 1 in 1,000 points or more (in
    float64, and over all dtypes, routes and orders), where the median bound on smooth functions in
    float64 is 1e-10 or more, or where the complex step holds on less than 99.9 % of tie-free
    graphs.
    """
    import torch

    from conformance.cli.options import data, echo_json
    from conformance.selftest import graphs
    from conformance.selftest import peers as others
    from conformance.selftest.battery import BATTERY

    torch.set_num_threads(1)
    drawn: Points = {known: known.points(seed, points) for known in BATTERY}
    ours = measure(drawn, seed)
    theirs = []
    if peers:
        theirs = others.measure([(k, x, k.truth(x).real) for k, xs in drawn.items() for x in xs])
    agreements = graphs.measure(seed, count)
    missed = shortfalls(ours, agreements)
    if as_json:
        kinds = list(dict.fromkeys(k.kind for k in drawn))
        tools = [m.to_json(kinds) for m in (*ours, *theirs)]
        steps = {where: agreement.to_json() for where, agreement in agreements.items()}
        outside = {m.tool: [f"{f.name}: {f}" for f in m.outside] for m in ours if m.outside}
        echo_json(
            {"tools": tools, "complex step on graphs": steps, "outside": outside, "missed": missed}
        )
    else:
        _show(ours, theirs, agreements, missed, data())
    return int(bool(missed))


def measure(drawn: Points, seed: int) -> list[Measured]:
    """Our own oracles on the battery."""
    made = [
        _timed(FLOAT64, elementwise(drawn, np.float64)),
        _timed("stencil, float32", elementwise(drawn, np.float32)),
        _timed("stencil, complex", _stencil_complex(drawn, seed)),
        _timed("stencil, directions", _directions(drawn, seed, 1)),
        _timed("stencil, second order", _directions(drawn, seed, 2)),
        _timed("complex step", _complex_step(drawn, 1)),
        _timed("complex step, second order", _complex_step(drawn, 2)),
    ]
    made[0].judge()
    return made


def shortfalls(ours: Sequence[Measured], agreements: Mapping[str, Agreement]) -> list[str]:
    """Which aims are missed, in words; nothing where all are met."""
    missed = []
    stencils = [m for m in ours if m.bounded]
    together = Measured("all stencils", [f for m in stencils for f in m.found])
    plain = next(m for m in ours if m.tool == FLOAT64)
    for m in (plain, together):
        if not m.outside_share < OUTSIDE:
            missed.append(f"{m.tool}: {m.outside_share:.2%} of the errors exceed the bound")
    smooth = plain.only(["smooth"])
    if not smooth.median_bound < BOUND:
        missed.append(f"the median bound on smooth functions is {smooth.median_bound:.1e}")
    for where, agreement in agreements.items():
        if not agreement.share >= HELD:
            missed.append(f"the complex step, {where}, holds on {agreement.share:.2%}")
    return missed


def _timed(tool: str, derivatives: Iterator[list[Found]]) -> Measured:
    """Each item is what one call found; the truths are computed between calls, not in them."""
    made = Measured(tool)
    for found in derivatives:
        made.found += found
    made.seconds, made.calls = _Clock.taken(), len(made.found)
    return made


class _Clock:
    """The CPU time of the calls of one tool."""

    seconds = 0.0

    @classmethod
    def call(cls, function: Callable[[], Any]) -> Any:
        """Call it, and add up its time."""
        began = time.process_time()
        with np.errstate(all="ignore"):
            made = function()
        cls.seconds += time.process_time() - began
        return made

    @classmethod
    def taken(cls) -> float:
        """The sum so far, which starts anew."""
        total, cls.seconds = cls.seconds, 0.0
        return total


def elementwise(drawn: Points, dtype: Any) -> Iterator[list[Found]]:
    """By the stencil, one number at a time, in float64 or float32."""
    from conformance.oracles.stencil import derivative

    for known, points in drawn.items():
        for point in points if known.narrow or dtype is np.float64 else ():
            x = float(dtype(point))
            truth = known.truth(x).real
            with np.errstate(all="ignore"):
                there = np.isfinite(known(dtype(x))) and np.isfinite(truth)
            if not there:
                continue

            def f(t: float, known: Known = known) -> Any:
                return np.asarray(known(dtype(t)), float)

            kind = np.finfo(dtype)
            estimate = _Clock.call(partial(derivative, f, 1.0, at=x, eps=float(kind.eps)))
            yield [_found(known, truth, estimate, abs(float(known(x))), tiny=float(kind.tiny))]


def _stencil_complex(drawn: Points, seed: int) -> Iterator[list[Found]]:
    """Along a complex direction: the real and the imaginary part are two derivatives."""
    from conformance.oracles.pairs import flat
    from conformance.oracles.stencil import derivative

    rng = np.random.default_rng(seed)
    for known, points in drawn.items():
        for x in points if known.analytic else ():
            y, *parts = rng.standard_normal(3)
            z = complex(x, y * min(abs(x), 1.0))  # no branch cut, and nothing that mpmath cancels
            d = complex(*parts) * _length(abs(z))
            with np.errstate(all="ignore"):
                there = np.isfinite(known(np.complex128(z)))
            truth = known.truth(z) * d if there else complex("nan")
            if not np.isfinite(truth):
                continue

            def f(t: float, known: Known = known, z: complex = z, d: complex = d) -> Any:
                return flat(np.asarray(known(np.complex128(z + t * d))))

            estimate = _Clock.call(partial(derivative, f, 1.0))
            size = abs(complex(known(np.complex128(z))))
            yield [
                _found(known, part, estimate, size, n)
                for n, part in enumerate((truth.real, truth.imag))
            ]


def _directions(drawn: Points, seed: int, order: int) -> Iterator[list[Found]]:
    """Several points at once, with weights: of torch's forward, or of refgrad's gradient."""
    from conformance.engines.refgrad import RefgradEngine
    from conformance.engines.torch import TorchEngine
    from conformance.oracles.directional import by_stencil, of_gradient

    rng = np.random.default_rng([seed, order])
    for known, points in drawn.items():
        good = _good(known, points, order)
        for start in range(0, len(good), TOGETHER):
            xs, slopes = np.array(good[start : start + TOGETHER]).T
            program, values = _captured(known, xs)
            weights, onto = rng.standard_normal((2, len(xs)))
            tangents = rng.standard_normal(len(xs)) * [_length(abs(x)) for x in xs]
            given = program, values, [weights], {"x0": tangents}
            if order == 1:
                truth = float((weights * slopes * tangents).sum())
                opinion = _Clock.call(partial(by_stencil, TorchEngine(), *given))
            else:
                truth = float((weights * slopes * tangents * onto).sum())
                opinion = _Clock.call(partial(of_gradient, RefgradEngine(), *given, {"x0": onto}))
            found = opinion.value, opinion.bound, opinion.kink, opinion.typical
            yield [Found(known.kind, known.name, truth, *found)]


def _stepped(step: Callable[[], Step], cotangents: list[Array] | None) -> Any:
    """The tangent of the one output; with cotangents the Hessian's product with the direction."""
    if cotangents is None:
        return step().directional.tangents[0]
    return step().second(cotangents)[0]["x0"]


def _complex_step(drawn: Points, order: int) -> Iterator[list[Found]]:
    """All points of a function at once, each its own derivative."""
    from conformance.errors import EngineError, Unsupported
    from conformance.oracles.complex_step import Step

    for known, points in drawn.items():
        good = _good(known, points, order)
        if not good:
            continue
        xs, slopes = np.array(good).T
        program, values = _captured(known, xs)
        ones = np.ones(len(xs))
        try:
            step = partial(Step, program, values, {"x0": ones}, grad=order == 2)
            made = _Clock.call(partial(_stepped, step, [ones] if order == 2 else None))
        except (Unsupported, EngineError):
            continue  # one point fewer, which the table shows
        yield [
            Found(known.kind, known.name, truth, float(value), size=abs(float(known(x))))
            for x, truth, value in zip(xs, slopes, made, strict=True)
        ]


def _length(size: float) -> float:
    """Of a direction at a number of that size; as the checks of a run take theirs."""
    return max(size, 1e-3) if size else 1.0


def _found(
    known: Known, truth: float, estimate: Any, size: float, place: int = 0, tiny: float = TINY
) -> Found:
    """One output of an Estimate."""
    value, bound = float(estimate.value[place]), float(estimate.bound[place])
    kink = estimate.kink
    if kink is not None:
        kink = replace(
            kink,
            left=kink.left[place],
            right=kink.right[place],
            left_bound=kink.left_bound[place],
            right_bound=kink.right_bound[place],
        )
    return Found(known.kind, known.name, truth, value, bound, kink, size, tiny)


def _good(known: Known, points: Sequence[float], order: int) -> list[tuple[float, float]]:
    """The points at which rules have a finite derivative of that order, and the derivatives.

    Rules of powers and logarithms have none at 0 before the function has none.
    """
    if not known.ruled:
        return []
    pairs = ((x, known.truth(x, order).real) for x in points)
    return [(x, t) for x, t in pairs if np.isfinite(t) and (x != 0 or known.smooth > 2)]


def _captured(known: Known, xs: Any) -> tuple[Program, Values]:
    import torch

    from conformance.selftest.battery import in_torch
    from conformance.sources.captured import capture

    made = capture(
        lambda t: known.formula(in_torch(), t),
        (torch.tensor(xs, dtype=torch.float64, requires_grad=True),),
        prove=False,
    )
    return made.program, made.values


def _show(
    ours: Sequence[Measured],
    theirs: Sequence[Measured],
    agreements: Mapping[str, Agreement],
    missed: Sequence[str],
    console: Any,
) -> None:
    from rich.table import Table

    table = Table(title="derivatives of functions that are known", box=None)
    counts = ("points", "no answer", "beyond the bound", "share")
    heads = (*counts, "median bound", "median error", "worst", "ms")
    table.add_column("tool")
    for head in heads:
        table.add_column(head, justify="right")
    for m in (*ours, *theirs):
        table.add_row(m.tool, *(_row(m) if not m.missing else (m.missing,)))
    console.print(table)
    stencil = next(m for m in ours if m.tool == FLOAT64)
    table = Table(title=f"{FLOAT64}, by class", box=None)
    for head in ("class", *heads[:-1]):
        table.add_column(head, justify="left" if head == "class" else "right")
    for kind in dict.fromkeys(f.kind for f in stencil.found):
        table.add_row(kind, *_row(stencil.only([kind]))[:-1])
    console.print(table)
    table = Table(title="a claimed derivative passes, off by", box=None)
    for head in ("tool", *CLAIMS):
        table.add_column(head, justify="left" if head == "tool" else "right")
    for m in (stencil, *theirs):
        shares = [f"{m.share(name):.1%}" for name in CLAIMS] if not m.missing else [m.missing]
        table.add_row(m.tool, *shares)
    console.print(table)
    for where, agreement in agreements.items():
        console.print(_sentence(where, agreement), highlight=False, soft_wrap=True)
    for m in ours:
        for f in m.outside:
            where = f"{f.value!r} for {f.truth!r}, bound {f.bound:.1e}"
            console.print(f"beyond the bound: {m.tool}, {f.name}: {where}", highlight=False)
    for text in missed:
        console.print(f"aim missed: {text}", highlight=False, style="bold")


def _row(m: Measured) -> list[str]:
    outside = [f"{len(m.outside):,}", f"{m.outside_share:.2%}"] if m.bounded else ["", ""]
    bound = f"{m.median_bound:.1e}" if m.bounded else ""
    errors = f"{m.median_error:.1e}", f"{m.worst_error:.1e}"
    counts = f"{len(m.found):,}", f"{m.unanswered:,}"
    return [*counts, *outside, bound, *errors, f"{m.milliseconds:.2f}"]


def _sentence(where: str, a: Agreement) -> str:
    text = (
        f"complex step, {where}: holds on {a.held:,} of {a.graphs:,} tie-free graphs "
        f"({a.share:.2%}); {a.tied} more have ties, {a.not_finite} nothing finite"
    )
    if a.fallbacks:
        reasons = "; ".join(f"{reason} ({n})" for reason, n in a.fallbacks.most_common(5))
        ops = ", ".join(f"{op} {n}" for op, n in a.ops.most_common(8))
        text += f"\n  no reading on {sum(a.fallbacks.values())}: {reasons}\n  about: {ops}"
    return text + "".join(f"\n  far: {label}" for label in a.far[:10])
