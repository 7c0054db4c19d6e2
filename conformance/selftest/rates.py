"""`conformance selftest rates`: how many samples are checked a second, beside gradcheck."""

from __future__ import annotations

import contextlib
import cProfile
import os
import pstats
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from conformance.checks import Context
    from conformance.sources.base import Sample

CHUNK = 20  # samples that one party checks before the other has its turn
FIRST = 10 * CHUNK  # are checked once before the clock runs
GRADCHECKED = 4  # of a chunk: the rest would take gradcheck a minute
LARGEST = 64  # elements of the leaves, for gradcheck: it calls the function twice for each
PAIRS = 35  # ops, so as many times as many pairs


Given = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its leaves


@dataclass
class Rate:
    """What one workload took, in seconds of CPU; `reference` is torch's part of `ours`."""

    name: str
    aim: str
    samples: int = 0
    ours: float = 0.0
    reference: float = 0.0
    gradchecks: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Samples a second, torch's own time included."""
        return self.samples / self.ours if self.ours else 0.0

    @property
    def own_rate(self) -> float:
        """Samples a second of the harness's own time and that of the engine under test."""
        own = self.ours - self.reference
        return self.samples / own if own > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data."""
        theirs = {name: n / t if t else 0.0 for name, (n, t) in self.gradchecks.items()}
        return {
            "workload": self.name,
            "aim": self.aim,
            "samples": self.samples,
            "seconds": self.ours,
            "of which torch": self.reference,
            "samples a second": self.rate,
            "without torch's time": self.own_rate,
            "gradcheck a second": theirs,
        }


@click.command("rates")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1500,
    show_default=True,
    help="Of each workload, drawn from all.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Of which each chunk of samples counts with its fastest.",
)
@click.option("--profile/--no-profile", "profiled", default=True, help="Where the time goes.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(*, samples: int, seed: int, rounds: int, profiled: bool, as_json: bool) -> int:
    """Checks a second on one thread, beside gradcheck, and where the time goes.

    Both parties take turns on chunks of the same samples, in one process and several rounds; of
    each chunk the fastest round counts, for either. Drawing the samples is not counted. gradcheck,
    slow and fast, sees a few samples of each chunk, of 64 elements at most.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # as a worker has it: read where torch and NumPy load
    import torch

    from conformance.cli.options import data, echo_json

    torch.set_num_threads(1)
    workloads = (op_db, second_order, pairs, black_box, every_check)
    rates = [measure(samples, seed, rounds) for measure in workloads]
    shares = where(seed) if profiled else {}
    if as_json:
        echo_json({"rates": [r.to_json() for r in rates], "where the time goes": shares})
    else:
        _show(rates, shares, data())
    return 0


def op_db(samples: int, seed: int, rounds: int) -> Rate:
    """value, vjp and one numerical direction on op_db's samples."""
    rate = Rate("op_db: value, vjp, complex step", "1,500 without torch's time")
    drawn = _drawn("opinfo", samples, seed)
    return _measured(rate, drawn, ("value", "vjp", "numerical"), seed, _first_order(), rounds)


def second_order(samples: int, seed: int, rounds: int) -> Rate:
    """All default checks and reverse over reverse on generated Programs."""
    rate = Rate("generated: value, vjp, complex step, rr", "450")
    drawn = _drawn("generated", samples, seed)
    judges = {**_first_order(), "gradgradcheck": _gradgradcheck}
    return _measured(rate, drawn, ("value", "vjp", "numerical", "rr"), seed, judges, rounds)


def pairs(samples: int, seed: int, rounds: int) -> Rate:
    """The sweep over the ordered pairs of the first ops of the grammar."""
    rate = Rate(f"pairs of {PAIRS} ops: value, vjp, complex step", f"{PAIRS**2 / 10:.0f}")
    drawn = _drawn("pairs", PAIRS * PAIRS, seed)
    return _measured(rate, drawn, ("value", "vjp", "numerical"), seed, {}, rounds)


def black_box(samples: int, seed: int, rounds: int) -> Rate:
    """What gradcheck asks: autograd's gradient of a function that is given, against its values."""
    from conformance.checks import check_sample, context_for
    from conformance.engines.torch import TorchEngine
    from conformance.settings import Settings
    from conformance.sources import Sample
    from conformance.sources.black_box import BlackBox

    rate = Rate("black-box torch functions: autograd against the stencil", "300")
    settings = Settings(engine="torch", checks=("numerical",), seed=seed, standalone=0)
    context = context_for(settings, TorchEngine(), TorchEngine())

    def ours(given: Given) -> None:
        function, leaves = given
        box = BlackBox(function, leaves, {})
        with box.undisturbed():
            program, values, _ = box.program("function")
            for _ in check_sample(Sample("function", program, values), context, "rates"):
                pass

    return _in_turns(rate, _functions(samples, seed), on_torch, ours, _first_order(), rounds)


