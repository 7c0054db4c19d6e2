"""What the machine can do at most, measured in the session itself, at its start and at its end.

- copy: bytes a second of copying an array that no cache holds, bytes read and written counted.
- gemm: operations a second of a square matrix product, by dtype.
- call: seconds of the cheapest call, an addition of 8 floats into an array that is there.

Each is the best of several, by each library that has it: a roof is what nothing passes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

DTYPES = ("float32", "float64")
COPIED = 128 << 20  # bytes, more than a last-level cache
GEMM = 1024
CUDA_COPIED = 1 << 30
CUDA_GEMM = 4096
SECONDS = 0.15  # for each figure
SMALL_CALLS = 200

Roofs = dict[str, Any]


def on_host() -> Roofs:
    """The roofs of the CPU at the present number of threads, by NumPy and by torch."""
    import numpy as np
    import torch

    source = np.ones(COPIED // 8)
    target = np.empty_like(source)
    source_t, target_t = torch.from_numpy(source), torch.from_numpy(target)
    copy = {
        "numpy": _rate(2 * COPIED, lambda: np.copyto(target, source)),
        "torch": _rate(2 * COPIED, lambda: target_t.copy_(source_t)),
    }
    gemm: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        a = np.random.default_rng(0).standard_normal((GEMM, GEMM)).astype(dtype)
        out = np.empty_like(a)
        a_t, out_t = torch.from_numpy(a), torch.from_numpy(out)
        by_numpy = lambda a=a, out=out: np.matmul(a, a, out=out)
        by_torch = lambda a=a_t, out=out_t: torch.matmul(a, a, out=out)
        gemm[dtype] = {
            "numpy": _rate(2 * GEMM**3, by_numpy),
            "torch": _rate(2 * GEMM**3, by_torch),
        }
    x, y = np.ones(8, np.float32), np.ones(8, np.float32)
    x_t, y_t = torch.from_numpy(x), torch.from_numpy(y)
    call = {
        "numpy": _small(lambda: np.add(x, x, out=y)),
        "torch": _small(lambda: torch.add(x_t, x_t, out=y_t)),
    }
    return {"copy": copy, "gemm": gemm, "call": call}


def on_cuda() -> Roofs:
    """The roofs of the GPU by torch: device copy, GEMM (no TF32 unless torch was told), a call."""
    import torch

    wait = torch.cuda.synchronize
    source = torch.ones(CUDA_COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    copy = {"torch": _rate(2 * CUDA_COPIED, lambda: target.copy_(source), wait)}
    gemm: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        a = torch.randn(CUDA_GEMM, CUDA_GEMM, dtype=getattr(torch, dtype), device="cuda")
        out = torch.empty_like(a)
        product = lambda a=a, out=out: torch.matmul(a, a, out=out)
        gemm[dtype] = {"torch": _rate(2 * CUDA_GEMM**3, product, wait)}
    x = torch.ones(8, device="cuda")
    y = torch.empty_like(x)

    def one() -> None:
        torch.add(x, x, out=y)
        wait()

    return {"copy": copy, "gemm": gemm, "call": {"torch": _small(one)}}


def best(measured: Iterable[Roofs], dtype: str) -> dict[str, float]:
    """The roofs of a dtype over all that was measured: copy and gemm in 1/s, call in s."""
    measured = list(measured)
    if not measured:
        return {}
    return {
        "copy": max(value for roofs in measured for value in roofs["copy"].values()),
        "gemm": max(value for roofs in measured for value in roofs["gemm"][dtype].values()),
        "call": min(value for roofs in measured for value in roofs["call"].values()),
    }


def _rate(
    amount: float, call: Callable[[], object], wait: Callable[[], None] | None = None
) -> float:
    """`amount` over the shortest time of a call, after one that does not count."""
    call()
    if wait is not None:
        wait()
    shortest = float("inf")
    until = time.perf_counter() + SECONDS
    while True:
        start = time.perf_counter()
        call()
        if wait is not None:
            wait()
        end = time.perf_counter()
        shortest = min(shortest, end - start)
        if end >= until:
            return float(f"{amount / shortest:.4g}")


def _small(call: Callable[[], object]) -> float:
    """Seconds of a call that is over at once: the least mean of some hundred."""
    means = []
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(SMALL_CALLS):
            call()
        means.append((time.perf_counter() - start) / SMALL_CALLS)
    return float(f"{statistics.quantiles(means, n=10)[0]:.4g}")
