"""An engine that claims to need no torch is made to prove it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence

import numpy as np
import pytest

from conformance import checks, engines
from conformance.checks.base import Case
from conformance.checks.standalone import Isolation
from conformance.child import in_child
from conformance.engines.base import Vjp
from conformance.engines.torch import TorchEngine
from conformance.program import Array, Call, Input, Program, Ref, Values
from conformance.results import Result
from conformance.settings import Settings
from conformance.sources.base import Sample

X = np.random.default_rng(0).standard_normal((2, 3))
PROGRAM = Program(
    (Input.of("x0", X, requires_grad=True),),
    (Call("v0", "torch.exp", (Ref("x0"),)),),
    Ref("v0"),
)


def _found(engine: str, times: int = 1) -> list[Result]:
    settings = Settings(engine=engine, checks=("standalone",))
    context = checks.context_for(settings)
    sample = Sample("exp", PROGRAM, {"x0": X.copy()})
    found = [r for _ in range(times) for r in checks.check_sample(sample, context, "test")]
    if context.isolation is not None:
        context.isolation.close()
    return found


def test_refgrad_stands_alone() -> None:
    assert [r.outcome for r in _found("refgrad")] == ["passed"]


def test_one_sample_an_op_is_repeated() -> None:
    assert len(_found("refgrad", times=3)) == 1


def test_an_engine_that_calls_torch_in_secret_is_a_fallback() -> None:
    (found,) = _found("direct:tests.fakes.engines:Pretender")
    assert found.outcome == "fallback"
    assert "torch cannot be imported" in found.evidence["verdict"]


def test_an_engine_that_raises_there_is_errored() -> None:
    (found,) = _found("direct:tests.fakes.engines:Raises")
    assert found.outcome == "errored"


class TorchInside(TorchEngine):
    """An outside engine that says that it is made of torch."""

    name = "torch-inside"

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        return super().vjp(program, values, cotangents, keep=keep)


def test_an_engine_that_declares_torch_is_watched() -> None:
    context = checks.context_for(
        Settings(checks=("standalone",)), engine=TorchInside(), reference=engines.load("torch")
    )
    sample = Sample("exp", PROGRAM, {"x0": X.copy()})
    (found,) = checks.check_sample(sample, context, "test")
    assert found.outcome == "passed"
    assert "aten.exp.default" in found.evidence["aten"]


def test_an_engine_that_cannot_load_there_is_refused() -> None:
    isolation = Isolation("direct:conformance.engines.torch:TorchEngine")
    assert not isolation.loaded
    assert isolation.refusal["torch"]
    isolation.close()


@pytest.mark.parametrize("package", ["torch", "torch.autograd"])
def test_torch_cannot_be_imported_there(package: str) -> None:
    code = f"from conformance import isolated; isolated.install(); import {package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch cannot be imported here" in done.stderr


def test_a_fork_of_the_worker_leaves_nothing_to_be_taken_for_an_answer() -> None:
    """Cases are reduced in a fork, which is killed when its time is over."""
    context = checks.context_for(Settings(engine="refgrad", checks=("standalone",)))
    isolation = Isolation("refgrad")

    def asked_alone() -> None:
        isolation._answer = lambda results: sys.exit()  # type: ignore[method-assign,assignment]
        isolation.run(Case(context, Sample("exp", PROGRAM, {"x0": X.copy()}), "test"))

    assert in_child(asked_alone) is None
    reply, arrays = isolation.run(Case(context, Sample("exp", PROGRAM, {"x0": 2 * X}), "test"))
    isolation.close()
    assert reply["ok"]
    assert np.allclose(arrays["output0"], np.exp(2 * X))
