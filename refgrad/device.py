"""Where a tensor's array lives, named as PyTorch names it."""

from __future__ import annotations

import builtins
import re
from types import TracebackType
from typing import Any, NoReturn, final

from refgrad import libraries

TYPES = (
    "cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga",
    "maia", "xla", "lazy", "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone",
)  # fmt: skip

_INDEX_LIMIT = 128  # PyTorch keeps an index in eight bits


@final
class device:
    """A device type and, perhaps, an index: device("cpu"), device("cuda:1"), device("cuda", 1).

    Two devices are equal if type and index are: device("cpu") is not device("cpu:0"). Naming a
    device does not ask whether it is there; `usable` does. RuntimeError for a string that names
    none; TypeError for other arguments.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | device | int, index: int | None = None) -> None:
        if isinstance(type, device) and index is None:
            kind, index = type.type, type.index
        elif isinstance(type, str):
            kind, index = _parse(type, index)
        elif isinstance(type, int) and not isinstance(type, bool) and index is None:
            _check_index(type)
            raise RuntimeError("Cannot access accelerator device when none is available.")
        else:
            got = type.__class__.__name__
            raise TypeError(
                "device() received an invalid combination of arguments - got "
                f"({got}), but expected (torch.device device) or "
                "(str type, int index = -1)"
            )
        object.__setattr__(self, "type", kind)
        object.__setattr__(self, "index", index)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"attribute {name!r} of 'torch.device' objects is not writable")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, device):
            return NotImplemented
        return self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[builtins.type[device], tuple[str, int | None]]:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        """Make it the device of new tensors that name none."""
        _defaults.append(usable(self))
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _defaults.pop()


def _parse(text: str, index: int | None) -> tuple[str, int | None]:
    if not text:
        raise RuntimeError("Device string must not be empty")
    match = re.fullmatch(r"([a-zA-Z_]+)(?::(0|[1-9][0-9]*))?", text)
    if match is None:
        raise RuntimeError(f"Invalid device string: '{text}'")
    kind, written = match.groups()
    if kind not in TYPES:
        raise RuntimeError(
            f"Expected one of {', '.join(TYPES)} device type at start of device string: {text}"
        )
    if written is None:
        if index is not None:
            _check_index(index)
        return kind, index
    if index is not None:
        raise RuntimeError(
            f"type (string) must not include an index because index was passed explicitly: {text}"
        )
    _check_index(int(written))
    return kind, int(written)


def _check_index(index: int) -> None:
    if not isinstance(index, int):
        raise TypeError(
            f"device(): argument 'index' (position 2) must be int, not {type(index).__name__}"
        )
    if index < 0:
        raise RuntimeError("Device index must not be negative")
    if index >= _INDEX_LIMIT:
        raise RuntimeError(f"Device index must be below {_INDEX_LIMIT}, got {index}")


cpu = device("cpu")
_cuda: list[device] = []  # those that arrays were found on, by index
_defaults = [cpu]


def usable(where: device | str | int | None = None) -> device:
    """The device on which a new tensor is made; None means the default one.

    RuntimeError where arrays cannot be made on it: neither the CPU nor a CUDA device in use.
    """
    if where is None:
        return _defaults[-1]
    if where is cpu or (type(where) is str and where == "cpu"):
        return cpu
    if isinstance(where, int) and not isinstance(where, bool) and where >= 0:
        where = device("cuda", where)
    found = where if isinstance(where, device) else device(where)
    if found.type == "cpu":
        return cpu
    if found.type != "cuda":
        raise RuntimeError(
            f"no array library for device {str(found)!r} is in use; there are 'cpu' and 'cuda'"
        )
    library = libraries.cuda()
    current = library.current()
    if found.index is not None and found.index >= library.count():
        raise RuntimeError(
            f"CUDA error: invalid device ordinal: {found.index} of {library.count()} devices"
        )
    if found.index not in (None, current):
        raise RuntimeError(
            f"refgrad uses one CUDA device at a time, now cuda:{current}; "
            f"call refgrad.cuda.set_device({found.index}) first"
        )
    return cuda_device(current)


def cuda_device(index: int) -> device:
    """The CUDA device of that number."""
    while len(_cuda) <= index:
        _cuda.append(device("cuda", len(_cuda)))
    return _cuda[index]


def device_of(array: Any) -> device:
    """Where an array lives."""
    library = libraries.Loaded.cuda
    if library is None or not isinstance(array, library.array):
        return cpu
    return cuda_device(library.index(array))


def place(array: Any, where: device) -> Any:
    """`array` on a usable device: itself, or a copy."""
    return libraries.to_host(array) if where.type == "cpu" else libraries.to_device(array)
