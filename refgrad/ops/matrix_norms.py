"""Norms, condition numbers and ranks of matrices, and products that linear algebra names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.libraries import beside
from refgrad.ops import products
from refgrad.ops.arrays import as_array, greatest, wrap_dim
from refgrad.ops.composites import composite
from refgrad.ops.least_squares import cutoff
from refgrad.ops.matrices import check_inexact, check_matrix, conj
from refgrad.ops.norms import vector_norm
from refgrad.ops.op import op
from refgrad.ops.solving import inv, zero_pivots
from refgrad.ops.spectra import eigvalsh, svdvals
from refgrad.ops.triangles import diagonal as _diagonal
from refgrad.tensor import wrap

__all__ = ["cdist", "vander"]

_ORDERS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


def matrix_norm(
    A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """The norm of matrices over two dimensions.

    `ord` "fro" sums squares; "nuc" sums the singular values, 2 and -2 take the largest and the
    smallest; 1 and -1 take the largest and the smallest sum of a column's absolute values, inf and
    -inf of a row's.

    Raises:
        RuntimeError: another order, fewer than two dimensions, or `dim` is not two different ones.
    """
    if dtype is not None:
        A = A.to(dtype)
    check_inexact("linalg.matrix_norm", A)
    if A.ndim < 2:
        raise RuntimeError(
            "linalg.matrix_norm: The input tensor A must have at least 2 dimensions."
        )
    if not isinstance(dim, Sequence) or len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {dim}")
    rows, columns = (wrap_dim(d, A.ndim) for d in dim)
    if rows == columns:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord not in _ORDERS:
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    moved = A.movedim((rows, columns), (-2, -1))
    if ord in ("nuc", 2, -2):
        sizes = svdvals(moved)
    else:
        sizes = vector_norm(moved, 1, -1 if ord in (math.inf, -math.inf) else -2)
    if ord == "nuc":
        made = sizes.sum(-1)
    elif sizes.shape[-1] == 0 and ord > 0:
        made = sizes.sum(-1)  # the largest of no lengths
    else:
        made = sizes.amax(-1) if ord > 0 else sizes.amin(-1)
    if keepdim:
        for d in sorted((rows, columns)):
            made = made.unsqueeze(d)
    return made


def norm(
    A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """The norm of matrices where `ord` is given and two dimensions are meant, else of vectors.

    Raises:
        RuntimeError: `ord` is given without `dim`, and there are more than two dimensions.
    """
    dim = (dim,) if isinstance(dim, int) else dim
    if dim is not None and len(dim) not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dim)}"
        )
    if dim is None and ord is not None and A.ndim not in (1, 2):
        raise RuntimeError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. "
            f"Got {A.ndim}D."
        )
    two = A.ndim == 2 if dim is None else len(dim) == 2
    if isinstance(ord, str) or (ord is not None and two):
        return matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


def cond(A: Any, p: Any = None) -> Any:
    """The condition number |A| |A^-1| in the matrix norm p (None: 2); inf for singular matrices."""
    if p in (None, 2, -2):
        check_matrix("linalg.cond", A, square=False)
        S = svdvals(A)
        if S.shape[-1] == 0:
            return S.sum(-1)
        return S[..., -1] / S[..., 0] if p == -2 else S[..., 0] / S[..., -1]
    if p not in _ORDERS:
        raise RuntimeError(f"linalg.cond got an invalid norm type: {p}")
    check_matrix(f"linalg.cond(ord={p})", A)
    if A.numel() == 0:
        return matrix_norm(A, 1)
    singular = zero_pivots(A._array) > 0
    if not np.any(singular):
        return matrix_norm(A, p) * matrix_norm(inv(A), p)
    eye = beside(np.eye(A.shape[-1], dtype=A._array.dtype), A)
    safe = np.where(singular[..., None, None], wrap(eye), A)
    made = matrix_norm(A, p) * matrix_norm(inv(safe), p)
    return made.masked_fill(wrap(singular), math.inf)


def matrix_rank(
    A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Any:
    """The number of singular values above max(atol, rtol * the largest); `tol` is an older atol."""
    check_matrix("linalg.matrix_rank", A, square=hermitian)
    if tol is not None:
        atol, rtol = tol, 0.0
    S = np.abs((eigvalsh(A) if hermitian else svdvals(A)).detach()._array)
    return wrap(as_array(np.sum(cutoff(S, A.shape, atol, rtol) < S, axis=-1)))


# --- products ------------------------------------------------------------------------------------


def multi_dot(tensors: Any) -> Any:
    """The product of matrices in the order that multiplies least; the ends may be vectors."""
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    row, column = tensors[0].ndim == 1, tensors[-1].ndim == 1
    matrices = [
        *([tensors[0][None, :]] if row else tensors[:1]),
        *tensors[1:-1],
        *([tensors[-1][:, None]] if column else tensors[-1:]),
    ]
    for i, (a, b) in enumerate(itertools.pairwise(matrices)):
        if a.ndim != 2 or b.ndim != 2:
            raise RuntimeError(
                "multi_dot(): the first and last tensors must be 1D or 2D, others 2D"
            )
        if a.shape[1] != b.shape[0]:
            raise RuntimeError(
                f"multi_dot(): tensors {i} and {i + 1} with shapes {list(tensors[i].shape)} and "
                f"{list(tensors[i + 1].shape)} cannot be multiplied"
            )
    made = _chained(matrices)
    return made[0 if row else slice(None), 0 if column else slice(None)] if row or column else made


def _chained(matrices: list[Any]) -> Any:
    """The product, by the order of least cost for each part of the chain."""
    sizes = [matrices[0].shape[0], *(m.shape[1] for m in matrices)]
    n = len(matrices)
    cost: dict[tuple[int, int], int] = {(i, i): 0 for i in range(n)}
    cut: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j], cut[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            )

    def part(i: int, j: int) -> Any:
        if i == j:
            return matrices[i]
        return products.matmul(part(i, cut[i, j]), part(cut[i, j] + 1, j))

    return part(0, n - 1)


def vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    """The inner products of vectors along `dim`, the first conjugated."""
    return (conj(x) * y).sum(dim)


def cross(input: Any, other: Any, *, dim: int = -1) -> Any:
    """The vector product along a dimension of length 3."""
    if input.ndim != other.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    return products.cross(input, other, dim)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The diagonal of matrices, as a last dimension."""
    return _diagonal(A, offset, dim1, dim2)


