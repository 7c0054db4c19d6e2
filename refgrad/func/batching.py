"""vmap, by a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from refgrad.ops.indexing import select
from refgrad.ops.joining import stack
from refgrad.tensor import Tensor
from refgrad.trees import flatten, prefix, unflatten

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """The function that maps `func` over a dimension of its inputs, here by a plain loop.

    `in_dims` says which dimension of each input (None: it is not mapped over), `out_dims` where it
    stands in the outputs; each is an int or a tree of ints. The results are PyTorch's; the speed is
    that of as many calls as the dimension is long, and `func` draws anew in each. `randomness`
    and `chunk_size` are accepted and change nothing.

    Raises:
        ValueError: (when called) there is nothing to map over, the sizes differ, `in_dims` or
            `out_dims` do not fit.
        RuntimeError: `randomness` is no word that PyTorch knows.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(
            "Only allowed values for randomness are 'error', 'different', or 'same'. Got "
            f"{randomness}"
        )
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = getattr(func, "__name__", repr(func))

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>)"
        flat, spec = flatten(args)
        dims = _in_dims(in_dims, flat, spec, given)
        named, named_spec = flatten(kwargs)  # these are mapped over their first dimension
        flat, dims = flat + named, dims + [0 if isinstance(t, Tensor) else None for t in named]
        found = [t.shape[d] for t, d in zip(flat, dims, strict=True) if d is not None]
        sizes = set(found)
        if not sizes:
            raise ValueError("vmap: Expected at least one Tensor to vmap over")
        if len(sizes) > 1:
            raise ValueError(
                "vmap: Expected all tensors to have the same size in the mapped dimension, got "
                f"sizes {found} for the mapped dimension"
            )
        (size,) = sizes
        if size == 0:
            raise ValueError("refgrad's vmap needs a mapped dimension of at least one element")
        results = []
        for i in range(size):
            each = [t if d is None else select(t, d, i) for t, d in zip(flat, dims, strict=True)]
            n = len(each) - len(named)
            output = func(*unflatten(each[:n], spec), **unflatten(each[n:], named_spec))
            leaves, out_spec = flatten(output)
            results.append(leaves)
        for leaf in results[0]:
            if not isinstance(leaf, Tensor):
                raise ValueError(
                    f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(leaf)}. "
                    "Did you mean to set out_dims= to None for output?"
                )
        places = prefix(out_dims, out_spec)
        if places is None and isinstance(out_dims, tuple) and len(out_dims) == 1:
            places = prefix(out_dims[0], out_spec)
        if places is None or not all(isinstance(d, int) for d in places):
            raise ValueError(
                f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible "
                f"with the structure of `outputs`, {out_spec}: give an int, or one for each output."
            )
        stacked = [stack([leaves[k] for leaves in results], d) for k, d in enumerate(places)]
        return unflatten(stacked, out_spec)

    return wrapped


def _in_dims(in_dims: Any, flat: list[Any], spec: Any, given: str) -> list[Any]:
    """The dimension to map over of each input, from 0, or None.

    Raises:
        ValueError: `in_dims` does not fit the inputs.
    """
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"{given}: expected `in_dims` to be int or a (potentially nested) tuple matching the "
            f"structure of inputs, got: {type(in_dims)}."
        )
    if not flat:
        raise ValueError(
            f"{given}: got no inputs. Maybe you forgot to add inputs, or you are trying to vmap "
            "over a function with no inputs. The latter is unsupported."
        )
    dims = prefix(in_dims, spec)
    if dims is None:
        raise ValueError(
            f"{given}: in_dims is not compatible with the structure of `inputs`, {spec}."
        )
    for d, t in zip(dims, flat, strict=True):
        if d is None:
            continue
        if not isinstance(d, int):
            raise ValueError(
                f"{given}: Got in_dim={d} for an input but in_dim must be either an integer "
                "dimension or None."
            )
        if not isinstance(t, Tensor):
            raise ValueError(
                f"{given}: Got in_dim={d} for an input but the input is of type {type(t)}. We "
                "cannot vmap over non-Tensor arguments, please use None as the respective in_dim"
            )
        if not -t.ndim <= d < t.ndim:
            raise ValueError(
                f"{given}: Got in_dim={d} for some input, but that input is a Tensor of "
                f"dimensionality {t.ndim} so expected in_dim to satisfy -{t.ndim} <= in_dim < "
                f"{t.ndim}."
            )
    return dims
