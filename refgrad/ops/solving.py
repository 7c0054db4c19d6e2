"""Inverses and systems of linear equations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from refgrad.errors import LinAlgError
from refgrad.libraries import beside, cuda, on_device, on_host
from refgrad.ops.composites import composite
from refgrad.ops.matrices import adjoint, check_matrix, cofactors, lapack
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.tensor import wrap

__all__ = ["cholesky_inverse", "cholesky_solve", "inverse", "triangular_solve"]


class InvEx(NamedTuple):
    """An inverse and, for each matrix, 0 or the place of a zero pivot."""

    inverse: Any
    info: Any


class SolveEx(NamedTuple):
    """A solution and, for each matrix, 0 or the place of a zero pivot."""

    result: Any
    info: Any


class TriangularSolve(NamedTuple):
    """A solution and the matrix that was given."""

    solution: Any
    cloned_coefficient: Any


# --- inverses ------------------------------------------------------------------------------------


@op(name="linalg.inv", method=False, node_name="LinalgInvExBackward0")
def inv(A: Any) -> Any:
    """The inverse of square matrices.

    Raises:
        LinAlgError: one is singular.
    """
    check_matrix("linalg.inv", A)
    try:
        return np.linalg.inv(A)
    except np.linalg.LinAlgError:
        k = int(np.max(zero_pivots(A)))
        raise LinAlgError(
            f"linalg.inv: The diagonal element {k} is zero, the inversion could not be completed "
            "because the input matrix is singular."
        ) from None


def _inverse_back(g: Any, Y: Any) -> Any:
    """d A^-1 = -A^-1 dA A^-1."""
    return -np.matmul(Y.mT, np.matmul(g, Y.mT))


inv.vjp(A=lambda g, out: _inverse_back(g, out))


@op(method=False)
def unchecked_inverse(A: Any) -> Any:
    """The inverse of square matrices; for those that are singular their adjugate over zero."""
    try:
        return np.linalg.inv(A)
    except np.linalg.LinAlgError:
        singular = zero_pivots(A)[..., None, None] > 0
        safe = np.where(singular, beside(np.eye(A.shape[-1], dtype=A.dtype), A), A)
        with np.errstate(divide="ignore", invalid="ignore"):
            adjugate = cofactors(A).mT / 0.0
        return np.where(singular, adjugate, np.linalg.inv(safe)).astype(A.dtype)


unchecked_inverse.vjp(A=lambda g, out: _inverse_back(g, out))


@on_host
def zero_pivots(A: Any) -> Any:
    """For each matrix the place, from 1, of the first zero pivot of its LU factorisation; 0 if none."""
    getrf = lapack("getrf", A)
    info = np.zeros(A.shape[:-2], dtype=np.int32)
    if A.shape[-1]:
        for i in np.ndindex(info.shape):
            info[i] = getrf(A[i])[2]
    return info


@composite(method=False)
def inv_ex(A: Any, *, check_errors: bool = False) -> InvEx:
    """The inverse of square matrices, and where each fails instead of an error."""
    check_matrix("linalg.inv_ex", A)
    info = zero_pivots(A._array)
    return InvEx((inv if check_errors else unchecked_inverse)(A), wrap(info))


@composite
def inverse(input: Any) -> Any:
    """The inverse of square matrices, as `linalg.inv`."""
    return inv(input)


# --- systems -------------------------------------------------------------------------------------


@op(name="linalg.solve", method=False, node_name="LinalgSolveExBackward0")
def _solve(A: Any, B: Any, checked: Any = True) -> tuple[Any, Any, Any]:
    """The X with A X = B; and what its vjp substitutes into, the LU factors of A^T and the pivots.

    Many small matrices are solved in one call, which keeps no factors: then they are empty.
    """
    none = A[..., :0]
    try:
        if type(A) is np.ndarray is type(B) and (A.ndim == 2 or A.shape[-1] >= _FACTORED):
            factors, pivots = _factored(A)
            return _substituted(factors, pivots, B, True), factors, pivots
        return np.linalg.solve(A, B), none, none
    except np.linalg.LinAlgError:
        if checked:
            raise LinAlgError(
                "linalg.solve: The solver failed because the input matrix is singular."
            ) from None
        return np.matmul(unchecked_inverse(A), B), none, none


_FACTORED = 32  # rows: from there on 100 matrices take no longer one by one


def _factored(A: Any) -> tuple[Any, Any]:
    """LAPACK's getrf of A^T, which is how rows lie in memory.

    Raises:
        LinAlgError: a pivot is zero.
    """
    getrf = lapack("getrf", A)
    if A.ndim == 2:
        factors, pivots, info = getrf(A.T) if A.size else (A, A[:0], 0)
        if info > 0:
            raise np.linalg.LinAlgError("singular")
        return factors, pivots
    parts = [_factored(M) for M in np.reshape(A, (-1, *A.shape[-2:]))]
    return (
        np.reshape([f.T for f, _ in parts], A.shape).mT,
        np.reshape([p for _, p in parts], A.shape[:-1]),
    )


def _substituted(factors: Any, pivots: Any, B: Any, transposed: bool) -> Any:
    """LAPACK's getrs: the X with M X = B, or M^T X = B if `transposed`, from the factors of M."""
    getrs = lapack("getrs", factors, B)
    if factors.ndim == 2 == B.ndim:
        return getrs(factors, pivots, B, trans=int(transposed))[0] if B.size else np.copy(B)
    batch = np.broadcast_shapes(factors.shape[:-2], B.shape[:-2])
    factors = np.broadcast_to(factors, batch + factors.shape[-2:])
    pivots = np.broadcast_to(pivots, batch + pivots.shape[-1:])
    B = np.broadcast_to(B, batch + B.shape[-2:])
    X = np.empty_like(B, order="C")
    for i in np.ndindex(batch):
        X[i] = _substituted(factors[i], pivots[i], B[i], transposed)
    return X


