"""Complex numbers: their parts and their making."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.libraries import as_strided
from refgrad.ops.composites import composite
from refgrad.ops.op import FUNCTIONS, op
from refgrad.ops.ufuncs import unary
from refgrad.tensor import Tensor

__all__ = [
    "angle", "complex", "conj", "conj_physical", "imag", "is_complex", "is_conj", "polar", "real",
    "resolve_conj", "resolve_neg", "view_as_complex", "view_as_real",
]  # fmt: skip

PI = 3.141592653589793

_conj = unary(
    "conj_physical", np.conjugate, lambda g: np.conj(g), node_name="ConjPhysicalBackward0"
)


@composite
def conj_physical(input: Any) -> Any:
    """The complex conjugate, in new memory; a real tensor itself."""
    return _conj(input) if input.is_complex() else input


@composite
def conj(input: Any) -> Any:
    """The complex conjugate; a real tensor itself.

    PyTorch's is a view that conjugates as it is read; refgrad's is computed at once.
    """
    return conj_physical(input)


@op(view=True, method=False)
def _real(input):
    return input.real


@op(view=True, method=False)
def _imag(input):
    return input.imag


_real.vjp(input=lambda g: g)  # the engine makes it complex
_imag.vjp(
    input=lambda g: g * -1j
)  # Im(dz) = Re(-i dz); -1j * g of a 0-d g would be a Python number


def real(input: Any) -> Any:
    """The real part; a real tensor itself."""
    return _real(input) if input.is_complex() else input


def imag(input: Any) -> Any:
    """The imaginary part.

    Raises:
        RuntimeError: the tensor is real.
    """
    if not input.is_complex():
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return _imag(input)


def _set_real(self: Tensor, value: Any) -> None:
    real(self).copy_(value)


def _set_imag(self: Tensor, value: Any) -> None:
    imag(self).copy_(value)


setattr(Tensor, "real", property(real, _set_real))  # noqa: B010
setattr(Tensor, "imag", property(imag, _set_imag))  # noqa: B010
FUNCTIONS[np.real] = real
FUNCTIONS[np.iscomplexobj] = lambda x: x.is_complex()


def _angle(x: Any) -> Any:
    if x.dtype.kind == "c":
        return np.arctan2(x.imag, x.real)
    return np.where(np.isnan(x), x, PI * (x < 0).astype(x.dtype))


def _by_angle(g: Any, input: Any) -> Any:
    """Im(dz / z) = Re(-i dz / z); zero where z = 0 and for reals."""
    if not np.iscomplexobj(input):
        return np.zeros_like(g)
    zero = input == 0
    return np.where(zero, 0.0, -1j * g / np.where(zero, 1.0, input))


angle = unary("angle", _angle, _by_angle, floats=True, inplace=False)


@op(method=False)
def complex(real, imag):
    """real + i imag.

    Raises:
        RuntimeError: the dtypes differ or are not floating.
    """
    if real.dtype != imag.dtype or real.dtype.kind != "f":
        raise RuntimeError("Expected both inputs to be Half, Float or Double tensors of one dtype")
    a, b = np.broadcast_arrays(real, imag)
    out = np.empty_like(a, dtype=np.result_type(real.dtype, np.complex64), order="C")
    out.real, out.imag = a, b  # a + 1j * b makes nan of an infinite b
    return out


complex.vjp(real=lambda g: g, imag=lambda g: 1j * g)  # the engine takes the real part


@op(method=False)
def polar(abs, angle):
    """abs e^(i angle)."""
    return abs * np.exp(1j * angle)


polar.vjp(abs=lambda g, angle: g * np.exp(1j * angle), angle=lambda g, out: 1j * g * out)


@op(view=True, method=False)
def view_as_real(input):
    """A complex tensor as a real one with a last dimension of 2."""
    if input.dtype.kind != "c":
        raise RuntimeError("view_as_real is only supported for complex tensors")
    real = input.real
    return as_strided(real, real.shape + (2,), real.strides + (real.itemsize,))


@op(view=True, method=False)
def _as_complex(input):
    """A real array whose last dimension is 2 as a complex one; a copy where its memory is no such."""
    if input.strides[-1] != input.itemsize:
        input = np.copy(input, order="C")
    return np.reshape(input.view(np.result_type(input.dtype, np.complex64)), input.shape[:-1])


view_as_real.vjp(input=lambda g: g[..., 0] - 1j * g[..., 1])
_as_complex.vjp(input=lambda g: np.stack((np.real(g), np.real(1j * g)), -1))


def view_as_complex(input: Any) -> Any:
    """A real tensor whose last dimension is 2 as a complex one.

    Raises:
        RuntimeError: the dtype or the last dimension does not fit.
    """
    if not input.is_floating_point():
        raise RuntimeError("view_as_complex is only supported for floating point tensors")
    if input.ndim == 0 or input.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    if input.stride(-1) != 1:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    return _as_complex(input)


@composite
def resolve_conj(input: Any) -> Any:
    """`input`: refgrad conjugates at once."""
    return input


@composite
def resolve_neg(input: Any) -> Any:
    """`input`: refgrad negates at once."""
    return input


@composite
def is_conj(input: Any) -> bool:
    """False: refgrad conjugates at once."""
    return False


def is_complex(input: Any) -> bool:
    """Whether the dtype is a complex one."""
    return bool(input.is_complex())
