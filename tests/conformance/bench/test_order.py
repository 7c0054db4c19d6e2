"""Which case comes next: a long one waits until the others are over."""

from __future__ import annotations

import pytest

from conformance.bench.order import Order
from conformance.bench.workload import Workload
from tests.conformance.bench import fakes

SHORT, LONG = fakes.workload("softmax"), fakes.workload("elementwise")


def work(workload: Workload, size: int) -> float:
    return float(size)


def test_without_a_limit_cases_come_in_their_order() -> None:
    cases = [(LONG, 10), (SHORT, 10), (LONG, 1000), (SHORT, 100)]
    order = Order(cases, work)
    seen = []
    while order:
        seen.append(order.next(float("inf")))
        order.took(*seen[-1], 1.0)
    assert seen == cases


def test_a_case_that_would_take_too_long_waits() -> None:
    order = Order([(LONG, 10), (LONG, 1000), (SHORT, 10), (SHORT, 100)], work)
    assert order.next(40.0) == (LONG, 10)
    order.took(LONG, 10, 1.0)  # so the next takes some 100 s
    assert order.next(30.0) == (SHORT, 10)
    assert order.next(20.0) == (SHORT, 100)
    assert len(order) == 1
    assert order.next(10.0) == (LONG, 1000)
    with pytest.raises(IndexError):
        order.next(10.0)


def test_a_smaller_size_takes_no_less_than_what_is_known() -> None:
    order = Order([(LONG, 1000), (LONG, 10), (SHORT, 10)], work)
    order.next(40.0)
    order.took(LONG, 1000, 50.0)
    assert order.next(20.0) == (SHORT, 10)
