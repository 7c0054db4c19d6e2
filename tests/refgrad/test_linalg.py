"""Linear algebra where PyTorch's samples do not go: singular matrices, ties, errors."""

from __future__ import annotations

import itertools
import math
import types
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import polynomial

import refgrad
from tests.refgrad import against_torch
from tests.refgrad.both import both, both_raise
from tests.refgrad.derivatives import assert_same
from tests.refgrad.op_db import op_db

rng = np.random.default_rng(0)
R = rng.standard_normal((4, 4))
D = rng.standard_normal((4, 4))
SINGULAR = {
    "rank 3": np.concatenate((R[:3], R[:1] + R[1:2])),
    "rank 2": np.concatenate((R[:2], R[:1] - R[1:2], R[:1] + R[1:2])),
    "rank 1": np.ones((4, 4)),
    "zero": np.zeros((4, 4)),
    "zero on the diagonal": np.triu(R) * (np.arange(4) != 1),
}


def leaf(module: Any, array: Any) -> Any:
    return module.from_numpy(np.array(array)).requires_grad_(True)


def gradient(f: Any, *arrays: Any) -> Any:
    """Code for `both`: the value of f(module, *leaves) and its gradients."""

    def code(module: Any) -> Any:
        leaves = [leaf(module, a) for a in arrays]
        value = f(module, *leaves)
        loss = sum(
            (v.real if v.is_complex() else v).sum()
            for v in against_torch.leaves(value, module.Tensor)
        )
        return value, module.autograd.grad(loss, leaves, allow_unused=True)

    return code


# --- determinants --------------------------------------------------------------------------------


def along(A: Any, direction: Any, order: int) -> list[float]:
    """The derivatives of det(A + t D) at t = 0, by Leibniz's formula."""
    n = len(A)
    total = np.zeros(n + 1)
    for p in itertools.permutations(range(n)):
        product = [round(np.linalg.det(np.eye(n)[list(p)]))]
        for i, j in enumerate(p):
            product = polynomial.polymul(product, [A[i, j], direction[i, j]])
        total[: len(product)] += product
    return [total[k] * math.factorial(k) if k <= n else 0.0 for k in range(order + 1)]


@pytest.mark.parametrize("name", ["regular", *SINGULAR])
def test_det_of_every_order(name: str) -> None:
    """PyTorch's second derivative is nan at zero, its third wrong at any singular matrix."""
    A = SINGULAR.get(name, R)
    t = leaf(refgrad, 0.0)
    y = refgrad.linalg.det(refgrad.from_numpy(A) + t * refgrad.from_numpy(D))
    found = [y.item()]
    for _ in range(5):
        (y,) = refgrad.autograd.grad(y, t, create_graph=True)
        found.append(y.item())
    np.testing.assert_allclose(found, along(A, D, 5), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (2, 0, 0), (0, 3, 3)])
def test_det_of_few_elements(shape: tuple[int, ...]) -> None:
    both(gradient(lambda m, a: m.det(a), np.zeros(shape)))
    both(gradient(lambda m, a: m.slogdet(a), np.ones(shape)))


def test_det_of_nan() -> None:
    both(gradient(lambda m, a: m.det(a), [[[1.0, math.nan], [2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]]))


@pytest.mark.parametrize("A", [np.ones((2, 2)), np.diag([-1.0, 1.0])])
def test_logdet_at_zero_and_below(A: Any) -> None:
    both(gradient(lambda m, a: m.logdet(a), A))


# --- spectra -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eigvalsh", "eigvals", "svdvals"])
def test_equal_eigenvalues_have_gradients(name: str) -> None:
    both(gradient(lambda m, a: getattr(m.linalg, name)(a), np.eye(3)))


@pytest.mark.parametrize("A", [np.zeros((3, 2)), np.outer([1.0, 2.0, 3.0], [1.0, 1.0]), np.eye(3)])
@pytest.mark.parametrize("ord", ["nuc", 2, -2, 1, -1, math.inf, "fro"])
def test_matrix_norms_at_kinks(A: Any, ord: Any) -> None:
    if ord in ("nuc", -2) and A[0, 0] == 1 and A.shape == (3, 2):
        pytest.skip("the singular vectors of a zero singular value are LAPACK's choice")
    both(gradient(lambda m, a: m.linalg.matrix_norm(a, ord), A))


def test_left_out_singular_vectors_move() -> None:
    """The projector on the columns that complete U is 1 - U U^T; PyTorch gives it no gradient."""
    A, G = rng.standard_normal((4, 2)), rng.standard_normal((4, 4))
    found = []
    for full in (True, False):
        a = leaf(refgrad, A)
        U = refgrad.linalg.svd(a, full_matrices=full).U
        P = U[:, 2:] @ U[:, 2:].mT if full else -(U @ U.mT)
        found += refgrad.autograd.grad((P * refgrad.from_numpy(G)).sum(), a)
    np.testing.assert_allclose(found[0].numpy(), found[1].numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["eigh", "svd", "eig"])
def test_a_loss_of_the_phase_is_refused(name: str) -> None:
    A = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3))
    A = A + A.conj().T if name == "eigh" else A

    def code(module: Any) -> Any:
        a = leaf(module, A)
        vectors = getattr(module.linalg, name)(a)[1 if name != "svd" else 0]
        return module.autograd.grad((vectors.real**2 + vectors.imag).sum(), a)

    both_raise(code, match="ill-defined")


