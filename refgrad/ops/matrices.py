"""What the families of linear algebra share; each runs on arrays and on Tensors alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from refgrad import dtypes
from refgrad.libraries import beside


def values(x: Any) -> Any:
    """The array of a Tensor; an array itself."""
    return getattr(x, "_array", x)


def is_complex(x: Any) -> bool:
    """Whether `x`, an array or a Tensor, has a complex dtype."""
    return bool(values(x).dtype.kind == "c")


def conj(x: Any) -> Any:
    """The conjugate; a real `x` itself, without a copy."""
    return np.conj(x) if is_complex(x) else x


def adjoint(x: Any) -> Any:
    """The conjugate transpose of the last two dimensions."""
    return conj(x.mT)


def ratio(num: Any, den: Any) -> Any:
    """num / den, where 0 / 0 is 0: a direction that the loss does not use has no part in it."""
    return num / (den + ((values(num) == 0) & (values(den) == 0)))


def on_diagonal(d: Any) -> Any:
    """Matrices with the last dimension of `d` on their diagonal."""
    eye = beside(np.eye(d.shape[-1], dtype=np.bool_), d)
    return np.where(eye, d[..., None, :], np.zeros_like(d)[..., None, :])


def off_diagonal(x: Any) -> Any:
    """`x` with zeros on its diagonal."""
    return np.where(beside(np.eye(x.shape[-1], dtype=np.bool_), x), np.zeros_like(x), x)


def differences(d: Any) -> Any:
    """The matrices d_j - d_i."""
    return d[..., None, :] - d[..., :, None]


def check_matrix(name: str, A: Any, *, square: bool = True) -> None:
    """Raise RuntimeError unless `A` is a batch of (square) matrices of floats or complex numbers."""
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    if square and A.shape[-1] != A.shape[-2]:
        raise RuntimeError(
            f"{name}: A must be batches of square matrices, but they are {A.shape[-2]} by "
            f"{A.shape[-1]} matrices"
        )
    check_inexact(name, A)


def check_inexact(name: str, A: Any) -> None:
    """Raise RuntimeError unless `A` has a floating or complex dtype."""
    dtype = values(A).dtype
    if dtype.kind not in "fc":
        kind = dtypes.from_numpy(dtype).name.capitalize().replace("Int64", "Long")
        raise RuntimeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {kind}"
        )


def check_invariant(name: str, phases: Any) -> None:
    """Raise RuntimeError where a loss depends on the phase of complex eigen- or singular vectors.

    `phases` is its derivative by these phases; vectors are only determined up to them.
    """
    if not np.allclose(values(phases), 0.0, rtol=1e-2, atol=1e-2):
        raise RuntimeError(
            f"{name}: The vectors in the complex case are specified up to multiplication by "
            "e^{i phi}. The specified loss function depends on this quantity, so it is ill-defined."
        )


# --- on arrays ------------------------------------------------------------------------


def turned(A: Any) -> tuple[Any, Any, Any, Any]:
    """A = U S V^H as (det(U) det(V^H), conj(U), S, conj(V^H)): cofactors of A are those of S, turned."""
    finite = np.all(np.isfinite(A), axis=(-2, -1))
    U, S, Vh = np.linalg.svd(np.where(finite[..., None, None], A, 0.0))
    c = np.linalg.det(U) * np.linalg.det(Vh)
    return np.where(finite, c, np.nan), np.conj(U), S, np.conj(Vh)


def without_each(s: Any) -> Any:
    """The products of all elements but one, for each; quotients would fail at zeros."""
    one = np.ones_like(s[..., :1])
    before = np.concatenate((one, np.cumprod(s, -1)[..., :-1]), -1)
    after = np.concatenate((np.cumprod(s[..., ::-1], -1)[..., ::-1][..., 1:], one), -1)
    return before[..., : s.shape[-1]] * after[..., : s.shape[-1]]


def cofactors(A: Any) -> Any:
    """The matrices of cofactors of the arrays `A`, singular ones included."""
    c, U, S, Vh = turned(A)
    return c[..., None, None] * np.matmul(U * without_each(S)[..., None, :], Vh)


def lapack(name: str, *arrays: Any) -> Any:
    """LAPACK's function of that name for the dtype of `arrays`."""
    return scipy.linalg.get_lapack_funcs((name,), arrays)[0]


# --- what has no derivative ----------------------------------------------------------------------


def without_derivative(name: str) -> Any:
    """A vjp that says so, as PyTorch does: no gradient at all would pass for zero.

    Raises:
        NotImplementedError: when the backward pass reaches it.
    """

    def vjp(g: Any) -> Any:
        raise NotImplementedError(f"the derivative for '{name}' is not implemented")

    return vjp
