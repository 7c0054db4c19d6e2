"""Results lie in memory as PyTorch's do, whatever the order of the operands' dimensions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.both import both

ORDERS = tuple(permutations(range(4)))
BASE = np.random.default_rng(0).uniform(0.5, 1.5, (2, 3, 4, 5))
SQUARE = BASE[:, :, :3, :3] + 3 * np.eye(3)


def ones(t: Any, *shape: int) -> Any:
    """Ones in float64."""
    return t.ones(*shape, dtype=t.float64)


def lies(x: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a result, and its strides where there is more than one element."""
    shape = tuple(x.shape)
    return shape, tuple(s for s, n in zip(x.stride(), shape, strict=True) if n > 1)


def results(out: Any) -> list[Any]:
    """One result or several as a list."""
    return list(out) if isinstance(out, tuple) else [out]


def assert_lies_as_torch(code: Callable[[Any, Any], Any], base: np.ndarray) -> None:
    """Assert that the results of `code(module, x)` have torch's strides for an x of any order."""
    for order in ORDERS:
        ours, theirs = (
            code(t, t.from_numpy(base.copy()).requires_grad_().permute(*order))
            for t in (refgrad, torch)
        )
        for a, b in zip(results(ours), results(theirs), strict=True):
            assert lies(a) == lies(b), order


def square(t: Any, x: Any) -> Any:
    """A batch of square matrices of an `x` of any order."""
    return x[..., :2, :2] + 3 * t.eye(2, dtype=t.float64)


def three(x: Any) -> Any:
    """Vectors of length 3 along dimension 2, of an `x` of any order."""
    return x[:, :, :1].expand(*x.shape[:2], 3, x.shape[3])


OPS: dict[str, Callable[[Any, Any], Any]] = {
    "sin": lambda t, x: t.sin(x),
    "add, ordered first": lambda t, x: x + x.contiguous(),
    "add, ordered second": lambda t, x: x.contiguous() + x,
    "add, broadcast": lambda t, x: x[:, :1] + x.contiguous()[0],
    "where": lambda t, x: t.where(x > 1, x, 2.0),
    "lerp": lambda t, x: t.lerp(x, x.contiguous(), 0.5),
    "clone": lambda t, x: x.clone(),
    "clone of an expanded one": lambda t, x: x[:, :1].expand(*x.shape).clone(),
    "contiguous": lambda t, x: x.contiguous(),
    "channels_last": lambda t, x: x.contiguous(memory_format=t.channels_last),
    "to": lambda t, x: x.to(t.float32, memory_format=t.channels_last),
    "flip": lambda t, x: t.flip(x, (1,)),
    "gelu": lambda t, x: t.nn.functional.gelu(x),
    "sum": lambda t, x: x.sum(1),
    "amax": lambda t, x: t.amax(x, 1),
    "logsumexp": lambda t, x: t.logsumexp(x, 1),
    "var": lambda t, x: t.var(x, 1),
    "cumsum": lambda t, x: t.cumsum(x, 1),
    "softmax": lambda t, x: t.softmax(x, 1),
    "sort": lambda t, x: tuple(t.sort(x, 1)),
    "topk": lambda t, x: tuple(t.topk(x, 2, 1)),
    "median": lambda t, x: tuple(t.median(x, 1)),
    "pad": lambda t, x: t.nn.functional.pad(x, (1, 1)),
    "pad, reflected": lambda t, x: t.nn.functional.pad(x, (1, 1, 1, 1), "reflect"),
    "cat": lambda t, x: t.cat([x, x], 1),
    "cat of two orders": lambda t, x: t.cat([x, x.contiguous()], 1),
    "repeat": lambda t, x: x.repeat(1, 2, 1, 1),
    "index": lambda t, x: x[:, [0, 1]],
    "index, several apart": lambda t, x: x[[0, 1], :, :, [1, 0]],
    "index, by a mask": lambda t, x: x[:, t.tensor([True] + [False] * (x.shape[1] - 1))],
    "index_select": lambda t, x: t.index_select(x, 1, t.tensor([0, 1])),
    "select_scatter": lambda t, x: t.select_scatter(x, x[:, 0], 1, 1),
    "masked_fill": lambda t, x: x.masked_fill(x > 1, 0.0),
    "nonzero": lambda t, x: t.nonzero(x > 1),
    "matmul": lambda t, x: x @ x.mT,
    "linear": lambda t, x: t.nn.functional.linear(x, ones(t, 2, x.shape[-1])),
    "kron": lambda t, x: t.kron(x[0, 0], x[0, 0]),
    "cross": lambda t, x: t.linalg.cross(three(x), three(x) + 1, dim=2),
    "einsum, a product": lambda t, x: t.einsum("abcd,a->cabd", x, ones(t, x.shape[0])),
    "einsum, a contraction": lambda t, x: t.einsum("abcd,abed->eabc", x, x),
    "einsum, a sum": lambda t, x: t.einsum("abcd->ca", x),
    "inv": lambda t, x: t.linalg.inv(square(t, x)),
    "solve": lambda t, x: t.linalg.solve(square(t, x), x[..., :2, :]),
    "cholesky": lambda t, x: t.linalg.cholesky(square(t, x) @ square(t, x).mT),
    "qr": lambda t, x: tuple(t.linalg.qr(x)),
    "svd": lambda t, x: tuple(t.linalg.svd(x)),
    "eigh": lambda t, x: tuple(t.linalg.eigh(square(t, x))),
    "lu": lambda t, x: tuple(t.linalg.lu_factor(square(t, x))),
    "layer_norm": lambda t, x: t.nn.functional.layer_norm(x, (x.shape[-1],)),
    "batch_norm": lambda t, x: t.nn.functional.batch_norm(x, None, None, training=True),
    "instance_norm": lambda t, x: t.nn.functional.instance_norm(x),
    "conv1d": lambda t, x: t.nn.functional.conv1d(x[:, :, 0], ones(t, 2, x.shape[1], 1)),
    "conv2d": lambda t, x: t.nn.functional.conv2d(x, ones(t, 2, x.shape[1], 1, 1)),
    "max_pool1d": lambda t, x: t.nn.functional.max_pool1d(x[0], 2),
    "max_pool2d": lambda t, x: tuple(t.nn.functional.max_pool2d(x, 2, return_indices=True)),
    "avg_pool2d": lambda t, x: t.nn.functional.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 2),
    "interpolate": lambda t, x: t.nn.functional.interpolate(x, scale_factor=2.0),
    "attention": lambda t, x: t.nn.functional.scaled_dot_product_attention(x, x, x),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_strides_of_a_result_are_torchs(name: str) -> None:
    assert_lies_as_torch(OPS[name], BASE)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the order is that of MKL")
