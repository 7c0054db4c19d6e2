"""precision, precision2: derivatives of elementwise ops against mpmath, entry by entry.

`precision` judges the gradient, `precision2` the second derivative by reverse over reverse, the
mixed ones included. A wrong derivative is `failed`. Where it is off by rounding beside 1, or beside
the function, the derivative is tiny and only its relative accuracy is lost: `precision`, as where
only a few digits are. At a kink it is held to the interval between the one-sided slopes, and to the
reference's convention if that is inside. At a pole, where the function overflows, and where there
is no derivative there is nothing to judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from mpmath import mp

from conformance.checks.base import Case, Finding
from conformance.checks.point import Point
from conformance.engines.base import Engine
from conformance.errors import EngineError, Unsupported
from conformance.oracles.exact import Slopes, condition, derivative
from conformance.oracles.exact_functions import FUNCTIONS
from conformance.oracles.germs import nan
from conformance.program import Array, Call, Ref

ROUNDING = 64.0  # epsilons that a right rule may err by, beside what its arguments' rounding does
LOSSY = 4096.0  # epsilons of itself: nearer, a derivative has lost digits and is not wrong
CONVENTION = 1e-6  # of a value at a kink: two engines that agree as closely choose alike
SHARED = 0.1  # of an error: two engines that agree as closely share it
SHOWN = 6  # points that the evidence lists
_WORST = ("failed", "precision", "passed")


class PrecisionCheck:
    """First derivatives of a single elementwise call."""

    name = "precision"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all entries; none for a Program that is no such call."""
        judge = _Judge.of(case)
        if judge is None:
            return

        def gradients(engine: Engine) -> Mapping[str, Array | None]:
            return engine.vjp(case.program, case.values, judge.ones).gradients

        found, theirs = gradients(case.engine), judge.of_reference(gradients)
        for leaf in judge.leaves:
            judge.entries((leaf,), found.get(leaf), theirs.get(leaf))
        yield from judge.finding(self.name)


