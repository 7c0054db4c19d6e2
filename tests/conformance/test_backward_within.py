"""Backward passes that run a module again, take gradients inside, or answer backward() alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from conformance import check_gradients
from conformance.errors import UsageError

D = torch.float64


class Again(torch.autograd.Function):
    """net(x), by a backward pass that runs the module again, as checkpoints and adjoints do."""

    scale = 1.0  # of the weights' gradients

    @staticmethod
    def forward(ctx: Any, net: nn.Module, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        ctx.net = net
        ctx.save_for_backward(x)
        with torch.no_grad():
            return net(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        (x,), twice = ctx.saved_tensors, torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if twice else x.detach().requires_grad_()
            wanted = (x, *ctx.net.parameters())
            first, *rest = torch.autograd.grad(ctx.net(x), wanted, g, create_graph=twice)
        return None, first, *(Again.scale * r for r in rest)


class Integral(torch.autograd.Function):
    """A midpoint rule, whose integrand is differentiated in what it holds, by what was saved."""

    @staticmethod
    def forward(ctx: Any, f: Callable[..., Any], b: torch.Tensor, *held: torch.Tensor) -> Any:
        ctx.f = f
        ctx.save_for_backward(b, *held)
        return Integral.rule(f, b)

    @staticmethod
    def rule(f: Callable[..., Any], b: torch.Tensor) -> torch.Tensor:
        return torch.stack([f(b * (k + 0.5) / 8) for k in range(8)]).sum(0) * b / 8

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        b, *held = ctx.saved_tensors
        with torch.enable_grad():
            b = b.detach().requires_grad_()
            area = Integral.rule(ctx.f, b)
        return None, *torch.autograd.grad(area, (b, *held), g)


class Within(torch.autograd.Function):
    """tanh(net(x)), whose gradients of the weights a backward pass inside leaves in `.grad`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, net: nn.Module) -> torch.Tensor:
        ctx.net, ctx.x = net, x.detach()
        with torch.no_grad():
            return net(x).tanh()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        with torch.enable_grad():
            x = ctx.x.requires_grad_()
            x.grad = None
            ctx.net(x).tanh().backward(g)
        return x.grad, None


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=D).requires_grad_()


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double()


def test_a_module_that_is_run_again_has_the_leaves_that_are_judged() -> None:
    net = smooth()
    report = check_gradients(lambda x: Again.apply(net, x, *net.parameters()), leaf(3, 2), order=2)
    assert report.ok, report
    assert {r.outcome for r in report.results if r.check in ("narrow", "rr")} == {"passed"}


def test_a_wrong_factor_beside_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = smooth()
    monkeypatch.setattr(Again, "scale", 1.001)
    report = check_gradients(lambda x: Again.apply(net, x, *net.parameters()), leaf(3, 2))
    assert "1.001 times" in str(report)


def test_at_a_kink_the_module_moves_with_the_inputs() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)).double()
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=D, requires_grad=True)
    report = check_gradients(lambda x: Again.apply(net, x, *net.parameters()), x)
    assert report.ok, report


def test_what_a_closure_holds_stays_for_the_backward_pass() -> None:
    w = leaf(3)
    report = check_gradients(lambda b: Integral.apply(lambda x: torch.exp(-w * x), b, w), leaf(3))
    assert report.ok, report


def test_gradients_that_are_left_in_grad_count() -> None:
    net = smooth()
    before = [p.detach().clone() for p in net.parameters()]
    report = check_gradients(lambda x: Within.apply(x, net), leaf(3, 2))
    (first,) = [r for r in report.results if r.check == "numerical"]
    assert first.outcome == "passed"
    assert any("backward() leaves" in note for note in report.notes)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_reentrant_checkpoint_is_judged_by_backward() -> None:
    report = check_gradients(
        lambda x: checkpoint(lambda y: y.sin() * y, x, use_reentrant=True), leaf(3, 2)
    )
    assert report.ok, report
    assert any("backward() leaves" in note for note in report.notes)


class Embedded(nn.Module):
    """A checkpoint that is given none of the parameters; of row 0 none is to have a gradient."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3, padding_idx=0, dtype=D)
        self.factor = factor

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        def rows(i: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return Square.apply(self.table(i).sin(), self.factor)

        reached: torch.Tensor = checkpoint(
            rows, indices, torch.ones(1, requires_grad=True), use_reentrant=True
        )
        return reached


class Square(torch.autograd.Function):
    """x^2, whose gradient is `factor` x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return ctx.factor * g * ctx.saved_tensors[0], None


