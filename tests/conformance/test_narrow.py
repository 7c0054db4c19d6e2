"""Right gradients that float32 loses are not wrong, and what float32 alone breaks is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conformance import check_gradients
from conformance.results import Result

Backward = Callable[..., Any]


def randn(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, dtype=torch.float64)).requires_grad_()


def leaf(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.float64).requires_grad_()


def function(forward: Callable[..., torch.Tensor], backward: Backward) -> Any:
    """A custom Function that saves its inputs."""

    class Made(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            return backward(g, *ctx.saved_tensors)

    return Made.apply


def black_box(fn: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same function, which cannot be captured: a branch depends on a value."""

    def box(*inputs: torch.Tensor) -> torch.Tensor:
        return fn(*inputs) if inputs[0].detach().abs().sum().item() < 1e300 else inputs[0]

    return box


def narrow(fn: Callable[..., torch.Tensor], *inputs: torch.Tensor, seed: int = 0) -> Result:
    report = check_gradients(fn, *inputs, seed=seed)
    (found,) = (r for r in report.results if r.check == "narrow")
    return found


def log_determinant(x: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    kernel = torch.exp(-(torch.cdist(x, x) ** 2) / width.exp())
    factor: torch.Tensor = torch.linalg.cholesky(kernel + 1e-3 * torch.eye(8, dtype=x.dtype))
    return factor.diagonal().log().sum()


def normalized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    centred = x - x.mean(-1, keepdim=True)
    inverse = ((centred**2).mean(-1, keepdim=True) + 1e-5).rsqrt()
    return centred * inverse, inverse


def normalized_backward(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    h, inverse = normalized(x)
    return inverse * (g - g.mean(-1, keepdim=True) - h * (g * h).mean(-1, keepdim=True))


def recurrent(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    for _ in range(50):
        h = torch.tanh(h @ w)
    return h


def decaying(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    for _ in range(300):
        x = a * x + 0.001
    return x


def chaotic(s: torch.Tensor) -> torch.Tensor:
    for _ in range(20):
        s = 3.9 * s * (1 - s)
    return s


def eigenvectors(a: torch.Tensor) -> torch.Tensor:
    vectors: torch.Tensor = torch.linalg.eigh((a + a.mT) / 2)[1]
    return vectors.abs()


def gapped() -> torch.Tensor:
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    values = torch.tensor([1.0, 1.0 + 1e-5, 2.0, 3.0], dtype=torch.float64)
    return leaf(q @ torch.diag(values) @ q.mT)


def hilbert() -> torch.Tensor:
    return leaf(1 / (torch.arange(1.0, 7.0)[:, None].double() + torch.arange(6.0).double()))


def dominated() -> torch.Tensor:
    x = torch.randn(5, dtype=torch.float64)
    x[0] += 8
    return leaf(x)


LOST: dict[str, tuple[Callable[..., torch.Tensor], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "log-determinant": (log_determinant, lambda: (leaf(torch.rand(8, 1)), leaf(torch.zeros(())))),
    "layer norm of 2": (lambda x: F.layer_norm(x, (2,)), lambda: (randn(3, 2),)),
    "layer norm as a Function": (
        function(lambda x: normalized(x)[0], normalized_backward),
        lambda: (randn(3, 2),),
    ),
    "batch norm of 2": (
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda: (randn(2, 4),),
    ),
    "oscillating": (
        function(lambda x: torch.sin(1e4 * x), lambda g, x: g * 1e4 * torch.cos(1e4 * x)),
        lambda: (randn(4),),
    ),
    "recurrent": (recurrent, lambda: (randn(1, 6), randn(6, 6, scale=5.0))),
    "decaying": (decaying, lambda: (randn(3), leaf(torch.tensor(0.999)))),
    "chaotic": (chaotic, lambda: (leaf(torch.rand(3)),)),
    "attention": (
        F.scaled_dot_product_attention,
        lambda: (randn(4, 3, scale=5.0), randn(4, 3, scale=5.0), randn(4, 3, scale=5.0)),
    ),
    "inverse": (torch.inverse, lambda: (hilbert(),)),
    "logdet": (torch.logdet, lambda: (hilbert(),)),
    "eigenvectors": (eigenvectors, lambda: (gapped(),)),
    "a dominant logit": (lambda x: torch.logsumexp(x, 0) - x[0], lambda: (dominated(),)),
    "cancelling to 0": (
        lambda x: torch.xlogy(x, x) + torch.special.entr(x),
        lambda: (leaf(torch.rand(5)),),
    ),
    "an offset": (lambda x: F.layer_norm(x + 100, (4,)), lambda: (randn(3, 4),)),
}


@pytest.mark.parametrize("box", [False, True], ids=["captured", "black box"])
@pytest.mark.parametrize("name", LOST)
def test_what_float32_loses_of_a_right_gradient_is_no_fault(name: str, box: bool) -> None:
    fn, inputs = LOST[name]
    for seed in range(3):
        torch.manual_seed(seed)
        found = narrow(black_box(fn) if box else fn, *inputs(), seed=seed)
        assert found.outcome in ("passed", "precision", "unsupported"), found.evidence


def test_lost_precision_is_said_and_is_ok() -> None:
    torch.manual_seed(0)
    report = check_gradients(log_determinant, *LOST["log-determinant"][1]())
    assert report.ok, report
    assert "narrow: precision, rounding in float32 on the way may cost" in str(report)


def test_a_kink_that_rounding_decides_is_not_judged() -> None:
    def transform(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        grid = F.affine_grid(theta, [1, 2, 4, 4], align_corners=True)
        return F.grid_sample(x, grid, align_corners=True)

    torch.manual_seed(0)
    identity = leaf(torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]))
    report = check_gradients(transform, randn(1, 2, 4, 4), identity)
    (found,) = (r for r in report.results if r.check == "narrow")
    assert found.outcome == "unsupported"
    assert "which side of a kink" in found.evidence["reason"]
    assert report.ok, report


def test_a_function_of_float32_alone_is_not_wrong() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not torch.float32:
            raise TypeError(f"float32 expected, got {x.dtype}")
        return x.sin()

    torch.manual_seed(0)
    only = function(forward, lambda g, x: g * x.cos())
    report = check_gradients(only, torch.randn(4, requires_grad=True))
    (found,) = (r for r in report.results if r.check == "narrow")
    assert found.outcome == "unsupported"
    assert found.evidence["reason"].startswith("it does not run in float64: ")
    assert not report.failed, report


def in_float32(right: Backward, wrong: Backward) -> Backward:
    return lambda g, x: (right if x.dtype is torch.float64 else wrong)(g, x)


def cosine(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return g * x.cos()


def overflowing(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    e = torch.exp(x)
    return g * e / (1 + e) ** 2


def softmax_unshifted(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    p = x.exp() / x.exp().sum(-1, keepdim=True)
    return p * (g - (g * p).sum(-1, keepdim=True))


FAULTS: dict[str, tuple[Callable[..., torch.Tensor], Backward, tuple[float, float]]] = {
    "overflow": (torch.sigmoid, overflowing, (90.0, 100.0)),
    "softmax without a shift": (lambda x: torch.softmax(x, -1), softmax_unshifted, (90, 100)),
    "a large constant": (lambda x: x * x, lambda g, x: g * ((1e6 + 2 * x) - 1e6), (60.0, 100.0)),
    "finite differences": (
        torch.sin,
        lambda g, x: g * ((x + 1e-5).sin() - (x - 1e-5).sin()) / 2e-5,
        (0.5, 1.0),
    ),
    "a fourth power": (
        lambda x: x.sqrt(),
        lambda g, x: g * x / (x**4).sqrt().sqrt() / 2 / x.sqrt(),
        (1e10, 1e11),
    ),
    "float16": (torch.sin, in_float32(cosine, lambda g, x: g * x.half().cos().float()), (0.5, 1)),
    "a factor": (
        torch.exp,
        in_float32(lambda g, x: g * x.exp(), lambda g, x: g * x.exp() * (1 + 2e-5)),
        (0.5, 3.0),
    ),
    "one entry": (
        torch.sin,
        in_float32(cosine, lambda g, x: g * x.cos() * (1 + 1e-4 * (x == x.min()))),
        (0.5, 1.0),
    ),
    "a threshold": (
        torch.sin,
        in_float32(cosine, lambda g, x: torch.where(x < 0.7, g, g * x.cos())),
        (0.5, 1.0),
    ),
}


@pytest.mark.parametrize("how", ["alone", "captured", "black box"])
@pytest.mark.parametrize("name", FAULTS)
def test_what_float32_alone_breaks_is_still_wrong(name: str, how: str) -> None:
    forward, backward, (low, high) = FAULTS[name]
    alone = function(forward, backward)

    def composed(x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = alone(1.5 * x - 0.5 * x) * 1.25
        return made

    fn = {"alone": alone, "captured": composed, "black box": black_box(composed)}[how]
    outcomes = []
    for seed in range(3):
        torch.manual_seed(seed)
        x = leaf(low + (high - low) * torch.rand(6, dtype=torch.float64))
        outcomes.append(narrow(fn, x, seed=seed).outcome)
    assert "failed" in outcomes


@pytest.mark.parametrize("factor", [1 + 5e-6, 1 + 1e-7])
def test_float64_shows_what_float32_hides(factor: float) -> None:
    wrong = function(torch.sin, lambda g, x: g * x.cos() * factor)
    x = torch.linspace(0.3, 2.0, 6, requires_grad=True)
    found = narrow(wrong, x)
    assert found.outcome == "failed"
    assert found.evidence["description"].endswith("in more precision as well")
    assert narrow(function(torch.sin, lambda g, x: g * x.cos()), x).outcome == "passed"


def test_models_in_float32_raise_no_alarm() -> None:
    model = torch.nn.Sequential(
        *(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.GELU()),
        *(torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(36, 3)),
    )
    report = check_gradients(model, torch.randn(2, 2, 6, 6))
    assert report.ok, report
