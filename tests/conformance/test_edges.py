"""The source `edges`, and the checks that judge it against mpmath."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from mpmath import mpf

from conformance import checks, sources
from conformance.checks import Finding
from conformance.checks.point import Point
from conformance.engines.base import Engine
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.oracles.exact import Slopes
from conformance.oracles.exact_functions import FUNCTIONS
from conformance.program import Call, Input, Program, Ref
from conformance.settings import PRECISION_CHECKS, Settings
from conformance.sources.base import Item, Sample
from conformance.sources.edges import CLASSES, Edges, ops
from tests.conformance.test_checks import sample
from tests.conformance.wrong_rules import WrongRule

ALL = Settings(sources=("edges",))


def drawn(name: str) -> list[Sample]:
    made = list(Edges().samples(Item("edges", name, name), ALL))
    assert all(isinstance(s, Sample) for s in made)
    return made  # type: ignore[return-value]


def judged(
    engine: Engine, one: Sample, check: str = "precision", reference: Engine | None = None
) -> Finding:
    context = checks.context_for(ALL, engine=engine, reference=reference or TorchEngine())
    (chosen,) = checks.load((check,))
    (finding,) = chosen.run(context.case(one, "edges"))
    return finding


def unary(name: str, *values: float, dtype: Any = np.float64) -> Sample:
    return sample((f"torch.{name}", (Ref("x0"),)), x0=np.array(values, dtype))


def test_every_op_has_a_truth_and_runs_in_both_engines() -> None:
    assert isinstance(sources.load("edges"), Edges)
    assert {op.target for op in ops()} <= set(FUNCTIONS)
    names = [item.op for item in Edges().items(ALL)]
    assert names == list(dict.fromkeys(op.name for op in ops()))
    refgrad = RefgradEngine()
    assert not [n for n in names for s in drawn(n)[:1] if refgrad.missing(s.program)]


def test_an_op_meets_every_class_of_values() -> None:
    made = drawn("sigmoid")
    assert [s.label for s in made] == [
        f"{label}, {dtype}" for dtype in ("float64", "float32") for label in CLASSES
    ]
    values = np.concatenate([s.values["x0"] for s in made[: len(CLASSES)]])
    assert set(values) == {x for numbers in CLASSES.values() for x in numbers}
    assert np.signbit(values[values == 0]).tolist() == [False, True]
    assert [s.program.digest(s.values) for s in drawn("sigmoid")] == [
        s.program.digest(s.values) for s in made
    ]


def test_an_op_of_two_arguments_meets_ties_zeros_and_infinities_apart() -> None:
    for one in drawn("hypot")[:4]:
        x, y = one.values["x0"], one.values["x1"]
        infinite = np.isinf(x) | np.isinf(y)
        kind = one.label.partition(",")[0]
        assert infinite.all() == (kind == "infinite")
        assert infinite.any() == (kind == "infinite")
        assert kind != "ties" or (x == y).all()
        assert kind != "zero" or ((x != y) & (x * y == 0)).all()
        assert kind != "apart" or (x * y != 0).all()


def test_a_target_without_a_derivative_needs_none() -> None:
    (one, *_) = drawn("nn.functional.soft_margin_loss")
    assert [i.requires_grad for i in one.program.inputs] == [True, False]
    assert judged(TorchEngine(), one).outcome == "passed"


def test_the_settings_of_an_op_are_drawn_too() -> None:
    settings = [s.program.calls[0].kwargs for s in drawn("clamp")]
    assert {"min": -1.0} in settings
    assert {"min": -1.0, "max": 2.0} in settings


def test_the_source_alone_is_judged_by_the_checks_against_mpmath() -> None:
    assert Settings(sources=("edges",)).chosen_checks == PRECISION_CHECKS
    assert not set(PRECISION_CHECKS) & set(Settings(sources=("edges", "opinfo")).chosen_checks)


def test_mpmath_is_imported_no_sooner_than_it_is_asked_for() -> None:
    code = "import sys, conformance.checks, conformance.sources; sys.exit('mpmath' in sys.modules)"
    # torch may import mpmath by way of sympy: without it, only our own imports count
    hidden = "import sys; sys.modules['sympy'] = None; "
    done = subprocess.run([sys.executable, "-c", hidden + code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


# --- judging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sin", "exp", "relu", "abs", "floor", "sqrt", "log", "tan"])
@pytest.mark.parametrize("engine", [TorchEngine(), RefgradEngine()], ids=["torch", "refgrad"])
def test_right_rules_pass(name: str, engine: Engine) -> None:
    for one in drawn(name):
        for check in PRECISION_CHECKS:
            context = checks.context_for(ALL, engine=engine, reference=TorchEngine())
            for finding in checks.load((check,))[0].run(context.case(one, "edges")):
                assert finding.outcome == "passed", (one.label, finding.evidence)


def test_a_wrong_rule_is_failed() -> None:
    wrong = WrongRule("torch.exp", lambda g, x: g * (1 + 1e-9))
    found = judged(wrong, unary("exp", 0.0, 1.0, -2.0))
    assert found.outcome == "failed"
    assert found.evidence["relative"] == pytest.approx(1e-9, rel=1e-6)
    assert found.evidence["culprit"] == "torch.exp"
    assert found.evidence["verdict"].startswith("engine wrong: the derivative is ")
    assert len(found.evidence["entries"]) == 3


def test_a_rule_that_is_wrong_at_one_value_is_failed_there() -> None:
    wrong = WrongRule("torch.exp", lambda g, x: torch.where(x == 0.5, 0.0, g))
    found = judged(wrong, unary("exp", 0.0, 0.5, 1.0))
    assert found.evidence["index"] == [1]
    assert found.evidence["points"] == {"failed": 1, "passed": 2}


def test_a_tiny_derivative_that_is_lost_is_of_precision() -> None:
    lossy = WrongRule("torch.exp", lambda g, x: torch.where(x < -36, 0.0, g))
    found = judged(lossy, unary("exp", 0.0, -40.0))
    assert found.outcome == "precision"
    assert found.evidence["engine"] == 0.0
    assert found.evidence["relative"] == 1.0
    assert found.evidence["verdict"].startswith(
        "precision: a derivative is 0 for 4.24835425529e-18"
    )


def test_a_few_digits_lost_are_of_precision_and_a_few_roundings_nothing() -> None:
    for error, outcome in ((5e-15, "passed"), (5e-13, "precision"), (5e-12, "failed")):
        rounded = WrongRule("torch.square", lambda g, x, error=error: g * (1 + error))
        assert judged(rounded, unary("square", 1e6)).outcome == outcome


def test_what_rounding_of_the_argument_does_is_passed() -> None:
    moved = WrongRule("torch.exp", lambda g, x: g * (1 + 5e-14))  # as exp(x) at x (1 + eps)
    assert judged(moved, unary("exp", 700.0)).outcome == "passed"
    assert judged(moved, unary("exp", 1.0)).outcome == "precision"


def test_a_kink_is_held_to_the_interval_and_to_the_convention() -> None:
    at_zero = lambda value: WrongRule("torch.relu", lambda g, x: torch.where(x == 0, value, g))
    outside = judged(at_zero(1.5), unary("relu", 0.0, 1.0))
    assert outside.outcome == "failed"
    assert outside.evidence["diagnosis"] == "kink"
    assert "is outside the one-sided slopes (0.0 and 1.0)" in outside.evidence["verdict"]
    inside = judged(at_zero(0.5), unary("relu", 0.0, 1.0))
    assert "is not the reference's convention, 0" in inside.evidence["verdict"]
    alone = judged(at_zero(0.5), unary("relu", 0.0, 1.0), reference=at_zero(0.5))
    assert alone.outcome == "passed"
    assert alone.evidence["points"] == {"kinks": 1, "passed": 2}


def test_what_the_reference_has_wrong_too_is_said() -> None:
    wrong = WrongRule("torch.exp", lambda g, x: g * 2)
    other = WrongRule("torch.exp", lambda g, x: g * 2)
    other.name = "other"
    found = judged(wrong, unary("exp", 1.0), reference=other)
    assert found.evidence["verdict"].startswith("engine and reference wrong: ")


def test_float32_is_judged_by_its_own_rounding() -> None:
    one = unary("exp", 1.0, 2.0, dtype=np.float32)
    for error, outcome in ((1e-6, "passed"), (1e-4, "precision"), (1e-2, "failed")):
        skewed = WrongRule("torch.exp", lambda g, x, error=error: g * (1 + error))
        assert judged(skewed, one).outcome == outcome


def test_poles_and_infinities_are_not_judged() -> None:
    found = judged(RefgradEngine(), unary("reciprocal", 0.0, np.inf, 2.0))
    assert found.evidence["points"] == {"undetermined": 2, "passed": 1}


def test_an_overflow_may_be_infinite_and_not_small() -> None:
    huge = sample(("torch.mul", (Ref("x0"), Ref("x1"))), x0=np.array([0.0]), x1=np.array([1.7e308]))
    assert judged(WrongRule("torch.mul", lambda g, x: g * np.inf), huge).outcome == "passed"
    assert judged(WrongRule("torch.mul", lambda g, x: g * 0), huge).outcome == "failed"


def test_second_derivatives_the_mixed_one_included() -> None:
    x = sample(("torch.mul", (Ref("x0"), Ref("x1"))), x0=np.array([2.0]), x1=np.array([3.0]))
    found = judged(RefgradEngine(), x, "precision2")
    assert found.evidence == {"compared": 4, "points": {"passed": 4}}
    wrong = WrongRule("torch.square", lambda g, x: g + 0.1 * x * x)
    bad = judged(wrong, unary("square", 1.0, 3.0), "precision2")
    assert bad.outcome == "failed"
    assert bad.evidence["relative"] == pytest.approx(0.75)  # by 0.9 and by 0.6 beside 2


@pytest.mark.parametrize("along", [("x0",), ("x0", "x1")])
def test_the_script_exits_1_where_the_point_is_so_and_0_where_it_is_not(along: Any) -> None:
    product = sample(
        ("torch.mul", (Ref("x0"), Ref("x1"))), x0=np.array([5.0, 2.0]), x1=np.array([4.0, 3.0])
    )
    case = checks.context_for(ALL, engine=TorchEngine(), reference=TorchEngine()).case(product, "")
    right = 3.0 if len(along) == 1 else 1.0  # at (2, 3)
    for truth, code in ((right, 0), (2 * right, 1)):
        point = Point("failed", (2.0, 3.0), along, 1, right, Slopes(mpf(truth), mpf(truth)))
        repro = point.repro(case, verify=True)
        assert (repro["exit"], repro["verified"]) == (code, code == 1), repro["printed"]
        assert len(repro["script"].splitlines()) <= 25
    assert "verified" in (
        judged(WrongRule("torch.exp", lambda g, x: g * 2), unary("exp", 1.0)).repro or {}
    )


def test_what_is_no_single_elementwise_call_is_left_alone() -> None:
    context = checks.context_for(ALL, engine=RefgradEngine(), reference=TorchEngine())
    two = sample(("torch.sin", (Ref("x0"),)), ("torch.exp", (Ref("v0"),)), x0=np.ones(2))
    total = sample(("torch.sum", (Ref("x0"),)), x0=np.ones(2))
    broad = sample(("torch.mul", (Ref("x0"), Ref("x1"))), x0=np.ones(2), x1=np.ones((2, 1)))
    for one in (two, total, broad):
        for check in checks.load(PRECISION_CHECKS):
            assert not list(check.run(context.case(one, "edges")))


def test_gelu_by_tanh_does_not_overflow() -> None:
    at = np.array([1e154, -1e154, 70.0, -70.0, 3.0, 1e300, -1e300])
    gelu = Call("v0", "torch.nn.functional.gelu", (Ref("x0"),), {"approximate": "tanh"})
    leaf = Input.of("x0", at, requires_grad=True)
    one = Sample("gelu", Program((leaf,), (gelu,), Ref("v0")), {"x0": at})
    for check in PRECISION_CHECKS:
        assert judged(RefgradEngine(), one, check).outcome == "passed"
