"""HIPS autograd: NumPy with a tape."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from conformance.bench.engine import Prepared
from conformance.bench.engines import numpy_names
from conformance.bench.engines.found import missing, on_cpu, version
from conformance.bench.engines.functional import Functional, problem
from conformance.bench.workload import Workload
from conformance.errors import Unsupported


class Autograd:
    """HIPS autograd, with `make_vjp` over all leaves at once."""

    name = "autograd"

    def available(self, device: str) -> str | None:
        """None on the CPU where it is installed."""
        return on_cpu(device) or missing("autograd")

    def versions(self) -> dict[str, str]:
        """autograd's, and NumPy's beneath."""
        return version("autograd", "numpy")

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """The Program in autograd.numpy's words."""
        make_vjp = importlib.import_module("autograd").make_vjp

        def vjp(function: Callable[..., Any], leaves: Sequence[Any]) -> Any:
            back, value = make_vjp(function, tuple(range(len(leaves))))(*leaves)
            return value, back

        found = problem(workload, size, _functions(), lambda array: array, vjp)
        return Functional(found, vjp, lambda results: None)


def _functions() -> dict[str, Callable[..., Any]]:
    """NumPy's names, erf and convolve from autograd.scipy, and pooling as a reshape."""
    xp = importlib.import_module("autograd.numpy")
    erf = importlib.import_module("autograd.scipy.special").erf
    convolve = importlib.import_module("autograd.scipy.signal").convolve

    def convolved(
        x: Any, weight: Any, bias: Any = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        dims = x.ndim - 2
        steps, widths, gaps = (
            (n,) * dims if isinstance(n, int) else tuple(n) for n in (stride, padding, dilation)
        )
        if groups != 1 or set(gaps) != {1}:
            raise Unsupported("autograd.scipy.signal.convolve has no groups and no dilation")
        x = xp.pad(x, [(0, 0), (0, 0), *((n, n) for n in widths)], "constant")
        axes = list(range(2, x.ndim))
        flipped = weight[(slice(None), slice(None), *(slice(None, None, -1),) * dims)]
        y = convolve(x, flipped, axes=[axes, axes], dot_axes=[[1], [1]], mode="valid")
        y = y[(slice(None), slice(None), *(slice(None, None, n) for n in steps))]
        return y if bias is None else y + xp.reshape(bias, (1, -1) + (1,) * dims)

    own: dict[str, Callable[..., Any]] = {
        "torch.no_grad": nullcontext,
        "torch.nn.functional.gelu": lambda x: x * (0.5 + 0.5 * erf(x * np.float32(0.5**0.5))),
        "torch.nn.functional.conv1d": convolved,
        "torch.nn.functional.conv2d": convolved,
        "torch.nn.functional.max_pool2d": lambda x, side: numpy_names.pooled(xp, x, side, xp.max),
        "torch.nn.functional.avg_pool2d": lambda x, side: numpy_names.pooled(xp, x, side, xp.mean),
    }
    return numpy_names.functions(xp) | own
