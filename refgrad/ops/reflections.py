"""LAPACK's packed forms: products of Householder reflections, and LDL."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.errors import LinAlgError
from refgrad.libraries import on_host
from refgrad.ops.composites import composite
from refgrad.ops.matrices import adjoint, check_matrix, conj, lapack, without_derivative
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.tensor import wrap

__all__ = ["geqrf", "orgqr", "ormqr"]


class Geqrf(NamedTuple):
    """R with the Householder vectors below it, and their scales."""

    a: Any
    tau: Any


class LDLFactor(NamedTuple):
    """L and D of A = L D L^H in one matrix, and LAPACK's pivots."""

    LD: Any
    pivots: Any


class LDLFactorEx(NamedTuple):
    """As `LDLFactor`, with LAPACK's info for each matrix."""

    LD: Any
    pivots: Any
    info: Any


# --- Householder products ------------------------------------------------------------------------


def _reflectors(A: Any, tau: Any) -> list[tuple[Any, Any]]:
    """(v, tau) for each reflection 1 - tau v v^H; v has a one at its place and zeros above it."""
    m, k = A.shape[-2], tau.shape[-1]
    V = np.tril(A[..., :k], -1) + constant(np.eye(m, k, dtype=A._array.dtype), A)
    return [(V[..., i : i + 1], tau[..., i, None, None]) for i in range(k)]


def _reflect(C: Any, v: Any, t: Any) -> Any:
    return C - np.matmul(t * v, np.matmul(adjoint(v), C))


@composite(method=False)
def householder_product(A: Any, tau: Any) -> Any:
    """The first columns of the product of the reflections 1 - tau_i v_i v_i^H, v_i in A's columns."""
    check_matrix("linalg.householder_product", A, square=False)
    m, n = A.shape[-2:]
    if m < n:
        raise RuntimeError(
            "torch.linalg.householder_product: input.shape[-2] must be greater than or equal to "
            "input.shape[-1]"
        )
    if n < tau.shape[-1]:
        raise RuntimeError(
            "torch.linalg.householder_product: input.shape[-1] must be greater than or equal to "
            "tau.shape[-1]"
        )
    Q = constant(np.eye(m, n, dtype=A._array.dtype), A).expand(*A.shape[:-2], m, n)
    for v, t in reversed(_reflectors(A, tau)):
        Q = _reflect(Q, v, t)
    return Q.clone() if not tau.shape[-1] else Q


@composite
def orgqr(input: Any, tau: Any) -> Any:
    """`linalg.householder_product`."""
    return householder_product(input, tau)


@composite
def ormqr(input: Any, tau: Any, other: Any, left: bool = True, transpose: bool = False) -> Any:
    """Q other (other Q unless `left`; Q^H for Q if `transpose`), from the reflections that make Q."""
    if not left:
        return adjoint(ormqr(input, tau, adjoint(other), True, not transpose))
    pairs = _reflectors(input, tau)
    if transpose:
        pairs = [(v, conj(t)) for v, t in pairs]
    else:
        pairs.reverse()
    for v, t in pairs:
        other = _reflect(other, v, t)
    return other


@op(differentiable=2)
@on_host
def geqrf(input: Any) -> Geqrf:
    """R with the Householder vectors below it, and their scales, as LAPACK gives; no gradient."""
    A = input
    check_matrix("geqrf", A, square=False)
    a, tau = np.array(A), np.zeros((*A.shape[:-2], min(A.shape[-2:])), dtype=A.dtype)
    if a.size:
        factorise = lapack("geqrf", A)
        for i in np.ndindex(A.shape[:-2]):
            a[i], tau[i] = factorise(A[i])[:2]
    return Geqrf(a, tau)


geqrf.vjp(input=without_derivative("geqrf"))


# --- LDL -----------------------------------------------------------------------------------------


@op(method=False)
@on_host
def ldl_factor_ex(A: Any, *, hermitian: Any = False, check_errors: Any = False) -> LDLFactorEx:
    """L and D of a symmetric (or Hermitian) A in one matrix, as LAPACK gives; no gradient."""
    check_matrix("torch.linalg.ldl_factor_ex", A)
    packed = np.tril(A)
    pivots = np.zeros(A.shape[:-1], dtype=np.int32)
    info = np.zeros(A.shape[:-2], dtype=np.int32)
    if A.size:
        factorise = lapack(_ldl_name("trf", A, hermitian), A)
        for i in np.ndindex(info.shape):
            packed[i], pivots[i], info[i] = factorise(A[i], lower=True)
            packed[i] = np.tril(packed[i])
    if check_errors and np.any(info > 0):
        k = int(np.max(info))
        raise LinAlgError(f"torch.linalg.ldl_factor_ex: D[{k},{k}] is zero: the input is singular")
    return LDLFactorEx(packed, pivots, info)


ldl_factor_ex.vjp(A=without_derivative("linalg_ldl_factor_ex"))


def _ldl_name(end: str, array: Any, hermitian: bool) -> str:
    return ("he" if hermitian and array.dtype.kind == "c" else "sy") + end


def ldl_factor(A: Any, *, hermitian: bool = False) -> LDLFactor:
    """L and D of a symmetric (or Hermitian) A in one matrix, as LAPACK gives; no gradient."""
    return LDLFactor(*ldl_factor_ex(A, hermitian=hermitian, check_errors=True)[:2])


@composite(method=False)
def ldl_solve(LD: Any, pivots: Any, B: Any, *, hermitian: bool = False) -> Any:
    """The X with A X = B, from `ldl_factor` of A; no gradient."""
    check_matrix("torch.linalg.ldl_solve", LD)
    return wrap(_ldl_solve(LD._array, pivots._array, B._array, hermitian))


@on_host
def _ldl_solve(M: Any, swaps: Any, right: Any, hermitian: bool) -> Any:
    batch = np.broadcast_shapes(M.shape[:-2], right.shape[:-2])
    X = np.zeros(batch + right.shape[-2:], dtype=M.dtype)
    if X.size:
        M, swaps = (
            np.broadcast_to(M, batch + M.shape[-2:]),
            np.broadcast_to(swaps, batch + swaps.shape[-1:]),
        )
        right = np.broadcast_to(right, X.shape)
        solver = lapack(_ldl_name("trs", M, hermitian), M)
        for i in np.ndindex(batch):
            X[i] = solver(M[i], swaps[i], right[i], lower=True)[0]
    return X
