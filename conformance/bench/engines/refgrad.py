"""refgrad: plain NumPy on the CPU, CuPy on CUDA."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from conformance.bench.engine import Prepared
from conformance.bench.engines.found import missing, nothing, version
from conformance.bench.workload import Workload
from conformance.errors import Unsupported


class Refgrad:
    """The engine of this repository."""

    name = "refgrad"

    def available(self, device: str) -> str | None:
        """None on the CPU; on CUDA where refgrad can put an array there."""
        if device == "cpu":
            return None
        import refgrad

        try:
            refgrad.zeros(1, device=device)
        except (RuntimeError, ImportError) as error:
            return str(error)
        return None

    def versions(self) -> dict[str, str]:
        """refgrad's, and those of what holds its arrays."""
        import refgrad

        cupy = version("cupy") if missing("cupy") is None else {}
        return {"refgrad": refgrad.__version__, **version("numpy"), **version("scipy"), **cupy}

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """Tensors on the device and the Program as a function of them."""
        import refgrad
        from conformance.bench.engines import check, namespace

        if workload.check:
            if device != "cpu":
                raise Unsupported("the harness runs refgrad on the CPU alone")
            from conformance.engines.refgrad import RefgradEngine

            return check.Check(RefgradEngine(), workload, size)
        return namespace.prepare(refgrad, workload, size, device, synchronize=_waits(device))


def _waits(device: str) -> Callable[[], None]:
    if device == "cpu":
        return nothing
    cupy = importlib.import_module("cupy")

    def synchronize() -> None:
        cupy.cuda.get_current_stream().synchronize()

    return synchronize
