"""JAX, call by call as NumPy runs, and compiled as a whole by jit."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from conformance.bench.engine import Prepared
from conformance.bench.engines import numpy_names
from conformance.bench.engines.found import missing, version, warmed, within
from conformance.bench.engines.functional import Functional, Problem, problem
from conformance.bench.workload import Workload
from conformance.errors import Unsupported
from conformance.program import Array

MOST_CALLED = 20_000  # nodes: some 50 us each
MOST_COMPILED = 1_500  # nodes that jit is asked to compile: some 10 ms each
_ONE_CALL = "jit compiles forward and backward as one call"


class Jax:
    """JAX without jit: each primitive is dispatched on its own, and compiled when first met."""

    name = "jax"

    def available(self, device: str) -> str | None:
        """None where jax is installed and sees the device."""
        reason = missing("jax")
        if reason is None and device != "cpu":
            try:
                _jax().devices(device)
            except RuntimeError as error:
                return f"jax sees no {device} device: {str(error).splitlines()[0]}"
        return reason

    def versions(self) -> dict[str, str]:
        """jax's and its compiler's."""
        return version("jax", "jaxlib")

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """The Program in jax.numpy's words, its arrays on the device."""
        within(workload, size, MOST_CALLED)
        wait = _jax().block_until_ready
        return warmed(Functional(_problem(workload, size, device), _vjp, wait))


class JaxJit(Jax):
    """JAX with jit: forward and backward are one compiled call, and nothing else is timed."""

    name = "jax.jit"

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """Compiled for the device; Unsupported beyond the nodes that XLA is given."""
        within(workload, size, MOST_COMPILED)
        return warmed(_Jitted(_problem(workload, size, device)))


class _Jitted(Functional):
    def __init__(self, problem: Problem) -> None:
        jax = _jax()
        super().__init__(problem, _vjp, jax.block_until_ready)

        def both(constants: Any, leaves: Any, seed: Any) -> Any:
            value, back = _vjp(problem.bound(constants), leaves)
            return value, back(seed)

        self._call = jax.jit(both)
        self._constants = problem.constants

    def forward(self) -> Any:
        raise Unsupported(_ONE_CALL)

    def backward(self, made: Any) -> None:
        raise Unsupported(_ONE_CALL)

    def step(self) -> Any:
        self._value, self._found = self._call(self._constants, self._leaves, self._seed)
        return self._value


def _jax() -> Any:
    """The module, told to keep float64, not to round products to TF32, and to share the GPU."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")  # on a GPU it would be TF32
    return jax


def _vjp(function: Callable[..., Any], leaves: Sequence[Any]) -> Any:
    return _jax().vjp(function, *leaves)


def _problem(workload: Workload, size: int, device: str) -> Problem:
    jax = _jax()
    where = jax.devices(device)[0]

    def place(array: Array) -> Any:
        narrow = array.astype(np.int32) if array.dtype == np.int64 else array  # JAX's own integers
        return jax.device_put(narrow, where)

    return problem(workload, size, _functions(jax), place, _vjp)


def _functions(jax: Any) -> dict[str, Callable[..., Any]]:
    """NumPy's names, and what JAX has beyond: activations, convolutions, scatter."""
    jnp, lax, nn = jax.numpy, jax.lax, jax.nn
    own = {
        "torch.no_grad": nullcontext,
        "torch.relu": nn.relu,
        "torch.rsqrt": lax.rsqrt,
        "torch.sigmoid": nn.sigmoid,
        "torch.nn.functional.gelu": lambda x: nn.gelu(x, approximate=False),
        "torch.nn.functional.log_softmax": lambda x, dim: nn.log_softmax(x, dim),
        "torch.nn.functional.silu": nn.silu,
        "torch.nn.functional.softmax": lambda x, dim: nn.softmax(x, dim),
        "torch.nn.functional.softplus": nn.softplus,
        "torch.nn.functional.conv1d": lambda *a, **k: _convolved(lax, 1, *a, **k),
        "torch.nn.functional.conv2d": lambda *a, **k: _convolved(lax, 2, *a, **k),
        "torch.nn.functional.max_pool2d": lambda x, side: _pooled(lax, x, -jnp.inf, lax.max, side),
        "torch.nn.functional.avg_pool2d": lambda x, side: (
            _pooled(lax, x, 0.0, lax.add, side) / side**2
        ),
        "torch.scatter_add": lambda x, dim, ids, y: _scattered(jnp, x, dim, ids, y),
    }
    return numpy_names.functions(jnp) | own


def _convolved(
    lax: Any, dims: int, x: Any, weight: Any, bias: Any = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    stride, padding, dilation = (
        (n,) * dims if isinstance(n, int) else tuple(n) for n in (stride, padding, dilation)
    )
    y = lax.conv_general_dilated(
        x,
        weight,
        stride,
        [(n, n) for n in padding],
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.reshape((1, -1) + (1,) * dims)


def _pooled(lax: Any, x: Any, start: float, operation: Any, side: int) -> Any:
    window = (1, 1, side, side)
    return lax.reduce_window(x, np.asarray(start, x.dtype), operation, window, window, "VALID")


def _scattered(jnp: Any, x: Any, dim: int, ids: Any, y: Any) -> Any:
    if dim != 0 or x.ndim != 2:
        raise Unsupported("scatter_add is mapped for the rows of a matrix alone")
    return x.at[ids, jnp.arange(x.shape[1])].add(y)
