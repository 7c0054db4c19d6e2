"""Distances between the rows of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.composites import composite
from refgrad.ops.matrix_norms import length
from refgrad.ops.placing import constant

__all__ = ["pdist"]


@composite(method=False)
def pdist(input: Any, p: float = 2.0) -> Any:
    """The p-norms of the differences of the rows of (N, M), each pair once.

    Raises:
        RuntimeError: `input` is no matrix, or `p` is negative.
    """
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    i, j = np.triu_indices(input.shape[0], 1)
    return length(input[constant(i, input)] - input[constant(j, input)], p)
