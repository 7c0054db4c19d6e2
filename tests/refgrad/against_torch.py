"""PyTorch's own samples, run on torch and on refgrad: what every op of refgrad is held to.

`python -m tests.refgrad.against_torch NAME ...` prints the disagreements of the entries named
(all that refgrad has by default), for work on an op; `test_opinfo.py` asserts that there are none.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

import refgrad
from tests.refgrad.op_db import op_db

TOLERANCE = 1e-11


REORDERED = {  # the entries whose samples do not have the arguments in the function's order
    "nn.functional.embedding": lambda weight, index, **options: refgrad.nn.functional.embedding(
        index, weight, **options
    ),
    "nn.functional.embedding_bag": lambda weight, index, **options: (
        refgrad.nn.functional.embedding_bag(index, weight, **options)
    ),
    "where": lambda input, condition, other: refgrad.where(condition, input, other),
    "polygamma": lambda input, n: refgrad.polygamma(n, input),
    "special.polygamma": lambda input, n: refgrad.special.polygamma(n, input),
}


def resolve(name: str) -> Any:
    """refgrad's function of that dotted name, or None."""
    found: Any = refgrad
    if name in REORDERED:
        return REORDERED[name]
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return getattr(refgrad.Tensor, name, None)
    return getattr(refgrad.Tensor, name, None) if isinstance(found, refgrad.dtype) else found


def convert(x: Any) -> Any:
    """A tree of torch's arguments as refgrad's, values and strides kept."""
    if isinstance(x, torch.Tensor):
        made = refgrad.from_numpy(x.detach().resolve_conj().resolve_neg().clone().numpy())
        return made.requires_grad_(x.requires_grad) if x.requires_grad else made
    if isinstance(x, torch.dtype):
        return getattr(refgrad, str(x).split(".")[1])
    if isinstance(x, torch.device):
        return refgrad.device(str(x))
    if isinstance(x, torch.Size):
        return tuple(x)
    if isinstance(x, (tuple, list)) and not hasattr(x, "_fields"):
        return type(x)(convert(e) for e in x)
    if isinstance(x, dict):
        return {k: convert(v) for k, v in x.items()}
    if isinstance(x, torch.nn.PairwiseDistance):
        return refgrad.nn.functional.pairwise_distance
    if callable(x):  # a distance of torch's
        return getattr(refgrad.nn.functional, getattr(x, "__name__", ""), x)
    return x


def leaves(x: Any, kind: type) -> list[Any]:
    """The tensors of a tree, depth first."""
    if isinstance(x, kind):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for e in x for t in leaves(e, kind)] if isinstance(x, (tuple, list)) else []


