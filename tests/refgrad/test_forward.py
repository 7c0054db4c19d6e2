"""Forward mode: every op against torch's own, nesting, views and in-place writes."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.against_torch import resolve
from tests.refgrad.both import both, both_raise
from tests.refgrad.jvp_against_torch import disagreements
from tests.refgrad.op_db import op_db
from tests.refgrad.test_opinfo import LEFT_OUT as REVERSE

SAMPLES = 3
WITHOUT = "torch has no forward mode"
RANDOM = "the samples draw random numbers"

LEFT_OUT = {
    **{k: v for k, v in REVERSE.items() if "order" not in v and "derivative" not in v},
    "nn.functional.linear_cross_entropy.chunked": WITHOUT,
    "nn.functional.linear_cross_entropy.chunked_none": WITHOUT,
    "scatter_reduce.prod": WITHOUT,
    "logcumsumexp": "torch's tangent is off by 1e-6; see test_logcumsumexp",
    "nn.functional.hardsigmoid": "torch's tangent has the slope 1/6 in float32",
    "as_strided.partial_views": "the samples are views of a larger storage",
    "nn.functional.fractional_max_pool2d": RANDOM,
    "nn.functional.rrelu": RANDOM,
    "normal": RANDOM,
    "normal.number_mean": RANDOM,
    "bernoulli": RANDOM,
}

ENTRIES = [
    entry for entry in op_db
    if resolve(entry.name) is not None and entry.supports_autograd
    and not {entry.name, f"{entry.name}.{entry.variant_test_name}"} & LEFT_OUT.keys()
]  # fmt: skip


@pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda e: f"{e.name}-{e.variant_test_name}".strip("-")
)
def test_agrees_with_torch(entry: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in (torch.float64, torch.complex128):
            if dtype in entry.dtypes:
                assert list(disagreements(entry, dtype, limit=SAMPLES)) == []


# --- the API -------------------------------------------------------------------------------------


def vector(m: Any, *values: float) -> Any:
    return m.tensor(values, dtype=m.float64)


def unpacked(m: Any, *tensors: Any) -> Any:
    return [list(m.autograd.forward_ad.unpack_dual(t)) for t in tensors]


def test_dual_tensors() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        x, t = vector(m, 1.0, 2.0), vector(m, 3.0, -1.0)
        with forward.dual_level():
            d = forward.make_dual(x, t)
            y = (d * d).sum()
            with m.no_grad():
                z = d.exp()
            found = unpacked(m, d, y, z, x, d.detach(), d.data, d > 1, d.clone(), d.float())
        return [found, unpacked(m, y), d.requires_grad, d.is_leaf]

    both(code)


def test_printing() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        with forward.dual_level():
            d = forward.make_dual(vector(m, 1.0, 2.0), vector(m, 0.5, 1.0))
            return [repr(d), repr(d.sum()), repr(d[1:]), repr(d.requires_grad_())]

    both(code)


def test_enter_and_exit() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        level = forward.enter_dual_level()
        d = forward.make_dual(vector(m, 1.0), vector(m, 2.0), level=level)
        found = forward.unpack_dual(d * 3, level=level)
        forward.exit_dual_level(level=level)
        return [level, list(found), unpacked(m, d)]

    both(code)


def test_decorator() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad

        @forward.dual_level()
        def slope(x: Any) -> Any:
            return forward.unpack_dual(forward.make_dual(x, m.ones_like(x)).sin()).tangent

        return [slope(vector(m, 0.5)), slope(vector(m, 1.5))]

    both(code)


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (lambda m, f, x: [f.enter_dual_level() for _ in range(2)], "Nested forward mode"),
        (lambda m, f, x: f.make_dual(f.make_dual(x, x), x), "already has a forward gradient"),
        (lambda m, f, x: f.make_dual(x, x[:1]), "different size"),
        (lambda m, f, x: f.make_dual(x.long(), x), "Expected primal to be floating"),
        (lambda m, f, x: f.make_dual(x, x > 0), "Expected tangent to be floating"),
    ],
)
def test_errors(code: Any, match: str) -> None:
    def run(m: Any) -> Any:
        with m.autograd.forward_ad.dual_level():
            return code(m, m.autograd.forward_ad, vector(m, 1.0, 2.0))

    both_raise(run, match=match)


def test_errors_without_a_level() -> None:
    both_raise(
        lambda m: m.autograd.forward_ad.make_dual(vector(m, 1.0), vector(m, 1.0)),
        match="no level exists",
    )
    both_raise(
        lambda m: m.autograd.forward_ad.exit_dual_level(), match="Dual level must be a positive"
    )


def test_threads_have_levels_of_their_own() -> None:
    x = vector(refgrad, 1.0)
    found = []

    def other() -> None:
        with refgrad.autograd.forward_ad.dual_level():
            found.append(unpacked(refgrad, d.exp())[0][1])

    with refgrad.autograd.forward_ad.dual_level():
        d = refgrad.autograd.forward_ad.make_dual(x, x)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [None]


# --- views and in-place writes -------------------------------------------------------------------


def written(write: Any) -> Any:
    """Code that runs `write(m, b, d)` with zeros b, a dual d; the tangents of b, d and of views."""

    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        with forward.dual_level():
            b = m.zeros(2, 3, dtype=m.float64)
            row, column = b[0], b[:, 1]
            d = forward.make_dual(vector(m, 1.0, 2.0, 3.0), vector(m, -1.0, 0.5, 2.0))
            part = d[:2]
            write(m, b, d)
            return unpacked(m, b, row, column, d, part, b.T, b.reshape(-1)[2:])

    return code


@pytest.mark.parametrize(
    "write",
    [
        lambda m, b, d: b[0].copy_(d),
        lambda m, b, d: b.copy_(d),
        lambda m, b, d: b.T[1].add_(d[:2]),
        lambda m, b, d: b.add_(d).mul_(d),
        lambda m, b, d: b.add_(d).atan2_(d + 1),
        lambda m, b, d: b.select(1, 2).unsqueeze(1).add_(d[2]),
        lambda m, b, d: b.__setitem__((slice(None), 1), d[1:]),
        lambda m, b, d: b.__setitem__(m.tensor([1, 0]), d.expand(2, 3)),
        lambda m, b, d: d.mul_(d.clone()),
        lambda m, b, d: d[1:].mul_(3),
        lambda m, b, d: d.zero_(),
        lambda m, b, d: d[:2].copy_(vector(m, 7.0, 8.0)),
        lambda m, b, d: d.exp_().sub_(1),
        lambda m, b, d: d.split(2)[0].mul_(2),
        lambda m, b, d: d[1:].unsqueeze_(1).exp_(),
        lambda m, b, d: [b.add_(d), b[1].mul_(d), b[:, 0].sin_()],
    ],
)
def test_writes(write: Any) -> None:
    both(written(write))


def test_geometry_in_place() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        with forward.dual_level():
            d = forward.make_dual(vector(m, 1.0, 2.0), vector(m, 0.5, 1.0))
            y = d * 2
            return [unpacked(m, t.unsqueeze_(0).t_(), t.mul_(3), t.squeeze_(1)) for t in (d, y)]

    both(code)


def test_view_of_what_was_turned_has_no_tangent_left() -> None:
    forward = refgrad.autograd.forward_ad
    with forward.dual_level():
        d = forward.make_dual(vector(refgrad, 1.0, 2.0), vector(refgrad, 0.5, 1.0))
        part = d[:1]
        d.unsqueeze_(0)
        with pytest.raises(RuntimeError, match="another geometry in place"):
            forward.unpack_dual(part)


def test_write_of_itself() -> None:
    """torch 2.13 reads the other operand after the write: of x *= x it gives (x + x^2) t."""
    forward = refgrad.autograd.forward_ad
    with forward.dual_level():
        d = forward.make_dual(vector(refgrad, 1.0, 3.0), vector(refgrad, 1.0, 2.0))
        assert forward.unpack_dual(d.mul_(d)).tangent.tolist() == [2.0, 12.0]


def test_writes_at_two_levels() -> None:
    def code(m: Any) -> Any:
        def f(x: Any) -> Any:
            y = x.clone()
            y[1:].mul_(y[:-1].exp())
            y[0] = y[1] * x[2]
            return y.sin_()

        x, s, t = vector(m, 0.3, -0.2, 0.5), vector(m, 1.0, 2.0, -1.0), vector(m, 0.5, 0.0, 1.0)
        return m.func.jvp(lambda x: m.func.jvp(f, (x,), (s,)), (x,), (t,))

    both(code)


def test_user_tangent_is_not_written() -> None:
    forward = refgrad.autograd.forward_ad
    t = vector(refgrad, 1.0, 2.0)
    with forward.dual_level():
        forward.make_dual(vector(refgrad, 1.0, 1.0), t).mul_(5)
    assert t.tolist() == [1.0, 2.0]


# --- with reverse mode ---------------------------------------------------------------------------


def test_forward_over_reverse() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        x = vector(m, 0.3, 0.7).requires_grad_()
        with forward.dual_level():
            d = forward.make_dual(x, vector(m, 1.0, -2.0))
            (g,) = m.autograd.grad((d.exp() * d.sin()).prod(), d)
            (h,) = m.autograd.grad(d.logsumexp(0), d, create_graph=True)
            return unpacked(m, g, h), g.requires_grad

    both(code)


def test_reverse_over_forward() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        x, t = vector(m, 0.3, 0.7).requires_grad_(), vector(m, 1.0, -2.0).requires_grad_()
        with forward.dual_level():
            d = forward.make_dual(x, t)
            y = forward.unpack_dual(m.sigmoid(d * d).cumprod(0)).tangent
        (y[0] * 3).backward()
        return [x.grad, t.grad, y]

    both(code)


def test_backward_in_a_level() -> None:
    def code(m: Any) -> Any:
        forward = m.autograd.forward_ad
        x = vector(m, 0.3, 0.7).requires_grad_()
        with forward.dual_level():
            d = forward.make_dual(x, vector(m, 1.0, -2.0))
            d.cos().prod().backward()
            return unpacked(m, x.grad)

    both(code)


# --- nested forward mode, also where PyTorch 2.13 is wrong ---------------------------------------


def along(f: Any, x: Any, *directions: Any) -> Any:
    """The derivative of `f` along several directions, by nested jvps."""
    if not directions:
        return f(x)
    *others, t = directions
    return refgrad.func.jvp(lambda x: along(f, x, *others), (x,), (t,))[1]


def numerically(f: Any, x: np.ndarray, *directions: np.ndarray, h: float = 1e-2) -> Any:
    """The same by central differences of eighth order."""
    if not directions:
        return f(refgrad.from_numpy(x)).numpy()
    *others, t = directions
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}

    def at(k: int) -> Any:
        return numerically(f, x + k * h * t, *others, h=h)

    return sum(w / h * (at(k) - at(-k)) for k, w in weights.items())


RNG = np.random.default_rng(0)
SQUARE = np.diag([4.0, 2.5, 1.5]) + 0.3 * RNG.standard_normal((3, 3))
SINGULAR = SQUARE.copy()
SINGULAR[:, 2] = SINGULAR[:, 0] + SINGULAR[:, 1]
ZEROS = np.array([0.7, 0.0, 1.3, 0.0, -0.4])

NESTED = {
    "det": (refgrad.linalg.det, SQUARE),  # torch: #196696
    "det of a singular matrix": (refgrad.linalg.det, SINGULAR),
    "slogdet": (lambda A: refgrad.linalg.slogdet(A)[1], SQUARE),
    "layer_norm": (  # torch: #196700
        lambda x: refgrad.nn.functional.layer_norm(x, (3,), eps=1e-5), SQUARE),
    "group_norm": (lambda x: refgrad.nn.functional.group_norm(x[None, :, :], 1), SQUARE),
    "householder_product": (  # torch: #196698
        lambda A: refgrad.linalg.householder_product(A, A.diagonal() * 0.5 + 1), SQUARE),
    "cumprod at zeros": (lambda x: refgrad.cumprod(x, 0), ZEROS),  # torch: #196701
    "prod at zeros": (lambda x: refgrad.prod(x, 0), ZEROS),
    "logcumsumexp": (lambda x: refgrad.logcumsumexp(x, 0), ZEROS),
    "softmax": (lambda x: refgrad.softmax(x, 0), ZEROS),
    "inv": (refgrad.linalg.inv, SQUARE),
    "eigh": (lambda A: refgrad.linalg.eigh(A + A.mT)[0], SQUARE),
    "svdvals": (refgrad.linalg.svdvals, SQUARE),
    "qr": (lambda A: refgrad.linalg.qr(A)[1], SQUARE),
    "cholesky": (lambda A: refgrad.linalg.cholesky(A @ A.mT + 2 * refgrad.eye(3)), SQUARE),
    "matrix_exp": (refgrad.linalg.matrix_exp, SQUARE * 0.5),
    "conv1d": (
        lambda x: refgrad.nn.functional.conv1d(x[None], x[:, None, :2].expand(3, 3, 2)), SQUARE),
    "split": (lambda x: x.split(2)[0].exp() * x.split(2)[1].sum(), SQUARE),
    "mish": (refgrad.nn.functional.mish, SQUARE),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_nested(name: str, order: int) -> None:
    f, x = NESTED[name]
    directions = [0.3 * RNG.standard_normal(x.shape) for _ in range(order)]
    ours = along(f, refgrad.tensor(x), *(refgrad.tensor(t) for t in directions)).numpy()
    steps = {1: 1e-2, 2: 2e-2, 3: 3e-2}
    theirs = numerically(f, x, *directions, h=steps[order])
    scale = max(1.0, np.abs(theirs).max())
    bound = {1: 1e-9, 2: 1e-7, 3: 2e-5}[order]
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=bound)


def test_logcumsumexp() -> None:
    """torch's tangent is a cumulative sum of exponentials, which cancels where values differ."""
    x, t = [9.0, -9.0, 3.0, -30.0], [0.5, -1.0, 2.0, 1.0]
    ours = along(lambda x: refgrad.logcumsumexp(x, 0), vector(refgrad, *x), vector(refgrad, *t))
    with mpmath.workdps(40):
        weights = [mpmath.exp(a) for a in x]
        exact = [mpmath.fdot(weights[:k], t[:k]) / mpmath.fsum(weights[:k]) for k in range(1, 5)]
    np.testing.assert_allclose(ours.numpy(), [float(v) for v in exact], rtol=1e-14)


