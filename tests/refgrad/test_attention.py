"""Attention: masks, batches, dropout, dtypes; one node, and what it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refgrad
from tests.refgrad.both import both_raise
from tests.refgrad.derivatives import assert_same

F = refgrad.nn.functional
GENERATOR = np.random.default_rng(0)
FIRST = GENERATOR.bit_generator.state


@pytest.fixture(autouse=True)
def _drawn_anew() -> None:
    """Each test draws the same numbers, whatever ran before it in its worker."""
    GENERATOR.bit_generator.state = FIRST


def normal(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape)


def test_attention_at_second_order() -> None:
    given = [normal(2, 4, 3) for _ in range(3)]
    assert_same(lambda m, *t: m.nn.functional.scaled_dot_product_attention(*t, is_causal=True),
                *given, order=2)  # fmt: skip


def test_queries_that_see_nothing() -> None:
    mask = [[True, False], [False, False]]
    assert_same(lambda m, q, k, v: m.nn.functional.scaled_dot_product_attention(
        q, k, v, m.tensor(mask)), *(normal(1, 1, 2, 3) for _ in range(3)))  # fmt: skip


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (1, 3, 4), (2, 1, 3, 4), (2, 2, 1, 4)])
def test_a_mask_of_attention_that_is_learnt(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:  # torch asks for two dimensions; refgrad broadcasts
        mask = refgrad.tensor(normal(*shape), requires_grad=True)
        q, k, v = (refgrad.tensor(normal(*s)) for s in ((2, 2, 3, 5), (2, 2, 4, 5), (2, 2, 4, 6)))
        wide = mask.detach().expand(3, 4).contiguous().requires_grad_()
        for m in (mask, wide):
            F.scaled_dot_product_attention(q, k, v, m).square().sum().backward()
        np.testing.assert_allclose(mask.grad.numpy(), wide.grad.sum_to_size(*shape).numpy(),
                                   rtol=1e-12, atol=1e-15)  # fmt: skip
        return
    assert_same(lambda m, *t: m.nn.functional.scaled_dot_product_attention(*t, scale=0.7),
                normal(2, 2, 3, 5), normal(2, 2, 4, 5), normal(2, 2, 4, 6), normal(*shape),
                order=2)  # fmt: skip


def test_attention_of_batches_that_broadcast() -> None:
    assert_same(lambda m, *t: m.nn.functional.scaled_dot_product_attention(*t),
                normal(2, 1, 3, 5), normal(3, 4, 5), normal(2, 3, 4, 6), order=2)  # fmt: skip


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2)])
def test_gradients_of_some_arguments_of_attention(needed: tuple[int, ...]) -> None:
    def attend(m: Any, *given: Any) -> Any:
        of = [t if i in needed else t.detach() for i, t in enumerate(given)]
        return m.nn.functional.scaled_dot_product_attention(*of, is_causal=True).sum() + sum(
            t.sum() * 0 for t in given
        )

    assert_same(attend, *(normal(2, 3, 4) for _ in range(3)))


def test_attention_is_one_node_and_keeps_no_result_that_is_written() -> None:
    q = refgrad.tensor(normal(1, 2, 3, 4), requires_grad=True)
    out = F.scaled_dot_product_attention(q, q, q)
    assert out.grad_fn.name() == "ScaledDotProductFlashAttentionForCpuBackward0"
    assert [f.name() for f, _ in out.grad_fn.next_functions if f is not None] == [
        "struct torch::autograd::AccumulateGrad"
    ] * 3  # fmt: skip
    other = q.detach().clone().requires_grad_()
    F.scaled_dot_product_attention(other, other, other).mul(3).sum().backward()
    out.mul_(3).sum().backward()  # its weights are what is read
    np.testing.assert_array_equal(q.grad.numpy(), other.grad.numpy())
    kept = F.scaled_dot_product_attention(q, q, q)
    with refgrad.no_grad():
        q.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.sum().backward()


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_attention_with_dropout(p: float) -> None:
    q, k, v = (refgrad.tensor(normal(2, 5, 4), requires_grad=True) for _ in range(3))
    refgrad.manual_seed(5)
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=p)
    refgrad.manual_seed(5)
    weights = F.dropout((q * 0.5).matmul(k.transpose(-2, -1)).softmax(-1), p)
    line = weights.matmul(v)
    np.testing.assert_allclose(out.detach().numpy(), line.detach().numpy(), rtol=1e-12)
    g = refgrad.tensor(normal(2, 5, 4))
    ours, due = (refgrad.autograd.grad(of, (q, k, v), g) for of in (out, line))
    for a, b in zip(ours, due, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("options", "match"), [
    (lambda m: {"attn_mask": m.zeros(4, 4, dtype=m.float64)}, "Expected attn_mask dtype"),
    (lambda m: {"attn_mask": m.zeros(4, 4, dtype=m.int64)}, "Expected attn_mask dtype"),
    (lambda m: {"attn_mask": m.zeros(3, 1, 4, 4)}, "shape"),
    (lambda m: {"attn_mask": m.zeros(4, 4), "is_causal": True}, "Explicit attn_mask"),
    (lambda m: {"dropout_p": 1.5}, "dropout probability"),
])  # fmt: skip
def test_what_attention_refuses(options: Any, match: str) -> None:
    def attend(m: Any) -> Any:
        x = m.ones(2, 4, 8)  # of four dimensions torch takes a mask beside is_causal
        return m.nn.functional.scaled_dot_product_attention(x, x, x, **options(m))

    both_raise(attend, match=match)


@pytest.mark.parametrize("dtype", ["complex64", "int64"])
def test_attention_of_other_dtypes(dtype: str) -> None:
    def attend(m: Any) -> Any:
        x = m.ones(1, 2, 4, 8, dtype=getattr(m, dtype))
        return m.nn.functional.scaled_dot_product_attention(x, x, x)

    both_raise(attend, match="not implemented for|expected scalar type Float")


def test_a_double_query_and_a_mask_of_floats() -> None:
    def attend(m: Any, q: Any) -> Any:
        mask = m.tensor([[0.0, -1.5], [0.25, 0.0]], dtype=m.float32)
        return m.nn.functional.scaled_dot_product_attention(q, q, q, mask)

    assert_same(attend, normal(1, 1, 2, 3))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("extras", [False, True])
def test_multi_head_attention(need_weights: bool, extras: bool) -> None:
    padding = [[False, False, True], [False, False, False]]

    def attend(m: Any, q: Any, w: Any, b: Any, out: Any, extra: Any) -> Any:
        k = extra if extras else None
        return m.nn.functional.multi_head_attention_forward(
            q, q, q, 4, 2, w, b, k, k, extras, 0.0, out, None, need_weights=need_weights,
            key_padding_mask=m.tensor(padding), attn_mask=m.ones(3, 3, dtype=m.bool).triu(1),
        )[0]  # fmt: skip

    assert_same(attend, normal(3, 2, 4), normal(12, 4), normal(12), normal(4, 4), normal(1, 1, 4),
                rtol=1e-8)  # fmt: skip
