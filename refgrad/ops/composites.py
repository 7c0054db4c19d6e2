"""Functions that are written from other ops, and how results that ops left otherwise are laid out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad.ops.op import INPLACE, METHODS, Op, raw_of
from refgrad.ops.strides import LAID_COMPOSITES
from refgrad.tensor import Tensor


def composite(
    function: Callable[..., Any] | None = None, *, method: bool = True, name: str | None = None
) -> Any:
    """Register a function that is written from other ops, as a method of Tensor too."""
    if function is None:
        return lambda f: composite(f, method=method, name=name)
    if name is not None:
        function.__name__ = name
    if function.__name__ in LAID_COMPOSITES:
        function = _laying(function, LAID_COMPOSITES[function.__name__])
    if method:
        METHODS[function.__name__] = function
    return function


def _laying(function: Callable[..., Any], rule: Any) -> Callable[..., Any]:
    """`function` with its results, which are its own, laid out by `rule`; of several one for each."""

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> Any:
        out = function(*args, **kwargs)
        raws = [raw_of(v) for v in (*args, *kwargs.values())]
        if not isinstance(out, tuple):
            return lay(out, rule, raws)
        rules = rule if type(rule) is tuple else (rule,) * len(out)
        results = [lay(o, r, raws) for o, r in zip(out, rules)]
        return type(out)(*results) if hasattr(out, "_fields") else tuple(results)

    return made


def lay(out: Any, rule: Any, raws: Sequence[Any]) -> Any:
    """A result, which no one else has yet, laid out by `rule`, given the arrays it was made of."""
    if not isinstance(out, Tensor):
        return out
    array = rule(out._array, raws)
    if array is out._array:
        return out
    if out._base is not None:
        return _copied(out, lambda input: np.copy(rule(input, raws), order="K"))
    out._array = array
    return out


_copied = Op(lambda input, copy: copy(input), name="clone", method=False).vjp(input=lambda g: g)


def alias(name: str, function: Any) -> Any:
    """Offer `function` as a method under another name too, and return it."""
    of = str(getattr(function, "__name__", name))
    if of in METHODS and METHODS[of] is function:
        METHODS[name] = function
    if of in INPLACE and INPLACE[of] is function:
        INPLACE[name] = function
    return function
