"""What kind of wrong a gradient is: a class for machines, and a sentence for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.oracles.pairs import hermitian
from conformance.patterns import COTANGENT, PATTERNS, digits
from conformance.program import Array
from conformance.wrongness import CLOSE, Diagnosis, Wrong, conditions

MOST = 16  # entries that a search for wrong ones ends with
TRIES = 6  # draws for a subset that is known to show the fault

NONDETERMINISTIC = Diagnosis(
    "nondeterministic", "the same backward pass run twice gives two different gradients"
)


def diagnose(
    engine: Array | None,
    reference: Array | None,
    shape: tuple[int, ...],
    others: Mapping[str, Array] | None = None,
    *,
    leaf: str = "",
    gradients: Mapping[str, Array | None] | None = None,
    noise: float = 0.0,
    allowed: Array | float = 0.0,
) -> Diagnosis:
    """The class of a gradient that differs from the reference's; `shape` is the leaf's.

    `others` are the Program's values, the leaf's own (by its name, `leaf`) among them: a gradient
    may be wrong where one of them is negative, or have lost it as a factor. `gradients` are the
    right gradients of all leaves: it may be another's. `noise` is what rounding does to an
    entry, and `allowed` the most that it may do to each.
    """
    if engine is None or reference is None:
        who, other = ("engine", "reference") if engine is None else ("reference", "engine")
        return Diagnosis("none", f"the {who} gives no gradient (None), the {other} does")
    if engine.shape != reference.shape:
        return _shape(engine, reference, shape)
    if engine.dtype != reference.dtype:
        text = f"the gradient's dtype is {engine.dtype.name}, not {reference.dtype.name}"
        return Diagnosis("dtype", text)
    given: dict[str, Any] = {
        "values": dict(others or {}),
        "leaf": leaf,
        "gradients": dict(gradients or {}),
    }
    given |= {"noise": noise, "allowed": allowed}
    neither = ~np.isfinite(engine) & ~np.isfinite(reference)
    if neither.any():  # of these there is nothing to say
        engine, reference = (np.where(neither, 0, g).astype(g.dtype) for g in (engine, reference))
    seen = Wrong.of(engine, reference, **given)
    odd = ~np.isfinite(engine) & np.isfinite(reference)
    if odd.any():
        return _not_finite(seen, odd)
    if not (np.isfinite(engine) & np.isfinite(reference)).all():
        text = "the reference's gradient is not finite where the engine's is"
        return Diagnosis("not finite", text)
    if seen.size and not engine.any():
        return Diagnosis("zero", "the gradient is zero everywhere, as that of a detached tensor")
    if _of_a_triangle(seen):
        text = f"the gradient is right where {leaf} stays Hermitian, and the right one is that of a"
        return Diagnosis("one triangle", f"{text} function that reads one triangle")
    for pattern in PATTERNS:
        found = pattern(seen)
        if found is not None:
            return found
    if seen.size and seen.error < CLOSE * seen.size:
        text = f"off by {seen.error / seen.size:.1e} of the gradient's scale"
        return Diagnosis("precision floor", text)
    if seen.reference.size == 1 and seen.size:
        by = digits((seen.engine / seen.reference).item())
        text = f"its one entry is {by} times the right one"
        return Diagnosis("wrong", text)
    return Diagnosis("wrong", "no known pattern relates the gradient to the right one")


def _of_a_triangle(seen: Wrong) -> bool:
    """Whether the right gradient of a Hermitian leaf has one triangle, and the same Hermitian part.

    Such pairs of equal entries are no ties.
    """
    value = seen.values.get(seen.leaf)
    if value is None or value.shape != seen.shape or not hermitian(value):
        return False
    right, made = seen.reference, seen.engine
    near = CLOSE * seen.size
    half = any(np.abs(part(right, k)).max() <= near for part, k in ((np.triu, 1), (np.tril, -1)))
    gap = (made + made.mT.conj()) - (right + right.mT.conj())
    return bool(half and np.abs(gap).max() <= near)


def _not_finite(seen: Wrong, odd: Array) -> Diagnosis:
    what = "nan" if np.isnan(seen.engine[odd]).any() else "inf"
    if odd.all():
        return Diagnosis(what, f"the gradient is {what} everywhere")
    text = f"the gradient is {what} in {int(odd.sum())} of {odd.size} entries"
    where = next(conditions(seen, odd, np.ones_like(odd), plain=True), None)
    return Diagnosis(what, f"{text}, exactly where {where.said}" if where is not None else text)


def _shape(engine: Array, reference: Array, shape: tuple[int, ...]) -> Diagnosis:
    text = f"the gradient's shape is {engine.shape}, the leaf's {shape}"
    extra = engine.ndim - len(shape)
    size = float(np.abs(reference).max(initial=0.0))
    if extra >= 0 and engine.size > reference.size:
        axes = tuple(range(extra)) + tuple(
            i + extra for i, n in enumerate(shape) if n == 1 and engine.shape[i + extra] != 1
        )
        summed = engine.sum(axis=axes)
        if summed.size == reference.size:
            gap = np.abs(summed.reshape(shape) - reference).max(initial=0.0)
            if gap <= CLOSE * size:
                text += f": it was not summed over the broadcast axes {list(axes)}"
                return Diagnosis("not reduced over a broadcast dimension", text)
    if sorted(engine.shape) == sorted(shape):
        return Diagnosis("transposed", f"{text}: the same sizes in another order")
    if [n for n in engine.shape if n != 1] == [n for n in shape if n != 1]:
        return Diagnosis("keepdim", f"{text}: axes of size 1 are kept or dropped (keepdim)")
    return Diagnosis("shape", text)


def localise(
    disagreement: Callable[[Array], bool],
    size: int,
    rng: np.random.Generator,
    most: int = MOST,
    weary: Callable[[], bool] = lambda: False,
) -> list[int]:
    """The coordinates at which a linear functional disagrees, by bisection over subsets.

    `disagreement(direction)` says whether a direction (of `size` entries) shows the fault. Each
    subset is tried with a fresh Gaussian draw, and again where no half shows what the whole did. At
    most `most` coordinates are returned; once it is `weary`, all of the subsets that are left.
    """

    def shows(part: Array) -> bool:
        direction = np.zeros(size)
        direction[part] = rng.standard_normal(len(part))
        return disagreement(direction)

    found: list[int] = []
    whole = np.arange(size)
    pending = [whole] if any(shows(whole) for _ in range(TRIES)) else []
    while pending and len(found) < most:
        if weary():
            return sorted([*found, *(int(n) for part in pending for n in part)])
        part = pending.pop()
        if len(part) == 1:
            found.append(int(part[0]))
            continue
        halves = (part[len(part) // 2 :], part[: len(part) // 2])
        for _ in range(TRIES):  # one of the two shows it; a small error may meet a small weight
            showing = [half for half in halves if shows(half)]
            if showing:
                break
        pending += showing
    return sorted(found)


__all__ = ["COTANGENT", "MOST", "NONDETERMINISTIC", "Diagnosis", "diagnose", "localise"]
