"""A function as one opaque call: the tensors it replaces, what it holds constant, what it says."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conformance import check_gradients
from conformance.errors import CaptureError
from conformance.report.gradients import Report
from conformance.sources.black_box import BlackBox
from conformance.sources.captured import capture

D = torch.float64


class Doubled(torch.autograd.Function):
    """x w, whose gradient of w is twice the right one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, w = ctx.saved_tensors
        return g * w, g * x * 2


def wrong(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """What cannot be captured, as it draws random numbers inside."""
    return F.gumbel_softmax(Doubled.apply(x, w))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4, dtype=D))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return wrong(x, self.w)


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=D).requires_grad_()


W = leaf(3, 4)


def by_global(x: torch.Tensor) -> torch.Tensor:
    return wrong(x, W)


def by_closure() -> Callable[..., Any]:
    w = leaf(3, 4)
    inner = lambda x: wrong(x, w)
    return lambda x: inner(x)


def by_module() -> Callable[..., Any]:
    net = Net()
    return lambda x: net(x)


def by_default() -> Callable[..., Any]:
    def function(x: torch.Tensor, w: torch.Tensor = leaf(3, 4)) -> torch.Tensor:  # noqa: B008
        return wrong(x, w)

    return function


def by_keyword_default() -> Callable[..., Any]:
    def function(x: torch.Tensor, *, w: torch.Tensor = leaf(3, 4)) -> torch.Tensor:  # noqa: B008
        return wrong(x, w)

    return function


def by_argument(net: nn.Module, x: torch.Tensor) -> Any:
    return net(x)


class Holding:
    """An object that is called, or whose method is."""

    def __init__(self) -> None:
        self.net = Net()

    def loss(self, x: torch.Tensor) -> Any:
        return self.net(x)

    __call__ = loss


def by_list() -> Callable[..., Any]:
    weights = [leaf(3, 4), {"last": leaf(3, 4)}]
    return lambda x: wrong(x, weights[0] * weights[1]["last"])  # type: ignore[index, call-overload]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("function", "given", "kwargs"),
    [
        (Net(), (leaf(3, 4),), {}),
        (Net().forward, (leaf(3, 4),), {}),
        (by_module(), (leaf(3, 4),), {}),
        (by_closure(), (leaf(3, 4),), {}),
        (by_list(), (leaf(3, 4),), {}),
        (by_global, (leaf(3, 4),), {}),
        (by_default(), (leaf(3, 4),), {}),
        (by_keyword_default(), (leaf(3, 4),), {}),
        (functools.partial(by_argument, Net()), (leaf(3, 4),), {}),
        (by_argument, (Net(), leaf(3, 4)), {}),
        (Holding().loss, (leaf(3, 4),), {}),
        (Holding(), (leaf(3, 4),), {}),
        (functools.partial(wrong, w=leaf(3, 4)), (leaf(3, 4),), {}),
        (wrong, (leaf(3, 4),), {"w": leaf(3, 4)}),
        (lambda x, d: wrong(x, d["w"]), (leaf(3, 4), {"w": leaf(3, 4)}), {}),
        (lambda d: wrong(d["x"], d["w"]), ({"x": leaf(3, 4), "w": leaf(3, 4)},), {}),
    ],
)
def test_its_tensors_are_found_wherever_they_stand(
    function: Any, given: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(CaptureError):
        capture(function, given, kwargs)
    report = check_gradients(function, *given, kwargs=kwargs)
    assert report.failed
    assert report.worst is not None
    assert report.worst.evidence["diagnosis"] == "missing factor"
    assert W.grad is None


def test_what_it_replaces_is_back_in_its_place() -> None:
    net, w = Net(), leaf(3, 4)
    parameter = net.w
    holds = {"w": w}
    box = BlackBox(lambda x: wrong(net(x), holds["w"]), (leaf(3, 4),), {})
    assert set(box.tensors) == {"x0", "p0", "p1"}
    with box.undisturbed():
        program, values, _ = box.program("it")
    assert net.w is parameter
    assert holds["w"] is w
    assert values["p0"].shape == (3, 4)
    assert [i.aliases for i in program.inputs] == [(), ("w",), ("holds",)]


def test_leaves_out_of_reach_are_told_of_and_left_alone() -> None:
    hidden = [wrong_of(leaf(3, 4))]
    report = check_gradients(lambda x: hidden[0](x), leaf(3, 4))
    assert report.inconclusive
    assert any("1 more tensors that require grad" in note for note in report.notes)
    (w,) = (cell.cell_contents for cell in hidden[0].__closure__)  # type: ignore[attr-defined]
    assert w.grad is None


def wrong_of(w: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: F.gumbel_softmax(x * w)


def test_nothing_of_the_callers_is_changed() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3, dtype=D), nn.Dropout(0.5))
    generator = torch.Generator().manual_seed(3)
    x = leaf(4, 3)
    np.random.seed(0)
    random.seed(0)
    before = {n: b.clone() for n, b in net.named_buffers()}
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # type: ignore[index, union-attr]
    own = generator.get_state()

    def function(x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(3, generator=generator, dtype=D)
        return net(x) * noise * random.random() * float(np.random.rand())

    check_gradients(function, x)
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index, arg-type]
    assert random.getstate() == states[2]
    assert torch.equal(generator.get_state(), own)
    assert x.grad is None


