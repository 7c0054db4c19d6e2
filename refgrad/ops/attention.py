"""Attention."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.ops.composites import composite
from refgrad.ops.dropping import dropout
from refgrad.ops.joining import cat
from refgrad.ops.kernels import row_max, rowwise, sum_over
from refgrad.ops.linear import linear
from refgrad.ops.op import op
from refgrad.ops.placing import constant
from refgrad.ops.products import matmul
from refgrad.ops.softmax import through_softmax
from refgrad.tensor import wrap

__all__: list[str] = []


@op(
    method=False, name="scaled_dot_product_attention",
    node_name="ScaledDotProductFlashAttentionForCpuBackward0", differentiable=2, unread=0,
)  # fmt: skip
def _attend(query: Any, key: Any, value: Any, mask: Any, kept: Any, scale: Any) -> Any:
    """kept * p value, of p = softmax(scale query key^T + mask), 0 where all of that is -inf; and p."""
    p = matmul.forward(query * scale, key.mT)
    if p.size:
        blind: Any = False
        if mask is not None:
            p += mask
        top = row_max(p, -1)
        if mask is not None:
            blind = top == -np.inf
            if blind.any():  # e^(x - top) would be nan
                top = np.where(blind, 0.0, top).astype(p.dtype)
        with rowwise(p, top):
            p -= top
            np.exp(p, out=p)
            p /= sum_over(p, -1, True) + blind
    return matmul.forward(p if kept is None else p * kept, value), p


def _attend_back(
    g: Any, query: Any, key: Any, value: Any, kept: Any, scale: Any, out: Any, shape: Any
) -> Any:
    # with u = scale q k^T + mask and y = p v:  dy = dp v + p dv;  du by softmax's rule for dp
    of_out, of_p = g
    _, p = out
    of_query, of_key, of_value, of_mask = shape
    scores = None
    if not of_query is of_key is of_mask is None:
        through = of_out @ value.mT
        if kept is not None:
            through = through * kept
        scores = through_softmax(through if of_p is None else through + of_p, p, -1)
    return (
        None if of_query is None else (scores @ key) * scale,
        None if of_key is None else scores.mT @ (query * scale),
        None if of_value is None else (p if kept is None else p * kept).mT @ of_out,
        None if of_mask is None else scores,
    )


_attend.vjp(**{"query, key, value, mask": _attend_back})


@functools.lru_cache(maxsize=8)
def _causal(length: int, keys: int, dtype: Any) -> Any:
    """-inf where a key comes after the query, else 0."""
    mask = np.where(np.tri(length, keys, dtype=bool), 0.0, -np.inf).astype(dtype)
    mask.flags.writeable = False
    return mask


_REMEMBERED = 1 << 18  # elements of the largest of these masks that is kept


@composite(method=False)
def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(scale query key^T + mask) value, of (*, L, E), (*, S, E) and (*, S, V).

    `attn_mask` is added, or as bool says which keys count; a query that no key counts for gets 0. `scale`
    is 1 / sqrt(E) by default. With `enable_gqa` several heads of the query share one of the key.

    Raises:
        RuntimeError: the shapes or the dtypes do not fit, a mask is given with `is_causal`, or
            `dropout_p` is no probability.
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
        )
    if not 0 <= dropout_p <= 1:
        raise RuntimeError(
            f"dropout probability has to be between 0 and 1, but got {dropout_p}"
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "scaled_dot_product_attention: Expected query, key, and value to all be at least 2 "
            f"dimensional, but got {query.ndim}, {key.ndim} and {value.ndim}"
        )
    dtype = query.dtype
    if not dtype is key.dtype is value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{dtype!r} key.dtype: {key.dtype!r} and value.dtype: {value.dtype!r} instead."
        )
    if dtype.numpy.kind == "c":
        raise NotImplementedError('"softmax_lastdim_kernel_impl" not implemented for complex numbers')
    if dtype.numpy.kind != "f":
        raise RuntimeError(f"expected scalar type Float but found {dtype!r}")
    if attn_mask is not None and attn_mask.dtype not in (dtypes.bool, dtypes.float32, dtype):
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {attn_mask.dtype!r} and query.dtype: {dtype!r} instead."
        )
    narrow = dtype is dtypes.float16  # of which the scores are soon beyond it
    if narrow:
        query, key, value = query.float(), key.float(), value.float()
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.float()
    if enable_gqa:
        if query.shape[-3] % key.shape[-3] or query.shape[-3] % value.shape[-3]:
            raise RuntimeError(
                "Number of heads in key and value must divide the number of heads in query"
            )
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    if scale is None:
        scale = 1 / math.sqrt(max(query.shape[-1], 1))
    length, keys = query.shape[-2], key.shape[-2]
    if is_causal:
        made = _causal if length * keys <= _REMEMBERED else _causal.__wrapped__
        attn_mask = constant(made(length, keys, query.dtype.numpy), query)
    elif attn_mask is not None and attn_mask.dtype is dtypes.bool:
        blocked = np.where(attn_mask._array, 0.0, -np.inf).astype(query.dtype.numpy)
        attn_mask = wrap(blocked)
    kept = None
    if dropout_p != 0:
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        kept = dropout(wrap(np.ones_like(query._array, shape=(*lead, length, keys))), dropout_p)
    out = _attend(query, key, value, attn_mask, kept, scale)[0]
    return out.half() if narrow else out


def _project(
    query: Any, key: Any, value: Any, in_weight: Any, in_bias: Any, separate: Any
) -> tuple[Any, Any, Any]:
    """The three inputs by their projections."""
    if separate is not None:
        weights = separate
    else:
        weights = in_weight.chunk(3)
    biases = (None,) * 3 if in_bias is None else in_bias.chunk(3)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))
    return q, k, v


def _additive(mask: Any, like: Any) -> Any:
    """A mask as numbers to add; of a bool one True blocks."""
    if mask is None or mask.dtype.numpy.kind != "b":
        return mask
    return wrap(np.where(mask._array, -np.inf, 0.0).astype(like.dtype.numpy))


@composite(method=False)
def multi_head_attention_forward(
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Any, in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool,
    dropout_p: float, out_proj_weight: Any, out_proj_bias: Any, training: bool = True,
    key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """Multi-head attention of (L, N, E) or (L, E), and its weights with `need_weights`, else None.

    A bool mask blocks where it is True; a float one is added.

    Raises:
        RuntimeError: `is_causal` without `attn_mask`.
        AssertionError: the shapes do not fit.
    """
    batched = query.ndim == 3
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, n, width = query.shape
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    assert width == embed_dim_to_check, (
        f"was expecting embedding dimension of {embed_dim_to_check}, but got {width}"
    )
    depth = width // num_heads
    assert depth * num_heads == width, (
        f"embed_dim {width} not divisible by num_heads {num_heads}"
    )
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None
    else:
        is_causal = False
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _project(query, key, value, in_proj_weight, in_proj_bias, separate)
    mask, blocked = _additive(attn_mask, q), _additive(key_padding_mask, q)
    if mask is not None and mask.ndim == 2:
        mask = mask.unsqueeze(0)

    extra = 0
    if bias_k is not None and bias_v is not None:
        k, v = cat([k, bias_k.expand(1, n, -1)]), cat([v, bias_v.expand(1, n, -1)])
        extra += 1
    q = q.reshape(length, n * num_heads, depth).transpose(0, 1)
    k = k.reshape(-1, n * num_heads, depth).transpose(0, 1) if static_k is None else static_k
    v = v.reshape(-1, n * num_heads, depth).transpose(0, 1) if static_v is None else static_v
    if add_zero_attn:
        k, v = (cat([x, wrap(np.zeros_like(x._array[:, :1]))], 1) for x in (k, v))
        extra += 1
    source = k.shape[1]
    mask, blocked = _widen(mask, extra), _widen(blocked, extra)
    if blocked is not None:
        blocked = blocked.reshape(n, 1, 1, source).expand(n, num_heads, 1, source)
        blocked = blocked.reshape(n * num_heads, 1, source)
        mask = blocked if mask is None else mask + blocked
    p = dropout_p if training else 0.0
    if need_weights:
        scores = (q * math.sqrt(1 / depth)).matmul(k.transpose(-2, -1))
        weights = (scores if mask is None else scores + mask).softmax(-1)
        out = (dropout(weights, p) if p > 0 else weights).matmul(v)
    else:
        heads = (n, num_heads)
        if mask is not None:
            mask = mask.unsqueeze(0) if mask.shape[0] == 1 else mask.reshape(*heads, -1, source)
        q, k, v = (x.reshape(*heads, -1, depth) for x in (q, k, v))
        out = scaled_dot_product_attention(q, k, v, mask, p, is_causal)
        out, weights = out.reshape(n * num_heads, length, depth), None
    out = out.transpose(0, 1).reshape(length * n, width)
    out = linear(out, out_proj_weight, out_proj_bias).reshape(length, n, width)
    if weights is not None:
        weights = weights.reshape(n, num_heads, length, source)
        if average_attn_weights:
            weights = weights.mean(1)
    if not batched:
        out = out.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    return out, weights


def _widen(mask: Any, extra: int) -> Any:
    """A mask with `extra` keys more that are not blocked."""
    from refgrad.ops.padding import constant_pad_nd

    return constant_pad_nd(mask, (0, extra)) if mask is not None and extra else mask