class SecondPrecisionCheck:
    """Second derivatives of a single elementwise call, by reverse over reverse."""

    name = "precision2"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all entries of all second derivatives."""
        judge = _Judge.of(case)
        if judge is None:
            return
        for along in judge.leaves:
            tangents = {
                i.name: np.full(i.shape, float(i.name == along), i.dtype)
                for i in case.program.leaves
            }

            def product(
                engine: Engine, tangents: dict[str, Array] = tangents
            ) -> Mapping[str, Array | None]:
                return engine.hvp(case.program, case.values, judge.ones, tangents)

            found, theirs = product(case.engine), judge.of_reference(product)
            for leaf in judge.leaves:
                judge.entries((along, leaf), found.get(leaf), theirs.get(leaf))
        yield from judge.finding(self.name)


class _Judge:
    """What is found of one elementwise call, gathered."""

    def __init__(self, case: Case, call: Call) -> None:
        self.case, self.call = case, call
        self.leaves = [i.name for i in case.program.leaves]
        self.points: list[Point] = []
        self.counts: Counter[str] = Counter()
        (output,) = case.reference_run.outputs
        self.ones: list[Array | None] = [np.ones_like(output)]
        self.outputs = output.reshape(-1)
        self.limits = np.finfo(case.dtype)
        self.keywords = tuple(sorted((k, v) for k, v in call.kwargs.items() if k != "reduction"))

    @staticmethod
    def of(case: Case) -> _Judge | None:
        """For a Program that is one call of a known elementwise op on whole real tensors."""
        if len(case.program.calls) != 1 or not case.program.leaves:
            return None
        (call,) = case.program.calls
        tensors = {i.name: i for i in case.program.inputs}
        whole = (
            call.target in FUNCTIONS
            and list(tensors) == [a.name for a in call.args if isinstance(a, Ref)]
            and len({i.shape for i in tensors.values()}) == 1
            and all(i.dtype in ("float64", "float32") for i in tensors.values())
            and case.program.outputs == Ref(call.name)
        )
        return _Judge(case, call) if whole else None

    def of_reference(
        self, ask: Callable[[Engine], Mapping[str, Array | None]]
    ) -> Mapping[str, Array | None]:
        """The same derivatives of the reference; none where it is the engine, or has none."""
        if not self.case.context.independent:
            return {}
        try:
            return ask(self.case.reference)
        except (EngineError, Unsupported):
            return {}

    def entries(self, along: tuple[str, ...], found: Array | None, theirs: Array | None) -> None:
        """Judge every entry of the derivative along those leaves; None is zeros, or not known."""
        ours = np.zeros(self.outputs.size) if found is None else found.reshape(-1)
        orders = tuple(along.count(a.name) if isinstance(a, Ref) else 0 for a in self.call.args)
        for index in range(self.outputs.size):
            arguments = tuple(
                float(self.case.values[a.name].reshape(-1)[index]) if isinstance(a, Ref) else a
                for a in self.call.args
            )
            truth = self._truth(index, arguments, orders)
            if truth is None:
                self.counts["undetermined"] += 1
                continue
            value = float(ours[index])
            other = None if theirs is None else float(theirs.reshape(-1)[index])
            note, relative = "", 0.0
            if mp.isnan(truth.value):
                self.counts["kinks"] += 1
                note = self._at_a_kink(truth, value, other)
                outcome = "failed" if note else "passed"
            else:
                outcome, relative = self._held(truth.value, value, index, arguments, orders)
            alike = other is not None and _alike(value, other, truth.value)
            self.points.append(
                Point(outcome, arguments, along, index, value, truth, alike, relative, note)
            )

    def _truth(
        self, index: int, arguments: tuple[Any, ...], orders: tuple[int, ...]
    ) -> Slopes | None:
        """The derivative; None where the function or it is not finite, or it is on no side."""
        if not np.isfinite(self.outputs[index]) or not all(np.isfinite(a) for a in arguments):
            return None
        truth = derivative(self.call.target, arguments, orders, self.keywords)
        if not truth.known or mp.isinf(truth.left) or mp.isinf(truth.right):
            return None
        if sum(orders) == 1:
            return truth
        firsts = [
            self._pure(n, arguments, 1)
            for n, a in enumerate(self.call.args)
            if isinstance(a, Ref) and a.name in self.leaves  # the product has them all in one sum
        ]
        smooth = truth.smooth and all(f.smooth and mp.isfinite(f.left) for f in firsts)
        return truth if smooth else None

    def _pure(self, place: int, arguments: tuple[Any, ...], order: int) -> Slopes:
        """The derivative of that order with respect to one argument."""
        orders = tuple(order * (n == place) for n in range(len(arguments)))
        return derivative(self.call.target, arguments, orders, self.keywords)

    def _at_a_kink(self, truth: Slopes, found: float, convention: float | None) -> str:
        """What is wrong with the value, or nothing."""
        low, high = sorted((truth.left, truth.right))
        slack = ROUNDING * self.limits.eps * max(abs(low), abs(high))
        if not low - slack <= found <= high + slack:
            return "outside the one-sided slopes"
        if convention is None or _alike(found, convention):
            return ""
        if low - slack <= convention <= high + slack:
            return f"not the reference's convention, {convention:g}"
        return ""

    def _held(
        self,
        true: Any,
        found: float,
        index: int,
        arguments: tuple[Any, ...],
        orders: tuple[int, ...],
    ) -> tuple[str, float]:
        """The outcome and the relative error at a point where there is one derivative."""
        if abs(true) > 0.5 * float(self.limits.max):  # it may overflow, but not be small
            small = abs(found) < CONVENTION * float(self.limits.max)
            return ("failed", 1.0) if small else ("passed", 0.0)
        if not np.isfinite(found):
            return "failed", float("inf")
        error = abs(found - true)
        if error <= 4 * float(self.limits.tiny):
            return "passed", 0.0
        relative = float(error / abs(true)) if true else float("inf")
        allowed = ROUNDING * float(self.limits.eps)
        if relative <= allowed:
            return "passed", relative
        nudge = 2 * float(self.limits.eps)
        moved = condition(self.call.target, arguments, orders, self.keywords, nudge)
        if relative <= allowed * moved:
            return "passed", relative
        natural = max(1, self._natural(index, arguments, orders))
        lost = error <= allowed * natural or relative <= LOSSY * float(self.limits.eps)
        return ("precision" if lost else "failed"), relative

    def _natural(self, index: int, arguments: tuple[Any, ...], orders: tuple[int, ...]) -> Any:
        """The size of a derivative in proportion to the function and its argument."""
        beside = max(1.0, *(abs(a) for a, n in zip(arguments, orders, strict=True) if n))
        natural = abs(float(self.outputs[index])) / beside
        if sum(orders) == 1:
            return natural
        places = [n for n, order in enumerate(orders) if order]
        natural = max(natural, *(abs(self._pure(n, arguments, 1).left) for n in places)) / beside
        if len(places) == 1:
            return natural
        pure = [abs(self._pure(n, arguments, 2).left) for n in places]
        return max(natural, mp.sqrt(pure[0] * pure[1])) if all(map(mp.isfinite, pure)) else natural

    def finding(self, check: str) -> Iterator[Finding]:
        """The worst outcome, with the points that show it."""
        if not self.points:
            return
        outcome = min((p.outcome for p in self.points), key=_WORST.index)
        self.counts.update(p.outcome for p in self.points)
        evidence: dict[str, Any] = {"compared": len(self.points), "points": dict(self.counts)}
        if outcome == "passed":
            yield Finding("passed", evidence)
            return
        bad = [p for p in self.points if p.outcome == outcome]
        bad.sort(key=lambda p: (p.alike, -p.relative))  # what is the engine's alone comes first
        worst = bad[0]
        diagnosis = "precision" if outcome == "precision" else "kink" if worst.note else "wrong"
        evidence |= {
            "oracle": "mpmath",
            "leaf": worst.along[-1],
            "index": [worst.index],
            "engine": worst.found,
            "numerical": float(worst.truth.value),
            "relative": worst.relative,
            "culprit": self.call.target,
            "diagnosis": diagnosis,
            "entries": [p.listed() for p in bad[:SHOWN]],
            "verdict": worst.sentence(len(bad)),
        }
        shown = (self.case.source, self.case.sample.op, check)
        first = outcome == "failed" and shown not in self.case.context.explained
        repro = worst.repro(self.case, verify=first)
        if first:
            self.case.context.explained.add(shown)
        yield Finding(outcome, evidence, repro)


def _alike(a: float, b: float, truth: Any = nan) -> bool:
    """Whether two values are one, beside their distance from the truth where there is one."""
    if a == b or (a != a and b != b):
        return True
    size = abs(a) * CONVENTION if mp.isnan(truth) else abs(a - truth) * SHARED
    return bool(abs(a - b) <= size)
