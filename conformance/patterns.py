"""The ways to be wrong that are recognised, in the order in which they are tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from conformance.program import Array
from conformance.wrongness import (
    CLOSE,
    VISIBLE,
    Diagnosis,
    Wrong,
    conditions,
    factor,
    named,
    orders,
    slices,
)

COTANGENT = "the cotangent"  # its name among the gradients
AXES = 4  # permutations of more axes than this are not tried
SHIFTS = 16  # nor rolls by more than this
DOUBLE = 1e-15  # an epsilon above is of a narrower dtype
FEW = 20  # one wrong entry in so many is few


def _constant(seen: Wrong) -> Diagnosis | None:
    """One factor for all entries."""
    ratio = factor(seen)
    if ratio is None:
        return None
    name = named(ratio, seen.shape)
    if abs(ratio + 1) < max(CLOSE, seen.rounding / seen.size):
        return Diagnosis("sign", "the gradient has the wrong sign everywhere")
    if seen.reference.size == 1 and name is None:
        return None  # one number is a multiple of any other
    by = digits(ratio)
    by += f" ({name})" if name and name != by else ""
    return Diagnosis("missing factor", f"the gradient is {by} times the right one")


def digits(number: complex) -> str:
    """A factor; one that is close to 1 by its distance. A part that is rounding is left out."""
    if abs(number.imag) > 1e-6 * abs(number):
        return f"{number:.6g}"
    number = number.real
    return f"{number:.6g}" if abs(number - 1) > 1e-5 else f"1 {number - 1:+.3e}"


def _conjugate(seen: Wrong) -> Diagnosis | None:
    if seen.reference.dtype.kind != "c" or not seen.size:
        return None
    right = seen.reference
    forms = (
        ("conjugate", "the gradient is the complex conjugate of the right one", right.conj()),
        ("conjugate", "the gradient is minus the conjugate of the right one", -right.conj()),
        ("imaginary part", "the imaginary part of the gradient is dropped", right.real + 0j),
        ("real part", "the real part of the gradient is dropped", 1j * right.imag),
    )
    for slug, text, made in forms:
        if seen.explained(made.astype(right.dtype)):
            return Diagnosis(slug, text)
    cotangent = seen.gradients.get(COTANGENT)
    if cotangent is None or cotangent.shape != right.shape or not cotangent.all():
        return None
    if seen.explained((cotangent * (right / cotangent).conj()).astype(right.dtype)):
        text = "the cotangent is multiplied by the derivative, and should be by its conjugate"
        return Diagnosis("conjugate", text)
    return None


def _swapped(seen: Wrong) -> Diagnosis | None:
    """The right gradient of another leaf, or the cotangent as it came."""
    for name, other in seen.gradients.items():
        if name != seen.leaf and other is not None and other.size > 1 and seen.explained(other):
            if name == COTANGENT:
                text = "the gradient is the cotangent itself: the derivative is missing"
                return Diagnosis("missing derivative", text)
            return Diagnosis("swapped", f"the gradient is the one that {name} should have")
    return None


def _operand(seen: Wrong) -> Diagnosis | None:
    """The cotangent times a matrix that should have been transposed, or should not."""
    cotangent = seen.gradients.get(COTANGENT)
    if cotangent is None or cotangent.ndim != 2 or cotangent.dtype.kind != "f":
        return None
    for name, value in seen.values.items():
        if name == seen.leaf or value.ndim != 2 or value.dtype.kind != "f":
            continue
        for turned, used, meant in ((value, "", " transposed"), (value.T, " transposed", "")):
            for made, right in (
                ((cotangent, turned), (cotangent, turned.T)),
                ((turned, cotangent), (turned.T, cotangent)),
            ):
                if made[0].shape[1] != made[1].shape[0] or right[0].shape[1] != right[1].shape[0]:
                    continue
                if seen.explained(made[0] @ made[1]) and seen.explained(
                    right[0] @ right[1], beside=seen.reference
                ):
                    text = f"the cotangent is multiplied by {name}{used}"
                    return Diagnosis("transposed", f"{text}, and should be by {name}{meant}")
    return None


def _moved(seen: Wrong) -> Diagnosis | None:
    """The right entries in other places."""
    e, r = seen.engine, seen.reference
    if not seen.size or e.dtype.kind == "c" or seen.wrong.sum() < 2:
        return None
    if np.abs(np.sort(e.reshape(-1)) - np.sort(r.reshape(-1))).max() > seen.tolerance:
        return None
    n = r.ndim
    for first, second in itertools.combinations(range(n), 2):
        if seen.explained(np.swapaxes(r, first, second)):
            text = f"axes {first} and {second} of the gradient are exchanged"
            return Diagnosis("transposed", text)
    for count in range(1, n + 1):
        for axes in itertools.combinations(range(n), count):
            if seen.explained(np.flip(r, axes)):
                along = f"axis {axes[0]}" if count == 1 else f"the axes {list(axes)}"
                return Diagnosis("flipped", f"the gradient is flipped along {along}")
    for axis in range(n):
        for shift in range(1, min(r.shape[axis], SHIFTS)):
            if seen.explained(np.roll(r, shift, axis)):
                text = f"the gradient is rolled by {shift} along axis {axis}"
                return Diagnosis("permuted", text)
    if n <= AXES:
        for order in orders(n):
            if seen.explained(r.transpose(order)):
                return Diagnosis("transposed", f"the axes of the gradient are permuted: {order}")
    if (found := _unsorted(seen)) is not None:
        return found
    places = [tuple(int(i) for i in place) for place in np.argwhere(seen.wrong)]
    if len(places) == 2:
        return Diagnosis("permuted", f"the entries at {places[0]} and {places[1]} are exchanged")
    return Diagnosis("permuted", "the gradient's entries are the right ones in other places")


def _unsorted(seen: Wrong) -> Diagnosis | None:
    """In the order of the sorted input."""
    value = seen.values.get(seen.leaf)
    if value is None or value.shape != seen.shape:
        return None
    for axis, sign in itertools.product(range(value.ndim), (1, -1)):
        order = np.argsort(sign * value, axis, kind="stable")
        back = np.argsort(order, axis, kind="stable")
        for places in (order, back):
            if seen.explained(np.take_along_axis(seen.reference, places, axis)):
                text = f"the gradient is in the order of the sorted {seen.leaf} along axis {axis}"
                return Diagnosis("unsorted", f"{text}, not put back")
    return None


def _conditional(seen: Wrong) -> Diagnosis | None:
    """Wrong exactly where the values meet a condition."""
    visible = seen.wrong | (np.abs(seen.reference) > VISIBLE * seen.size)
    part = seen.part(seen.wrong)
    ratio = factor(part)
    plain = not part.engine.any() or (
        ratio is not None and (part.reference.size > 1 or named(ratio) is not None)
    )
    found = next(conditions(seen, seen.wrong, visible, plain=plain), None)
    if found is None:
        return None
    count = f"{int(seen.wrong.sum())} of {seen.wrong.size} entries"
    text = f"the gradient is wrong exactly where {found.said} ({count}), {_there(seen, seen.wrong)}"
    return Diagnosis(f"only {found.kind}", text)


def _there(seen: Wrong, where: Array) -> str:
    """What some entries are instead of the right ones."""
    part = seen.part(where)
    if not part.engine.any():
        return "and zero there"
    ratio = factor(part)
    if ratio is not None and abs(ratio + 1) < CLOSE:
        return "with the wrong sign there"
    if ratio is not None and (part.reference.size > 1 or named(ratio)):
        name = named(ratio)
        by = f"{ratio.real:.6g}" if not ratio.imag else f"{ratio:.6g}"
        return f"by a factor {by}" + (f" ({name})" if name and name != by else "")
    if part.engine.size > 1 and np.ptp(part.engine.real) == 0 and not part.engine.imag.any():
        return f"where it is {part.engine[0].real:.6g}"
    return f"by up to {part.error / (seen.size or 1.0):.1e} of the gradient's scale"


def _slice(seen: Wrong) -> Diagnosis | None:
    found = slices(seen)
    if found is None:
        return None
    axis, index = found
    text = f"only the slice {index} along axis {axis} is wrong, {_there(seen, seen.wrong)}"
    return Diagnosis("one slice", text)


def _few(seen: Wrong) -> Diagnosis | None:
    count, size = int(seen.wrong.sum()), seen.wrong.size
    if size < 2 or count > max(1, size // FEW):
        return None
    places = [tuple(int(i) for i in place) for place in np.argwhere(seen.wrong)[:4]]
    how = _there(seen, seen.wrong)
    if count == 1:
        text = f"one entry of {size} is wrong, at {places[0]}, {how}"
        return Diagnosis("single entry", text)
    text = f"{count} of {size} entries are wrong, first at {places}, {how}"
    return Diagnosis("few entries", text)


def _rounded(seen: Wrong) -> Diagnosis | None:
    """Computed in a narrower dtype on the way."""
    right = seen.reference
    if seen.eps > DOUBLE or right.size < 2 or not seen.size:
        return None
    off = f"off by {seen.error / seen.size:.1e} of the gradient's scale"
    for narrow in ("float32", "float16"):
        with np.errstate(over="ignore"):
            parts = [part.astype(narrow) for part in (right.real, right.imag)]
        if seen.explained(parts[0] + (1j * parts[1] if right.dtype.kind == "c" else 0.0)):
            return Diagnosis("rounded", f"the gradient is rounded to {narrow}: {off}")
    there = right != 0
    relative = np.abs(seen.engine - right)[there] / np.abs(right[there])
    eps = float(np.finfo(np.float32).eps)
    if relative.size and relative.max() < 8 * eps and np.median(relative) > eps / 16:
        return Diagnosis("rounded", f"every entry is {off}, as by float32 on the way")
    return None


def _floor(seen: Wrong) -> Diagnosis | None:
    """An error that is small beside the gradient, and none of the patterns that follow."""
    if not seen.size or seen.error >= CLOSE * seen.size:
        return None
    for pattern in (_product, _along, _summed, _bias):
        found = pattern(seen)
        if found is not None:
            return found
    return Diagnosis(
        "precision floor", f"off by {seen.error / seen.size:.1e} of the gradient's scale"
    )


def _absolute(seen: Wrong) -> Diagnosis | None:
    if seen.reference.dtype.kind == "c" or seen.reference.size < 3:
        return None
    if seen.explained(np.abs(seen.reference)):
        return Diagnosis("sign", "the gradient is the absolute value of the right one")
    top = float(np.abs(seen.engine).max())
    cut = int((np.abs(seen.reference) > top * (1 + CLOSE)).sum())
    if cut and cut < seen.reference.size and seen.explained(np.clip(seen.reference, -top, top)):
        text = (
            f"the gradient is clipped at {top:.6g}: so are {cut} of {seen.reference.size} entries"
        )
        return Diagnosis("clipped", text)
    return None


def _along(seen: Wrong) -> Diagnosis | None:
    """A factor for each slice along an axis."""
    right, made = seen.reference, seen.engine
    for axis, length in enumerate(seen.shape):
        if length < 2 or right.size < 2 * length:
            continue
        moved, theirs = np.moveaxis(made, axis, 0), np.moveaxis(right, axis, 0)
        rows, whole = moved.reshape(length, -1), theirs.reshape(length, -1)
        power = (np.abs(whole) ** 2).sum(1)
        if (power <= (1e-6 * seen.size) ** 2).any():
            continue
        factors = (rows * whole.conj()).sum(1) / power
        if not seen.explained(
            np.moveaxis(theirs * factors.reshape(-1, *(1,) * (right.ndim - 1)), 0, axis)
        ):
            continue
        shown = ", ".join(_short(f) for f in factors[:6]) + (", ..." if length > 6 else "")
        text = f"each slice along axis {axis} has a factor of its own: {shown}"
        return Diagnosis("factor along an axis", text)
    return None


def _short(number: complex) -> str:
    return f"{number.real:.6g}" if not np.imag(number) else f"{number:.6g}"


def _summed(seen: Wrong) -> Diagnosis | None:
    """A sum, a mean or a centring over an axis that was missed, or that should not be."""
    made, right = seen.engine, seen.reference
    for axis, length in enumerate(seen.shape):
        if length < 2:
            continue
        whole = np.broadcast_to(right.sum(axis=axis, keepdims=True), right.shape)
        for name, form in (("sum", whole), ("mean", whole / length)):
            if seen.explained(form):
                text = f"the gradient is constant along axis {axis}: the {name} of the right one"
                return Diagnosis("summed too much", text)
        ours = np.broadcast_to(made.sum(axis=axis, keepdims=True), made.shape)
        for name, form in (("sum", ours), ("mean", ours / length)):
            if seen.explained(form, right):
                return Diagnosis("missing sum", f"the {name} over axis {axis} was not taken")
        if length > 2 and seen.explained(made - ours / length, right):
            text = f"the mean along axis {axis} was not taken off"
            return Diagnosis("missing centring", text)
        if length > 2 and seen.explained(right - whole / length):
            text = f"the mean along axis {axis} was taken off"
            return Diagnosis("centred too much", text)
        for kind, end in (("sum", False), ("sum from the end", True)):
            if length > 2 and seen.explained(_running(right, axis, end)):
                text = f"the gradient is the running {kind} of the right one along axis {axis}"
                return Diagnosis("running sum", text)
            if length > 2 and seen.explained(_running(made, axis, end), right):
                text = f"the running {kind} along axis {axis} was not taken"
                return Diagnosis("running sum", text)
    return None


def _running(array: Array, axis: int, end: bool) -> Array:
    whole = np.flip(array, axis) if end else array
    summed = np.cumsum(whole, axis)
    return np.asarray(np.flip(summed, axis) if end else summed)


_FORMS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("{}", lambda v: v),
    ("|{}|", np.abs),
    ("the sign of {}", np.sign),
    ("{}^2", np.square),
    ("exp({})", np.exp),
    ("cos({})", np.cos),
    ("sin({})", np.sin),
    ("sqrt({})", np.sqrt),
)


def _product(seen: Wrong) -> Diagnosis | None:
    """Off by one of the Program's inputs, or a function of it, as a factor."""
    if seen.reference.size < 2:
        return None
    for name, form, value in _factors(seen):
        if value.size > seen.reference.size or np.ptp(value) == 0:
            continue
        with np.errstate(all="ignore"):
            try:
                lacks, often = seen.engine * value, seen.reference * value
            except ValueError:
                continue  # shapes that do not broadcast
        if seen.explained(lacks, seen.reference):
            text = f"the gradient lacks the factor {form.format(name)}"
        elif seen.explained(often):
            text = f"the gradient has the factor {form.format(name)} too often"
        else:
            continue
        return Diagnosis("missing factor", text)
    return None


