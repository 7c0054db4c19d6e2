"""Canonical names: one public name, and one form of arguments, for each of torch's functions.

torch hands a function mode the object that was called: `a * b`, `a.mul(b)` and `torch.mul(a, b)`
arrive as different ones. `canonical` makes them the same call.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import torch

from conformance.engines.namespace import allowed

# One function may stand in several of these; the first that has it names it.
_HOMES = (
    "torch.nn.functional",
    "torch.linalg",
    "torch.fft",
    "torch.special",
    "torch.signal.windows",
    "torch.sparse",
    "torch",
    "torch.Tensor",
    "torch._C._nn",
)

# Operators, other spellings, and properties, as the function that they are.
_ALIASES = {
    "torch.absolute": "torch.abs",
    "torch.concat": "torch.cat",
    "torch.concatenate": "torch.cat",
    "torch.divide": "torch.div",
    "torch.dsmm": "torch.mm",
    "torch.multiply": "torch.mul",
    "torch.negative": "torch.neg",
    "torch.subtract": "torch.sub",
    "torch.swapaxes": "torch.transpose",
    "torch.swapdims": "torch.transpose",
    "torch.true_divide": "torch.div",
    "torch.Tensor.__abs__": "torch.abs",
    "torch.Tensor.__add__": "torch.add",
    "torch.Tensor.__and__": "torch.bitwise_and",
    "torch.Tensor.__eq__": "torch.eq",
    "torch.Tensor.__floordiv__": "torch.floor_divide",
    "torch.Tensor.__ge__": "torch.ge",
    "torch.Tensor.__gt__": "torch.gt",
    "torch.Tensor.__invert__": "torch.bitwise_not",
    "torch.Tensor.__le__": "torch.le",
    "torch.Tensor.__lt__": "torch.lt",
    "torch.Tensor.__matmul__": "torch.matmul",
    "torch.Tensor.__mod__": "torch.remainder",
    "torch.Tensor.__mul__": "torch.mul",
    "torch.Tensor.__ne__": "torch.ne",
    "torch.Tensor.__neg__": "torch.neg",
    "torch.Tensor.__or__": "torch.bitwise_or",
    "torch.Tensor.__pow__": "torch.pow",
    "torch.Tensor.__radd__": "torch.add",
    "torch.Tensor.__rmul__": "torch.mul",
    "torch.Tensor.__rsub__": "torch.rsub",
    "torch.Tensor.__sub__": "torch.sub",
    "torch.Tensor.__truediv__": "torch.div",
    "torch.Tensor.__xor__": "torch.bitwise_xor",
    "torch.Tensor.__iadd__": "torch.Tensor.add_",
    "torch.Tensor.__imul__": "torch.Tensor.mul_",
    "torch.Tensor.__ipow__": "torch.Tensor.pow_",
    "torch.Tensor.__isub__": "torch.Tensor.sub_",
    "torch.Tensor.__itruediv__": "torch.Tensor.div_",
    "torch.Tensor.data.__get__": "torch.detach",
    "torch.Tensor.imag.__get__": "torch.imag",
    "torch.Tensor.real.__get__": "torch.real",
    "torch.Tensor.requires_grad.__set__": "torch.Tensor.requires_grad_",
}
_SWAPPED = {
    "torch.Tensor.__rmatmul__": "torch.matmul",
    "torch.Tensor.__rpow__": "torch.pow",
}
# Methods that mean something else than the function of the same name, or order their arguments
# otherwise.
_OWN_MEANING = {"polygamma", "resize_as", "sparse_resize", "to_sparse", "type", "where"}
# Methods that take sizes or axes one by one, where the function wants them in one tuple.
_SPREAD = {"count_nonzero", "flip", "permute", "reshape", "squeeze", "tile"}
_ALWAYS_TUPLE = {"flip", "permute", "reshape", "tile"}


def name_of(function: Any) -> str | None:
    """The public dotted name of what a function mode was handed, or None."""
    owner: Any = getattr(function, "__self__", None)
    if getattr(function, "__name__", "") in ("__get__", "__set__"):
        getter = getattr(owner, "fget", owner)
        return f"torch.Tensor.{getter.__name__}.{function.__name__}"
    try:
        name = _names().get(function)
    except TypeError:  # not hashable
        name = None
    if name is None and function is torch.autograd.grad:
        name = "torch.autograd.grad"
    if name is None:
        name = torch.overrides.resolve_name(function)
    if isinstance(name, str) and name.startswith("aten."):
        name = ".".join(["torch.ops", *name.split(".")[:2]])  # without the overload
    return name


def canonical(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str | None, tuple[Any, ...], dict[str, Any]]:
    """The one name and form of a call; the name is None where a Program cannot name it."""
    name = name_of(function)
    if name is None:
        return None, args, kwargs
    kwargs = _without_defaults(function, args, kwargs)
    if name in _SWAPPED and len(args) == 2:
        return _SWAPPED[name], (args[1], args[0]), kwargs
    name = _ALIASES.get(name, name)
    home, _, last = name.rpartition(".")
    if home == "torch.Tensor" and _same_function(last):
        alone = len(args) == 2 and isinstance(args[1], int) and last in _ALWAYS_TUPLE
        if alone or (last in _SPREAD and len(args) > 2):
            args = (args[0], tuple(args[1:]))
        name = _ALIASES.get(f"torch.{last}", f"torch.{last}")
    elif home == "torch" and last.endswith("_") and hasattr(torch.Tensor, last):
        name = f"torch.Tensor.{last}"
    return (name if allowed(name) else None), args, kwargs


def _same_function(method: str) -> bool:
    plain = not method.endswith("_") and method not in _OWN_MEANING
    return plain and callable(getattr(torch, method, None))


@functools.cache
def _names() -> dict[Any, str]:
    names: dict[Any, str] = {}
    for home in _HOMES:
        place: Any = torch
        for part in home.split(".")[1:]:
            place = getattr(place, part)
        for attribute in sorted(dir(place), key=lambda name: (name.startswith("_"), name)):
            found = getattr(place, attribute, None)
            if callable(found) and not isinstance(found, type | types.ModuleType):
                names.setdefault(found, f"{home}.{attribute}")
    names[torch.Tensor.__rdiv__] = "torch.Tensor.__rtruediv__"
    return names


@functools.cache
def _defaults(function: Any) -> dict[str, Any]:
    # max_pool2d and its like choose between two functions; the plain one has the signature
    plain = inspect.getclosurevars(function).nonlocals.get("if_false", function)
    parameters = inspect.signature(plain).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _without_defaults(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Drop keyword arguments that say what the function, written in Python, assumes anyway."""
    kwargs = {key: value for key, value in kwargs.items() if key != "out" or value is not None}
    if not kwargs or not isinstance(function, types.FunctionType):
        return kwargs
    defaults = _defaults(function)

    def said(key: str, value: Any) -> bool:
        if key not in defaults:
            return True
        default = defaults[key]
        plain = value is None or isinstance(value, bool | int | float | str)
        return not (plain and type(value) is type(default) and value == default)

    return {key: value for key, value in kwargs.items() if said(key, value)}
