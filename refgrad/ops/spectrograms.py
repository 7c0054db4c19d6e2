"""The short-time Fourier transform and its inverse."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops import fourier
from refgrad.ops.complexes import view_as_complex, view_as_real
from refgrad.ops.composites import composite
from refgrad.ops.padding import pad
from refgrad.ops.placing import constant
from refgrad.tensor import wrap

__all__ = ["istft", "stft"]


def _window(
    name: str, window: Any, win_length: int | None, n_fft: int, like: Any
) -> tuple[Any, int]:
    """The window of n_fft elements: the given one, or ones, with zeros on both sides.

    Raises:
        RuntimeError: it has another length than `win_length`, or that is not in (0, n_fft].
    """
    length = n_fft if win_length is None else win_length
    if not 0 < length <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={length}")
    if window is None:
        window = constant(np.ones(length, dtype=like._array.real.dtype), like)
    elif window.ndim != 1 or window.shape[0] != length:
        raise RuntimeError(
            f"{name}: expected a 1D window tensor of size equal to win_length={length}, but got "
            f"window with size {list(window.shape)}"
        )
    left = (n_fft - length) // 2
    return pad(window, (left, n_fft - length - left)), length


@composite
def stft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
) -> Any:
    """The transforms of windows of a signal (L) or signals (B, L), as (..., frequencies, frames).

    Raises:
        RuntimeError: the lengths do not fit, or `return_complex` is needed and not given.
    """
    is_complex = input.is_complex() or (window is not None and window.is_complex())
    if return_complex is None:
        if not is_complex:
            raise RuntimeError(
                "stft requires the return_complex parameter be given for real inputs, and will "
                "further require that return_complex=True in a future PyTorch release."
            )
        return_complex = True
    if input.ndim not in (1, 2):
        raise RuntimeError(f"stft: expected a 1D or 2D tensor, but got {input.ndim}D")
    hop = n_fft // 4 if hop_length is None else hop_length
    x = input if input.ndim == 2 else input.unsqueeze(0)
    if center:
        half = n_fft // 2
        x = pad(x.unsqueeze(1), (half, half), pad_mode).squeeze(1)
    if not 0 < n_fft <= x.shape[-1]:
        raise RuntimeError(f"stft: expected 0 < n_fft <= {x.shape[-1]}, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    frames = x.unfold(-1, n_fft, hop) * _window("stft", window, win_length, n_fft, input)[0]
    onesided = not is_complex if onesided is None else onesided
    if onesided and is_complex:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    transform = fourier.rfft if onesided else fourier.fft
    made = transform(frames, norm="ortho" if normalized else None).mT
    made = made if input.ndim == 2 else made[0]
    return made if return_complex else view_as_real(made)


@composite
def istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """The signals whose `stft` is `input`: frames are windowed, added up, and divided by the windows'.

    Raises:
        RuntimeError: the sizes do not fit, or the windows leave a gap.
    """
    x = input if input.is_complex() else view_as_complex(input)
    hop = n_fft // 4 if hop_length is None else hop_length
    if x.ndim not in (2, 3):
        raise RuntimeError("istft: expected a tensor with 2 or 3 dimensions (complex)")
    batched = x.ndim == 3
    x = x if batched else x.unsqueeze(0)
    bins, count = x.shape[-2:]
    onesided = bins != n_fft if onesided is None else onesided
    if bins != (n_fft // 2 + 1 if onesided else n_fft):
        raise RuntimeError(
            f"istft: expected the frequency dimension (3rd to the last) of the input tensor to "
            f"match n_fft, but got {bins}"
        )
    taper, size = _window("istft", window, win_length, n_fft, x)
    if not 0 < hop <= size:
        raise RuntimeError(f"istft: expected 0 < hop_length <= win_length, but got {hop}")
    norm = "ortho" if normalized else None
    if return_complex:
        if onesided:
            raise RuntimeError("Cannot have onesided output if window or input is complex")
        frames = fourier.ifft(x.mT, norm=norm)
    else:
        half = x.mT if onesided else x.mT[..., : n_fft // 2 + 1]
        frames = fourier.irfft(half, n_fft, norm=norm)
    total = n_fft + hop * (count - 1)
    places = constant((np.arange(count)[:, None] * hop + np.arange(n_fft)).reshape(-1), x)

    def added(parts: Any) -> Any:
        flat = parts.reshape(parts.shape[0], count * n_fft)
        zeros = wrap(np.zeros_like(flat._array, shape=(parts.shape[0], total)))
        return zeros.index_add(1, places, flat)

    signal = added(frames * taper)
    weight = added((taper * taper).expand(1, count, n_fft))
    start = n_fft // 2 if center else 0
    end = total - (n_fft // 2 if center else 0) if length is None else start + length
    signal, weight = signal[:, start:end], weight[:, start:end]
    if weight.numel() and np.min(np.abs(weight._array)) < 1e-11:
        raise RuntimeError("istft: window overlap add min: 1; the windows leave a gap")
    signal = signal / weight
    if signal.shape[-1] < end - start:
        signal = pad(signal, (0, end - start - signal.shape[-1]))
    return signal if batched else signal[0]
