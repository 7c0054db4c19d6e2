"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch._dynamo  # noqa: F401 (once in a process, and pytester forgets what its runs import)

pytest_plugins = ("pytester",)

HEAD = """
import pytest
import torch
from conformance import GradientMismatch
from conformance.specs import spec

class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0] * g
"""


def outcome(pytester: pytest.Pytester, text: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + text)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *args)


def test_what_passes_and_what_fails(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
def test_right(check_gradients):
    report = check_gradients(torch.sin, spec("float64[n]"), samples=3)
    assert report.ok and report.samples == 3

def test_wrong(check_gradients):
    check_gradients(Half.apply, torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True))

def test_it_is_an_assertion(check_gradients):
    with pytest.raises(GradientMismatch):
        check_gradients(Half.apply, spec("float64[2]"))
""",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*def test_wrong(check_gradients):*",
            ">*check_gradients(Half.apply*",
            "E*gradients of Half: NOT OK: engine wrong*",
            "E*diagnosis: missing factor*",
            "*3 functions, * samples, * checks*",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")


def test_ini_options_markers_and_calls_in_that_order(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradients_samples = 2\ngradients_order = 2\n")
    result = outcome(
        pytester,
        """
def test_ini(check_gradients):
    report = check_gradients(torch.sin, spec("float64[2]"))
    assert report.samples == 2 and any(r.check == "rr" for r in report.results)

@pytest.mark.gradients(samples=3, order=1)
class TestMarked:
    def test_class(self, check_gradients):
        report = check_gradients(torch.sin, spec("float64[2]"))
        assert report.samples == 3 and not any(r.check == "rr" for r in report.results)

    @pytest.mark.gradients(samples=1)
    def test_closest(self, check_gradients):
        assert check_gradients(torch.sin, spec("float64[2]")).samples == 1
        assert check_gradients(torch.sin, spec("float64[2]"), samples=4).samples == 4
""",
        "--strict-markers",
    )
    result.assert_outcomes(passed=3)


def test_what_is_known_of_pytorch_may_be_let_pass(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradients_allow_known = true\n")
    result = outcome(
        pytester,
        """
TABLE = torch.nn.Embedding(4, 2, padding_idx=0, dtype=torch.float64)

def test_ini(check_gradients):
    assert check_gradients(TABLE, torch.tensor([0, 1])).ok

@pytest.mark.gradients(allow_known=False)
def test_marked(check_gradients):
    check_gradients(TABLE, torch.tensor([0, 1]))
""",
    )
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("fail", {"failed": 1}),
        ("warn", {"passed": 1, "warnings": 1}),
        ("pass", {"passed": 1}),
    ],
)
def test_what_cannot_be_decided(
    pytester: pytest.Pytester, policy: str, expected: dict[str, int]
) -> None:
    pytester.makeini(f"[pytest]\ngradients_inconclusive = {policy}\n")
    result = outcome(
        pytester,
        """
def test_integers(check_gradients):
    report = check_gradients(lambda x: x.argmax(), spec("float64[3]"))
    assert report.inconclusive and not report.failed
""",
    )
    result.assert_outcomes(**expected)
    if policy != "pass":
        result.stdout.fnmatch_lines(["*could not be decided*nothing was compared*"])


def test_wrong_options_are_said(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradients_inconclusive = maybe\n")
    result = outcome(pytester, "def test_nothing(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*gradients_inconclusive is 'maybe'; it can be fail, warn, pass*"])
    pytester.makeini("[pytest]\ngradients_samples = many\n")
    result = outcome(pytester, "def test_nothing(): pass\n")
    result.stderr.fnmatch_lines(["*gradients_samples is 'many', not a number*"])


def test_a_marker_with_other_words_is_an_error(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
@pytest.mark.gradients(orders=2)
def test_it(check_gradients):
    pass
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the marker gradients takes the keywords order, samples*"])


def test_the_entry_point_loads_no_torch() -> None:
    code = (
        "import sys, conformance.pytest_plugin, importlib.metadata as m\n"
        "points = [p.value for p in m.entry_points(group='pytest11') if p.name == 'conformance']\n"
        "assert points == ['conformance.pytest_plugin'], points\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
