"""Every fake is caught and named; right engines raise no alarm."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from conformance import checks, engines, expectations
from conformance.arbitration import by_form
from conformance.checks.compare import compare
from conformance.diagnosis import diagnose
from conformance.engines.base import Engine
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.errors import UsageError
from conformance.program import Array, Call, Input, Program, Ref
from conformance.results import Result
from conformance.settings import Settings
from conformance.sources.base import Item, Sample
from conformance.sources.generated import Generated
from tests.fakes import engines as fakes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 3))
Y = RNG.standard_normal((3, 3))


def sample(*calls: tuple[str, tuple[Any, ...]], outputs: Any = None, **values: Array) -> Sample:
    """A Sample of these calls, named v0, v1, ...; floating values require grad."""
    inputs = tuple(Input.of(n, v, requires_grad=v.dtype.kind in "fc") for n, v in values.items())
    made = tuple(Call(f"v{n}", target, args) for n, (target, args) in enumerate(calls))
    program = Program(inputs, made, Ref(made[-1].name) if outputs is None else outputs)
    return Sample("test", program, {n: v.copy() for n, v in values.items()})


def results(engine: Engine, one: Sample, **settings: Any) -> dict[str, Result]:
    """The results by check."""
    context = checks.context_for(Settings(**settings), engine=engine, reference=TorchEngine())
    return {r.check: r for r in checks.check_sample(one, context, "test")}


SIN = sample(("torch.sin", (Ref("x0"),)), x0=X)
SQUARE = sample(("torch.square", (Ref("x0"),)), x0=X)
MATMUL = sample(("torch.matmul", (Ref("x0"), Ref("x1"))), x0=X, x1=Y)
TANH = sample(("torch.tanh", (Ref("x0"),)), x0=X)
EXP = sample(("torch.exp", (Ref("x0"),)), x0=X)
TWICE = sample(("torch.exp", (Ref("x0"),)), ("torch.mul", (Ref("v0"), Ref("x0"))), x0=X)
INSIDE = sample(
    ("torch.exp", (Ref("x0"),)),
    ("torch.sin", (Ref("v0"),)),
    ("torch.mul", (Ref("v0"), Ref("v1"))),
    x0=X,
)
BROADCAST = sample(("torch.add", (Ref("x0"), Ref("x1"))), x0=X, x1=Y[0])


@pytest.mark.parametrize(
    ("fake", "one", "slug", "words"),
    [
        (fakes.WrongSign, SIN, "sign", "wrong sign"),
        (fakes.MissingFactor, SQUARE, "missing factor", "1/2"),
        (fakes.Transposed, MATMUL, "transposed", "axes 0 and 1"),
        (fakes.NotANumber, TANH, "nan", "1 of 9"),
        (fakes.SingleEntry, EXP, "single entry", "(0, 0)"),
        (fakes.Overwrites, TWICE, "overwritten accumulation", "use 1 alone"),
        (fakes.Overwrites, INSIDE, "overwritten accumulation", "2 uses of v0"),
        (fakes.Unreduced, BROADCAST, "not reduced over a broadcast dimension", "[0]"),
        (fakes.FirstOfBroadcast, BROADCAST, "missing sum", "axis 0 (of size 3)"),
        (fakes.WrongShape, SIN, "shape", "(9,)"),
        (fakes.WrongDtype, SIN, "dtype", "float32"),
        (fakes.MutatesInputs, SIN, "mutates inputs", "x0"),
        (fakes.Nondeterministic, SIN, "nondeterministic", "twice"),
    ],
)
def test_a_fake_is_caught_and_named(fake: type[Engine], one: Sample, slug: str, words: str) -> None:
    before = {name: value.copy() for name, value in one.values.items()}
    found = results(fake(), one, directions=2)
    assert found["value"].outcome == "passed"
    assert found["vjp"].outcome == "failed"
    evidence = found["vjp"].evidence
    assert evidence["diagnosis"] == slug
    assert words in evidence["description"]
    assert evidence["verdict"].startswith("engine wrong")
    repro = found["vjp"].repro
    assert repro is not None
    assert "torch." in repro["program"]
    assert "import refgrad as torch" in repro["script"] or "import torch" in repro["script"]
    for name, value in before.items():
        assert np.array_equal(one.values[name], value)


@pytest.mark.parametrize("fake", [fakes.WrongSign, fakes.MissingFactor, fakes.Transposed])
def test_the_numerical_check_needs_no_reference_to_see_it(fake: type[Engine]) -> None:
    one = {"wrong-sign": SIN, "missing-factor": SQUARE, "transposed": MATMUL}[fake.name]
    found = results(fake(), one, checks=("numerical",), directions=1)["numerical"]
    assert found.outcome == "failed"
    assert found.evidence["verdict"].startswith("engine wrong")
    assert found.evidence["leaf"] == "x0"


def test_a_stale_value_shows_on_the_second_sample() -> None:
    engine = fakes.Stale()
    assert results(engine, EXP)["vjp"].outcome == "passed"
    other = sample(("torch.exp", (Ref("x0"),)), x0=Y)
    found = results(engine, other)["vjp"]
    assert found.outcome == "failed"
    assert found.evidence["diagnosis"] == "stale"


def test_worst_entry_and_three_values() -> None:
    evidence = results(fakes.SingleEntry(), EXP)["vjp"].evidence
    assert evidence["leaf"] == "x0"
    assert evidence["index"] == [0, 0]
    assert evidence["wrong_entries"] == 1
    assert evidence["numerical"] == pytest.approx(evidence["reference"], rel=1e-12)
    scale = np.abs(results(RefgradEngine(), EXP)["vjp"].evidence["compared"])
    assert scale == 9
    assert 0 < evidence["absolute"] < 1e-7
    assert evidence["bound"] < evidence["absolute"]


def test_the_first_call_where_two_backward_passes_part_is_named() -> None:
    chain = sample(
        ("torch.exp", (Ref("x0"),)),
        ("torch.sin", (Ref("v0"),)),
        ("torch.tanh", (Ref("v1"),)),
        x0=X,
    )
    found = results(fakes.WrongSign(), chain)["vjp"]
    assert found.evidence["first_call"].startswith("v1 = torch.sin")


def test_what_is_missing_is_one_result() -> None:
    one = sample(("torch.not_an_op_of_anyone", (Ref("x0"),)), x0=X)
    context = checks.context_for(Settings(), engine=RefgradEngine(), reference=TorchEngine())
    found = list(checks.check_sample(one, context, "test"))
    assert [r.outcome for r in found] == ["unsupported"]
    assert found[0].evidence["missing"] == ["torch.not_an_op_of_anyone"]


def test_an_engine_that_raises_is_errored_with_the_traceback() -> None:
    found = results(fakes.Raises(), SIN)["vjp"]
    assert found.outcome == "errored"
    assert "ZeroDivisionError" in found.evidence["reason"]
    assert "a bug in the backward pass" in found.evidence["error"]


def test_unknown_checks_are_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="numerical"):
        checks.load(["numericl"])


def _generated(engine: Engine, settings: Settings, ops: int) -> list[Result]:
    context = checks.context_for(settings, engine=engine, reference=TorchEngine())
    source = Generated()
    found = []
    items = source.items(settings)
    for item in items[:: max(1, len(items) // ops)]:
        one = Item(item.source, "0-1", item.op)
        for made in source.samples(one, settings):
            assert isinstance(made, Sample)
            found += checks.check_sample(made, context, "generated")
    return found


@pytest.mark.parametrize("make", [RefgradEngine, TorchEngine])
def test_right_engines_raise_no_alarm_on_generated_programs(make: type[Engine]) -> None:
    settings = Settings(seed=11, generated=310, directions=1)
    found = _generated(make(), settings, 70)
    wrong = expectations.judge(found, expectations.load(make().name), whole=False).regressions
    assert not [(r.case, r.evidence) for r in wrong]
    undecided = [r.case for r in found if r.outcome == "inconclusive"]
    assert len(undecided) <= 3, undecided
    assert sum(r.check == "numerical" and r.outcome == "passed" for r in found) > 60


_FINE = ("passed", "precision", "unsupported", "inconclusive")

HARD: dict[str, Sample] = {
    "kink at zero": sample(("torch.abs", (Ref("x0"),)), x0=np.array([0.0, 1.0, -2.0])),
    "several kinks": sample(
        ("torch.abs", (Ref("x0"),)),
        ("torch.abs", (Ref("x1"),)),
        ("torch.sub", (Ref("v0"), Ref("v1"))),
        x0=np.zeros(3),
        x1=np.zeros(3),
    ),
    "ties": sample(("torch.maximum", (Ref("x0"), Ref("x1"))), x0=np.ones(4), x1=np.ones(4)),
    "jumps": sample(
        ("torch.floor", (Ref("x0"),)), ("torch.mul", (Ref("v0"), Ref("x0"))), x0=np.arange(4.0)
    ),
    "ill-conditioned": sample(
        ("torch.sub", (Ref("x0"), Ref("x1"))),
        ("torch.reciprocal", (Ref("v0"),)),
        x0=1e8 + np.arange(3.0) * 1e-6,
        x1=np.full(3, 1e8 - 1e-6),
    ),
    "cancelling": sample(("torch.div", (Ref("x0"), Ref("x0"))), x0=X),
    "empty": sample(("torch.exp", (Ref("x0"),)), x0=np.zeros((0, 3))),
    "0-d": sample(("torch.exp", (Ref("x0"),)), x0=np.array(0.3)),
    "not finite": sample(("torch.log", (Ref("x0"),)), x0=np.array([0.0, -1.0, 2.0, np.inf])),
    "edge of the domain": sample(("torch.sqrt", (Ref("x0"),)), x0=np.array([0.0, 1.0])),
    "huge": sample(("torch.mul", (Ref("x0"), Ref("x0"))), x0=np.array([1e150, 1.0])),
    "tiny": sample(("torch.mul", (Ref("x0"), 1e-200)), x0=X),
    "integer output": sample(("torch.gt", (Ref("x0"), 0)), outputs=(Ref("x0"), Ref("v0")), x0=X),
    "float32": sample(("torch.exp", (Ref("x0"),)), x0=X.astype(np.float32)),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("make", [RefgradEngine, TorchEngine])
def test_no_alarm_on_hard_inputs(name: str, make: type[Engine]) -> None:
    with np.errstate(all="ignore"):
        found = results(make(), HARD[name], directions=2, order=2)
    for check, result in found.items():
        assert result.outcome in _FINE, (check, result.evidence)
    assert found["vjp"].outcome == "passed"


def test_gradients_that_stop_by_design_are_no_fault() -> None:
    detached = sample(
        ("torch.Tensor.detach", (Ref("x0"),)),
        ("torch.mul", (Ref("v0"), Ref("x0"))),
        x0=X,
    )
    padding = sample(
        ("torch.nn.functional.embedding", (Ref("x1"), Ref("x0"), 0)),
        x0=X,
        x1=np.array([0, 1, 0, 2]),
    )
    for one in (detached, padding):
        found = results(TorchEngine(), one)["numerical"]
        assert found.outcome == "passed", found.evidence
        assert found.evidence["oracle"]


def test_second_order_is_compared_with_the_derivative_of_the_gradient() -> None:
    one = sample(("torch.sin", (Ref("x0"),)), ("torch.matmul", (Ref("v0"), Ref("x1"))), x0=X, x1=Y)
    found = results(RefgradEngine(), one, order=2)["rr"]
    assert found.outcome == "passed"
    assert found.evidence["bound"] < 1e-7
    assert results(fakes.WrongSign(), one, order=2)["rr"].outcome == "failed"


def test_the_same_case_draws_the_same_numbers() -> None:
    one, two = results(RefgradEngine(), SIN), results(RefgradEngine(), SIN)
    assert one["numerical"].evidence == two["numerical"].evidence
    assert one["vjp"].case == two["vjp"].case


def test_fakes_can_be_named_on_the_command_line() -> None:
    assert engines.load("direct:tests.fakes.engines:WrongSign").name == "wrong-sign"


@pytest.mark.parametrize(("due", "who"), [("float32", "reference"), ("float64", "engine")])
def test_the_dtype_that_is_due_says_who_is_wrong(due: str, who: str) -> None:
    differ = compare(np.ones(1, np.float32), np.ones(1), relative=1e-12)
    assert differ is not None
    said = diagnose(np.zeros(1, np.float32), np.zeros(1), (1,))
    assert by_form(differ, said, due).verdict.startswith(f"{who} wrong: ")


def test_a_case_is_freed_when_it_is_done_with() -> None:
    one = sample(("torch.exp", (Ref("x0"),)), x0=X)
    settings = Settings(checks=("value", "vjp", "numerical", "rr"), standalone=0)
    context = checks.context_for(settings, RefgradEngine(), TorchEngine())
    made: list[weakref.ref[Any]] = []
    case = context.case

    def noted(*given: Any) -> Any:
        found = case(*given)
        made.append(weakref.ref(found))
        return found

    context.case = noted  # type: ignore[method-assign]
    gc.disable()
    try:
        assert {r.outcome for r in checks.check_sample(one, context, "test")} == {"passed"}
        assert [ref() for ref in made] == [None]
    finally:
        gc.enable()


class Counting(RefgradEngine):
    """Counts what it is asked for."""

    recorded = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def execute(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append("forward")
        return super().execute(*args, **kwargs)

    def hvp(self, *args: Any, **kwargs: Any) -> dict[str, Array | None]:
        self.asked.append("hvp")
        return super().hvp(*args, **kwargs)


class Unrecorded(Counting):
    """One that says nothing of itself, so that each of its methods is asked."""


def test_what_is_right_takes_few_forward_passes_and_an_engines_own_methods_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = ("value", "vjp", "numerical", "rr")
    one = sample(("torch.exp", (Ref("x0"),)), ("torch.mul", (Ref("v0"), Ref("x0"))), x0=X)
    for engine, asked in (
        (Counting(), ["forward"] * 2),  # vjp; then H t and what it is in the cotangent
        (Unrecorded(), ["forward", "hvp", "forward"]),
    ):
        monkeypatch.setattr("conformance.checks.passes.APART", 1)
        found = results(engine, one, checks=checks, standalone=0)
        assert {r.outcome for r in found.values()} == {"passed"}
        assert engine.asked[: len(asked)] == asked
    assert len(engine.asked) > 3  # and the gradient for the derivative in the cotangent
    monkeypatch.setattr("conformance.checks.passes.APART", 10**9)
    engine = Counting()
    found = results(engine, one, checks=checks, standalone=0)
    assert {r.outcome for r in found.values()} == {"passed"}
    assert engine.asked == ["forward"]  # for both orders


class Doubles(Counting):
    """Twice the product, in its own method alone."""

    def hvp(self, *args: Any, **kwargs: Any) -> dict[str, Array | None]:
        return {n: None if h is None else 2 * h for n, h in super().hvp(*args, **kwargs).items()}


def test_a_product_that_an_engine_makes_itself_is_the_one_that_is_judged() -> None:
    one = sample(("torch.exp", (Ref("x0"),)), x0=X)
    found = results(Doubles(), one, checks=("rr",), standalone=0)
    assert found["rr"].outcome == "failed"
