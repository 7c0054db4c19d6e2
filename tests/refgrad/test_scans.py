"""Running sums: what rounding and large numbers must not do to their derivatives."""

import numpy as np
import pytest

import refgrad


def tangent(x, t):
    """The tangent of logcumsumexp along dimension 0."""
    return refgrad.func.jvp(
        lambda a: refgrad.logcumsumexp(a, 0), (refgrad.from_numpy(x),), (refgrad.from_numpy(t),)
    )[1].numpy()


def gradient(function, *arrays):
    """The gradients with a cotangent of ones."""
    leaves = [refgrad.from_numpy(a).requires_grad_() for a in arrays]
    out = function(*leaves)
    found = refgrad.autograd.grad(out, leaves, refgrad.ones_like(out))
    return [g.numpy() for g in found]


@pytest.mark.parametrize(
    ("x", "right"),
    [
        ([-np.inf, 0.0, -np.inf, np.inf, 0.0], [1, 2, 0, 2, 0]),
        ([-np.inf, -np.inf, 0.0], [2, 1, 1]),  # e^0 for each, where torch has nan
        ([np.inf, np.inf, 0.0], [3, 2, 0]),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_terms_of_logcumsumexp(x, right):
    (found,) = gradient(lambda a: refgrad.logcumsumexp(a, 0), np.array(x))
    assert np.array_equal(found, right)


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_complex_terms_far_apart_do_not_overflow(dtype):
    x, y = np.array([900 + 1j, -900 + 2j], dtype), np.array([-900 + 3j, 900 - 1j], dtype)
    to_x, to_y = gradient(refgrad.logaddexp, x, y)
    assert np.array_equal(to_x, [1, 0])
    assert np.array_equal(to_y, [0, 1])
    (scanned,) = gradient(lambda z: refgrad.logcumsumexp(z, 0), np.stack([x, y]))
    assert np.array_equal(scanned, [[2, 1], [0, 1]])
