"""Matrix products."""

from __future__ import annotations

from conformance.bench.workload import Cost, Made, Workload, Writer


def _matmul(size: int) -> Made:
    w = Writer("float32")
    a, b = w.leaf("a", size, size), w.leaf("b", size, size)
    return w.program(w.call("matmul", a, b))


def _matmul_cost(size: int) -> Cost:
    """2 n^3 for a product (Golub and Van Loan, Matrix Computations, 1.1.11); two ways back."""
    matrix = 4 * size**2
    return Cost(1, 2 * size**3, 4 * size**3, 3 * matrix, 6 * matrix)


WORKLOADS = (
    Workload(
        name="matmul",
        group="products",
        title="product of two square matrices",
        make=_matmul,
        cost=_matmul_cost,
        sizes=(32, 64, 128, 256, 512, 1024, 2048),
        quick=64,
        size_means="rows",
        cuda_sizes=(512, 2048, 4096),
    ),
)
