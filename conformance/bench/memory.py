"""How much memory a forward and backward take, each engine by what can be counted of it.

`peak` is the most that was in use above what was there before; `held` is what the forward leaves
for the backward: its result, the graph and what was saved. Gradients are None before, so they are
part of the peak. Each figure is kept under the way in which it was counted:

- "resident": the process's resident set (Linux), after free pages were given back and its
  high-water mark was reset. It sees everything, whoever allocated it, but for what fits into
  memory that an allocator keeps (as Python's does for small objects), so it is a lower bound, and
  figures below a MiB are left out.
- "traced": tracemalloc, which NumPy reports its arrays to. Exact at any size, for the engines that
  are Python and NumPy. Bytes that other libraries allocate are not seen. Reports take the larger
  of the two.
- "torch" and "cupy": the counters of these libraries on a GPU. JAX cannot reset its own.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from conformance.bench.engine import Prepared
from conformance.errors import Unsupported

NUMPY_ENGINES = frozenset({"refgrad", "mygrad", "autograd"})
LEAST_RESIDENT = 1 << 20  # bytes

Figures = dict[str, int | None]


def on_host(engine: str, prepared: Prepared) -> dict[str, Figures]:
    """The figures of one engine, by the way of counting."""
    found: dict[str, Figures] = {}
    resident = _resident(prepared)
    if resident is not None:
        found["resident"] = resident
    if engine in NUMPY_ENGINES:
        found["traced"] = _traced(prepared)
    return found


def on_cuda(engine: str, prepared: Prepared) -> dict[str, Figures]:
    """The figures of one engine on a GPU; none where the engine cannot be counted."""
    if engine.startswith("torch"):
        return {"torch": _by_torch(prepared)}
    if engine == "refgrad":
        return {"cupy": _by_cupy(prepared)}
    return {}


def run_counted(prepared: Prepared, in_use: Callable[[], int]) -> int | None:
    """Run forward and backward; what is held between them, None where they are not apart."""
    before = in_use()
    try:
        made = prepared.forward()
    except Unsupported:
        prepared.step()
        return None
    prepared.synchronize()
    held = in_use() - before
    apart = _runs(functools.partial(prepared.backward, made))
    del made
    if not apart:
        prepared.step()
    prepared.synchronize()
    return max(0, held)


def _runs(call: Callable[[], object]) -> bool:
    """Whether a call is supported; when this returns, nothing holds what it was given."""
    try:
        call()
    except Unsupported:
        return False
    return True


def _resident(prepared: Prepared) -> Figures | None:
    _fresh(prepared)
    _trim()
    if not _reset_high_water():
        return None
    before = _status("VmRSS")
    held = run_counted(prepared, lambda: _status("VmRSS"))
    peak = _status("VmHWM") - before
    prepared.clear()
    return {"peak": _seen(peak), "held": _seen(held)}


def _seen(figure: int | None) -> int | None:
    return figure if figure is not None and figure >= LEAST_RESIDENT else None


def _traced(prepared: Prepared) -> Figures:
    _fresh(prepared)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        held = run_counted(prepared, lambda: tracemalloc.get_traced_memory()[0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    prepared.clear()
    return {"peak": peak - before, "held": held}


def _by_torch(prepared: Prepared) -> Figures:
    import torch

    _fresh(prepared)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    held = run_counted(prepared, torch.cuda.memory_allocated)
    peak = torch.cuda.max_memory_allocated() - before
    prepared.clear()
    return {"peak": peak, "held": held}


def _by_cupy(prepared: Prepared) -> Figures:
    cupy: Any = importlib.import_module("cupy")
    _fresh(prepared)
    pool = cupy.get_default_memory_pool()
    before = most = pool.used_bytes()

    class Watch(cupy.cuda.MemoryHook):
        """Sees each allocation from the pool."""

        name = "conformance"

        def malloc_postprocess(self, **_: Any) -> None:
            nonlocal most
            most = max(most, pool.used_bytes())

    watch: AbstractContextManager[Any] = Watch()
    with watch:
        held = run_counted(prepared, pool.used_bytes)
    prepared.clear()
    return {"peak": most - before, "held": held}


def _fresh(prepared: Prepared) -> None:
    prepared.clear()
    gc.collect()
    prepared.synchronize()


def _trim() -> None:
    """Give free pages back, so that what is taken next is seen; only glibc can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def _reset_high_water() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
