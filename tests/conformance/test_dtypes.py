"""Judging in float32, in complex numbers and in several dtypes at once: no false alarm, no gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conformance import check_gradients, checks
from conformance.checks.compare import Difference
from conformance.engines.base import Engine
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.oracles.directional import by_stencil
from conformance.program import Array, Input, Program, Ref, Values
from conformance.results import Result
from conformance.settings import Settings
from conformance.sources import Skipped, load
from conformance.sources.base import Sample
from conformance.sources.captured import capture
from tests.conformance.test_api import randn
from tests.conformance.test_checks import sample
from tests.fakes import engines as fakes

RNG = np.random.default_rng(0)
X = RNG.standard_normal(3)
Z = RNG.standard_normal(3) + 1j * RNG.standard_normal(3)
SECOND = ("rr", "fr", "rf", "ff")
FIRST = ("value", "vjp", "numerical", "jvp")


def judged(
    one: Sample,
    *chosen: str,
    engine: Engine | None = None,
    reference: Engine | None = None,
) -> dict[str, Result]:
    """The results by check."""
    context = checks.context_for(
        Settings(checks=chosen),
        engine=engine or RefgradEngine(),
        reference=reference or TorchEngine(),
    )
    return {r.check: r for r in checks.check_sample(one, context, "test")}


ADD = (("torch.add", (Ref("x0"), Ref("x1"))),)
MUL = (("torch.mul", (Ref("x0"), Ref("x1"))), ("torch.mul", (Ref("v0"), Ref("x0"))))
ENTR = (("torch.special.entr", (Ref("x0"),)),)
INVERSE = (("torch.linalg.inv", (Ref("x0"),)),)
PROD = (("torch.prod", (Ref("x0"),)),)


@pytest.mark.parametrize(
    ("calls", "values"),
    [
        (ADD, {"x0": Z, "x1": Z}),  # its second order does not arise
        (MUL, {"x0": Z, "x1": 2 * Z}),
        (MUL, {"x0": Z.astype(np.complex64), "x1": Z.astype(np.complex64)}),
        (MUL, {"x0": X, "x1": Z.astype(np.complex64)}),  # the first leaf is not the coarsest
        (ENTR, {"x0": np.abs(X).astype(np.float32)}),  # without a reading for the complex step
        (INVERSE, {"x0": (np.eye(3) + 0.1 * np.outer(Z, Z)).astype(np.complex64)}),
    ],
)
def test_every_check_decides_and_none_is_a_false_alarm(
    calls: Any, values: dict[str, Array]
) -> None:
    found = judged(sample(*calls, **values), *FIRST, *SECOND)
    assert {name: r.outcome for name, r in found.items()} == dict.fromkeys(found, "passed")
    assert set(found) == {*FIRST, *SECOND}


def test_a_gradient_may_underflow() -> None:
    values = {"x0": np.full(60, 1e-3, np.float32)}
    found = judged(sample(*PROD, **values), "vjp", "numerical")
    assert [r.outcome for r in found.values()] == ["passed", "passed"]


class Doubled(TorchEngine):
    """torch with twice its second order."""

    def hvp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        tangents: Mapping[str, Array],
        route: str = "rr",
    ) -> dict[str, Array | None]:
        found = super().hvp(program, values, cotangents, tangents, route)
        return {name: None if h is None else 2 * h for name, h in found.items()}


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
def test_the_arbiter_rules_on_second_order_in_every_dtype(dtype: str) -> None:
    x, y = (Z if dtype.startswith("c") else Z.real).astype(dtype), (Z.imag + 2).astype(dtype)
    one = sample(*MUL, x0=x, x1=y)
    of_reference = judged(one, "rr", reference=Doubled())["rr"]
    assert of_reference.outcome == "failed"
    assert of_reference.evidence["verdict"].startswith("reference wrong")
    of_engine = judged(one, "rr", engine=Doubled())["rr"]
    assert of_engine.outcome == "failed"
    assert of_engine.evidence["verdict"].startswith("engine wrong")


@pytest.mark.parametrize(
    ("left", "right", "part"),
    [
        (1.0, 2.0, (1.0, 1.0, 2.0)),
        (1 + 5j, 2 + 1j, (1j, 5.0, 1.0)),
        (9 + 5j, 2 + 1j, (1.0, 9.0, 2.0)),
        (complex(1, np.nan), 1 + 1j, (1j, np.nan, 1.0)),
    ],
)
def test_of_a_complex_entry_the_part_that_differs_more_is_judged(
    left: complex, right: complex, part: tuple[complex, float, float]
) -> None:
    found = Difference("value", (0,), left, right).part
    assert found[0] == part[0]
    assert np.array_equal(found[1:], part[1:], equal_nan=True)


def test_opinfo_draws_each_dtype_that_has_a_derivative() -> None:
    settings = Settings(dtypes=("float32", "complex64"), samples_per_entry=1)
    source = load("opinfo")
    (item,) = (i for i in source.items(settings) if i.key == "to_sparse")
    kept, left_out = source.samples(item, settings)
    assert isinstance(kept, Sample)
    assert kept.program.leaves[0].dtype == "float32"
    assert isinstance(left_out, Skipped)
    assert "no derivative of it in complex64" in left_out.reason


def _root_mean_square(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As T5 has it, whatever the model's dtype."""
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(variance + 1e-6))


