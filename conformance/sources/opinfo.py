"""Source `opinfo`: PyTorch's own samples, each a Program captured from the entry's callable.

An entry of op_db says how its derivative is meant: `gradcheck_wrapper` makes a valid input of the
sample (a symmetric matrix for cholesky), `output_process_fn_grad` takes the part of the output that
is well defined (the sign of an eigenvector is not).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.errors import CaptureError
from conformance.program import Program
from conformance.sources.base import Item, Sample, Skipped

if TYPE_CHECKING:
    from conformance.settings import Settings

LIMIT = 1_000_000
"""Samples whose inputs have more elements in all are skipped, and say so."""


class OpInfo:
    """One item an entry of op_db that supports autograd."""

    name = "opinfo"
    items_name_ops = True  # the op of every sample is its item's

    def items(self, settings: Settings) -> list[Item]:
        """The entries, by name and variant."""
        return [Item(self.name, name, name) for name in entries()]

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """The entry's samples in the chosen dtypes, the same in every process."""
        import torch

        entry = entries().get(item.key)
        if entry is None:
            yield Skipped(item.op, item.key, "this version of torch has no such entry")
            return
        for name in settings.dtypes or (settings.main_dtype,):
            dtype = getattr(torch, name)
            if dtype not in entry.dtypes:
                yield Skipped(item.op, f"{item.key} {name}", f"the entry has no {name} samples")
                continue
            if dtype not in entry.backward_dtypes:
                reason = f"torch has no derivative of it in {name}, as the entry says"
                yield Skipped(item.op, f"{item.key} {name}", reason)
                continue
            yield from _drawn(item, entry, dtype, settings.samples_per_entry)


def _drawn(item: Item, entry: Any, dtype: Any, limit: int | None) -> Iterator[Sample | Skipped]:
    """The entry's samples in one dtype."""
    import torch

    seed = zlib.crc32(item.key.encode())
    name = str(dtype).removeprefix("torch.")
    suffix = "" if name == "float64" else f" {name}"
    with torch.random.fork_rng(devices=[]):
        _seed(seed)
        made = entry.sample_inputs("cpu", dtype, requires_grad=True)
        for number, sample in enumerate(made):
            if limit is not None and number >= limit:
                return
            with torch.random.fork_rng(devices=[]):
                _seed(seed + number)
                yield _program(item, f"sample {number}{suffix}", entry, sample)


@cache
def entries() -> dict[str, Any]:
    """op_db's entries that support autograd, by name with the variant: "norm.fro"."""
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, Any] = {}
    for entry in op_db:
        if entry.supports_autograd:
            variant = f".{entry.variant_test_name}" if entry.variant_test_name else ""
            found[f"{entry.name}{variant}"] = entry
    return found


def _seed(seed: int) -> None:
    import torch

    # torch.manual_seed would queue a call for each accelerator, with a stack trace: 1 ms
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _program(item: Item, label: str, entry: Any, sample: Any) -> Sample | Skipped:
    from conformance.sources.captured import capture
    from conformance.sources.trees import tensors_of

    arguments = (sample.input, *sample.args)
    size = sum(t.numel() for t in tensors_of((arguments, sample.kwargs)))
    if size > LIMIT:
        return Skipped(item.op, label, f"its inputs have {size:,} elements, the limit is {LIMIT:,}")
    try:
        made = capture(_callable(entry, sample), arguments, sample.kwargs)
    except CaptureError as error:
        return Skipped(item.op, label, str(error))
    if not made.program.calls:
        reason = (
            f"random: {'; '.join(made.notes)}"
            if made.notes
            else "the result is a constant: no call leads to it"
        )
        return Skipped(item.op, label, reason)
    return Sample(item.op, made.program, made.values, label, _note(made.program, made.notes))


def _callable(entry: Any, sample: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        out = entry.gradcheck_wrapper(entry.get_op(), *args, **kwargs)
        return sample.output_process_fn_grad(out)

    return call


def _note(program: Program, notes: tuple[str, ...]) -> str:
    return "; ".join(notes) if program.leaves else "; ".join((*notes, "nothing requires grad"))
