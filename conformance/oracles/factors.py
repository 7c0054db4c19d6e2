"""How the factors of a matrix move with it: of SVD, eigh and QR, real and complex.

Each takes A and dA and gives NumPy's factors, each beside how it moves; formulas by Giles (2008),
"An extended collection of matrix derivative results". What turns the vectors of a complex matrix
by a phase is taken as 0, or as the first factor's: a function of them that is one of A does not
depend on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.errors import Unsupported

CLOSE = 1e-3  # of the largest: eigenvalues that are nearer put 1e-13 out of reach

Moved = tuple[tuple[Any, Any], ...]


def svd(A: Any, dA: Any) -> Moved:
    """U, S and Vh of the thin SVD: with P = U^H dA V, S moves by the diagonal of P.

    Raises Unsupported where singular values nearly coincide, or nearly vanish.
    """
    rows, columns = A.shape[-2:]
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    if rows != columns and (CLOSE * S.max(axis=-1, keepdims=True, initial=0.0) > S).any():
        raise Unsupported("complex step: a singular value near 0 of a matrix that is not square")
    V, s = adjoint(Vh), S[..., None, :]
    P = adjoint(U) @ dA @ V
    F = _over_gaps((s - s.mT) * (s + s.mT), s * s)
    dU = U @ (F * (P * s + s.mT * adjoint(P)))
    dV = V @ (F * (s.mT * P + adjoint(P) * s))
    dS = np.diagonal(P, 0, -2, -1)
    if np.iscomplexobj(A):
        dU = dU + U * (1j * dS.imag / S)[..., None, :]
    if rows > columns:
        dU = dU + (dA @ V - U @ P) / s
    if columns > rows:
        dV = dV + (adjoint(dA) @ U - V @ adjoint(P)) / s
    return (U, dU), (S, dS.real), (Vh, adjoint(dV))


def eigh(A: Any, dA: Any, UPLO: Any) -> Moved:
    """L and V: with P = V^H dA V, L moves by the diagonal of P, and the rest turns V.

    Raises Unsupported where eigenvalues nearly coincide.
    """
    L, V = np.linalg.eigh(A, UPLO)
    part, across = (np.tril, -1) if UPLO == "L" else (np.triu, 1)
    own = np.eye(A.shape[-1], dtype=bool)
    dA = np.where(own, np.real(dA), part(dA, across) + adjoint(part(dA, across)))
    P, eigenvalues = adjoint(V) @ dA @ V, L[..., None, :]
    F = _over_gaps(eigenvalues - eigenvalues.mT, eigenvalues)
    return (L, np.diagonal(P, 0, -2, -1).real), (V, V @ (F * P))


def qr(A: Any, dA: Any) -> Moved:
    """Q and R: Q turns by what keeps R triangular, dQ = Q W + (1 - Q Q^H) dA R^-1.

    Raises Unsupported for a matrix with more columns than rows.
    """
    if A.shape[-2] < A.shape[-1]:
        raise Unsupported("complex step: numpy.linalg.qr of a wide matrix")
    Q, R = np.linalg.qr(A)
    quotient = np.linalg.solve(R.mT, dA.mT).mT
    M = adjoint(Q) @ quotient
    W = np.tril(M, -1) - adjoint(np.tril(M, -1))
    if np.iscomplexobj(A):  # LAPACK's R has a real diagonal
        W = W + np.eye(A.shape[-1]) * (1j * np.imag(M))
    return (Q, Q @ (W - M) + quotient), (R, adjoint(Q) @ dA - W @ R)


def adjoint(A: Any) -> Any:
    """The conjugate transpose."""
    return np.conj(A.mT) if np.iscomplexobj(A) else A.mT


def _over_gaps(differences: Any, values: Any) -> Any:
    """One over the differences, and 0 on the diagonal.

    Of values that nearly coincide the vectors turn without bound, and what is smooth in them loses
    its digits: raises Unsupported.
    """
    own = np.eye(differences.shape[-1], dtype=bool)
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    if (~own & (np.abs(differences) <= CLOSE * largest)).any():
        raise Unsupported("complex step: eigenvalues or singular values that nearly coincide")
    return np.where(own, 0.0, 1 / np.where(own, 1.0, differences))
