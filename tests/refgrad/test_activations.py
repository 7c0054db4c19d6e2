"""Activations at their kinks, as torch has them."""

from __future__ import annotations

import pytest

from tests.refgrad.derivatives import assert_same
from tests.refgrad.test_pointwise import KINKS


@pytest.mark.parametrize("x", [*KINKS, 6.0, -0.25, 1e-9, -40.0, 40.0])
@pytest.mark.parametrize(
    "name", ["relu", "relu6", "leaky_relu", "elu", "selu", "celu", "hardtanh", "hardsigmoid",
             "hardswish", "softplus", "softshrink", "hardshrink", "silu", "logsigmoid", "mish",
             "tanhshrink", "gelu"]
)  # fmt: skip
def test_convention(name: str, x: float) -> None:
    rtol = 1e-7 if name == "hardsigmoid" else 1e-9  # torch divides by 6 in float32
    assert_same(lambda m, t: getattr(m.nn.functional, name)(t), x, rtol=rtol)


@pytest.mark.parametrize("name", ["elu", "selu", "celu", "hardswish", "softshrink"])
@pytest.mark.parametrize("x", [-3.0, -1.0, 0.0, 1.0, 3.0])
def test_second_order_at_kinks(name: str, x: float) -> None:
    assert_same(lambda m, t: getattr(m.nn.functional, name)(t) * t, x, order=2)


def test_prelu_and_threshold() -> None:
    assert_same(lambda m, x, w: m.nn.functional.prelu(x, w), [[-1.0, 0.0], [0.0, 2.0]], [0.1, 0.2])
    assert_same(lambda m, x: m.nn.functional.threshold(x, 0.5, 7.0), KINKS)


def test_inplace() -> None:
    assert_same(lambda m, x: m.nn.functional.relu(x * 2, inplace=True) * x, [-1.0, 0.0, 2.0])
    assert_same(lambda m, x: m.nn.functional.leaky_relu(x * 2, 0.1, True) * x, [-1.0, 0.0, 2.0])