def _by_method(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x.float().pow(2).tanh().double()


@pytest.mark.parametrize("function", [_root_mean_square, _by_method])
def test_what_runs_in_float32_on_the_way_loses_precision_and_is_not_wrong(
    function: Callable[..., torch.Tensor],
) -> None:
    x, weight = randn(3, 6), randn(6)
    report = check_gradients(function, x, weight)
    assert report.ok, str(report)
    made = capture(function, (x, weight))
    one = Sample("rms", made.program, made.values)
    assert {r.outcome for r in judged(one, *FIRST).values()} <= {"passed", "precision"}
    wrong = judged(one, *FIRST, engine=fakes.MissingFactor())
    assert wrong["vjp"].outcome == "failed"
    assert wrong["numerical"].outcome == "failed"


def test_a_float32_constant_beside_a_cast_is_no_float32_function() -> None:
    made = capture(_root_mean_square, (randn(3, 6), randn(6)))
    table = np.ones(6, np.float32)
    inputs = (*made.program.inputs, Input.of("k0", table))
    one = Sample("rms", replace(made.program, inputs=inputs), made.values | {"k0": table})
    context = checks.context_for(Settings(standalone=0), RefgradEngine(), TorchEngine())
    assert max(np.max(gap) for gap in context.case(one, "user").outputs_narrowed) > 1e-9


def test_a_stencil_needs_no_leaf() -> None:
    one = sample(("torch.sin", (Ref("x0"),)), x0=X)
    still = Program(tuple(replace(i, requires_grad=False) for i in one.program.inputs),
                    one.program.calls, one.program.outputs)  # fmt: skip
    found = by_stencil(TorchEngine(), still, one.values, [np.ones(3)], {})
    assert found.value == 0


@pytest.mark.parametrize("seed", range(2))
def test_in_16_bits_a_factor_of_two_does_not_pass(seed: int) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return 2 * g

    layer = torch.nn.Linear(8, 8)

    def model(x: torch.Tensor, *, right: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
            return torch.tanh(y if right else Twice.apply(y)).float().sum()

    torch.manual_seed(seed)
    x = torch.randn(2, 8, requires_grad=True)
    assert not check_gradients(lambda x: model(x, right=False), x).ok
    assert not check_gradients(lambda x: model(x, right=True), x).failed


def test_what_flows_out_in_less_precision_is_held_to_it() -> None:
    """A tensor without dimensions does not promote: the sum of its gradient's terms is float32."""
    torch.manual_seed(0)
    x = torch.randn(5, requires_grad=True)
    most = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    report = check_gradients(torch.clamp_max, x, most)
    assert report, str(report)

    def wrong(x: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
        return torch.clamp_max(x, SlightlyOff.apply(most))

    assert not check_gradients(wrong, x, most)


class SlightlyOff(torch.autograd.Function):
    """The identity, whose gradient is off by more than float32 rounds."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g * (1 + 1e-4)


def test_a_number_that_decides_hides_no_rounding_of_the_others() -> None:
    """A target that is 1 or -1, and that requires grad: moved by an epsilon it is neither."""
    torch.manual_seed(3)
    x = torch.randn(5, 5, requires_grad=True)
    y = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    target = torch.where(torch.rand(5) < 0.3, 1.0, -1.0).double().requires_grad_()

    def loss(x: torch.Tensor, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_embedding_loss(x, y, target, -0.9, reduction="sum")

    report = check_gradients(loss, x, y, target)
    assert {r.outcome for r in report.results if r.check in ("value", "vjp")} <= {
        "passed",
        "precision",
    }, str(report)
