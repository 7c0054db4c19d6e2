"""check_gradients of what stands on a GPU: on a stand-in, and on a real one where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from conformance.api import check_gradients
from conformance.engines.torch import TorchEngine, unrounded
from conformance.specs import spec
from tests.fakes import accelerator

WRONG = {
    "wrong": "the gradient is 2 times the right one",
    "wrong_within": "the gradient is 2 times the right one",
    "wrong_bfloat16": "the gradient is 1.05 times the right one, in more precision as well",
    "wrong_batch": "its rule for vmap does not give what a loop over the samples gives",
    "custom_op": "the gradient is 1.5 (3/2; 3 is the size of axis 0) times the right one",
}
CAPTURED = ("module", "float32", "picks", "drops", "closure", "complex", "half", "bfloat16")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs torch with a GPU")
DEVICES = [
    accelerator.NAME,
    pytest.param("cuda", marks=[pytest.mark.cuda, CUDA]),
]


@pytest.fixture(scope="module", params=DEVICES)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.conformance.on_accelerator", request.param]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reports: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reports


def test_what_is_wrong_there_is_found_and_nothing_else(found: dict[str, Any]) -> None:
    assert {name for name, report in found.items() if report["failed"]} == set(WRONG)
    for name, said in WRONG.items():
        assert said in found[name]["text"]


def test_what_computes_there_alone_is_captured(found: dict[str, Any]) -> None:
    boxed = {name for name, report in found.items() if "judged as a black box" in report["text"]}
    assert not boxed.intersection(CAPTURED)
    assert "a Program is on one device, and here are tensors on cpu and" in found["moves"]["text"]


def test_the_numerical_derivative_is_taken_there(found: dict[str, Any]) -> None:
    assert "stencil on torch on" in found["right"]["text"]


def test_float32_is_not_rounded_to_tf32_meanwhile() -> None:
    def settings() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch._C._get_cudnn_allow_tf32()

    before = settings()
    torch.set_float32_matmul_precision("high")
    try:
        with unrounded():
            assert settings() == ("highest", False)
        assert settings() == ("high", before[1])
    finally:
        torch.set_float32_matmul_precision(before[0])


@pytest.mark.cuda
@CUDA
class TestTriton:
    """Kernels of one's own, of float32 alone."""

    @pytest.mark.parametrize("name", ["Softmax", "Bias"])
    def test_right_ones_pass(self, name: str) -> None:
        from tests.conformance import triton_kernels

        rule = getattr(triton_kernels, name)
        inputs = [spec("float32[n, m]"), spec("float32[m]")][: 1 if name == "Softmax" else 2]
        report = check_gradients(rule.apply, *inputs, device="cuda")
        assert not report.failed, report

    @pytest.mark.parametrize("name", ["AsItLies", "WithoutTail"])
    def test_wrong_ones_do_not(self, name: str) -> None:
        from tests.conformance import triton_kernels

        rule = getattr(triton_kernels, name)
        report = check_gradients(rule.apply, spec("float32[n, m]"), device="cuda")
        assert report.failed, report


@pytest.mark.cuda
@CUDA
def test_convolutions_and_recurrences_of_cudnn_pass() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 6, 6, device="cuda", requires_grad=True)
    assert not check_gradients(torch.nn.Conv2d(3, 4, 3).cuda(), image).failed
    sequence = torch.randn(4, 2, 3, device="cuda", requires_grad=True)
    report = check_gradients(torch.nn.LSTM(3, 5).cuda(), sequence)
    assert not report.failed, report
    assert TorchEngine("cuda").describe().devices == ("cpu", "cuda")
