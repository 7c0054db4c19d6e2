"""One computation on both engines: its results and gradients, as arrays to compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import refgrad

Run = Callable[..., Any]


def run(module: Any, function: Run, *inputs: Any, order: int = 1) -> list[np.ndarray]:
    """function(module, *tensors): its value, then the gradients of its sum up to `order`."""
    tensors = [module.from_numpy(np.array(x, dtype=np.float64)).requires_grad_() for x in inputs]
    out = function(module, *tensors)
    found = [out.detach().numpy()]
    for _ in range(order):
        gradients = module.autograd.grad(out.sum(), tensors, create_graph=True, allow_unused=True)
        gradients = [t * 0 if g is None else g for g, t in zip(gradients, tensors, strict=True)]
        found += [g.detach().numpy(force=True) for g in gradients]
        out = sum((g.sum() * (i + 1.0) for i, g in enumerate(gradients)), tensors[0].sum() * 0)
    return found


def assert_same(function: Run, *inputs: Any, order: int = 1, rtol: float = 1e-9) -> None:
    """Both engines give the same value and gradients; nan equals nan."""
    ours = run(refgrad, function, *inputs, order=order)
    theirs = run(torch, function, *inputs, order=order)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13)


def assert_same_error(function: Run, *inputs: Any) -> None:
    """Both engines raise, and errors of one class."""
    raised = []
    for module in (torch, refgrad):
        try:
            run(module, function, *inputs)
        except Exception as error:
            raised.append(error)
    assert len(raised) == 2, raised
    classes = (RuntimeError, IndexError, TypeError, ValueError)
    assert isinstance(raised[1], tuple(c for c in classes if isinstance(raised[0], c)))