def every_check(samples: int, seed: int, rounds: int) -> Rate:
    """check_gradients of the same functions: some thirty checks of each."""
    from conformance.api import check_gradients

    rate = Rate("black-box torch functions: check_gradients, all its checks", "300")

    def ours(given: Given) -> None:
        function, leaves = given
        check_gradients(function, *leaves, directions=1)

    return _in_turns(rate, _functions(samples, seed), on_torch, ours, _first_order(), rounds)


def _functions(samples: int, seed: int) -> list[Sample]:
    return [s for s in _drawn("generated", samples // 4, seed) if _small(s)]


def _measured(
    rate: Rate,
    drawn: Sequence[Sample],
    checks: tuple[str, ...],
    seed: int,
    judges: dict[str, Callable[..., Any]],
    rounds: int,
) -> Rate:
    from conformance.checks import check_sample

    context, meter = _context(checks, seed)

    def ours(sample: Sample) -> None:
        for _ in check_sample(sample, context, "rates"):
            pass

    return _in_turns(rate, drawn, _fresh, ours, judges, rounds, meter)


def _in_turns(
    rate: Rate,
    drawn: Sequence[Sample],
    prepare: Callable[[Sample], Any],
    ours: Callable[[Any], None],
    judges: dict[str, Callable[..., Any]],
    rounds: int,
    meter: Any = None,
) -> Rate:
    """The samples in several rounds; what another process disturbs is taken from another round."""
    for sample in drawn[:FIRST]:  # what is made once: torch imports some parts of it when asked
        ours(prepare(sample))
    chunks = [drawn[start : start + CHUNK] for start in range(0, len(drawn), CHUNK)]
    spent = [
        [_turn(chunk, prepare, ours, judges, meter) for chunk in chunks] for _ in range(rounds)
    ]
    for of_chunk in zip(*spent, strict=True):
        seconds, reference = min(turn.ours for turn in of_chunk)
        rate.ours += seconds
        rate.reference += reference
        for name, (count, _) in of_chunk[0].judges.items():
            total, least = rate.gradchecks.get(name, (0, 0.0))
            fastest = min(turn.judges[name][1] for turn in of_chunk)
            rate.gradchecks[name] = total + count, least + fastest
    rate.samples = len(drawn)
    return rate


@dataclass
class _Turn:
    """What one chunk took: ours, with the reference's part; each judge's samples and seconds."""

    ours: tuple[float, float]
    judges: dict[str, tuple[int, float]]


def _turn(
    chunk: Sequence[Sample],
    prepare: Callable[[Sample], Any],
    ours: Callable[[Any], None],
    judges: dict[str, Callable[..., Any]],
    meter: Any,
) -> _Turn:
    prepared = [prepare(s) for s in chunk]
    before = meter.seconds if meter else 0.0
    began = time.process_time()
    for one in prepared:
        ours(one)
    seconds = time.process_time() - began
    made = _Turn((seconds, meter.seconds - before if meter else 0.0), {})
    few = [s for s in chunk if _small(s)][:GRADCHECKED]
    for name, judge in judges.items():
        calls = [on_torch(s) for s in few]
        began = time.process_time()
        for function, leaves in calls:
            with contextlib.suppress(Exception):  # gradcheck refuses some inputs
                judge(function, leaves)
        made.judges[name] = len(calls), time.process_time() - began
    return made


def _fresh(sample: Sample) -> Sample:
    """The sample without what its Program remembers of earlier rounds."""
    program = sample.program
    calls = tuple([replace(call) for call in program.calls])
    inputs = tuple([replace(i) for i in program.inputs])
    return replace(sample, program=replace(program, inputs=inputs, calls=calls))


def _first_order() -> dict[str, Callable[..., Any]]:
    import torch

    def slow(function: Any, leaves: Any) -> None:
        torch.autograd.gradcheck(function, leaves, raise_exception=False)

    def fast(function: Any, leaves: Any) -> None:
        torch.autograd.gradcheck(function, leaves, raise_exception=False, fast_mode=True)

    return {"gradcheck": slow, "gradcheck, fast": fast}


def _gradgradcheck(function: Any, leaves: Any) -> None:
    import torch

    torch.autograd.gradgradcheck(function, leaves, raise_exception=False)


def on_torch(sample: Sample) -> Given:
    """A sample's Program as a plain function of torch tensors, and the leaves."""
    from conformance.bench.compiled import compile_program
    from conformance.engines.namespace import resolve
    from conformance.engines.torch import TorchEngine

    engine, program = TorchEngine(), sample.program
    given = engine.inputs(program, sample.values, grad=True)
    compiled = compile_program(program, partial(resolve, engine.namespace)).function

    names = [i.name for i in program.leaves]
    leaves = tuple(given.pop(name) for name in names)

    def function(*leaves: Any) -> Any:
        made = compiled(**{**given, **dict(zip(names, leaves, strict=True))})
        return tuple(t for t in engine.flat(made) if t.requires_grad)

    return function, leaves


def _small(sample: Sample) -> bool:
    """Whether gradcheck takes it: a few float64 numbers, and something to differentiate."""
    leaves = sample.program.leaves
    plain = all(i.dtype in ("float64", "complex128") for i in leaves)
    return bool(leaves) and plain and sum(sample.values[i.name].size for i in leaves) <= LARGEST


def _drawn(source: str, count: int, seed: int) -> list[Sample]:
    """So many samples, from items in random order."""
    import random

    from conformance import sources
    from conformance.settings import Settings

    settings = Settings(seed=seed, generated=20_000, block=10)
    made = sources.load(source)
    items = made.items(settings)
    if source == "pairs":
        items = items[:PAIRS]
    else:
        random.Random(seed).shuffle(items)
    return list(_first(made, items, settings, count))


def _first(made: Any, items: Any, settings: Any, count: int) -> Iterator[Sample]:
    from conformance.sources import Sample

    found = 0
    each = PAIRS if made.name == "pairs" else 10
    for item in items:
        kept = 0
        for sample in made.samples(item, settings):
            if isinstance(sample, Sample):
                yield sample
                found, kept = found + 1, kept + 1
            if found >= count:
                return
            if kept >= each:
                break


def _context(checks: tuple[str, ...], seed: int) -> tuple[Context, Any]:
    from conformance.checks import context_for
    from conformance.engines.refgrad import RefgradEngine
    from conformance.settings import Settings

    meter = _meter()
    settings = Settings(checks=checks, seed=seed, standalone=0)
    return context_for(settings, RefgradEngine(), meter), meter


def _meter() -> Any:
    """torch as the reference, which adds up the time that it takes."""
    from conformance.engines.torch import TorchEngine

    class Metered(TorchEngine):
        recorded = True
        seconds = 0.0
        inside = False

    def metered(name: str) -> Callable[..., Any]:
        original = getattr(TorchEngine, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return original(self, *args, **kwargs)
            self.inside = True
            began = time.process_time()
            try:
                return original(self, *args, **kwargs)
            finally:
                self.inside = False
                self.seconds += time.process_time() - began

        return method

    for name in (
        "run",
        "vjp",
        "jvp",
        "hvp",
        "curvature",
        "inputs",
        "execute",
        "pulled_back",
    ):
        setattr(Metered, name, metered(name))
    return Metered()


def where(seed: int, samples: int = 400) -> dict[str, float]:
    """The share of the time by part, in per cent, on op_db and on generated Programs."""
    from conformance.checks import check_sample

    context, _ = _context(("value", "vjp", "numerical"), seed)
    drawn = _drawn("opinfo", samples, seed) + _drawn("generated", samples, seed)
    profile = cProfile.Profile()
    profile.enable()
    for sample in drawn:
        for _ in check_sample(sample, context, "rates"):
            pass
    profile.disable()
    parts: dict[str, float] = {}
    rows: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, function), (_, _, own, _, _) in rows.items():
        part = _part(file, function)
        parts[part] = parts.get(part, 0.0) + own
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return {name: round(100 * own / total, 1) for name, own in ordered}


def _part(file: str, function: str) -> str:
    for package in ("conformance", "refgrad"):
        _, found, rest = file.rpartition(f"/{package}/")
        if found:
            return f"{package}.{rest.partition('/')[0].removesuffix('.py')}"
    for name in ("torch", "numpy", "scipy"):
        if f"/{name}/" in file or name in function:
            return name
    return "built-in functions" if file == "~" else "the rest"


def _show(rates: Sequence[Rate], shares: dict[str, float], console: Any) -> None:
    from rich.table import Table

    table = Table(title="samples a second, one thread", box=None)
    heads = ("workload", "aim", "samples", "a second", "without torch's time")
    for head in (*heads, "gradcheck", "fast", "gradgradcheck"):
        table.add_column(head, justify="left" if head in ("workload", "aim") else "right")
    for r in rates:
        theirs = [
            f"{n / t:,.0f}" if t else ""
            for n, t in (
                r.gradchecks.get(name, (0, 0.0))
                for name in ("gradcheck", "gradcheck, fast", "gradgradcheck")
            )
        ]
        own = f"{r.own_rate:,.0f}" if r.reference else ""
        table.add_row(r.name, r.aim, f"{r.samples:,}", f"{r.rate:,.0f}", own, *theirs)
    console.print(table)
    if shares:
        console.print("\nwhere the time goes (under a profiler; value, vjp, numerical):")
        for name, share in shares.items():
            if share >= 1:
                console.print(f"{share:6.1f} %  {name}", highlight=False)
