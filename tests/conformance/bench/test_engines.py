"""The engines of the benchmark: their gradients are torch's, or they say what they lack."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conformance.bench.engine import Prepared, agree, cotangent
from conformance.bench.engines import ENGINES, engines, found
from conformance.bench.engines.check import Check
from conformance.bench.workload import Workload
from conformance.bench.workloads import WORKLOADS
from conformance.engines.base import Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.errors import ConformanceError, Unsupported, UsageError
from conformance.program import Array

EAGER = ("refgrad", "autograd", "mygrad")  # that take no second to compile what they first meet
COMPILED = {
    "jax": ("product", "reductions", "index", "conv2d_3x3", "max_pool2d", "scatter_add", "sdpa"),
    "jax.jit": ("product", "mlp", "layer_norm", "product_twice"),
    "tinygrad": ("product", "softmax", "embedding"),
}
LACKS = {  # of engines that are asked for every workload; by name, or "twice" and so on
    "refgrad": (),
    "autograd": ("conv2d_depthwise", "scatter_add", "mamba", "create_graph", "gradient_check"),
    "mygrad": (
        *("conv2d_7x7", "conv2d_depthwise", "scatter_add", "cholesky", "solve", "bert", "vit"),
        *("mamba", "create_graph", "twice", "gradient_check"),
    ),
}
CASES = [
    *((name, w) for name in EAGER for w in WORKLOADS),
    *((name, w) for name, chosen in COMPILED.items() for w in chosen),
]


def _prepared(name: str, workload: Workload) -> Prepared:
    reason = ENGINES[name].available("cpu")
    if reason is not None:
        pytest.skip(reason)
    return ENGINES[name].prepare(workload, workload.quick, "cpu")


@functools.cache
def _reference(name: str) -> dict[str, Array]:
    prepared = ENGINES["torch"].prepare(WORKLOADS[name], WORKLOADS[name].quick, "cpu")
    prepared.step()
    return prepared.gradients()


@pytest.mark.parametrize(("name", "of"), CASES)
def test_gradients_are_torchs_or_the_engine_says_what_it_lacks(name: str, of: str) -> None:
    workload = WORKLOADS[of]
    if any(lack in of for lack in LACKS.get(name, ())):
        with pytest.raises(Unsupported) as raised:
            _prepared(name, workload)
        assert str(raised.value)
        return
    assert agree(_prepared(name, workload), _reference(of), workload.dtype) is None


def test_torch_is_prepared_where_its_testing_module_has_frozen_the_flags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = torch.backends.flags_frozen.__globals__
    monkeypatch.setitem(flags, "__allow_nonbracketed_mutation_flag", False)
    _prepared("torch", WORKLOADS["product"])
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.flags_frozen()


@pytest.mark.parametrize("of", ["matmul", "product"])
@pytest.mark.parametrize("name", ["refgrad", "torch"])
def test_gradients_add_up_until_they_are_cleared(name: str, of: str) -> None:
    prepared = _prepared(name, WORKLOADS[of])
    prepared.backward(prepared.forward())
    once = {leaf: g.copy() for leaf, g in prepared.gradients().items()}
    prepared.accumulate(prepared.forward())
    for leaf, gradient in prepared.gradients().items():
        np.testing.assert_allclose(gradient, 2 * once[leaf], rtol=1e-6)
    prepared.clear()
    assert prepared.gradients() == {}


@pytest.mark.parametrize("name", ["autograd", "mygrad"])
def test_an_engine_that_adds_nothing_up_says_so(name: str) -> None:
    prepared = _prepared(name, WORKLOADS["product"])
    with pytest.raises(Unsupported, match=r"add to nothing|nulled"):
        prepared.accumulate(prepared.forward())


def test_jit_has_no_phases() -> None:
    prepared = _prepared("jax.jit", WORKLOADS["product"])
    assert prepared.compile_seconds is not None
    with pytest.raises(Unsupported, match="one call"):
        prepared.forward()


def test_create_graph_gives_gradients_that_are_not_kept_in_leaves() -> None:
    prepared = _prepared("refgrad", WORKLOADS["chain_create_graph"])
    prepared.step()
    reference = _reference("chain")
    np.testing.assert_allclose(prepared.gradients()["x"], reference["x"], rtol=1e-12)
    with pytest.raises(Unsupported, match="add to nothing"):
        prepared.accumulate(prepared.forward())


def test_twice_is_the_derivative_of_the_squared_norm() -> None:
    """d/dx (y z)^2 + (x z)^2 + (x y)^2 = 2 x (z^2 + y^2)."""
    x, y, z = (v.item() for v in WORKLOADS["product"].make(1)[1].values())
    weight = float(cotangent((1,), "float32")[0])  # type: ignore[index]
    found = _reference("product_twice")["x"].item()
    assert found == pytest.approx(2 * x * (z**2 + y**2) * weight**2, rel=1e-4)


def test_torch_compile_wraps_the_function_and_counts_its_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrapped: list[Callable[..., Any]] = []

    def compiled(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
        wrapped.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    prepared = ENGINES["torch.compile"].prepare(WORKLOADS["mlp"], 64, "cpu")
    assert len(wrapped) == 1
    assert prepared.compile_seconds is not None
    assert prepared.gradients() == {}
    assert agree(prepared, _reference("mlp"), "float32") is None


@pytest.mark.parametrize(
    ("name", "of", "size", "reason"),
    [
        ("torch.compile", "chain", 10_000, "10,001 nodes"),
        ("torch.compile", "chain_twice", 100, "second order"),
        ("torch.compile", "chain_create_graph", 100, "create_graph"),
        ("jax", "chain", 100_000, "100,001 nodes"),
        ("jax.jit", "chain", 10_000, "10,001 nodes"),
        ("tinygrad", "chain", 100, "101 nodes"),
        ("mygrad", "gradient_check", 4, "checks no gradient"),
    ],
)
def test_what_an_engine_is_not_asked_for_has_a_reason(
    name: str, of: str, size: int, reason: str
) -> None:
    with pytest.raises(Unsupported, match=reason):
        ENGINES[name].prepare(WORKLOADS[of], size, "cpu")


def test_an_engine_that_is_not_installed_is_listed_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    able, reasons = engines()
    assert "refgrad" in able
    assert set(reasons) == set(ENGINES) - {"refgrad"}
    assert reasons["mygrad"] == "mygrad is not installed; pip install '.[peers]'"


def test_engines_by_name() -> None:
    able, reasons = engines(["torch", "refgrad"])
    assert list(able) == ["torch", "refgrad"]
    assert reasons == {}
    assert all(engine.versions() for engine in able.values())
    with pytest.raises(UsageError, match=r"no engine is named 'jaxx'.*jax"):
        engines(["jaxx"])


@pytest.mark.parametrize("name", ["autograd", "mygrad"])
def test_an_engine_of_the_cpu_alone(name: str) -> None:
    assert ENGINES[name].available("cuda") == "it runs on the CPU alone, not on cuda"


class _Told:
    """A prepared workload whose gradients are what it is told."""

    compile_seconds = None

    def __init__(self, **gradients: Any) -> None:
        self._gradients = {name: np.asarray(g, np.float32) for name, g in gradients.items()}

    def gradients(self) -> dict[str, Array]:
        return self._gradients

    def clear(self) -> None: ...

    def step(self) -> None: ...

    def synchronize(self) -> None: ...


REFERENCE = {"x": np.array([1.0, -2.0], np.float32), "y": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("gradients", "reason"),
    [
        ({"x": [1, -2.01], "y": [0, 0, 0]}, "x is off by 0.01"),
        ({"x": [1, np.nan], "y": [0, 0, 0]}, "x is off by nan"),
        ({"y": [0, 0, 0]}, "x is off by 2"),
        ({"x": [1, -2], "y": [0, 1e-3, 0]}, "y is off by 0.001"),
        ({"x": [[1, -2]], "y": [0, 0, 0]}, r"x has shape \(1, 2\), not \(2,\)"),
        ({"x": [1, -2], "z": [0]}, "the reference has not: z"),
    ],
)
def test_a_wrong_gradient_is_told(gradients: dict[str, Any], reason: str) -> None:
    told: Any = _Told(**gradients)
    assert (wrong := agree(told, REFERENCE, "float32")) is not None
    assert re.search(reason, wrong)


@pytest.mark.parametrize(
    "gradients", [{"x": [1, -2.0001], "y": [0, 0, 0]}, {"x": [1, -2], "y": [1e-7, 0, 0]}]
)
def test_rounding_is_no_error(gradients: dict[str, Any]) -> None:
    told: Any = _Told(**gradients)
    assert agree(told, REFERENCE, "float32") is None
    del told._gradients["y"]  # left out, as its gradient is zero
    assert agree(told, REFERENCE, "float32") is None


def test_what_an_engine_raises_at_first_is_why_it_is_unsupported() -> None:
    with (
        pytest.raises(Unsupported, match="it raises ValueError: no such stride"),
        found.expressing(),
    ):
        raise ValueError("no such stride\nand more")
    with pytest.raises(MemoryError), found.expressing():
        raise MemoryError


class _SlightlyWrong(RefgradEngine):
    """One entry of one gradient is off by a millionth."""

    def vjp(self, *args: Any, **kwargs: Any) -> Vjp:
        right = super().vjp(*args, **kwargs)
        weight = np.array(right.gradients["weight"])
        weight[0, 0] *= 1 + 1e-6
        return replace(right, gradients=right.gradients | {"weight": weight})


def test_a_check_finds_a_wrong_engine() -> None:
    workload = WORKLOADS["gradient_check"]
    for engine in (TorchEngine(), RefgradEngine()):
        assert np.isfinite(Check(engine, workload, 4).step())
    with pytest.raises(ConformanceError, match="by rule"):
        Check(_SlightlyWrong(), workload, 4).step()
