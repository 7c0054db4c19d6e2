"""A failure explained: shrunk to a few calls, and a short script that was seen to fail.

Called in the worker for a sample whose check failed. The reduction runs in a child process, since
a Program that is no longer sensible can crash an engine or hang.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.child import in_child
from conformance.engines.base import ALL
from conformance.engines.refgrad import RefgradEngine
from conformance.errors import ConformanceError, EngineError
from conformance.program import Array, Program, Values, refs
from conformance.question import Question, comparison
from conformance.reduce import Witness, alone, alone_and_wide, reduce
from conformance.script import binding, runs

if TYPE_CHECKING:
    from conformance.checks.base import Case, Check, Finding

ENOUGH = 1.2  # of CPU time, after which the smallest so far is taken
SCRIPT_SECONDS = 60.0  # for a script: on a busy machine importing torch alone takes long
WITNESSED = 64  # an input of more elements is not put into the journal
PRINTED = 2000  # characters of what a script printed that are kept


def explain(case: Case, check: Check, finding: Finding) -> dict[str, Any]:
    """What a failed Result's `repro` holds: the shrunk Program, its script, and what it printed;
    and the Program as data, `witness`, where its values are few.

    `verified` says that the script was run and exited 1; it is False for an engine from outside,
    whose import the reader has to put in.
    """

    shown = shrunk(case, check, finding)
    small = shown.case
    repro: dict[str, Any] = {"program": str(small.program), "verified": False}
    if all(x.size <= WITNESSED for x in small.values.values()):
        repro["witness"] = small.program.to_json(small.values, inline=WITNESSED)
    text = script_of(shown)
    if text is None:
        return repro | {"script": small.script()}
    repro["script"] = text
    if runs(case.engine.name):
        code, printed = run(text)
        repro |= {"verified": code == 1, "printed": printed, "exit": code}
    return repro


@dataclass(frozen=True)
class Shown:
    """A small case, and the check that fails on it with what it says."""

    case: Case
    check: Check
    finding: Finding


def shrunk(case: Case, check: Check, finding: Finding) -> Shown:
    """The smallest case found that shows the fault; the case itself if there is none.

    Where several calls remain, one of them may show it to another check: a rule that is wrong at
    first order and met by a zero cotangent, or one that is wrong only when it is recorded and is of
    a linear op, which has no second derivative of its own.
    """
    prepared()
    shown = _reduced(Shown(case, check, finding))
    if len(shown.case.program.calls) > 1:
        alone = in_child(lambda: _alone(shown))
        if alone is not None:
            program, values, name = alone
            found = _found(shown, program, values, name)
            return shown if found is None else _reduced(found)
    return shown


@functools.cache
def prepared() -> None:
    """What torch imports when forward mode is first used, which takes seconds: no child does."""
    for module in ("torch._decomp.decompositions_for_jvp", "torch._dynamo"):
        importlib.import_module(module)


def _reduced(shown: Shown) -> Shown:
    """The smallest case found of which the check says the same."""
    from conformance.checks.base import ReferenceFailed

    case, check = shown.case, shown.check
    steady = _steady(case)
    kinds = _kinds(shown.finding)

    def fails(program: Program, values: Values) -> bool:
        try:
            smaller = _beside(case, program, values)
            if steady and not _steady(smaller):
                return False
            found = [k for f in check.run(smaller) if (k := _kind(f)) in kinds]
        except ReferenceFailed:
            return False
        kinds[:] = found or kinds
        return bool(found)

    def reduction() -> tuple[Program, Values]:
        end = time.process_time() + ENOUGH
        return reduce(
            case.program, case.values, fails,
            reference=case.reference, enough=lambda: time.process_time() > end,
        )  # fmt: skip

    found = in_child(reduction)
    if found is None:
        return shown
    small = _beside(case, *found)
    return Shown(
        small, check, next((f for f in check.run(small) if _kind(f)[0] == "failed"), shown.finding)
    )


def _alone(shown: Shown) -> tuple[Program, Values, str] | None:
    """The first call alone that fails a check, by name; the one that is to blame before others."""
    case = shown.case
    kept = case.reference.run(case.program, case.values, keep=ALL).kept
    culprit = shown.finding.evidence.get("culprit")
    witness = Witness(case.program, case.values, kept)
    each = list(itertools.chain(alone(witness), alone_and_wide(witness)))
    for program, values in sorted(each, key=lambda one: one[0].calls[-1].target != culprit):
        for check in case.context.checks:
            if _found(shown, program, values, check.name) is not None:
                return program, values, check.name
    return None


def _found(shown: Shown, program: Program, values: Values, name: str) -> Shown | None:
    """What a check says of another Program, if it is as bad."""
    from conformance.checks.base import ReferenceFailed

    case = _beside(shown.case, program, values)
    check = next(c for c in case.context.checks if c.name == name)
    try:
        for finding in check.run(case):
            if _kind(finding) in _kinds(shown.finding):
                return Shown(case, check, finding)
    except (ConformanceError, ReferenceFailed):
        return None
    return None


def _beside(case: Case, program: Program, values: Values) -> Case:
    """Another Program, judged as the case is."""
    sample = replace(case.sample, program=program, values=values)
    return case.context.case(sample, case.source)


def script_of(shown: Shown) -> str | None:
    """A short script that exits 1 where the check fails, else 0; None where there is none."""
    case, check, finding = shown.case, shown.check, shown.finding
    try:
        own = getattr(check, "script", None)  # of what no comparison with another engine shows
        return _script(case, check.name, finding) if own is None else own(case)
    except ConformanceError:  # the engine raises
        return None


def _kinds(finding: Finding) -> list[tuple[str, str]]:
    """What a smaller case may show in its place: at a kink or a tie, a plain fault as well."""
    kind = _kind(finding)
    plainer = kind[1].startswith(("both defensible", "engine and reference wrong"))
    return [kind, (kind[0], "engine wrong")] if plainer else [kind]


def _kind(finding: Finding) -> tuple[str, str]:
    """The outcome, and who is said to be wrong: a shrunk Program must not show another fault."""
    return finding.outcome, str(finding.evidence.get("verdict")).partition(":")[0]


def _steady(case: Case) -> bool:
    """Whether the reference's gradients are finite: a shrunk value must not sit at a pole."""
    found = case.reference_vjp.gradients.values()
    return all(g is None or bool(np.isfinite(g).all()) for g in found)


