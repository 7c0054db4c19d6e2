"""Orthogonal polynomials of an integer degree: ops without a derivative, as in PyTorch.

Each is its three-term recurrence p_{k+1} = (a_k x + b_k) p_k - c_k p_{k-1} from p_0 = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.arrays import greatest
from refgrad.ops.op import op


def _polynomial(name: str, first: Any, step: Any, *, shifted: bool = False) -> Any:
    """The op: `first(x)` is p_1, `step(k, x)` gives (a_k x + b_k, c_k); 0 below degree 0."""

    def forward(input: Any, n: Any) -> Any:
        x, degree = np.broadcast_arrays(input, np.trunc(n))
        z = 2 * x - 1 if shifted else x
        before, here = np.ones_like(z), first(z)
        out = np.where(degree < 0, 0.0, np.where(degree < 1, before, here)).astype(x.dtype)
        for k in range(1, int(greatest(degree, 0))):
            factor, c = step(k, z)
            before, here = here, factor * here - c * before
            out = np.where(degree >= k + 1, here, out)
        return out

    forward.__doc__ = f"The {name.replace('_', ' ')} of degree `n` at `input`."
    return op(forward, name=name, promote=("input", "n"), floats=True, method=False)


def _chebyshev(kind: str, first: Any) -> Any:
    name = f"chebyshev_polynomial_{kind}"
    step = lambda k, x: (2 * x, 1)
    return (_polynomial(name, first, step), _polynomial(f"shifted_{name}", first, step, shifted=True))


chebyshev_polynomial_t, shifted_chebyshev_polynomial_t = _chebyshev("t", lambda x: x)
chebyshev_polynomial_u, shifted_chebyshev_polynomial_u = _chebyshev("u", lambda x: 2 * x)
chebyshev_polynomial_v, shifted_chebyshev_polynomial_v = _chebyshev("v", lambda x: 2 * x - 1)
chebyshev_polynomial_w, shifted_chebyshev_polynomial_w = _chebyshev("w", lambda x: 2 * x + 1)
hermite_polynomial_h = _polynomial("hermite_polynomial_h", lambda x: 2 * x, lambda k, x: (2 * x, 2 * k))
hermite_polynomial_he = _polynomial("hermite_polynomial_he", lambda x: x, lambda k, x: (x, k))
laguerre_polynomial_l = _polynomial(
    "laguerre_polynomial_l", lambda x: 1 - x, lambda k, x: ((2 * k + 1 - x) / (k + 1), k / (k + 1))
)
legendre_polynomial_p = _polynomial(
    "legendre_polynomial_p", lambda x: x, lambda k, x: ((2 * k + 1) * x / (k + 1), k / (k + 1))
)
