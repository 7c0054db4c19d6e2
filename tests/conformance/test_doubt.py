"""Rounding on the way is told from a fault: where terms cancel, at ties and at jumps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from conformance import checks
from conformance.engines.base import Engine, Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.oracles.noise import changes, moved
from conformance.program import Array, Call, Input, Program, Ref
from conformance.results import Result
from conformance.settings import Settings
from conformance.sources import Sample
from tests.conformance.wrong_rules import WrongRule

F = "torch.nn.functional."
CONSTANT = np.arctan2(1.0, 1.0)


def program(values: dict[str, Array], *calls: Call, outputs: Any = None) -> Program:
    inputs = tuple(Input.of(n, x, requires_grad=x.dtype.kind == "f") for n, x in values.items())
    return Program(inputs, calls, outputs or Ref(calls[-1].name))


CHECKS = ("value", "vjp", "numerical", "rr")


def results(
    values: dict[str, Array],
    *calls: Call,
    engine: Engine | None = None,
    chosen: tuple[str, ...] = CHECKS,
) -> list[Result]:
    settings = Settings(order=2, standalone=0, checks=chosen)
    context = checks.context_for(settings, engine or RefgradEngine(), TorchEngine())
    sample = Sample("op", program(values, *calls), values)
    return list(checks.check_sample(sample, context, "test"))


def outcomes(*given: Any, **options: Any) -> dict[str, str]:
    return {r.check: r.outcome for r in results(*given, **options)}


def test_a_sum_that_cancels_on_the_way_is_precision() -> None:
    """Layer norm of a constant that an op makes: its rounding is divided by sqrt(eps)."""
    values = {"x": np.array([[1.0, 2.0, 3.0]]), "w": np.array([0.3, -1.2, 0.7])}
    calls = (
        Call("v0", "torch.atan2", (Ref("x"), Ref("x"))),
        Call("v1", F + "layer_norm", (Ref("v0"), (3,), Ref("w"), None), {"eps": 1e-5}),
    )
    assert "failed" not in outcomes(values, *calls).values()


def test_terms_that_cancel_in_the_engine_s_second_order_alone() -> None:
    """The mean of softmax is a constant: of its derivatives torch's rounding leaves nothing."""
    values = {
        "x0": np.array([[-42.515875883729905], [40.842951866994895], [50], [-35.291881606783456]]),
        "x1": np.zeros(4, np.int64),
    }
    calls = (
        Call("v0", "torch.softmax", (Ref("x0"), -2)),
        Call("v1", F + "nll_loss", (Ref("v0"), Ref("x1")), {"reduction": "mean"}),
    )
    found = outcomes(values, *calls, chosen=("rr", "fr", "rf", "ff"))
    assert set(found) == {"rr", "fr", "rf", "ff"}
    assert "failed" not in found.values()


def test_outputs_that_are_all_zero_tell_no_size() -> None:
    """Batch norm's weight and bias are 0: the weight's gradient is 0 but for rounding."""
    values = {
        "x": np.array([[-80.80557030758231], [-32.9745343388378], [43.07040779030332]]),
        "w": np.zeros(1),
        "b": np.zeros(1),
        "t": np.zeros(3, np.int64),
    }
    given = (Ref("x"), None, None, Ref("w"), Ref("b"), True)
    calls = (
        Call("v0", F + "batch_norm", given, {"eps": 0.1}),
        Call("v1", F + "nll_loss", (Ref("v0"), Ref("t")), {"reduction": "mean"}),
    )
    found = outcomes(values, *calls, chosen=("vjp", "invariants"))
    assert "invariants.create_graph" in found
    assert "failed" not in found.values()


class RoundsUp(RefgradEngine):
    """An engine whose products are the next number up, as other rounding may give."""

    def _find(self, path: str) -> Any:
        found = super()._find(path)
        if path != "torch.mul":
            return found

        def up(x: Any, y: Any) -> Any:
            made = found(x, y)
            return made + refgrad.from_numpy(np.spacing(made.detach().numpy()))

        return up


