"""refgrad on device arrays, by a stand-in for CuPy: PyTorch's samples against refgrad on the CPU.

`python -m tests.refgrad.on_device` takes all samples, and counts.
"""

from __future__ import annotations

import warnings

import pytest

import refgrad
from refgrad.libraries import ON_HOST
from tests.fakes.device_array import CALLS, stand_in
from tests.refgrad.on_device import NOT_COMPARED, entries, label, run

THROUGH_THE_HOST = (  # what is added here costs transfers, so it is deliberate
    "airy", "expm", "geqrf", "iv", "ive", "ldl_factor_ex", "ldl_solve", "lu", "not_positive",
    "permutation", "zero_pivots",
)  # fmt: skip
SECOND_ORDER = {  # of those the rules run on Tensors too, whose arrays live on the device
    "abs", "addmm", "cumprod", "exp", "fft.hfft", "fft.irfft2", "gather", "index_put",
    "linalg.cholesky", "linalg.eig", "linalg.eigh", "linalg.solve", "linalg.svd", "logcumsumexp",
    "logsumexp", "matmul", "max", "nn.functional.conv2d", "nn.functional.layer_norm",
    "nn.functional.max_pool2d", "nn.functional.pad", "norm", "prod", "scatter_add", "softmax",
    "sum", "svd", "where",
}  # fmt: skip


@pytest.mark.parametrize("index", range(len(entries())), ids=[label(e) for e in entries()])
def test_an_entry_of_op_db_runs_on_device_arrays(index: int) -> None:
    entry = entries()[index]
    with stand_in(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = run(entry, limit=2, order=2 if entry.name in SECOND_ORDER else 1)
    assert not report.failures, "\n".join(report.failures)
    compared = report.agree > 0
    assert compared != (label(entry) in NOT_COMPARED), report.on_neither


def test_the_list_of_what_is_not_compared_names_entries_alone() -> None:
    assert set(NOT_COMPARED) <= {label(e) for e in entries()}


def test_what_goes_through_the_host_is_known() -> None:
    assert sorted(ON_HOST) == sorted(THROUGH_THE_HOST)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_samples_that_write_several_values_to_one_place_can_be_left_out(n: int) -> None:
    found = {label(e): e for e in entries()}
    plain, once = (
        found[f"nn.functional.max_unpool{n}d"],
        found[f"nn.functional.max_unpool{n}d.grad"],
    )
    with stand_in():
        assert run(plain, limit=2, racing=False).undetermined
        report = run(once, limit=2, racing=False)
    assert report.undetermined == 0
    assert report.agree == 2


def test_a_convolution_asks_a_device_as_often_for_many_images_as_for_few() -> None:
    counts = []
    with stand_in():
        for n in (1, 16):
            x = refgrad.ones(n, 16, 32, 32, device="cuda", requires_grad=True)
            w = refgrad.ones(16, 16, 3, 3, device="cuda", requires_grad=True)
            CALLS.clear()
            y = refgrad.nn.functional.conv2d(x, w, padding=1)
            refgrad.autograd.grad(y, [x, w], refgrad.ones_like(y))
            counts.append(dict(CALLS))
    assert counts[0] == counts[1]


def test_results_lie_on_a_device_as_on_the_host() -> None:
    def strides(device: str) -> list[tuple[int, ...]]:
        x = refgrad.arange(24.0, device=device).reshape(2, 3, 4).permute(2, 0, 1)
        row = refgrad.arange(3.0, device=device)
        turned = refgrad.arange(24.0, device=device).reshape(4, 3, 2).transpose(1, 2)
        return [made.stride() for made in (x + row, x * turned, row - x, turned / x, x * 2)]

    with stand_in():
        assert strides("cuda") == strides("cpu")
