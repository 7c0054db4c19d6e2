"""PyTorch: eager, the reference for gradients and for ratios; and torch.compile."""

from __future__ import annotations

from collections.abc import Callable

from conformance.bench.engine import Prepared
from conformance.bench.engines.found import missing, nothing, version
from conformance.bench.workload import Workload


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
        """Tensors on the device and the Program as a function of them."""
        import torch

        from conformance.bench.engines import namespace

        return namespace.prepare(torch, workload, size, device, synchronize=_waits(device))


def _waits(device: str) -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device != "cpu" else nothing