def test_a_jump_that_rounding_decides_is_inconclusive() -> None:
    values = {"x": np.array([0.5, 1.25]), "y": np.array([4.0, 3.0])}
    calls = (Call("v0", "torch.mul", (Ref("x"), Ref("y"))), Call("v1", "torch.ceil", (Ref("v0"),)))
    (value, *_) = results(values, *calls, engine=RoundsUp())
    assert (value.outcome, value.evidence["engine"], value.evidence["reference"]) == (
        "inconclusive", 3.0, 2.0,
    )  # fmt: skip
    assert "rounding on the way decides" in value.evidence["verdict"]


class OffByOne(RefgradEngine):
    """An engine whose ceil is too high by one."""

    def execute(self, program: Program, *args: Any, **kwargs: Any) -> list[Any]:
        outputs = super().execute(program, *args, **kwargs)
        return [o + 1 for o in outputs] if "torch.ceil" in program.targets else outputs


@pytest.mark.parametrize("alone", [True, False])
def test_a_wrong_value_is_not_excused_by_a_jump(alone: bool) -> None:
    values = {"x": np.array([0.5, 1.5, 2.5])}
    ceil = Call("v1", "torch.ceil", (Ref("x" if alone else "v0"),))
    calls = (ceil,) if alone else (Call("v0", "torch.sin", (Ref("x"),)), ceil)
    assert outcomes(values, *calls, engine=OffByOne())["value"] == "failed"


def test_a_wrong_rule_before_a_tie_is_found_and_blamed() -> None:
    values = {"x": np.array([0.5, 0.5, 0.25])}
    calls = (Call("v0", "torch.exp", (Ref("x"),)), Call("v1", "torch.amax", (Ref("v0"),)))
    wrong = WrongRule("torch.exp", lambda g, x: g * (1 + 1e-9))
    found = {r.check: r for r in results(values, *calls, engine=wrong)}
    assert found["vjp"].outcome == "failed"
    assert found["vjp"].evidence["culprit"] == "torch.exp"


def test_a_wrong_rule_beside_kinks_that_meet_is_found_by_the_numerical_check_alone() -> None:
    values = {"x": np.zeros(3), "y": np.array([0.5, 1.5])}
    whole = Program(
        tuple(Input.of(n, x, requires_grad=True) for n, x in values.items()),
        (Call("v0", F + "relu", (Ref("x"),)), Call("v1", "torch.sin", (Ref("y"),))),
        (Ref("v0"), Ref("v1")),
    )
    settings = Settings(standalone=0, checks=("numerical",))
    for factor, outcome in ((1.0, "passed"), (40.0, "failed")):
        wrong = WrongRule("torch.sin", lambda g, x, factor=factor: g * factor)
        context = checks.context_for(settings, wrong, TorchEngine())
        (found,) = checks.check_sample(Sample("op", whole, values), context, "test")
        assert found.outcome == outcome, found.evidence


def test_a_wrong_convention_at_a_tie_is_found() -> None:
    values = {"x": np.array([0.5, 0.5, 0.25])}
    calls = (Call("v0", "torch.exp", (Ref("x"),)), Call("v1", "torch.amax", (Ref("v0"),)))

    def first(g: Any, x: Any) -> Any:
        made = torch.zeros_like(g)
        made[x.argmax()] = g.sum()
        return made

    wrong = WrongRule("torch.amax", first)
    found = {r.check: r for r in results(values, *calls, engine=wrong)}
    assert found["vjp"].outcome == "failed"
    assert found["vjp"].evidence["culprit"] == "torch.amax"


class Off(RefgradEngine):
    """Its gradients are off by a number, or by one that nine digits of the values decide."""

    def __init__(self, by: float, *, at_random: bool) -> None:
        super().__init__()
        self.by, self.at_random = by, at_random

    def vjp(self, program: Program, values: Any, *given: Any, **options: Any) -> Vjp:
        found = super().vjp(program, values, *given, **options)
        rng = np.random.default_rng(list(np.round(values["x"], 9).tobytes()))
        for gradient in found.gradients.values():
            assert gradient is not None
            gradient += self.by * (rng.standard_normal(gradient.shape) if self.at_random else 1)
        return found

    def jvp(self, program: Program, values: Any, *given: Any) -> tuple[Array, ...]:
        found = super().jvp(program, values, *given)
        rng = np.random.default_rng(list(np.round(values["x"], 9).tobytes()))
        return tuple(
            t + self.by * (rng.standard_normal(t.shape) if self.at_random else 1) for t in found
        )