@pytest.mark.parametrize("triangle", [np.tril, np.triu])
def test_one_triangle_is_read(triangle: Any) -> None:
    A = triangle(R @ R.T + np.eye(4))
    upper = triangle is np.triu
    both(gradient(lambda m, a: m.linalg.cholesky(a, upper=upper), A))
    triangle_of = "U" if upper else "L"
    both(gradient(lambda m, a: m.linalg.eigvalsh(a, triangle_of), A))
    both(gradient(lambda m, a: abs(m.linalg.eigh(a, triangle_of)[1]), A))


# --- systems -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "left"),
    [((3, 3), (3,), True), ((2, 3, 3), (2, 3), True), ((2, 3, 3), (3,), True),
     ((2, 3, 3), (4, 3), False), ((5, 1, 3, 3), (2, 3, 1), True), ((0, 0), (0, 2), True),
     ((3, 3), (3, 0), True), ((2, 1, 33, 33), (3, 33, 2), True), ((2, 33, 33), (4, 33), False)],
)  # fmt: skip
def test_solve_broadcasts(a: Any, b: Any, left: bool) -> None:
    A, B = rng.standard_normal(a), rng.standard_normal(b)
    both(gradient(lambda m, a, b: m.linalg.solve(a, b, left=left), A, B))


@pytest.mark.parametrize("options", [
    {"upper": False, "left": False, "unitriangular": True}, {"upper": True}, {"upper": False},
])  # fmt: skip
def test_solve_triangular_broadcasts(options: Any) -> None:
    A, B = rng.standard_normal((4, 1, 3, 3)), rng.standard_normal((2, 3, 3))
    both(gradient(lambda m, a, b: m.linalg.solve_triangular(a, b, **options), A, B))


@pytest.mark.parametrize("of_rows", [True, False])
@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("unitriangular", [True, False])
def test_substitution_reads_each_layout(
    of_rows: bool, columns: bool, upper: bool, unitriangular: bool
) -> None:
    A, B = rng.standard_normal((2, 4, 4)) + 2j * np.eye(4), rng.standard_normal((4, 3)) + 1j

    def f(m: Any, a: Any, b: Any) -> Any:
        a = a[0] if of_rows else a[1].mT
        b = b.mT.contiguous().mT if columns else b
        return m.linalg.solve_triangular(a, b, upper=upper, unitriangular=unitriangular)

    both(gradient(f, A, B))


def test_a_zero_pivot_gives_inf() -> None:
    A = np.array([[1.0, 2.0], [0.0, 0.0]])
    both(lambda m: m.linalg.solve_triangular(m.from_numpy(A), m.from_numpy(np.eye(2)), upper=True))
    both(lambda m: m.linalg.inv_ex(m.from_numpy(np.ones((2, 2)))))
    both(lambda m: m.linalg.lu_factor_ex(m.from_numpy(np.zeros((2, 2)))))


@pytest.mark.parametrize("driver", [None, "gels", "gelsy", "gelsd", "gelss"])
@pytest.mark.parametrize(
    "shapes", [((4, 2), (4, 3)), ((2, 4), (2, 3)), ((4, 2), (4,)), ((3, 4, 2), (3, 4, 2))]
)
def test_least_squares(driver: Any, shapes: Any) -> None:
    A, B = (rng.standard_normal(s) for s in shapes)
    both(lambda m: m.linalg.lstsq(m.from_numpy(A), m.from_numpy(B), driver=driver))
    both(gradient(lambda m, a, b: m.linalg.lstsq(a, b, driver=driver).solution, A, B))


