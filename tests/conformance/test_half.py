"""Derivatives in float16 and bfloat16: what overflows there, and what rounding explains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conformance import check_gradients
from conformance.checks import check_sample, context_for
from conformance.checks.base import MODEL_CALLS
from conformance.checks.narrow import cast, rounded
from conformance.cli import main
from conformance.engines.torch import TorchEngine
from conformance.explain import run
from conformance.question import Question, comparison
from conformance.report.gradients import Report
from conformance.results import Result
from conformance.settings import HALF_CHECKS, Settings
from conformance.sources.base import Sample
from conformance.sources.captured import capture


class Angle(torch.autograd.Function):
    """atan2, by a rule that divides by a square: beyond float16 where the operands are small."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return torch.atan2(a, b)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = ctx.saved_tensors
        r = (a * a + b * b).reciprocal()
        return g * b * r, -g * a * r


class ScaledAngle(Angle):
    """The same by a rule without squares."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = ctx.saved_tensors
        r = torch.hypot(a, b)
        return g / r * (b / r), -g / r * (a / r)


class Product(torch.autograd.Function):
    """x y, whose second derivative takes a detour by a quotient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = ctx.saved_tensors
        return Rest.apply(g, x, y), Rest.apply(g, y, x)


class Rest(torch.autograd.Function):
    """g y, differentiated as g (x y) / x is."""

    @staticmethod
    def forward(ctx: Any, g: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(g, x, y)
        return g * y

    @staticmethod
    def backward(ctx: Any, t: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        g, x, y = ctx.saved_tensors
        return t * y, None, t * (g / (x * x)) * x * x


def inputs(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.rand(s, dtype=torch.float64, generator=generator) + 0.5 for s in shapes)
    return tuple(x.requires_grad_() for x in drawn)


def failing(report: Report) -> set[str]:
    return {r.check for r in report.results if r.outcome == "failed"}


def judged(function: Any, *given: torch.Tensor) -> dict[str, Result]:
    """What the two checks say of a function of plain torch."""
    captured = capture(function, given)
    settings = Settings(engine="torch", checks=HALF_CHECKS, standalone=0)
    context = context_for(settings, TorchEngine(), TorchEngine())
    sample = Sample("it", captured.program, captured.values)
    return {r.check: r for r in check_sample(sample, context, "user")}


def test_a_rule_that_overflows_float16_alone() -> None:
    report = check_gradients(Angle.apply, *inputs((4,), (4,)), half=True)
    assert failing(report) == {"half"}
    assert report.worst is not None
    evidence = report.worst.evidence
    assert evidence["verdict"].startswith("engine wrong: its float16 gradient is ")
    assert not np.isfinite(evidence["engine"])
    assert abs(evidence["numerical"]) < 65504
    assert "where x0[" in evidence["description"]
    assert check_gradients(Angle.apply, *inputs((4,), (4,))).ok  # where nobody asks


def test_a_rule_without_squares_passes() -> None:
    report = check_gradients(ScaledAngle.apply, *inputs((4,), (4,)), half=True, order=2)
    assert report.ok, report


def test_a_second_derivative_that_overflows() -> None:
    report = check_gradients(Product.apply, *inputs((3,), (3,)), half=True, order=2)
    assert failing(report) == {"half2"}
    assert "Hessian-vector product" in report.verdict


@pytest.mark.parametrize(
    "function",
    [
        torch.nn.functional.tanhshrink,  # small beside its terms
        lambda x: torch.nn.functional.layer_norm(x, (2,)),  # the terms of its gradient cancel
        lambda x: torch.relu(x - 1),  # zero at most places
        torch.log1p,
    ],
)
def test_what_rounding_explains_is_no_fault(function: Any) -> None:
    found = judged(function, *inputs((5, 2)))["half"]
    assert found.outcome == "passed", found.evidence
    assert found.evidence["compared"] > 40


def test_what_has_no_second_derivative_passes() -> None:
    assert judged(lambda x: (x * 3).sum(-1), *inputs((5, 2)))["half2"].outcome == "passed"


def test_a_gradient_that_is_silently_zero() -> None:
    class Magnitude(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.abs()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return g * (x * 2.0**-30).sign()

    report = check_gradients(Magnitude.apply, *inputs((3,)), half=True)
    assert failing(report) == {"half"}
    assert report.worst is not None
    assert report.worst.evidence["engine"] == 0 != report.worst.evidence["numerical"]


def test_each_call_is_judged_alone() -> None:
    def chain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return Angle.apply(a.exp(), b.cos()).sum()

    found = judged(chain, *inputs((3,), (3,)))["half"]
    assert found.outcome == "failed"
    assert found.evidence["culprit"].endswith("Angle")
    assert found.repro is not None
    assert "exp" not in found.repro["program"]


def test_each_call_of_a_model_is_judged() -> None:
    def long(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for _ in range(MODEL_CALLS):
            x = torch.cos(x)
        return Angle.apply(x, y)

    found = judged(long, *inputs((4,), (4,)))["half"]
    assert found.outcome == "failed"
    assert found.evidence["culprit"].endswith("Angle")


def test_complex_functions_are_left_alone() -> None:
    x = torch.ones(2, dtype=torch.complex128, requires_grad=True)
    assert not judged(torch.exp, x)


def test_what_has_no_kernel_is_unsupported() -> None:
    found = judged(torch.linalg.det, *inputs((3, 3)))["half"]
    assert found.outcome == "unsupported"
    assert "float16" in found.evidence["reason"]


def test_rounding_to_bfloat16_is_torchs() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(4000) * 10.0 ** rng.integers(-40, 39, 4000)
    halfway = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 3.4e38, np.inf, np.nan, 0.0])
    for array in (x, halfway):
        expected = torch.from_numpy(array).float().bfloat16().double().numpy()
        assert np.array_equal(rounded(array, "bfloat16").astype(float), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["vjp", "rr"])
def test_the_script_exits_1_where_it_is_wrong_alone(dtype: str, kind: str) -> None:
    captured = capture(lambda x: x**3, inputs((2,)))
    program, values = cast(captured.program, captured.values, {"float64": dtype})
    ones = np.ones(2)
    x = values["x0"].astype(np.float64)
    right = 3 * x**2 if kind == "vjp" else 6 * x
    asked = Question(kind, [ones], {"x0": ones}, dtype=dtype)
    for truth, code in ((right, 0), (right + 1, 1)):
        text = comparison(asked, program, values, {"x0": truth}, tolerance=0.1)
        assert text is not None
        assert run(text)[0] == code, text


def test_the_command_line_has_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = str(tmp_path / "half.jsonl")
    options = ["--engine", "torch", "--source", "opinfo", "-k", "logsigmoid", "-j", "1"]
    assert main(["run", *options, "--check", "half,half2", "--journal", journal]) == 0
    capsys.readouterr()
    module = tmp_path / "mine.py"
    module.write_text("import torch\n\ndef f(x):\n    return x.sin()\n")
    assert main(["verify", f"{module}:f", "--input", "float64[3]", "--half", "--draws", "1"]) == 0
    assert "OK" in capsys.readouterr().out
