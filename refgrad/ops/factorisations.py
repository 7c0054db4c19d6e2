"""Triangular and orthogonal factorisations: Cholesky, LU, QR."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.errors import LinAlgError
from refgrad.libraries import beside, on_host
from refgrad.ops.composites import composite
from refgrad.ops.matrices import adjoint, check_matrix, conj, lapack
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.ops.solving import _check_system, substitute
from refgrad.tensor import wrap

__all__ = ["cholesky", "lu", "lu_solve", "lu_unpack", "qr"]


class CholeskyEx(NamedTuple):
    """A Cholesky factor and, for each matrix, 0 or the order of a minor that is not positive."""

    L: Any
    info: Any


class LU(NamedTuple):
    """The factors of A = P L U."""

    P: Any
    L: Any
    U: Any


class LUFactor(NamedTuple):
    """L (below the diagonal, which is one) and U in one matrix, and the rows swapped, from 1."""

    LU: Any
    pivots: Any


class LUFactorEx(NamedTuple):
    """As `LUFactor`, with 0 or the place of a zero pivot for each matrix."""

    LU: Any
    pivots: Any
    info: Any


class QR(NamedTuple):
    """The factors of A = Q R."""

    Q: Any
    R: Any


# --- Cholesky ------------------------------------------------------------------------------------


@on_host
def _not_positive(A: Any) -> Any:
    """For each matrix the order of the first leading minor that is not positive; 0 if none."""
    potrf = lapack("potrf", A)
    info = np.zeros(A.shape[:-2], dtype=np.int32)
    if A.shape[-1]:
        for i in np.ndindex(info.shape):
            info[i] = potrf(A[i], lower=True)[1]
    return info


def _triangle(A: Any, upper: bool) -> Any:
    """L, or U as the adjoint of the L of what the upper triangle says."""
    if not upper:
        return np.linalg.cholesky(A)
    return np.conj(np.linalg.cholesky(np.conj(A.mT)).mT)


@op(name="linalg.cholesky", method=False, node_name="LinalgCholeskyExBackward0")
def _cholesky(A: Any, upper: Any, checked: Any) -> Any:
    try:
        return _triangle(A, upper)
    except np.linalg.LinAlgError:
        info = _not_positive(np.conj(A.mT) if upper else A)
        if checked:
            raise LinAlgError(
                "linalg.cholesky: The factorization could not be completed because the input is "
                f"not positive-definite (the leading minor of order {int(np.max(info))} is not "
                "positive-definite)."
            ) from None
        bad = info[..., None, None] > 0
        safe = np.where(bad, beside(np.eye(A.shape[-1], dtype=A.dtype), A), A)
        return np.where(bad, np.nan, _triangle(safe, upper)).astype(A.dtype)


def _half(X: Any) -> Any:
    """The lower triangle with half its diagonal."""
    return 0.5 * (np.tril(X) + np.tril(X, -1))


def _cholesky_back(g: Any, L: Any, upper: bool) -> Any:
    """dA = L^-H sym(half(L^H dL)) L^-1 (Seeger et al. 2017), Hermitian though one triangle is read."""
    if upper:
        g, L = g.mT, L.mT  # not adjoints: with A = U^H U the conjugate of A is U^T conj(U)
    P = _half(np.matmul(adjoint(L), conj(g)))
    left = substitute(adjoint(L), P + adjoint(P), True)
    made = 0.5 * substitute(L, left, False, left=False)
    return made if upper else conj(made)


_cholesky.vjp(A=lambda g, out, upper: _cholesky_back(g, out, upper))


@composite
def cholesky(input: Any, upper: bool = False) -> Any:
    """The L of A = L L^H, or the U of A = U^H U, for Hermitian positive-definite matrices.

    Only that triangle of A is read. `linalg.cholesky` has `upper` as a keyword.

    Raises:
        LinAlgError: A is not positive-definite.
    """
    check_matrix("linalg.cholesky", input)
    return _cholesky(input, upper, True)


@composite(method=False)
def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> CholeskyEx:
    """The Cholesky factor, and where each matrix fails instead of an error."""
    check_matrix("linalg.cholesky_ex", A)
    L = _cholesky(A, upper, check_errors)
    array = A._array
    return CholeskyEx(L, wrap(_not_positive(np.conj(array.mT) if upper else array)))


# --- LU ------------------------------------------------------------------------------------------


@op(name="linalg.lu", method=False, node_name="LinalgLuFactorExBackward0")
@on_host
def _lu(A: Any) -> Any:
    """L and U in one matrix, LAPACK's pivots from 1, its info, and the permutation matrix."""
    batch, (m, n) = A.shape[:-2], A.shape[-2:]
    k = min(m, n)
    packed = np.array(A)
    pivots = np.zeros((*batch, k), dtype=np.int32)
    info = np.zeros(batch, dtype=np.int32)
    if k:
        getrf = lapack("getrf", A)
        for i in np.ndindex(batch):
            packed[i], swaps, info[i] = getrf(A[i])
            pivots[i] = swaps + 1
    return packed, pivots, info, permutation(pivots, m, A.dtype)