@pytest.mark.parametrize("options", [{"atol": 1.0}, {"rtol": 0.5}, {"rcond": 0.5}, {"atol": 0.0}])
def test_pinv_cutoffs(options: Any) -> None:
    A = np.array([[2.0, 0.3], [0.1, 1.5], [0.2, -0.4]])  # singular values 2.1 and 1.5
    both(gradient(lambda m, a: m.linalg.pinv(a, **options), A))


def _cut(f: Any, A: Any, *others: Any) -> None:
    """f's gradient against differences, singular values above zero being left out.

    PyTorch's rules take what is left out for zero: of diag(2, 1), of which 1 is left out, its
    dP[1, 0] / dA[0, 1] is 1/4, and 1/3 by mpmath.
    """
    a = refgrad.from_numpy(A.copy()).requires_grad_()
    rest = [refgrad.from_numpy(o) for o in others]
    out = f(a, *rest)
    weights = rng.standard_normal(out.shape).astype(A.dtype)
    if A.dtype.kind == "c":
        weights += 1j * rng.standard_normal(out.shape)
    (g,) = refgrad.autograd.grad(out, a, refgrad.from_numpy(weights))
    for _ in range(3):
        along = rng.standard_normal(A.shape) * (1.0 if A.dtype.kind == "f" else 1 + 0.5j)
        ends = [f(refgrad.from_numpy(A + s * 1e-6 * along), *rest).numpy() for s in (1, -1)]
        slope = np.vdot(weights, (ends[0] - ends[1]) / 2e-6).real
        found = np.vdot(g.numpy(), along).real
        assert found == pytest.approx(slope, rel=1e-7, abs=2e-9)  # 1e-16 / 1e-6, of some values


VALUES = np.array([3.0, 2.0, 1.0, 0.5])


def _with_singular_values(shape: tuple[int, int], kind: str) -> Any:
    parts = [rng.standard_normal(shape) + 1j * (kind == "c") * rng.standard_normal(shape)]
    U, _, Vh = np.linalg.svd(parts[0], full_matrices=False)
    made = (U * VALUES[: min(shape)]) @ Vh
    return made if kind == "c" else made.real


