"""What `repr` of a tensor shows, laid out as PyTorch lays it out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.device import cpu, device
from refgrad.dtypes import dtype

_OPENING = "tensor("


@dataclass(frozen=True)
class Options:
    """How numbers are shown.

    Attributes:
        precision: digits after the point.
        threshold: arrays of more elements than this are summarised.
        edgeitems: how many are shown at each end of a summarised dimension.
        linewidth: characters a line.
        sci_mode: scientific notation always or never; None decides by the values.
    """

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PROFILES = {
    "default": Options(),
    "short": Options(precision=2, edgeitems=2),
    "full": Options(threshold=math.inf),
}

_options = PROFILES["default"]


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors are printed; what is not given stays, except `sci_mode`, which resets.

    `profile` is "default", "short" or "full"; the other arguments then adjust it.
    """
    global _options
    if profile is not None and profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, not {profile!r}")
    base = _options if profile is None else PROFILES[profile]
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _options = replace(base, **changes, sci_mode=sci_mode)


def get_printoptions() -> dict[str, Any]:
    """The print options, by name."""
    return asdict(_options)


@contextlib.contextmanager
def printoptions(**kwargs: Any) -> Iterator[None]:
    """Sets print options (those of `set_printoptions`) within a `with` block."""
    global _options
    outside = _options
    try:
        set_printoptions(**kwargs)
        yield
    finally:
        _options = outside


def format(
    array: np.ndarray,
    dtype: dtype,
    *,
    requires_grad: bool = False,
    grad_fn_name: str | None = None,
    tangent: str | None = None,
    default_dtype: dtype | None = None,
    device: device = cpu,
) -> str:
    """The text `tensor(...)` of an array and of what is known about its tensor.

    `grad_fn_name` is the name of the backward node ("MulBackward0"), None for a leaf; `tangent` the
    text of its tangent in forward mode.
    `default_dtype`, the one not worth naming, is `dtypes.get_default_dtype()` unless given.
    """
    default = dtypes.get_default_dtype() if default_dtype is None else default_dtype
    notes = []
    if device.type != "cpu":
        notes.append(f"device='{device}'")
    if (array.ndim != 1) if array.size == 0 else (_options.edgeitems == 0):
        notes.append(f"size={tuple(array.shape)}")
    if array.size == 0:
        body = "[]"
        if dtype is not default:
            notes.append(f"dtype={dtype}")
    else:
        body = _body(array, _options)
        if dtype not in (default, _complex_beside(default), dtypes.int64, dtypes.bool):
            notes.append(f"dtype={dtype}")
    if grad_fn_name is not None:
        notes.append(f"grad_fn=<{grad_fn_name}>")
    elif requires_grad:
        notes.append("requires_grad=True")
    if tangent is not None:
        notes.append(f"tangent={tangent}")
    return _append(_OPENING + body, notes, _options.linewidth) + ")"


def _complex_beside(default: dtype) -> dtype:
    """The complex dtype not worth naming; PyTorch shows complex32 even if the default is half."""
    return dtypes.complex128 if default is dtypes.float64 else dtypes.complex64


def _append(text: str, notes: list[str], linewidth: int) -> str:
    """The notes after the text, each on its line while it fits, else on a line of its own."""
    used = len(text) - text.rfind("\n") + 1  # two more than the last line: PyTorch measures so
    for note in notes:
        if used + len(note) + 2 > linewidth:
            text += ",\n" + " " * len(_OPENING) + note
            used = len(_OPENING) + len(note)
        else:
            text += ", " + note
            used += len(note) + 2
    return text


# --- the numbers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Style:
    """How every number of one array is written: `write` gives text of at least `width`."""

    write: Callable[[Any], str]
    width: int


def _body(array: np.ndarray, options: Options) -> str:
    summarise = array.ndim > 0 and array.size > options.threshold
    if summarise and options.edgeitems == 0:
        return "[...]"
    shown = _edges(array, options.edgeitems) if summarise else array
    edge = options.edgeitems if summarise else None
    return _nested(array, len(_OPENING), _style(shown, options), edge, options.linewidth)


def _edges(array: np.ndarray, edge: int) -> np.ndarray:
    """The part of an array that a summary shows."""
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            kept = np.r_[0:edge, size - edge : size]
            array = np.take(array, kept, axis=axis)
    return array


def _nested(array: np.ndarray, indent: int, style: _Style, edge: int | None, linewidth: int) -> str:
    """An array in brackets whose opening one stands at column `indent`."""
    if array.ndim == 0:
        return style.write(array.item())
    size = len(array)
    cut = edge is not None and size > 2 * edge
    rows = [*array[:edge], *array[size - (edge or 0) :]] if cut else list(array)
    if array.ndim > 1:
        parts = [_nested(row, indent + 1, style, edge, linewidth) for row in rows]
        if cut:
            parts.insert(edge or 0, "...")
        return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"
    parts = [style.write(number.item()) for number in rows]
    if cut:
        parts.insert(edge or 0, " ...")
    per_line = max(1, (linewidth - indent) // (style.width + 2))
    lines = [", ".join(parts[i : i + per_line]) for i in range(0, len(parts), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _style(shown: np.ndarray, options: Options) -> _Style:
    if shown.dtype.kind == "c":
        return _complex_style(_float_style(shown.real, options), _float_style(shown.imag, options))
    if shown.dtype.kind == "f":
        return _float_style(shown, options)
    width = max((len(str(number)) for number in shown.ravel().tolist()), default=1)
    return _Style(lambda number: str(number).rjust(width), width)


def _float_style(shown: np.ndarray, options: Options) -> _Style:
    """One notation for all: whole numbers as "3.", others with decimals, or scientific.

    Zeros, infinities and nan have no say in the notation, nor in the width.
    """
    numbers = shown[np.isfinite(shown) & (shown != 0)].astype(np.float64)
    if numbers.size == 0:
        return _Style(_whole, 1)
    sizes = np.abs(numbers)
    low, high = float(sizes.min()), float(sizes.max())
    is_whole = bool(np.all(numbers == np.ceil(numbers)))
    scientific = options.sci_mode
    if scientific is None:
        scientific = high > 1000 * low or high > 1e8 or (not is_whole and low < 1e-4)
    if scientific:
        write: Callable[[float], str] = f"{{:.{options.precision}e}}".format
    elif is_whole:
        write = _whole
    else:
        write = f"{{:.{options.precision}f}}".format
    width = max(len(write(number)) for number in numbers.tolist())
    return _Style(lambda number: write(number).rjust(width), width)


def _whole(number: float) -> str:
    return f"{number:.0f}." if math.isfinite(number) else str(number)


def _complex_style(real: _Style, imag: _Style) -> _Style:
    def write(number: complex) -> str:
        second = imag.write(number.imag).lstrip() + "j"
        sign = "" if second[0] == "-" else "+"
        return real.write(number.real) + sign + second

    return _Style(write, real.width + imag.width + 1)
