"""Inputs described in a line: `float64[n, 3] in (0, 1)`; from it arrays are drawn by class.

    DTYPE[SIZES]            Gaussian entries; also zeros, ties, negative and large ones, and
                            some whose exp overflows
    ... in (LOW, HIGH)      within an interval; [ and ] include its ends (an end may be left out)
    ... frozen              without requires_grad

A size is a number or a name. A name is drawn anew for each sample, 1 among its sizes, and means the
same size in all specs of a call; in every fourth sample one name is longer than a vector or a tile
of a kernel. Integers need an interval, as in `int64[n] in [0, 10)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.choose import Choose, Seeded
from conformance.errors import UsageError
from conformance.program import Array
from conformance.sources import values as classes
from conformance.sources.values import Domain

DTYPES = (
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "int64", "int32", "bool"
)  # fmt: skip
_HELD = {"bfloat16": "float32"}  # what NumPy has for it
_FLOATING = ("float", "bfloat", "complex")
SIZES = (3, 2, 1, 4, 5)
LONG = (9, 17, 33, 64, 65, 129)  # at and beyond what vectors and tiles hold
ROUND = 4  # samples, in the last of which one name is long
LARGEST = 4096  # elements of an input with a long name
HUGE = {"float64": 750.0, "float32": 100.0}  # beyond what exp takes
WIDEST = 1_000_000  # elements of one input

_FORM = re.compile(
    r"\s*(?P<dtype>\w+)\s*\[(?P<sizes>[^\]]*)\]"
    r"(?:\s+in\s+(?P<left>[\[(])\s*(?P<low>[^,]*),\s*(?P<high>[^\])]*)(?P<right>[\])]))?"
    r"(?P<frozen>\s+frozen)?\s*"
)
_EXAMPLE = "write it as 'float64[n, 3]', 'float64[4] in (0, 1)' or 'int64[n] in [0, 10) frozen'"


@dataclass(frozen=True)
class Spec:
    """One input to be drawn: dtype, sizes (numbers or names), interval, requires_grad."""

    dtype: str
    sizes: tuple[int | str, ...]
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = True
    open_high: bool = True
    requires_grad: bool = True
    huge: bool = True  # whether entries whose exp overflows are among those drawn

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.sizes))}]"
        if math.isfinite(self.low) or math.isfinite(self.high):
            low = "" if math.isinf(self.low) else f"{self.low:g}"
            high = "" if math.isinf(self.high) else f"{self.high:g}"
            text += f" in {'[('[self.open_low]}{low}, {high}{'])'[self.open_high]}"
        floating = self.dtype.startswith(_FLOATING)
        return text if self.requires_grad or not floating else text + " frozen"

    def draw(self, choose: Choose, named: dict[str, int], turn: int = 0) -> Array:
        """An array; `named` has the sizes that names have in this sample, and is added to.

        The classes of values (ordinary, negative, zeros, ties, big, huge) take turns.
        """
        shape = []
        for size in self.sizes:
            if isinstance(size, str):
                size = named.setdefault(size, choose.of(SIZES))
            shape.append(size)
        if self.dtype == "bool":
            bits = [choose.flag() for _ in range(math.prod(shape))]
            return np.array(bits, bool).reshape(shape)
        if self.dtype.startswith("int"):
            low = math.ceil(self.low) + (self.open_low and self.low == math.ceil(self.low))
            high = math.floor(self.high) - (self.open_high and self.high == math.floor(self.high))
            numbers = [choose.integer(low, high) for _ in range(math.prod(shape))]
            return np.array(numbers, self.dtype).reshape(shape)
        real = self._floats(choose, shape, turn)
        if self.dtype.startswith("complex"):
            return (real + 1j * self._floats(choose, shape, turn)).astype(self.dtype)
        held = _HELD.get(self.dtype, self.dtype)
        return classes.lay(real.astype(held), choose.of(classes.LAYOUTS))

    def _floats(self, choose: Choose, shape: Sequence[int], turn: int) -> Array:
        domain = Domain(self.low, self.high)
        if self.low == -math.inf and self.high < math.inf:  # the mirror image of one from below
            mirrored = replace(self, low=-self.high, high=math.inf)
            return np.asarray(-mirrored._floats(choose, shape, turn))
        if self.low > -math.inf and self.high < math.inf:
            z: Array = np.array(choose.noise(math.prod(shape))).reshape(shape)
            middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
            return np.asarray(middle + half * np.tanh(z))
        kinds = [kind for kind in domain.classes if kind != "zeros" or self._has_zero]
        if self.huge and self.low == -math.inf and self.dtype in HUGE:
            kinds.append("huge")
        kind = kinds[turn % len(kinds)]
        if kind == "huge":
            return self._huge(classes.draw(choose, shape, classes.REAL, "ordinary"))
        drawn = classes.draw(choose, shape, classes.REAL, kind)
        if self.low > -math.inf:  # what lies beyond the end comes back as far within
            drawn = self.low + np.abs(drawn - self.low)
            drawn[drawn == self.low] += 0.5 if self.open_low else 0.0
        return np.asarray(drawn)

    def _huge(self, drawn: Array) -> Array:
        """The largest third, two at least, so far out that exp overflows; on both sides in turn."""
        size = np.abs(drawn).reshape(-1)
        far = np.argsort(size)[::-1][: max(2, len(size) // 3)]
        signs = np.where(np.arange(len(far)) % 2, -1.0, 1.0)
        made = drawn.reshape(-1).copy()
        made[far] = signs * HUGE[self.dtype] * (1 + size[far] / 8)
        return made.reshape(drawn.shape)

    @property
    def _has_zero(self) -> bool:
        above = self.low < 0 or (self.low == 0 and not self.open_low)
        below = self.high > 0 or (self.high == 0 and not self.open_high)
        return above and below


def spec(text: str) -> Spec:
    """The Spec that a line describes; raises UsageError that says how to write one.

    >>> spec("float64[n, 3] in (0, 1)").sizes
    ('n', 3)
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} describes no input; {_EXAMPLE}")
    dtype = found["dtype"]
    if dtype not in DTYPES:
        raise UsageError(f"{text!r}: the dtype is {dtype!r}, and can be {', '.join(DTYPES)}")
    sizes = tuple(_size(part.strip(), text) for part in found["sizes"].split(",") if part.strip())
    if math.prod(s for s in sizes if isinstance(s, int)) > WIDEST:
        raise UsageError(f"{text!r} has more than {WIDEST:,} elements")
    low = _bound(found["low"], -math.inf, text)
    high = _bound(found["high"], math.inf, text)
    if not low < high and not (low == high and found["left"] == "[" and found["right"] == "]"):
        raise UsageError(f"{text!r}: the interval is empty")
    floating = dtype.startswith(_FLOATING)
    if dtype.startswith("int") and not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{text!r}: integers need an interval, as in 'int64[n] in [0, 10)'")
    return Spec(
        dtype,
        sizes,
        low,
        high,
        found["left"] != "[",
        found["right"] != "]",
        requires_grad=floating and not found["frozen"],
    )


