"""The pytest plugin: a `check_gradients` fixture, a marker, ini options. torch loads on first use.

    def test_my_kernel(check_gradients):
        check_gradients(MyKernel.apply, spec("float64[n, 3]"), spec("float64[3] in (0, 1)"))

    @pytest.mark.gradients(order=2, samples=20)
    def test_its_second_order(check_gradients): ...

A wrong derivative fails the test with the report; what could not be decided fails, warns or is let
pass, as the ini option `gradients_inconclusive` says.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.report.gradients import Report

MARKER = "gradients"
_KEYS = ("order", "samples", "directions", "seed")
_MARKED = (*_KEYS, "rtol", "device", "allow_known")
_POLICIES = ("fail", "warn", "pass")
_STATE = pytest.StashKey[Counter[str]]()


class InconclusiveGradients(UserWarning):
    """A gradient that could be neither confirmed nor refuted."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini options: what a project wants of every check."""
    for key, default in (("order", "1"), ("samples", "8"), ("directions", "4"), ("seed", "0")):
        text = f"check_gradients: the default of {key}"
        parser.addini(f"gradients_{key}", text, default=default)
    text = "check_gradients: let pass what is known as a fault of PyTorch's own (true or false)"
    parser.addini("gradients_allow_known", text, type="bool", default=False)
    text = "check_gradients: fail, warn or pass where a gradient could not be decided"
    parser.addini("gradients_inconclusive", text, default="fail")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and hold the ini options to what they can be."""
    keywords = ", ".join(f"{key}=..." for key in _MARKED)
    config.addinivalue_line(
        "markers", f"{MARKER}({keywords}): how check_gradients checks in this test."
    )
    config.stash[_STATE] = Counter()
    policy = config.getini("gradients_inconclusive")
    if policy not in _POLICIES:
        known = ", ".join(_POLICIES)
        raise pytest.UsageError(f"gradients_inconclusive is {policy!r}; it can be {known}")
    for key in _KEYS:
        _number(config, key)


@pytest.fixture
def check_gradients(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """conformance.check_gradients, which fails the test where a derivative is wrong.

    Defaults come from the ini options, then from the test's `gradients` markers (the closest
    wins), then from the call. It returns the Report. What could not be decided fails the test,
    warns or passes, as the option `gradients_inconclusive` says, or `inconclusive=` of the marker.
    """
    options: dict[str, Any] = {key: _number(request.config, key) for key in _KEYS}
    options["allow_known"] = request.config.getini("gradients_allow_known")
    policy = request.config.getini("gradients_inconclusive")
    for marker in reversed(list(request.node.iter_markers(MARKER))):
        policy = _marked(marker, options) or policy
    state = request.config.stash[_STATE]

    def check(fn: Callable[..., Any], *inputs: Any, **given: Any) -> Report:
        __tracebackhide__ = True
        from conformance.api import check_gradients as run
        from conformance.errors import GradientMismatch

        report = run(fn, *inputs, **{**options, **given})
        state["functions"] += 1
        state["samples"] += report.samples
        state["checks"] += len(report.results)
        if report.failed:
            raise GradientMismatch(f"gradients of {_name(fn)}: {report}")
        if report.inconclusive:
            state["inconclusive"] += 1
            text = f"gradients of {_name(fn)} could not be decided: {report}"
            if policy == "fail":
                raise GradientMismatch(text)
            if policy == "warn":
                warnings.warn(InconclusiveGradients(text), stacklevel=2)
        return report

    return check


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line about all gradients that were checked."""
    state = config.stash[_STATE]
    if not state["functions"]:
        return
    text = f"{state['functions']} functions, {state['samples']} samples, {state['checks']} checks"
    undecided = f", {state['inconclusive']} inconclusive" if state["inconclusive"] else ""
    terminalreporter.write_sep("=", "gradients")
    terminalreporter.write_line(text + undecided)


def _marked(marker: pytest.Mark, options: dict[str, Any]) -> str | None:
    """Take a marker's keywords into the options; its policy, where it has one."""
    given = dict(marker.kwargs)
    policy: str | None = given.pop("inconclusive", None)
    unknown = [key for key in given if key not in _MARKED]
    if marker.args or unknown or policy not in (None, *_POLICIES):
        known = ", ".join((*_MARKED, "inconclusive"))
        raise pytest.UsageError(f"the marker {MARKER} takes the keywords {known}")
    options |= given
    return policy


def _number(config: pytest.Config, key: str) -> int:
    text = config.getini(f"gradients_{key}")
    try:
        return int(text)
    except ValueError:
        raise pytest.UsageError(f"gradients_{key} is {text!r}, not a number") from None


def _name(fn: Any) -> str:
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, type):  # an autograd.Function's apply
        return owner.__name__
    return str(getattr(fn, "__name__", type(fn).__name__))
