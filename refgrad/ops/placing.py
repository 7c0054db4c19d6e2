"""Where the operands of an op live: all on one device."""

from __future__ import annotations

from typing import Any

from refgrad.device import cpu, device, device_of
from refgrad.libraries import beside, on_device
from refgrad.tensor import Tensor, wrap

SAME = (
    "Expected all tensors to be on the same device, but found at least two devices, {} and {}! "
    "(when checking the arguments of {})"
)
_INDEX_ANYWHERE = frozenset(("getitem", "placed_at", "put_at", "setitem"))


def constant(array: Any, like: Any) -> Tensor:
    """A Tensor of numbers that an op made on the host, where `like` (a Tensor or an array) lives."""
    return wrap(beside(array, like))


def _check_index(input: Any, index: Any) -> None:
    """An index may live on the host, wherever what it reads does; but not the other way round."""
    if on_device(getattr(input, "_array", input)):
        return
    for part in index if type(index) in (list, tuple) else (index,):
        if on_device(getattr(part, "_array", part)):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )


def together(op: Any, values: list[Any]) -> None:
    """Bring the Tensors without dimensions among `values` to the device where the others live.

    Raises:
        RuntimeError: Tensors with dimensions live on different devices.
    """
    devices: dict[device, tuple[int, int | None]] = {}
    numbers = []
    for i, value in enumerate(values):
        if op.name in _INDEX_ANYWHERE and op.names[i] == "index":
            _check_index(values[0], value)
            continue
        for j, t in enumerate(value) if type(value) in (list, tuple) else ((None, value),):
            if not isinstance(t, Tensor):
                continue
            where = device_of(t._array)
            if where is cpu and not t._array.ndim:
                numbers.append((i, j))
            else:
                devices.setdefault(where, (i, j))
    if len(devices) > 1:
        one, two = devices
        raise RuntimeError(SAME.format(*sorted((str(one), str(two)), reverse=True), op.name))
    if not numbers or cpu in devices or not devices:
        return
    (where,) = devices
    for i, j in numbers:
        if j is None:
            values[i] = values[i].to(where)
        else:
            values[i] = [*values[i][:j], values[i][j].to(where), *values[i][j + 1 :]]