def differ(
    ours: Any, theirs: torch.Tensor | None, what: str, tolerance: float = TOLERANCE
) -> str | None:
    """How two results differ, or None."""
    if (ours is None) != (theirs is None):
        there = ours if theirs is None else theirs
        if not there.detach().numpy().any():
            return None  # None and zero are one gradient
        return f"{what}: refgrad has {'none' if ours is None else 'one'}, torch the contrary"
    if ours is None or theirs is None:
        return None
    a = ours.detach().numpy()
    b = theirs.detach().resolve_conj().resolve_neg().clone().numpy()
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{what}: {a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
    if not a.size or (a.dtype.kind not in "fc" and np.array_equal(a, b)):
        return None
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(
        a[~finite], b[~finite], equal_nan=True
    ):
        return f"{what}: not finite at other places or in another way"
    single = b.dtype in (np.float32, np.complex64)
    floor = 1.0 if single else 1e-3  # below that it is rounding
    scale = max(float(np.abs(b[finite]).max(initial=0.0)), floor)
    error = float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale
    return (
        f"{what}: off by {error:.1e} of its scale"
        if error > (1e-5 if single else tolerance)
        else None
    )


def gradients(
    module: Any, outputs: list[Any], inputs: list[Any], rng: Any, order: int
) -> list[Any]:
    """The vjps of orders 1 to `order`, along random cotangents that both engines share."""
    found = []
    for k in range(order):
        outputs = [o for o in outputs if o is not None and o.requires_grad]
        if not outputs or not inputs:
            break
        seeds = []
        for o in outputs:
            seed = rng.standard_normal(tuple(o.shape))
            if o.is_complex():
                seed = seed + 1j * rng.standard_normal(tuple(o.shape))
            seed = np.asarray(seed, dtype=str(o.dtype).rpartition(".")[2])
            seeds.append(module.from_numpy(seed))
        outputs = list(
            module.autograd.grad(
                outputs, inputs, seeds, create_graph=k + 1 < order, allow_unused=True
            )
        )
        found += outputs
    return found


def disagreements(
    entry: Any,
    dtype: Any = torch.float64,
    order: int = 2,
    limit: int | None = None,
    tolerance: float = TOLERANCE,
) -> Iterator[str]:
    """What differs between refgrad and torch over the samples of one entry of op_db.

    Values, dtypes and shapes of results, first-order gradients, and second-order ones.
    """
    function = resolve(entry.name)
    torch.manual_seed(0)
    differentiable = (
        entry.supports_autograd
        and dtype in entry.dtypes
        and (dtype.is_floating_point or dtype.is_complex)
    )
    for i, sample in enumerate(entry.sample_inputs("cpu", dtype, requires_grad=differentiable)):
        if limit is not None and i >= limit:
            return
        given = (sample.input, sample.args, sample.kwargs)
        where = (
            f"{entry.name}{'.' + entry.variant_test_name if entry.variant_test_name else ''}[{i}]"
        )
        if sum(t.numel() for t in leaves(list(given), torch.Tensor)) > 200_000:
            continue
        ours_given = convert(list(given))
        try:
            input, args, kwargs = ours_given
            ours = (
                entry.gradcheck_wrapper(function, input, *args, **kwargs)
                if differentiable
                else function(input, *args, **kwargs)
            )
            ours = sample.output_process_fn_grad(ours)
            theirs = sample.output_process_fn_grad(
                entry.gradcheck_wrapper(entry.op, given[0], *given[1], **given[2])
                if differentiable
                else entry.op(given[0], *given[1], **given[2])
            )
            mine, yours = leaves(ours, refgrad.Tensor), leaves(theirs, torch.Tensor)
            if len(mine) != len(yours):
                yield f"{where}: {len(mine)} results instead of {len(yours)}"
                continue
            found = [
                differ(a, b, f"result {j}", tolerance)
                for j, (a, b) in enumerate(zip(mine, yours, strict=True))
            ]
            if differentiable:
                k = order if entry.supports_gradgrad else 1
                of_mine = [t for t in leaves(ours_given, refgrad.Tensor) if t.requires_grad]
                of_yours = [t for t in leaves(list(given), torch.Tensor) if t.requires_grad]
                a = gradients(refgrad, mine, of_mine, np.random.default_rng(i), k)
                b = gradients(torch, yours, of_yours, np.random.default_rng(i), k)
                n = len(of_mine)
                found += [
                    differ(p, q, f"gradient {j % n} of order {j // n + 1}", tolerance)
                    for j, (p, q) in enumerate(zip_longest(a, b))  # none and zero are one gradient
                ]
        except Exception as error:  # every failure of either engine is a disagreement to show
            found = [f"{type(error).__name__}: {str(error)[:300]}"]
        yield from (f"{where}: {f}" for f in found if f)


def main(names: list[str]) -> None:
    """Print the disagreements of the entries named, of order 2 or of `--order N`."""
    order = 2
    if "--order" in names:
        at = names.index("--order")
        order = int(names[at + 1])
        names = names[:at] + names[at + 2 :]
    warnings.simplefilter("ignore")
    held = lacking = 0
    for entry in op_db:
        if names and entry.name not in names:
            continue
        if resolve(entry.name) is None:
            lacking += 1
            if names:
                print(f"{entry.name}: refgrad lacks it")
            continue
        for dtype in (
            torch.float64,
            *((torch.int64,) if names else ()),
            *((torch.complex128,) if names else ()),
        ):
            if dtype not in entry.dtypes:
                continue
            found = list(disagreements(entry, dtype, order))
            held += not found
            for line in found[:6]:
                print(str(dtype)[6:], line)
            if len(found) > 6:
                print(f"    ... {len(found)} in all")
    print(f"{held} entries and dtypes agree; refgrad lacks {lacking} entries")


if __name__ == "__main__":
    main(sys.argv[1:])
