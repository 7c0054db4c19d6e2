"""Every disagreement ends in a sentence, and the outcome of a check is what the sentence says."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import arbitration, checks
from conformance.arbitration import decide, of_two_modes, outcome
from conformance.checks import blame
from conformance.checks.compare import compare
from conformance.engines.base import Engine, Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.errors import EngineError, Unsupported
from conformance.oracles import cancellation
from conformance.oracles.directional import Opinion
from conformance.oracles.estimate import Kink
from conformance.program import Array, Call, Input, Program, Ref, Values
from conformance.results import OUTCOMES, Result
from conformance.settings import Settings
from conformance.sources.base import Sample
from conformance.sources.generated import Generated
from tests.conformance.test_checks import sample

CLASSES = {
    "engine wrong": "failed",
    "reference wrong": "failed",
    "engine and reference wrong": "failed",
    "both defensible (kink)": "failed",
    "precision": "precision",
    "inconclusive": "inconclusive",
}
SWAPPED = {"engine wrong": "reference wrong", "reference wrong": "engine wrong"}
INF, NAN = float("inf"), float("nan")


def kinked(left: float, right: float, *, jump: bool = False) -> Opinion:
    """An opinion of two slopes."""
    sides = (np.array([left]), np.array([right]), np.zeros(1), np.zeros(1))
    return Opinion((left + right) / 2, 1.0, "stencil", "two slopes", Kink(*sides, jump))


def sharp(value: float, bound: float = 1e-12, **fields: int) -> Opinion:
    """A plain opinion."""
    return Opinion(value, bound, "complex step", **fields)


@pytest.mark.parametrize(
    ("ours", "theirs", "opinions", "verdict"),
    [
        (2.0, 1.0, [sharp(1.0)], "engine wrong"),
        (2.0, 1.0, [sharp(2.0)], "reference wrong"),
        (2.0, 1.0, [sharp(3.0)], "engine and reference wrong"),
        (1 + 2e-9, 1 + 1e-9, [sharp(1.0)], "precision"),
        (2.0, 1.0, [sharp(1.5, 0.6)], "inconclusive"),
        (2.0, 1.0, [sharp(2.0), sharp(1.0)], "inconclusive"),
        (2.0, 1.0, [sharp(NAN, INF)], "inconclusive"),
        (2.0, 1.0, [sharp(NAN, INF), sharp(1.0)], "engine wrong"),
        # nearer to each other than the bound, and both far from the derivative
        (1.0, 1 + 1e-9, [sharp(3.0, 1e-6)], "engine and reference wrong"),
        # what is not finite beside a derivative that is, however near that is to 0
        (NAN, 0.0, [sharp(0.0, 1e-14)], "engine wrong"),
        (0.0, INF, [sharp(0.0, 1e-14)], "reference wrong"),
        (NAN, 2.0, [sharp(1.0)], "engine and reference wrong"),
        (NAN, 1.0, [sharp(1.0, INF)], "inconclusive"),
        (NAN, 0.0, [sharp(-5.4, 121.0)], "inconclusive"),
        # switches
        (0.3, 0.0, [kinked(0.0, 1.0)], "both defensible (kink)"),
        (2.0, 0.0, [kinked(0.0, 1.0)], "engine wrong"),
        (0.0, 2.0, [kinked(0.0, 1.0)], "reference wrong"),
        (3.0, 2.0, [kinked(0.0, 1.0, jump=True)], "engine and reference wrong"),
        (2.0, 1.0, [sharp(1.0, ties=1)], "both defensible (kink)"),
    ],
)
def test_who_is_wrong(ours: float, theirs: float, opinions: list[Opinion], verdict: str) -> None:
    ruling = decide(ours, theirs, opinions, "torch")
    assert ruling.verdict.partition(":")[0] == verdict
    evidence = ruling.evidence()
    if verdict == "inconclusive":
        assert evidence["reason"]
        assert evidence["reason"] in ruling.verdict
    if verdict == "both defensible (kink)":
        assert f"by torch's convention it is {theirs:.6g}" in ruling.verdict


numbers = st.one_of(
    st.floats(-1e3, 1e3), st.sampled_from([0.0, 1.0, 1 + 1e-9, INF, -INF, NAN, 1e-300])
)
opinions = st.one_of(
    st.builds(
        sharp, numbers, st.sampled_from([0.0, 1e-14, 1e-9, 0.3, INF]), ties=st.integers(0, 1)
    ),
    st.builds(kinked, st.floats(-9, 9), st.floats(-9, 9), jump=st.booleans()),
)


@given(numbers, numbers, st.lists(opinions, min_size=1, max_size=2))
def test_every_ruling_is_of_a_class_that_has_an_outcome_and_favours_no_side(
    ours: float, theirs: float, heard: list[Opinion]
) -> None:
    verdict = decide(ours, theirs, heard, "torch").verdict
    named, separator, why = verdict.partition(": ")
    assert separator
    assert why
    assert outcome(verdict) == CLASSES[named]
    assert outcome(verdict) in OUTCOMES
    other = decide(theirs, ours, heard, "torch").verdict.partition(": ")[0]
    assert other == SWAPPED.get(named, named)
    assert outcome(of_two_modes(verdict)) == outcome(verdict)
    assert "reference" not in of_two_modes(verdict)


@pytest.mark.parametrize(
    ("verdict", "meant"),
    [
        ("engine wrong: 1", "engine wrong (forward): 1"),
        ("reference wrong: 1", "engine wrong (backward): 1"),
        ("engine and reference wrong: 1", "engine wrong (both modes): 1"),
        ("inconclusive: 1", "inconclusive: 1"),
    ],
)
def test_where_two_modes_of_an_engine_differ_the_sentence_names_the_mode(
    verdict: str, meant: str
) -> None:
    assert of_two_modes(verdict) == meant


class Off(RefgradEngine):
    """refgrad with gradients that are off by 1e-7 of their scale."""

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        found = super().vjp(program, values, cotangents, keep=keep)
        off = {n: g if g is None else g * (1 + 1e-7) for n, g in found.gradients.items()}
        return Vjp(found.outputs, off, found.kept, found.differentiable)


def results(one: Sample, *chosen: str) -> dict[str, Result]:
    """The results of a wrong engine, by check."""
    context = checks.context_for(Settings(checks=chosen), engine=Off(), reference=TorchEngine())
    return {r.check: r for r in checks.check_sample(one, context, "test")}


EXP = sample(("torch.exp", (Ref("x0"),)), x0=np.array([0.5, -1.0]))


def test_a_disagreement_on_which_the_arbiter_can_rule_fails() -> None:
    found = results(EXP, "vjp", "numerical")
    assert [r.outcome for r in found.values()] == ["failed", "failed"]
    for result in found.values():
        assert result.evidence["verdict"].startswith("engine wrong")


def test_a_disagreement_on_which_it_cannot_is_inconclusive_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poor = Opinion(1.0, 1e3, "stencil", "the steps of the stencil do not agree")
    monkeypatch.setattr(arbitration, "opinions_on", lambda *args: [poor])
    found = results(EXP, "vjp")["vjp"]
    assert found.outcome == "inconclusive"
    assert found.evidence["verdict"] == "inconclusive: the steps of the stencil do not agree"
    assert found.evidence["reason"] == "the steps of the stencil do not agree"
    assert found.repro is not None


def test_what_is_inconclusive_for_another_reason_has_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poor = Opinion(1.0, 1e3, "stencil", "the function is noisy")

    def lacks(*args: object, **options: object) -> Opinion:
        raise Unsupported("no complex loop")

    monkeypatch.setattr("conformance.checks.base.Step", lacks)
    monkeypatch.setattr("conformance.checks.entrywise.by_stencil", lambda *args, **candidate: poor)
    found = results(EXP, "numerical")["numerical"]
    assert found.outcome == "inconclusive"
    assert found.evidence["verdict"] == "inconclusive: the function is noisy"


SECOND = ("rr", "fr", "rf", "ff")
X, Y = np.array([1.0, 2.0, 4.0]), np.array([0.5, -1.0, 0.25])


class FirstOrderOnly(TorchEngine):
    """torch where a derivative of the backward pass is not implemented."""

    def hvp(self, *args: object, **kwargs: object) -> dict[str, Array | None]:
        raise EngineError("the derivative of exp_backward is not implemented")


class Doubled(RefgradEngine):
    """Twice the second order, by every route that gives a product."""

    def hvp(self, *args: Any, **kwargs: Any) -> dict[str, Array | None]:
        found = super().hvp(*args, **kwargs)
        return {n: None if h is None else 2 * h for n, h in found.items()}


def second(engine: Engine, reference: Engine) -> dict[str, Result]:
    """The second-order results, by route."""
    context = checks.context_for(Settings(checks=SECOND), engine=engine, reference=reference)
    return {r.check: r for r in checks.check_sample(EXP, context, "test")}


def test_where_the_reference_has_no_second_order_the_complex_step_is_the_truth() -> None:
    right = second(RefgradEngine(), FirstOrderOnly())
    assert {r.outcome for r in right.values()} == {"passed"}
    wrong = second(Doubled(), FirstOrderOnly())
    assert [name for name, r in wrong.items() if r.outcome == "failed"] == ["rr", "fr", "rf"]
    for route in ("rr", "fr", "rf"):
        verdict = wrong[route].evidence["verdict"]
        assert verdict.startswith("engine wrong")
        assert "torch has no second order here" in verdict


def test_an_engine_that_is_its_own_reference_is_not_called_two() -> None:
    class Tripled(Doubled):
        def hvp(self, *args: Any, **kwargs: Any) -> dict[str, Array | None]:
            found = super().hvp(*args, **kwargs)
            route = args[4] if len(args) > 4 else kwargs.get("route", "rr")
            return (
                found if route == "rr" else {n: 1.5 * h for n, h in found.items() if h is not None}
            )

    found = second(Tripled(), Tripled())
    assert found["rr"].evidence["verdict"].startswith("engine wrong: ")
    assert found["fr"].evidence["verdict"].startswith("engine wrong (rr as well): ")
    assert found["fr"].outcome == "failed"


def test_a_call_that_raises_alone_at_second_order_is_to_blame() -> None:
    # torch: a layer_norm with a bias and no weight has no second order by the bias
    name = "torch.nn.functional.layer_norm"
    norms = [(name, (Ref(x), [3], None, Ref(b))) for x, b in (("x0", "x1"), ("v0", "v0"))]
    one = sample(*norms, x0=X, x1=Y)
    frozen = [dataclasses.replace(i, requires_grad=i.name == "x1") for i in one.program.inputs]
    one = dataclasses.replace(one, program=dataclasses.replace(one.program, inputs=tuple(frozen)))
    context = checks.context_for(
        Settings(checks=("rr",)), engine=TorchEngine(), reference=TorchEngine()
    )
    (found,) = checks.check_sample(one, context, "test")
    assert found.outcome == "failed"
    assert found.evidence["verdict"].startswith("engine wrong")
    assert found.evidence["culprit"] == "torch.nn.functional.layer_norm"


def test_terms_that_cancel_to_nothing_along_a_constant_are_no_fault_at_second_order() -> None:
    """softmax of equal entries has slopes of order 1, however large the entries are."""
    context = checks.context_for(Settings(checks=("rr",)), RefgradEngine(), TorchEngine())
    for x in (*np.linspace(-50.0, 50.0, 41), 5e3, 1e5, 1e7):
        calls = (
            Call("v0", "torch.clone", (Ref("x0"),)),
            Call("v1", "torch.Tensor.copy_", (Ref("v0"), Ref("x1"))),
            Call("v2", "torch.softmax", (Ref("v1"), 1)),
        )
        values = {"x0": np.zeros((2, 7)), "x1": np.array(x)}
        inputs = tuple(Input.of(n, v, requires_grad=True) for n, v in values.items())
        one = Sample("softmax", Program(inputs, calls, Ref("v2")), values)
        assert {r.outcome for r in checks.check_sample(one, context, "test")} == {"passed"}


def test_a_gradient_that_is_off_in_its_tenth_digit_is_to_blame_and_not_a_second_derivative() -> (
    None
):
    """torch's trigamma is, so differences of digamma's gradient are not its second derivative."""
    source, settings = Generated(), Settings(checks=("rr",), block=60, generated=20_000)
    (item,) = [i for i in source.items(settings) if i.op == "digamma"][:1]
    drawn = [s for s in source.samples(item, settings) if isinstance(s, Sample)]
    (one,) = [s for s in drawn if s.label == "seed 0/digamma/55"]
    context = checks.context_for(settings, TorchEngine(), TorchEngine())
    (result,) = checks.check_sample(one, context, "generated")
    assert result.outcome == "failed"
    assert result.evidence["culprit"] == "torch.digamma"


def test_a_tangent_that_is_wrong_alone_is_to_blame_at_second_order() -> None:
    # torch: forward mode gives an embedding's padding row a tangent, linear in the weight
    one = sample(
        ("torch.nn.functional.embedding", (Ref("x1"), Ref("x0"), 1)),
        ("torch.exp", (Ref("v0"),)),
        x0=np.array([[0.5, -1.0], [2.0, 0.25]]),
        x1=np.array([1, 0]),
    )
    context = checks.context_for(
        Settings(checks=("ff",)), engine=TorchEngine(), reference=TorchEngine()
    )
    (found,) = checks.check_sample(one, context, "test")
    assert found.outcome == "failed"
    assert found.evidence["culprit"] == "torch.nn.functional.embedding"


def test_slopes_that_are_known_badly_tell_nothing_and_the_chosen_piece_does() -> None:
    rough = (np.array([1.0]), np.array([1.0]), np.full(1, 1e-6), np.full(1, 1e-6))
    kink = Opinion(1.0, 1e-6, "stencil", "two slopes", Kink(*rough, jump=True))
    ours, theirs = 1.0, 1 + 1e-9
    assert decide(ours, theirs, [sharp(1.0, ties=1), kink], "torch").verdict.startswith(
        "reference wrong"
    )
    assert decide(ours, theirs, [kink], "torch").verdict.startswith("inconclusive")


def _blamed(one: Sample, check: str) -> tuple[str, str]:
    context = checks.context_for(
        Settings(checks=(check,), standalone=0), RefgradEngine(), TorchEngine()
    )
    (result,) = checks.check_sample(one, context, "test")
    return str(result.evidence["verdict"]), str(result.evidence.get("culprit"))


def test_a_gradient_that_is_wrong_where_nothing_is_recorded_is_to_blame_at_second_order() -> None:
    """torch's of det at a singular matrix is 0 then, and with create_graph it is right."""
    x = np.array([[[1.3, 0.0], [0.0, -2.25]], [[0.0, 0.0], [-1.04, 0.0]]])
    calls = (
        ("torch.linalg.det", (Ref("x0"),)),
        ("torch.logcumsumexp", (Ref("v0"), 0)),
        ("torch.nn.functional.softsign", (Ref("x0"),)),  # which has a kink at second order
    )
    verdict, culprit = _blamed(sample(*calls, outputs=(Ref("v1"), Ref("v2")), x0=x), "rr")
    assert verdict.startswith("reference wrong")
    assert culprit == "torch.linalg.det"