def _factors(seen: Wrong) -> Iterator[tuple[str, str, Array]]:
    for form, function in _FORMS:
        for name, value in seen.values.items():
            if value.dtype.kind == "f" and value.size:
                with np.errstate(all="ignore"):
                    yield name, form, function(value)


def _bias(seen: Wrong) -> Diagnosis | None:
    """The same number added everywhere, or along an axis."""
    gap = seen.engine - seen.reference
    if gap.size < 2 or gap.dtype.kind == "c":
        return None
    near = max(seen.tolerance, CLOSE * float(np.abs(gap).max(initial=0.0)))
    if np.ptp(gap) <= near:
        return Diagnosis("bias", f"every entry is off by {float(gap.reshape(-1)[0]):.6g}")
    for axis, length in enumerate(seen.shape):
        if length > 2 and gap.size > length and (np.ptp(gap, axis=axis) <= near).all():
            text = f"along axis {axis} every entry is off by the same number"
            return Diagnosis("bias along an axis", text)
    return None


PATTERNS: tuple[Callable[[Wrong], Diagnosis | None], ...] = (
    _constant,
    _conjugate,
    _moved,
    _swapped,
    _operand,
    _conditional,
    _slice,
    _few,
    _rounded,
    _floor,
    _absolute,
    _product,
    _along,
    _summed,
    _bias,
)