def linalg_vander(x: Any, N: int | None = None) -> Any:
    """The powers 0 to N - 1 of the elements of `x`, along a new last dimension."""
    x = x if x.ndim else x.reshape(1)
    n = x.shape[-1] if N is None else N
    if n <= 1:
        raise RuntimeError("N must be greater than 1.")
    return _powers(x, n)


def _powers(x: Any, n: int) -> Any:
    repeated = x[..., None].expand(*x.shape, n - 1).cumprod(-1)
    return np.concatenate((np.ones_like(repeated[..., :1]), repeated), -1)


@composite(method=False)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The matrix of the powers N - 1 to 0 (0 to N - 1 if `increasing`) of a vector's elements."""
    if x.ndim != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    n = x.shape[0] if N is None else N
    made = _powers(x, n) if n > 1 else np.ones_like(x[:, None])[:, :n]
    return made if increasing else made.flip(-1)


# --- distances -----------------------------------------------------------------------------------


@op(method=False)
def _largest(input: Any) -> Any:
    """The largest absolute value along the last dimension."""
    return greatest(np.abs(input), 0.0, axis=-1)


_largest.vjp(  # of several that are largest each gets all of g, as PyTorch's distances have it
    input=lambda g, out, input: g[..., None] * np.sign(input) * (np.abs(input) == out[..., None])
)


def length(x: Any, p: float) -> Any:
    """The p-norm along the last dimension, as PyTorch's distances differentiate it."""
    return _largest(x) if p == math.inf else vector_norm(x, p, -1)


@composite(method=False)
def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str | None = None) -> Any:
    """The p-norms of the differences of all rows of (..., P, M) and (..., R, M), as (..., P, R).

    They are always summed directly: PyTorch's way by a matrix product loses the small distances.
    """
    if x1.ndim < 2 or x2.ndim < 2:
        raise RuntimeError("cdist only supports at least 2D tensors")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    return length(x1[..., :, None, :] - x2[..., None, :, :], p)