@pytest.mark.parametrize("at_random", [True, False])
def test_rounding_within_a_call_has_either_sign_nearby_in_forward_mode(at_random: bool) -> None:
    values = {"x": np.array([[1.0, 2.5, -0.5, 3.0]])}
    call = Call("v0", F + "layer_norm", (Ref("x"), (4,)))
    for by, outcome in ((6e-12, "precision"), (1e-9, "failed")):
        engine = Off(by, at_random=at_random)
        settings = Settings(standalone=0, checks=("jvp",))
        context = checks.context_for(settings, engine, TorchEngine())
        given = Sample("op", program(values, call), values)
        (found,) = checks.check_sample(given, context, "test")
        assert found.outcome == (outcome if at_random else "failed")


@pytest.mark.parametrize("at_random", [True, False])
def test_rounding_within_a_call_has_either_sign_nearby(at_random: bool) -> None:
    """Of the cross entropy of what is nearly certain: log(1 + exp(-10)) is rounded beside the 1."""
    values = {"x": np.array([[34.0, 36.5, 46.5]])}
    call = Call("v0", F + "cross_entropy", (Ref("x"), Ref("i")))
    values["i"] = np.array([2])
    for by, outcome in ((3e-16, "precision"), (3e-14, "failed")):
        found = outcomes(values, call, engine=Off(by, at_random=at_random))
        assert found["vjp"] == (outcome if at_random else "failed")


def test_a_route_that_differs_at_a_kink_as_rr_does_is_told_once() -> None:
    """At an exponent of 0 torch's second derivative of pow is wrong; beside a maximum that ties."""
    values = {"x": np.array([0.58, 0.0, 1.1]), "z": np.zeros(1), "b": np.array([3.8, 3.2, 2.1])}
    calls = (
        Call("v0", "torch.maximum", (Ref("x"), Ref("z"))),
        Call("v1", "torch.pow", (Ref("b"), Ref("v0"))),
    )
    settings = Settings(order=2, standalone=0, checks=("rr", "fr", "rf", "ff"))
    context = checks.context_for(settings, RefgradEngine(), TorchEngine())
    sample = Sample("op", program(values, *calls), values)
    found = {r.check: r for r in checks.check_sample(sample, context, "test")}
    assert found["rr"].outcome == "failed"
    assert found["rr"].evidence["verdict"].startswith("reference wrong")
    for route in ("fr", "rf"):
        assert found[route].outcome == "passed"
        assert "which rr judges" in found[route].evidence["note"]


def test_every_use_is_moved_by_itself_but_what_is_written_later() -> None:
    values = {"x": np.array([1.0, 2.0])}
    whole = program(
        values,
        Call("v0", "torch.mul", (Ref("x"), Ref("x"))),
        Call("v1", "torch.Tensor.view", (Ref("v0"), (2, 1))),
        Call("v2", "torch.Tensor.exp_", (Ref("v1"),)),
        Call("v3", "torch.sub", (Ref("v0"), Ref("v0"))),
    )
    engine = TorchEngine()
    other, noisy = moved(engine, whole, values, np.random.default_rng(0), 1.0)
    changed = [c for c in other.calls if c.name.startswith("moved")]
    assert [c.args[0] for c in changed] == [Ref("x"), Ref("x"), Ref("v0"), Ref("v0")]
    assert engine.run(whole, values).outputs[0].tolist() == [0.0, 0.0]
    (difference,) = engine.run(other, noisy).outputs
    assert 0 < np.abs(difference).max() < 1e-12


def test_changes_grow_with_the_noise_and_jumps_do_not() -> None:
    engine, values = TorchEngine(), {"x": np.array([0.3, 1.0])}

    def moves(target: str, epsilons: float, of: Any = np.median) -> float:
        whole = program(values, Call("v0", target, (Ref("x"),)))
        found = changes(
            engine, whole, values, lambda p, v: {"y": engine.run(p, v).outputs[0]}, "y",
            slice(None), np.random.default_rng(1), epsilons,
        )  # fmt: skip
        return float(of(found))

    assert 30 < moves("torch.exp", 64.0) / moves("torch.exp", 1.0) < 130
    assert {moves("torch.floor", epsilons, np.max) for epsilons in (1.0, 64.0)} == {1.0}
