"""PyTorch's own samples, run by refgrad on the CPU and on a device: the two must agree.

    python -m tests.refgrad.on_device [NAME ...] [--limit N] [--order N]

runs all samples of the entries named (all by default) on the stand-in of the tests; `test_cuda.py`
runs some of each on CuPy. torch gives the samples and computes nothing.
"""

from __future__ import annotations

import pathlib
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

import refgrad
from tests.refgrad.against_torch import convert, gradients, leaves, resolve

DTYPES = (torch.float64, torch.float32, torch.int64, torch.complex128, torch.complex64, torch.bool)
TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "complex128": 1e-10, "complex64": 2e-5}


UNWRITTEN = {  # memory that nobody has written
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
}  # fmt: skip

# The entries of which no sample can be run by refgrad on the CPU, with the reason.
NOT_COMPARED = {
    "T": "a property, which the sample calls",
    "H": "a property, which the sample calls",
    "mT": "a property, which the sample calls",
    "mH": "a property, which the sample calls",
    "einsum": "the sample's wrapper swaps the arguments",
    "cholesky_inverse": "the sample's wrapper calls torch itself",
    "normal.in_place": "the sample is one of the method normal_",
    "zero_": "the sample's wrapper clones the leaf first",
}


@dataclass
class Report:
    """What one entry gave: how many samples agree, what differs or failed on the device, and what
    refgrad could not run on the CPU either, so that there was nothing to compare."""

    agree: int = 0
    failures: list[str] = field(default_factory=list)
    on_neither: list[str] = field(default_factory=list)


def label(entry: Any) -> str:
    """The entry's name, and its variant's."""
    return f"{entry.name}.{entry.variant_test_name}".strip(".")


def entries() -> list[Any]:
    """The entries of op_db that refgrad has."""
    return [entry for entry in op_db if entry.dtypes and resolve(entry.name)]


def moved(x: Any, device: str) -> Any:
    """A tree of refgrad's arguments with its tensors on a device, as leaves."""
    if isinstance(x, refgrad.Tensor):
        made = x.detach().to(device)
        return made.requires_grad_() if x.requires_grad else made
    if isinstance(x, refgrad.device) or (isinstance(x, str) and x == "cpu"):
        return refgrad.device(device)
    if isinstance(x, (tuple, list)) and not hasattr(x, "_fields"):
        return type(x)(moved(e, device) for e in x)
    if isinstance(x, dict):
        return {
            k: refgrad.device(device) if k == "device" and v is not None else moved(v, device)
            for k, v in x.items()
        }
    return x


