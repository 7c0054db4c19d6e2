"""What custom Functions get wrong and ops do not: two calls in one graph, and float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conformance import check_gradients
from conformance.checks.narrow import cast
from conformance.checks.reentrant import twice
from conformance.engines.torch import TorchEngine
from conformance.report.gradients import Report
from conformance.sources.captured import capture
from conformance.specs import spec


class OnTheClass(torch.autograd.Function):
    """x^2, which keeps its input where the next call overwrites it."""

    kept: torch.Tensor

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        OnTheClass.kept = x
        return x * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 2 * OnTheClass.kept * g


class Overflowing(torch.autograd.Function):
    """sigmoid, by a derivative that is inf / inf in float32 above 88."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        e = torch.exp(x)
        return g * e / (1 + e) ** 2


class WideGradient(torch.autograd.Function):
    """x^2 with a gradient that is computed in float64 whatever x is."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        # 1 + u - 1 loses u to rounding: harmless in float64 at these sizes, not in float32
        return g * ((1e6 + 2 * x) - 1e6)


def failing(report: Report) -> set[str]:
    return {r.check for r in report.results if r.outcome == "failed"}


def test_a_function_that_is_not_reentrant() -> None:
    report = check_gradients(OnTheClass.apply, spec("float64[n]"))
    assert failing(report) == {"reentrant"}
    assert report.worst is not None
    assert report.worst.evidence["diagnosis"] == "not re-entrant"


@pytest.mark.parametrize("function", [Overflowing, WideGradient])
def test_a_gradient_wrong_in_float32_alone(function: Any) -> None:
    report = check_gradients(function.apply, spec("float64[5] in (60, 100)"), samples=4)
    assert "narrow" in failing(report)
    assert "float32" in str(report)


def test_a_function_that_refuses_float32_is_ok() -> None:
    def only_double(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float64:
            raise TypeError("double only")
        return x.sin()

    class Box(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return only_double(x)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * ctx.saved_tensors[0].cos()

    report = check_gradients(Box.apply, spec("float64[n]"))
    assert report.ok, report
    assert {r.outcome for r in report.results if r.check == "narrow"} == {"unsupported"}


def test_right_functions_are_right_twice_and_in_float32() -> None:
    def layer(x: torch.Tensor, w: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ w, -1)[:, i].logsumexp(0)

    inputs = spec("float64[n, m]"), spec("float64[m, 3]"), spec("int64[4] in [0, 3)")
    report = check_gradients(layer, *inputs)
    assert report.ok, report
    assert report.samples == 8


def test_twice_is_two_runs_with_their_own_values() -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    captured = capture(lambda x: (x.sin() * x, x.sum()), (x,))
    program, values = twice(captured.program, captured.values)
    outputs = TorchEngine().run(program, values).outputs
    alone = TorchEngine().run(captured.program, captured.values).outputs
    assert len(outputs) == 2 * len(alone) == 4
    assert all((a == b).all() for a, b in zip(outputs, alone, strict=False))
    assert (outputs[2] != outputs[0]).any()


def test_cast_replaces_values_inputs_and_named_dtypes() -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    captured = capture(lambda x: x.sum(dtype=torch.float64), (x,))
    program, values = cast(captured.program, captured.values, {"float64": "float32"})
    assert values["x0"].dtype == "float32"
    assert program.inputs[0].dtype == "float32"
    (output,) = TorchEngine().run(program, values).outputs
    assert output.dtype == "float32"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * 1e200 * 1e-200, "are not finite in float32"),
        (lambda x: (1e5 + x) - 1e5 + 1e-9 * x.sin().sign(), None),
        (lambda x: torch.sign((1e8 + x.detach()) - 1e8) * x, "in float32 are others"),
    ],
)
def test_a_function_that_is_another_in_float32(function: Any, reason: str | None) -> None:
    x = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    report = check_gradients(function, x)
    (found,) = (r for r in report.results if r.check == "narrow")
    assert report.ok, str(report)
    if reason is None:
        assert found.outcome == "passed"
    else:
        assert found.outcome == "unsupported"
        assert reason in found.evidence["reason"]


def test_a_second_call_moves_leaves_alone_and_keeps_inside_the_domain() -> None:
    probability = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    report = check_gradients(torch.nn.functional.binary_cross_entropy, probability, target)
    assert report.ok, report
