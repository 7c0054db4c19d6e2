"""What needs an order among numbers, as rounding does: complex ones have none, and are refused."""

from __future__ import annotations

from refgrad.ops import (
    activations,
    adaptive,
    comparison,
    counting,
    elementary,
    extrema,
    extremes,
    pointwise,
    pooling,
    scans,
    sorting,
)

ORDERED = (
    comparison.lt, comparison.le, comparison.gt, comparison.ge, comparison.signbit,
    comparison.isposinf, comparison.isneginf,
    extremes.maximum, extremes.minimum, extremes.fmax, extremes.fmin, extremes.clamp,
    extremes.ceil, extremes.floor, extremes.trunc, extremes.frac, extremes.round,
    extrema.amax, extrema.amin, extrema._max, extrema._min, extrema.argmax, extrema.argmin,
    sorting.order, sorting._kth, sorting._middle, sorting._mode, scans._leaders, counting.histc,
    pointwise.sign, pointwise.heaviside, pointwise.copysign, pointwise.nextafter,
    pointwise.floor_divide, pointwise.remainder, pointwise.fmod, pointwise._floor_div,
    pointwise._trunc_div, elementary.atan2, elementary.hypot,
    activations.relu.op, activations.threshold.op, activations.hardtanh.op,
    activations.leaky_relu.op, activations.hardsigmoid.op, activations.hardswish.op,
    activations.softshrink, activations.hardshrink, activations._prelu, activations._elu,
    activations.softplus,
    pooling.maximum, adaptive.bin_maximum, adaptive.fractional_maximum,
)  # fmt: skip

for _op in ORDERED:
    _op.reals()
