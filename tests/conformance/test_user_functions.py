"""Functions of users: the right ones raise no alarm, and what is wrong of the others is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance import check_gradients
from conformance.sources.captured import capture
from tests.conformance.test_api import Right, randn

SYMMETRIC = {
    "eigvalsh": torch.linalg.eigvalsh,
    "eigenvectors": lambda a: torch.linalg.eigh(a)[1].abs(),
    "cholesky": torch.linalg.cholesky,
    "pinv": lambda a: torch.linalg.pinv(a, hermitian=True),
    "log det": lambda a: torch.linalg.cholesky(a).diagonal().log().sum(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_hermitian_leaf_stays_hermitian(name: str, dtype: torch.dtype) -> None:
    a = randn(3, 3, dtype=dtype).detach()
    a = a @ a.mH + 3 * torch.eye(3)
    a = ((a + a.mH) / 2).requires_grad_()
    function: Any = SYMMETRIC[name]
    report = check_gradients(lambda x: function(x).abs(), a)
    assert report.ok, str(report)
    (found,) = (r for r in report.results if r.check == "numerical")
    assert "Hermitian directions" in found.evidence["note"]


def test_a_wrong_gradient_of_a_hermitian_leaf_is_found() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:
            return a * 1.0

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return 1.001 * g

    a = randn(3, 3).detach()
    a = (a @ a.mT + 3 * torch.eye(3)).requires_grad_()
    assert check_gradients(lambda x: torch.linalg.cholesky(Wrong.apply(x)), a).failed


class Factor(torch.autograd.Function):
    """cholesky, with torch's own gradient, or half of it."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(a)
        ctx.factor = factor
        return torch.linalg.cholesky(a)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        with torch.enable_grad():
            a = ctx.saved_tensors[0].detach().requires_grad_()
            (found,) = torch.autograd.grad(torch.linalg.cholesky(a), a, g)
        return ctx.factor * found, None


def test_a_function_that_reads_one_triangle_is_told_what_to_do() -> None:
    a = randn(3, 3).detach()
    a = (a @ a.mT + 3 * torch.eye(3)).requires_grad_()
    report = check_gradients(lambda x: Factor.apply(x, 1.0), a)
    assert "give it (a + a.mH) / 2" in report.verdict
    assert not report.failed
    assert check_gradients(lambda x: Factor.apply((x + x.mH) / 2, 1.0), a).ok
    assert check_gradients(lambda x: Factor.apply(x, 0.5), a).failed


def test_a_module_s_buffers_lie_as_it_made_them() -> None:
    """torch reads a weight or a variance that is not contiguous as if it were."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    net(torch.randn(9, 3).double() * 3 + 1)
    net.eval()
    report = check_gradients(net, torch.randn(5, 3).double())
    assert report.ok, str(report)
    assert "invariants.strided_inputs" in {r.check for r in report.results}


@pytest.mark.parametrize("wrong", range(3))
def test_each_leaf_is_frozen_and_asked_for_alone(wrong: int) -> None:
    class Affine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(*given)
            x, w, b = given
            return x * w + b

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            x, w, _ = ctx.saved_tensors
            asked = list(ctx.needs_input_grad)
            asked[wrong] = asked[(wrong + 1) % 3]  # another's flag
            found = (g * w, g * x, g)
            return tuple(y if yes else None for y, yes in zip(found, asked, strict=True))

    for seed in range(4):
        report = check_gradients(Affine.apply, *(randn(4) for _ in range(3)), seed=seed)
        assert "which other leaves require grad" in report.verdict


@torch.library.custom_op("conformance_tests::cube_it", mutates_args=())
def cube_it(x: torch.Tensor) -> torch.Tensor:
    """x^3, without forward mode."""
    return x**3


cube_it.register_autograd(
    lambda ctx, g: 3 * ctx.saved_tensors[0] ** 2 * g,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@pytest.mark.parametrize(
    "function", [cube_it, lambda x: cube_it(x) + x.sin(), lambda x: (cube_it(x), x.sin())]
)
def test_a_custom_op_has_no_forward_mode_beside_others_either(function: Any) -> None:
    report = check_gradients(function, randn(4), order=2)
    assert report.ok, str(report)
    outcomes = {r.check: r.outcome for r in report.results}
    assert outcomes["jvp"] == outcomes["ff"] == "unsupported"
    assert outcomes["rr"] == "passed"


def test_a_script_looks_a_custom_op_up() -> None:
    made = capture(cube_it, (torch.ones(2, dtype=torch.float64, requires_grad=True),))
    script = made.program.script(made.values)
    assert "v0 = torch.ops.conformance_tests.cube_it.default(x0)" in script
    exec(script, found := {})
    np.testing.assert_array_equal(found["gradients"][0], [3.0, 3.0])


def test_forward_over_forward_writes_into_what_is_made_inside() -> None:
    def rows(x: torch.Tensor) -> torch.Tensor:
        made = torch.zeros(3, 4, dtype=x.dtype)
        for n in range(3):
            made[n] = x[n] ** 3
        return made

    report = check_gradients(rows, randn(3, 4), order=2)
    assert {r.check: r.outcome for r in report.results}["ff"] == "passed", str(report)


def test_forward_over_forward_takes_no_gradient_inside() -> None:
    def penalty(x: torch.Tensor) -> torch.Tensor:
        (slope,) = torch.autograd.grad(x.tanh().sum(), x, create_graph=True)
        return slope.square().sum()

    report = check_gradients(penalty, randn(4), order=2)
    assert report.ok, str(report)


def test_a_backward_pass_that_cannot_be_differentiated_is_right_at_first_order() -> None:
    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return torch.mul(g, x.cos(), out=torch.empty_like(g))

    assert check_gradients(Fused.apply, randn(4)).ok
    assert check_gradients(Fused.apply, randn(4), order=2).failed


def test_what_torch_s_own_tangents_refuse_is_no_fault_of_a_function() -> None:
    report = check_gradients(lambda x: x.softmax(-1), randn(3, 4), order=2)
    assert report.ok, str(report)
    assert {r.check: r.outcome for r in report.results}["rf"] == "unsupported"


@pytest.mark.parametrize("scale", [1e-120, 1e-160, 1e-200])
def test_values_near_zero_are_moved_by_parts_of_themselves(scale: float) -> None:
    x, y = (torch.tensor([n * scale], dtype=torch.float64, requires_grad=True) for n in (2, 1))
    report = check_gradients(torch.atan2, x, y)
    if scale > 1e-150:  # x x + y y is no smaller than the least number
        assert report.ok, str(report)
    else:
        assert report.verdict.startswith("engine wrong: stencil on refgrad gives")


def test_a_gradient_that_is_forgotten_is_named() -> None:
    class Forgets(Right):
        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
            return g * ctx.saved_tensors[1].sin(), None

    report = check_gradients(Forgets.apply, randn(3), randn(3))
    assert report.failed
    assert "x1" in str(report)
    assert "zero everywhere" in str(report)


@pytest.mark.parametrize("size", [3, 100])
def test_a_missing_conjugate_is_named(size: int) -> None:
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            a, b = ctx.saved_tensors
            return g * b, g * a.conj()

    a, b = (randn(size, dtype=torch.complex128) for _ in range(2))
    report = check_gradients(Product.apply, a, b + 1)
    assert report.failed
    assert "x0" in str(report)
    if size == 3:
        assert "should be by its conjugate" in str(report)
