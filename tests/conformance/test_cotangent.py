"""Second order in the cotangent, and the cotangents that a loss sends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from conformance import check_gradients, checks
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.mutants import MUTANTS
from conformance.program import Ref
from conformance.report.gradients import Report
from conformance.results import Result
from conformance.settings import Settings
from tests.conformance.test_api import randn
from tests.conformance.test_checks import sample


class Cut(Function):
    """sin, whose gradient does not depend on grad_output for autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.mul(g.detach(), x.cos().conj())


class Linear(Function):
    """Three times, whose H is 0 whatever becomes of grad_output."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 3 * g.detach()


class Back(Function):
    """sin's gradient, with twice the derivative in grad_output."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, g)
        return g * x.cos()

    @staticmethod
    def backward(ctx: Any, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, g = ctx.saved_tensors
        return -h * g * x.sin(), 2 * h * x.cos()


class Twice(Cut):
    """sin by that gradient."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Back.apply(ctx.saved_tensors[0], g)  # type: ignore[no-untyped-call]
        return found


def rr(report: Report) -> Result:
    (found,) = (r for r in report.results if r.check == "rr")
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("wrong", [Cut, Linear])
def test_a_detached_cotangent_is_found(wrong: Any, dtype: torch.dtype) -> None:
    report = check_gradients(wrong.apply, randn(4, dtype=dtype), order=2)
    assert report.failed
    said = rr(report).evidence
    assert said["diagnosis"] == "cotangent"
    assert said["verdict"].startswith("engine wrong: with respect to the cotangent (grad_output)")
    assert said["verdict"].endswith("as of a detached grad_output")
    assert check_gradients(wrong.apply, randn(4, dtype=dtype)).ok


def test_a_wrong_second_derivative_in_the_cotangent_is_found_and_measured() -> None:
    said = rr(check_gradients(Twice.apply, randn(4), order=2)).evidence
    assert said["engine"] == pytest.approx(2 * said["numerical"])


def test_the_call_that_loses_the_cotangent_is_named() -> None:
    def composed(x: torch.Tensor) -> torch.Tensor:
        return Cut.apply(x.exp()).tanh()  # type: ignore[no-untyped-call, no-any-return]

    said = rr(check_gradients(composed, randn(4), order=2)).evidence
    assert said["culprit"].endswith("Cut")
    assert said["first_call"].endswith("alone it is wrong in its cotangent")


@pytest.mark.parametrize(
    "function",
    [
        torch.sqrt,  # inf at 0
        torch.log,  # -inf, and inf
        torch.abs,
        lambda x: torch.max(x, 0),  # an integer output
        lambda x: (x.detach(), x.sum()),  # an output without a graph
        lambda x: (x, 2 * x),
        lambda x: x.clone().mul_(x),
        lambda x: torch.complex(x, x * x).exp(),
        lambda x: x * 0,
    ],
)
def test_right_functions_are_right_in_the_cotangent(function: Any) -> None:
    x = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    report = check_gradients(function, x, order=2)
    assert report.ok, str(report)


@pytest.mark.parametrize("linear", [False, True])
def test_what_is_differentiable_once_says_so(linear: bool) -> None:
    class Once(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return 3 * x if linear else x.sin()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return 3 * g if linear else g * ctx.saved_tensors[0].cos()

    assert check_gradients(Once.apply, randn(4)).ok
    said = str(rr(check_gradients(Once.apply, randn(4), order=2)).evidence["verdict"])
    assert said.startswith("engine wrong: its backward pass cannot be differentiated")
    assert "marked with @once_differentiable" in said


@pytest.mark.parametrize("op", ["sin", "exp", "sum", "cumsum", "neg"])
def test_a_rule_of_the_engine_that_detaches_it_is_found(op: str) -> None:
    mutant = MUTANTS[f"{op} by a detached cotangent"]
    args = (Ref("x0"), 0) if op == "cumsum" else (Ref("x0"),)
    one = sample((f"torch.{op}", args), x0=np.array([0.5, 2.0]))
    context = checks.context_for(Settings(checks=("rr",)), RefgradEngine(), TorchEngine())
    with mutant.applied():
        (found,) = checks.check_sample(one, context, "test")
    assert found.outcome == "failed"
    assert found.evidence["diagnosis"] == "cotangent"
    (right,) = checks.check_sample(one, context, "test")
    assert right.outcome == "passed"


class Scaled(Function):
    """Twice, with three times its gradient where `odd` holds of grad_output."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, odd: Any) -> torch.Tensor:
        ctx.odd = odd
        return 2 * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return 2 * g * (3 if ctx.odd(g) else 1), None


ODD = {
    "linear": (lambda g: bool((g == 1).all()), lambda g: int(g.count_nonzero()) == 1),
    "create_graph": (lambda g: g.requires_grad,),
    "negated_cotangents": (lambda g: g.is_neg(),),
}


@pytest.mark.parametrize(("name", "odd"), [(n, odd) for n, each in ODD.items() for odd in each])
def test_a_condition_on_the_cotangent_is_found(name: str, odd: Any) -> None:
    report = check_gradients(lambda x: Scaled.apply(x, odd), randn(4))  # type: ignore[no-untyped-call]
    assert {r.check for r in report.results if r.outcome == "failed"} == {f"invariants.{name}"}


def _memory(x: torch.Tensor) -> torch.Tensor:
    """What a kernel finds that reads memory: the number without its bits."""
    unseen = torch._conj(x) if x.is_conj() else torch._neg_view(x) if x.is_neg() else x
    return unseen.resolve_conj().resolve_neg().clone()


class Kernel(Function):
    """A product by kernels that do not see the bits of what they are given."""

    blind = ""

    @classmethod
    def read(cls, what: str, x: torch.Tensor) -> torch.Tensor:
        return _memory(x) if cls.blind == what else x

    @classmethod
    def forward(cls, ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @classmethod
    def backward(cls, ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = (cls.read("inputs", t) for t in ctx.saved_tensors)
        g = cls.read("cotangents", g)
        return g * y.conj(), g * x.conj()


class BlindToInputs(Kernel):
    blind = "inputs"


class BlindToCotangents(Kernel):
    blind = "cotangents"


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("function", [Kernel, BlindToInputs, BlindToCotangents])
def test_a_kernel_that_does_not_see_a_bit_is_found(function: Any, dtype: torch.dtype) -> None:
    report = check_gradients(function.apply, *(randn(3, dtype=dtype) for _ in range(2)))
    failed = {r.check for r in report.results if r.outcome == "failed"}
    bits = ("negated", "conjugated") if dtype.is_complex else ("negated",)
    assert failed == (
        {f"invariants.{b}_{function.blind}" for b in bits} if function.blind else set()
    )


def test_a_complex_rule_that_refuses_a_conjugated_cotangent_is_wrong() -> None:
    class Rotates(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return 1j * x

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            real, imaginary = torch.view_as_real(g).unbind(-1)
            return torch.complex(imaginary, -real)

    report = check_gradients(Rotates.apply, randn(3, dtype=torch.complex128))
    assert report.verdict.startswith("engine wrong: lazily conjugated cotangents")


def test_a_real_rule_that_refuses_a_negated_cotangent_is_none_for_it() -> None:
    class ByNumPy(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(2 * x.detach().numpy())

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(2 * g.numpy())

    report = check_gradients(ByNumPy.apply, randn(3))
    refused = {r.check: r.outcome for r in report.results if "negated" in r.check}
    assert set(refused.values()) == {"unsupported"}


def test_what_cancels_is_rounding_in_both_modes_and_in_every_invariant() -> None:
    from torch.distributions import Bernoulli, Geometric, Poisson, kl_divergence

    p = torch.tensor([0.2, 0.45, 0.8], dtype=torch.float64)
    for family in (Bernoulli, Geometric, Poisson):

        def divergence(a: torch.Tensor, b: torch.Tensor, family: Any = family) -> torch.Tensor:
            return kl_divergence(family(a), family(b))

        report = check_gradients(divergence, p.clone().requires_grad_(), p.clone().requires_grad_())
        assert not report.failed or report.verdict.startswith("numerical is inconclusive"), report


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_certainty_leaves_of_terms_of_order_one_is_rounding(dtype: torch.dtype) -> None:
    x = torch.tensor([[70.0, 3.0, -5.0, 1.0]], dtype=dtype, requires_grad=True)
    report = check_gradients(
        lambda x: torch.nn.functional.cross_entropy(x, torch.tensor([0])), x, order=2
    )
    assert not report.failed, report
    assert not report.inconclusive, report
    assert {r.outcome for r in report.results if r.check == "rr"} == {"passed"}


def test_a_small_function_has_no_terms_of_order_one() -> None:
    class Small(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return 1e-20 * x * x

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return 2e-20 * ctx.saved_tensors[0] * g.detach()

    report = check_gradients(Small.apply, randn(4), order=2)
    assert "cotangent" in report.verdict
