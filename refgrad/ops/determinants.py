"""Determinants, right at singular matrices too, and the matrix exponential."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from refgrad.libraries import beside, on_host
from refgrad.ops.composites import composite
from refgrad.ops.kernels import kept
from refgrad.ops.matrices import check_matrix, cofactors, is_complex, turned, without_each
from refgrad.ops.op import op
from refgrad.ops.solving import unchecked_inverse

__all__ = ["det", "logdet", "matrix_exp", "slogdet"]


class Slogdet(NamedTuple):
    """The sign (or phase) of a determinant and the logarithm of its absolute value."""

    sign: Any
    logabsdet: Any


@op(node_name="LinalgDetBackward0")
def det(A: Any) -> Any:
    """The determinant."""
    check_matrix("linalg.det", A)
    return np.linalg.det(A)


# d det = <C, dA> with C the cofactors; det A^-T, which they are elsewhere, is 0/0 at singular A
det.vjp(A=lambda g, A: g[..., None, None] * _cofactors(A, []))


@op(method=False)
def _cofactors(A: Any, directions: Any) -> Any:
    """The cofactors d det / dA, or their derivative along one or more `directions`.

    det is a polynomial, so all of these are right at singular matrices too.
    """
    if not directions:
        return cofactors(A)
    if len(directions) == 1:
        return _hessian(A, directions[0])
    n, k = A.shape[-1], len(directions)
    if n <= k:
        return np.zeros_like(A)
    # the coefficient of t in a polynomial in A + t X of degree n - k, by Cauchy's integral
    X, rest = directions[0], directions[1:]
    size, length = (np.linalg.norm(M, axis=(-2, -1), keepdims=True) for M in (A, X))
    radius = np.where(size > 0, size, 1.0) / np.where(length > 0, length, 1.0)
    made = np.zeros_like(A, dtype=np.result_type(A.dtype, np.complex64))
    for turn in np.exp(2j * np.pi * np.arange(n) / n).tolist():
        made = made + _cofactors((A + (radius * turn) * X).astype(made.dtype), rest) / turn
    made = made / (n * radius)
    return (made if A.dtype.kind == "c" else made.real).astype(A.dtype)


_cofactors.vjp(  # a derivative of det is symmetric in its directions
    A=lambda g, A, directions: _cofactors(A, [*directions, g]),
    directions=lambda g, A, directions: [
        _cofactors(A, [*directions[:i], g, *directions[i + 1 :]]) for i in range(len(directions))
    ],
)


def _hessian(A: Any, E: Any) -> Any:
    """The derivative of the cofactors along E.

    With F = U^H E V, in the basis of the singular vectors, and P_ij the product of the singular
    values without the i-th and the j-th: sum_j P_ij F_jj on the diagonal, -P_ij F_ji beside it.
    """
    c, U, S, Vh = turned(A)
    n = S.shape[-1]
    if n < 2:
        return np.zeros_like(A)
    eye = beside(np.eye(n, dtype=np.bool_), S)
    P = np.stack([without_each(np.where(eye[i], 1.0, S)) for i in range(n)], -2)
    P = np.where(eye, 0.0, P).astype(S.dtype)
    F = np.matmul(U.mT, np.matmul(E, Vh.mT))
    diagonal = np.matmul(P, np.diagonal(F, 0, -2, -1)[..., None])
    return c[..., None, None] * np.matmul(U, np.matmul(np.where(eye, diagonal, -P * F.mT), Vh))


@op(
    name="linalg.slogdet", differentiable=2, unread=1, method=False,
    node_name="LinalgSlogdetBackward0",
)  # fmt: skip
def _slogdet(A: Any) -> Any:
    check_matrix("linalg.slogdet", A)
    sign, logabsdet = np.linalg.slogdet(A)
    return sign, logabsdet


def _slogdet_back(g: Any, A: Any, out: Any) -> Any:
    """d log det = tr(A^-1 dA): its real part is d log|det|, its imaginary part turns the sign."""
    turn, scale = g
    if is_complex(turn):
        scale = scale + (turn * out[0]).imag * 1j  # 1j first would make a Python number
    return scale[..., None, None] * unchecked_inverse(A).mT


_slogdet.vjp(A=_slogdet_back)


@composite
def slogdet(A: Any) -> Slogdet:
    """The sign (the phase, if complex) and the logarithm of the absolute value of the determinant."""
    return Slogdet(*_slogdet(A))


@composite
def logdet(input: Any) -> Any:
    """The logarithm of the determinant; nan where a real one is negative."""
    sign, logabsdet = _slogdet(input)
    if input.is_complex():
        return logabsdet + np.log(sign)
    return logabsdet.masked_fill(sign < 0, float("nan"))


_expm = on_host(scipy.linalg.expm)


@op(node_name="LinalgMatrixExpBackward0")
def matrix_exp(A: Any) -> Any:
    """The exponential of square matrices."""
    check_matrix("linalg.matrix_exp", A)
    return kept(_expm(A), A) if A.size else np.copy(A)


def _exp_back(g: Any, A: Any) -> Any:
    """exp [[A^T, g], [0, A^T]] has the derivative of exp at A^T along g at its upper right."""
    n = A.shape[-1]
    g, A = np.broadcast_to(g, A.shape), A.mT
    upper = np.concatenate((A, g), -1)
    lower = np.concatenate((np.zeros_like(A), A), -1)
    return matrix_exp(np.concatenate((upper, lower), -2))[..., :n, n:]


matrix_exp.vjp(A=_exp_back)
