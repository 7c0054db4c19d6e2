"""Slopes of what lies within a short way: between kinks, beside a pole, where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conformance.engines.torch import TorchEngine
from conformance.oracles.directional import slope_nearby
from conformance.program import Call, Input, Program, Ref


def _slope(target: str, x: float, within: float) -> float:
    values = {"x0": np.array([x])}
    inputs = (Input.of("x0", values["x0"], requires_grad=True),)
    program = Program(inputs, (Call("v0", target, (Ref("x0"),)),), Ref("v0"))
    given = program, values, [np.ones(1)], {"x0": np.ones(1)}
    return slope_nearby(TorchEngine(), *given, within)


def test_a_kink_within_the_way_is_between_shorter_steps() -> None:
    assert _slope("torch.abs", 1e-9, 6e-9) == pytest.approx(1, abs=1e-6)
    assert _slope("torch.abs", -1e-10, 6e-9) == pytest.approx(-1, abs=1e-6)


def test_what_bends_within_the_way_is_straight_within_a_shorter_one() -> None:
    assert _slope("torch.rsqrt", 1e-8, 6e-9) == pytest.approx(-0.5e12, rel=1e-4)


def test_nothing_is_said_where_there_is_no_slope() -> None:
    assert math.isnan(_slope("torch.sqrt", 0.0, 6e-9))
    assert _slope("torch.abs", 0.0, 6e-9) == 0  # that of a kink, from both sides
