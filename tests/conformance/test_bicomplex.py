"""Bicomplex numbers: NumPy functions of complex numbers, and complex Programs differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance.engines.torch import TorchEngine
from conformance.errors import Unsupported
from conformance.oracles.bicomplex_array import BicomplexArray
from conformance.oracles.bicomplex_functions import Moving
from conformance.oracles.complex_array import ComplexArray, Trace
from conformance.oracles.complex_step import Step
from conformance.oracles.pairs import contracted, gaussian, inner
from conformance.oracles.stencil import derivative
from conformance.program import Array, Call, Input, Program, Ref, Values

H = 1e-150
RNG = np.random.default_rng(0)
Z, D = (gaussian(RNG, (3, 4), complex) for _ in range(2))


def _spans(factors: Any) -> Any:
    U, _, Vh = factors
    return U[:, :1] @ Vh[:1] + 2 * U[:, 1:2] @ Vh[1:2]


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt, "square": np.square,
    "reciprocal": np.reciprocal, "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinh": np.sinh,
    "cosh": np.cosh, "tanh": np.tanh, "arcsin": np.arcsin, "arccos": np.arccos,
    "arctan": np.arctan, "arcsinh": np.arcsinh, "arccosh": np.arccosh, "arctanh": np.arctanh,
    "abs": np.abs,
    "sign": np.sign,
    "conj": lambda z: z.conj() * z,
    "real": lambda z: z.real * np.imag(z),
    "angle": lambda z: np.arctan2(z.imag, z.real),
    "sum of two": lambda z: z + z[::-1] - 1j,
    "product": lambda z: z * z[::-1] * 2j,
    "quotient": lambda z: z / z[::-1],
    "a real part times a complex number": lambda z: np.exp(z.real) * (1 + 2j),
    "a real part as complex": lambda z: z.real.astype(complex) * z,
    "power": lambda z: z**2.5,
    "integer power": lambda z: z**3,
    "power of a number": lambda z: (1 + 2j) ** z,
    "power of itself": lambda z: z**z,
    "matmul": lambda z: z @ z.T,
    "vecdot": lambda z: np.vecdot(z, z * z),
    "einsum": lambda z: np.einsum("ij,kj->ik", z, z.conj()),
    "tensordot": lambda z: np.tensordot(z, z, axes=([1], [1])),
    "outer": lambda z: np.multiply.outer(z[0], z[1]),
    "sum": lambda z: np.sum(z * z, axis=0, keepdims=True),
    "mean": lambda z: np.mean(z, axis=1),
    "add.reduce": lambda z: np.add.reduce(z, axis=1),
    "cumsum": lambda z: np.cumsum(z, axis=1),
    "prod": lambda z: np.prod(z, axis=1),
    "prod of all": lambda z: np.prod(z),
    "multiply.reduce": lambda z: np.multiply.reduce(z, axis=0),
    "cumprod": lambda z: np.cumprod(z, axis=1),
    "inv": lambda z: np.linalg.inv(z[:, :3]),
    "solve": lambda z: np.linalg.solve(z[:, :3], z),
    "solve for a vector": lambda z: np.linalg.solve(z[:, :3], z[:, 3]),
    "det": lambda z: np.linalg.det(z[:, :3]),
    "slogdet": lambda z: np.linalg.slogdet(z[:, :3])[1],
    "sign of the determinant": lambda z: np.linalg.slogdet(z[:, :3])[0],
    "cholesky": lambda z: np.linalg.cholesky(z @ z.conj().T),
    "upper cholesky": lambda z: np.linalg.cholesky(z @ z.conj().T, upper=True),
    "singular values": lambda z: np.linalg.svd(z, full_matrices=False)[1],
    "what singular vectors span": lambda z: _spans(np.linalg.svd(z, full_matrices=False)),
    "what those of a tall matrix span": lambda z: _spans(np.linalg.svd(z.T, full_matrices=False)),
    "eigenvalues": lambda z: np.linalg.eigh(z[:, :3] + z[:, :3].conj().T)[0],
    "eigenvectors, without a phase": lambda z: np.abs(np.linalg.eigh(z @ z.conj().T, "U")[1]),
    "qr": lambda z: np.linalg.qr(z.T)[0],
    "the triangle of qr": lambda z: np.linalg.qr(z.T)[1],
    "norm": lambda z: np.linalg.norm(z, axis=1),
    "norm of all": np.linalg.norm,
    "fft": np.fft.fft,
    "rfft of the real part": lambda z: np.fft.rfft(z.real),
    "irfft": np.fft.irfft,
    "where": lambda z: np.where(z.real > 0, z * z, 0),
    "concatenate": lambda z: np.concatenate([z, z[:1] * 2, np.ones((1, 4))]),
    "reshape": lambda z: z.reshape(4, 3).mT * 1j,
    "indexing": lambda z: z[np.array([0, 0, 2])],
    "flip and roll": lambda z: np.roll(np.flip(z, 0), 1, axis=1),
    "tril": lambda z: np.tril(z) + np.triu(z, 1),
    "pad": lambda z: np.pad(z, 1),
    "take_along_axis": lambda z: np.take_along_axis(z, np.array([[1], [0], [3]]), 1),
    "zeros_like": lambda z: np.zeros_like(z) + z,
    "ones_like": lambda z: np.ones_like(z) * z,
    "complex zeros like the real part": lambda z: np.zeros_like(z.real, dtype=complex) + z,
    "complex64 by name": lambda z: z.astype(np.complex128) * 2,
}  # fmt: skip


def _moving(trace: Trace | None = None) -> BicomplexArray:
    return BicomplexArray.of(Moving(Z, H * D), trace or Trace())


def _parts(found: Any) -> tuple[Array, Array]:
    """The values, and how they move."""
    if isinstance(found, BicomplexArray):
        return found.value, found.slope / H
    return found.z.real, found.z.imag / H


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_derivative(name: str) -> None:
    f, trace = FUNCTIONS[name], Trace()
    value, slope = _parts(f(_moving(trace)))
    due = np.asarray(f(Z))
    assert np.iscomplexobj(value) == np.iscomplexobj(due)
    assert np.allclose(value, due, rtol=1e-14, atol=1e-15)
    pairs = lambda t: np.asarray(f(Z + t * D)).astype(complex).reshape(-1).view(float)
    black_box = derivative(pairs, 0.3)
    error = np.abs(np.asarray(slope, complex).reshape(-1).view(float) - black_box.value)
    known = np.isfinite(black_box.value)  # of a constant part that is all rounding it is not
    assert known.any()
    assert (error <= black_box.bound + 1e-12 * np.abs(slope).max())[known].all()
    assert trace.ties == 0


@pytest.mark.parametrize("f", [np.abs, np.sign, lambda z: z == 0, np.linalg.norm])
def test_a_switch_met_exactly_is_counted(f: Callable[[Any], Any]) -> None:
    trace = Trace()
    f(BicomplexArray.of(Moving(np.zeros(2, complex), H * np.ones(2)), trace))
    assert trace.ties > 0


def test_infinite_values_do_not_part() -> None:
    trace = Trace()
    far = BicomplexArray.of(Moving(np.full(2, complex(-np.inf, 0)), H * np.ones(2)), trace)
    assert (far == complex(-np.inf, 0)).all()
    assert trace.ties == 0


def test_what_is_undefined_has_no_slope() -> None:
    z = BicomplexArray.of(Moving(np.array([complex(np.nan, 1), 1j]), H), Trace())
    slope = np.exp(z).slope
    assert np.isnan(slope[0])
    assert np.isfinite(slope[1])


@pytest.mark.parametrize(
    "f",
    [
        lambda z: np.maximum(z, z),
        np.sort,
        np.linalg.svd,  # with a basis of what it leaves out
        np.linalg.qr,  # of a wide matrix
        np.linalg.eig,
        np.asarray,
        lambda z: np.linalg.norm(z, ord=1),
        lambda z: np.subtract.accumulate(z),
        lambda z: z.view(np.int64),
        lambda z: np.copyto(np.zeros((3, 4), complex), z),
    ],
)
def test_what_has_no_reading_says_so(f: Callable[[Any], Any]) -> None:
    with pytest.raises(Unsupported, match="complex step"):
        f(_moving())


def test_parts_are_views() -> None:
    z = _moving()
    z.real[0] = ComplexArray(np.full(4, 5 + 2j), z.trace)
    z.imag[:, 1] = 7.0
    assert (z.value[0].real == 5).all()
    assert (z.slope[0].real == 2).all()
    assert (z.value[:, 1].imag == 7).all()
    assert (z.slope[:, 1].imag == 0).all()
    numbers = z.view(np.float64)
    assert numbers.shape == (3, 8)
    numbers[2, 5] = -1.0
    assert z.value[2, 2].imag == -1


def test_writing_reaches_the_memory() -> None:
    z = np.zeros_like(_moving(), shape=(4,))
    z[1] = BicomplexArray.of(Moving(np.array(2 + 3j), 1j), z.trace)
    np.add.at(z, np.array([1, 1]), BicomplexArray.of(Moving(np.array([1j, 1j]), 1), z.trace))
    assert z.value[1] == 2 + 5j
    assert z.slope[1] == 2 + 1j
    np.multiply(z, 1j, out=z)
    assert z.value[1] == -5 + 2j
    with pytest.raises(Unsupported, match="written into real ones"):
        np.multiply(z.real, 1j, out=z.real)


def _program(*calls: tuple[str, tuple[Any, ...]], **values: Array) -> tuple[Program, Values]:
    inputs = tuple(Input.of(n, v, requires_grad=True) for n, v in values.items())
    made = tuple(Call(f"v{n}", target, args) for n, (target, args) in enumerate(calls))
    return Program(inputs, made, Ref(made[-1].name)), dict(values)


PROGRAMS = {
    "holomorphic": _program(
        ("torch.matmul", (Ref("x0"), Ref("x1"))), ("torch.sin", (Ref("v0"),)), x0=Z, x1=Z.T.copy()
    ),
    "to real numbers": _program(
        ("torch.abs", (Ref("x0"),)), ("torch.log", (Ref("v0"),)), ("torch.sum", (Ref("v1"),)), x0=Z
    ),
    "from real numbers": _program(
        ("torch.complex", (Ref("x0"), Ref("x1"))), ("torch.tanh", (Ref("v0"),)),
        x0=Z.real.copy(), x1=Z.imag.copy(),
    ),
    "a transform and back": _program(
        ("torch.fft.rfft", (Ref("x0"),)), ("torch.exp", (Ref("v0"),)),
        ("torch.fft.irfft", (Ref("v1"), 4)), x0=Z.real.copy(),
    ),
    "a write through the real part": _program(
        ("torch.clone", (Ref("x0"),)), ("torch.real", (Ref("v0"),)),
        ("torch.Tensor.exp_", (Ref("v1"),)), ("torch.mul", (Ref("v0"), Ref("x0"))), x0=Z,
    ),
    "a write through a diagonal": _program(
        ("torch.clone", (Ref("x0"),)), ("torch.diagonal", (Ref("v0"), 1)),
        ("torch.Tensor.exp_", (Ref("v1"),)), ("torch.mul", (Ref("v0"), Ref("x0"))),
        x0=RNG.standard_normal((3, 3)) + 1j * RNG.standard_normal((3, 3)),
    ),
    "pairs as complex numbers": _program(
        ("torch.view_as_complex", (Ref("x0"),)), ("torch.sqrt", (Ref("v0"),)),
        x0=RNG.standard_normal((3, 2)),
    ),
    "single precision": _program(
        ("torch.mul", (Ref("x0"), Ref("x0"))), ("torch.angle", (Ref("v0"),)),
        x0=Z.astype(np.complex64),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_the_derivatives_that_torch_has(name: str) -> None:
    program, values = PROGRAMS[name]
    torch = TorchEngine()
    cotangents: list[Array | None] = [
        gaussian(np.random.default_rng(1), o.shape, o.dtype)
        for o in torch.run(program, values).outputs
    ]
    rng = np.random.default_rng(2)
    tangents = {n: gaussian(rng, v.shape, v.dtype) for n, v in values.items()}
    precision = 1e-5 if name == "single precision" else 1e-12
    step = Step(program, values, tangents, grad=True)
    along, size = contracted(cotangents, step.directional.tangents)
    gradients = torch.vjp(program, values, cotangents).gradients
    assert abs(along - inner(gradients, tangents)[0]) <= precision * size
    products, found, ties = step.second(cotangents)
    expected = torch.hvp(program, values, cotangents, tangents)
    assert ties == 0
    for leaf in values:
        assert found[leaf] == pytest.approx(gradients[leaf], rel=precision, abs=precision)
        assert products[leaf] == pytest.approx(expected[leaf], rel=100 * precision, abs=precision)


def test_a_complex_result_that_does_not_move_is_no_pair_of_numbers_that_do() -> None:
    empty = np.zeros((0, 0), complex), np.zeros(0, complex)
    program, values = _program(
        ("torch.linalg.householder_product", (Ref("x0"), Ref("x1"))),
        ("torch.nn.functional.pad", (Ref("v0"), (0, 1, 1, 0))),
        x0=empty[0], x1=empty[1],
    )  # fmt: skip
    step = Step(program, values, dict(values), grad=True)
    (tangent,), (value,) = step.directional.tangents, step.directional.values
    assert value.dtype == complex
    assert tangent is not None
    assert tangent.dtype == complex
