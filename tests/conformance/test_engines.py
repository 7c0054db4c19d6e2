"""Engines: loading by name, what a Program may name, running and differentiating."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import refgrad
from conformance import checks, engines
from conformance.engines.base import ALL, Engine
from conformance.engines.namespace import NamespaceEngine, allowed, resolve
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.engines.variants import Recording
from conformance.errors import DeviceLost, EngineError, ProgramError, Unsupported, UsageError
from conformance.program import Call, Input, Program, Ref, Symbol, layout
from conformance.settings import Settings
from conformance.sources.base import Sample
from tests.fakes.device_array import stand_in

torch = pytest.importorskip("torch")


def cube(x: np.ndarray) -> Program:
    calls = (
        Call("v0", "torch.mul", (Ref("x0"), Ref("x0"))),
        Call("v1", "torch.mul", (Ref("v0"), Ref("x0"))),
    )
    return Program((Input.of("x0", x, requires_grad=True),), calls, Ref("v1"))


X = np.array([1.0, -2.0, 0.5])


def test_run_keeps_what_is_asked() -> None:
    engine = TorchEngine()
    run = engine.run(cube(X), {"x0": X}, keep=("v0",))
    assert np.array_equal(run.outputs[0], X**3)
    assert list(run.kept) == ["v0"]
    assert np.array_equal(run.kept["v0"][0], X**2)


@pytest.mark.parametrize("name", ["torch", "refgrad"])
def test_derivatives(name: str) -> None:
    engine = engines.load(name)
    one, t = np.ones(3), np.array([1.0, 2.0, 3.0])
    vjp = engine.vjp(cube(X), {"x0": X}, [t], keep=ALL)
    assert np.allclose(vjp.gradients["x0"], 3 * X**2 * t)  # type: ignore[arg-type]
    assert np.allclose(vjp.kept["v0"][0], X * t)  # type: ignore[arg-type]
    hvp = engine.hvp(cube(X), {"x0": X}, [one], {"x0": t})
    assert np.allclose(hvp["x0"], 6 * X * t)  # type: ignore[arg-type]
    assert np.allclose(engine.jvp(cube(X), {"x0": X}, {"x0": t})[0], 3 * X**2 * t)


def test_values_are_not_written_into() -> None:
    x = np.ones(2)
    program = Program((Input.of("x0", x),), (Call("v0", "torch.Tensor.mul_", (Ref("x0"), 2)),), ())
    TorchEngine().run(program, {"x0": x})
    assert np.array_equal(x, np.ones(2))


def test_aliasing_inputs_alias_in_the_engine() -> None:
    inputs = (
        Input("x0", "float64", (2, 2), (2, 1), storage="s"),
        Input("x1", "float64", (2,), (1,), storage="s"),
    )
    values = layout(inputs, {"x0": np.ones((2, 2)), "x1": np.ones(2)})
    program = Program(inputs, (Call("v0", "torch.Tensor.mul_", (Ref("x1"), 5)),), Ref("x0"))
    assert TorchEngine().run(program, values).outputs[0].tolist() == [[5, 5], [1, 1]]


def test_a_gradient_that_does_not_arise_is_none() -> None:
    inputs = (Input.of("x0", X, requires_grad=True), Input.of("x1", X, requires_grad=True))
    program = Program(inputs, (Call("v0", "torch.sin", (Ref("x0"),)),), (Ref("v0"), Ref("v0")))
    vjp = TorchEngine().vjp(program, {"x0": X, "x1": X}, [None, np.ones(3)])
    assert vjp.gradients["x1"] is None
    vjp = TorchEngine().vjp(program, {"x0": X, "x1": X}, [None, None])
    assert vjp.gradients["x0"] is None


def test_lazy_zeros_and_low_precision_cross_the_boundary() -> None:
    calls = (
        Call("v0", "torch.Tensor.to", (Ref("x0"), Symbol("torch.bfloat16"))),
        Call("v1", "torch.linalg.slogdet", (Ref("x1"),)),
    )
    inputs = (
        Input.of("x0", X, requires_grad=True),
        Input.of("x1", np.eye(2), requires_grad=True),
    )
    program = Program(inputs, calls, (Ref("v0"), Ref("v1")))
    values = {"x0": X, "x1": np.eye(2)}
    outputs = TorchEngine().run(program, values).outputs
    assert [o.dtype.name for o in outputs] == ["float32", "float64", "float64"]
    vjp = TorchEngine().vjp(program, values, [np.ones(3), None, np.array(1.0)])
    assert vjp.gradients["x1"] is not None


def test_failures_name_the_call_and_the_cause() -> None:
    program = Program((Input.of("x0", X),), (Call("v0", "torch.mm", (Ref("x0"), 3)),), Ref("v0"))
    with pytest.raises(EngineError, match=r"TypeError in torch\.mm") as caught:
        TorchEngine().run(program, {"x0": X})
    assert caught.value.call == "v0"


def test_what_is_missing_is_unsupported() -> None:
    class Few:
        Tensor = torch.Tensor
        mul = torch.mul
        float64 = torch.float64
        autograd = types.SimpleNamespace(grad=torch.autograd.grad)
        from_numpy = torch.from_numpy
        no_grad = torch.no_grad

        @staticmethod
        def sin(x: object) -> object:
            raise NotImplementedError("only on Sundays")

    engine = NamespaceEngine(Few)
    assert engine.missing(cube(X)) == ()
    calls = (Call("v0", "torch.cos", (Ref("x0"),), {"dtype": Symbol("torch.float16")}),)
    lacking = Program(cube(X).inputs, calls, Ref("v0"))
    assert engine.missing(lacking) == ("torch.cos", "torch.float16")
    with pytest.raises(Unsupported) as caught:
        engine.vjp(lacking, {"x0": X}, [X])
    assert caught.value.targets
    raising = Program(cube(X).inputs, (Call("v0", "torch.sin", (Ref("x0"),)),), Ref("v0"))
    with pytest.raises(Unsupported, match="Sundays"):
        engine.vjp(raising, {"x0": X}, [X])
    with pytest.raises(Unsupported, match="forward"):
        engine.jvp(cube(X), {"x0": X}, {"x0": X})


@pytest.mark.parametrize(
    "path",
    [
        "torch.load",
        "torch.from_file",
        "torch.hub.load",
        "torch.os.system",
        "torch.os",
        "torch.compile",
        "torch._import_dotted_name",
        "torch.PyTorchFileWriter",
        "torch.manual_seed",
        "torch.set_default_dtype",
        "torch.Tensor.__class__",
        "torch.nn.functional.importlib",
    ],
)
def test_a_program_cannot_name_what_reaches_outside(path: str) -> None:
    with pytest.raises((ProgramError, AttributeError)):
        resolve(torch, path)


@pytest.mark.parametrize(
    "path", ["torch.mul", "torch.Tensor.T.__get__", "torch.float64", "torch.autograd.grad"]
)
def test_what_a_program_may_name(path: str) -> None:
    assert allowed(path)
    assert resolve(torch, path) is not None


def test_loading_by_name() -> None:
    assert isinstance(engines.load("torch"), Engine)
    assert engines.load("direct:conformance.engines.torch:TorchEngine").name == "torch"
    assert set(engines.available()) == {"refgrad", "torch"}
    assert engines.available()["torch"] is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jax", "there are refgrad, torch"),
        ("direct:nothing", "direct:MODULE:NAME"),
        ("direct:no.such.module:E", "no.such"),
        ("direct:conformance.engines.torch:Nope", "no 'Nope'"),
        ("direct:conformance.program:Program", "failed"),
        ("direct:conformance.program:OPAQUE", "not an Engine"),
        ("direct:builtins:dict", "without name"),
    ],
)
def test_what_cannot_load_says_why(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        engines.load(name)


# cpu:0 is the CPU by another name: everything is put there and fetched as from a GPU
ELSEWHERE = "cpu:0"


@pytest.fixture(params=["torch", "refgrad"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Engine]]:
    """The engine on the CPU and on another device: for refgrad a stand-in for CuPy."""
    if request.param == "torch":
        yield TorchEngine(), TorchEngine(ELSEWHERE)
        return
    with stand_in():
        yield RefgradEngine(), RefgradEngine("cuda")


def test_another_device_gives_the_same_in_both_modes_and_orders(
    pair: tuple[Engine, Engine],
) -> None:
    here, there = pair
    assert there.name in ("torch on cpu:0", "refgrad on cuda")
    one, t = np.ones(3), np.array([1.0, 2.0, 3.0])
    values, tangents = {"x0": X}, {"x0": t}
    for got, want in (
        (there.vjp(cube(X), values, [t]).gradients, here.vjp(cube(X), values, [t]).gradients),
        (there.hvp(cube(X), values, [one], tangents), here.hvp(cube(X), values, [one], tangents)),
    ):
        assert np.array_equal(got["x0"], want["x0"])  # type: ignore[arg-type]
    for one_way in ("jvp", "curvature"):
        more = (tangents,) if one_way == "jvp" else (tangents, tangents)
        (got_one,) = getattr(there, one_way)(cube(X), values, *more)
        (want_one,) = getattr(here, one_way)(cube(X), values, *more)
        assert np.array_equal(got_one, want_one)


def test_inputs_keep_strides_and_sharing_on_another_device(pair: tuple[Engine, Engine]) -> None:
    engine: Any = pair[1]
    inputs: tuple[Input, ...] = (
        Input("x0", "float64", (2, 2), (2, 1), storage="s"),
        Input("x1", "float64", (2,), (1,), offset=2, storage="s"),
        Input("x2", "float64", (3, 2), (0, 1)),
        Input("x3", "float64", (2, 3), (1, 2), requires_grad=True),
        Input("x4", "float32", (0, 3), (3, 1)),
    )
    if engine.name.startswith("torch"):
        inputs += (Input("x5", "bfloat16", (), ()),)
    values = {
        "x0": np.arange(4.0).reshape(2, 2),
        "x1": np.array([2.0, 3.0]),
        "x2": np.tile([5.0, 6.0], (3, 1)),
        "x3": np.arange(6.0).reshape(2, 3),
        "x4": np.zeros((0, 3), np.float32),
        "x5": np.float32(1.5),
    }
    program = Program(inputs, (), ())
    made = engine.inputs(program, values, grad=True)
    for i in inputs:
        tensor = made[i.name]
        assert np.array_equal(engine.to_numpy(tensor), values[i.name])
        assert str(tensor.dtype) == f"torch.{i.dtype}"
        if tensor.numel():
            assert tensor.stride() == i.strides
    assert made["x3"].requires_grad
    assert made["x3"].is_leaf
    before = made["x0"]._version
    made["x1"].fill_(9.0)
    assert made["x0"].tolist() == [[0.0, 1.0], [9.0, 9.0]]
    assert made["x0"]._version == before  # sharing memory is not being a view


def test_a_cotangent_lives_where_its_output_does(pair: tuple[Engine, Engine]) -> None:
    here, there = pair
    calls = (
        Call("v0", "torch.mul", (Ref("x0"), Ref("x0"))),
        Call("v1", "torch.Tensor.cpu", (Ref("v0"),)),
    )
    program = Program((Input.of("x0", X, requires_grad=True),), calls, (Ref("v0"), Ref("v1")))
    cotangents = [np.ones(3), np.array([1.0, 2.0, 3.0])]
    got, want = (e.vjp(program, {"x0": X}, cotangents).gradients["x0"] for e in (there, here))
    assert np.array_equal(got, want)  # type: ignore[arg-type]


def test_cotangents_of_a_recording_live_where_its_outputs_do() -> None:
    program = Program(
        (Input.of("x0", X, requires_grad=True),),
        (Call("v0", "torch.Tensor.cpu", (Ref("x0"),)),),
        Ref("v0"),
    )
    with stand_in():
        recording = Recording(RefgradEngine("cuda"), program, {"x0": X})
        found = recording.arrays(recording.grad(recording.weighed([np.ones(3)])))
    assert np.array_equal(found["x0"], np.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        "`driver` other than `gels` is not supported on CUDA",
        "tensor_split expected tensor_indices_or_sections to be on cpu, but it's on cuda:0",
    ],
)
def test_what_torch_does_not_have_on_a_device_is_unsupported(said: str) -> None:
    def refuse(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(said)

    call = Call("v0", "opaque:refuse", (Ref("x0"),), opaque=refuse)
    program = Program((Input.of("x0", X),), (call,), Ref("v0"))
    with pytest.raises(Unsupported, match=r"on (CUDA|cuda:0)"):
        TorchEngine().run(program, {"x0": X})


def test_the_reference_has_the_same_rules_on_another_device() -> None:
    here, there = TorchEngine(), TorchEngine(ELSEWHERE)
    context = checks.context_for(Settings(engine="torch"), there, here)
    assert not context.independent
    assert context.witness.name == "refgrad"
    for target, witness in (("torch.sin", context.witness), ("torch.no_such_op", here)):
        call = Call("v0", target, (Ref("x0"),))
        program = Program((Input.of("x0", X),), (call,), Ref("v0"))
        assert context.case(Sample(target, program, {"x0": X}), "given").witness is witness
    assert checks.context_for(Settings(), RefgradEngine(), here).independent


def test_tensors_made_of_nothing_are_made_on_the_device() -> None:
    calls = (Call("v0", "torch.ones", ((3,),)), Call("v1", "torch.mul", (Ref("v0"), Ref("x0"))))
    program = Program((Input.of("x0", X),), calls, Ref("v0"))
    with stand_in():
        results: list[str] = []
        x0 = refgrad.zeros(3, device="cuda", dtype=refgrad.float64)
        RefgradEngine("cuda").execute(
            program, {"x0": x0}, lambda call, result: results.append(str(result.device))
        )
        assert results == ["cuda:0", "cuda:0"]
    met: list[str] = []
    engine = TorchEngine("meta")  # a device that nothing can be fetched from
    tensors = {"x0": torch.empty(3, device="meta", dtype=torch.float64)}
    engine.execute(program, tensors, lambda call, result: met.append(str(result.device)))
    assert met == ["meta", "meta"]


def test_a_device_that_is_not_there_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    with pytest.raises(UsageError, match="'torch' cannot run on cuda here, but on cpu"):
        engines.load("torch", "cuda")
    monkeypatch.setattr(refgrad.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="'refgrad' cannot run on cuda here, but on cpu"):
        engines.load("refgrad", "cuda")
    with stand_in():
        monkeypatch.setattr(refgrad.cuda, "is_available", lambda: True)
        assert engines.load("refgrad", "cuda").name == "refgrad on cuda"
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    engine = engines.load("torch", "cuda")
    assert isinstance(engine, TorchEngine)
    assert engine.device == "cuda"


def test_a_lost_device_is_told_from_what_a_call_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> object:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "mul", broken)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        TorchEngine().run(cube(X), {"x0": X})
