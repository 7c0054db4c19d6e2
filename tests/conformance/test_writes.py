"""Writes in place: what a call is given when it is cut out, and what a gradient reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance import check_gradients, checks
from conformance.engines.torch import TorchEngine
from conformance.program import Array, Call, Input, Program, Ref, Values
from conformance.settings import Settings
from conformance.sources.alone import calls_alone
from conformance.sources.base import Sample
from conformance.sources.captured import capture
from conformance.writes import differentiable, held, writes


def routed(x: torch.Tensor) -> torch.Tensor:
    """Rows in another order and back, by an index that is written; and a constant that is."""
    order = torch.argsort(x[:, 0])
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    scale = torch.zeros(3, dtype=x.dtype)
    scale[0] = x[0, 0]
    scale.mul_(2)
    return x[order].sin().index_select(0, back) * scale[0] + scale[:2].sum()


@pytest.fixture
def samples() -> dict[str, Sample]:
    x = torch.tensor([[0.3, 1.0], [-0.2, 2.0], [1.5, -1.0]], dtype=torch.float64).requires_grad_()
    made = capture(routed, (x,))
    return {s.label: s for s in calls_alone(made.program, made.values, "alone")}


def test_a_call_alone_is_given_what_was_written(samples: dict[str, Sample]) -> None:
    of = {label: sample for label, sample in samples.items() if sample.op.endswith("mul_")}
    (doubled,) = of.values()
    np.testing.assert_array_equal(doubled.values["x0"], [0.3, 0.0, 0.0])
    (selected,) = (s for s in samples.values() if s.op == "torch.index_select")
    np.testing.assert_array_equal(selected.values["x1"], [1, 0, 2])


def test_a_gradient_reaches_what_it_is_written_into(samples: dict[str, Sample]) -> None:
    for sample in samples.values():
        floats = [i for i in sample.program.inputs if i.dtype == "float64"]
        assert "empty" not in sample.op
        if sample.op != "torch.Tensor.__setitem__":
            assert all(i.requires_grad for i in floats), sample.label


def program(*calls: Call, **values: Array) -> tuple[Program, Values]:
    inputs = tuple(Input.of(n, v, requires_grad=v.dtype.kind == "f") for n, v in values.items())
    return Program(inputs, calls, Ref(calls[-1].name)).check(), values


def test_no_gradient_goes_through_integers() -> None:
    made, values = program(
        Call("v0", "torch.argsort", (Ref("x"),)),
        Call("v1", "torch.Tensor.double", (Ref("v0"),)),
        Call("v2", "torch.mul", (Ref("v1"), Ref("x"))),
        x=np.array([2.0, 1.0]),
    )
    kept = TorchEngine().run(made, values, keep=("*",)).kept
    assert differentiable(made, "v2", {**values, **kept}) == {"x", "v0"}
    alone, _ = made.isolate("v2", {**values, **kept})
    assert [i.requires_grad for i in alone.inputs] == [False, True]


def test_views_and_results_of_several_hold_what_was_written() -> None:
    made, values = program(
        Call("v0", "torch.clone", (Ref("x"),)),
        Call("v1", "torch.split", (Ref("v0"), 2)),
        Call("v2", "torch.Tensor.add_", (Ref("v1", (1,)), 10.0)),
        Call("v3", "torch.stack", ([Ref("v1", (0,)), Ref("v1", (1,))],)),
        Call("v4", "torch.Tensor.zero_", (Ref("v0"),)),
        x=np.arange(4.0),
    )
    assert writes(made) == dict.fromkeys(("v0", "v1", "v2", "v4"), 4)
    found = held(TorchEngine(), made, values, made.calls[3])
    assert isinstance(found["v1"], tuple)
    np.testing.assert_array_equal(found["v1"], [[0.0, 1.0], [12.0, 13.0]])
    np.testing.assert_array_equal(found["x"], np.arange(4.0))


def detached(x: torch.Tensor) -> torch.Tensor:
    """What was written into a constant is held where it is detached."""
    constant = torch.zeros(3, dtype=x.dtype)
    constant[0] = x[0]
    return (constant.detach() * x).sum()


def unrecorded(x: torch.Tensor) -> torch.Tensor:
    constant = torch.zeros(3, dtype=x.dtype)
    constant[0] = x[0]
    with torch.no_grad():
        doubled = constant * 2
    return (doubled * x).sum() + constant.sum()


class Third(torch.autograd.Function):
    """x^3, whose gradient lacks a factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g * ctx.saved_tensors[0] ** 2


@pytest.mark.parametrize("function", [detached, unrecorded])
def test_what_is_written_into_and_detached_is_held(function: Any) -> None:
    x = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64, requires_grad=True)
    report = check_gradients(function, x)
    assert report.ok, str(report)
    numerical = next(r for r in report.results if r.check == "numerical")
    assert numerical.outcome == "passed"
    assert not check_gradients(lambda x: function(Third.apply(x)), x).ok


# --- sorts that need not be stable ---------------------------------------------------------------


def value(target: str, x: Array, engine: Any = None, **options: Any) -> str:
    made, values = program(Call("v0", target, (Ref("x"),), options), x=x)
    settings = Settings(standalone=0, checks=("value",))
    context = checks.context_for(settings, engine or TorchEngine(), TorchEngine())
    (found,) = checks.check_sample(Sample("op", made, values), context, "test")
    return found.outcome


class Stable(TorchEngine):
    """An engine that keeps the order of equal elements, as torch does where it is asked to."""

    def _find(self, path: str) -> Any:
        def stable(x: Any, **options: Any) -> Any:
            made = torch.sort(x, **{"stable": True, **options})
            return made if path == "torch.sort" else made.indices

        return stable if path in ("torch.sort", "torch.argsort") else super()._find(path)


class Reversed(Stable):
    """One that sorts the other way round."""

    def _find(self, path: str) -> Any:
        found = super()._find(path)
        return lambda x, **options: found(x, **{**options, "descending": True})


@pytest.mark.parametrize("target", ["torch.sort", "torch.argsort"])
def test_equal_elements_may_be_sorted_in_any_order(target: str) -> None:
    x = np.tile([2, 0, 1, 0, 0, 2], 6)  # of so many torch moves equal ones
    assert value(target, x, Stable()) == "passed"
    assert value(target, x, Stable(), dim=0, descending=True) == "passed"
    assert value(target, x, Reversed()) == "failed"
    assert value("torch.argsort", x, Other(lambda i: i[0])) == "failed"
    assert value("torch.argsort", x, Other(lambda i: len(i))) == "failed"
    assert value("torch.argsort", x, Other(lambda i: -1)) == "failed"


class Other(Stable):
    """One whose second index is another: one that is there already, or none."""

    def __init__(self, index: Any) -> None:
        super().__init__()
        self.index = index

    def _find(self, path: str) -> Any:
        def other(x: Any, **options: Any) -> Any:
            made = torch.argsort(x, stable=True, **options)
            made[1] = self.index(made)
            return made

        return other if path == "torch.argsort" else super()._find(path)
