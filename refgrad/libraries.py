"""Array libraries other than NumPy: what is asked of one beyond NumPy's protocols.

The engine and the ops call `np.`, which runs on a device array by NEP 13 and 18. What the protocols
do not reach stands here: the way to a device and back, memory, and the functions that do not
dispatch. Of these there are two kinds:

- `theirs`: SciPy's function, which the library has under the same name;
- `on_host`: the arrays are copied to the host and the results back. It costs two transfers and
  waits for the device. The functions it was used for are listed in `ON_HOST`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Library:
    """An array library that speaks NumPy's protocols, for the arrays of one kind of device.

    Attributes:
        array: the type of its arrays.
        put: a copy of an array of the host on the current device.
        get: a copy of one of its arrays on the host.
        add_at: `np.add.at`, which CuPy dispatches for one array as the index alone.
        solve_triangular: the X with A X = B, for A and B of the same batch, whether A is lower and
            whether its diagonal is one.
        strided: another shape and other strides, in bytes, on the memory of an array.
        address: where the memory of an array begins.
        index: the number of the device that holds an array.
        count: how many devices there are.
        current: the number of the one that is in use.
        use: makes another device current, by its number.
        synchronize: waits until the device has done what it was told.
        event: a new event, `event(blocking, without_timing)`, and `elapsed` the milliseconds
            between two.
        empty_cache: gives the memory kept for new arrays back.
        scipy: its counterpart of SciPy, a namespace with `special`.
    """

    array: type
    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    add_at: Callable[[Any, Any, Any], None]
    solve_triangular: Callable[[Any, Any, bool, bool], Any]
    strided: Callable[[Any, Sequence[int], Sequence[int]], Any]
    address: Callable[[Any], int]
    index: Callable[[Any], int]
    count: Callable[[], int]
    current: Callable[[], int]
    use: Callable[[int], None]
    synchronize: Callable[[], None]
    event: Callable[[bool, bool], Any]
    elapsed: Callable[[Any, Any], float]
    empty_cache: Callable[[], None]
    scipy: Any


class Loaded:
    """The library of the CUDA device, once an array was put there; the CPU path asks no more."""

    cuda: Library | None = None


def cuda() -> Library:
    """CuPy, imported at the first call.

    Raises:
        RuntimeError: it is not installed, or finds no CUDA device.
    """
    if Loaded.cuda is None:
        Loaded.cuda = _cupy()
    return Loaded.cuda


def _cupy() -> Library:
    try:
        import cupy
        import cupyx
        import cupyx.scipy.special
    except ImportError as error:
        raise RuntimeError(
            "refgrad uses CuPy for CUDA, which cannot be imported here "
            f"({error}); pip install 'refgrad-conformance[cuda]'"
        ) from error
    runtime = cupy.cuda.runtime
    try:
        found = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise RuntimeError(f"CuPy finds no CUDA device here: {error}") from error
    if not found:
        raise RuntimeError("CuPy finds no CUDA device here")

    def solve_triangular(A: Any, B: Any, lower: bool, unitriangular: bool) -> Any:
        from cupyx.scipy.linalg import solve_triangular as solve  # it loads cuBLAS

        return solve(A, B, lower=lower, unit_diagonal=unitriangular)

    cupyx.seterr(linalg="raise")  # as NumPy does: a singular matrix is an error
    return Library(
        array=cupy.ndarray,
        put=cupy.array,
        get=cupy.asnumpy,
        add_at=cupyx.scatter_add,
        solve_triangular=solve_triangular,
        strided=cupy.lib.stride_tricks.as_strided,
        address=lambda array: int(array.data.ptr),
        index=lambda array: int(array.device.id),
        count=runtime.getDeviceCount,
        current=runtime.getDevice,
        use=runtime.setDevice,
        synchronize=runtime.deviceSynchronize,
        event=cupy.cuda.Event,
        elapsed=cupy.cuda.get_elapsed_time,
        empty_cache=lambda: cupy.get_default_memory_pool().free_all_blocks(),
        scipy=cupyx.scipy,
    )


def on_device(x: Any) -> bool:
    """Whether an array lies on the device."""
    return Loaded.cuda is not None and isinstance(x, Loaded.cuda.array)


def to_host(array: Any) -> Any:
    """A copy of a device array on the host, in the same order in memory; others as they are."""
    return _moved(array, Loaded.cuda.get) if Loaded.cuda and on_device(array) else array


def to_device(array: Any) -> Any:
    """A copy of an array of the host on the device, in the same order in memory."""
    return array if on_device(array) else _moved(array, cuda().put)


def _moved(array: Any, move: Callable[[Any], Any]) -> Any:
    """`array` copied by `move`, which keeps row-major order alone, in its own order."""
    if array.flags.c_contiguous:
        return move(array)
    order = sorted(range(array.ndim), key=lambda d: -array.strides[d])
    back = sorted(range(array.ndim), key=order.__getitem__)
    turned = array.transpose(order)
    dense = turned if turned.flags.c_contiguous else np.copy(turned, order="C")
    return move(dense).transpose(back)


def beside(array: Any, like: Any) -> Any:
    """A constant, made on the host, where `like` (an array or a Tensor) lives."""
    like = getattr(like, "_array", like)
    return np.asarray(array, like=like) if on_device(like) else array


def as_strided(array: Any, shape: Sequence[int], strides: Sequence[int], **options: Any) -> Any:
    """The memory of `array` read in another shape with other strides, in bytes.

    NumPy's does not dispatch: an array that passes for one of NumPy's may have a method for it.
    """
    if Loaded.cuda is not None and on_device(array):
        return Loaded.cuda.strided(array, shape, strides)
    if type(array) is not np.ndarray and hasattr(array, "as_strided"):
        return array.as_strided(shape, strides)
    return np.lib.stride_tricks.as_strided(array, shape, strides, **options)


def writeable(array: Any) -> bool:
    """Whether an array may be written to; device arrays always may."""
    return bool(getattr(array.flags, "writeable", True))


ON_HOST: list[str] = []
"""The functions that run on the host wherever their arrays live."""


def on_host(function: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """`function`, which reads and returns arrays of the host, for arrays of any device."""
    ON_HOST.append(name or function.__name__.lstrip("_"))

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if Loaded.cuda is None or not any(map(on_device, (*args, *kwargs.values()))):
            return function(*args, **kwargs)
        made = function(
            *[to_host(a) for a in args], **{key: to_host(value) for key, value in kwargs.items()}
        )
        return _back(made)

    return wrapped


def _back(made: Any) -> Any:
    if isinstance(made, tuple):
        parts = [_back(m) for m in made]
        return type(made)(*parts) if hasattr(made, "_fields") else tuple(parts)
    return to_device(np.asarray(made)) if isinstance(made, (np.ndarray, np.generic)) else made


def theirs(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """SciPy's `function`, and on device arrays the library's own of that name."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if Loaded.cuda is not None and any(map(on_device, args)):
            found: Any = getattr(getattr(Loaded.cuda.scipy, module), name)
            return found(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped
