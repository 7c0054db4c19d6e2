"""out=: results that are written to tensors the caller gives.

An `Op` knows `out` itself; `offer` gives it to the plain functions of a namespace. Either way the
result is computed as always and then written, so `out` may be one of the arguments.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.mode import state
from refgrad.tensor import Tensor

# what PyTorch gives an `out`, of the functions at the top of refgrad that are no ops
TOP = """
    add addbmm addmm addmv addr aminmax arange argsort as_strided_copy baddbmm bernoulli
    bmm bucketize cat ceil cholesky cholesky_inverse cholesky_solve clamp_max clamp_min
    column_stack concat concatenate cross cummax cummin diag diagonal_copy diff div divide
    dot dstack empty expand_copy eye float_power full ger hstack index_add index_copy
    inner isin kron kthvalue ldexp linspace log_softmax logit logspace logsumexp lu_solve
    lu_unpack masked_select max mean median min mm mode msort multinomial mv nanmean
    nanmedian nanquantile narrow_copy nonzero norm normal ones outer permute_copy qr
    quantile rand randint randn randperm renorm row_stack scatter scatter_add searchsorted
    sinc slice_scatter softmax sort stack std sub subtract sum svd t_copy take
    take_along_dim topk transpose_copy triangular_solve true_divide unfold_copy
    unsqueeze_copy var vdot view_copy vstack where zeros
"""


def offer(namespace: dict[str, Any], names: str | None = None) -> None:
    """Give the plain functions in `namespace`, all or those in `names`, an argument `out`."""
    for name in tuple(namespace) if names is None else names.split():
        function = namespace.get(name)
        if inspect.isfunction(function) and not name.startswith("_"):
            namespace[name] = _with_out(function)


def _with_out(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return function(*args, **kwargs)
        return into(out, function, args, kwargs)

    return wrapped


def into(
    out: Any, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """Call `function` and write what it returns to `out`, a Tensor or several; return that.

    Raises:
        TypeError: `out` holds something else than Tensors.
        RuntimeError: something requires grad, or the result cannot be cast to the dtype of `out`.
    """
    name = function.__name__
    outs = tuple(out) if isinstance(out, (tuple, list)) else (out,)
    for o in outs:
        if not isinstance(o, Tensor):
            raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(o).__name__}")
    if state.enabled and any(_requires_grad(v) for v in (*args, *kwargs.values(), *outs)):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    made = function(*args, **kwargs)
    results = (made,) if isinstance(made, Tensor) else tuple(made)
    if len(results) != len(outs):
        raise TypeError(f"{name}(): expected {len(results)} tensors in 'out', got {len(outs)}")
    for o, r in zip(outs, results, strict=True):
        _write(o, r)
    if isinstance(made, Tensor):
        return outs[0]
    return type(made)(*outs) if hasattr(made, "_fields") else outs


def _requires_grad(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_requires_grad(v) for v in value)
    return isinstance(value, Tensor) and bool(value._requires_grad)


def _write(out: Any, made: Any) -> None:
    """Write `made` to the memory of `out`, or to new memory where the shape differs."""
    if not dtypes.can_cast(made.dtype, out.dtype):
        raise RuntimeError(
            f"result type {made.dtype!r} can't be cast to the desired output type {out.dtype!r}"
        )
    if made._array.shape != out._array.shape:
        if out._array.size:
            warnings.warn(
                f"An output with one or more elements was resized since it had shape "
                f"{list(out.shape)}, which does not match the required output shape "
                f"{list(made.shape)}. This behavior is deprecated.",
                UserWarning,
                stacklevel=4,
            )
        out._array = made._array.astype(out._array.dtype)
    else:
        np.copyto(out._array, made._array, casting="unsafe")
    out.mark_written()
