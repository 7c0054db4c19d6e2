"""Timing on a GPU: events around the callable alone, with a cold second-level cache.

Before each call a buffer of twice the cache's size is written and the device waited for, so that a
call finds its operands in memory and nothing else running. What is read is from an event before
the call to one after it, so launches that the host makes too slowly for the device are in it, as
they are in use. Engines have their own events: PyTorch's for torch, CuPy's for refgrad on CuPy;
JAX has none, so the host's clock is read after the device was waited for.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
from typing import Any, Protocol

EVENT_RESOLUTION = 0.5e-6  # seconds, as CUDA documents it for cudaEventElapsedTime
FLUSH = 2  # times the cache
NO_CACHE_KNOWN = 64 << 20  # bytes, where a device does not say

QUERY = {
    "name": "name",
    "driver": "driver_version",
    "state": "pstate",
    "sm_mhz": "clocks.sm",
    "sm_max_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "celsius": "temperature.gpu",
    "watts": "power.draw",
    "throttle": "clocks_throttle_reasons.active",
    "used_mib": "memory.used",
}
# What slows a clock down against its will; idleness and settings of the owner do not count.
SLOWDOWNS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
}


class Device(Protocol):
    """The events of one library on one device."""

    name: str
    resolution: float

    def record(self) -> Any:
        """An event at the end of what the device has been given to do."""

    def wait(self, event: Any) -> None:
        """Return when the device has reached the event."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Seconds between two events that were reached."""

    def synchronize(self) -> None:
        """Return when the device is idle."""

    def flush(self) -> None:
        """Write over the second-level cache."""


class DeviceClock:
    """A clock that reads a device's events."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.name, self.resolution = device.name, device.resolution

    def before(self) -> None:
        self._device.flush()
        self._device.synchronize()

    def mark(self) -> Any:
        return self._device.record()

    def seconds(self, start: Any, end: Any) -> float:
        self._device.wait(end)
        return self._device.elapsed(start, end)


class TorchDevice:
    """PyTorch's events on its current stream."""

    name = "torch events"
    resolution = EVENT_RESOLUTION

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0) or NO_CACHE_KNOWN
        self._buffer = torch.empty(FLUSH * cache, dtype=torch.uint8, device="cuda")

    def record(self) -> Any:
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self, event: Any) -> None:
        event.synchronize()

    def elapsed(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) * 1e-3

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def flush(self) -> None:
        self._buffer.zero_()


class CupyDevice:
    """CuPy's events on its current stream."""

    name = "CuPy events"
    resolution = EVENT_RESOLUTION

    def __init__(self) -> None:
        cupy: Any = importlib.import_module("cupy")
        self._cuda = cupy.cuda
        cache = cupy.cuda.Device().attributes.get("L2CacheSize", 0) or NO_CACHE_KNOWN
        self._buffer = cupy.empty(FLUSH * cache, dtype=cupy.uint8)

    def record(self) -> Any:
        event = self._cuda.Event()
        event.record()
        return event

    def wait(self, event: Any) -> None:
        event.synchronize()

    def elapsed(self, start: Any, end: Any) -> float:
        return float(self._cuda.get_elapsed_time(start, end)) * 1e-3

    def synchronize(self) -> None:
        self._cuda.Device().synchronize()

    def flush(self) -> None:
        self._buffer.fill(0)


def state() -> dict[str, Any]:
    """Clocks, temperature and what slows the GPU down, as nvidia-smi says; read, never set.

    {"absent": reason} where it cannot be asked.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"absent": "nvidia-smi is not installed"}
    command = [
        program,
        "--id=0",
        f"--query-gpu={','.join(QUERY.values())}",
        "--format=csv,noheader,nounits",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"absent": f"nvidia-smi failed: {error}"}
    return parse_state(answer.stdout)


def parse_state(text: str) -> dict[str, Any]:
    """The fields of one line of nvidia-smi's answer to `QUERY`, and the slowdowns in words."""
    rows = [line for line in text.splitlines() if line.strip()]
    fields = [field.strip() for field in rows[0].split(",")] if rows else []
    if len(fields) != len(QUERY):
        return {"absent": f"nvidia-smi answered {text.strip()!r}"}
    found: dict[str, Any] = dict(zip(QUERY, fields, strict=True))
    for name in ("sm_mhz", "sm_max_mhz", "memory_mhz", "celsius", "watts", "used_mib"):
        found[name] = _number(found[name])
    try:
        bits = int(found["throttle"], 16)
    except ValueError:
        return {**found, "slowed": None}
    return {**found, "slowed": [word for bit, word in SLOWDOWNS.items() if bits & bit]}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None
