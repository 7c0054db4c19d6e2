"""Elementwise ops where op_db's samples do not go: kinks, ties, zeros, infinities, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import refgrad
from refgrad.ops.op import METHODS
from refgrad.ops.ufuncs import Binary, Unary
from tests.refgrad.derivatives import assert_same, assert_same_error, run

INF, NAN = math.inf, math.nan
KINKS = [-INF, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, INF, NAN]


@pytest.mark.parametrize(
    "name", ["abs", "sign", "sgn", "ceil", "floor", "trunc", "round", "frac", "relu", "nan_to_num",
             "angle", "square", "reciprocal", "sqrt", "log", "log1p", "exp", "expm1", "tanh",
             "sigmoid", "logit", "atan", "asinh"]
)  # fmt: skip
@pytest.mark.parametrize("x", KINKS)
def test_convention_at_kinks_and_edges(name: str, x: float) -> None:
    assert_same(lambda m, t: getattr(m, name)(t), x)


PAIRS = [(a, b) for a in (-2.0, -0.0, 0.0, 1.0, 2.0, NAN) for b in (-2.0, 0.0, 1.0, 2.0, NAN)]


@pytest.mark.parametrize(
    "name", ["maximum", "minimum", "fmax", "fmin", "hypot", "atan2", "xlogy", "mul", "div"]
)
@pytest.mark.parametrize("pair", PAIRS)
def test_convention_at_ties_and_zeros(name: str, pair: tuple[float, float]) -> None:
    assert_same(lambda m, a, b: getattr(m, name)(a, b), *pair)


@pytest.mark.parametrize("pair", PAIRS)
def test_clamp_by_tensors_shares_as_torch(pair: tuple[float, float]) -> None:
    assert_same(lambda m, a, b: m.clamp(a, min=b), *pair)
    assert_same(lambda m, a, b: m.clamp(a, max=b), *pair)
    assert_same(lambda m, a, b: m.clamp(a, min=b, max=b * 0.5), *pair)


@pytest.mark.parametrize("base", [-2.0, -0.0, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.0, 0.5, 1, 2, 3, 2.5])
def test_power_of_a_number(base: float, exponent: float) -> None:
    assert_same(lambda m, x: x**exponent, base, order=2)
    assert_same(lambda m, y: base**y, exponent)
    assert_same(lambda m, x, y: x**y, base, exponent)


def test_second_derivative_of_a_power_at_exponent_zero_is_right() -> None:
    """d2/dxdy x^y = x^(y-1) (1 + y log x): 0.5 at (2, 0), where torch masks it to 0."""
    x, y = (refgrad.from_numpy(np.array(v)).requires_grad_() for v in (2.0, 0.0))
    (slope,) = refgrad.autograd.grad(x**y, x, create_graph=True)
    assert refgrad.autograd.grad(slope, y)[0].item() == 0.5


def test_remainders_use_the_quotient_that_they_were_made_with() -> None:
    """1 = 9 * 0.1 + 0.09...: the rounded quotient 10 that torch's rule of fmod takes is not it."""
    for name in ("remainder", "fmod"):
        function = getattr(refgrad, name)
        out, _, by_divisor = run(refgrad, lambda m, a, b, f=function: f(a, b), 1.0, 0.1)
        assert out > 0.09
        assert by_divisor == -9


