"""Every invariant has an engine that breaks it and no other; right engines break none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import refgrad
from conformance import checks
from conformance.checks import invariants_lazy
from conformance.checks.invariants import EACH, INVARIANTS, InvariantCheck, due, in_turn
from conformance.engines.base import Engine
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.engines.variants import Recording
from conformance.errors import Unsupported
from conformance.program import Ref
from conformance.results import Result
from conformance.settings import Settings, user_checks
from conformance.sources.base import Item, Sample
from conformance.sources.generated import Generated
from tests.conformance.test_checks import sample
from tests.fakes import engines as fakes
from tests.fakes import invariants as broken

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 3, 4))
REFERENCE = TorchEngine()

ONE = sample(("torch.sin", (Ref("x0"),)), x0=X)
PRODUCT = sample(("torch.mul", (Ref("x0"), Ref("x1"))), x0=X, x1=Y)
SUM = sample(("torch.add", (Ref("x0"), Ref("x1"))), x0=X, x1=Y)
THREE = sample(
    *((f"torch.{name}", (Ref("x0"),)) for name in ("sin", "exp", "tanh")),
    outputs=(Ref("v0"), Ref("v1"), Ref("v2")),
    x0=X,
)
CHAIN = sample(("torch.exp", (Ref("x0"),)), ("torch.mul", (Ref("v0"), Ref("x1"))), x0=X, x1=Y)
COMPLEX = sample(("torch.mul", (Ref("x0"), Ref("x1"))), x0=X + 1j * Y, x1=Y - 2j * X)
ON = {"linear": ONE, "own_memory": SUM, "undefined": THREE, "apart": THREE, "hooks": CHAIN}
ON |= {"conjugated_cotangents": COMPLEX, "conjugated_inputs": COMPLEX}
LAZY = [name for name, row in INVARIANTS.items() if row in invariants_lazy.INVARIANTS]

# Those whose engine is a module of torch's names with a fault in it, on which a script can run.
OF_THE_NAMESPACE = {
    *("create_graph", "retain_graph", "flipped_inputs", "flipped_cotangents", "form", "batched"),
    *("transposed_cotangents", "strided_cotangents", "expanded_cotangents", "unmodified"),
}


def results(
    engine: Engine, one: Sample, chosen: Iterable[str] = ("invariants",), **settings: Any
) -> dict[str, Result]:
    """The results by invariant."""
    asked = Settings(checks=tuple(chosen), **settings)
    context = checks.context_for(asked, engine=engine, reference=REFERENCE)
    found = checks.check_sample(one, context, "test")
    return {r.check.removeprefix("invariants."): r for r in found}


def failing(found: dict[str, Result]) -> set[str]:
    return {name for name, r in found.items() if r.outcome != "passed"}


def test_every_invariant_has_an_engine_that_breaks_it() -> None:
    assert set(broken.BREAKS) == set(INVARIANTS)


@pytest.mark.parametrize("name", INVARIANTS)
def test_it_is_broken_alone_and_named(name: str) -> None:
    found = results(broken.BREAKS[name](), ON.get(name, PRODUCT))
    assert failing(found) == {name}, {n: found[n].evidence for n in failing(found)}
    evidence = found[name].evidence
    assert evidence["invariant"] == name
    assert evidence["verdict"].startswith("engine wrong: " + INVARIANTS[name].states)
    assert evidence["description"]
    assert found[name].case.split("/")[-3] == f"invariants.{name}"


@pytest.mark.parametrize("one", [ONE, PRODUCT, SUM, THREE, CHAIN, COMPLEX])
@pytest.mark.parametrize("make", [RefgradEngine, TorchEngine])
def test_right_engines_break_none(make: type[Engine], one: Sample) -> None:
    found = results(make(), one)
    assert not failing(found)
    assert len(found) >= 18


def test_what_differs_is_said() -> None:
    found = results(broken.CreateGraph(), PRODUCT)["create_graph"].evidence
    assert found["leaf"] == "x0"
    assert found["description"].startswith("under create_graph=True: the gradient is 1.001 times")
    assert found["engine"] == pytest.approx(1.001 * found["reference"])
    found = results(broken.Deterministic(), PRODUCT, ("invariants.deterministic",))
    assert "two runs differ, by " in found["deterministic"].evidence["description"]
    assert "e-16 of the gradient's scale" in found["deterministic"].evidence["description"]


def test_on_a_gpu_two_runs_agree_to_rounding() -> None:
    chosen = ("invariants.deterministic",)
    found = results(broken.Deterministic(), PRODUCT, chosen, device="cuda")
    assert not failing(found)  # its atomic additions come in any order
    found = results(fakes.Nondeterministic(), PRODUCT, chosen, device="cuda")
    assert failing(found) == {"deterministic"}


def _exit(text: str, namespace: Any = refgrad) -> int | str | None:
    """How a script ends that is run here, on a module of torch's names."""
    with pytest.raises(SystemExit) as ended, np.errstate(all="ignore"):
        exec(text.replace("import refgrad as torch", ""), {"torch": namespace})
    return ended.value.code