@pytest.mark.parametrize("name", ["fft", "fft2", "rfft", "rfft2", "irfft", "ihfft2"])
def test_strides_of_a_transform_are_torchs(name: str) -> None:
    assert_lies_as_torch(lambda t, x: getattr(t.fft, name)(x), BASE)


def test_a_view_of_a_padded_transpose_is_a_view() -> None:
    x = refgrad.tensor(BASE[0, 0]).t()
    assert refgrad.nn.functional.pad(x, (1, 1)).view(-1).shape == (30,)


def test_as_strided_scatter_writes_where_the_memory_is() -> None:
    ours, theirs = (
        t.as_strided_scatter(t.from_numpy(BASE[0, 0].copy()).t(), ones(t, 3), (3,), (4,), 1)
        for t in (refgrad, torch)
    )
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_gradients_pass_where_a_view_is_laid_out_anew() -> None:
    a, b = (t.from_numpy(SQUARE[0, 0].copy()).requires_grad_() for t in (refgrad, torch))
    for t, x in ((refgrad, a), (torch, b)):
        out = t.linalg.solve_triangular(x, x.detach() + 1, upper=True, left=False)
        assert out.stride() == (1, 3)
        (out * out).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)


# --- as_strided_scatter ---------------------------------------------------------------------------

LAID = {
    "dense": lambda m: m.arange(12.0).reshape(3, 4),
    "turned": lambda m: m.arange(12.0).reshape(3, 4).t(),
    "expanded": lambda m: m.arange(4.0).expand((3, 4)),
    "expanded inside": lambda m: m.arange(3.0)[:, None].expand((3, 4)),
    "with gaps": lambda m: m.arange(24.0).reshape(3, 8)[:, ::2],
    "from the middle": lambda m: m.arange(20.0)[4:16].reshape(3, 4),
    "gaps from the middle": lambda m: m.arange(40.0).reshape(5, 8)[1:4, 2:6],
}
VIEWED = [((2,), (1,), 1), ((2,), (3,), None), ((2, 2), (4, 1), None), ((2, 2), (2, 1), 5),
          ((), (), 6), ((2, 0), (1, 1), 0), ((3, 2), (2, 2), 4), ((40,), (1,), 0)]  # fmt: skip


@pytest.mark.parametrize("name", LAID)
@pytest.mark.parametrize(("size", "stride", "offset"), VIEWED)
def test_as_strided_scatter_by_torchs_memory(
    name: str, size: Any, stride: Any, offset: Any
) -> None:
    def code(m: Any) -> Any:
        src = m.arange(100.0, 100.0 + np.prod(size, dtype=int)).reshape(size)
        try:
            return m.as_strided_scatter(LAID[name](m), src, size, stride, offset).contiguous()
        except RuntimeError:
            return "out of bounds"

    both(code)