@pytest.mark.parametrize("x", [1e-12, 1e-9, 1e-5, 1e-3, 0.3, 0.34, 2.2])
def test_sinc_is_right_near_zero(x: float) -> None:
    """torch's rule cancels there: it is 0 at 1e-9, and its second derivative nan at 0."""
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 50
    _, first, second = run(refgrad, lambda m, t: m.sinc(t), x, order=2)
    for k, found in ((1, first), (2, second)):
        true = float(mpmath.diff(lambda t: mpmath.sinc(mpmath.pi * t), mpmath.mpf(x), k))
        np.testing.assert_allclose(found, true, rtol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.div(x, x, rounding_mode="up"),
        lambda m, x: m.clamp(x),
        lambda m, x: m.add(x, m.from_numpy(np.zeros(3)), alpha=1) + m.from_numpy(np.zeros(2)),
        lambda m, x: m.from_numpy(np.array([True])) - m.from_numpy(np.array([True])),
        lambda m, x: m.from_numpy(np.array([1])) // m.from_numpy(np.array([0])),
        lambda m, x: m.from_numpy(np.array([2])) ** -1,
        lambda m, x: m.masked_fill(x, x, 1.0),
        lambda m, x: x & x,
        lambda m, x: m.imag(x),
    ],
)
def test_errors(call: object) -> None:
    assert_same_error(call, [1.0, 2.0, 3.0])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["erf", "sigmoid", "lgamma", "sinc", "logit", "exp", "rsqrt"])
def test_narrow_floats_stay_narrow(name: str, dtype: str) -> None:
    x = refgrad.from_numpy(np.array([0.25, 0.5], dtype=dtype)).requires_grad_()
    out = getattr(refgrad, name)(x)
    assert out.dtype is x.dtype
    out.sum().backward()
    assert x.grad.dtype is x.dtype


MASKING = {
    "relu": lambda t, x: t.relu(x),
    "clamp": lambda t, x: t.clamp(x, 0, 5),
    "clamp by a tensor": lambda t, x: t.clamp(x, min=t.zeros(4, dtype=t.float64)),
    "hardtanh": lambda t, x: t.nn.functional.hardtanh(x, 0.0, 5.0),
    "threshold": lambda t, x: t.nn.functional.threshold(x, 0.0, 0.0),
    "maximum": lambda t, x: t.maximum(x, t.zeros(4, dtype=t.float64)),
    "minimum": lambda t, x: -t.minimum(-x, t.zeros(4, dtype=t.float64)),
    "fmax": lambda t, x: t.fmax(x, t.zeros(4, dtype=t.float64)),
    "hardsigmoid": lambda t, x: t.nn.functional.hardsigmoid(4 * x),
    "softshrink": lambda t, x: t.nn.functional.softshrink(x).abs(),
    "hardshrink": lambda t, x: t.nn.functional.hardshrink(x).abs(),
}


@pytest.mark.parametrize("name", MASKING)
def test_what_is_masked_stops_infinite_cotangents(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for t in (torch, refgrad):
        x = t.tensor([-4.0, -1.0, 2.0, 0.5], dtype=t.float64).requires_grad_()
        MASKING[name](t, x).sqrt().sum().backward()
        found.append(x.grad.numpy())
    assert np.isfinite(found[1]).all()
    np.testing.assert_allclose(found[1], found[0], rtol=1e-7)


ELEMENTWISE = sorted(
    {id(op): op for op in METHODS.values() if isinstance(op, Unary | Binary) and op.rules}.values(),
    key=lambda op: op.name,
)


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_an_elementwise_rule_keeps_shape_and_dtype(op: Any, dtype: str, shape: Any) -> None:
    """What a node without dtypes relies on: such a gradient goes on as the rule made it."""
    values = np.full(shape, 0.25, dtype=dtype)
    leaves = [refgrad.from_numpy(values.copy()).requires_grad_() for _ in op.names]
    try:
        out = op(*leaves)
    except NotImplementedError:  # for complex numbers alone
        assert values.dtype.kind == "c"
        return
    node = out.grad_fn
    assert all(t is leaf for t, leaf in zip(node.targets, leaves, strict=True))
    if node.dtypes is None:
        for rule in node.rules:
            try:
                made = np.asarray(rule.raw(np.ones_like(out._array), node, None))
            except NotImplementedError:  # polygamma, as in PyTorch, for complex numbers alone
                assert values.dtype.kind == "c"
                continue
            assert (made.shape, made.dtype) == (shape, values.dtype)
    else:
        assert node.shapes == (shape,) * len(leaves)
        assert set(node.dtypes) == {values.dtype}
