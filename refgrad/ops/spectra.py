"""Eigenvalues and singular values, with their vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.ops.composites import composite
from refgrad.ops.matrices import (
    adjoint,
    check_invariant,
    check_matrix,
    conj,
    differences,
    is_complex,
    off_diagonal,
    on_diagonal,
    ratio,
)
from refgrad.ops.op import op
from refgrad.ops.solving import _solve

__all__ = ["svd"]


class Eig(NamedTuple):
    """Eigenvalues, and eigenvectors in the columns."""

    eigenvalues: Any
    eigenvectors: Any


class SVD(NamedTuple):
    """The factors of A = U diag(S) V^H."""

    U: Any
    S: Any
    V: Any


class LinalgSVD(NamedTuple):
    """The factors of A = U diag(S) Vh."""

    U: Any
    S: Any
    Vh: Any


# --- eigenvalues ---------------------------------------------------------------------------------


@op(name="linalg.eigh", differentiable=2, method=False, node_name="LinalgEighBackward0")
def _eigh(A: Any, UPLO: Any) -> Any:
    L, V = np.linalg.eigh(A, UPLO)
    return L, V


def _eigh_back(g: Any, out: Any) -> Any:
    """dA = V (diag(dL) + skew(V^H dV) / 2 (l_j - l_i)) V^H (Giles 2008), its diagonal being a phase.

    Hermitian, though one triangle of A is read, as PyTorch's is.
    """
    (gL, gV), (L, V) = g, out
    turned = np.matmul(adjoint(V), conj(gV))
    if is_complex(V):
        check_invariant("linalg_eigh_backward", np.diagonal(turned, 0, -2, -1).imag)
    skew = 0.5 * off_diagonal(turned - adjoint(turned))
    inner = ratio(skew, differences(L)) + on_diagonal(gL)
    return conj(np.matmul(V, np.matmul(inner, adjoint(V))))


_eigh.vjp(A=lambda g, out: _eigh_back(g, out))


def _check_uplo(UPLO: str) -> str:
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper()


def eigh(A: Any, UPLO: str = "L") -> Eig:
    """The eigenvalues, ascending, and eigenvectors of Hermitian matrices; one triangle is read."""
    check_matrix("linalg.eigh", A)
    return Eig(*_eigh(A, _check_uplo(UPLO)))


def eigvalsh(A: Any, UPLO: str = "L") -> Any:
    """The eigenvalues of Hermitian matrices, ascending."""
    check_matrix("linalg.eigvalsh", A)
    return _eigh(A, _check_uplo(UPLO))[0]


@op(name="linalg.eig", differentiable=2, method=False, node_name="LinalgEigBackward0")
def _eig(A: Any) -> Any:
    L, V = np.linalg.eig(A)
    dtype = np.result_type(A.dtype, np.complex64)
    return L.astype(dtype), V.astype(dtype)


def _eig_back(g: Any, out: Any) -> Any:
    """dA = V^-H (diag(dL) + (V^H dV - V^H V Re diag(V^H dV)) / conj(l_j - l_i)) V^H, for unit columns."""
    (gL, gV), (L, V) = g, out
    H = adjoint(V)
    turned = np.matmul(H, conj(gV))
    phases = np.diagonal(turned, 0, -2, -1)
    check_invariant("linalg_eig_backward", phases.imag)
    along = np.matmul(H, V) * phases.real[..., None, :]
    inner = ratio(off_diagonal(turned - along), conj(differences(L))) + on_diagonal(conj(gL))
    return conj(_solve(H, np.matmul(inner, H))[0])


_eig.vjp(A=lambda g, out: _eig_back(g, out))


def eig(A: Any) -> Eig:
    """The eigenvalues and unit eigenvectors of square matrices, complex."""
    check_matrix("linalg.eig", A)
    return Eig(*_eig(A))


def eigvals(A: Any) -> Any:
    """The eigenvalues of square matrices, complex."""
    check_matrix("linalg.eigvals", A)
    return _eig(A)[0]


# --- singular values -----------------------------------------------------------------------------


@op(name="linalg.svd", differentiable=3, method=False, node_name="LinalgSvdBackward0")
def _svd(A: Any, full_matrices: Any) -> Any:
    U, S, Vh = np.linalg.svd(A, full_matrices=full_matrices)
    return U, S, Vh


def _thin(G: Any, U: Any, k: int) -> tuple[Any, Any]:
    """The first k columns of U and their gradient.

    The others complete a basis: up to a rotation among themselves, on which a loss cannot depend,
    they move by -U dU^H U2, so that dU gets -U2 dU2^H U.
    """
    if U.shape[-1] == k:
        return G, U
    first, rest = U[..., :k], U[..., k:]
    return G[..., :k] - np.matmul(rest, np.matmul(adjoint(G[..., k:]), first)), first


def _svd_back(g: Any, out: Any) -> Any:
    """dA = U (diag(dS) + [skew(U^H dU) S + S skew(V^H dV)] / (s_j^2 - s_i^2)) V^H, and what of dU and
    dV lies outside the columns of U and V, over S (Townsend 2016; Wan and Zhang 2019).
    """
    (gU, gS, gVh), (U, S, Vh) = g, out
    k = S.shape[-1]
    GU, U = _thin(conj(gU), U, k)
    GV, V = _thin(gVh.mT, adjoint(Vh), k)
    UG, VG = np.matmul(adjoint(U), GU), np.matmul(adjoint(V), GV)
    skew_u, skew_v = UG - adjoint(UG), VG - adjoint(VG)
    row, column = S[..., None, :], S[..., :, None]
    squares = differences(S) * (row + column)
    inner = ratio(off_diagonal(skew_u * row + skew_v * column), squares) + on_diagonal(gS)
    if is_complex(U):
        turns = np.diagonal(skew_u, 0, -2, -1)
        check_invariant("svd_backward", (turns + np.diagonal(skew_v, 0, -2, -1)).imag)
        inner = inner + on_diagonal(ratio(turns, 2 * S))
    made = np.matmul(U, inner)
    if U.shape[-2] > k:
        outer = ratio(GU - np.matmul(U, UG), row)
        made = made + outer
    made = np.matmul(made, adjoint(V))
    if V.shape[-2] > k:
        outer = ratio(GV - np.matmul(V, VG), row)
        made = made + np.matmul(U, adjoint(outer))
    return conj(made)


_svd.vjp(A=lambda g, out: _svd_back(g, out))


def linalg_svd(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> LinalgSVD:
    """The factors of A = U diag(S) Vh, singular values descending; U and Vh square, or thin."""
    check_matrix("linalg.svd", A, square=False)
    if driver is not None:
        raise RuntimeError(
            "torch.linalg.svd: keyword argument `driver=` is only supported on CUDA inputs"
        )
    return LinalgSVD(*_svd(A, full_matrices))


def svdvals(A: Any, *, driver: str | None = None) -> Any:
    """The singular values, descending."""
    return linalg_svd(A, False, driver=driver).S


@composite
def svd(input: Any, some: bool = True, compute_uv: bool = True) -> SVD:
    """The factors of A = U diag(S) V^H, thin if `some`; zeros for U and V without `compute_uv`."""
    if not compute_uv:
        m, n = input.shape[-2:]
        batch = tuple(input.shape[:-2])
        S = svdvals(input)
        return SVD(input.new_zeros((*batch, m, m)), S, input.new_zeros((*batch, n, n)))
    U, S, Vh = linalg_svd(input, not some)
    return SVD(U, S, adjoint(Vh))
