"""A source and a harness whose samples misbehave as their names say, for the tests of runs.

An item's op is a list of behaviours, one a sample: "fine", "wrong", "unsupported", "skipped",
"raises", "loses_device", "segfault", "leaves", "hangs", "slow", "undrawable", "dies_drawing",
"unwritable".
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.errors import DeviceLost, UsageError
from conformance.program import Call, Input, Program, Ref
from conformance.results import Result, case_id
from conformance.settings import Settings
from conformance.sources.base import Item, Sample, Skipped


class Source:
    """Gives the items it was made with."""

    items_name_ops = True

    def __init__(self, *ops: str, name: str = "fake") -> None:
        self.name = name
        self._ops = ops

    def items(self, settings: Settings) -> list[Item]:
        return [Item(self.name, str(number), op) for number, op in enumerate(self._ops)]


def sample(behaviour: str, number: int) -> Sample:
    """A small Program with a value that depends on `number`."""
    values = {"x0": np.array([float(number), 2.0])}
    leaf = Input.of("x0", values["x0"], requires_grad=True)
    program = Program((leaf,), (Call("v0", "torch.sin", (Ref("x0"),), {}),), Ref("v0"))
    return Sample(behaviour, program, values)


class Harness:
    """Draws and checks as the behaviours say."""

    def __init__(self, settings: Settings) -> None:
        if settings.engine == "absent":
            raise UsageError("no engine is named 'absent'; there are refgrad, torch")
        if settings.engine == "broken":
            raise RuntimeError("the engine broke as it loaded")
        if settings.engine == "dies":
            os._exit(7)
        self.settings = settings

    def describe(self) -> dict[str, Any]:
        return {"name": "fake"}

    def samples(self, item: Item) -> Iterator[Sample | Skipped]:
        for number, behaviour in enumerate(item.op.split()):
            if behaviour == "undrawable":
                raise ValueError("no such sample")
            if behaviour == "dies_drawing":
                os._exit(5)
            if behaviour == "skipped":
                yield Skipped(behaviour, f"sample {number}", "a random op")
            else:
                yield sample(behaviour, number)

    def check(self, sample: Sample, item: Item) -> Iterator[Result]:
        digest = sample.program.digest(sample.values)
        if sample.op == "raises":
            raise ZeroDivisionError("the check broke")
        if sample.op == "loses_device":
            raise DeviceLost("torch on cuda raised AcceleratorError: an illegal memory access")
        if sample.op == "leaves":
            os._exit(3)
        for check in ("value", "vjp"):
            case = case_id(item.source, sample.op, digest, check, "float64", "cpu")
            outcome, evidence = "passed", {}
            if check == "vjp":
                if sample.op == "segfault":
                    ctypes.string_at(0)
                if sample.op == "hangs":
                    time.sleep(1000)
                if sample.op == "slow":
                    time.sleep(0.2)
                if sample.op == "wrong":
                    outcome = "failed"
                    evidence = {
                        "leaf": "x0",
                        "index": [1],
                        "engine": float("nan"),
                        "reference": 1.0,
                        "numerical": 1.0,
                        "verdict": "engine wrong: it does so on purpose",
                    }
                if sample.op == "unsupported":
                    outcome, evidence = "unsupported", {"missing": ["torch.sin"]}
                if sample.op == "unwritable":
                    evidence = {"array": np.zeros(1000)}
            yield Result(
                case, sample.op, item.source, check, "float64", "cpu", outcome, 0.0, evidence
            )


HARNESS = f"{__name__}:Harness"
