"""The reference's gradient, and how far rounding alone can move it.

Two right implementations of an ill-conditioned function differ by more than any fixed tolerance.
How far is measured: the reference's gradient at inputs that are changed by an epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from conformance.oracles.pairs import flat
from conformance.program import Array, Program, Values, layout

Gradients = Mapping[str, Array | None]

DRAWS = 6
APART = 8  # inputs that are perturbed one by one, twice each
SPREADS = 16.0  # a right gradient lies within this many spreads (NUMERICS: false alarms 4e-4)
SWITCH = 1e-4  # a change above this part of the leaf's scale is a switch, not rounding


def perturbed(
    program: Program,
    values: Values,
    rng: np.random.Generator,
    epsilons: float = 1.0,
    only: str | None = None,
) -> Values:
    """The values with every float changed by so many epsilons of its dtype, times a Gaussian.

    With `only` those of that input.
    """
    fresh = layout(program.inputs, values)
    for i in program.inputs:
        array = fresh[i.name]
        if array.dtype.kind in "fc" and only in (None, i.name):
            eps = epsilons * float(np.finfo(array.dtype).eps)
            change = np.asarray(1 + eps * rng.standard_normal(array.shape))
            with np.errstate(all="ignore"):
                array *= change.astype(array.real.dtype)
    return fresh


def spread(
    gradients: Callable[[Values], Gradients],
    program: Program,
    values: Values,
    reference: Gradients,
    rng: np.random.Generator,
    natural: Mapping[str, float] | None = None,
) -> dict[str, Array]:
    """For each leaf the largest change of each entry (of real and imaginary parts) when perturbed.

    `gradients` is the reference's gradient as a function of the values. An entry counts at least
    the leaf's median; a jump (a switch that the perturbation flips) counts nothing. Where nothing
    else is seen an input may be what switches, as a target that is 1 or -1: each is then perturbed
    alone. `natural` has the size that a leaf's gradient has before its terms cancel.
    """
    largest = {n: np.zeros(flat(g).shape) for n, g in reference.items() if g is not None}

    def look(only: str | None) -> None:
        found = gradients(perturbed(program, values, rng, only=only))
        for name, most in largest.items():
            base, other = reference[name], found.get(name)
            if base is None or other is None or other.shape != base.shape:
                continue
            with np.errstate(all="ignore"):
                change = np.abs(flat(other) - flat(base))
                limit = SWITCH * max(scale(base), (natural or {}).get(name, 0.0))
            change = np.where(np.isfinite(change) & (change <= limit), change, 0.0)
            np.maximum(most, change, out=most)

    for _ in range(DRAWS):
        look(None)
    floating = [i.name for i in program.inputs if values[i.name].dtype.kind in "fc"]
    if len(floating) > 1 and not any(map(np.any, largest.values())):
        for name in floating[:APART]:
            look(name)
            look(name)
    return {n: np.maximum(m, np.median(m)) if m.size else m for n, m in largest.items()}


def scale(array: Array) -> float:
    """The largest finite magnitude."""
    numbers = np.abs(flat(array))
    largest = float(np.maximum.reduce(numbers, initial=0.0))
    if math.isfinite(largest):
        return largest
    return float(numbers[np.isfinite(numbers)].max(initial=0.0))
