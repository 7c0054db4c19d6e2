"""Discrete Fourier transforms, in one and in several dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.ops.arrays import wrap_dim
from refgrad.ops.composites import lay
from refgrad.ops.matrices import conj, is_complex, values
from refgrad.ops.op import op
from refgrad.ops.shaping import roll
from refgrad.ops.strides import transformed

_SWAPPED = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}

# --- the three transforms ------------------------------------------------------------------------


@op(method=False, node_name="FftC2CBackward0")
def _c2c(input: Any, dim: Any, norm: Any, inverse: Any) -> Any:
    """The transform of complex values over several dimensions."""
    return (np.fft.ifftn if inverse else np.fft.fftn)(input, axes=dim, norm=norm)


_c2c.vjp(  # its matrix e^(-2 pi i jk / n) is symmetric
    input=lambda g, dim, norm, inverse: _c2c(g, dim, norm, inverse)
)


@op(method=False, node_name="FftR2CBackward0")
def _r2c(input: Any, dim: Any, norm: Any) -> Any:
    """The first half of the transform of real values, n // 2 + 1 frequencies."""
    return np.fft.rfft(input, axis=dim, norm=norm)


def _r2c_back(g: Any, shape: Any, dim: int, norm: Any) -> Any:
    """Padded to n frequencies it is the whole, symmetric, matrix; the engine takes the real part."""
    return _c2c(_resize(g, dim, shape[dim]), (dim,), norm, False)


_r2c.vjp(input=lambda g, shape, dim, norm: _r2c_back(g, shape, dim, norm))


@op(method=False, node_name="FftC2RBackward0")
def _c2r(input: Any, dim: Any, norm: Any, n: Any) -> Any:
    """The n real values whose transform begins with `input`; Im of the first and the n/2-th is unread."""
    return np.fft.irfft(input, n, axis=dim, norm=norm)


