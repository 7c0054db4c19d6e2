"""Checks by name, and the one way to run those that a run has chosen on a sample."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator

from conformance import engines
from conformance.checks import invariants
from conformance.checks.base import Case, Check, Context, Finding
from conformance.checks.forward import ForwardCheck
from conformance.checks.half import HalfCheck
from conformance.checks.judging import judge, one_line
from conformance.checks.narrow import NarrowCheck
from conformance.checks.numerical import NumericalCheck
from conformance.checks.reentrant import ReentrantCheck
from conformance.checks.second_order import ROUTES, SecondOrderCheck
from conformance.checks.standalone import StandaloneCheck
from conformance.checks.value import ValueCheck
from conformance.checks.vjp import VjpCheck
from conformance.checks.vmap import VmapCheck
from conformance.engines.base import Engine
from conformance.errors import UsageError
from conformance.results import Result
from conformance.settings import Settings
from conformance.sources.base import Sample

_CHECKS: dict[str, Callable[[], Check]] = {
    "value": ValueCheck,
    "vjp": VjpCheck,
    "numerical": NumericalCheck,
    "jvp": ForwardCheck,
    **{route: functools.partial(SecondOrderCheck, route) for route in ROUTES},
    "reentrant": ReentrantCheck,
    "narrow": NarrowCheck,
    "vmap": VmapCheck,
    "half": HalfCheck,
    "half2": functools.partial(HalfCheck, 2),
    "standalone": StandaloneCheck,
    **invariants.load(),
}
_PRECISION = "conformance.checks.precision"
_MPMATH = {  # these import mpmath, so no sooner than they are asked for
    "precision": "PrecisionCheck",
    "precision2": "SecondPrecisionCheck",
}
_NEEDED = ("value", "vjp")  # what these lack, the other checks lack too


def names() -> tuple[str, ...]:
    """Every check there is, and the group of all invariants."""
    return (*_CHECKS, *_MPMATH, invariants.GROUP)


def load(chosen: Iterable[str]) -> tuple[Check, ...]:
    """The checks of these names; raises UsageError for one that does not exist."""
    made: list[Check] = []
    for name in chosen:
        if name == invariants.GROUP:
            made += [make() for make in invariants.load().values()]
            continue
        if name in _MPMATH:
            made.append(getattr(importlib.import_module(_PRECISION), _MPMATH[name])())
            continue
        if name not in _CHECKS:
            near = difflib.get_close_matches(name, names(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no check is named {name!r}; there are {', '.join(names())}{hint}")
        made.append(_CHECKS[name]())
    return tuple(made)


def context_for(
    settings: Settings, engine: Engine | None = None, reference: Engine | None = None
) -> Context:
    """What a worker needs to judge; raises UsageError where an engine or a check cannot load.

    The check `standalone` is added to those chosen, where `settings.standalone` allows any.
    """
    chosen = load(settings.chosen_checks)
    named = engine is None
    if engine is None:
        engine = engines.load(settings.engine, settings.device)
    if reference is None:
        reference = engines.load(settings.reference, settings.place)
    if named and settings.standalone > 0 and not any(c.name == "standalone" for c in chosen):
        chosen += (StandaloneCheck(),)
    return Context(engine, reference, settings, chosen)


def check_sample(sample: Sample, context: Context, source: str) -> Iterator[Result]:
    """The results of every chosen check on one sample.

    Where the engine lacks something there is one result, `unsupported`, with the missing targets.
    """
    case = context.case(sample, source)
    missing = context.engine.missing(sample.program)
    if missing:
        reason = "lacks " + ", ".join(missing)
        yield case.result(
            "sample", Finding("unsupported", {"missing": list(missing), "reason": reason})
        )
        return
    try:
        for check in invariants.due(context.checks, case):
            for result in judge(check, case):
                yield result
                if result.outcome == "unsupported" and check.name in _NEEDED:
                    return
    finally:
        case.close()


__all__ = [
    "Case",
    "Check",
    "Context",
    "Finding",
    "check_sample",
    "context_for",
    "load",
    "names",
    "one_line",
]
