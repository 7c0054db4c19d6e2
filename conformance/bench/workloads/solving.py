"""Dense linear algebra: a Cholesky factor and a linear system."""

from __future__ import annotations

import numpy as np

from conformance.bench.workload import Cost, Made, Workload, Writer
from conformance.program import Ref

_SIDES = 4  # right-hand sides


def _definite(w: Writer, size: int) -> Ref:
    """A symmetric matrix with eigenvalues between 1 and about 5."""
    root = w.normal(size, size)
    return w.given("a", root @ root.T / size + np.eye(size), requires_grad=True)


def _cholesky(size: int) -> Made:
    w = Writer("float64")
    return w.program(w.call("linalg.cholesky", _definite(w, size)))


def _cholesky_cost(size: int) -> Cost:
    """n^3/3 forward (Golub and Van Loan 4.2.5); back L^T G and two triangular solves (Murray 2016).

    A triangular product or solve with n right-hand sides is n^3, a symmetrisation n^2.
    """
    matrix = 8 * size**2
    return Cost(1, size**3 // 3, 3 * size**3, 2 * matrix, 9 * matrix)


def _solve(size: int) -> Made:
    w = Writer("float64")
    a = _definite(w, size)
    return w.program(w.call("linalg.solve", a, w.leaf("b", size, _SIDES)))


def _solve_cost(size: int) -> Cost:
    """LU 2n^3/3 (Golub and Van Loan 3.2.10) and 2 n^2 k for k right-hand sides.

    Back: a substitution into the same factors, and an outer product 2 n^2 k (Giles 2008).
    """
    matrix, sides = 8 * size**2, 8 * size * _SIDES
    substitution = 2 * size**2 * _SIDES
    return Cost(
        1,
        2 * size**3 // 3 + substitution,
        2 * substitution,
        2 * matrix + 2 * sides,
        2 * matrix + 4 * sides,
    )


WORKLOADS = (
    Workload(
        name="cholesky",
        group="linalg",
        title="Cholesky factor of a matrix",
        make=_cholesky,
        cost=_cholesky_cost,
        sizes=(16, 64, 256, 512),
        quick=16,
        size_means="rows",
        dtype="float64",
        cuda_sizes=(64, 512),
    ),
    Workload(
        name="solve",
        group="linalg",
        title="a linear system with 4 right-hand sides",
        make=_solve,
        cost=_solve_cost,
        sizes=(16, 64, 256, 512),
        quick=16,
        size_means="rows",
        dtype="float64",
        cuda_sizes=(64, 512),
    ),
)
