"""Fourier transforms where PyTorch's samples do not go: arguments, errors, windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.both import both, both_raise

rng = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_lengths_cut_and_filled(name: str, n: int, norm: str | None) -> None:
    """Values and gradients; the imaginary parts that irfft does not read get none."""
    x = rng.standard_normal((2, 5))
    if name not in ("rfft", "ihfft"):
        x = x + 1j * rng.standard_normal((2, 5))
    w = rng.standard_normal((2, n)) + 1j * rng.standard_normal((2, n))

    def code(module: Any) -> Any:
        a = module.from_numpy(x).requires_grad_(True)
        y = getattr(module.fft, name)(a, n, norm=norm)
        loss = (y * module.from_numpy(w[:, : y.shape[-1]])).real.sum()
        return y * 1, module.autograd.grad(loss, a)[0] * 1  # torch's conjugate views

    both(code)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int64, np.bool_])
def test_dtypes(dtype: Any) -> None:
    x = np.ones((3, 4), dtype=dtype)
    both(
        lambda m: [
            m.fft.fft(m.from_numpy(x)),
            m.fft.irfft2(m.from_numpy(x)),
            m.fft.fftn(m.from_numpy(x)),
        ]
    )


def test_no_dimensions() -> None:
    both(lambda m: m.fft.fftn(m.ones(2, 3), dim=()))


@pytest.mark.parametrize("n", [1, 4, 5])
def test_frequencies(n: int) -> None:
    both(lambda m: [m.fft.fftfreq(n, 0.25), m.fft.rfftfreq(n, 2.0, dtype=m.float64)])
    both(lambda m: [m.fft.fftshift(m.arange(n)), m.fft.ifftshift(m.arange(n))])


ERRORS = {
    "no points": (lambda m: m.fft.fft(m.ones(3), 0), "Invalid number of data points"),
    "norm": (lambda m: m.fft.fft(m.ones(3), norm="x"), "ormalization"),
    "complex": (lambda m: m.fft.rfft(m.ones(3, dtype=m.complex64)), "real input"),
    "0-d": (lambda m: m.fft.fft(m.ones(())), "no dimensions"),
    "dim": (lambda m: m.fft.fft(m.ones(3), dim=2), "out of range"),
    "twice": (lambda m: m.fft.fft2(m.ones(3, 3), dim=(0, 0)), "unique"),
    "lengths": (lambda m: m.fft.fftn(m.ones(3, 3), s=(2,), dim=(0, 1)), "same length"),
    "too many": (lambda m: m.fft.fftn(m.ones(3), s=(2, 2)), "only has 1 dim"),
    "no axis": (lambda m: m.fft.rfftn(m.ones(3), dim=()), "at least one axis"),
    "stft": (lambda m: m.stft(m.ones(20), 8), "return_complex"),
    "window": (lambda m: m.stft(m.ones(20), 8, window=m.ones(4), return_complex=True), "window"),
    "gap": (lambda m: m.istft(m.ones(5, 3, dtype=m.cfloat), 8, window=m.zeros(8)), "overlap add"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    code, match = ERRORS[name]
    both_raise(code, match=match)


@pytest.mark.parametrize("options", [
    {"return_complex": True}, {"return_complex": False},
    {"onesided": False, "return_complex": True},
    {"center": False, "return_complex": True}, {"normalized": True, "return_complex": True},
    {"hop_length": 3, "pad_mode": "constant", "return_complex": True},
])  # fmt: skip
def test_short_time_transforms(options: Any) -> None:
    x, w = rng.standard_normal((2, 30)), rng.standard_normal(8)

    def code(module: Any) -> Any:
        a, window = (module.from_numpy(v).requires_grad_(True) for v in (x, w))
        y = module.stft(a, 8, window=window, **options)
        return y, module.autograd.grad(abs(y).sum(), (a, window))

    both(code)


def test_the_window_of_istft_has_a_gradient() -> None:
    """PyTorch returns none for some windows, though its own values depend on them."""
    x = rng.standard_normal((5, 6)) + 1j * rng.standard_normal((5, 6))
    w, d = 1 + rng.random(6), rng.standard_normal(6)

    def loss(module: Any, window: Any) -> Any:
        y = module.istft(module.from_numpy(x), 8, win_length=6, window=window)
        return (y * y).sum()

    window = refgrad.from_numpy(w).requires_grad_(True)
    (g,) = refgrad.autograd.grad(loss(refgrad, window), window)
    h = 1e-6
    slope = loss(torch, torch.from_numpy(w + h * d)) - loss(torch, torch.from_numpy(w - h * d))
    assert np.sum(g.numpy() * d) == pytest.approx(slope.item() / (2 * h), rel=1e-7)
