"""Derivatives of special functions where torch's rules cancel, against mpmath."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refgrad
from tests.refgrad.derivatives import run

mp = pytest.importorskip("mpmath")

CASES = {
    "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), [-2.0, 0.3, 1.1, 10.0, 1e3]),
    "log_ndtr": (lambda x: mp.log(mp.ncdf(x)), [-1e3, -30.0, 0.0, 5.0]),
    "i1": (lambda x: mp.besseli(1, x), [-2.0, 1e-9, 1e-5, 3.0]),
    "i0e": (lambda x: mp.besseli(0, x) * mp.exp(-abs(x)), [-2.0, 1e-5, 3.0, 50.0]),
    "i1e": (lambda x: mp.besseli(1, x) * mp.exp(-abs(x)), [-2.0, 1e-5, 3.0, 50.0]),
    "digamma": (mp.digamma, [0.3, -0.4, 3.3]),
}


@pytest.mark.parametrize("name", CASES)
def test_two_orders(name: str) -> None:
    function, places = CASES[name]
    mp.mp.dps = 60
    call: Any = lambda m, x: getattr(m.special, name)(x)
    _, *found = run(refgrad, call, places, order=2)
    for k, derivative in enumerate(found, start=1):
        true = [float(mp.diff(function, mp.mpf(x), k)) for x in places]
        np.testing.assert_allclose(derivative, true, rtol=1e-11)
