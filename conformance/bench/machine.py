"""The machine of a session: threads, which are set, and everything else, which is written down."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from conformance.environment import environment

# Read by libraries when they are imported. A busy neighbour makes threads that spin up to ten times
# slower, so they sleep.
_FOR_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # the size of XLA's pool
)
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
_FLAGS = (
    "MALLOC_", "PYTHONMALLOC", "LD_PRELOAD", "XLA_", "JAX_", "TORCH", "CUDA_", "CUPY_", "OPENBLAS_",
    "CONFORMANCE_",
)  # fmt: skip
# Which kernels OpenBLAS is to use, in place of the processor's own: set for the sake of some old
# build of it, they take half of the speed of a new one, as NumPy's is, and nothing of another BLAS.
_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_POOL = ("internal_api", "version", "num_threads", "architecture")
_SET_ASIDE = "CONFORMANCE_SET_ASIDE"


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(
    threads: int,
    device: str,
    env: MutableMapping[str, str] = os.environ,
    *,
    keep_kernels: bool = False,
) -> str:
    """Set the variables that libraries read when they are imported; call it before that.

    OpenBLAS gets the processor's own kernels, unless those that are set are to be kept; what was
    set is returned, and stands in the environment as CONFORMANCE_SET_ASIDE.
    """
    aside = "" if keep_kernels else " ".join(f"{n}={env.pop(n)}" for n in _KERNELS if n in env)
    if aside:
        env[_SET_ASIDE] = aside
    for name in _FOR_THREADS:
        env[name] = str(threads)
    for name, value in _PATIENT.items():
        env.setdefault(name, value)
    if threads == 1:
        _add_flag(env, "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    if device == "cuda":  # three allocators share the memory of the GPU
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return aside


def _add_flag(env: MutableMapping[str, str], name: str, flag: str) -> None:
    present = env.get(name, "")
    if flag.partition("=")[0] not in present:
        env[name] = f"{present} {flag}".strip()


def limit(threads: int) -> dict[str, Any]:
    """Set the threads of the libraries that are loaded; what each of them says it has now."""
    import numpy as np  # its BLAS is to be loaded
    import torch

    np.dot(np.ones(1), np.ones(1))
    torch.set_num_threads(threads)
    found: dict[str, Any] = {"asked": threads, "cores": cores(), "torch": torch.get_num_threads()}
    if importlib.util.find_spec("threadpoolctl") is None:
        found["pools"] = "not known: threadpoolctl is not installed"
        return found
    threadpoolctl: Any = importlib.import_module("threadpoolctl")
    threadpoolctl.threadpool_limits(threads)
    found["pools"] = [
        {name: pool[name] for name in _POOL if name in pool}
        for pool in threadpoolctl.threadpool_info()
    ]
    return found


def description(env: MutableMapping[str, str] = os.environ) -> dict[str, Any]:
    """Versions, processor, allocator, BLAS, flags, load and commit."""
    import gc

    known = environment()
    del known["threads"]  # the session says what was set and read back
    return {
        **known,
        "blas": _blas(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "flags": {
            name: value
            for name, value in sorted(env.items())
            if name.startswith(_FLAGS) or name in _FOR_THREADS or name in _PATIENT
        },
        "collector": {"on": gc.isenabled(), "threshold": list(gc.get_threshold())},
        "switch_interval": sys.getswitchinterval(),
        "load": load(),
        "commit": commit(),
    }


def load() -> list[float] | None:
    """The load averages of 1, 5 and 15 minutes."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def commit() -> str | None:
    """The commit of this package's checkout, with "+" where files differ from it."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    packages = ("refgrad", "conformance")
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", *packages)
    return head + ("+" if changed else "")


def _git(folder: Path, *args: str) -> str | None:
    command = ["git", "-C", str(folder), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _blas() -> dict[str, str] | None:
    """What NumPy was built with."""
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = (config or {}).get("Build Dependencies", {}).get("blas", {})
    wanted = ("name", "version", "openblas configuration")
    return {key: str(blas[key]) for key in wanted if key in blas} or None
