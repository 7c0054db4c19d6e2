"""What kind of wrong a gradient is: a class for machines, and a sentence for people."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from conformance.oracles.pairs import flat
from conformance.program import Array

CLOSE = 1e-6  # of the gradient's scale: near enough to recognise a pattern
AXES = 4  # permutations of more axes than this are not tried
NAMED_FACTORS = {
    2.0: "2", 0.5: "1/2", 3.0: "3", 1 / 3: "1/3", 4.0: "4", 0.25: "1/4",
    float(np.pi): "pi", float(1 / np.pi): "1/pi", float(np.log(2)): "log 2",
    float(1 / np.log(2)): "1/log 2", float(np.sqrt(2)): "sqrt 2", float(np.sqrt(0.5)): "1/sqrt 2",
    float(2 / np.sqrt(np.pi)): "2/sqrt pi", float(np.sqrt(np.pi) / 2): "sqrt pi / 2",
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """A class slug and one sentence."""

    slug: str
    sentence: str


NONDETERMINISTIC = Diagnosis(
    "nondeterministic", "the same backward pass run twice gives two different gradients"
)


def diagnose(
    engine: Array | None,
    reference: Array | None,
    shape: tuple[int, ...],
    others: Mapping[str, Array] | None = None,
) -> Diagnosis:
    """The class of a gradient that differs from the reference's; `shape` is the leaf's.

    `others` are the Program's values: a gradient off by one of them as a factor has lost or gained
    it.
    """
    if engine is None or reference is None:
        who, other = ("engine", "reference") if engine is None else ("reference", "engine")
        return Diagnosis("none", f"the {who} gives no gradient (None), the {other} does")
    if engine.shape != reference.shape:
        return _shape(engine, reference, shape)
    if engine.dtype != reference.dtype:
        text = f"the gradient's dtype is {engine.dtype.name}, not {reference.dtype.name}"
        return Diagnosis("dtype", text)
    e, r = flat(engine), flat(reference)
    odd = ~np.isfinite(e) & np.isfinite(r)
    if odd.any():
        what = "nan" if np.isnan(e[odd]).any() else "inf"
        where = "everywhere" if odd.all() else f"in {int(odd.sum())} of {odd.size} entries"
        return Diagnosis("nan" if what == "nan" else "inf", f"the gradient is {what} {where}")
    both = np.isfinite(e) & np.isfinite(r)
    if not both.all():
        return Diagnosis(
            "not finite", "the reference's gradient is not finite where the engine's is"
        )
    size = float(np.abs(r).max()) if r.size else 0.0
    if size and not np.abs(e).any():
        return Diagnosis("zero", "the gradient is zero everywhere")
    found = _few(engine, reference, size, others or {})
    if found is not None:
        return found
    error = float(np.abs(e - r).max(initial=0.0))
    if size and error < CLOSE * size:
        return Diagnosis("precision floor", f"off by {error / size:.1e} of the gradient's scale")
    for pattern in (_factor, _moved, _summed, _product):
        found = pattern(engine, reference, size, others or {})
        if found is not None:
            return found
    if _constant(e - r, size):
        return Diagnosis("bias", f"every entry is off by {float((e - r)[0]):.6g}")
    return Diagnosis("wrong", "no known pattern relates the gradient to the right one")


def _close(a: Array, b: Array, size: float) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0.0) <= CLOSE * size)


def _constant(values: Array, size: float) -> bool:
    return values.size > 1 and bool(np.ptp(values) <= CLOSE * max(size, abs(float(values[0]))))


def _shape(engine: Array, reference: Array, shape: tuple[int, ...]) -> Diagnosis:
    text = f"the gradient's shape is {engine.shape}, the leaf's {shape}"
    extra = engine.ndim - len(shape)
    if extra >= 0 and engine.size > reference.size:
        axes = tuple(range(extra)) + tuple(
            i + extra for i, n in enumerate(shape) if n == 1 and engine.shape[i + extra] != 1
        )
        summed = engine.sum(axis=axes)
        if summed.size == reference.size:
            size = float(np.abs(reference).max(initial=0.0))
            if _close(summed.reshape(shape), reference, size):
                text += f": it was not summed over the broadcast axes {list(axes)}"
                return Diagnosis("not reduced over a broadcast dimension", text)
    if sorted(engine.shape) == sorted(shape):
        return Diagnosis("transposed", f"{text}: the same sizes in another order")
    return Diagnosis("shape", text)


def _factor(
    engine: Array, reference: Array, size: float, others: Mapping[str, Array]
) -> Diagnosis | None:
    e, r = flat(engine), flat(reference)
    strong = np.abs(r) > 1e-3 * size
    if not size or not strong.any():
        return None
    ratios = e[strong] / r[strong]
    ratio = float(np.median(ratios))
    if not _close(e, ratio * r, size) or abs(ratio - 1) < CLOSE:
        return None
    if r.size == 1 and abs(ratio + 1) > CLOSE and _name(ratio) is None:
        return None  # one number is a multiple of any other
    if abs(ratio + 1) < CLOSE:
        return Diagnosis("sign", "the gradient has the wrong sign everywhere")
    named = _name(ratio)
    by = f"{ratio:.6g}" + (f" ({named})" if named and named != f"{ratio:g}" else "")
    return Diagnosis("missing factor", f"the gradient is {by} times the right one")


def _name(ratio: float) -> str | None:
    for value, name in NAMED_FACTORS.items():
        if abs(abs(ratio) / value - 1) < CLOSE:
            return name if ratio > 0 else f"-{name}"
    return None


def _few(
    engine: Array, reference: Array, size: float, others: Mapping[str, Array]
) -> Diagnosis | None:
    wrong = np.abs(engine - reference) > 1e-12 * max(size, np.finfo(float).tiny)
    count = int(wrong.sum())
    if wrong.size < 4 or count > max(1, wrong.size // 20):
        return None
    places = [tuple(int(i) for i in place) for place in np.argwhere(wrong)[:4]]
    if count == 1:
        return Diagnosis("single entry", f"one entry of {wrong.size} is wrong, at {places[0]}")
    text = f"{count} of {wrong.size} entries are wrong, first at {places}"
    return Diagnosis("few entries", text)


def _moved(
    engine: Array, reference: Array, size: float, others: Mapping[str, Array]
) -> Diagnosis | None:
    """The right entries in other places."""
    if not size or not _close(np.sort(flat(engine)), np.sort(flat(reference)), size):
        return None
    n = reference.ndim
    for first, second in itertools.combinations(range(n), 2):
        if _close(np.swapaxes(engine, first, second), reference, size):
            text = f"axes {first} and {second} of the gradient are exchanged"
            return Diagnosis("transposed", text)
    for axis in range(n):
        if _close(np.flip(engine, axis), reference, size):
            return Diagnosis("flipped", f"the gradient is flipped along axis {axis}")
        for shift in range(1, min(reference.shape[axis], 16)):
            if _close(np.roll(engine, -shift, axis), reference, size):
                text = f"the gradient is rolled by {shift} along axis {axis}"
                return Diagnosis("permuted", text)
    if n <= AXES:
        for order in itertools.permutations(range(n)):
            if _close(engine.transpose(order), reference, size):
                return Diagnosis("transposed", f"the axes of the gradient are permuted: {order}")
    return Diagnosis("permuted", "the gradient's entries are the right ones in other places")


def _summed(
    engine: Array, reference: Array, size: float, others: Mapping[str, Array]
) -> Diagnosis | None:
    """A sum or mean over an axis that was missed, or that should not be."""
    sides: tuple[tuple[Array, Array, str, str], ...] = (
        (reference, engine, "missing sum", "the gradient is that of one element along axis"),
        (engine, reference, "summed too much", "the gradient is constant along axis"),
    )
    for axis in range(reference.ndim):
        length = reference.shape[axis]
        if length < 2:
            continue
        for inner, outer, slug, text in sides:
            whole = np.broadcast_to(inner.sum(axis=axis, keepdims=True), inner.shape)
            for name, made in (("sum", whole), ("mean", whole / length)):
                if slug == "summed too much" and _close(made, outer, size):
                    continue
                if slug == "summed too much" and _close(
                    np.broadcast_to(outer.sum(axis=axis, keepdims=True), outer.shape)
                    / (1 if name == "sum" else length),
                    inner,
                    size,
                ):
                    return Diagnosis(slug, f"{text} {axis}: the {name} of the right one")
                if slug == "missing sum" and _close(
                    np.broadcast_to(outer.sum(axis=axis, keepdims=True), outer.shape), inner, size
                ):
                    return Diagnosis(slug, f"the sum over axis {axis} was not taken")
    return None


def _product(
    engine: Array, reference: Array, size: float, others: Mapping[str, Array]
) -> Diagnosis | None:
    """Off by one of the Program's inputs as a factor."""
    forms: tuple[tuple[str, Callable[[Array], Array]], ...] = (
        ("lacks the factor", lambda v: engine * v),
        ("has the factor too often", lambda v: engine / v),
    )
    for name, value in others.items():
        if value.dtype.kind != "f" or value.size > reference.size or not value.size:
            continue
        for text, form in forms:
            with np.errstate(all="ignore"):
                try:
                    made = form(value)
                except ValueError:
                    continue  # shapes that do not broadcast
            if np.isfinite(made).all() and _close(made, reference, size):
                return Diagnosis("missing factor", f"the gradient {text} {name}")
    return None


def localise(
    disagreement: Callable[[Array], bool], size: int, rng: np.random.Generator, most: int = 16
) -> list[int]:
    """The coordinates at which a linear functional disagrees, by bisection over subsets.

    `disagreement(direction)` says whether a direction (of `size` entries) shows the fault. Each
    subset is tried with a fresh Gaussian draw. At most `most` coordinates are returned.
    """
    found: list[int] = []
    pending = [np.arange(size)]
    while pending and len(found) < most:
        part = pending.pop()
        direction = np.zeros(size)
        direction[part] = rng.standard_normal(len(part))
        if not disagreement(direction):
            continue
        if len(part) == 1:
            found.append(int(part[0]))
        else:
            half = len(part) // 2
            pending += [part[half:], part[:half]]
    return sorted(found)
