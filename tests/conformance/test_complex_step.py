"""The complex step: NumPy functions read holomorphically, and Programs differentiated by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special as special

from conformance.engines.torch import TorchEngine
from conformance.errors import Unsupported
from conformance.oracles.complex_array import ComplexArray, Trace
from conformance.oracles.complex_step import Step
from conformance.oracles.stencil import derivative
from conformance.program import Array, Call, Input, Program, Ref, Values
from refgrad.libraries import as_strided

H = 1e-30
X, D = np.random.default_rng(0).standard_normal((2, 3, 4))
POSITIVE, UNIT = np.abs(X) + 0.1, (np.abs(X) + 0.1) / 4

ANYWHERE: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "abs": np.abs,
    "relu": lambda x: np.maximum(x, 0),
    "minimum": lambda x: np.minimum(x, x[::-1]),
    "where": lambda x: np.where(x > 0, x, 2 * x),
    "integer power": lambda x: x**3,
    "power of a number": lambda x: 2.0**x,
    "expit": special.expit,
    "log_expit": special.log_expit,
    "logaddexp": lambda x: np.logaddexp(x, x[::-1]),
    "arctan2": lambda x: np.arctan2(x, x[::-1]),
    "hypot": lambda x: np.hypot(x, x[::-1]),
    "copysign": lambda x: np.copysign(x, -x),
    "remainder": lambda x: np.remainder(x, 0.3),
    "fmod": lambda x: np.fmod(x, 0.3),
    "cbrt": np.cbrt,
    "sign": lambda x: np.sign(x) * x,
    "floor": lambda x: np.floor(x) * x,
    "erf": special.erf,
    "erfc": special.erfc,
    "ndtr": special.ndtr,
    "log_ndtr": special.log_ndtr,
    "gammaln": special.gammaln,
    "digamma": special.psi,
    "i0": special.i0,
    "i0e": special.i0e,
    "i1": special.i1,
    "i1e": special.i1e,
    "j0": special.j0,
    "sinc": np.sinc,
    "conj": lambda x: x.conj() * np.conjugate(x),
    "max": lambda x: np.max(x, axis=1),
    "min": lambda x: np.min(x),
    "maximum.reduce": lambda x: np.maximum.reduce(x, axis=0),
    "sort": lambda x: np.sort(x, axis=1),
    "argsort": lambda x: np.take_along_axis(x, np.argsort(x, axis=0), 0),
    "argmax": lambda x: np.take_along_axis(x, np.argmax(x, axis=1)[:, None], 1),
    "clip": lambda x: np.clip(x, -0.5, 0.5),
    "sum": lambda x: np.sum(x, axis=0, keepdims=True),
    "add.reduce": lambda x: np.add.reduce(x, axis=1),
    "cumprod": lambda x: np.cumprod(x, axis=0),
    "mean": lambda x: np.mean(x, axis=(0, 1)),
    "var": lambda x: np.var(x, axis=1, ddof=1),
    "std": np.std,
    "norm": lambda x: np.linalg.norm(x, axis=1),
    "matmul": lambda x: x @ x.T,
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "inv": lambda x: np.linalg.inv(x @ x.T),
    "det": lambda x: np.linalg.det(x @ x.T),
    "solve": lambda x: np.linalg.solve(x @ x.T, x),
    "slogdet": lambda x: np.linalg.slogdet(x @ x.T)[1],
    "cholesky": lambda x: np.linalg.cholesky(x @ x.T),
    "singular values": lambda x: np.linalg.svd(x, full_matrices=False)[1],
    "left singular vectors": lambda x: np.linalg.svd(x, full_matrices=False)[0] ** 2,
    "right singular vectors": lambda x: np.linalg.svd(x, full_matrices=False)[2] ** 2,
    "singular vectors of a tall matrix": lambda x: np.linalg.svd(x.T, full_matrices=False)[0] ** 2,
    "as_strided": lambda x: as_strided(x, (2, 3), (32, 8)),
    "eigenvalues": lambda x: np.linalg.eigh(x @ x.T)[0],
    "eigenvectors": lambda x: np.linalg.eigh(x @ x.T, "U")[1] ** 2,
    "qr": lambda x: np.linalg.qr(x.T)[0],
    "the triangle of qr": lambda x: np.linalg.qr(x.T)[1],
    "concatenate": lambda x: np.concatenate([x, x[:1]]),
    "reshape": lambda x: x.reshape(4, 3).mT,
    "indexing": lambda x: x[np.array([0, 0, 2])],
    "zeros_like": lambda x: np.zeros_like(x) + x,
    "float32 by name": lambda x: x.astype(np.float64) * 2,
}
ON_POSITIVE: dict[str, Callable[[Any], Any]] = {
    "log": np.log,
    "power": lambda x: np.power(x, x),
    "root": lambda x: x**0.5,
    "inverse square": lambda x: x**-2.0,
    "log1p": np.log1p,
    "xlogy": lambda x: special.xlogy(x, x),
    "xlog1py": lambda x: special.xlog1py(x, x),
    "k0": special.k0,
    "gamma": special.gamma,
}
ON_UNIT: dict[str, Callable[[Any], Any]] = {
    "logit": special.logit,
    "erfinv": special.erfinv,
    "ndtri": special.ndtri,
    "arcsin": np.arcsin,
    "arctanh": np.arctanh,
}
CASES = [
    *((name, f, X) for name, f in ANYWHERE.items()),
    *((name, f, POSITIVE) for name, f in ON_POSITIVE.items()),
    *((name, f, UNIT) for name, f in ON_UNIT.items()),
]


def _step(f: Callable[[Any], Any], x: Array, d: Array) -> tuple[Array, Trace]:
    trace = Trace()
    found = f(ComplexArray(x + 1j * H * d, trace))
    assert np.allclose(found.z.real, f(x), rtol=1e-14, atol=1e-15)
    assert found.dtype == np.float64
    return found.z.imag / H, trace


@pytest.mark.parametrize(("name", "f", "x"), CASES, ids=[c[0] for c in CASES])
def test_a_function_has_its_derivative(name: str, f: Callable[[Any], Any], x: Array) -> None:
    slope, trace = _step(f, x, D)
    black_box = derivative(lambda t: np.asarray(f(x + t * D)), 0.3)
    error = np.abs(slope.reshape(-1) - black_box.value)
    assert (error <= black_box.bound + 1e-13 * np.abs(black_box.value).max()).all()
    assert trace.ties == 0


@pytest.mark.parametrize(
    "f",
    [
        np.abs,
        np.sign,
        np.rint,
        np.floor,
        lambda x: np.maximum(x, x[::-1]),
        lambda x: np.max(x),
        np.sort,
        lambda x: np.clip(x, 0, 1),
        lambda x: np.where(x > 0, x, -x),
        lambda x: x**0.5,
    ],
)
def test_a_switch_met_exactly_is_counted(f: Callable[[Any], Any]) -> None:
    trace = Trace()
    with np.errstate(all="ignore"):
        x = np.array([0.5, 0.5]) if f is np.rint else np.zeros(2)
        f(ComplexArray(x + 1j * H * np.array([1.0, 2.0]), trace))
    assert trace.ties > 0


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x == -np.inf,
        lambda x: np.maximum(x, x[::-1]),
        lambda x: np.max(x),
        lambda x: np.clip(x, -np.inf, 1),
    ],
)
def test_infinite_values_do_not_part(f: Callable[[Any], Any]) -> None:
    trace = Trace()
    with np.errstate(all="ignore"):
        f(ComplexArray(np.full(2, -np.inf) + 1j * H * np.array([1.0, 2.0]), trace))
    assert trace.ties == 0


def test_outside_the_domain_is_nan() -> None:
    x = ComplexArray(np.array([-1.0, 4.0]) + 1j * H, Trace())
    for f in (np.log, np.sqrt):
        assert np.isnan(f(x).z[0].real)
        assert np.isfinite(f(x).z[1])


@pytest.mark.parametrize(
    "f",
    [
        special.y0,
        np.linalg.svd,
        np.linalg.qr,
        np.linalg.eig,
        lambda x: np.linalg.svd(x[0, 0] * np.eye(2)),
        lambda x: np.linalg.eigh(x[0, 0] * np.eye(2)),
        np.unique,
        np.asarray,
        lambda x: float(x[0, 0]),
        lambda x: x.item(),
        lambda x: np.linalg.norm(x, ord="nuc"),
    ],
)
def test_what_has_no_reading_says_so(f: Callable[[Any], Any]) -> None:
    with pytest.raises(Unsupported, match="complex step"):
        f(ComplexArray(X + 1j * H * D, Trace()))


def test_writing_reaches_the_memory() -> None:
    z = np.zeros_like(ComplexArray(X + 1j * H * D, Trace()), shape=(4,))
    z[1] = ComplexArray(np.array(2 + 3j), Trace())
    np.add.at(z, np.array([1, 1]), ComplexArray(np.array([1j, 1j]), Trace()))
    assert z.z[1] == 2 + 5j


def _program(*calls: tuple[str, tuple[Any, ...]], **values: Array) -> tuple[Program, Values]:
    inputs = tuple(Input.of(n, v, requires_grad=v.dtype.kind == "f") for n, v in values.items())
    made = tuple(Call(f"v{n}", target, args) for n, (target, args) in enumerate(calls))
    return Program(inputs, made, Ref(made[-1].name)), dict(values)


def test_a_program_has_the_derivative_that_torch_has() -> None:
    program, values = _program(
        ("torch.matmul", (Ref("x0"), Ref("x1"))),
        ("torch.exp", (Ref("v0"),)),
        ("torch.sum", (Ref("v1"), 0)),
        ("torch.mul", (Ref("v2"), Ref("v2"))),
        x0=X,
        x1=X.T.copy(),
    )
    d = {"x0": D, "x1": D.T.copy()}
    found = Step(program, values, d).directional
    gradients = TorchEngine().vjp(program, values, [np.ones(3)]).gradients
    expected = sum(float((g * d[n]).sum()) for n, g in gradients.items() if g is not None)
    assert found.tangents[0] is not None
    assert found.tangents[0].sum() == pytest.approx(expected, rel=1e-13)
    assert found.ties == 0


def test_a_write_through_a_view_reaches_the_second_order() -> None:
    x = np.array([0.5, 1.0, 2.0])
    calls = (
        Call("v0", "torch.clone", (Ref("x0"),)),
        Call("v1", "torch.narrow", (Ref("v0"), 0, 0, 2)),
        Call("v2", "torch.Tensor.exp_", (Ref("v1"),)),
    )
    program = Program((Input.of("x0", x, requires_grad=True),), calls, Ref("v0"))
    weights = np.array([1.0, 2.0, 3.0])
    products, gradients, ties = Step(program, {"x0": x}, {"x0": np.ones(3)}, grad=True).second(
        [weights]
    )
    assert products["x0"] == pytest.approx([np.exp(0.5), 2 * np.exp(1.0), 0.0], rel=1e-15)
    assert gradients["x0"] == pytest.approx([np.exp(0.5), 2 * np.exp(1.0), 3.0], rel=1e-15)
    assert ties == 0


def test_a_write_through_a_diagonal() -> None:
    program, values = _program(
        ("torch.clone", (Ref("x0"),)), ("torch.diagonal", (Ref("v0"),)),
        ("torch.Tensor.exp_", (Ref("v1"),)), ("torch.sum", (Ref("v0"),)), x0=X[:3, :3].copy(),
    )  # fmt: skip
    found = Step(program, values, {"x0": np.ones((3, 3))}).directional
    assert found.tangents[0] == pytest.approx(6 + np.exp(np.diag(values["x0"])).sum(), rel=1e-15)


def test_a_write_into_what_does_not_move() -> None:
    program, values = _program(
        ("torch.clone", (Ref("x1"),)), ("torch.Tensor.add_", (Ref("v0"), Ref("x0"))),
        x0=X[0], x1=np.ones(4, np.float64),
    )  # fmt: skip
    still = Input.of("x1", values["x1"])
    program = Program((program.inputs[0], still), program.calls, program.outputs)
    found = Step(program, values, {"x0": D[0]}).directional
    assert found.tangents[0] == pytest.approx(D[0], rel=1e-15)


def test_nothing_times_something_that_moves_is_a_tie_too() -> None:
    program, values = _program(
        ("torch.mul", (Ref("x0"), Ref("x1"))),
        ("torch.relu", (Ref("v0"),)),
        x0=np.zeros(2),
        x1=np.array([0.5, -2.0]),
    )
    assert Step(program, values, {"x0": np.ones(2), "x1": np.ones(2)}).directional.ties > 0


def test_trigamma_moves_by_tetragamma() -> None:
    program, values = _program(("torch.polygamma", (1, Ref("x0"))), x0=POSITIVE)
    found = Step(program, values, {"x0": np.ones_like(POSITIVE)}).directional
    assert found.tangents[0] == pytest.approx(special.polygamma(2, POSITIVE), rel=1e-13)
