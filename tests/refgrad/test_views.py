"""Views and in-place writes: random sequences of view, write and read, on both engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import refgrad
from tests.refgrad.both import both, both_raise

VIEWS = {
    "first": lambda x: x[0],
    "last": lambda x: x[-1:],
    "step": lambda x: x[::2],
    "column": lambda x: x[..., 0],
    "new axis": lambda x: x[:, None] if x.ndim else x[None],
    "flat": lambda x: x.reshape(-1),
    "turned": lambda x: x.transpose(0, -1),
    "narrow": lambda x: x.narrow(0, 0, 1),
    "diagonal": lambda x: x.diagonal() if x.ndim > 1 else x[:],
    "squeezed": lambda x: x.squeeze(),
    "split": lambda x: x.split(1)[0] if x.ndim else x[...],
    "detached": lambda x: x.detach(),
}
WRITES = {
    "add_": lambda x, w: x.add_(w),
    "mul_": lambda x, w: x.mul_(w),
    "mul_ by number": lambda x, w: x.mul_(0.5),
    "sin_": lambda x, w: x.sin_(),
    "zero_": lambda x, w: x.zero_(),
    "fill_": lambda x, w: x.fill_(w),
    "copy_": lambda x, w: x.copy_(w * 2),
    "set": lambda x, w: x.__setitem__(0 if x.ndim else (), w),
    "set all": lambda x, w: x.__setitem__(slice(None) if x.ndim else (), w * w),
    "no_grad": None,
}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("view"), st.integers(0, 9), st.sampled_from(sorted(VIEWS))),
        st.tuples(st.just("write"), st.integers(0, 9), st.sampled_from(sorted(WRITES))),
        st.tuples(st.just("use"), st.integers(0, 9), st.just("")),
    ),
    min_size=1,
    max_size=9,
)


def run(t: Any, plan: list[tuple[str, int, str]], differentiable_base: bool) -> Any:
    """Every value, whether it requires grad, and the gradients; or the error's class."""
    x = t.tensor(np.linspace(0.3, 2.1, 6).reshape(2, 3), requires_grad=True)
    w = t.tensor(0.7, dtype=t.float64, requires_grad=True)
    base = x * 1 if differentiable_base else t.zeros(2, 3, dtype=t.float64)
    family, used = [base], []
    try:
        for kind, i, name in plan:
            for a in family:
                a.grad_fn
            a = family[i % len(family)]
            if kind == "view":
                family.append(VIEWS[name](a))
            elif kind == "use":
                used.append((a * a).sum() * (len(used) + 1))
            elif name == "no_grad":
                with t.no_grad():
                    a.add_(1.0)
            else:
                WRITES[name](a, w)
        total = w * 1
        for k, a in enumerate(family):
            total = total + (a * (k + 1)).sum() + (a * a * 0.1).sum()
        for u in used:
            total = total + u
        total.backward()
    except (RuntimeError, IndexError) as error:
        return type(error).__name__
    return (
        [a.detach().numpy().copy() for a in family],
        [bool(a.requires_grad) for a in family],
        [None if g is None else g.numpy().copy() for g in (x.grad, w.grad)],
    )


@settings(max_examples=1500)
@given(plan=steps, differentiable_base=st.booleans())
def test_sequences_of_views_and_writes(
    plan: list[tuple[str, int, str]], differentiable_base: bool
) -> None:
    theirs = run(torch, plan, differentiable_base)
    ours = run(refgrad, plan, differentiable_base)
    if isinstance(theirs, str) or isinstance(ours, str):
        assert ours == theirs
        return
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert ours[1] == theirs[1]
    for a, b in zip(ours[2], theirs[2], strict=True):
        assert (a is None or not a.any()) if b is None else a is not None or not b.any()
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


class TestErrors:
    def test_a_write_to_one_of_several_views(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(2, 2, requires_grad=True) * 1
            x.unbind(0)[0].add_(1)

        both_raise(code, match="multiple views")

    def test_a_write_to_a_view_of_a_leaf(self) -> None:
        both_raise(
            lambda t: t.ones(3, requires_grad=True)[1:].mul_(2),
            match="a view of a leaf Variable that requires grad",
        )

    def test_a_view_made_without_grad(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(3, requires_grad=True) * 1
            with t.no_grad():
                v = x[1:]
            v.mul_(2)

        both_raise(code, match="no_grad mode")

    def test_a_write_to_an_expanded_tensor(self) -> None:
        both_raise(lambda t: t.ones(1).expand(3).add_(1), match="single memory location")


@pytest.mark.parametrize("name", ["transpose", "diagonal", "column", "strided"])
def test_second_order_through_a_written_view(name: str) -> None:
    views = {
        "transpose": lambda y: y.t(),
        "diagonal": lambda y: y.diagonal(),
        "column": lambda y: y[:, 1],
        "strided": lambda y: y[::2, 1:],
    }

    def code(t: Any) -> Any:
        x = t.tensor(np.linspace(0.5, 1.5, 9).reshape(3, 3), requires_grad=True)
        y = x * x
        views[name](y).mul_(2).add_(x[0, 0])
        (g,) = t.autograd.grad((y**2).sum(), x, create_graph=True)
        return t.autograd.grad((g**2).sum(), x)

    both(code)
