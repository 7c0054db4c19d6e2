"""The hunt for a mutant: samples as a run meets them, until a check finds it."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from conformance import checks
from conformance.checks.judging import judge
from conformance.choose import Seeded
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.mutants.bridge import bridged
from conformance.mutants.mutant import Mutant
from conformance.results import FAILING, Result
from conformance.settings import Settings
from conformance.sources.base import Sample
from conformance.sources.generated import DTYPES, draw
from conformance.sources.grammar import OPS
from conformance.sources.node import Unfit
from conformance.sources.opinfo import OpInfo, entries

SOURCE = "mutant"
GRADCHECKED = 20  # examples, to the killing one, that gradcheck is asked about
ALIKE = 1000  # examples that show an equivalent one: four times what the hardest other one takes
LARGEST = 200  # elements: gradcheck's slow mode takes two forwards an element


@dataclass
class Kill:
    """How a mutant ended: the check that found it (empty: none did), and what gradcheck says.

    `reached` is how often the mutated place was run through, and `milliseconds` are of CPU.
    `gradcheck` has for each of slow, fast and gradgrad whether it saw the mutant.
    """

    mutant: Mutant
    check: str = ""
    verdict: str = ""
    examples: int = 0
    milliseconds: float = 0.0
    reached: int = 0
    gradcheck: dict[str, bool] = field(default_factory=dict)


def hunt(mutant: Mutant, seconds: float, seed: int = 0, *, compare: bool = True) -> Kill:
    """Show the mutant's samples to every check for at most so many seconds of CPU.

    One that is said to be equivalent meets ALIKE of them: in rounding two forms of one rule differ.
    """
    settings = Settings(order=2, standalone=0, seed=seed, dtypes=(mutant.dtype,))
    context = checks.context_for(settings, RefgradEngine(), TorchEngine())
    kill = Kill(mutant)
    kept: list[Sample] = []
    spent = 0.0
    for sample in samples(mutant, seed):
        kill.examples += 1
        began = time.process_time()
        with mutant.applied() as reached, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [
                (r.check, str(r.evidence.get("verdict") or r.evidence.get("reason", "")))
                for r in checks.check_sample(sample, context, SOURCE)
                if r.outcome in FAILING and not _of_the_reference(r)
            ]
        spent += time.process_time() - began
        kill.reached += reached.count
        if len(kept) < GRADCHECKED - 1:
            kept.append(sample)
        real = [f for f in found if not fails_without(f[0], sample, context)]
        if real:
            kill.check, kill.verdict = real[0]
            if sample is not kept[-1]:
                kept.append(sample)
            break
        if spent > seconds or (mutant.equivalent and kill.examples >= ALIKE):
            break
    kill.milliseconds = 1000 * spent
    if compare:
        kill.gradcheck = by_gradcheck(mutant, kept)
    return kill


def _of_the_reference(result: Result) -> bool:
    """Whether what fails is torch's fault alone, which other rounding may bring to light."""
    return str(result.evidence.get("verdict", "")).startswith("reference wrong")


def samples(mutant: Mutant, seed: int) -> Iterator[Sample]:
    """Generated Programs about the mutant's calls and op_db's samples of them, in turn."""
    streams = [generated(mutant, seed)] * 3
    streams.append(_from_op_db(mutant))
    done = object()
    while streams:
        for stream in list(streams):
            sample: Any = next(stream, done)
            if sample is done:
                streams = [s for s in streams if s is not stream]
            else:
                yield sample


def generated(mutant: Mutant, seed: int) -> Iterator[Sample]:
    """Programs about the mutant's calls (about any, where it has none), without end.

    There are none where the grammar has no such call, or none of the dtype.
    """
    named = [op for op in OPS.values() if op.target in mutant.targets]
    if mutant.dtype not in DTYPES or (mutant.targets and not named):
        return
    for number in itertools.count():
        label = f"seed {seed}/{mutant.name}/{number}"
        choose = Seeded(label)
        op = choose.of(named) if named else None
        try:
            program, values = draw(choose, op, mutant.dtype)
        except Unfit:  # the op takes no complex numbers
            return
        yield Sample(op.name if op else "any", program, values, label)


def _from_op_db(mutant: Mutant) -> Iterator[Sample]:
    settings = Settings(dtypes=(mutant.dtype,))
    plain = {t.removeprefix("torch.").removeprefix("Tensor.") for t in mutant.targets}
    source = OpInfo()
    for item in source.items(settings):
        entry = entries()[item.key]
        if not plain or entry.name in plain:
            for sample in source.samples(item, settings):
                if isinstance(sample, Sample):
                    yield sample


def fails_without(check: str, sample: Sample, context: checks.Context) -> bool:
    """Whether the check fails on this sample without the mutant too: a fault of the reference."""
    case = context.case(sample, SOURCE)
    chosen = [c for c in context.checks if c.name == check]
    return any(r.outcome in FAILING for c in chosen for r in judge(c, case))


def by_gradcheck(mutant: Mutant, kept: list[Sample]) -> dict[str, bool]:
    """Whether gradcheck (slow, fast) and gradgradcheck see the mutant on these samples."""
    judges: dict[str, Callable[..., Any]] = {
        "slow": lambda f, xs: torch.autograd.gradcheck(f, xs),
        "fast": lambda f, xs: torch.autograd.gradcheck(f, xs, fast_mode=True),
        "gradgrad": lambda f, xs: torch.autograd.gradgradcheck(f, xs),
    }
    seen = dict.fromkeys(judges, False)
    for sample in kept:
        program, values = sample.program, sample.values
        elements = sum(values[i.name].size for i in program.leaves)
        plain = all(i.dtype in ("float64", "complex128") for i in program.leaves)
        if not plain or elements > LARGEST or not program.leaves:
            continue
        for name, judge_by in judges.items():
            if not seen[name] and _sees(mutant, judge_by, program, values):
                seen[name] = not _sees(None, judge_by, program, values)
    return seen


def _sees(mutant: Mutant | None, judge_by: Callable[..., Any], program: Any, values: Any) -> bool:
    from contextlib import nullcontext

    with mutant.applied() if mutant else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            judge_by(*bridged(program, values))
        except Exception:  # what it raises is how it says that it saw something
            return True
    return False
