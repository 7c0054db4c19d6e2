"""Reductions."""

from __future__ import annotations

import numpy as np

from refgrad.ops.arrays import keep_dims, wrap_dims
from refgrad.ops.op import op


@op
def sum(input, dim=None, keepdim=False, *, dtype=None):  # type: ignore[no-untyped-def]
    """The sum over `dim` (all by default)."""
    if dtype is None and input.dtype.kind in "bui":
        input = input.astype(np.int64)
    elif dtype is not None:
        input = input.astype(dtype.numpy)
    return np.sum(input, axis=wrap_dims(dim, input.ndim), keepdims=keepdim)


sum.vjp(  # d out = sum of dx: each element gets g
    input=lambda g, shape, dim, keepdim: np.broadcast_to(keep_dims(g, shape, dim, keepdim), shape)
)
