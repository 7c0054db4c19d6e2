"""Where a gradient is wrong is looked for while it pays; what reads a triangle is not wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance import check_gradients
from conformance.checks import entrywise
from conformance.diagnosis import diagnose

calls = 0


class Counted(torch.autograd.Function):
    """exp, whose gradient is off by a part of it where a mask is set; its forward is counted."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, off: torch.Tensor) -> torch.Tensor:
        global calls
        calls += 1
        out = x.exp()
        ctx.save_for_backward(out, off)
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        out, off = ctx.saved_tensors
        return g * out * (1 + off), None


def found(size: int, off: torch.Tensor) -> tuple[dict[str, Any], int]:
    """What the check says of a gradient that is off so, and how often it asked for the function."""
    global calls
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_()
    calls = 0
    report = check_gradients(lambda x: Counted.apply(x, off), x)
    (result,) = (r for r in report.results if r.check == "numerical")
    assert result.outcome == "failed"
    return result.evidence, calls


def test_what_is_wrong_everywhere_is_not_searched() -> None:
    noise = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    evidence, asked = found(100, 1e-3 * noise)
    assert "entries that were looked at" in evidence["description"]
    assert asked < 4000


@pytest.mark.parametrize("budget", [500, entrywise.EVALUATIONS])
def test_a_search_ends(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrywise, "EVALUATIONS", budget)
    off = torch.zeros(512, dtype=torch.float64)
    off[[20, 300]] = 1.0
    evidence, asked = found(512, off)
    if budget > 500:
        assert evidence["wrong_entries"] == 2
    else:
        assert "of 512 entries: it was not localised further" in evidence["description"]
    assert asked < 2000 + 2 * budget


class Root(torch.autograd.Function):
    """The square root of a matrix by eigh, which reads a triangle, with torch's own gradient."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a)
        return root(a)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (a,) = ctx.saved_tensors
        a = a.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(root(a), a, g)[0]


def root(a: torch.Tensor) -> torch.Tensor:
    """It without a rule of its own."""
    values, vectors = torch.linalg.eigh(a, "U")
    return vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT


@pytest.mark.parametrize("seed", range(6))
def test_one_triangle_in_an_opaque_call_is_not_wrong(seed: int) -> None:
    a = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    a = (a @ a.mT + torch.eye(3)).requires_grad_()
    report = check_gradients(Root.apply, a, seed=seed)
    (result,) = (r for r in report.results if r.check == "numerical")
    assert result.outcome == "inconclusive", str(report)
    assert "reads one triangle" in result.evidence["reason"]


@pytest.mark.parametrize("half", [np.triu, np.tril])
def test_equal_entries_of_a_symmetric_matrix_are_no_ties(half: Any) -> None:
    rng = np.random.default_rng(0)
    a, right = rng.standard_normal((4, 4)), half(rng.standard_normal((4, 4)))
    said = diagnose((right + right.T) / 2, right, (4, 4), {"x0": a + a.T}, leaf="x0")
    assert said.slug == "one triangle"
    assert diagnose(2 * right, right, (4, 4), {"x0": a + a.T}, leaf="x0").slug == "missing factor"