def test_what_is_rounding_alone_is_not_to_blame_at_second_order() -> None:
    """The second derivative of x / x is 0 but for rounding."""
    context = checks.context_for(
        Settings(checks=("rf",), standalone=0), TorchEngine(), TorchEngine()
    )
    for x in (0.346, -0.652, -0.802, -1.103, 0.034):
        one = sample(("torch.div", (Ref("x0"), Ref("x0"))), x0=np.array([x]))
        case = context.case(one, "test")
        assert blame._excess(case, one.program, one.values, "rf") is None


def test_a_small_entry_that_is_wrong_is_blamed_where_it_was_small() -> None:
    x = np.array([-36.0, 36.5, -31.0, 35.0, -34.0])
    one = sample(("torch.nn.functional.elu", (Ref("x0"),)), ("torch.sigmoid", (Ref("v0"),)), x0=x)
    verdict, culprit = _blamed(one, "vjp")
    assert verdict.startswith("reference wrong")
    assert culprit == "torch.sigmoid"


def test_a_write_into_a_view_is_blamed_and_not_the_copy_before_it() -> None:
    one = sample(
        ("torch.clone", (Ref("x0"),)),
        ("torch.narrow", (Ref("v0"), 1, 0, 1)),
        ("torch.Tensor.tanh_", (Ref("v1"),)),
        outputs=Ref("v0"),
        x0=np.array([[8.0]]),
    )
    verdict, culprit = _blamed(one, "vjp")
    assert verdict.startswith("reference wrong")
    assert culprit == "torch.Tensor.tanh_"


