"""Attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.ops.composites import composite, lay
from refgrad.ops.dropping import dropout
from refgrad.ops.joining import cat
from refgrad.ops.linear import linear
from refgrad.ops.placing import constant
from refgrad.ops.strides import like_first
from refgrad.tensor import wrap

__all__: list[str] = []


@composite(method=False)
def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(scale query key^T + mask) value, of (*, L, E), (*, S, E) and (*, S, V).

    `attn_mask` is added, or as bool says which keys count; a query that no key counts for gets 0. `scale`
    is 1 / sqrt(E) by default. With `enable_gqa` several heads of the query share one of the key.

    Raises:
        RuntimeError: the shapes do not fit, or a mask is given with `is_causal`.
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "scaled_dot_product_attention: Expected query, key, and value to all be at least 2 "
            f"dimensional, but got {query.ndim}, {key.ndim} and {value.ndim}"
        )
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype!r} key.dtype: {key.dtype!r} and value.dtype: {value.dtype!r} instead."
        )
    narrow = query.dtype is dtypes.float16  # of which the scores are soon beyond it
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
    scores = (query * scale).matmul(key.transpose(-2, -1))
    if is_causal:
        attn_mask = constant(np.tri(query.shape[-2], key.shape[-2], dtype=bool), query)
    if attn_mask is not None:
        if attn_mask.dtype.numpy.kind == "b":
            blocked = np.where(attn_mask._array, 0.0, -np.inf).astype(query.dtype.numpy)
            attn_mask = wrap(blocked)
        scores = scores + attn_mask
    blind = None
    if attn_mask is not None:
        blind = np.all(scores._array == -np.inf, axis=-1, keepdims=True)
        blind = wrap(blind) if blind.any() else None
    if blind is None:
        weights = scores.softmax(-1)
    else:  # softmax of minus infinities would be nan, and so would its gradient
        weights = scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p, True)
    out = weights.matmul(value)
    if narrow:
        out = out.half()
    if dropout_p > 0 or any(x.ndim != 4 or x.stride(-1) != 1 for x in (query, key, value)):
        return out
    return lay(out, like_first, (query._array,))  # as torch's kernel for these has them


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
