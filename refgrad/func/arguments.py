"""What the transforms of torch.func take and give: arguments by position, trees of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad.ops.placing import constant
from refgrad.tensor import Tensor
from refgrad.trees import flatten

Function = Callable[..., Any]
Argnums = int | tuple[int, ...]


def chosen(args: tuple[Any, ...], argnums: Any) -> tuple[int, ...]:
    """The positions of the arguments to differentiate, from 0.

    Raises:
        RuntimeError: `argnums` is neither an int nor a tuple of distinct ints in range.
    """
    if not isinstance(argnums, (int, tuple)):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    places = []
    for i in argnums if isinstance(argnums, tuple) else (argnums,):
        if not isinstance(i, int):
            raise RuntimeError(f"argnum must be int, got: {type(i)}")
        if not -len(args) <= i < len(args):
            raise RuntimeError(f"Got argnum={i}, but only {len(args)} positional inputs")
        places.append(i % len(args))
    if not places:
        raise RuntimeError("argnums must be non-empty")
    if len(set(places)) != len(places):
        raise RuntimeError(f"argnums elements must be unique, got {argnums}")
    return tuple(places)


def picked(args: tuple[Any, ...], argnums: Argnums | None) -> Any:
    """The arguments to differentiate, as one tree; with None all."""
    if argnums is None:
        return args
    places = chosen(args, argnums)
    return args[places[0]] if isinstance(argnums, int) else tuple(args[i] for i in places)


def replaced(args: tuple[Any, ...], argnums: Argnums | None, new: Any) -> tuple[Any, ...]:
    """`args` with `new` for what `picked` takes of them."""
    if argnums is None:
        return tuple(new)
    places = chosen(args, argnums)
    by_place = dict(zip(places, (new,) if isinstance(argnums, int) else new, strict=True))
    return tuple(by_place.get(i, a) for i, a in enumerate(args))


def split_aux(output: Any, has_aux: bool, api: str) -> tuple[Any, Any]:
    if not has_aux:
        return output, None
    if not (isinstance(output, tuple) and len(output) == 2):
        raise RuntimeError(
            f"{api}: output of function f should be a tuple: (output, aux) if has_aux is True"
        )
    return output


def check_outputs(flat: Sequence[Any], api: str) -> None:
    if not flat or (len(flat) == 1 and flat[0] is None):
        raise RuntimeError(
            f"{api}: Expected f to be a function that has non-empty output (got output = {flat})"
        )
    for o in flat:
        if not isinstance(o, Tensor):
            raise RuntimeError(
                f"{api}: expected f(*primals) to return only tensors, got unsupported type "
                f"{type(o)}"
            )


def check_real(api: str, tree: Any, which: str) -> None:
    for i, t in enumerate(flatten(tree)[0]):
        if isinstance(t, Tensor) and t.is_complex():
            raise RuntimeError(
                f"{api}: Expected all {which} to be real but received complex tensor at flattened "
                f"input idx: {i}"
            )


def basis(t: Any) -> list[Any]:
    """The tensors like `t` with a single one and zeros else."""
    size, shape, dtype = t._array.size, t._array.shape, t._array.dtype
    return [constant((np.arange(size) == i).astype(dtype).reshape(shape), t) for i in range(size)]