def test_differences_of_a_wrong_gradient_are_no_evidence_at_second_order() -> None:
    """torch's trigamma is off by 5e-10, so its gradient's differences agree with its product."""
    x = np.array([1.16, 2.26, 2.31, 1.2])
    calls = (("torch.acosh", (Ref("x0"),)), ("torch.digamma", (Ref("v0"),)))
    verdict, culprit = _blamed(sample(*calls, ("torch.exp", (Ref("v1"),)), x0=x), "rr")
    assert verdict.startswith("reference wrong"), verdict
    assert culprit == "torch.digamma"


def test_what_rounding_costs_the_gradient_of_a_scalar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a sum over all entries, whose terms cancel; in float32 that is all that differs."""
    x = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    scalar = np.array(1.5, np.float32)
    one = sample(("torch.add", (Ref("x0"), Ref("x1"))), x0=x, x1=scalar)
    context = checks.context_for(Settings(standalone=0), RefgradEngine(), TorchEngine())
    case = context.case(one, "test")
    right = case.reference_vjp.gradients["x1"]
    assert right is not None
    off = np.asarray(right + np.float32(1e-6))
    difference = compare(off, right, relative=1e-12)
    assert difference is not None
    costs = []
    lost = cancellation.lost
    monkeypatch.setattr(cancellation, "lost", lambda *args: costs.append(lost(*args)) or costs[-1])
    arbitration.entry(case, case.program.leaves[1], difference)
    assert costs[0] > 1e-6


def test_rounding_in_float32_is_measured_where_a_program_writes_in_place() -> None:
    rng = np.random.default_rng(3)
    one = sample(
        ("torch.clone", (Ref("x0"),)),
        ("torch.Tensor.copy_", (Ref("v0"), Ref("x1"))),
        outputs=Ref("v0"),
        x0=rng.standard_normal(400).astype(np.float32),
        x1=np.array(1.5, np.float32),
    )
    context = checks.context_for(Settings(standalone=0), RefgradEngine(), TorchEngine())
    case = context.case(one, "test")
    right = case.reference_vjp.gradients["x1"]
    assert right is not None
    case.__dict__["narrowed"] = {"x1": 2e-6}
    difference = compare(np.asarray(right + np.float32(1e-6)), right, relative=1e-12)
    assert difference is not None
    ruling = arbitration.entry(case, case.program.leaves[1], difference)
    assert outcome(ruling.verdict) == "precision"


def test_terms_that_cancel_within_one_call_in_float32_are_rounding() -> None:
    """rms_norm of one number is 1 but for eps: its derivative is two terms that cancel."""
    context = checks.context_for(
        Settings(checks=("numerical",), standalone=0), RefgradEngine(), TorchEngine()
    )
    outcomes = set()
    for x in (0.44026846, 0.48389262, 0.49731544, 0.51409394):
        one = sample(
            ("torch.nn.functional.rms_norm", (Ref("x0"), (1, 1), None, 1e-5)),
            x0=np.full((1, 1), x, np.float32),
        )
        (result,) = checks.check_sample(one, context, "test")
        outcomes.add(result.outcome)
    assert outcomes <= {"passed", "precision"}


def test_a_write_that_no_output_needs_does_not_silence_what_rounding_costs() -> None:
    idle = sample(
        ("torch.clone", (Ref("x0"),)),
        ("torch.Tensor.mul_", (Ref("v0"), 0.5)),
        ("torch.exp", (Ref("x1"),)),
        outputs=Ref("v2"),
        x0=np.ones(2),
        x1=np.ones(2),
    )
    ones = [np.ones(2)], {"x0": np.ones(2), "x1": np.ones(2)}
    assert cancellation.lost(TorchEngine(), idle.program, idle.values, *ones) > 0
    busy = dataclasses.replace(idle.program, outputs=Ref("v1"))
    assert cancellation.lost(TorchEngine(), busy, idle.values, *ones) == 0


# --- what has no size of its own ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "opinion", "nothing", "verdict"),
    [
        (8e-18, sharp(0.0, 0.0), 1e-15, "precision"),
        (8e-18, sharp(0.0, 0.0), 0.0, "engine wrong"),
        (2e-15, sharp(0.0, 0.0), 1e-15, "engine wrong"),
        (8e-18, sharp(0.0, 1e-20), 1e-15, "engine wrong"),  # zero within a bound is another
        (1e-9, sharp(1e-25, 0.0), 1e-8, "engine wrong"),
        (NAN, sharp(0.0, 0.0), 1e-15, "engine wrong"),
    ],
)
def test_beside_a_derivative_that_is_exactly_zero_rounding_is_no_fault(
    ours: float, opinion: Opinion, nothing: float, verdict: str
) -> None:
    ruling = decide(ours, 0.0, [opinion], "torch", nothing)
    assert ruling.verdict.partition(":")[0] == verdict


class _Curved(RefgradEngine):
    """An engine whose second derivatives along two directions are off by `off`."""

    off = 0.0

    def curvature(self, *given: Any) -> Any:
        return [None if m is None else m + self.off for m in super().curvature(*given)]


@pytest.mark.parametrize(("off", "outcome"), [(1e-17, "precision"), (1e-12, "failed")])
def test_a_curvature_of_nothing_may_be_rounding(off: float, outcome: str) -> None:
    """A softmax over one class is 1, whatever the score: all its derivatives are exactly zero."""
    engine = _Curved()
    engine.off = off
    values = {"x": np.array([[0.7], [-1.2]])}
    call = Call("y", "torch.log_softmax", (Ref("x"),), {"dim": 1})
    made = Program((Input.of("x", values["x"], requires_grad=True),), (call,), Ref("y"))
    settings = Settings(order=2, standalone=0, checks=("ff",))
    context = checks.context_for(settings, engine, TorchEngine())
    (result,) = checks.check_sample(Sample("log_softmax", made, values), context, "test")
    assert result.outcome == outcome