def _script(case: Case, check: str, finding: Finding) -> str | None:
    """A script that compares the one that is wrong with what is right; None where they agree.

    Where that one raises, the script does, which exits 1 as well.
    """
    program, values = case.program, case.values
    wrong, right = case.engine, case.reference
    if str(finding.evidence.get("verdict")).startswith("reference wrong"):
        wrong, right = right, wrong
    if not case.context.independent and not (second_opinion := RefgradEngine()).missing(program):
        right = second_opinion
    engine_import = binding(wrong.name)
    outputs = right.run(program, values).outputs
    if len(outputs) != len(list(refs(program.outputs))):
        return None
    in_cotangent = finding.evidence.get("diagnosis") in ("cotangent", "refused")
    kind = "cotangent" if in_cotangent else check
    for question in _questions(case, kind, outputs):
        known = question.answer(right, program, values, plain=True)
        expected = {n: y for n, y in known.items() if y is not None}
        leaves = [i for i in program.leaves if i.name in expected]  # else it is told by outputs
        least = max(map(case.vanishing, leaves), default=0.0)  # less is rounding
        scale = max((float(np.abs(y).max(initial=0)) for y in expected.values()), default=0.0)
        try:
            differ = _largest(question.answer(wrong, program, values, plain=False), expected)
        except EngineError:
            differ = np.inf
        if differ > max(1e-12 * scale, least):
            tolerance = differ / 2 if np.isfinite(differ) else 1e-9 * (scale or 1.0)
            return comparison(question, program, values, expected, engine_import, tolerance)
    return None


def _questions(case: Case, check: str, outputs: Sequence[Array]) -> Iterator[Question]:
    """What the script may ask, the plainest first."""
    asked = ("value", "jvp", "rr", "fr", "rf", "ff", "cotangent")
    kind = check if check in asked else "vjp"
    ones: list[Array | None] = [np.ones_like(y) if y.dtype.kind in "fc" else None for y in outputs]
    rng = case.rng("script")
    for cotangents in (ones, case.cotangents):
        t, u = (
            {i.name: _short(rng, i.shape).astype(i.dtype) for i in case.program.leaves}
            for _ in range(2)
        )
        yield Question(kind, cotangents, t, u)


def _short(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers of one decimal, none 0, and few equal: what is constant many functions do not see."""
    signs = rng.choice((-1.0, 1.0), shape)
    return np.asarray(np.round(signs * rng.integers(1, 30, shape) / 10, 1))


def _largest(found: Mapping[str, Array | None], right: Mapping[str, Array]) -> float:
    """The largest difference of any entry; infinite where shape or nan differ. None is zeros."""
    largest = 0.0
    for name, expected in right.items():
        y = found.get(name)
        y = np.zeros_like(expected) if y is None else y
        if y.shape != expected.shape:
            return np.inf
        same = (y == expected) | ((y != y) & (expected != expected))
        with np.errstate(invalid="ignore"):
            error = np.where(
                same, 0.0, np.abs(np.subtract(y, expected, dtype=np.result_type(y, 1.0)))
            )
        largest = max(largest, float(np.where(np.isnan(error), np.inf, error).max(initial=0.0)))
    return largest


def run(text: str, seconds: float = SCRIPT_SECONDS) -> tuple[int | None, str]:
    """A script's exit code (None: it did not end in time) and the end of what it printed."""
    command = [sys.executable, "-"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no end after {seconds:g} s"
    return done.returncode, (done.stdout + done.stderr)[-PRINTED:]
