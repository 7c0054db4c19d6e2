"""Every kind of call that refgrad makes on device arrays, put to CuPy itself, without a GPU.

    python -m tests.fakes.cupy_replay record FILE     # op_db on the stand-in, its calls to FILE
    python -m tests.fakes.cupy_replay replay FILE     # where CuPy is

A call counts as answered when CuPy takes it as far as the device, which is not there: names,
arguments and dtypes are then right, if not yet the result. The first needs torch and no CuPy, the
second CuPy and no torch.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

NO_DEVICE = ("InsufficientDriver", "Failure finding", "libcu", "libnv")  # as far as it comes


def encoded(x: Any) -> Any:
    """An argument as JSON can hold it: of arrays the shape, dtype and strides alone."""
    if hasattr(x, "_host"):
        return ["device", list(x.shape), x.dtype.str, list(x.strides)]
    if isinstance(x, np.ndarray):
        return ["host", list(x.shape), x.dtype.str]
    if isinstance(x, (tuple, list)):
        return [type(x).__name__ if type(x) is list else "tuple", [encoded(e) for e in x]]
    if isinstance(x, slice):
        return ["slice", [encoded(e) for e in (x.start, x.stop, x.step)]]
    if isinstance(x, np.generic):
        return ["scalar", x.dtype.str, str(x)]
    if isinstance(x, (np.dtype, type)):
        return ["dtype", np.dtype(x).str]
    if isinstance(x, complex):
        return ["complex", [x.real, x.imag]]
    if x is not None and not isinstance(x, (bool, int, float, str)) and x is not Ellipsis:
        raise TypeError(f"{type(x).__name__} is no argument of CuPy's")  # a Tensor: it takes over
    return ["..."] if x is Ellipsis else ["value", x]


def decoded(code: Any) -> Any:
    """What `encoded` took, with CuPy's arrays over memory that nobody may touch."""
    from tests.fakes.cupy_surface import untouchable

    kind, *rest = code
    if kind == "device":
        return untouchable(tuple(rest[0]), rest[1], tuple(rest[2]))
    if kind == "host":
        return np.zeros(rest[0], rest[1])
    if kind in ("tuple", "list", "slice"):
        parts = [decoded(e) for e in rest[0]]
        return slice(*parts) if kind == "slice" else tuple(parts) if kind == "tuple" else parts
    if kind == "scalar":
        return np.dtype(rest[0]).type(rest[1])
    if kind == "complex":
        return complex(*rest[0])
    if kind == "dtype":
        return np.dtype(rest[0])
    return Ellipsis if kind == "..." else rest[0]


def sort_of(code: Any) -> Any:
    """What makes calls differ: ranks, dtypes and types, not sizes."""
    kind, *rest = code
    if kind in ("device", "host"):
        return kind, min(len(rest[0]), 3), rest[1], 0 in rest[0]
    if kind in ("tuple", "list"):
        return (kind, *map(sort_of, rest[0]))
    if kind == "value" and not isinstance(rest[0], (str, bool, type(None))):
        return kind, type(rest[0]).__name__
    return (kind, *(map(str, rest) if kind != "slice" else ()))


@contextmanager
def recording(calls: dict[Any, Any]) -> Iterator[None]:
    """Within it the stand-in notes its calls, one of each sort."""
    from tests.fakes.device_array import DeviceArray

    def noted(name: str, head: Any) -> Any:
        original = getattr(DeviceArray, name)

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            target, given, options = head(self, args, kwargs)
            with suppress(TypeError):
                call = [target, encoded(tuple(given)), {k: encoded(v) for k, v in options.items()}]
                named = ((k, sort_of(v)) for k, v in call[2].items())
                calls.setdefault((tuple(target), sort_of(call[1]), *named), call)
            return original(self, *args, **kwargs)

        return original, method

    heads = {
        "__array_ufunc__": lambda s, a, k: (
            ["ufunc", "numpy" if getattr(np, a[0].__name__, None) is a[0] else "scipy.special",
             a[0].__name__, a[1]], a[2:], k,
        ),
        "__array_function__": lambda s, a, k: (
            ["function", a[0].__module__, a[0].__name__], a[2], a[3],
        ),
        "_call_method": lambda s, a, k: (["method", a[0]], (s, *a[1:]), k),
        "__getitem__": lambda s, a, k: (["method", "__getitem__"], (s, *a), k),
        "__setitem__": lambda s, a, k: (["method", "__setitem__"], (s, *a), k),
    }  # fmt: skip
    kept = {}
    for name, head in heads.items():
        kept[name], method = noted(name, head)
        setattr(DeviceArray, name, method)
    try:
        yield
    finally:
        for name, original in kept.items():
            setattr(DeviceArray, name, original)


def record(file: pathlib.Path) -> None:
    """Run op_db on the stand-in, in several dtypes, and write the calls."""
    import torch

    from tests.fakes.device_array import stand_in
    from tests.refgrad.on_device import entries, run

    calls: dict[Any, Any] = {}
    warnings.simplefilter("ignore")
    with stand_in(), recording(calls):
        for entry in entries():
            run(entry, limit=6, order=2)
            for dtype in (torch.float32, torch.complex128, torch.int64):
                if dtype in entry.dtypes:
                    run(entry, limit=1, dtype=dtype)
    file.write_text("".join(json.dumps(call) + "\n" for call in calls.values()))
    print(f"{len(calls)} sorts of calls")


def asked(call: Any) -> str | None:
    """What CuPy says against a call, or None."""
    from tests.fakes.cupy_surface import untouchable

    (kind, *names), given, options = call
    args, kwargs = decoded(given), {k: decoded(v) for k, v in options.items()}
    array = untouchable((2, 2))
    try:
        if kind == "method":
            made = getattr(args[0], names[0])(*args[1:], **kwargs)
        elif kind == "ufunc":
            module = __import__(names[0], fromlist=["_"])
            made = array.__array_ufunc__(getattr(module, names[1]), names[2], *args, **kwargs)
        else:
            module = functools.reduce(getattr, names[0].split(".")[1:], np)
            function = getattr(module, names[1])
            made = array.__array_function__(function, (type(array),), args, kwargs)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return None if any(sign in text for sign in NO_DEVICE) else text
    return "NotImplemented" if made is NotImplemented else None


def replay(file: pathlib.Path) -> None:
    """Put each call to CuPy; print what it refuses, and exit 1 if there is any."""
    import scipy.special  # noqa: F401 - ufuncs are looked up there

    warnings.simplefilter("ignore")
    calls = [json.loads(line) for line in file.read_text().splitlines()]
    refused = [(call, said) for call in calls if (said := asked(call)) is not None]
    for call, said in refused:
        print(f"{'.'.join(call[0][1:])}{str(call[1])[:150]}: {said[:150]}")
    print(f"CuPy takes {len(calls) - len(refused)} of {len(calls)} calls as far as the device")
    sys.exit(bool(refused))


if __name__ == "__main__":
    {"record": record, "replay": replay}[sys.argv[1]](pathlib.Path(sys.argv[2]))