def test_third_derivative_of_a_power() -> None:
    one = refgrad.tensor(1.0, dtype=refgrad.float64)
    assert along(lambda x: x**3, one * 2, one, one, one).item() == 6.0
    assert along(lambda x: x**3, one * 2, one, one, one, one).item() == 0.0


# --- users' Functions ----------------------------------------------------------------------------


def functions(m: Any) -> Any:
    class Product(m.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any, n: int) -> Any:
            ctx.save_for_forward(x, y)
            ctx.n = n
            return x * y * n

        @staticmethod
        def jvp(ctx: Any, x_t: Any, y_t: Any, n_t: Any) -> Any:
            assert n_t is None
            x, y = ctx.saved_tensors
            return ctx.n * (x_t * y + x * y_t)

    return Product


def test_function() -> None:
    def code(m: Any) -> Any:
        product, x, y = functions(m), vector(m, 0.3, 0.7), vector(m, 2.0, 3.0)
        forward = m.autograd.forward_ad
        with forward.dual_level():
            d = forward.make_dual(x, vector(m, 1.0, -1.0))
            made = product.apply(d, y, 3), product.apply(d, d, 2), product.apply(y, y, 2)
            return unpacked(m, *made)

    both(code)


def test_function_nested() -> None:
    product, x = functions(refgrad), vector(refgrad, 0.3, 0.7)
    one = vector(refgrad, 1.0, 1.0)
    assert along(lambda x: product.apply(x, x.exp(), 1), x, one, one).numpy() == pytest.approx(
        ((x + 2) * x.exp()).numpy()
    )


@pytest.mark.parametrize(
    ("result", "match"),
    [
        (lambda x_t: (x_t, x_t), "invalid number of forward gradients"),
        (lambda x_t: x_t[:1], "different size"),
        (lambda x_t: 3.0, "expected Variable or None"),
    ],
)
def test_function_errors(result: Any, match: str) -> None:
    def code(m: Any) -> Any:
        class Wrong(m.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def jvp(ctx: Any, x_t: Any) -> Any:
                return result(x_t)

        forward, x = m.autograd.forward_ad, vector(m, 1.0, 2.0)
        with forward.dual_level():
            return Wrong.apply(forward.make_dual(x, x))

    both_raise(code, match=match)


def test_function_without_jvp() -> None:
    def code(m: Any) -> Any:
        class Plain(m.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

        forward, x = m.autograd.forward_ad, vector(m, 1.0, 2.0)
        with forward.dual_level():
            return Plain.apply(forward.make_dual(x, x))

    both_raise(code, match="You must implement the jvp function")
