"""Products of matrices in groups, as of the experts of a mixture, whose rows lie one after another."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.ops.composites import composite
from refgrad.ops.joining import cat, stack
from refgrad.ops.placing import constant
from refgrad.ops.products import bmm, matmul

__all__ = ["_grouped_mm"]


@composite(method=False)
def _grouped_mm(
    input: Any, mat2: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None
) -> Any:
    """The product of each group: of (M, K) rows with (G, K, N), (M, N); of (G, M, K) with (K, N) columns.

    Or of both (M, K) and (K, N) by parts of K, (G, M, N). `offs`, int32, says where each group ends;
    what lies beyond the last is 0. Without it both are batches, (G, M, K) and (G, K, N).

    Raises:
        RuntimeError: the shapes, the dtypes or `offs` do not fit, or there is a bias.
    """
    _check(input, mat2, offs, bias, out_dtype)
    if offs is None:
        return bmm(input, mat2)
    ends = [0, *offs._array.tolist()]
    spans = [slice(a, max(a, b)) for a, b in itertools.pairwise(ends)]
    if input.ndim == 2 and mat2.ndim == 2:
        return stack([matmul(input[:, s], mat2[s]) for s in spans])
    if input.ndim == 2:
        parts, dim, beyond = [matmul(input[s], m) for s, m in zip(spans, mat2)], 0, input[ends[-1] :]
    else:
        parts, dim = [matmul(m, mat2[:, s]) for s, m in zip(spans, input)], 1
        beyond = mat2[:, ends[-1] :]
    if beyond.shape[dim]:
        shape = list(parts[0].shape)
        shape[dim] = beyond.shape[dim]
        parts.append(constant(np.zeros(shape, input.dtype.numpy), input))
    return cat(parts, dim)


def _check(input: Any, mat2: Any, offs: Any, bias: Any, out_dtype: Any) -> None:
    if {input.ndim, mat2.ndim} - {2, 3}:
        raise RuntimeError("mat_a and mat_b have to be 2 or 3 dimensional")
    if (offs is None) is not (input.ndim == mat2.ndim == 3):
        raise RuntimeError(
            "Have to provide offsets if there is a 2d matrix, or no offset if both matrices are 3d"
        )
    if bias is not None:
        raise RuntimeError("Bias not supported yet")
    if out_dtype not in (None, input.dtype):
        raise RuntimeError("Grouped gemm output dtype must match `mat_a` dtype")
    if input.shape[-1] != mat2.shape[-2]:
        raise RuntimeError("contraction dimension of mat_a and mat_b must match")
    if offs is None:
        return
    if offs.dtype is not dtypes.int32 or offs.ndim != 1:
        raise RuntimeError("Offsets have to be int32, one for each group")
    batches = [x for x in (input, mat2) if x.ndim == 3]
    if any(len(x) != len(offs) for x in batches):
        raise RuntimeError("matrix batch sizes have to match the offsets")
    length = mat2.shape[-1] if input.ndim == 3 else input.shape[-1 if mat2.ndim == 2 else 0]
    if len(offs) and not 0 <= int(offs._array.max()) <= length:
        raise RuntimeError(f"an offset is beyond the {length} that are there")
