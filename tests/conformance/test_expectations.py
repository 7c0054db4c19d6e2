"""Verdicts: what a failure means depends on what was expected."""

from __future__ import annotations

import pytest

from conformance import expectations
from conformance.errors import UsageError
from conformance.expectations import Expectation, judge
from conformance.results import FAILING
from tests.conformance.journals import result

KNOWN = Expectation("linalg.*", "vjp", "a known fault", "https://github.com/pytorch/pytorch")


@pytest.mark.parametrize("outcome", sorted(FAILING))
def test_an_unexpected_failure_is_a_regression(outcome: str) -> None:
    verdict = judge([result(), result(outcome, digest="f")], ())
    assert verdict.name == "regression"
    assert verdict.exit_code() == 1
    assert [r.outcome for r in verdict.regressions] == [outcome]


def test_an_expected_failure_is_ok() -> None:
    verdict = judge([result(), result("failed", "linalg.eigh")], [KNOWN])
    assert verdict.name == "ok"
    assert verdict.exit_code() == 0
    assert verdict.expected[0][1] is KNOWN
    assert not verdict.improvements


def test_an_expectation_covers_only_its_check() -> None:
    assert judge([result("failed", "linalg.eigh", check="value")], [KNOWN]).exit_code() == 1


def test_an_expectation_may_name_several_ops_and_checks() -> None:
    known = Expectation("sin|linalg.*", "vjp|jvp", "a known fault")
    assert known.covers(result("failed", "linalg.eigh", check="jvp"))
    assert known.covers(result("failed", "sin"))
    assert not known.covers(result("failed", "sin", check="value"))
    assert not known.covers(result("failed", "sinh"))
    passed = [result(op="sin"), result(op="sin", check="jvp")]
    assert judge(passed, [known]).improvements == (known,)
    assert not judge(passed[:1], [known]).improvements


def test_where_there_is_no_verdict_what_was_raised_is_the_sentence() -> None:
    known = Expectation("*", "*", "too few bits", verdict="RuntimeError: no kernel*")
    raised = {"reason": "RuntimeError: no kernel for 3 bits"}
    assert known.covers(result("errored", evidence=raised))
    assert not known.covers(result("errored", evidence={"reason": "RuntimeError: other"}))
    assert not known.covers(result("failed", evidence={**raised, "verdict": "engine wrong"}))


def test_the_reference_s_faults_excuse_other_engines_and_ask_nothing_of_them() -> None:
    borrowed = expectations.borrowed(Expectation("sin", "vjp", "torch's"))
    blamed = result("failed", "sin", evidence={"verdict": "reference wrong: 1 is right"})
    own = result("failed", "sin", evidence={"verdict": "engine wrong: 1 is right"})
    assert judge([blamed], [borrowed]).name == "ok"
    assert judge([own], [borrowed]).name == "regression"
    for results in ([result(op="sin")], [result(op="cos")]):
        assert judge(results, [borrowed]).exit_code(strict=True) == 0


def test_an_expectation_that_no_longer_fails_is_an_improvement() -> None:
    verdict = judge([result("passed", "linalg.eigh")], [KNOWN])
    assert verdict.improvements == (KNOWN,)
    assert verdict.exit_code() == 0
    assert verdict.exit_code(strict=True) == 1


def test_an_expectation_that_met_no_case_is_missing() -> None:
    assert judge([result()], [KNOWN]).missing == (KNOWN,)
    assert judge([result()], [KNOWN], whole=False).missing == ()


def test_one_of_a_device_is_not_missing_where_the_run_was_on_another() -> None:
    known = Expectation("linalg.*", "vjp", "CUDA's own", case="*/cuda")
    assert judge([result()], [known]).missing == ()
    assert judge([result(device="cuda")], [known]).missing == (known,)


def test_a_case_that_fails_once_and_passes_once_is_flaky() -> None:
    verdict = judge([result(), result("failed")], ())
    assert verdict.name == "flaky"
    assert verdict.exit_code() == 1


def test_what_is_known_to_be_flaky_is_neither_improvement_nor_regression() -> None:
    known = Expectation("add", "vjp", "threads", flaky=True)
    for results in ([result()], [result("failed")], [result(), result("failed")]):
        verdict = judge(results, [known])
        assert verdict.exit_code(strict=True) == 0


@pytest.mark.parametrize("outcomes", [[], ["unsupported"], ["inconclusive", "unsupported"]])
def test_where_nothing_was_decided_nothing_was_checked(outcomes: list[str]) -> None:
    assert judge([result(o) for o in outcomes], ()).exit_code() == 5


def test_strict_fails_for_what_is_not_verified() -> None:
    for outcome in ("unsupported", "inconclusive", "precision"):
        verdict = judge([result(), result(outcome, digest="f")], ())
        assert verdict.exit_code() == 0
        assert verdict.exit_code(strict=True) == 1


def test_the_lists_that_are_shipped_load() -> None:
    for engine in ("refgrad", "torch", "direct:my.module:Engine", "unheard-of"):
        for known in expectations.load(engine):
            assert known.reason


@pytest.mark.parametrize("text", ["{", '[{"op": "a"}]', '[{"op": 1, "colour": 2}]', "[3]"])
def test_a_malformed_list_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"x.json is no list of expectations"):
        expectations.parse(text, "x.json")


def test_what_is_lost_in_16_bits_has_to_be_named() -> None:
    lost = result("failed", "sin", check="half", evidence={"culprit": "torch.sin"})
    assert not Expectation("sin", "*", "a known fault").covers(lost)
    assert Expectation("*", "half", "a known fault", call="torch.cos|torch.sin").covers(lost)
    assert not Expectation("*", "half", "a known fault", call="torch.cos").covers(lost)
