"""Dropout: masks drawn at random, with what is kept scaled up."""

from __future__ import annotations

from typing import Any

import numpy as np

from refgrad.generator import default_generator
from refgrad.libraries import beside
from refgrad.ops.composites import composite
from refgrad.ops.placing import constant
from refgrad.tensor import wrap

__all__ = ["alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout", "native_dropout"]

_SATURATION = 1.7580993408473766  # minus SELU's value at minus infinity


def uniform_like(input: Any, shape: Any) -> Any:
    """Random numbers in [0, 1) of the dtype of `input`."""
    drawn = default_generator.numpy.random(shape)
    return wrap(drawn.astype(input.dtype.numpy))


def _kept(input: Any, p: float, features: bool) -> Any:
    """Which elements (or channels) stay: an array of 0 and 1 that broadcasts against `input`."""
    shape = tuple(input.shape)
    if features:
        if len(shape) < 2:
            raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
        shape = shape[:2] + (1,) * (len(shape) - 2)
    return beside(default_generator.numpy.random(shape) >= p, input)


def _drop(input: Any, p: float, train: bool, features: bool, alpha: bool) -> Any:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if p == 0 or not train or input.numel() == 0:
        return input
    if p == 1:
        return input * constant(np.zeros((), dtype=input.dtype.numpy), input)
    kept = _kept(input, p, features)
    dtype = input.dtype.numpy
    if not alpha:
        return input * wrap((kept / (1 - p)).astype(dtype))
    # what is dropped goes to SELU's saturation; a and b restore mean 0 and variance 1
    a = 1 / np.sqrt((_SATURATION**2 * p + 1) * (1 - p))
    b = (kept.astype(dtype) - 1.0) * _SATURATION * a + _SATURATION * a * p
    return input * wrap((kept * a).astype(dtype)) + wrap(b.astype(dtype))


def _dropped(input: Any, p: float, train: bool, inplace: bool, features: bool, alpha: bool) -> Any:
    if not inplace:
        return _drop(input, p, train, features, alpha)
    input.check_writable()
    return input.become(_drop(input.snapshot(), p, train, features, alpha))


@composite(method=False)
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """`input` with each element zeroed with probability `p`, and the others divided by 1 - p.

    Raises:
        ValueError: `p` is no probability.
    """
    return _dropped(input, p, training, inplace, False, False)


@composite(method=False)
def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Dropout that keeps mean 0 and variance 1, for SELU networks."""
    return _dropped(input, p, training, inplace, False, True)


@composite(method=False)
def feature_dropout(
    input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    """Dropout of whole channels of (N, C, *)."""
    return _dropped(input, p, training, inplace, True, False)


@composite(method=False)
def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Any:
    """Alpha dropout of whole channels of (N, C, *)."""
    return _dropped(input, p, training, inplace, True, True)


@composite(method=False)
def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Dropout of whole channels of (N, C, L) or (C, L).

    Raises:
        RuntimeError: `input` has other dimensions.
    """
    if input.ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input."
        )
    if input.ndim == 3:
        return feature_dropout(input, p, training, inplace)
    if inplace:
        input.check_writable()
        return input.become(feature_dropout(input.snapshot()[None], p, training)[0])
    return feature_dropout(input[None], p, training)[0]


@composite(method=False)
def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Dropout of whole channels of (N, C, H, W); the second dimension of a 3D input is the channel."""
    return feature_dropout(input, p, training, inplace)


@composite(method=False)
def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Dropout of whole channels of (N, C, D, H, W), or of (C, D, H, W)."""
    if input.ndim != 4:
        return feature_dropout(input, p, training, inplace)
    if inplace:
        input.check_writable()
        return input.become(feature_dropout(input.snapshot()[None], p, training)[0])
    return feature_dropout(input[None], p, training)[0]


@composite(method=False)
def native_dropout(input: Any, p: float, train: bool | None) -> Any:
    """Dropout, and the mask of what was kept."""
    if train is False or p == 0 or input.numel() == 0:
        return input.clone(), wrap(np.ones_like(input._array, dtype=bool))
    if p == 1:
        return input * 0.0, wrap(np.zeros_like(input._array, dtype=bool))
    kept = _kept(input, p, False)
    return input * wrap((kept / (1 - p)).astype(input.dtype.numpy)), wrap(kept)


@composite(method=False)
def gumbel_softmax(
    logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Any:
    """softmax((logits + Gumbel noise) / tau); `hard` gives one-hot vectors with its gradient."""
    noise = -np.log(default_generator.numpy.standard_exponential(logits.shape))
    soft = ((logits + constant(noise.astype(logits.dtype.numpy), logits)) / tau).softmax(dim)
    if not hard:
        return soft
    greatest = np.argmax(soft._array, axis=dim, keepdims=True)
    one_hot = np.zeros_like(soft._array)
    np.put_along_axis(one_hot, greatest, 1.0, axis=dim)
    return wrap(one_hot) - soft.detach() + soft