class _Seeds:
    """refgrad, whose from_numpy makes tensors on the device: what `gradients` takes for a module."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.autograd = refgrad.autograd

    def from_numpy(self, array: Any) -> Any:
        return refgrad.from_numpy(array).to(self.device)


def on_host(t: Any) -> Any:
    return t.detach().cpu().numpy()


def differ(ours: Any, theirs: Any, what: str, device: str) -> str | None:
    """How a result on the device differs from the CPU's, or None."""
    if (ours is None) != (theirs is None):
        there = ours if theirs is None else theirs
        return None if not on_host(there).any() else f"{what}: only one of them has it"
    if ours is None:
        return None
    if ours.device.type != device:
        return f"{what}: lives on {ours.device}"
    a, b = on_host(ours), on_host(theirs)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{what}: {a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
    if not a.size or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
        return None
    if a.dtype.kind not in "fc":
        return f"{what}: {int((a != b).sum())} of {a.size} differ"
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return f"{what}: not finite at other places"
    error = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = max(float(np.abs(b[finite]).max(initial=0.0)), 1e-3)
    if error > TOLERANCE.get(b.dtype.name, 1e-2) * scale:
        return f"{what}: off by {error / scale:.1e} of its scale"
    return None


def run(
    entry: Any,
    device: str = "cuda",
    *,
    dtype: Any = None,
    limit: int | None = None,
    order: int = 1,
    size: int = 20_000,
) -> Report:
    """The samples of one entry on both; `size` bounds their elements, `limit` their number.

    Of `limit` samples the first is one, and the others are spread over all.
    """
    report = Report()
    dtype = dtype or next(d for d in DTYPES if d in entry.dtypes)
    function = resolve(entry.name)
    differentiable = (
        entry.supports_autograd
        and dtype in entry.dtypes
        and (dtype.is_floating_point or dtype.is_complex)
    )
    torch.manual_seed(0)
    samples = list(entry.sample_inputs("cpu", dtype, requires_grad=differentiable))
    for i in spread(len(samples), limit):
        sample = samples[i]
        given = [sample.input, sample.args, sample.kwargs]
        if sum(t.numel() for t in leaves(given, torch.Tensor)) > size:
            continue
        host = convert(given)
        there = moved(host, device)
        try:
            theirs = _results(entry, function, sample, host, i)
        except Exception as error:
            report.on_neither.append(f"[{i}] {_told(error)}")
            continue
        try:
            ours = _results(entry, function, sample, there, i)
            pairs = _compared(entry, ours, theirs, there, host, device, order, i)
            found = [f for f in pairs if f]
        except Exception as error:  # every failure is one to show
            found = [_told(error)]
        report.agree += not found
        report.failures += [f"[{i}] {f}" for f in found[:2]]
    return report


def _told(error: BaseException) -> str:
    """An error, and the innermost line of refgrad that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/refgrad/" in f.filename and "/tests/" not in f.filename]
    place = f" ({pathlib.Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {str(error)[:200]}{place}"


def spread(count: int, limit: int | None) -> list[int]:
    """Up to `limit` of `count` indices at equal distance, from 0."""
    if limit is None or count <= limit:
        return list(range(count))
    return [count * k // limit for k in range(limit)]


def _results(entry: Any, function: Any, sample: Any, given: Any, seed: int) -> list[Any]:
    refgrad.manual_seed(seed)
    input, args, kwargs = given
    made = entry.gradcheck_wrapper(function, input, *args, **kwargs)
    return leaves(sample.output_process_fn_grad(made), refgrad.Tensor)


def _compared(
    entry: Any, ours: Any, theirs: Any, there: Any, host: Any, device: str, order: int, seed: int
) -> Iterator[str | None]:
    if len(ours) != len(theirs):
        yield f"{len(ours)} results instead of {len(theirs)}"
        return
    if entry.name in UNWRITTEN:
        yield from (f"lives on {t.device}" for t in ours if t.device.type != device)
        return
    for j, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        yield differ(a, b, f"result {j}", device)
    inputs = [
        [t for t in leaves(tree, refgrad.Tensor) if t.requires_grad and t.is_leaf]
        for tree in (there, host)
    ]
    k = order if entry.supports_gradgrad else min(order, 1)
    if k and inputs[0]:
        a = gradients(_Seeds(device), ours, inputs[0], np.random.default_rng(seed), k)
        b = gradients(_Seeds("cpu"), theirs, inputs[1], np.random.default_rng(seed), k)
        n = len(inputs[0])
        if len(a) != len(b):
            yield f"{len(a)} gradients instead of {len(b)}"
        for j, (p, q) in enumerate(zip(a, b, strict=False)):
            yield differ(p, q, f"gradient {j % n} of order {j // n + 1}", device)


def main(arguments: list[str]) -> None:
    """Print what differs, entry by entry, and the count."""
    from tests.fakes.device_array import stand_in

    options = {"--limit": None, "--order": 1}
    for key in tuple(options):
        if key in arguments:
            at = arguments.index(key)
            options[key] = int(arguments[at + 1])
            arguments = arguments[:at] + arguments[at + 2 :]
    warnings.simplefilter("ignore")
    start, whole, samples = time.perf_counter(), 0, 0
    broken: list[str] = []
    neither: list[str] = []
    with stand_in():
        for entry in entries():
            if arguments and entry.name not in arguments:
                continue
            report = run(entry, limit=options["--limit"], order=options["--order"] or 1)
            compared = not report.failures and report.agree
            whole += bool(compared)
            if not compared and not report.failures:
                neither.append(label(entry))
            samples += report.agree
            if report.failures:
                broken.append(label(entry))
                n = len(report.failures)
                print(f"{label(entry)} ({report.agree} agree, {n} not): {report.failures[0]}")
    print(
        f"{whole} entries agree in all samples, {len(broken)} do not, {len(neither)} cannot be run "
        f"on the CPU either ({', '.join(neither)}); {samples} samples agree; "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
