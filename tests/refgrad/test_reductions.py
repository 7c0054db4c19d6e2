"""Reductions, scans and orders at ties, zeros, nan and in empty tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.both import both, both_raise
from tests.refgrad.derivatives import assert_same, assert_same_error

INF, NAN = math.inf, math.nan
TIES = [[1.0, 3.0, 3.0], [3.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.amax(x, 1),
        lambda m, x: m.amax(x),
        lambda m, x: m.amin(x, (0, 1)),
        lambda m, x: m.max(x),
        lambda m, x: m.max(x, 1).values,
        lambda m, x: m.min(x, 0, keepdim=True).values,
        lambda m, x: m.median(x),
        lambda m, x: m.median(x, 1).values,
        lambda m, x: m.nanmedian(x),
        lambda m, x: m.aminmax(x).max,
        lambda m, x: m.cummax(x, 1).values,
        lambda m, x: m.cummin(x, 1).values,
        lambda m, x: m.sort(x, dim=1, stable=True).values * m.from_numpy(np.arange(3.0)),
        lambda m, x: m.mode(x, 1).values,
        lambda m, x: m.quantile(x, 0.3),
        lambda m, x: m.linalg.vector_norm(x, INF),
        lambda m, x: m.linalg.vector_norm(x, -INF, 1),
    ],
)  # fmt: skip
def test_ties(call: Any) -> None:
    assert_same(call, TIES)


@pytest.mark.parametrize(
    "call", [lambda m, x: m.max(x), lambda m, x: m.median(x),
             lambda m, x: m.max(x, 0).values, lambda m, x: m.nanmedian(x, 0).values,
             lambda m, x: m.nansum(x), lambda m, x: m.nanmean(x),
             lambda m, x: m.quantile(x, 0.5), lambda m, x: m.nanquantile(x, 0.5)]
)  # fmt: skip
def test_nan(call: Any) -> None:
    assert_same(call, [1.0, NAN, 3.0, 2.0])


@pytest.mark.parametrize("x", [[2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("name", ["prod", "cumprod"])
def test_products_with_zeros_to_second_order(name: str, x: list[float]) -> None:
    assert_same(lambda m, t: getattr(m, name)(t, 0), x, order=2)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [([2.0**-600, 2.0**600], "float64"), ([2.0**-80, 2.0**80], "float32"),
     ([2.0**-10, 200.0], "float16")]
)  # fmt: skip
def test_the_second_derivative_of_a_product_does_not_overflow(x: list[float], dtype: str) -> None:
    """That of out / x holds x^2, and is nan in torch (pytorch/pytorch#193012)."""
    t = refgrad.tensor(x, dtype=getattr(refgrad, dtype)).requires_grad_()
    (g,) = refgrad.autograd.grad(t.prod(), t, create_graph=True)
    assert g.tolist() == x[::-1]
    rows = [refgrad.autograd.grad(g[i], t, retain_graph=True)[0].tolist() for i in (0, 1)]
    assert rows == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, INF, -INF])
@pytest.mark.parametrize("x", [[0.0, 0.0], [0.0, 2.0, -2.0]])
def test_norms_at_zero(p: float, x: list[float]) -> None:
    assert_same(lambda m, t: m.linalg.vector_norm(t, p), x)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_two_norm_does_not_overflow(scale: float) -> None:
    """Squares leave the range of doubles; torch gives inf and 0."""
    x = refgrad.from_numpy(np.array([3.0, 4.0]) * scale).requires_grad_()
    out = refgrad.linalg.vector_norm(x)
    out.backward()
    np.testing.assert_allclose(out.item(), 5 * scale, rtol=1e-15)
    np.testing.assert_allclose(x.grad.numpy(), [0.6, 0.8], rtol=1e-15)


@pytest.mark.parametrize("x", [[1.0, 1.0], [1.0, 2.0], [3.0]])
@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_spread_of_equal_values(name: str, x: list[float]) -> None:
    assert_same(lambda m, t: getattr(m, name)(t), x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_a_number(name: str) -> None:
    assert_same(lambda m, t: getattr(m, name)(t * 2, 0), np.array(0.7), order=2)


@pytest.mark.parametrize("x", [[-INF, -INF], [-INF, 1.0], [INF, 1.0], [1e4, -1e4]])
def test_logsumexp_and_softmax_of_infinities(x: list[float]) -> None:
    assert_same(lambda m, t: m.logsumexp(t, 0), x)
    assert_same(lambda m, t: m.softmax(t, 0)[0], x)
    assert_same(lambda m, t: m.log_softmax(t, 0)[0], x)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.sum(x, 2),
        lambda m, x: m.sum(x, (0, 0)),
        lambda m, x: m.amax(x[:0], 0),
        lambda m, x: m.max(x[:0]),
        lambda m, x: m.argmax(x[:0]),
        lambda m, x: m.topk(x, 9).values,
        lambda m, x: m.kthvalue(x, 9).values,
        lambda m, x: m.mean(m.from_numpy(np.array([1, 2]))),
        lambda m, x: m.quantile(x, 2.0),
        lambda m, x: m.diff(x[0, 0]),
    ],
)
def test_errors(call: Any) -> None:
    assert_same_error(call, TIES)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 3)])
@pytest.mark.parametrize(
    "name", ["sum", "prod", "mean", "all", "any", "cumsum", "sort", "var", "logsumexp"]
)
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_empty_and_0d(name: str, shape: tuple[int, ...]) -> None:
    x = np.ones(shape)
    ours = getattr(refgrad, name)(refgrad.from_numpy(x), 0)
    theirs = getattr(torch, name)(torch.from_numpy(x), 0)
    pairs = [(ours[0], theirs[0])] if isinstance(theirs, tuple) else [(ours, theirs)]
    for a, b in pairs:
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("dtype", ["int32", "int16", "uint8", "int64", "bool", "float32"])
@pytest.mark.parametrize("name", ["sum", "nansum", "prod", "cumsum", "cumprod"])
def test_the_dtype_that_is_asked_for(name: str, dtype: str) -> None:
    def reduced(m: Any) -> Any:
        return getattr(m, name)(m.tensor([[3.5, 100.0], [2.0, 7.25]]), 0, dtype=getattr(m, dtype))

    if dtype == "bool" and name.startswith("cum"):
        both_raise(reduced, match="not implemented for 'Bool'")
    else:
        both(reduced)
