"""CUDA devices, as `torch.cuda`: CuPy's arrays inside.

`pip install 'refgrad-conformance[cuda]'` gets CuPy.
"""

from __future__ import annotations

from typing import Any

from refgrad import libraries
from refgrad.device import cuda_device, usable
from refgrad.device import device as _device

__all__ = [
    "Event", "current_device", "device_count", "empty_cache", "is_available", "set_device",
    "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """Whether tensors can be made on a CUDA device here: CuPy can be imported and finds one."""
    try:
        libraries.cuda()
    except RuntimeError:
        return False
    return True


def device_count() -> int:
    """How many CUDA devices there are; 0 where none can be used."""
    return libraries.cuda().count() if is_available() else 0


def current_device() -> int:
    """The number of the device that is in use.

    Raises:
        RuntimeError: there is none.
    """
    return libraries.cuda().current()


def set_device(device: _device | str | int) -> None:
    """Use another CUDA device from here on.

    Raises:
        RuntimeError: there is no such device.
    """
    index = device if isinstance(device, int) else _device(device).index
    library = libraries.cuda()
    if index is None:
        return
    if not 0 <= index < library.count():
        raise RuntimeError(f"CUDA error: invalid device ordinal: {index} of {library.count()}")
    library.use(index)


def synchronize(device: Any = None) -> None:
    """Wait until the device has done what it was told.

    Raises:
        RuntimeError: there is none.
    """
    usable("cuda" if device is None else device)
    libraries.cuda().synchronize()


def empty_cache() -> None:
    """Give the memory that is kept for new arrays back to the device."""
    if is_available():
        libraries.cuda().empty_cache()


class Event:
    """A point in the device's work, to wait for or to measure from.

    Raises:
        RuntimeError: there is no device.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._event = libraries.cuda().event(blocking, not enable_timing)
        self._timed = enable_timing
        self.device = cuda_device(current_device())

    def record(self) -> None:
        """Set it after all that the device was told so far."""
        self._event.record()

    def synchronize(self) -> None:
        """Wait until the device has reached it."""
        self._event.synchronize()

    def query(self) -> bool:
        """Whether the device has reached it."""
        return bool(self._event.done)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to `end_event`, both recorded and reached.

        Raises:
            ValueError: one of them was not made with `enable_timing`.
        """
        if not (self._timed and end_event._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        return float(libraries.cuda().elapsed(self._event, end_event._event))
