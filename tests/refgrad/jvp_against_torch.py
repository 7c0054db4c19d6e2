"""Forward mode on PyTorch's own samples: the tangents of every op, held to torch's.

`python -m tests.refgrad.jvp_against_torch NAME ...` prints the disagreements of the entries named
(all that refgrad has by default); `test_forward.py` asserts that there are none.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

import refgrad
from tests.refgrad.against_torch import convert, differ, leaves, resolve
from tests.refgrad.op_db import op_db


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of arguments with its tensors changed."""
    if isinstance(tree, (torch.Tensor, refgrad.Tensor)):
        return change(tree)
    if isinstance(tree, dict):
        return {k: mapped(v, change) for k, v in tree.items()}
    if isinstance(tree, (tuple, list)) and not hasattr(tree, "_fields"):
        return type(tree)(mapped(v, change) for v in tree)
    return tree


def direction(module: Any, t: Any, rng: Any) -> Any:
    """A random tensor of the shape and dtype of `t`, the same under both modules."""
    made = rng.standard_normal(tuple(t.shape))
    if t.is_complex():
        made = made + 1j * rng.standard_normal(tuple(t.shape))
    return module.from_numpy(np.asarray(made)).to(t.dtype)


def tangents(
    module: Any, function: Any, given: Any, seed: int, after: Callable[[Any], Any]
) -> list[tuple[Any, Any]]:
    """Each result of `function` with its tangent, along a random direction."""
    forward, rng = module.autograd.forward_ad, np.random.default_rng(seed)

    def dual(t: Any) -> Any:
        if not t.requires_grad:
            return t
        return forward.make_dual(t.detach(), direction(module, t, rng))

    with forward.dual_level():
        input, args, kwargs = mapped(list(given), dual)
        results = leaves(after(function(input, *args, **kwargs)), module.Tensor)
        return [tuple(forward.unpack_dual(t)) for t in results]


def disagreements(
    entry: Any, dtype: Any = torch.float64, limit: int | None = None
) -> Iterator[str]:
    """What differs between the tangents of refgrad and torch over the samples of an entry."""
    torch.manual_seed(0)
    for i, sample in enumerate(entry.sample_inputs("cpu", dtype, requires_grad=True)):
        if limit is not None and i >= limit:
            return
        given = [sample.input, sample.args, sample.kwargs]
        name = entry.name + (f".{entry.variant_test_name}" if entry.variant_test_name else "")
        if sum(t.numel() for t in leaves(given, torch.Tensor)) > 20_000:
            continue
        try:
            after = sample.output_process_fn_grad
            theirs = tangents(torch, partial(entry.gradcheck_wrapper, entry.op), given, i, after)
        except (NotImplementedError, RuntimeError) as error:
            if "forward" in str(error).lower():  # torch has no jvp here
                continue
            yield f"{name}[{i}]: torch: {type(error).__name__}: {str(error)[:200]}"
            continue
        try:
            function = partial(entry.gradcheck_wrapper, resolve(entry.name))
            ours = tangents(refgrad, function, convert(given), i, after)
        except Exception as error:  # every failure is a disagreement to show
            yield f"{name}[{i}]: {type(error).__name__}: {str(error)[:300]}"
            continue
        for j, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            found = differ(a[0], b[0], f"result {j}") or differ(a[1], b[1], f"tangent {j}")
            if found:
                yield f"{name}[{i}]: {found}"


def main(names: list[str]) -> None:
    """Print the disagreements of the entries named."""
    warnings.simplefilter("ignore")
    held = 0
    for entry in op_db:
        if (names and entry.name not in names) or resolve(entry.name) is None:
            continue
        for dtype in (torch.float64, *((torch.complex128,) if names else ())):
            if dtype not in entry.dtypes or not entry.supports_autograd:
                continue
            found = list(disagreements(entry, dtype, limit=None if names else 12))
            held += not found
            for line in found[:4]:
                print(str(dtype)[6:], line, flush=True)
            if len(found) > 4:
                print(f"    ... {len(found)} in all")
    print(f"{held} entries and dtypes agree")


if __name__ == "__main__":
    main(sys.argv[1:])