def test_the_callers_contexts_are_not_the_functions() -> None:
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        x = leaf(3, 4)
        with context:
            report = check_gradients(lambda x: F.gumbel_softmax(x) @ x.T, x)
        assert report.ok, report


def implicit() -> Callable[..., Any]:
    """A fixed point that is found without gradient, whose gradient comes from a hook."""
    w = 0.3 * torch.randn(3, 3, dtype=D)

    def solve(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            z = torch.zeros_like(x)
            for _ in range(60):
                z = torch.tanh(z @ w + x)
        z = torch.tanh(z @ w + x)
        start = z.clone().detach().requires_grad_()
        step = torch.tanh(start @ w + x)

        def backward(g: torch.Tensor) -> torch.Tensor:
            y = g
            for _ in range(60):
                y = torch.autograd.grad(step, start, y, retain_graph=True)[0] + g
            return y

        if z.requires_grad:
            z.register_hook(backward)
        return z

    return solve


def clamped(w: torch.Tensor) -> torch.Tensor:
    """A projection that changes nothing, in place on a leaf."""
    with torch.no_grad():
        w.clamp_(-10, 10)
    return F.gumbel_softmax(w) * w.sin()


@pytest.mark.parametrize(
    "function",
    [
        implicit(),
        clamped,
        lambda x: F.gumbel_softmax(x) * x.data.cos(),
        lambda x: F.gumbel_softmax(x) * x.cos().detach_(),
        lambda x: F.gumbel_softmax(x) * torch.ones(3),  # float32, of no account
        lambda x: (F.gumbel_softmax(x), (x > 0).float().sum()),
    ],
)
def test_right_functions_with_parts_without_gradient(function: Any) -> None:
    report = check_gradients(function, leaf(2, 3))
    assert report.ok, report


def test_second_order_beside_what_is_stopped() -> None:
    def stopped(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            most = x.max()
        return F.dropout(x, 0.5) * (x - most).sin() * x.cos().detach()

    report = check_gradients(stopped, leaf(2, 3), order=2)
    assert report.ok, report


@pytest.mark.parametrize("hard", [True, False])
def test_second_order_of_what_saves_its_output(hard: bool) -> None:
    report = check_gradients(
        lambda x: F.gumbel_softmax(x, 1.0, hard) * x.sin(), leaf(2, 3), order=2
    )
    assert report.ok, report


class Normed(nn.Module):
    """A norm in float32, as T5's and Llama's are, that is read without gradient as well."""

    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=D))
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = Sloped.apply(x.to(torch.float32), self.slope)
        with torch.no_grad():
            largest = x.float().abs().max()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True, dtype=torch.float32))
        return self.weight * F.dropout((wide * scale / largest).to(x.dtype), 0.3)


class Sloped(torch.autograd.Function):
    """sin(x), whose gradient is `slope` times the right one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slope: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return g * ctx.saved_tensors[0].cos() * ctx.slope, None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_casts_on_the_way_are_left_out_of_numerical_derivatives(dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    report = check_gradients(boxed(Normed().to(dtype)), x)
    assert report.ok, report
    (found,) = (r for r in report.results if r.check == "numerical")
    assert found.evidence["bound"] < 1e-7
    said = any("it computes in float32 on the way" in note for note in report.notes)
    assert said == (dtype == D)
    assert check_gradients(boxed(Normed(1.001).to(dtype)), x).failed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_casts_to_sixteen_bits_are_left_out_too(dtype: torch.dtype) -> None:
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    report = check_gradients(boxed(lambda x: x.to(torch.bfloat16).sin().to(x.dtype)), x)
    assert report.ok, report


def test_a_kernel_of_float32_alone_keeps_its_casts() -> None:
    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == torch.float32
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * ctx.saved_tensors[0].cos()

    report = check_gradients(boxed(lambda x: Kernel.apply(x.float()).double()), leaf(4, 3))
    assert not report.failed, report


def boxed(function: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same with a factor that draws numbers, which no Program can hold."""
    return lambda x: function(x) * F.gumbel_softmax(x)


