"""Functions and modules of torch.compile: the code that it made is judged, and left as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conformance import check_gradients
from conformance.checks.invariants import READS_MEMORY
from conformance.cli import main
from tests.conformance.test_black_box import D, Doubled, leaf


def test_compiled_code_is_a_black_box() -> None:
    compiled = torch.compile(lambda x: (x.sin() * x).sum(0), backend="eager")
    report = check_gradients(compiled, leaf(3, 4))
    assert report.ok, report
    assert any("torch.compile" in note for note in report.notes)


class Backend:
    """A compiler that counts; with `wrong`, its code has twice the gradient."""

    def __init__(self, *, wrong: bool = False) -> None:
        self.wrong, self.compiled, self.ran = wrong, 0, 0

    def __call__(self, module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.compiled += 1

        def run(*given: torch.Tensor) -> list[torch.Tensor]:
            self.ran += 1
            made = list(module(*given))
            return [Doubled.apply(torch.ones_like(t), t) for t in made] if self.wrong else made

        return run


def stopped(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() * x.detach()).sum(0)


def rounded(x: torch.Tensor) -> torch.Tensor:
    return (x.float().sin() * x).sum(0)


@pytest.mark.parametrize("function", [lambda x: (x.sin() * x).sum(0), stopped, rounded])
def test_what_is_compiled_is_judged_as_it_is_compiled(function: Any) -> None:
    backend = Backend()
    compiled = torch.compile(function, backend=backend)
    report = check_gradients(compiled, leaf(3, 4))
    assert report.ok, report
    assert backend.compiled > 0
    ran = backend.ran
    assert ran > 0
    compiled(leaf(3, 4))  # nor is it left uncompiled
    assert backend.ran == ran + 1

    report = check_gradients(torch.compile(function, backend=Backend(wrong=True)), leaf(3, 4))
    assert "2 times" in str(report), report


class Activation(nn.Module):
    """torch leaves modules of its own alone that are told to compile themselves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh()


@pytest.mark.parametrize("part", ["whole", "of itself", "of a part", "more than eight kinds"])
def test_a_module_is_judged_as_it_is_compiled(part: str) -> None:
    backend = Backend(wrong=True)
    module = Activation()
    judged: Any = nn.Sequential(nn.Linear(4, 4).double(), module)
    if part == "of a part":
        module.compile(backend=backend)
    elif part == "of itself":
        judged = module
        module.compile(backend=backend)
    elif part == "whole":
        judged = torch.compile(judged, backend=backend)
    else:  # from which on torch runs it as it is written
        judged = torch.compile(module, backend=backend, dynamic=False)
        for size in range(2, 12):
            judged(leaf(size, 4))
        backend.ran = 0
        judged(leaf(12, 4))
        assert not backend.ran
    report = check_gradients(judged, leaf(3, 4))
    assert backend.ran > 0
    assert "2 times" in str(report), report


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor needs a C++ compiler")
def test_that_code_of_the_inductor_reads_memory_as_it_lies_is_said() -> None:
    compiled = torch.compile(lambda x: (x.sin() * x).sum())
    negated = torch._neg_view(torch.tensor(2.0, dtype=D))
    given = leaf(3)
    (found,) = torch.autograd.grad(compiled(given), given, negated)
    (right,) = torch.autograd.grad((given.sin() * given).sum(), given, negated)
    report = check_gradients(compiled, given)
    assert report.ok, report
    said = any("call resolve_neg() before" in note for note in report.notes)
    assert said == (not torch.allclose(found, right))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor needs a C++ compiler")
@pytest.mark.parametrize(("returned", "code"), [("x.sin() * x", 0), ("Half.apply(x)", 1)])
def test_that_verify_holds_such_code_to_no_lazy_sign(
    returned: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "compiled_here.py"
    module.write_text(
        "import torch\n\n\n"
        "class Half(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(ctx, x):\n"
        "        ctx.save_for_backward(x)\n"
        "        return x * x\n\n"
        "    @staticmethod\n"
        "    def backward(ctx, g):\n"
        "        return g * ctx.saved_tensors[0]\n\n\n"
        f"compiled = torch.compile(lambda x: ({returned}).sum())\n\n\n"
        "def made():\n"
        "    x = torch.linspace(0.5, 1.5, 3, dtype=torch.float64)\n"
        "    return compiled, (x.requires_grad_(),)\n"
    )
    assert main(["verify", f"{module}:made", "--json"]) == code
    torch_said = json.loads(capsys.readouterr().out)[0]
    cases = [failure["case"] for failure in torch_said["failures"]]
    assert any("/numerical/" in case for case in cases) == bool(code), cases
    assert not any("negated" in case for case in cases)
    assert READS_MEMORY in torch_said["left_out"]