def _solve_back(g: Any, out: Any, A: Any, checked: Any) -> Any:
    """A^-T g."""
    _, factors, pivots = out
    if type(g) is np.ndarray and factors.size:  # 512 rows: 0.6 ms in place of 6.7
        return _substituted(factors, pivots, g, False)
    return _solve(A.mT, g, checked)[0]


def _solve_back_matrix(g: Any, out: Any, A: Any, checked: Any) -> Any:
    # A dX = dB - dA X
    return -np.matmul(_solve_back(g, out, A, checked), out[0].mT)


_solve.vjp(A=_solve_back_matrix, B=_solve_back)


def is_vector(A: Any, B: Any) -> bool:
    return B.ndim == 1 or (A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1]))


def _check_system(name: str, A: Any, B: Any, left: bool) -> None:
    if A.dtype != B.dtype:
        raise RuntimeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type {A.dtype} and B "
            f"of type {B.dtype} instead"
        )
    side = -2 if left else -1
    if A.shape[-2] != B.shape[side]:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'}"
            f" ({A.shape[-2]}x{A.shape[-1]} and {B.shape[-2]}x{B.shape[-1]})"
        )


@composite(method=False)
def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    """The X with A X = B, or X A = B unless `left`; B may be vectors.

    Raises:
        LinAlgError: A is singular.
        RuntimeError: the shapes or dtypes do not fit.
    """
    return _solve_either("linalg.solve", A, B, left, True)


def _solve_either(name: str, A: Any, B: Any, left: bool, checked: bool) -> Any:
    check_matrix(name, A)
    if is_vector(A, B):
        if not left:
            raise RuntimeError(
                f"{name}: Vector broadcasting of the left hand side is not supported for left=False."
            )
        B = B[..., None]
        _check_system(name, A, B, True)
        return _solve(A, B, checked)[0][..., 0]
    _check_system(name, A, B, left)
    return _solve(A, B, checked)[0] if left else _solve(A.mT, B.mT, checked)[0].mT


@composite(method=False)
def solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> SolveEx:
    """The solution as `solve`, and where each matrix fails instead of an error."""
    result = _solve_either("linalg.solve_ex", A, B, left, check_errors)
    return SolveEx(result, wrap(zero_pivots(A._array)))


# --- triangular systems --------------------------------------------------------------------------


@op(name="linalg.solve_triangular", method=False, node_name="LinalgSolveTriangularBackward0")
def _solve_triangular(A: Any, B: Any, upper: Any, unitriangular: Any) -> Any:
    """The X with A X = B, A read as a triangle; a zero on its diagonal gives inf."""
    if on_device(A):
        return _solve_triangular_there(A, B, upper, unitriangular)
    if type(A) is not np.ndarray or type(B) is not np.ndarray:  # trsm does not dispatch
        side = (np.triu if upper else np.tril)(A, (1 if upper else -1) * bool(unitriangular))
        return np.linalg.solve(side + beside(np.eye(A.shape[-1]), A) if unitriangular else side, B)
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    if not batch and B.size:
        return _substitute(A, B, upper, unitriangular)
    X = np.empty(batch + B.shape[-2:], dtype=B.dtype)
    if X.size:
        A, B = np.broadcast_to(A, batch + A.shape[-2:]), np.broadcast_to(B, X.shape)
        for i in np.ndindex(batch):
            X[i] = _substitute(A[i], B[i], upper, unitriangular)
    return X


