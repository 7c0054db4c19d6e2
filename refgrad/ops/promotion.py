"""The dtype that operands have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.libraries import beside
from refgrad.tensor import Tensor

_SCALARS = frozenset((bool, int, float, complex))


def promote(operands: Sequence[Any], floats: bool = False) -> list[Any]:
    """The operands (Tensors, arrays, Python numbers) in the dtype that PyTorch's promotion gives.

    Raises:
        TypeError: an operand is none of these.
    """
    described = []
    values = []
    for v in operands:
        if isinstance(v, np.generic):
            v = v.item()
        if type(v) in _SCALARS:
            described.append((dtypes.PYTHON_TYPES[type(v)], dtypes.SCALAR))
        else:
            array = v._array if isinstance(v, Tensor) else v
            if not hasattr(array, "dtype"):
                raise TypeError(f"expected a Tensor or a number, not {type(v).__name__}")
            category = dtypes.DIMENSIONED if array.ndim else dtypes.ZERO_DIM
            described.append((dtypes.from_numpy(array.dtype), category))
        values.append(v)
    if not described:
        return values
    target = dtypes.result_type(*described)
    if floats and not (target.is_floating_point or target.is_complex):
        target = dtypes.get_default_dtype()
    to = target.numpy
    made = []
    lonely = all(category is dtypes.SCALAR for _, category in described)
    for v in values:
        if type(v) in _SCALARS:
            weak = not lonely and to.kind in "fc" and type(v) is not complex
            made.append(v if weak else beside(np.asarray(v).astype(to), _first(operands)))
        elif isinstance(v, Tensor):
            made.append(v if v._array.dtype == to else v.to(target))
        else:
            made.append(v if v.dtype == to else v.astype(to))
    return made


def _first(operands: Sequence[Any]) -> Any:
    """An operand that is no number; None where all are."""
    return next((v for v in operands if type(v) not in _SCALARS), None)
