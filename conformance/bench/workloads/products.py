"""Matrix products, which the BLAS bounds, and what is made of them."""

from __future__ import annotations

from conformance.bench.workload import Cost, Made, Workload, Writer

_BATCH = 64  # rows of the MLP's batch
_MATRICES = 16  # in a batched product
_LAYERS = 3


def _matmul(size: int) -> Made:
    w = Writer("float32")
    a, b = w.leaf("a", size, size), w.leaf("b", size, size)
    return w.program(w.call("matmul", a, b))


def _matmul_cost(size: int) -> Cost:
    """2 n^3 for a product (Golub and Van Loan, Matrix Computations, 1.1.11); two ways back."""
    matrix = 4 * size**2
    return Cost(1, 2 * size**3, 4 * size**3, 3 * matrix, 6 * matrix)


def _bmm(size: int) -> Made:
    w = Writer("float32")
    a, b = w.leaf("a", _MATRICES, size, size), w.leaf("b", _MATRICES, size, size)
    return w.program(w.call("matmul", a, b))


def _bmm_cost(size: int) -> Cost:
    """Sixteen times a product."""
    one = _matmul_cost(size)
    return Cost(
        1,
        _MATRICES * one.forward_flops,
        _MATRICES * one.backward_flops,
        _MATRICES * one.forward_bytes,
        _MATRICES * one.backward_bytes,
    )


def _mlp(size: int) -> Made:
    """Three layers of equal width on a batch of 64, with ReLU between, and a mean square."""
    w = Writer("float32")
    y = w.constant("x", _BATCH, size)
    for layer in range(_LAYERS):
        weight = w.leaf(f"weight{layer}", size, size, scale=size**-0.5)
        bias = w.leaf(f"bias{layer}", size, scale=0.1)
        y = w.call("nn.functional.linear", y, weight, bias)
        if layer < _LAYERS - 1:
            y = w.call("relu", y)
    return w.program(w.call("nn.functional.mse_loss", y, w.constant("target", _BATCH, size)))


def _mlp_cost(size: int) -> Cost:
    """2 b n^2 a layer; back as much for the weight, and for the input but in the first layer.

    Bytes: the weight once forward, and twice back (read, and its gradient written); three
    activations a layer forward and six back.
    """
    one = 2 * _BATCH * size**2
    weights, activations = _LAYERS * 4 * size**2, _LAYERS * 4 * _BATCH * size
    return Cost(
        2 * _LAYERS,
        _LAYERS * one,
        (2 * _LAYERS - 1) * one,
        weights + 3 * activations,
        2 * weights + 6 * activations,
    )


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
    Workload(
        name="bmm",
        group="products",
        title="products of 16 pairs of matrices",
        make=_bmm,
        cost=_bmm_cost,
        sizes=(16, 64, 256),
        quick=16,
        size_means="rows",
        cuda_sizes=(64, 512),
    ),
    Workload(
        name="mlp",
        group="products",
        title="three linear layers with ReLU, batch 64",
        make=_mlp,
        cost=_mlp_cost,
        sizes=(64, 256, 1024),
        quick=64,
        size_means="width",
        cuda_sizes=(256, 2048),
    ),
)
