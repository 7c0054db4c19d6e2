"""One entry of an elementwise call that is not as it should be: what it is, and what shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp

from conformance.checks.base import Case
from conformance.explain import run
from conformance.oracles.exact import Slopes
from conformance.program import Array, Input, Program
from conformance.question import Question, comparison
from conformance.script import binding, runs


@dataclass(frozen=True)
class Point:
    """Where, what the engine gives, what is true, and what that means.

    `along` has the leaves that are differentiated by, one or two; `alike` says that the reference
    gives the same, and `note` what is wrong at a kink.
    """

    outcome: str
    arguments: tuple[Any, ...]
    along: tuple[str, ...]
    index: int
    found: float
    truth: Slopes
    alike: bool = False
    relative: float = 0.0
    note: str = ""

    @property
    def place(self) -> list[float]:
        """The tensors' values."""
        return [a for a in self.arguments if isinstance(a, float)]

    def listed(self) -> dict[str, Any]:
        """The point as evidence."""
        if self.note:
            truth = {"left": text(self.truth.left), "right": text(self.truth.right)}
        else:
            truth = {"truth": text(self.truth.value)}
        known = {"at": self.place, "along": list(self.along), "engine": self.found}
        return known | truth | {"relative": self.relative}

    def sentence(self, count: int) -> str:
        """The verdict, where this is the worst of so many points."""
        where = "at " + ", ".join(f"{a:g}" for a in self.place)
        more = f", and at {count - 1} more" if count > 1 else ""
        values = f"{self.found:.10g} for {text(self.truth.value, 12)} by mpmath"
        if self.outcome == "precision":
            return f"precision: a derivative is {values} {where}{more}"
        who = "engine and reference wrong" if self.alike else "engine wrong"
        if self.note:
            slopes = f"{text(self.truth.left, 6)} and {text(self.truth.right, 6)}"
            return f"{who}: {self.found:g} {where} is {self.note} ({slopes}){more}"
        return f"{who}: the derivative is {values} {where}{more}"

    def repro(self, case: Case, *, verify: bool) -> dict[str, Any]:
        """The call at this point alone, and a script that exits 1 where this is so.

        With `verify` it is run, and "verified" says what came of it; of an engine from outside the
        script holds torch in its place.
        """
        values: dict[str, Array] = {
            i.name: np.array(case.values[i.name].flat[self.index]) for i in case.program.inputs
        }
        inputs = tuple(
            Input.of(i.name, values[i.name], requires_grad=i.requires_grad)
            for i in case.program.inputs
        )
        program = Program(inputs, case.program.calls, case.program.outputs)
        tangents = {
            i.name: np.array(float(i.name == self.along[0]), i.dtype) for i in program.leaves
        }
        dtype = case.reference_run.outputs[0].dtype
        kind = "vjp" if len(self.along) == 1 else "rr"
        expected, tolerance = self._expected()
        text = comparison(
            Question(kind, [np.ones((), dtype)], tangents),
            program,
            values,
            {self.along[-1]: np.array(expected)},
            binding(case.engine.name),
            tolerance,
        )
        repro: dict[str, Any] = {"program": str(program), "script": text, "verified": False}
        if verify and text is not None and runs(case.engine.name):
            code, printed = run(text)
            repro |= {"verified": code == 1, "printed": printed, "exit": code}
        return repro

    def _expected(self) -> tuple[float, float]:
        """What the script asks for, and how far off may be what it gets."""
        if self.note:
            left, right = float(self.truth.left), float(self.truth.right)
            slack = 1e-6 * max(abs(left), abs(right))
            return (left + right) / 2, abs(right - left) / 2 + slack
        expected = float(self.truth.value)
        off = abs(self.found - expected)
        return expected, off / 2 if np.isfinite(off) else abs(expected) / 2


def text(value: Any, digits: int = 20) -> str:
    """A number of mpmath, to so many digits."""
    return str(mp.nstr(value, digits))
