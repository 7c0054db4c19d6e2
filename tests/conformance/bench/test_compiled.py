"""Programs as plain functions: what the text says, and that it computes the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from conformance.bench.compiled import compile_program
from conformance.bench.workload import Writer
from conformance.bench.workloads import WORKLOADS
from conformance.engines.namespace import resolve
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.errors import ProgramError, Unsupported
from conformance.program import Call, Input, Program, Ref, Symbol


def _written(*calls: Call, output: Any, methods: bool = True, inputs: str = "x") -> str:
    """The body of the function for calls on inputs of one letter each."""
    made = tuple(Input(name, "float64", (3,), (1,), True) for name in inputs)
    compiled = compile_program(Program(made, calls, output), lambda path: path, methods=methods)
    head, *body = compiled.source.splitlines()
    assert head == f"def program({', '.join(inputs)}):"
    return "\n".join(line.removeprefix("    ") for line in body)


def _of_torch(path: str) -> Any:
    return torch.no_grad if path == "torch.no_grad" else resolve(torch, path)


def _of_refgrad(path: str) -> Any:
    return refgrad.no_grad if path == "torch.no_grad" else resolve(refgrad, path)


X, V0, V1 = Ref("x"), Ref("v0"), Ref("v1")


def test_functions_are_globals_and_methods_are_methods() -> None:
    calls = (
        Call("v0", "torch.nn.functional.softmax", (X,), {"dim": -1}),
        Call("v1", "torch.Tensor.sum", (V0, 0), {"dtype": Symbol("torch.float64")}),
    )
    assert _written(*calls, output=V1) == (
        "t0 = nn_functional_softmax(x, dim=-1)\nt0 = t0.sum(0, dtype=float64)\nreturn t0"
    )
    assert "t0 = Tensor_sum(t0, 0, dtype=float64)" in _written(*calls, output=V1, methods=False)


def test_operators_and_indices_are_pythons_own() -> None:
    calls = (
        Call("v0", "torch.Tensor.__mul__", (X, 2.0)),
        Call("v1", "torch.Tensor.__getitem__", (V0, (..., slice(None, 3), slice(0, None, 2)))),
        Call("v2", "torch.Tensor.__setitem__", (V0, 1, V1)),
        Call("v3", "torch.Tensor.mT.__get__", (V1,)),
    )
    assert _written(*calls, output=(V0, Ref("v3"))) == (
        "t0 = x * 2.0\nt1 = t0[..., :3, 0::2]\nt0[1] = t1\nt1 = t1.mT\nreturn (t0, t1)"
    )


def test_a_repeated_block_is_a_loop() -> None:
    calls = []
    last = X
    for n in range(0, 12, 3):
        calls += [
            Call(f"v{n}", "torch.sin", (X,)),
            Call(f"v{n + 1}", "torch.mul", (last, Ref(f"v{n}"))),
            Call(f"v{n + 2}", "torch.exp", (Ref(f"v{n + 1}"),)),
        ]
        last = Ref(f"v{n + 2}")
    assert _written(*calls, output=last).splitlines() == [
        *("t0 = sin(x)", "t0 = mul(x, t0)"),
        *("for _ in range(3):", "    t0 = exp(t0)", "    t1 = sin(x)", "    t0 = mul(t0, t1)"),
        "t0 = exp(t0)",
        "return t0",
    ]


def test_a_variable_serves_again_when_its_value_is_not_needed() -> None:
    calls = (
        Call("v0", "torch.sin", (X,)),
        Call("v1", "torch.cos", (X,)),
        Call("v2", "torch.add", (V0, V1)),
        Call("v3", "torch.mul", (Ref("v2"), V1)),
    )
    text = _written(*calls, output=Ref("v3"))
    assert text == "t0 = sin(x)\nt1 = cos(x)\nt0 = add(t0, t1)\nt0 = mul(t0, t1)\nreturn t0"


def test_calls_without_gradients_stand_in_one_block() -> None:
    calls = (
        Call("v0", "torch.sin", (X,), grad=False),
        Call("v1", "torch.cos", (V0,), grad=False),
        Call("v2", "torch.mul", (X, V1)),
    )
    assert _written(*calls, output=Ref("v2")) == (
        "with no_grad():\n    t0 = sin(x)\n    t0 = cos(t0)\nt0 = mul(x, t0)\nreturn t0"
    )


def test_an_element_of_a_result_and_numbers_that_are_not_finite() -> None:
    calls = (
        Call("v0", "torch.split", (X, 1)),
        Call("v1", "torch.where", (Ref("v0", (2,)), -math.inf, math.nan)),
    )
    assert _written(*calls, output=V1).splitlines()[1] == "t0 = where(t0[2], minus_inf, nan)"


@pytest.mark.parametrize("name", ["t3", "sin"])
def test_an_input_may_not_have_a_name_of_the_functions_own(name: str) -> None:
    program = Program(
        (Input(name, "float64", (3,), (1,)),), (Call("v0", "torch.sin", (Ref(name),)),), V0
    )
    with pytest.raises(ProgramError, match=f"rename the input '{name}'"):
        compile_program(program, lambda path: path)


def test_an_opaque_call_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="opaque:f"):
        _written(Call("v0", "opaque:f", (X,)), output=V0)


def test_what_repeats_is_computed_as_often_as_it_stands() -> None:
    w = Writer("float64")
    y = x = w.leaf("x", 4)
    for _ in range(50):
        y = w.call("mul", w.call("sin", y), x)
    program, values = w.program(y)
    compiled = compile_program(program, lambda path: resolve(torch, path))
    assert compiled.source.count("\n") < 10
    tensor = torch.from_numpy(values["x"])
    expected = tensor
    for _ in range(50):
        expected = torch.sin(expected) * tensor
    assert torch.equal(compiled.function(tensor), expected)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_workload_is_what_the_interpreter_computes(name: str) -> None:
    program, values = WORKLOADS[name].make(WORKLOADS[name].quick)
    for engine, names in ((TorchEngine(), _of_torch), (RefgradEngine(), _of_refgrad)):
        compiled = compile_program(program, names)
        tensors = engine.inputs(program, values, grad=False)
        found = engine.to_numpy(compiled.function(*tensors.values()))
        (expected,) = engine.run(program, values).outputs
        assert np.array_equal(found, expected), compiled.source
