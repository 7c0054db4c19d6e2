"""Where a session takes place: the clocks, counters and roofs of a CPU or of a GPU."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from conformance.bench import cuda_timer, memory, roofs
from conformance.bench.engine import Prepared
from conformance.bench.timing import Clock, HostClock


class Place(Protocol):
    """What a session asks of the place where engines run."""

    device: str

    def clock(self, engine: str, prepared: Prepared) -> Clock:
        """The clock that times this engine."""

    def check(self, engine: str, prepared: Prepared) -> Clock | None:
        """A second clock for the step, where the first is a device's."""

    def memory(self, engine: str, prepared: Prepared) -> dict[str, memory.Figures]:
        """What a forward and backward take."""

    def roofs(self) -> roofs.Roofs:
        """What the place can do at most."""

    def state(self) -> dict[str, Any] | None:
        """The present state of a GPU, None of a CPU."""

    def release(self) -> None:
        """Give back what the engines' allocators keep, between two cases."""


class Host:
    """The CPU."""

    device = "cpu"

    def clock(self, engine: str, prepared: Prepared) -> Clock:
        return HostClock(prepared.synchronize)

    def check(self, engine: str, prepared: Prepared) -> Clock | None:
        return None

    def memory(self, engine: str, prepared: Prepared) -> dict[str, memory.Figures]:
        return memory.on_host(engine, prepared)

    def roofs(self) -> roofs.Roofs:
        return roofs.on_host()

    def state(self) -> dict[str, Any] | None:
        return None

    def release(self) -> None:
        """A CPU's allocators keep little."""


class Cuda:
    """The first GPU. An engine's events are made when it is first timed."""

    device = "cuda"

    def __init__(self) -> None:
        self._torch = cuda_timer.TorchDevice()
        self._cupy: cuda_timer.CupyDevice | None = None

    def clock(self, engine: str, prepared: Prepared) -> Clock:
        if engine.startswith("torch"):
            return cuda_timer.DeviceClock(self._torch)
        if engine == "refgrad":
            self._cupy = self._cupy or cuda_timer.CupyDevice()
            return cuda_timer.DeviceClock(self._cupy)
        return HostClock(prepared.synchronize, flush=self._flush)

    def check(self, engine: str, prepared: Prepared) -> Clock | None:
        if engine.startswith("torch") or engine == "refgrad":
            return HostClock(prepared.synchronize, flush=self._flush)
        return None

    def memory(self, engine: str, prepared: Prepared) -> dict[str, memory.Figures]:
        return memory.on_cuda(engine, prepared)

    def roofs(self) -> roofs.Roofs:
        return roofs.on_cuda()

    def state(self) -> dict[str, Any] | None:
        return cuda_timer.state()

    def release(self) -> None:
        import torch

        torch.cuda.empty_cache()
        if self._cupy is not None:
            cupy: Any = importlib.import_module("cupy")
            cupy.get_default_memory_pool().free_all_blocks()

    def _flush(self) -> None:
        self._torch.flush()
        self._torch.synchronize()