@on_host
def permutation(pivots: Any, m: int, dtype: Any) -> Any:
    """The matrix P of A = P L U, from LAPACK's row swaps."""
    P = np.zeros((*pivots.shape[:-1], m, m), dtype=dtype)
    for i in np.ndindex(pivots.shape[:-1]):
        order = np.arange(m)
        for row, other in enumerate(pivots[i] - 1):
            order[[row, other]] = order[[other, row]]
        P[i][order, np.arange(m)] = 1
    return P


def _lu_back(g: Any, out: Any) -> Any:
    """d(P^T A) = L (low(L^-1 dL) + up(dU U^-1)) U, with the columns or rows beyond the square's."""
    packed, _, _, P = out
    k = min(packed.shape[-2:])
    low, up = g[..., :k], g[..., :k, :]
    L, U = packed[..., :k, :k], packed[..., :k, :k]
    inner_low = np.matmul(_unit_lower(L).mT, np.tril(low[..., :k, :], -1))
    inner_up = np.matmul(np.triu(up[..., :k]), np.triu(U).mT)
    if packed.shape[-1] > k:  # P^T A = L [U1 U2]
        rest = up[..., k:]
        inner_low = inner_low - np.matmul(rest, packed[..., :k, k:].mT)
        beyond = substitute(L.mT, rest, True, unitriangular=True)
    elif packed.shape[-2] > k:  # P^T A = [L1; L2] U
        rest = low[..., k:, :]
        inner_up = inner_up - np.matmul(packed[..., k:, :].mT, rest)
        beyond = substitute(U.mT, rest, False, left=False)
    square = substitute(L.mT, np.tril(inner_low, -1) + np.triu(inner_up), True, unitriangular=True)
    square = substitute(U.mT, square, False, left=False)
    if packed.shape[-1] > k:
        square = np.concatenate((square, beyond), -1)
    elif packed.shape[-2] > k:
        square = np.concatenate((square, beyond), -2)
    return np.matmul(P, square)


def _unit_lower(L: Any) -> Any:
    """The lower triangle with ones on its diagonal."""
    eye = beside(np.eye(L.shape[-1], dtype=np.bool_), L)
    return np.where(eye, np.ones_like(L), np.tril(L))


_lu.vjp(A=lambda g, out: _lu_back(g, out))


def _factor(name: str, A: Any, pivot: bool) -> Any:
    check_matrix(name, A, square=False)
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")
    return _lu(A)


@composite(method=False)
def lu_factor(A: Any, *, pivot: bool = True) -> LUFactor:
    """L and U in one matrix, and the rows swapped.

    Raises:
        RuntimeError: U has a zero on its diagonal.
    """
    packed, pivots, info, _ = _factor("linalg.lu_factor", A, pivot)
    _check_pivots("torch.linalg.lu_factor", info)
    return LUFactor(packed, pivots)


def _check_pivots(name: str, info: Any) -> None:
    if np.any(info._array > 0):
        k = int(np.max(info._array))
        raise RuntimeError(
            f"{name}: U[{k},{k}] is zero and using it on lu_solve would result in a division by "
            "zero. If you still want to perform the factorization, consider calling "
            "linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)"
        )


@composite(method=False)
def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> LUFactorEx:
    """As `lu_factor`, with the place of a zero pivot instead of an error."""
    packed, pivots, info, _ = _factor("linalg.lu_factor_ex", A, pivot)
    if check_errors:
        _check_pivots("torch.linalg.lu_factor_ex", info)
    return LUFactorEx(packed, pivots, info)


@composite
def lu(A: Any, pivot: bool = True, get_infos: bool = False) -> Any:
    """`linalg.lu_factor` as a plain tuple; with `get_infos` its info too, instead of an error."""
    packed, pivots, info, _ = _factor("lu", A, pivot)
    if get_infos:
        return LUFactorEx(packed, pivots, info)
    _check_pivots("torch.lu", info)
    return packed, pivots


