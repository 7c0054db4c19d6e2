"""The pseudo-inverse and least squares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.libraries import beside, on_device
from refgrad.ops.arrays import as_array, greatest
from refgrad.ops.matrices import adjoint, check_inexact, check_matrix, conj
from refgrad.ops.op import composite, op
from refgrad.ops.solving import is_vector
from refgrad.tensor import wrap

__all__ = ["pinverse"]


class Lstsq(NamedTuple):
    """A least-squares solution, and what is known of it."""

    solution: Any
    residuals: Any
    rank: Any
    singular_values: Any


def cutoff(S: Any, shape: Any, atol: Any, rtol: Any) -> Any:
    """Below which singular values count as zero: the larger of atol and rtol times the largest."""
    if rtol is None:
        small = np.finfo(S.dtype).eps * max(shape[-2:])
        rtol = small if atol is None else np.where(_array(atol, S) > 0, 0.0, small)
    atol = _array(0.0 if atol is None else atol, S)[..., None]
    largest = greatest(S, 0.0, axis=-1, keepdims=True)
    return np.maximum(atol, _array(rtol, S)[..., None] * largest)


def _array(x: Any, like: Any) -> Any:
    x = getattr(x, "_array", x)
    return x if on_device(x) else beside(np.asarray(x), like)


@op(name="linalg.pinv", method=False, node_name="LinalgPinvBackward0")
def _pinv(A: Any, atol: Any, rtol: Any, hermitian: Any) -> Any:
    if hermitian:
        S, U = np.linalg.eigh(A)
        U, Vh = U * np.sign(S)[..., None, :], np.conj(U.mT)
        S = np.abs(S)
    else:
        U, S, Vh = np.linalg.svd(A, full_matrices=False)
    keep = cutoff(S, A.shape, atol, rtol) < S
    inverse = np.where(keep, 1 / np.where(keep, S, 1), 0).astype(S.dtype)
    return np.matmul(np.conj(Vh.mT) * inverse[..., None, :], np.conj(U.mT))


def _pinv_back(g: Any, P: Any, A: Any) -> Any:
    """dP = -P dA P + P P^H dA^H (1 - A P) + (1 - P A) dA^H P^H P (Golub and Pereyra 1973)."""
    H, G = adjoint(P), conj(g)  # PyTorch's gradient: a rule with dA^H is not holomorphic
    K = np.matmul(adjoint(G), P)
    KH = np.matmul(K, H)
    made = KH - np.matmul(A, np.matmul(P, KH)) - adjoint(np.matmul(P, K))
    return conj(made + np.matmul(np.matmul(H, P), adjoint(G) - np.matmul(K, A)))


_pinv.vjp(A=lambda g, out, A: _pinv_back(g, out, A))


@composite(method=False)
def pinv(
    A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Any:
    """The pseudo-inverse; singular values up to max(atol, rtol * the largest) count as zero.

    `rcond` is an older name of `rtol`.
    """
    check_matrix("linalg.pinv", A, square=hermitian)
    return _pinv(A, atol, rtol if rcond is None else rcond, hermitian)


@composite
def pinverse(input: Any, rcond: float = 1e-15) -> Any:
    """The pseudo-inverse, as `linalg.pinv`."""
    return pinv(input, rtol=rcond)


@op(name="linalg.lstsq", method=False, node_name="LinalgLstsqBackward0")
def _lstsq(A: Any, B: Any, rcond: Any) -> Any:
    """The least-squares solution of least norm, the ranks and the singular values."""
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    keep = cutoff(S, A.shape, None, rcond) < S
    inverse = np.where(keep, 1 / np.where(keep, S, 1), 0).astype(S.dtype)
    X = np.matmul(np.conj(Vh.mT), inverse[..., None] * np.matmul(np.conj(U.mT), B))
    return X, as_array(np.sum(keep, axis=-1)), S


_lstsq.vjp(  # X = P B with the pseudo-inverse P
    A=lambda g, A, B, rcond: _pinv_back(np.matmul(g, B.mT), _pinv(A, None, rcond, False), A),
    B=lambda g, A, rcond: np.matmul(_pinv(A, None, rcond, False).mT, g),
)


@composite(method=False)
def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> Lstsq:
    """The X of least norm that minimises |A X - B|; B may be vectors.

    The residuals are there where A is tall and of full rank, but not for the driver "gelsy", the
    default; the singular values for "gelsd" and "gelss"; no ranks for "gels", which takes A to be
    of full rank.
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(
            "torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)"
        )
    check_matrix("linalg.lstsq", A, square=False)
    check_inexact("linalg.lstsq", B)
    vector = is_vector(A, B)
    M = B[..., None] if vector else B
    if M.ndim < 2 or A.shape[-2] != M.shape[-2]:
        raise RuntimeError("torch.linalg.lstsq: input.size(-2) should match other.size(-2)")
    X, rank, S = _lstsq(A, M, rcond)
    m, n = A.shape[-2:]
    empty = np.zeros_like(S._array, shape=(0,))
    residuals = wrap(empty)
    if m > n and driver not in (None, "gelsy") and bool(np.all(rank._array == n)):
        rest = np.matmul(A, X) - M
        residuals = (rest * conj(rest)).real.sum(-2)
    return Lstsq(
        X[..., 0] if vector else X,
        residuals,
        wrap(np.zeros_like(empty, dtype=np.int64)) if driver == "gels" else rank,
        S if driver in ("gelsd", "gelss") else wrap(empty),
    )
