"""Run the same code under torch and under refgrad, and hold one to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import refgrad


def leaf(t: Any, *values: float) -> Any:
    """Numbers in float64 that require grad, as a tensor of the module `t`."""
    return t.tensor(values, dtype=t.float64, requires_grad=True)


def plain(value: Any) -> Any:
    """What code returned, without tensors: arrays, and what only names a type as its name."""
    if isinstance(value, (torch.Tensor, refgrad.Tensor)):
        return value.detach().numpy().copy()
    if isinstance(value, (torch.Size, refgrad.Size)):
        return ("size", *value)
    if isinstance(value, (torch.dtype, refgrad.dtype)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert that two plain results agree: structure, shapes, dtypes, and values to rounding."""
    if isinstance(theirs, np.ndarray):
        assert isinstance(ours, np.ndarray)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        tolerance = 1e-12 if theirs.dtype in (np.float64, np.complex128) else 1e-5
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    elif isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for k in theirs:
            assert_same(ours[k], theirs[k])
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)


def both(code: Callable[[Any], Any]) -> Any:
    """Run `code(module)` under both; assert that the results agree, and return refgrad's."""
    theirs = plain(code(torch))
    ours = code(refgrad)
    assert_same(plain(ours), theirs)
    return ours


def both_raise(code: Callable[[Any], Any], *, match: str) -> None:
    """Assert that `code(module)` raises under both: one class, and `match` in both messages."""
    with pytest.raises(Exception, match=match) as theirs:
        code(torch)
    with pytest.raises(Exception, match=match) as ours:
        code(refgrad)
    assert issubclass(ours.type, theirs.type), (ours.type, theirs.type)
