"""What of NumPy and SciPy the arrays of CuPy answer to, read off the package itself, as data.

    python -m tests.fakes.cupy_surface         # writes cupy.json beside this file

CuPy imports without a GPU, and an array over memory that nobody may touch can be made there: it
says by its protocols what it would run, if not with what result. `device_array` reads the file.
Run it where CuPy is (`pip install cupy-cuda13x`); the tests themselves do not need CuPy.
"""

from __future__ import annotations

import inspect
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

DATA = pathlib.Path(__file__).with_name("cupy.json")

LIKE = (  # NEP 35: their argument `like` makes them dispatch
    "arange", "array", "asanyarray", "asarray", "ascontiguousarray", "asfortranarray", "empty",
    "eye", "full", "identity", "linspace", "ones", "tri", "zeros",
)  # fmt: skip
METHODS = ("reduce", "accumulate", "reduceat", "outer", "at")


def untouchable(shape: tuple[int, ...], dtype: Any = "d", strides: Any = None) -> Any:
    """A CuPy array of that shape over an address where nothing is."""
    import cupy

    memory = cupy.cuda.UnownedMemory(1 << 16, 1 << 24, None, device_id=0)
    pointer = cupy.cuda.MemoryPointer(memory, 1 << 16)
    return cupy.ndarray(shape, dtype, memptr=pointer, strides=strides)


def functions() -> Iterator[tuple[str, Any]]:
    """The functions of NumPy that dispatch by NEP 18, each with its dotted name."""
    import numpy.lib.stride_tricks

    for module in (np, np.linalg, np.fft, numpy.lib.stride_tricks):
        for name in sorted(set(dir(module))):
            found = getattr(module, name)
            if (
                callable(found)
                and not isinstance(found, (type, np.ufunc))
                and (hasattr(found, "_implementation") or name in LIKE)  # it dispatches
                and not name.startswith("_")
            ):
                yield f"{module.__name__}.{name}", found


def ufuncs() -> Iterator[tuple[str, np.ufunc]]:
    """The ufuncs of NumPy and of scipy.special, each with its dotted name."""
    import scipy.special

    for module in (np, scipy.special):
        for name in sorted(set(dir(module))):
            found = getattr(module, name)
            if isinstance(found, np.ufunc):
                yield f"{module.__name__}.{name}", found


def parameters(function: Callable[..., Any]) -> list[str] | None:
    """The names of its parameters, `*` and `**` before the variable ones; None where unknown."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a method that was compiled: its docstring begins with it
        text = re.match(r"[\w.]*\((.*)\)(?: ->.*)?$", (function.__doc__ or "").split("\n")[0])
        if text is None:
            return None
        parts = [p.split("=")[0].split(" ")[-1].strip() for p in text[1].split(",")]
        return [p for p in parts if p not in ("self", "")]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(p.kind, "") + p.name for p in found]


def surface() -> dict[str, Any]:
    """The whole, as JSON holds it."""
    import cupy
    import cupyx.scipy.special

    a = untouchable((2, 2))
    of_functions = {}
    for name, function in functions():
        path = function.__module__.split(".")[1:]
        found: Any = cupy
        for part in (*path, function.__name__):
            found = getattr(found, part, None)
        if found is not None and found is not function:  # this is how it decides, by name
            of_functions[name] = parameters(found)
    of_ufuncs = {}
    for name, ufunc in ufuncs():
        home = cupyx.scipy.special if name.startswith("scipy") else cupy
        found = getattr(home, ufunc.__name__, None)
        if found is None or not _answers(a, ufunc, "__call__", [a] * ufunc.nin):
            continue
        arguments = {"at": [a, 0, a], "outer": [a, a], "reduceat": [a, untouchable((2,), "l")]}
        of_ufuncs[name] = {
            "types": getattr(found, "types", None),
            "methods": [m for m in METHODS if _answers(a, ufunc, m, arguments.get(m, [a]))],
        }
    return {
        "cupy": cupy.__version__,
        "functions": of_functions,
        "ufuncs": of_ufuncs,
        "methods": {
            name: parameters(getattr(cupy.ndarray, name))
            for name in sorted(dir(cupy.ndarray))
            if not name.startswith("_") and callable(getattr(cupy.ndarray, name))
        },
        "attributes": [
            name
            for name in sorted(dir(cupy.ndarray))
            if not name.startswith("_") and not callable(getattr(cupy.ndarray, name))
        ],
        "flags": [name for name in dir(a.flags) if not name.startswith("_")],
        "dunders": [name for name in sorted(dir(cupy.ndarray)) if name.startswith("__")],
    }


def _answers(array: Any, ufunc: np.ufunc, method: str, arguments: list[Any]) -> bool:
    """Whether a call comes as far as the device, which is not there."""
    try:
        return array.__array_ufunc__(ufunc, method, *arguments) is not NotImplemented
    except (NotImplementedError, AttributeError):
        return False
    except Exception:
        return True


def main() -> None:
    """Write the file."""
    DATA.write_text(json.dumps(surface(), indent=1, sort_keys=True) + "\n")
    print(f"wrote {DATA.name}")


if __name__ == "__main__":
    main()
