"""The ops, one module a family; importing this gives Tensor its methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refgrad.ops import (
    activations,
    adaptive,
    alignment,
    attention,
    casting,
    class_losses,
    comparison,
    complexes,
    convolution,
    counting,
    determinants,
    differences,
    distances,
    dropping,
    elementary,
    embeddings,
    extrema,
    extremes,
    factorisations,
    fourier,
    grids,
    indexing,
    inplace,
    joining,
    least_squares,
    likelihoods,
    linear,
    losses,
    matrices,
    matrix_norms,
    moments,
    normalisation,
    norms,
    numbered_losses,
    operators,
    ordered,
    padding,
    pointwise,
    pooling,
    products,
    protocol,
    recurrent,
    reductions,
    reflections,
    resizing,
    scans,
    scattering,
    shaping,
    softmax,
    solving,
    sorting,
    special_functions,
    spectra,
    spectrograms,
    triangles,
    windows,
)
from refgrad.ops.op import INPLACE, METHODS
from refgrad.tensor import Tensor

__all__ = [
    "activations",
    "adaptive",
    "alignment",
    "attention",
    "casting",
    "class_losses",
    "comparison",
    "complexes",
    "convolution",
    "counting",
    "determinants",
    "differences",
    "distances",
    "dropping",
    "elementary",
    "embeddings",
    "extrema",
    "extremes",
    "factorisations",
    "fourier",
    "grids",
    "indexing",
    "inplace",
    "joining",
    "least_squares",
    "likelihoods",
    "linear",
    "losses",
    "matrices",
    "matrix_norms",
    "moments",
    "normalisation",
    "norms",
    "numbered_losses",
    "ordered",
    "padding",
    "pointwise",
    "pooling",
    "products",
    "protocol",
    "recurrent",
    "reductions",
    "reflections",
    "resizing",
    "scans",
    "scattering",
    "shaping",
    "softmax",
    "solving",
    "sorting",
    "special_functions",
    "spectra",
    "spectrograms",
    "triangles",
    "windows",
]


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


for _name, _function in METHODS.items():
    if not hasattr(Tensor, _name):
        setattr(Tensor, _name, _method(_function))
for _name, _function in INPLACE.items():
    if not hasattr(Tensor, f"{_name}_"):
        setattr(Tensor, f"{_name}_", inplace.of(_function))

operators.attach()