def draw(specs: Sequence[Spec], seed: int, number: int) -> list[Array]:
    """The arrays of sample `number`; the same seed and number give the same arrays."""
    choose = Seeded(f"{seed}/{number}")
    named = _long(specs, choose) if number % ROUND == ROUND - 1 else {}
    return [each.draw(choose, named, number + 2 * n) for n, each in enumerate(specs)]


def _long(specs: Sequence[Spec], choose: Choose) -> dict[str, int]:
    """A name with a size of LONG that leaves no input with more than LARGEST elements."""
    names = list(dict.fromkeys(s for each in specs for s in each.sizes if isinstance(s, str)))
    if not names:
        return {}
    name = choose.of(names)

    def fits(long: int) -> bool:
        known = {other: max(SIZES) for other in names} | {name: long}
        counts = [math.prod(known[s] if isinstance(s, str) else s for s in e.sizes) for e in specs]
        return max(counts) <= LARGEST

    sizes = [long for long in LONG if fits(long)]
    return {name: choose.of(sizes)} if sizes else {}


def tensors(specs: Sequence[Spec], seed: int, number: int, device: str = "cpu") -> tuple[Any, ...]:
    """The same as torch tensors on a device, those that the specs say requiring grad."""
    import torch

    made = []
    for each, array in zip(specs, draw(specs, seed, number), strict=True):
        tensor = torch.from_numpy(array).to(device, getattr(torch, each.dtype))
        made.append(tensor.requires_grad_(each.requires_grad))
    return tuple(made)


def _size(text: str, whole: str) -> int | str:
    if text.isidentifier():
        return text
    if not text.isdigit():
        raise UsageError(f"{whole!r}: the size {text!r} is neither a number nor a name")
    return int(text)


def _bound(text: str | None, default: float, whole: str) -> float:
    if text is None or not text.strip():
        return default
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{whole!r}: the bound {text.strip()!r} is no number") from None
