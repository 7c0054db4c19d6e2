"""Linear and bilinear maps with a weight and a bias."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.composites import composite
from refgrad.ops.kernels import reshaped, rowwise, swapped
from refgrad.ops.op import op
from refgrad.tensor import Tensor

__all__ = ["bilinear"]


@op(method=False, name="linear", node_name="AddmmBackward0")
def _linear(input: Any, weight: Any, bias: Any) -> Any:
    out = np.matmul(input, swapped(weight, 0, 1))
    if bias is None:
        return out
    with rowwise(out, bias):
        return out + bias


def _rows(x: Any) -> Any:
    """The last dimension's vectors as the rows of a matrix."""
    return x if x.ndim == 2 else reshaped(x, (-1, x.shape[-1]))


@op(method=False, node_name="MmBackward0")
def _of_weight(g: Any, input: Any) -> Any:
    """g^T input, of the rows of both."""
    return np.matmul(swapped(_rows(g), 0, 1), _rows(input))


_of_weight.vjp(
    g=lambda h, input: _linear(input, h, None) if isinstance(h, Tensor) else np.matmul(input, h.T),
    input=lambda h, g: np.matmul(g, h),
)

# One node in place of those of t, matmul and add; d out = dx W^T + x dW^T + db
_linear.vjp(
    input=lambda g, weight: np.matmul(g, weight),
    weight=lambda g, input: (_of_weight if isinstance(g, Tensor) else _of_weight.forward)(g, input),
    bias=lambda g: g,
)


@composite(method=False)
def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """input @ weight^T + bias, of (*, I) with (O, I) and (O,).

    Raises:
        RuntimeError: the shapes or dtypes do not fit.
    """
    of_input, of_weight = input._array.shape, weight._array.shape
    if len(of_weight) != 2 or not of_input or 0 in of_input:
        out = input.matmul(weight.t())
        return out if bias is None else out + bias
    if of_input[-1] != of_weight[1]:
        rows = "x".join(map(str, of_input))
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows} and {of_weight[1]}x{of_weight[0]})"
        )
    dtype = input._array.dtype
    if dtype != weight._array.dtype or (bias is not None and bias._array.dtype != dtype):
        raise RuntimeError(
            f"mat1 and mat2 must have the same dtype, but got {input.dtype!r} and {weight.dtype!r}"
        )
    return _linear(input, weight, bias)


@composite(method=False)
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y[.., k] = sum over i, j of input1[.., i] weight[k, i, j] input2[.., j], plus bias.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    lead = input1.shape[:-1]
    if input1.ndim != input2.ndim or input2.shape[:-1] != lead:
        raise RuntimeError("bilinear(): input batch dimensions do not match: got "
                           f"{list(input1.shape)} and {list(input2.shape)}")  # fmt: skip
    k, m, n = weight.shape
    if input1.shape[-1] != m or input2.shape[-1] != n:
        raise RuntimeError(
            f"bilinear(): input sizes {input1.shape[-1]} and {input2.shape[-1]} do not match weight "
            f"of size {list(weight.shape)}"
        )
    rows = int(np.prod(lead))
    x = linear(input1.reshape(rows, m), weight.transpose(1, 2).reshape(k * n, m))
    out = x.reshape(rows, k, n).matmul(input2.reshape(rows, n, 1)).reshape(*lead, k)
    return out if bias is None else out + bias
