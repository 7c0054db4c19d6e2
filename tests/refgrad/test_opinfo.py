"""Every op of refgrad on PyTorch's own samples: values, first- and second-order gradients.

Running a rule under create_graph is its second reading; the first is the plain backward. The
harness takes all samples (`make conformance`); here each entry gives its first few.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.refgrad.against_torch import TOLERANCE, disagreements, resolve
from tests.refgrad.op_db import op_db

ENTRIES = [entry for entry in op_db if resolve(entry.name) is not None]
SAMPLES = 6

# What differs on purpose or is no fair comparison, with the reason.
LEFT_OUT = {
    "T": "a property, which the sample calls",
    "H": "a property, which the sample calls",
    "mT": "a property, which the sample calls",
    "mH": "a property, which the sample calls",
    "einsum": "the sample's wrapper swaps the arguments; the harness captures the call itself",
    "cholesky_inverse": "the sample's wrapper calls torch itself; test_linalg has it",
    "linalg.householder_product": "torch's second order is off by 1e-9; test_linalg has the first",
    "linalg.lstsq.grad_oriented": "a composition that calls torch itself; test_linalg runs it",
    "linalg.pinv.singular": "a composition that calls torch itself; test_linalg runs it",
    **dict.fromkeys(
        ("nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
         "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout.with_train",
         "nn.functional.fractional_max_pool3d", "nn.functional.multi_head_attention_forward",
         "nn.functional.scaled_dot_product_attention"),
        "the samples draw random numbers; test_nn has it",
    ),
    "nn.functional.ctc_loss": "torch has no second order; test_nn has the first",
    "nn.functional.linear_cross_entropy.chunked": "torch has no second order",
    "nn.functional.linear_cross_entropy.chunked_none": "torch has no second order",
    "nn.functional.binary_cross_entropy": "torch's second order is off by the 1e-12 it adds",
    "nn.functional.normalize": "a second derivative is 0 in truth, and rounding in both",
    "nn.functional.layer_norm": "a second derivative is nearly 0, and rounding in both",
    "native_layer_norm": "torch fails at second order without a weight; test_nn has the first",
    "as_strided.partial_views": "reads beyond the views that the samples are converted to",
    "zero_": "the sample's wrapper clones the leaf first; test_inplace has it",
    **dict.fromkeys(
        ("as_strided_scatter", "nn.functional.max_unpool1d.", "nn.functional.max_unpool2d.",
         "nn.functional.max_unpool3d."),
        "torch's gradient is wrong: see conformance/expectations/torch.json",
    ),
    **dict.fromkeys(
        ("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial",
         "nn.functional.rrelu", "normal", "rand_like", "randint", "randint_like", "randn",
         "randn_like", "uniform"),
        "random numbers; test_random and test_activations have what can be compared",
    ),
    **dict.fromkeys(
        ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty",
         "new_empty_strided"),
        "memory that nobody has written",
    ),
}  # fmt: skip

# Dtypes that are left out: integers tie, and torch leaves open which of equals it takes; in float32
# the second order of these is rounding in both.
ONLY = {
    **dict.fromkeys(("kthvalue", "mode", "topk"), (torch.float64, torch.float32)),
    **dict.fromkeys(
        ("addcdiv", "atanh", "index_reduce", "logcumsumexp", "scatter_reduce", "special.log_ndtr"),
        (torch.float64, torch.int64, torch.complex128),
    ),
}

# Where torch itself is less accurate than 1e-11 (each checked with mpmath), what it comes to.
TORCH_IS_OFF_BY = {
    **dict.fromkeys(("digamma", "lgamma", "mvlgamma", "polygamma"), 1e-9),  # its trigamma
    "nn.functional.hardsigmoid": 1e-7,  # it divides by 6 in float32
    "logcumsumexp": 1e-7,
    "special.log_ndtr": 1e-4,
    **dict.fromkeys(
        ("special.airy_ai", "special.bessel_j0", "special.bessel_j1", "special.bessel_y0",
         "special.bessel_y1"),
        1e-6,
    ),
}  # fmt: skip


def dtypes_of(entry: Any) -> list[Any]:
    wanted = (torch.float64, torch.float32, torch.int64, torch.complex128)
    return [d for d in ONLY.get(entry.name, wanted) if d in entry.dtypes]


@pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda e: f"{e.name}-{e.variant_test_name}".strip("-")
)
def test_agrees_with_torch(entry: Any) -> None:
    for name in (entry.name, f"{entry.name}.{entry.variant_test_name}"):
        if name in LEFT_OUT:
            pytest.skip(LEFT_OUT[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            f"{dtype}: {line}"
            for dtype in dtypes_of(entry)
            for line in disagreements(
                entry, dtype, limit=SAMPLES, tolerance=TORCH_IS_OFF_BY.get(entry.name, TOLERANCE)
            )
        ]
    assert not found, "\n".join(found[:5])


def test_most_of_op_db_is_covered() -> None:
    assert len(ENTRIES) >= 400
