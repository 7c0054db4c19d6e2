"""Ops that change shapes."""

from __future__ import annotations

import numpy as np

from refgrad.ops.arrays import unbroadcast
from refgrad.ops.op import op


@op(view=True, variadic="shape", node_name="ViewBackward0")
def reshape(input, shape):  # type: ignore[no-untyped-def]
    """The same elements in `shape`, of which one length may be -1."""
    return np.reshape(input, shape)


reshape.vjp(input=lambda g, shape: np.reshape(g, shape))


@op(view=True, variadic="size", node_name="ExpandBackward0")
def broadcast_to(input, size):  # type: ignore[no-untyped-def]
    """`input` broadcast to `size`."""
    return np.broadcast_to(input, size)


broadcast_to.vjp(input=lambda g, shape: unbroadcast(g, shape))
