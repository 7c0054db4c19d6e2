"""-k: pytest's grammar, and what may still match when only the start of a name is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.errors import UsageError
from conformance.expression import Expression, did_you_mean, near

DIGEST = "3fadd2a9"
NAME = "opinfo/nn.functional.softmax/3fadd2a9/vjp/float64/cpu"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("softmax", True),
        ("SoftMax", True),
        ("log", False),
        ("softmax and not log", True),
        ("not softmax", False),
        ("log or vjp", True),
        ("log or softmax and value", False),
        ("(log or softmax) and vjp", True),
        ("not (log or relu)", True),
        ("nn.functional.softmax/3fadd", True),
        ("3fadd2", True),
        ("3fadd3", False),
        ("add", False),
    ],
)
def test_an_expression_means_what_it_means_in_pytest(text: str, expected: bool) -> None:
    assert Expression(text).matches(NAME, DIGEST) is expected


@pytest.mark.parametrize("text", ["and", "a and", "(a", "a b", ")", "not", "()", "a or or b"])
def test_a_malformed_expression_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not an expression.*join words"):
        Expression(text)


WORDS = st.sampled_from(["softmax", "log", "vjp", "3fadd2a", "add", "float64", "relu"])
EXPRESSIONS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join).map("({})".format),
        inner.map("not {}".format),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_what_matches_in_full_may_match_at_its_start(text: str) -> None:
    expression = Expression(text)
    start = "opinfo/nn.functional.softmax/"
    if expression.matches(NAME, DIGEST):
        assert expression.may_match(start, ["vjp", "float64", "cpu"])
        assert expression.may_match(start, ["vjp", "float64", "cpu"], digest=DIGEST)


def test_an_op_that_cannot_match_is_left_out_at_once() -> None:
    assert not Expression("relu or add").may_match("opinfo/softmax/", ["vjp"])
    assert Expression("3fadd2").may_match("opinfo/softmax/", ["vjp"])
    assert not Expression("3fadd2").may_match("opinfo/softmax/", ["vjp"], digest="00000000")
    assert not Expression("not softmax").may_match("opinfo/softmax/", ["vjp"])
    assert Expression("softmax and vjp").may_match("opinfo/softmax/", ["vjp"])
    assert not Expression("softmax and jvp").may_match("opinfo/softmax/", ["vjp"])


def test_near_names_are_suggested_by_their_last_part_too() -> None:
    names = ["nn.functional.gelu", "celu", "add"]
    assert near("gelux", names)[0] == "nn.functional.gelu"
    assert did_you_mean("qqqq", names) == ""