@pytest.mark.parametrize("name", INVARIANTS)
def test_its_script_exits_1_where_it_is_broken(name: str) -> None:
    one = ON.get(name, PRODUCT)
    engine = TorchEngine() if name in LAZY else RefgradEngine()  # which has no such bits
    context = checks.context_for(Settings(), engine=engine, reference=REFERENCE)
    text = InvariantCheck(INVARIANTS[name]).script(context.case(one, "test"))
    assert text is not None
    assert text.count("\n") <= 25
    assert _exit(text) == 0
    if name in OF_THE_NAMESPACE:
        assert _exit(text, broken.BREAKS[name]().namespace) == 1


def test_the_script_of_a_fault_of_torch_is_seen_to_fail() -> None:
    one = sample(
        ("torch.native_group_norm", (Ref("x0"), None, None, 1, 4, 1, 2, 1e-5)),
        outputs=(Ref("v0", (0,)), Ref("v0", (1,)), Ref("v0", (2,))),
        x0=RNG.standard_normal((1, 4)),
    )
    settings = Settings(checks=("invariants.apart",))
    context = checks.context_for(settings, engine=TorchEngine(), reference=REFERENCE)
    (found,) = checks.check_sample(one, context, "opinfo")
    assert found.outcome == "failed"
    assert found.repro is not None
    assert found.repro["verified"]
    assert "native_group_norm" in found.repro["script"]


def test_a_gradient_whose_memory_is_not_there_is_told_by_a_script_that_survives() -> None:
    """torch's second gradient of abs is a ZeroTensor, and of what cat joined a view of it."""
    calls = (("torch.cat", ([Ref("x0"), Ref("x1")],)), ("torch.abs", (Ref("v0"),)))
    one = sample(*calls, x0=np.array([1.0, 2.0]), x1=np.array([3.0]))
    settings = Settings(checks=("invariants.readable",))
    context = checks.context_for(settings, engine=TorchEngine(), reference=REFERENCE)
    (found,) = checks.check_sample(one, context, "generated")
    assert found.outcome == "failed"
    assert "crashes the process" in found.evidence["verdict"]
    assert found.repro is not None
    assert found.repro["verified"]
    assert not failing(results(RefgradEngine(), one, ("invariants.readable",)))


def test_gradients_in_place_and_of_kinks_hold() -> None:
    writes = sample(
        ("torch.mul", (Ref("x0"), 2.0)), ("torch.Tensor.mul_", (Ref("v0"), Ref("x1"))), x0=X, x1=Y
    )
    ties = np.array([0.0, 1.0, 1.0, 0.0])
    kinks = sample(("torch.maximum", (Ref("x0"), Ref("x1"))), x0=ties, x1=ties[::-1].copy())
    order = sample(("torch.msort", (Ref("x0"),)), x0=np.round(X))
    for one in (writes, kinks, order):
        assert not failing(results(RefgradEngine(), one))
        assert not failing(results(TorchEngine(), one))


class _EqualSlicesAreSingular(RefgradEngine):
    """Gives NaN where slices are equal, but not where they are one in memory."""

    def vjp(self, program: Any, values: Any, *args: Any, **options: Any) -> Any:
        found, x = super().vjp(program, values, *args, **options), values["x0"]
        equal = any((x == x.take([0], axis)).all() for axis in range(x.ndim))
        if not equal or 0 in program.inputs[0].strides:
            return found
        gradients = {n: np.full_like(g, np.nan) for n, g in found.gradients.items()}
        return replace(found, gradients=gradients)


def test_what_is_not_finite_at_copies_of_equal_slices_is_outside_the_domain() -> None:
    found = results(_EqualSlicesAreSingular(), ONE, ["invariants.expanded_inputs"])
    assert found["expanded_inputs"].outcome == "passed"


def test_a_function_of_the_layout_is_no_fault() -> None:
    view = sample(("torch.Tensor.view", (Ref("x0"), (12,))), x0=X)
    found = results(RefgradEngine(), view)
    assert failing(found) == {"transposed_inputs", "expanded_inputs"} & failing(found)
    assert {found[n].outcome for n in failing(found)} == {"unsupported"}
    laid = sample(("torch.as_strided", (Ref("x0"), (4, 3), (1, 4))), x0=X)
    assert {r.outcome for r in results(TorchEngine(), laid).values()} <= {"passed", "unsupported"}


def test_nan_and_inf_where_the_function_has_them() -> None:
    log = sample(("torch.log", (Ref("x0"),)), x0=np.array([0.0, -1.0, 2.0, np.inf]))
    root = sample(
        ("torch.sqrt", (Ref("x0"),)),
        ("torch.exp", (Ref("x0"),)),
        outputs=(Ref("v0"), Ref("v1")),
        x0=np.array([0.0, 1.0]),
    )
    with np.errstate(all="ignore"):
        for one in (log, root):
            assert not failing(results(RefgradEngine(), one))
            assert not failing(results(TorchEngine(), one))


