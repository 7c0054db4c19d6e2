"""torch's names in NumPy's words: what JAX, HIPS autograd and MyGrad have in common.

`functions(xp)` is a table for one such module. What has the same arguments is bound as it is; what
has others is a function of a line or two. What `xp` lacks is not in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_SAME = {
    "add": "add",
    "cos": "cos",
    "dot": "dot",
    "exp": "exp",
    "matmul": "matmul",
    "mul": "multiply",
    "neg": "negative",
    "pow": "power",
    "reshape": "reshape",
    "sin": "sin",
    "sub": "subtract",
    "tanh": "tanh",
    "transpose": "swapaxes",
    "unsqueeze": "expand_dims",
    "squeeze": "squeeze",
    "linalg.cholesky": "linalg.cholesky",
    "linalg.solve": "linalg.solve",
}


def functions(xp: Any) -> dict[str, Callable[..., Any]]:
    """By torch's name, a function of `xp`'s arrays that takes torch's arguments."""
    table: dict[str, Callable[..., Any]] = {}
    for name, path in _SAME.items():
        found = xp
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is not None:
            table[f"torch.{name}"] = found
    for family in (_reductions, _shapes, _activations, _networks):
        table |= {f"torch.{name}": function for name, function in family(xp).items()}
    return table


def _reductions(xp: Any) -> dict[str, Callable[..., Any]]:
    return {
        "sum": lambda x, dim=None, keepdim=False: xp.sum(x, axis=dim, keepdims=keepdim),
        "mean": lambda x, dim=None, keepdim=False: xp.mean(x, axis=dim, keepdims=keepdim),
        "var": lambda x, dim=None: xp.var(x, axis=dim, ddof=1),
    }