def _substitute(A: Any, B: Any, upper: Any, unitriangular: Any) -> Any:
    """BLAS's trsm, which reads columns: of A or A^T, with A X = B as X^T A^T = B^T where B has rows.

    So nothing is copied but B: 256 rows and right-hand sides take 1.5 ms in place of 7.2.
    """
    (trsm,) = scipy.linalg.get_blas_funcs(("trsm",), (A, B))
    turned = not A.flags.f_contiguous
    matrix, lower = (A.T, upper) if turned else (A, not upper)
    if B.flags.f_contiguous:
        return trsm(1.0, matrix, B, 0, lower, turned, unitriangular)
    return trsm(1.0, matrix, B.T, 1, lower, not turned, unitriangular).T


def _solve_triangular_there(A: Any, B: Any, upper: Any, unitriangular: Any) -> Any:
    """The same on a device by the library's trsm, which waits for nothing; `solve` reads flags."""
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    if not math.prod(batch) * B.shape[-2] * B.shape[-1]:
        return np.zeros_like(B, shape=batch + B.shape[-2:])
    A, B = np.broadcast_to(A, batch + A.shape[-2:]), np.broadcast_to(B, batch + B.shape[-2:])
    return cuda().solve_triangular(A, B, not upper, bool(unitriangular))


def _triangle_back(g: Any, X: Any, A: Any, upper: bool, unitriangular: bool) -> Any:
    """A dX = dB - dA X, for dA within the triangle."""
    full = -np.matmul(_solve_triangular(A.mT, g, not upper, unitriangular), X.mT)
    return np.triu(full, int(unitriangular)) if upper else np.tril(full, -int(unitriangular))


_solve_triangular.vjp(
    A=lambda g, out, A, upper, unitriangular: _triangle_back(g, out, A, upper, unitriangular),
    B=lambda g, A, upper, unitriangular: _solve_triangular(A.mT, g, not upper, unitriangular),
)


def substitute(A: Any, B: Any, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """The X with A X = B, or X A = B, for triangular A; on arrays and on Tensors."""
    if left:
        return _solve_triangular(A, B, upper, unitriangular)
    return _solve_triangular(A.mT, B.mT, not upper, unitriangular).mT


@composite(method=False)
def solve_triangular(
    A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """The X with A X = B, or X A = B unless `left`, for triangular A.

    Only the triangle of A that `upper` names is read, without its diagonal if `unitriangular`.
    """
    check_matrix("linalg.solve_triangular", A)
    if B.ndim < 2:
        raise RuntimeError(
            "linalg.solve_triangular: The input tensor B must have at least 2 dimensions."
        )
    _check_system("linalg.solve_triangular", A, B, left)
    return substitute(A, B, upper, left, unitriangular)


@composite
def triangular_solve(
    input: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolve:
    """The X with A X = input, for triangular A; A^T X = input if `transpose`."""
    check_matrix("triangular_solve", A)
    _check_system("triangular_solve", A, input, True)
    M = A.mT if transpose else A
    return TriangularSolve(substitute(M, input, upper != transpose, True, unitriangular), A.clone())


@composite
def cholesky_solve(input: Any, L: Any, upper: bool = False) -> Any:
    """The X with A X = input, from the Cholesky factor `L` of A."""
    check_matrix("cholesky_solve", L)
    if input.ndim < 2:
        raise RuntimeError("cholesky_solve: b should have at least 2 dimensions, but has "
                           f"{input.ndim} dimensions instead")  # fmt: skip
    _check_system("cholesky_solve", L, input, True)
    H = adjoint(L)
    first, last = (H, L) if upper else (L, H)
    return substitute(last, substitute(first, input, False), True)


@composite
def cholesky_inverse(input: Any, upper: bool = False) -> Any:
    """The inverse of A, from its Cholesky factor `input`."""
    check_matrix("cholesky_inverse", input)
    return cholesky_solve(
        constant(np.eye(input.shape[-1], dtype=input._array.dtype), input), input, upper
    )


# --- tensors as matrices -------------------------------------------------------------------------


@composite(method=False)
def tensorinv(A: Any, ind: int = 2) -> Any:
    """The inverse of A as a map from its last dimensions to its first `ind`."""
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    rows, columns = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    n = math.prod(rows)
    if n != math.prod(columns):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {math.prod(columns)} != {n}"
        )
    return inv(A.reshape(n, n)).reshape(*columns, *rows)


@composite(method=False)
def tensorsolve(A: Any, B: Any, dims: Any = None) -> Any:
    """The X with tensordot(A, X, X.ndim) = B; `dims` of A are moved last first."""
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = tuple(A.shape[B.ndim :])
    n = math.prod(shape)
    if n != math.prod(A.shape[: B.ndim]):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {n} != {math.prod(A.shape[: B.ndim])}"
        )
    return solve(A.reshape(n, n), B.reshape(-1)).reshape(shape)