@composite(method=False)
def linalg_lu(A: Any, *, pivot: bool = True) -> LU:
    """The factors of A = P L U."""
    packed, _, _, P = _factor("linalg.lu", A, pivot)
    return LU(P, *_unpack(packed))


def _unpack(packed: Any) -> tuple[Any, Any]:
    k = min(packed.shape[-2:])
    low = np.tril(packed[..., :k], -1)
    eye = np.eye(packed.shape[-2], k, dtype=packed._array.dtype)
    return low + constant(eye, packed), np.triu(packed[..., :k, :])


@composite(method=False)
def lu_unpack(
    LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True
) -> LU:
    """P, L and U from what `linalg.lu_factor` gives; empty what is not asked for."""
    array = LU_data._array
    none = wrap(np.zeros_like(array, shape=(0,)))
    P = wrap(permutation(LU_pivots._array, array.shape[-2], array.dtype)) if unpack_pivots else none
    return LU(P, *(_unpack(LU_data) if unpack_data else (none, none)))


def linalg_lu_solve(
    LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False
) -> Any:
    """The X with A X = B (X A = B unless `left`; A^H for A if `adjoint`), from `lu_factor` of A."""
    check_matrix("linalg.lu_solve", LU)
    _check_system("linalg.lu_solve", LU, B, left)
    P = wrap(permutation(pivots._array, LU.shape[-1], LU._array.dtype))
    if not left:  # X A = B is A^H X^H = B^H
        return conj(_lu_solve(LU, P, conj(B.mT), not adjoint).mT)
    return _lu_solve(LU, P, B, adjoint)


def _lu_solve(LU: Any, P: Any, B: Any, of_adjoint: bool) -> Any:
    if of_adjoint:  # U^H L^H P^T X = B
        H = adjoint(LU)
        inner = substitute(H, substitute(H, B, False), True, unitriangular=True)
        return np.matmul(P, inner)
    return substitute(LU, substitute(LU, np.matmul(P.mT, B), False, unitriangular=True), True)


@composite
def lu_solve(input: Any, LU_data: Any, LU_pivots: Any) -> Any:
    """The X with A X = input, from `linalg.lu_factor` of A."""
    return linalg_lu_solve(LU_data, LU_pivots, input)


# --- QR ------------------------------------------------------------------------------------------


@op(name="linalg.qr", differentiable=2, method=False, node_name="LinalgQrBackward0")
def _qr(A: Any, mode: Any) -> Any:
    Q, R = np.linalg.qr(A, mode=mode)
    return Q, R


def _qr_back(g: Any, out: Any, mode: str) -> Any:
    """dA = (dQ + Q sym(up(dR R^H - Q^H dQ))) R^-H; A2 = Q R2 for the columns beyond the square's."""
    (G, GR), (Q, R) = g, out
    G, GR = conj(G), conj(GR)
    m, n = Q.shape[-2], R.shape[-1]
    if mode == "complete" and m > n:
        raise RuntimeError(
            "The QR decomposition is not differentiable when mode='complete' and nrows > ncols"
        )
    R1, GR1 = R[..., :m], GR[..., :m]
    if m < n:  # R2 = Q^H A2, so dQ gets A2 dR2^H as well
        R2, GR2 = R[..., m:], GR[..., m:]
        G = G + np.matmul(Q, np.matmul(R2, adjoint(GR2)))
    M = np.triu(np.matmul(GR1, adjoint(R1)) - np.matmul(adjoint(Q), G))
    M = 0.5 * (M + np.triu(M, 1))
    made = substitute(adjoint(R1), G + np.matmul(Q, M + adjoint(M)), False, left=False)
    if m < n:
        made = np.concatenate((made, np.matmul(Q, GR2)), -1)
    return conj(made)


_qr.vjp(A=lambda g, out, mode: _qr_back(g, out, mode))


def linalg_qr(A: Any, mode: str = "reduced") -> QR:
    """The factors of A = Q R; Q with as many columns as A's shorter side ("reduced"), or square.

    With mode "r" Q is empty.
    """
    check_matrix("linalg.qr", A, square=False)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', "
            "or 'complete'"
        )
    if mode == "r":
        return QR(wrap(np.zeros_like(A._array, shape=(0,))), _qr(A, "reduced")[1])
    return QR(*_qr(A, mode))


@composite
def qr(input: Any, some: bool = True) -> QR:
    """`linalg.qr`, reduced if `some`, else complete."""
    return linalg_qr(input, "reduced" if some else "complete")
