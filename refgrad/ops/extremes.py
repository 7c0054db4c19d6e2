"""Choosing between values, elementwise: where, maximum, clamp, rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.ops.composites import alias, composite
from refgrad.ops.kernels import between, either
from refgrad.ops.op import INPLACE, METHODS, UFUNCS, op
from refgrad.ops.pointwise import flat
from refgrad.ops.ufuncs import binary, unary

__all__ = [
    "ceil", "clamp", "clamp_max", "clamp_min", "clip", "fix", "floor", "fmax", "fmin", "frac",
    "masked_fill", "maximum", "minimum", "nan_to_num", "round", "trunc", "where",
]  # fmt: skip

# --- where ---------------------------------------------------------------------------------------


@op(promote=("input", "other"), name="where", method=False)
def _where(condition, input, other):
    return either(condition, input, other)


_where.vjp(
    input=lambda g, condition: either(condition, g, 0.0),  # g * condition would keep a nan in g
    other=lambda g, condition: either(condition, 0.0, g),
)


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` holds, else `other`; with the condition alone, where it holds."""
    if input is None and other is None:
        from refgrad.ops.indexing import nonzero

        return nonzero(condition, as_tuple=True)
    return _where(condition, input, other)


METHODS["where"] = lambda input, condition, other: where(condition, input, other)
METHODS["where"].__name__ = "where"


@op(inplace=True)
def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """`input` with `value`, a number or a 0-d tensor, where `mask` holds.

    Raises:
        RuntimeError: the mask is not boolean, or `value` has dimensions.
    """
    if mask.dtype.kind != "b":
        raise RuntimeError(
            f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype}"
        )
    if getattr(value, "ndim", 0):
        raise RuntimeError(
            f"masked_fill only supports a 0-dimensional value tensor, but got {value.ndim} dimension(s)."
        )
    if hasattr(value, "astype"):
        value = value.astype(input.dtype)
    elif input.dtype.kind in "iu" and type(value) is float:
        value = int(value)
    return either(mask, value, input).astype(input.dtype, copy=False)


masked_fill.vjp(
    input=lambda g, mask: either(mask, 0.0, g), value=lambda g, mask: either(mask, g, 0.0)
)

# --- the larger and the smaller --------------------------------------------------------------------

# at a tie each gets half; a nan passes the gradient on to both
maximum = binary(
    "maximum", np.maximum,
    lambda g, input, other: either(input == other, 0.5 * g, either(input < other, 0.0, g)),
    lambda g, input, other: either(input == other, 0.5 * g, either(input > other, 0.0, g)),
    inplace=False,
)  # fmt: skip
minimum = binary(
    "minimum", np.minimum,
    lambda g, input, other: either(input == other, 0.5 * g, either(input > other, 0.0, g)),
    lambda g, input, other: either(input == other, 0.5 * g, either(input < other, 0.0, g)),
    inplace=False,
)  # fmt: skip
# at a tie the first gets all
fmax = binary(
    "fmax", np.fmax,
    lambda g, input, other: either((input >= other) | np.isnan(other), g, 0.0),
    lambda g, input, other: either((input >= other) | np.isnan(other), 0.0, g),
    inplace=False,
)  # fmt: skip
fmin = binary(
    "fmin", np.fmin,
    lambda g, input, other: either((input <= other) | np.isnan(other), g, 0.0),
    lambda g, input, other: either((input <= other) | np.isnan(other), 0.0, g),
    inplace=False,
)  # fmt: skip


def _inside(g: Any, input: Any, min: Any, max: Any) -> Any:
    if min is None:
        return either(input <= max, g, 0.0)
    return either(input >= min if max is None else (input >= min) & (input <= max), g, 0.0)


@op(promote=("input", "min", "max"), inplace=True)
def clamp(input, min=None, max=None):
    """`input` brought into [min, max]; max where min > max.

    Raises:
        RuntimeError: neither bound is given.
    """
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    return between(input, min, max)


clamp.vjp(  # on a bound all goes to the input
    input=_inside,
    min=lambda g, input, min, max: (
        either((input < min) if max is None else (input < min) & (min < max), g, 0.0)
    ),
    max=lambda g, input, min, max: (
        either((input > max) if min is None else (input > max) | (max < min), g, 0.0)
    ),
)
clip = alias("clip", clamp)


@composite
def clamp_min(input: Any, min: Any) -> Any:
    """`input` where it is above `min`, else `min`."""
    return clamp(input, min=min)


@composite
def clamp_max(input: Any, max: Any) -> Any:
    """`input` where it is below `max`, else `max`."""
    return clamp(input, max=max)


INPLACE.update(clamp_min=clamp_min, clamp_max=clamp_max)


@op(inplace=True)
def nan_to_num(input: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    """`input` with numbers for nan (0 by default) and infinities (the dtype's limits)."""
    if input.dtype.kind not in "fc":
        return np.copy(input)
    return np.nan_to_num(input, nan=nan or 0.0, posinf=posinf, neginf=neginf)


nan_to_num.vjp(input=lambda g, input: either(np.isfinite(input), g, 0.0))

# --- rounding ------------------------------------------------------------------------------------


def _rounding(name: str, ufunc: Any) -> Any:
    made = unary(name, lambda x: ufunc(x) if x.dtype.kind == "f" else np.copy(x), flat)
    UFUNCS[ufunc] = made
    return made


ceil = _rounding("ceil", np.ceil)
floor = _rounding("floor", np.floor)
trunc = _rounding("trunc", np.trunc)
fix = alias("fix", trunc)
frac = unary("frac", lambda x: x - np.trunc(x), lambda g: g)


@op(inplace=True)
def round(input, *, decimals=0):
    """`input` rounded to `decimals`, halves to even."""
    if input.dtype.kind != "f":
        return np.copy(input)
    if decimals == 0:
        return np.rint(input)
    ten = 10.0 ** abs(decimals)
    return np.rint(input * ten) / ten if decimals > 0 else np.rint(input / ten) * ten


round.vjp(input=flat)
UFUNCS[np.rint] = round