def _c2r_back(g: Any, dim: int, norm: Any, n: int) -> Any:
    """out_j = sum_k w_k Re(x_k e^(2 pi i jk / n)) / n, w_k = 2 where the frequency n - k is implied."""
    weight = np.full_like(values(g), 2.0, shape=(n // 2 + 1,))
    weight[0] = 1
    if n % 2 == 0:
        weight[-1] = 1
    return np.conj(_r2c(g, dim, _SWAPPED[norm])) * weight[(..., *(None,) * (g.ndim - 1 - dim))]


_c2r.vjp(input=lambda g, dim, norm, n: _c2r_back(g, dim, norm, n))

# --- arguments -----------------------------------------------------------------------------------


def _inexact(input: Any, *, complex: bool) -> Any:
    """`input` in a floating or complex dtype, complex if asked."""
    target = input.dtype
    if not (target.is_floating_point or target.is_complex):
        target = dtypes.get_default_dtype()
    return input.to(target.to_complex() if complex else target)


def _real_only(name: str, input: Any) -> Any:
    if is_complex(input):
        raise RuntimeError(f"{name} expects a real input tensor, but got {input.dtype!r}")
    return _inexact(input, complex=False)


def _resize(x: Any, dim: int, n: int) -> Any:
    """`x` with its dimension `dim` cut to n elements, or filled up with zeros."""
    have = x.shape[dim]
    if n < have:
        return x[(slice(None),) * dim + (slice(0, n),)]
    if n == have:
        return x
    zeros = np.zeros_like(x, shape=(*x.shape[:dim], n - have, *x.shape[dim + 1 :]))
    return np.concatenate((x, zeros), dim)


def _check(n: int) -> int:
    if n < 1:
        raise RuntimeError(f"Invalid number of data points ({n}) specified")
    return n


def _check_norm(norm: Any) -> None:
    if norm not in _SWAPPED:
        raise RuntimeError(f'Invalid normalization mode: "{norm}"')


def _one_dim(input: Any, dim: Any, norm: Any) -> int:
    _check_norm(norm)
    if input.ndim == 0:
        raise IndexError("Dimension specified as -1 but tensor has no dimensions")
    return wrap_dim(dim, input.ndim)


def _sizes(input: Any, s: Any, dim: Any, norm: Any) -> tuple[list[int], list[int]]:
    """The dimensions of a transform, and a size for each (-1: its own).

    Raises:
        RuntimeError: their numbers differ, or one stands there twice.
    """
    _check_norm(norm)
    s = None if s is None else [s] if isinstance(s, int) else list(s)
    dim = None if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if dim is None and s is not None:
        if len(s) > input.ndim:
            raise RuntimeError(
                f"Got shape with {len(s)} values but input tensor only has {input.ndim} dimensions."
            )
        dim = list(range(input.ndim - len(s), input.ndim))
    dims = list(range(input.ndim)) if dim is None else [wrap_dim(d, input.ndim) for d in dim]
    if len(set(dims)) != len(dims):
        raise RuntimeError("FFT dims must be unique")
    if s is not None and len(s) != len(dims):
        raise RuntimeError("When given, dim and shape arguments must have the same length")
    return dims, [-1] * len(dims) if s is None else s


def _resize_all(x: Any, dims: Sequence[int], sizes: Sequence[int]) -> Any:
    for d, n in zip(dims, sizes, strict=True):
        x = _resize(x, d, _check(x.shape[d] if n == -1 else n))
    return x


# --- one dimension -------------------------------------------------------------------------------


def fft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The transform over `dim`, cut or filled up to n; norm "backward", "ortho" or "forward"."""
    return _one_complex(input, n, dim, norm, False)


def ifft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `fft`."""
    return _one_complex(input, n, dim, norm, True)


def _one_complex(input: Any, n: int | None, dim: int, norm: str | None, inverse: bool) -> Any:
    d = _one_dim(input, dim, norm)
    x = _resize_all(_inexact(input, complex=True), [d], [-1 if n is None else n])
    return _c2c(x, (d,), norm, inverse)


def rfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The first n // 2 + 1 frequencies of the transform of real values."""
    d = _one_dim(input, dim, norm)
    x = _resize_all(_real_only("rfft", input), [d], [-1 if n is None else n])
    return _r2c(x, d, norm)


def irfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `rfft`: n real values, by default 2 (m - 1) for m frequencies."""
    d = _one_dim(input, dim, norm)
    n = _check(2 * (input.shape[d] - 1) if n is None else n)
    return _c2r(_resize(_inexact(input, complex=True), d, n // 2 + 1), d, norm, n)


def hfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The transform of values that are Hermitian in time, given by their first half."""
    _check_norm(norm)
    return irfft(conj(input), n, dim, _SWAPPED[norm])


def ihfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    """The inverse of `hfft`."""
    _check_norm(norm)
    return np.conj(rfft(_real_only("ihfft", input), n, dim, _SWAPPED[norm]))


# --- several dimensions --------------------------------------------------------------------------


def fftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The transform over several dimensions, cut or filled up to the sizes `s`."""
    return _several_complex(input, s, dim, norm, False)


def ifftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `fftn`."""
    return _several_complex(input, s, dim, norm, True)


def _several_complex(input: Any, s: Any, dim: Any, norm: str | None, inverse: bool) -> Any:
    dims, sizes = _sizes(input, s, dim, norm)
    x = _resize_all(_inexact(input, complex=True), dims, sizes)
    return _c2c(x, tuple(dims), norm, inverse) if dims else x.clone()


def rfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The transform of real values; of the last dimension the first n // 2 + 1 frequencies."""
    dims, sizes = _sizes(input, s, dim, norm)
    if not dims:
        raise RuntimeError("rfftn must transform at least one axis")
    x = _resize_all(_real_only("rfftn", input), dims, sizes)
    return lay(_half(x, dims, norm), transformed, (x._array, tuple(dims[:-1]), dims[-1:]))


def _half(x: Any, dims: Sequence[int], norm: str | None) -> Any:
    x = _r2c(x, dims[-1], norm)
    return _c2c(x, tuple(dims[:-1]), norm, False) if dims[1:] else x


def irfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `rfftn`."""
    dims, sizes = _sizes(input, s, dim, norm)
    if not dims:
        raise RuntimeError("irfftn must transform at least one axis")
    last = dims[-1]
    n = _check(2 * (input.shape[last] - 1) if sizes[-1] == -1 else sizes[-1])
    x = _resize_all(_inexact(input, complex=True), dims, [*sizes[:-1], n // 2 + 1])
    x = _c2c(x, tuple(dims[:-1]), norm, True) if dims[1:] else x
    return _c2r(x, last, norm, n)


def hfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The transform of values that are Hermitian in time, given by half of the last dimension."""
    _check_norm(norm)
    return irfftn(conj(input), s, dim, _SWAPPED[norm])


def ihfftn(input: Any, s: Any = None, dim: Any = None, norm: str | None = None) -> Any:
    """The inverse of `hfftn`."""
    _check_norm(norm)
    dims, sizes = _sizes(input, s, dim, norm)
    if not dims:
        raise RuntimeError("ihfftn must transform at least one axis")
    x = _resize_all(_real_only("ihfftn", input), dims, sizes)
    return np.conj(_half(x, dims, _SWAPPED[norm]))


def _over_two(transform: Callable[..., Any], name: str) -> Callable[..., Any]:
    def two(input: Any, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Any:
        return transform(input, s, dim, norm)

    two.__name__ = name
    two.__doc__ = f"`{transform.__name__}` over two dimensions, the last by default."
    return two


fft2, ifft2 = _over_two(fftn, "fft2"), _over_two(ifftn, "ifft2")
rfft2, irfft2 = _over_two(rfftn, "rfft2"), _over_two(irfftn, "irfft2")
hfft2, ihfft2 = _over_two(hfftn, "hfft2"), _over_two(ihfftn, "ihfft2")

# --- order of frequencies ------------------------------------------------------------------------


def fftshift(input: Any, dim: Any = None) -> Any:
    """The zero frequency moved to the middle."""
    dims, _ = _sizes(input, None, dim, None)
    return roll(input, [input.shape[d] // 2 for d in dims], dims) if dims else input.clone()


def ifftshift(input: Any, dim: Any = None) -> Any:
    """The inverse of `fftshift`."""
    dims, _ = _sizes(input, None, dim, None)
    return roll(input, [-(input.shape[d] // 2) for d in dims], dims) if dims else input.clone()
