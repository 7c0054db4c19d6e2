"""Second order by all four routes: reverse and forward mode, each over each, on op_db's samples."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.against_torch import convert, leaves, resolve
from tests.refgrad.jvp_against_torch import direction, mapped
from tests.refgrad.test_forward import ENTRIES

SAMPLES = 1
LEFT_OUT = {"subgradients_at_zero": "where the norm is 0 it has no second derivative"}


def scalars(entry: Any, dtype: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The first samples of an entry as real functions of what requires grad, and these tensors."""
    torch.manual_seed(0)
    function, wrapper = resolve(entry.name), entry.gradcheck_wrapper
    samples = entry.sample_inputs("cpu", dtype, requires_grad=True)
    for sample in itertools.islice(samples, SAMPLES):
        given = convert([sample.input, list(sample.args), sample.kwargs])
        tensors = [t for t in leaves(given, refgrad.Tensor) if t.requires_grad]
        if not tensors or sum(t.numel() for t in tensors) > 3000:
            continue
        places = {id(t): k for k, t in enumerate(tensors)}

        def scalar(*xs: Any, given: Any = given, places: Any = places, sample: Any = sample) -> Any:
            def chosen(t: Any) -> Any:
                return xs[places[id(t)]] if id(t) in places else t

            input, args, kwargs = mapped(given, chosen)
            results = sample.output_process_fn_grad(wrapper(function, input, *args, **kwargs))
            rng = np.random.default_rng(99)
            weighted = [
                (t * direction(refgrad, t, rng)).sum()
                for t in leaves(results, refgrad.Tensor)
                if t.is_floating_point() or t.is_complex()
            ]
            return sum(w.real if w.is_complex() else w for w in weighted)

        yield scalar, tuple(t.detach() for t in tensors)


def contracted(gradients: Any, directions: Any) -> Any:
    """Re <g, d> over all inputs."""
    products = [(g * d.conj()).sum() for g, d in zip(gradients, directions, strict=True)]
    return sum(p.real if p.is_complex() else p for p in products)


@pytest.mark.parametrize(
    "entry",
    [e for e in ENTRIES if e.variant_test_name not in LEFT_OUT],
    ids=lambda e: f"{e.name}-{e.variant_test_name}".strip("-"),
)
def test_routes_agree(entry: Any) -> None:
    def along(f: Any, xs: Any, directions: Any, forward: bool) -> Any:
        if forward:
            return refgrad.func.jvp(f, xs, directions)[1]
        return contracted(refgrad.func.grad(f, tuple(range(len(xs))))(*xs), directions)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in (torch.float64, torch.complex128):
            for f, xs in scalars(entry, dtype) if dtype in entry.dtypes else ():
                rng = np.random.default_rng(0)
                s, t = (tuple(direction(refgrad, x, rng) for x in xs) for _ in range(2))
                found = [
                    along(lambda *xs, f=f, s=s, i=inner: along(f, xs, s, i), xs, t, outer).item()
                    for outer, inner in itertools.product((False, True), repeat=2)
                ]
                np.testing.assert_allclose(
                    found, found[0], rtol=1e-9, atol=1e-9 * max(1.0, np.abs(found[0]))
                )
