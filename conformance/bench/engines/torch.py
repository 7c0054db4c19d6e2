"""PyTorch: eager, the reference for gradients and for ratios; and torch.compile."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

from conformance.bench.engine import Prepared
from conformance.bench.engines.found import missing, nothing, plain, version, warmed, within
from conformance.bench.workload import Workload

MOST_COMPILED = 400  # nodes: Inductor takes some 0.1 s for each


class TorchEager:
    """torch as it runs without a compiler."""

    name = "torch"

    def available(self, device: str) -> str | None:
        """None where torch is installed and sees the device."""
        reason = missing("torch")
        if reason is None and device != "cpu":
            import torch

            if not torch.cuda.is_available():
                return "torch sees no CUDA device"
        return reason

    def versions(self) -> dict[str, str]:
        """torch's, and CUDA's where it was built for it."""
        import torch

        cuda = {"cuda": torch.version.cuda} if torch.version.cuda else {}
        return version("torch") | cuda

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """Tensors on the device and the Program as a function of them; float32 is not TF32."""
        from conformance.bench.engines import check, namespace

        if workload.check:
            from conformance.engines.torch import TorchEngine

            return check.Check(TorchEngine(device), workload, size)
        return namespace.prepare(_torch(), workload, size, device, synchronize=_waits(device))


class TorchCompile(TorchEager):
    """torch.compile: Inductor with its defaults; the backward pass is compiled too."""

    name = "torch.compile"

    def available(self, device: str) -> str | None:
        """None where torch is, and Inductor finds a compiler: C++ on the CPU, Triton on CUDA."""
        reason = super().available(device)
        if reason is not None:
            return reason
        if device == "cpu":
            compilers = (os.environ.get("CXX", "g++"), "clang++")
            if not any(map(shutil.which, compilers)):
                return "torch.compile needs a C++ compiler on the CPU: install g++, or set CXX"
            return None
        return missing("triton", "triton")

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """As eager, compiled by a first step; Unsupported beyond a first gradient."""
        plain(workload)
        within(workload, size, MOST_COMPILED)
        from conformance.bench.engines import namespace

        torch = _torch()
        prepared = namespace.prepare(
            torch,
            workload,
            size,
            device,
            synchronize=_waits(device),
            compiler=functools.partial(torch.compile, dynamic=False),
        )
        return warmed(prepared)


def _torch() -> Any:
    """The module, told not to round float32 to TF32 on a GPU: by default its convolutions do."""
    import torch

    torch.set_float32_matmul_precision("highest")
    with torch.backends.__allow_nonbracketed_mutation():  # torch.testing freezes these flags
        torch.backends.cudnn.allow_tf32 = False
    return torch


def _waits(device: str) -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device != "cpu" else nothing
