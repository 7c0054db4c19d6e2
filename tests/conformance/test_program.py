"""Programs: printing, memory, digests, liveness, isolation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from conformance import engines
from conformance.errors import ProgramError
from conformance.program import (
    Call,
    Input,
    Program,
    Ref,
    Symbol,
    contiguous,
    layout,
    map_refs,
    refs,
)


def chain() -> tuple[Program, dict[str, np.ndarray]]:
    """softmax(x0 * x1).sum(0), as DESIGN prints it."""
    values = {"x0": np.arange(6.0).reshape(2, 3), "x1": np.array([1.0, -0.0, 2.0])}
    inputs = tuple(Input.of(name, array, requires_grad=True) for name, array in values.items())
    calls = (
        Call("v0", "torch.mul", (Ref("x0"), Ref("x1"))),
        Call("v1", "torch.nn.functional.softmax", (Ref("v0"),), {"dim": -1}),
        Call("v2", "torch.Tensor.sum", (Ref("v1"), 0)),
    )
    return Program(inputs, calls, Ref("v2")), values


def test_prints_as_documented() -> None:
    program, _ = chain()
    assert str(program).splitlines() == [
        "inputs   x0: float64[2, 3]   x1: float64[3]",
        "v0 = torch.mul(x0, x1)",
        "v1 = torch.nn.functional.softmax(v0, dim=-1)",
        "v2 = torch.Tensor.sum(v1, 0)",
        "return v2",
    ]


def test_prints_what_is_unusual() -> None:
    program, _ = chain()
    weight = replace(program.inputs[0], strides=(1, 2), aliases=("wte.weight", "head.weight"))
    call = Call("v0", "torch.Tensor.__getitem__", (Ref("x0"), (..., slice(None, 2))), grad=False)
    other = Call("v1", "torch.clamp", (Ref("v0"), float("-inf")), {"dtype": Symbol("torch.int8")})
    text = str(Program((weight,), (call, other), {"a": Ref("v0", (1,)), "b": [Ref("v1")]}))
    assert "strides (1, 2) (wte.weight, head.weight)" in text
    assert "torch.Tensor.__getitem__(x0, (..., slice(None, 2, None)))   # no grad" in text
    assert 'torch.clamp(v0, float("-inf"), dtype=torch.int8)' in text
    assert "return {'a': v0[1], 'b': [v1]}" in text


def test_targets_and_leaves() -> None:
    program, _ = chain()
    assert program.targets == ("torch.mul", "torch.nn.functional.softmax", "torch.Tensor.sum")
    assert [i.name for i in program.leaves] == ["x0", "x1"]


def test_digest_sees_values_and_structure_but_not_user_names() -> None:
    program, values = chain()
    digest = program.digest(values)
    assert len(digest) >= 6
    assert digest == program.digest(dict(values))
    assert digest != program.digest({**values, "x1": np.array([1.0, 0.0, 2.0])})
    assert digest != replace(program, outputs=Ref("v1")).digest(values)
    named = replace(program, inputs=tuple(replace(i, aliases=("w",)) for i in program.inputs))
    assert digest == named.digest(values)


def test_trees() -> None:
    tree = (Ref("a"), [slice(Ref("b"), None), {"k": Ref("c", (0,))}], 1.5)
    assert [r.name for r in refs(tree)] == ["a", "b", "c"]
    renamed = map_refs(lambda r: Ref(r.name + "1", r.path), tree)
    assert renamed == (Ref("a1"), [slice(Ref("b1"), None), {"k": Ref("c1", (0,))}], 1.5)


def test_contiguous_strides_are_torch_s() -> None:
    torch = pytest.importorskip("torch")
    for shape in ((), (3,), (2, 3, 4), (2, 0, 3), (1, 5), (0,)):
        assert contiguous(shape) == torch.empty(shape).stride()


def test_an_offset_counts_in_shared_memory_alone() -> None:
    apart = Input("a", "float64", (2, 2), (1, 2), offset=7)
    made = layout((apart,), {"a": np.arange(4.0).reshape(2, 2)})["a"]
    assert made.strides == (8, 16)
    assert made.tolist() == [[0, 1], [2, 3]]


def test_layout_keeps_strides_and_sharing() -> None:
    base = np.arange(12.0).reshape(3, 4)
    whole = Input("a", "float64", (3, 4), (4, 1), storage="s", offset=0)
    column = Input("b", "float64", (3,), (4,), storage="s", offset=1)
    transposed = Input("c", "float64", (4, 3), (1, 4))
    expanded = Input("d", "float64", (2, 3), (0, 1))
    contents = {"a": base, "b": base[:, 1], "c": base.T, "d": np.ones((2, 3))}
    made = layout((whole, column, transposed, expanded), contents)
    assert np.shares_memory(made["a"], made["b"])
    assert made["c"].strides == (8, 32)
    assert made["d"].strides == (0, 8)
    made["a"][0, 1] = 99
    assert made["b"][0] == 99
    assert base[0, 1] == 1


def test_layout_refuses_a_wrong_shape() -> None:
    with pytest.raises(ProgramError, match="its value is"):
        layout((Input("a", "float64", (2,), (1,)),), {"a": np.zeros(3)})


def test_live_drops_what_no_output_needs_and_keeps_writes() -> None:
    x = Input("x0", "float64", (2,), (1,))
    calls = (
        Call("v0", "torch.clone", (Ref("x0"),)),
        Call("v1", "torch.Tensor.view", (Ref("v0"), -1)),
        Call("v2", "torch.sin", (Ref("x1"),)),
        Call("v3", "torch.Tensor.mul_", (Ref("v1"), 2)),
        Call("v4", "torch.Tensor.add_", (Ref("v2"), 1)),
    )
    live = Program((x, replace(x, name="x1")), calls, Ref("v0")).live()
    assert [c.name for c in live.calls] == ["v0", "v1", "v3"]
    assert [i.name for i in live.inputs] == ["x0"]


def test_check_finds_a_name_used_too_early() -> None:
    program, _ = chain()
    with pytest.raises(ProgramError, match="before it is made"):
        replace(program, calls=program.calls[::-1]).check()


def test_isolate_gives_the_values_in_the_whole() -> None:
    program, values = chain()
    engine = engines.load("torch")
    kept = engine.run(program, values, keep=("*",)).kept
    alone, inputs = program.isolate("v1", {**values, **kept})
    assert str(alone).splitlines()[1:] == [
        "v0 = torch.nn.functional.softmax(x0, dim=-1)",
        "return v0",
    ]
    assert alone.leaves
    assert np.array_equal(engine.run(alone, inputs).outputs[0], kept["v1"][0])


def test_isolate_clones_a_leaf_that_is_written_into() -> None:
    values = {"x0": np.ones(3), "x1": np.full(3, 2.0)}
    inputs = tuple(Input.of(name, array, requires_grad=True) for name, array in values.items())
    calls = (
        Call("v0", "torch.sin", (Ref("x0"),)),
        Call("v1", "torch.Tensor.mul_", (Ref("v0"), Ref("x1"))),
    )
    program = Program(inputs, calls, Ref("v1"))
    alone, values = program.isolate("v1", {**values, "v0": (np.sin(np.ones(3)),)})
    vjp = engines.load("torch").vjp(alone, values, [np.ones(3)])
    assert all(g is not None for g in vjp.gradients.values())


@pytest.mark.parametrize("size", [2, 70])
def test_script_runs_alone_and_says_what_the_engine_says(size: int) -> None:
    rng = np.random.default_rng(0)
    x = np.asfortranarray(rng.standard_normal((size, 3)))
    x[0, 0] = np.nan
    program = Program(
        (Input.of("x0", x, requires_grad=True),),
        (
            Call("v0", "torch.mul", (Ref("x0"), 2.0)),
            Call("v1", "torch.max", (Ref("v0"), 0)),
        ),
        (Ref("v1", (0,)), Ref("v1", (1,))),
    )
    values = {"x0": x}
    cotangents = [np.array([1.0, -1.0, 0.5]), None]
    vjp = engines.load("torch").vjp(program, values, cotangents)
    text = program.script(values, cotangents=cotangents, expect=vjp.gradients)  # type: ignore[arg-type]
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert "output 1 tensor([" in done.stdout
    assert "largest difference x0 tensor(0., dtype=torch.float64)" in done.stdout