def test_a_buffer_that_two_modules_share_is_one() -> None:
    class Part(nn.Module):
        def __init__(self, shared: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("shared", shared)

    a = Part(torch.ones(2, dtype=D))
    b = Part(a.shared)  # type: ignore[arg-type]

    def function(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            a.shared.mul_(2)  # type: ignore[operator]
        return F.gumbel_softmax(x) * b.shared

    box = BlackBox(function, (leaf(2),), {})
    with box.undisturbed():
        out = box(torch.zeros(2, dtype=D))
    assert out.sum() == 2
    assert a.shared.sum() == 2  # type: ignore[operator]


def test_what_holds_itself_is_no_obstacle() -> None:
    ring: list[Any] = []
    ring.append(ring)
    report = check_gradients(lambda x: F.gumbel_softmax(x) * len(ring), leaf(3))
    assert report.ok, report


def test_a_hook_on_a_leaf_is_judged_with_it() -> None:
    layer = nn.Linear(3, 4, dtype=D)
    layer.weight.register_hook(lambda g: 2 * g)
    report = check_gradients(layer, leaf(2, 3))
    assert report.failed
    assert any("hooks make of a gradient" in note for note in report.notes)


class Average(nn.Module):
    """A buffer that is updated by each forward pass, and read."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, dtype=D))
        self.w = nn.Parameter(torch.randn(3, dtype=D))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return ((x - self.mean) * self.w).tanh()


class Siamese(nn.Module):
    """A loss that stops one of its gradients, beside dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True, dtype=D)
        self.second = nn.Linear(8, 8, dtype=D)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.first(x, x, x)[0]
        return -F.cosine_similarity(self.second(z), z.detach(), dim=-1).mean()


def penalty() -> Callable[..., Any]:
    layer = nn.Linear(2, 4, dtype=D)

    def run(x: torch.Tensor) -> torch.Tensor:
        (g,) = torch.autograd.grad(F.gumbel_softmax(layer(x))[:, 0].sum(), x, create_graph=True)
        return g.pow(2).sum()

    return run


def hooked(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    y.register_hook(lambda g: None)
    return y * x


def by_first_order(w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def loss(w: torch.Tensor) -> torch.Tensor:
        return ((torch.tanh(x @ w) - y) ** 2).mean()

    (g,) = torch.autograd.grad(loss(w), w)
    return loss(w - 0.1 * g)


def routed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """In-place writes beside a choice that is made without gradient."""
    with torch.no_grad():
        best = x.argmax(1)
    out = torch.zeros_like(x)
    for e in range(2):
        rows = (best == e).nonzero()[:, 0]
        out.index_add_(0, rows, x[rows] @ w[e])
    return out


def into_a_buffer(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(4, dtype=D)
    torch.sin(x.detach(), out=out)
    return x * out


def laplacian(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.func.hessian(lambda z: torch.tanh(w @ z).sum())(x).trace()


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (Average(), (leaf(4, 3),)),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4, dtype=D)), (leaf(2, 3),)),
        (nn.Embedding(10, 4, max_norm=1.0, dtype=D), (torch.tensor([[1, 2, 3]]),)),
        (Siamese(), (leaf(2, 4, 8),)),
        (penalty(), (leaf(3, 2),)),
        (hooked, (leaf(3),)),
        (by_first_order, (leaf(3), leaf(5, 3), leaf(5))),
        (routed, (leaf(5, 2), leaf(2, 2, 2))),
        (into_a_buffer, (leaf(4),)),
        (lambda w: (w.detach().clone().requires_grad_() * w).sin(), (leaf(4),)),
        (laplacian, (leaf(3, 4), leaf(4))),
    ],
)
def test_right_functions_with_a_life_of_their_own(function: Any, given: tuple[Any, ...]) -> None:
    report = check_gradients(function, *given)
    assert report.ok, report


def test_a_wrong_gradient_beside_a_stop_is_still_seen() -> None:
    def mixed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            best = x.max(-1, keepdim=True).values
        return wrong(x - best, w)

    report = check_gradients(mixed, leaf(3, 4), leaf(3, 4))
    assert report.failed


def test_numbers_are_drawn_alike_from_every_source() -> None:
    generator = torch.Generator().manual_seed(3)
    draws: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: x * torch.randn(3, generator=generator, dtype=D),
        lambda x: x * random.random(),
        lambda x: x * float(np.random.rand()),
    ]
    for draw in draws:
        report = check_gradients(draw, leaf(3))
        assert report.ok, report
        assert any("draws random numbers" in note for note in report.notes)


def report_of(function: Any, *given: torch.Tensor) -> Report:
    return check_gradients(function, *given)


def test_nested_tensors_do_not_count_as_narrower() -> None:
    def jagged(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nested = torch.nested.as_nested_tensor([a, b], layout=torch.jagged)
        return (nested.sin() * 2).values()

    report = report_of(jagged, leaf(2, 3), leaf(4, 3))
    assert not any("computes in" in note for note in report.notes)
    # torch's jagged tensors read a negated tensor's memory: sin of one has the wrong sign
    wrong = {r.check for r in report.results if r.outcome == "failed"}
    assert wrong <= {"invariants.negated_cotangents", "invariants.negated_inputs"}, report


class Held(nn.Module):
    """A weight that each call writes over without a gradient."""

    def __init__(self, write: Callable[[nn.Parameter], None]) -> None:
        super().__init__()
        self.w, self.write = nn.Parameter(torch.randn(3, 4, dtype=D)), write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(self.w)
        return (x @ self.w.T).logsumexp(1)


def _placed(w: nn.Parameter) -> None:
    w.data = w.data.to(D)


@torch.no_grad()
def _clamped(w: nn.Parameter) -> None:
    w.clamp_(-0.5, 0.5)


@pytest.mark.parametrize("write", [_placed, _clamped])
def test_what_writes_without_gradient_is_a_black_box(write: Any) -> None:
    report = check_gradients(Held(write), leaf(5, 4))
    assert report.ok, report
    assert any("black box" in note for note in report.notes)
