"""The pseudo-inverse and least squares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refgrad.libraries import beside, on_device
from refgrad.ops import spectra
from refgrad.ops.arrays import as_array, greatest
from refgrad.ops.composites import composite
from refgrad.ops.matrices import adjoint, check_inexact, check_matrix, conj
from refgrad.ops.op import op
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


def _pinv_back(g: Any, P: Any, A: Any, atol: Any, rtol: Any) -> Any:
    """dP = -P dA P + P P^H dA^H (1 - A P) + (1 - P A) dA^H P^H P (Golub and Pereyra 1973).

    So it is where all that is left out is zero; `_left_out` has what is added where it is not.
    """
    H, G = adjoint(P), conj(g)  # PyTorch's gradient: a rule with dA^H is not holomorphic
    K = np.matmul(adjoint(G), P)
    KH = np.matmul(K, H)
    made = KH - np.matmul(A, np.matmul(P, KH)) - adjoint(np.matmul(P, K))
    made = made + np.matmul(np.matmul(H, P), adjoint(G) - np.matmul(K, A))
    more = None if atol is None and rtol is None else _left_out(adjoint(G), A, atol, rtol)
    return conj(made if more is None else made + more)


def _left_out(G: Any, A: Any, atol: Any, rtol: Any) -> Any:
    """The rest of the gradient where singular values count as zero that are not; None for none.

    With A = U S V^H, M = U^H dA V and F = P^H, for i kept and j left out, (U^H dF V)_ij is
    (s_i M_ij + s_j conj(M_ji)) / (s_i (s_i^2 - s_j^2)), and _ji the same of M_ji: the derivative of
    an odd function of singular values, 1/s and 0. For s_j = 0 it is M_ij / s_i^2, as above.
    """
    U, S, Vh = spectra._svd(A, False)
    s = getattr(S, "_array", S)
    keep = s > cutoff(s, A.shape, atol, rtol)
    if not np.any(~keep & (s > cutoff(s, A.shape, None, None))):  # the others are zero
        return None
    mixed = keep[..., :, None] ^ keep[..., None, :]
    rows, columns = S[..., :, None], S[..., None, :]
    kept = np.where(keep[..., :, None], rows, columns)
    kept = np.where(mixed, kept, 2.0)  # and in place of what is not asked for
    other = np.where(mixed, np.where(keep[..., :, None], columns, rows), 1.0)
    gap = np.square(kept) - np.square(other)
    H = np.matmul(np.matmul(adjoint(U), G), adjoint(Vh))
    made = np.square(other / kept) / gap * H + other / (kept * gap) * adjoint(H)
    return np.matmul(np.matmul(U, np.where(mixed, made, 0.0)), Vh)


_pinv.vjp(A=lambda g, out, A, atol, rtol: _pinv_back(g, out, A, atol, rtol))


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
    A=lambda g, A, B, rcond: _pinv_back(
        np.matmul(g, B.mT), _pinv(A, None, rcond, False), A, None, rcond
    ),
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
