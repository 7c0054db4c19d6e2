"""Programs as JSON: bit-equal round trips, and hostile files."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.errors import ProgramError
from conformance.program import Call, Input, Program, Ref, Symbol, layout
from conformance.store import decode, encode

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=4),
    st.just(...),
    st.builds(Ref, st.sampled_from(["x0", "v3"]), st.sampled_from([(), (1,), ("a", 0)])),
    st.just(Symbol("torch.float64")),
    st.builds(slice, st.none() | st.integers(-3, 3), st.integers(0, 3), st.none()),
)
trees = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(trees)
def test_trees_survive(tree: Any) -> None:
    again = decode(json.loads(json.dumps(encode(tree), allow_nan=False)))
    assert repr(again) == repr(tree)  # repr tells nan, -0.0 and 1 from 1.0


def sample() -> tuple[Program, dict[str, np.ndarray]]:
    special = np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324, 0.1])
    big = np.random.default_rng(0).standard_normal((10, 20)).T
    inputs = (
        Input.of("x0", special, requires_grad=True, aliases=("wte.weight", "lm_head.weight")),
        Input.of("x1", big, requires_grad=True),
        Input.of("c0", np.array([True, False]), constant=True),
        Input("a", "int64", (2, 2), (2, 1), storage="s"),
        Input("b", "int64", (2,), (2,), storage="s", offset=1),
        Input.of("e", np.zeros((2, 0), np.complex128)),
    )
    square = np.arange(4).reshape(2, 2)
    contents = {
        "x0": special,
        "x1": big,
        "c0": np.array([True, False]),
        "a": square,
        "b": square[:, 1],
        "e": np.zeros((2, 0), np.complex128),
    }
    calls = (
        Call("v0", "torch.Tensor.__getitem__", (Ref("x0"), (..., slice(None, None, 2)))),
        Call("v1", "torch.Tensor.to", (Ref("v0"),), {"dtype": Symbol("torch.float32")}, grad=False),
        Call("v2", "torch.add", (Ref("v1"), -0.0), {"alpha": float("nan")}),
    )
    return Program(inputs, calls, {"out": Ref("v2")}), layout(inputs, contents)


def test_files_survive_bit_for_bit(tmp_path: Path) -> None:
    program, values = sample()
    program.save(tmp_path / "p.json", values)
    assert (tmp_path / "p.npz").exists()
    again, loaded = Program.load(tmp_path / "p.json")
    assert repr(again) == repr(program)
    assert again.digest(loaded) == program.digest(values)
    for name, array in values.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].strides == array.strides
        assert loaded[name].tobytes() == array.tobytes()
    assert np.shares_memory(loaded["a"], loaded["b"])


def test_json_alone_needs_the_large_values() -> None:
    program, values = sample()
    data = json.loads(json.dumps(program.to_json(values), allow_nan=False))
    with pytest.raises(ProgramError, match="x1 has no value"):
        Program.from_json(data)
    again, _ = Program.from_json(data, {"x1": values["x1"]})
    assert repr(again) == repr(program)
    whole, _ = Program.from_json(program.to_json(values, inline=1000))
    assert repr(whole) == repr(program)


def test_a_value_that_is_no_plain_data_is_refused() -> None:
    with pytest.raises(ProgramError, match="object"):
        encode(object())


HOSTILE: dict[str, Any] = {
    "a list": [],
    "another schema": {"schema": "conformance-program/99"},
    "no inputs": {"inputs": None},
    "an unknown tag": {"outputs": {"python": "print(1)"}},
    "two tags": {"outputs": {"ref": ["x0"], "float": "nan"}},
    "a name that is code": {"outputs": {"ref": ["__import__('os')"]}},
    "an output never made": {"outputs": {"ref": ["v9"]}},
    "a module as target": {"calls": [{"name": "v0", "target": "os.system", "args": ["true"]}]},
    "a target that is code": {"calls": [{"name": "v0", "target": "torch.sin()", "args": []}]},
    "a symbol elsewhere": {"outputs": {"symbol": "os.environ"}},
    "a wrong dtype": {"inputs": [{"name": "x0", "dtype": "object", "shape": [], "strides": []}]},
    "a value of the wrong size": {"values": {"x0": [1.0]}},
    "a value that is text": {"values": {"x0": ["a", "b"]}},
    "base64 that is none": {"values": {"x0": {"base64": "!"}}},
    "a huge stride": {
        "inputs": [
            {
                "name": "x0",
                "dtype": "float64",
                "shape": [2],
                "strides": [1 << 40],
                "requires_grad": False,
            }
        ]
    },
    "kwargs that are a list": {
        "calls": [{"name": "v0", "target": "torch.sin", "args": [], "kwargs": []}]
    },
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_gets_a_clear_error(change: Any, tmp_path: Path) -> None:
    x = np.array([1.0, 2.0])
    good = Program((Input.of("x0", x),), (), Ref("x0")).to_json({"x0": x})
    data = {**good, **change} if isinstance(change, dict) else change
    path = tmp_path / "p.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ProgramError, match=r"p\.json"):
        Program.load(path)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    program, values = sample()
    path = program.save(tmp_path / "p.json", values)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ProgramError, match="not JSON"):
        Program.load(path)
    with pytest.raises(ProgramError, match="cannot read"):
        Program.load(tmp_path / "absent.json")
    path.write_text("[" * 100_000)
    with pytest.raises(ProgramError, match="not JSON"):
        Program.load(path)


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_values_are_never_unpickled(tmp_path: Path) -> None:
    program, values = sample()
    path = program.save(tmp_path / "p.json", values)
    bomb = np.array([Bomb(tmp_path / "boom")], dtype=object)
    np.savez(tmp_path / "p.npz", x1=bomb, allow_pickle=True)
    with pytest.raises(ProgramError, match="cannot read the values"):
        Program.load(path)
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(ProgramError, match="cannot read the values"):
        Program.load(path)
    assert not (tmp_path / "boom").exists()


def test_the_npz_must_lie_beside(tmp_path: Path) -> None:
    program, values = sample()
    path = program.save(tmp_path / "p.json", values)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "values_file": "../p.npz"}))
    with pytest.raises(ProgramError, match="beside"):
        Program.load(path)
    path.write_text(json.dumps(data))
    (tmp_path / "p.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ProgramError, match="cannot read the values"):
        Program.load(path)


def test_inline_numbers_are_readable() -> None:
    program, values = sample()
    inline = program.to_json(values)["values"]
    assert inline["a"] == [0, 1, 2, 3]
    assert math.isclose(values["x0"][5], 0.1)
    assert "base64" in inline["x0"]  # nan has bits that a number cannot tell