def test_what_a_checkpoint_runs_has_its_own_stops() -> None:
    indices = torch.tensor([[0, 1], [4, 0]])

    def embedded(w: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(indices, w, padding_idx=0).sin()

    for function in (embedded, lambda x: x.sin() * x.detach().exp()):
        report = check_gradients(
            lambda x, f=function: checkpoint(f, x, use_reentrant=True), leaf(5, 3)
        )
        assert report.ok, report


@pytest.mark.parametrize("factor", [2.0, 2.1])
def test_a_checkpoint_is_given_no_parameter(factor: float) -> None:
    report = check_gradients(Embedded(factor), torch.tensor([[0, 1], [4, 0]]))
    assert report.failed == (factor != 2.0), report
    assert any("backward() leaves" in note for note in report.notes)


def test_the_callers_gradients_are_as_before() -> None:
    net = smooth()
    net(torch.ones(1, 2, dtype=D)).sum().backward()
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    check_gradients(lambda x: Within.apply(x, net), leaf(3, 2))
    after = [p.grad for p in net.parameters()]
    assert all(a is not None and torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_leaves_that_the_function_makes_are_its_own() -> None:
    """A gradient penalty on a detached input."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def penalty(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        return ((g.norm(dim=1) - 1) ** 2).mean()

    report = check_gradients(penalty, torch.randn(5, 3, dtype=D))
    assert report.ok, report


class Given(torch.autograd.Function):
    """A value and its gradient that were computed outside torch."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, gradient: torch.Tensor, x: torch.Tensor) -> Any:
        ctx.gradient = gradient
        return value

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return None, None, g * ctx.gradient


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_values_from_outside_torch_where_inputs_are_restricted(factor: float) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        v = x.detach().numpy()
        if abs(v.sum() - 1) > 1e-7:
            raise ValueError("the weights must sum to 1")
        return Given.apply(torch.tensor((v**3).sum()), torch.tensor(factor * 3 * v**2), x)

    report = check_gradients(f, torch.tensor([0.2, 0.3, 0.5], dtype=D, requires_grad=True))
    (numerical,) = [r for r in report.results if r.check == "numerical"]
    assert numerical.outcome == ("passed" if factor == 1 else "failed")


class Average(nn.Module):
    """A running scale, held as a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.calls = torch.ones((), dtype=D), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scale = 0.9 * self.scale + 0.1 * x.detach().abs().mean()
        self.calls += 1
        return torch.sin(x) / self.scale * self.calls


def test_plain_attributes_of_a_module_are_as_before_at_each_call() -> None:
    module = Average()
    report = check_gradients(module, leaf(3))
    assert report.ok, report
    assert module.calls == 0
    assert module.scale.item() == 1


def test_the_headline_of_what_does_not_repeat() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        x.register_hook(lambda g: g * torch.rand(()))
        return x.sin()

    report = check_gradients(f, leaf(3))
    assert "two runs differ" in report.verdict


def test_a_hard_gumbel_softmax_is_straight_through() -> None:
    report = check_gradients(lambda x: F.gumbel_softmax(x, hard=True), leaf(2, 3))
    assert report.ok, report


def test_an_implicit_gradient_is_not_decided() -> None:
    def f(a: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Gamma(a, torch.ones_like(a)).rsample()

    report = check_gradients(f, torch.tensor([0.7, 2.0], dtype=D, requires_grad=True))
    assert report.inconclusive
    assert "implicit" in report.verdict


def test_a_condition_is_judged_as_a_black_box() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))

    assert check_gradients(f, leaf(4)).ok


def test_a_sparse_input_is_refused_with_what_to_give() -> None:
    x = torch.eye(3, dtype=D).to_sparse().requires_grad_()
    with pytest.raises(UsageError, match=r"give its values\(\)"):
        check_gradients(lambda x: torch.sparse.sum(x) * 2, x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 2 * g


def test_a_long_program_is_cut() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            x = x * 1.01
        return Doubled.apply(x)

    report = check_gradients(f, leaf(2))
    assert report.failed
    assert len(str(report).splitlines()) < 90
    assert 'report.worst.repro["program"]' in str(report)