def test_an_engine_that_raises_where_it_may_not_is_wrong() -> None:
    found = results(broken.RaisesAgain(), PRODUCT)
    assert failing(found) == {"retain_graph"}
    assert found["retain_graph"].outcome == "failed"
    assert "not implemented for this graph" in found["retain_graph"].evidence["verdict"]


def test_an_engine_without_a_graph_meets_those_of_the_port() -> None:
    found = results(fakes.Pretender(), PRODUCT)
    assert {r.outcome for r in found.values()} == {"passed", "unsupported"}
    assert found["linear"].outcome == "passed"
    assert found["create_graph"].outcome == "unsupported"
    assert "out of reach" in found["create_graph"].evidence["reason"]
    with pytest.raises(Unsupported):
        Recording(fakes.Pretender(), PRODUCT.program, PRODUCT.values)  # type: ignore[arg-type]


def test_a_cancelling_sum_is_a_matter_of_precision() -> None:
    class Loses(broken.CreateGraph):
        def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
            found = broken._Faulty.taken(self, outputs, inputs, cotangents, **options)
            return tuple(g * (1 + 2e-11) for g in found) if options.get("create_graph") else found

    found = results(Loses(), PRODUCT)["create_graph"]
    assert found.outcome == "precision"
    assert "here to 2.0e-11 only" in found.evidence["verdict"]


def test_narrow_results_in_between_round() -> None:
    one = sample(("torch.Tensor.float", (Ref("x0"),)), ("torch.Tensor.double", (Ref("v0"),)), x0=X)
    assert not failing(results(RefgradEngine(), one))


def test_an_engine_that_changes_its_values_is_not_compared() -> None:
    before = PRODUCT.values["x0"].copy()
    found = results(fakes.MutatesInputs(), PRODUCT)
    assert set(found) == {"unmodified"}
    assert found["unmodified"].outcome == "failed"
    assert np.array_equal(PRODUCT.values["x0"], before)


def test_samples_take_turns_so_that_an_op_meets_every_invariant() -> None:
    context = checks.context_for(Settings(), engine=RefgradEngine(), reference=REFERENCE)
    met: Counter[str] = Counter()
    for number in range(len(INVARIANTS)):
        case = context.case(replace(CHAIN, label=f"sample {number}"), "test")
        chosen = in_turn(case)
        assert len(chosen) == EACH
        assert {
            c.name for c in due(context.checks, case) if isinstance(c, InvariantCheck)
        } == chosen
        met.update(chosen)
    fitting = len(results(RefgradEngine(), CHAIN))
    assert len(met) == fitting
    assert min(met.values()) >= 1


def test_all_are_run_where_they_are_asked_for() -> None:
    everything = {f"invariants.{name}" for name in INVARIANTS}
    for settings in (Settings(profile="full"), Settings(checks=("invariants",))):
        context = checks.context_for(settings, engine=RefgradEngine(), reference=REFERENCE)
        case = context.case(ONE, "test")
        assert {c.name for c in due(context.checks, case)} >= everything
    found = results(RefgradEngine(), ONE, ("invariants.linear",))
    assert set(found) == {"linear"}


def test_a_user_is_not_told_what_the_engine_does() -> None:
    settings = Settings(checks=user_checks(1))
    for engine, of_engine in ((TorchEngine(), False), (RefgradEngine(), True)):
        context = checks.context_for(settings, engine=engine, reference=REFERENCE)
        names = {c.name for c in due(context.checks, context.case(ONE, "user"))}
        assert "invariants.linear" in names
        assert ("invariants.own_memory" in names) is of_engine


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_alarm_on_generated_programs(dtype: str) -> None:
    settings = Settings(seed=3, generated=310, dtypes=(dtype,), checks=("invariants",))
    context = checks.context_for(settings, engine=RefgradEngine(), reference=REFERENCE)
    source = Generated()
    found: list[Result] = []
    for item in source.items(settings)[::2]:
        for made in source.samples(Item(item.source, "0-0", item.op), settings):
            assert isinstance(made, Sample)
            found += checks.check_sample(made, context, "test")
    wrong = [(r.case, r.evidence) for r in found if r.outcome not in ("passed", "unsupported")]
    assert not wrong
    assert len(found) > 1000
    assert sum(r.outcome == "unsupported" for r in found) < 0.01 * len(found)


def test_a_gradient_that_lies_otherwise_in_memory_reaches_the_table() -> None:
    """What the invariants found in refgrad: adding into a copy of zeros, not into the zeros."""
    indices = np.array([0, 2, 2])
    one = sample(("torch.nn.functional.embedding", (Ref("x1"), Ref("x0"))), x0=Y.copy(), x1=indices)
    found = results(RefgradEngine(), one)
    assert found["transposed_cotangents"].outcome == "passed"
    assert not failing(found)