@pytest.mark.parametrize("kind", ["f", "c"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("options", [{"rtol": 0.5}, {"atol": 1.5}, {"rtol": 0.9}])
def test_what_pinv_leaves_out_counts_in_its_gradient(shape: Any, kind: str, options: Any) -> None:
    _cut(lambda a: refgrad.linalg.pinv(a, **options), _with_singular_values(shape, kind))


def test_so_it_does_of_a_batch_of_hermitian_matrices_and_in_lstsq() -> None:
    A = np.stack([np.diag([3.0, -2.0, 0.4]), np.diag([1.0, 0.9, 0.8])])
    A = A + 0.01 * rng.standard_normal((1, 3, 3))
    _cut(lambda a: refgrad.linalg.pinv(a + a.mT, rtol=0.5, hermitian=True), A)
    tall, wanted = _with_singular_values((4, 3), "f"), rng.standard_normal((4, 2))
    _cut(lambda a, b: refgrad.linalg.lstsq(a, b, rcond=0.5).solution, tall, wanted)


def test_the_exact_slope_of_a_cut_pinv() -> None:
    a = leaf(refgrad, np.diag([2.0, 1.0]))
    (g,) = refgrad.autograd.grad(refgrad.linalg.pinv(a, rtol=0.7)[1, 0], a)
    assert np.allclose(g.numpy(), [[0, 1 / 3], [1 / 6, 0]], atol=1e-15)


@pytest.mark.parametrize("p", [1, -1, 2, -2, math.inf, "fro", "nuc", None])
def test_condition_numbers(p: Any) -> None:
    """PyTorch cannot differentiate most of them: its backward meets its own in-place write."""
    for A in (R, np.zeros((2, 0, 0))):
        both(lambda m, A=A: m.linalg.cond(m.from_numpy(A), p))
    a = leaf(refgrad, R)
    (g,) = refgrad.autograd.grad(refgrad.linalg.cond(a, p), a)
    step = 1e-6 * D
    ends = (refgrad.linalg.cond(refgrad.from_numpy(R + s * step), p).item() for s in (1, -1))
    assert np.sum(g.numpy() * D) == pytest.approx(
        math.fsum(x * y for x, y in zip(ends, (1, -1), strict=True)) / 2e-6, rel=1e-6
    )


def test_singular_matrices_are_infinitely_ill_conditioned() -> None:
    for p in (1, math.inf, "fro"):
        both(lambda m, p=p: m.linalg.cond(m.from_numpy(np.ones((2, 2))), p))


# --- distances -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, math.inf])
def test_distances_at_ties_and_zero(p: float) -> None:
    x, y = np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    both(gradient(lambda m, a, b: m.cdist(a, b, p=p), x, y))
    both(gradient(lambda m, a: m.nn.functional.pdist(a, p=p), np.concatenate((x, y))))


@pytest.mark.parametrize("shapes", [((0, 2), (3, 2)), ((2, 0), (3, 0)), ((2, 1, 4, 2), (3, 5, 2))])
def test_cdist_shapes(shapes: Any) -> None:
    a, b = (rng.standard_normal(s) for s in shapes)
    both(gradient(lambda m, a, b: m.cdist(a, b), a, b))


# --- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision_stays(dtype: Any) -> None:
    A = (R + 0.5j * D if dtype is np.complex64 else R).astype(dtype)
    H = (A @ A.conj().T + np.eye(4)).astype(dtype)
    for name in ("det", "slogdet", "inv", "svdvals", "qr", "pinv", "lu", "matrix_exp"):
        a = leaf(refgrad, A)
        out = getattr(refgrad.linalg, name)(a)
        loss = sum(
            abs(o).sum() for o in against_torch.leaves(out, refgrad.Tensor) if o.requires_grad
        )
        (g,) = refgrad.autograd.grad(loss, a, create_graph=True)
        assert g._array.dtype == dtype, name
        assert refgrad.autograd.grad(g.abs().sum(), a)[0]._array.dtype == dtype, name
    for name in ("cholesky", "eigvalsh"):
        a = leaf(refgrad, H)
        (g,) = refgrad.autograd.grad(abs(getattr(refgrad.linalg, name)(a)).sum(), a)
        assert g._array.dtype == dtype, name


ERRORS = {
    "inv": (lambda m: m.linalg.inv(m.ones(2, 2)), "singular"),
    "solve": (lambda m: m.linalg.solve(m.ones(2, 2), m.ones(2)), "singular"),
    "solve shapes": (lambda m: m.linalg.solve(m.eye(3), m.ones(2, 3)), "Incompatible shapes"),
    "solve vector": (lambda m: m.linalg.solve(m.eye(3), m.ones(3), left=False), "linalg.solve"),
    "cholesky": (lambda m: m.linalg.cholesky(-m.eye(2)), "not positive-definite"),
    "cholesky_ex": (lambda m: m.linalg.cholesky_ex(-m.eye(2), check_errors=True), "not positive"),
    "lu_factor": (lambda m: m.linalg.lu_factor(m.zeros(2, 2)), r"U\[1,1\] is zero"),
    "lu pivot": (lambda m: m.linalg.lu(m.eye(2), pivot=False), "without pivoting"),
    "square": (lambda m: m.linalg.det(m.ones(2, 3)), "square"),
    "vector": (lambda m: m.linalg.eigh(m.ones(3)), "at least 2 dimensions"),
    "integers": (lambda m: m.linalg.inv(m.ones(2, 2, dtype=m.int64)), "floating point or complex"),
    "UPLO": (lambda m: m.linalg.eigh(m.eye(2), "x"), "UPLO"),
    "mode": (lambda m: m.linalg.qr(m.eye(2), "x"), "mode"),
    "driver": (lambda m: m.linalg.lstsq(m.eye(2), m.eye(2), driver="x"), "driver"),
    "order": (lambda m: m.linalg.matrix_norm(m.eye(2), 3), "Order 3 not supported"),
    "dims": (lambda m: m.linalg.matrix_norm(m.eye(2), dim=(0, 0)), "must be different"),
    "norm": (lambda m: m.linalg.norm(m.ones(2, 2, 2), 2), "must be 1D or 2D"),
    "cond": (lambda m: m.linalg.cond(m.eye(2), 3), "invalid norm type"),
    "multi_dot": (lambda m: m.linalg.multi_dot([m.eye(2)]), "at least 2 tensors"),
    "vander": (lambda m: m.linalg.vander(m.ones(3), N=1), "greater than 1"),
    "cross": (lambda m: m.linalg.cross(m.ones(3), m.ones(2, 3)), "same number of dimensions"),
    "cdist": (lambda m: m.cdist(m.ones(2, 1), m.ones(3, 2)), "same number of columns"),
    "tensorinv": (lambda m: m.linalg.tensorinv(m.ones(2, 3, 4)), "Expected self to satisfy"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    code, match = ERRORS[name]
    if name in ("inv", "solve", "cholesky", "cholesky_ex"):
        with pytest.raises(torch.linalg.LinAlgError, match=match):
            code(torch)
        with pytest.raises(refgrad.linalg.LinAlgError, match=match):
            code(refgrad)
    else:
        both_raise(code, match=match)


@pytest.mark.parametrize("name", ["ldl_factor", "geqrf", "qr"])
def test_no_derivative_is_said(name: str) -> None:
    def code(module: Any) -> Any:
        a = leaf(module, R[:, :2] if name == "qr" else R + R.T)
        if name == "geqrf":
            return module.geqrf(a)[0].sum().backward()
        factorise = getattr(module.linalg, name)
        return (factorise(a, "complete") if name == "qr" else factorise(a))[0].sum().backward()

    both_raise(code, match="not implemented|not differentiable")


@pytest.mark.parametrize(
    "entry",
    [e for e in op_db if e.variant_test_name in ("singular", "grad_oriented")],
    ids=lambda e: e.variant_test_name,
)
def test_samples_written_for_torch(entry: Any) -> None:
    """PyTorch's samples of compositions, made refgrad's by giving its lambda our module."""
    ours = types.FunctionType(entry.op.__code__, {**entry.op.__globals__, "torch": refgrad})
    for i, sample in enumerate(entry.sample_inputs("cpu", torch.float64, requires_grad=True)):
        given = (sample.input, sample.args, sample.kwargs)
        input, args, kwargs = converted = against_torch.convert(list(given))
        mine, yours = ours(input, *args, **kwargs), entry.op(given[0], *given[1], **given[2])
        sides = []
        for module, out, tree in ((refgrad, mine, converted), (torch, yours, list(given))):
            outs = against_torch.leaves(out, module.Tensor)
            inputs = [t for t in against_torch.leaves(tree, module.Tensor) if t.requires_grad]
            sides.append(against_torch.gradients(module, outs, inputs, np.random.default_rng(i), 2))
        for a, b in zip(*sides, strict=True):
            assert against_torch.differ(a, b, f"gradient of sample {i}") is None


@pytest.mark.parametrize("imaginary", [0.0, 1.0])
def test_factors_given(imaginary: float) -> None:
    """What begins from a factor: the inverse by Cholesky's, and a product of reflections."""
    A = R if not imaginary else R + 1j * (D - np.diag(np.diag(D)))
    for name in ("tril", "triu"):  # PyTorch's gradient fills the triangle that is not read too
        both(gradient(lambda m, x, f=name: m.cholesky_inverse(getattr(m, f)(x), f == "triu"), A))
    tau = A[0, :3].copy()
    both(gradient(lambda m, x, t: m.linalg.householder_product(x, t) * 1, A, tau))


def test_reflections_undo_each_other() -> None:
    a, tau = refgrad.geqrf(refgrad.from_numpy(R))
    Q = refgrad.linalg.householder_product(a, tau)
    np.testing.assert_allclose((Q.mT @ Q).numpy(), np.eye(4), atol=1e-14)
    back = refgrad.ormqr(a, tau, Q, transpose=True)
    np.testing.assert_allclose(back.numpy(), np.eye(4), atol=1e-14)


# --- sums with products --------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0, 2.5), (-0.5, 1), (2, 0)])
@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (4, 3)])
def test_addmm_is_one_node(shape: tuple[int, ...], beta: float, alpha: float) -> None:
    made = both(gradient(lambda m, *t: m.addmm(*t, beta=beta, alpha=alpha),
                         rng.standard_normal(shape), R, D[:, :3]))  # fmt: skip
    assert made is not None
    x = refgrad.ones(4, 3, requires_grad=True)
    assert x.addmm(x, refgrad.ones(3, 3)).grad_fn.name() == "AddmmBackward0"


@pytest.mark.parametrize(("name", "shapes"), [
    ("addmv", [(4,), (4, 3), (3,)]),
    ("addr", [(4, 1), (4,), (3,)]),
    ("addbmm", [(1, 5), (2, 4, 3), (2, 3, 5)]),
    ("baddbmm", [(4, 5), (2, 4, 3), (2, 3, 5)]),
])  # fmt: skip
def test_sums_with_products_at_second_order(name: str, shapes: list[tuple[int, ...]]) -> None:
    assert_same(lambda m, *t: getattr(m, name)(*t, beta=0.5, alpha=-2.0),
                *map(rng.standard_normal, shapes), order=2)  # fmt: skip


def test_baddbmm_where_what_is_added_is_no_number() -> None:
    nan = np.full((2, 1, 3), np.nan)
    both(gradient(lambda m, *t: m.baddbmm(*t, beta=0, alpha=2), nan, np.stack((R, D)),
                  np.stack((D, R))[..., :3]))  # fmt: skip


@pytest.mark.parametrize(("code", "match"), [
    (lambda m: m.addmm(m.ones(5), m.ones(4, 2), m.ones(2, 3)), "must match the existing size"),
    (lambda m: m.addmm(m.ones(3, dtype=m.float64), m.ones(4, 2), m.ones(2, 3)), "same dtype"),
    (lambda m: m.addmm(m.ones(2, 4, 3), m.ones(4, 2), m.ones(2, 3)), "number of"),
    (lambda m: m.baddbmm(m.ones(2, 1, 3), m.ones(1, 4, 2), m.ones(1, 2, 3)), "must match"),
    (lambda m: m.ones(1, 3).addmm_(m.ones(4, 2), m.ones(2, 3)), ""),
])  # fmt: skip
def test_what_cannot_be_added_to_a_product(code: Any, match: str) -> None:
    both_raise(code, match=match)


def test_integers_times_numbers_that_are_none() -> None:
    both(lambda m: m.addmm(m.arange(3), m.arange(8).reshape(4, 2), m.arange(6).reshape(2, 3),
                           beta=2.7, alpha=3.9))  # fmt: skip


# --- products in groups --------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b", "ends"), [
    ((8, 16), (3, 16, 4), (2, 5, 8)),
    ((8, 16), (3, 16, 4), (2, 2, 8)),
    ((3, 8, 16), (3, 16, 4), None),
    ((8, 16), (16, 4), (4, 8, 16)),
    ((3, 8, 16), (16, 12), (4, 8, 12)),
])  # fmt: skip
def test_products_in_groups(a: Any, b: Any, ends: Any) -> None:
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (a, b))

    def code(m: Any) -> Any:
        offs = None if ends is None else m.tensor(ends, dtype=m.int32)
        given = leaf(m, x), leaf(m, w)
        out = m.nn.functional.grouped_mm(*given, offs=offs)
        return [out, *m.autograd.grad(out, given, (out.detach() + 1).contiguous())]

    both(code)


