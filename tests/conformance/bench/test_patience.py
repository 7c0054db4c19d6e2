"""How long engines are waited for: their part of a budget, and what they took before."""

from __future__ import annotations

import math

from conformance.bench.patience import CREDIT, PREPARING, SHARE, TORCH, Patience


def test_without_a_budget_every_case_has_the_same_patience_and_more_where_torch_is_slow() -> None:
    patience = Patience(10, 2, math.inf)
    for number in range(10):
        patience.begin(number)
        assert patience.allowed("jax", 0.1) == PREPARING
        assert patience.refusal("matmul", "jax", 1.0, 0.1) is None
        patience.took("matmul", "jax", 1.0, PREPARING, finished=False)
    assert patience.allowed("jax", 100.0) == TORCH * 100


def test_engines_that_take_all_they_may_leave_the_rest_of_a_budget() -> None:
    budget, cases, engines = 120.0, 40, 4
    patience = Patience(cases, engines, budget)
    spent = 0.0
    for number in range(cases):
        patience.begin(number)
        for label in "abcd":
            if patience.refusal(f"w{number}", label, 1.0, 0.0) is None:
                took = patience.allowed(label, 0.0)
                patience.took(f"w{number}", label, 1.0, took, finished=False)
                spent += took
    assert 0.5 * SHARE * budget < spent <= SHARE * budget + engines * CREDIT


def test_one_that_was_broken_off_saves_up_before_it_is_begun_again() -> None:
    patience = Patience(20, 1, 40.0)  # a second a case
    patience.took(
        "w0", "torch.compile", 1.0, patience.allowed("torch.compile", 0.0), finished=False
    )
    begun = []
    for number in range(20):
        patience.begin(number)
        refusal = patience.refusal(f"w{number}", "torch.compile", 1.0, 0.0)
        begun.append(refusal is None)
        assert refusal is None or "is used up" in refusal
        if refusal is None:
            patience.took(f"w{number}", "torch.compile", 1.0, 6.0, finished=False)
    assert 2 <= sum(begun) <= 4
    assert not begun[0]


def test_one_that_is_quick_is_begun_in_every_case() -> None:
    patience = Patience(40, 4, 60.0)
    for number in range(40):
        patience.begin(number)
        assert patience.refusal(f"w{number}", "refgrad", 1.0, 0.0) is None
        patience.took(f"w{number}", "refgrad", 1.0, 0.1, finished=True)


def test_a_smaller_size_foretells_a_larger_one_and_not_the_other_way() -> None:
    patience = Patience(3, 1, math.inf)
    patience.took("chain", "jax", 100.0, 3.0, finished=True)
    assert patience.refusal("chain", "jax", 1000.0, 0.0) == (
        "would take 30 s to prepare, by a smaller size"
    )
    assert patience.refusal("chain", "jax", 10.0, 0.0) is None
    assert patience.refusal("matmul", "jax", 1000.0, 0.0) is None