def _shapes(xp: Any) -> dict[str, Callable[..., Any]]:
    def view(x: Any, *shape: Any) -> Any:
        return xp.reshape(x, shape[0] if isinstance(shape[0], tuple | list) else shape)

    def expand(x: Any, *shape: int) -> Any:
        lead = len(shape) - x.ndim
        sides = (x.shape[n - lead] if side == -1 else side for n, side in enumerate(shape))
        return xp.broadcast_to(x, tuple(sides))

    def split(x: Any, size: int | Sequence[int], dim: int = 0) -> list[Any]:
        length = x.shape[dim]
        parts = [size] * -(-length // size) if isinstance(size, int) else size
        ends = np.cumsum(parts).tolist()
        before = (slice(None),) * (dim % x.ndim)
        return [x[(*before, slice(end - n, end))] for n, end in zip(parts, ends)]

    def flatten(x: Any, start_dim: int = 0) -> Any:
        return xp.reshape(x, (*x.shape[:start_dim], -1))

    # Integers alone are padded and gathered here: where xp differentiates neither, NumPy will do.
    pad, take_along = (getattr(xp, name, getattr(np, name)) for name in ("pad", "take_along_axis"))

    def padded(x: Any, widths: Sequence[int], value: float = 0) -> Any:
        pairs = [tuple(widths[n : n + 2]) for n in range(0, len(widths), 2)]
        before = [(0, 0)] * (x.ndim - len(pairs))
        return pad(x, before + pairs[::-1], constant_values=value)

    return {
        "cat": lambda tensors, dim=0: xp.concatenate(tensors, axis=dim),
        "chunk": lambda x, chunks, dim=0: split(x, -(-x.shape[dim] // chunks), dim),
        "flatten": flatten,
        "gather": lambda x, dim, index: take_along(x, index, dim),
        "nn.functional.pad": padded,
        "split": split,
        "stack": lambda tensors, dim=0: xp.stack(tensors, axis=dim),
        "Tensor.contiguous": lambda x: x,
        "Tensor.expand": expand,
        "Tensor.float": lambda x: x,
        "Tensor.view": view,
    }


def _activations(xp: Any) -> dict[str, Callable[..., Any]]:
    def sigmoid(x: Any) -> Any:
        return 1 / (1 + xp.exp(-x))

    def softmax(x: Any, dim: int) -> Any:
        powers = xp.exp(x - xp.max(x, axis=dim, keepdims=True))
        return powers / xp.sum(powers, axis=dim, keepdims=True)

    def log_softmax(x: Any, dim: int) -> Any:
        shifted = x - xp.max(x, axis=dim, keepdims=True)
        return shifted - xp.log(xp.sum(xp.exp(shifted), axis=dim, keepdims=True))

    return {
        "relu": lambda x: xp.maximum(x, 0),
        "rsqrt": lambda x: 1 / xp.sqrt(x),
        "sigmoid": sigmoid,
        "nn.functional.log_softmax": log_softmax,
        "nn.functional.silu": lambda x: x * sigmoid(x),
        "nn.functional.softmax": softmax,
        "nn.functional.softplus": lambda x: xp.logaddexp(x, 0),
    }


def _networks(xp: Any) -> dict[str, Callable[..., Any]]:
    activations = _activations(xp)
    softmax = activations["nn.functional.softmax"]
    log_softmax = activations["nn.functional.log_softmax"]

    def linear(x: Any, weight: Any, bias: Any = None) -> Any:
        y = xp.matmul(x, xp.swapaxes(weight, -1, -2))
        return y if bias is None else y + bias

    def normalised(x: Any, dims: tuple[int, ...], eps: float) -> Any:
        centred = x - xp.mean(x, axis=dims, keepdims=True)
        return centred / xp.sqrt(xp.mean(centred * centred, axis=dims, keepdims=True) + eps)

    def layer_norm(x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float = 1e-5) -> Any:
        return normalised(x, tuple(range(-len(shape), 0)), eps) * weight + bias

    def batch_norm(
        x: Any, mean: None, var: None, weight: Any, bias: Any, training: bool, eps: float = 1e-5
    ) -> Any:
        dims = (0, *range(2, x.ndim))
        row = (1, -1) + (1,) * (x.ndim - 2)
        return normalised(x, dims, eps) * xp.reshape(weight, row) + xp.reshape(bias, row)

    def attention(
        q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        if enable_gqa:
            k, v = (xp.repeat(x, q.shape[-3] // k.shape[-3], -3) for x in (k, v))
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        scores = xp.matmul(q, xp.swapaxes(k, -1, -2)) * factor
        if is_causal:
            scores = scores + _causal(scores)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return xp.matmul(softmax(scores, -1), v)

    def cross_entropy(logits: Any, labels: Any, ignore_index: int = -100) -> Any:
        counted = labels != ignore_index
        picked = log_softmax(logits, -1)[np.arange(len(labels)), labels * counted]
        return -xp.sum(picked * counted) / xp.sum(counted)

    return {
        "addmm": lambda bias, a, b: xp.matmul(a, b) + bias,
        "nn.functional.cross_entropy": cross_entropy,
        "nn.functional.linear": linear,
        "nn.functional.mse_loss": lambda x, y: xp.mean((x - y) ** 2),
        "nn.functional.embedding": lambda ids, table, padding_idx=None: table[ids],
        "nn.functional.layer_norm": layer_norm,
        "nn.functional.batch_norm": batch_norm,
        "nn.functional.scaled_dot_product_attention": attention,
    }


def pooled(xp: Any, x: Any, side: int, reduction: Callable[..., Any]) -> Any:
    """The reduction over square windows that lie side by side, as a reshape."""
    n, channels, high, wide = x.shape
    windows = xp.reshape(x, (n, channels, high // side, side, wide // side, side))
    return reduction(windows, axis=(3, 5))


def _causal(scores: Any) -> Any:
    """Minus infinity above the diagonal of the last two dimensions."""
    return np.triu(np.full(scores.shape[-2:], -np.inf, scores.dtype), 1)