def test_rows_beyond_the_last_group_are_zero() -> None:
    out = refgrad._grouped_mm(refgrad.ones(5, 3), refgrad.ones(2, 3, 2),
                              refgrad.tensor([1, 3], dtype=refgrad.int32))  # fmt: skip
    np.testing.assert_array_equal(out.numpy(), [[3, 3]] * 3 + [[0, 0]] * 2)


@pytest.mark.parametrize(("code", "match"), [
    (lambda m, o: m._grouped_mm(m.ones(8, 16), m.ones(3, 16, 4)), "provide offsets"),
    (lambda m, o: m._grouped_mm(m.ones(3, 8, 16), m.ones(3, 16, 4), o), "no offset if both"),
    (lambda m, o: m._grouped_mm(m.ones(8, 16), m.ones(3, 16, 4), o.long()), "int32"),
    (lambda m, o: m._grouped_mm(m.ones(8, 16), m.ones(3, 12, 4), o), "contraction dimension"),
    (lambda m, o: m._grouped_mm(m.ones(8, 16), m.ones(4, 16, 4), o), "matrix batch sizes"),
    (lambda m, o: m._grouped_mm(m.ones(8, 16), m.ones(3, 16, 4), o, m.ones(3, 4)), "Bias"),
    (lambda m, o: m._grouped_mm(m.ones(16), m.ones(3, 16, 4), o), "2"),
])  # fmt: skip
def test_what_has_no_product_in_groups(code: Any, match: str) -> None:
    both_raise(lambda m: code(m, m.tensor([2, 5, 8], dtype=m.int32)), match=match)
