"""torch.func: the transforms, and their compositions."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.both import both, both_raise

X, Y, T = [0.3, -0.7, 1.1], [1.5, 0.4, -0.2], [1.0, -2.0, 0.5]


def vector(m: Any, values: Any = X) -> Any:
    return m.tensor(values, dtype=m.float64)


class Pair(NamedTuple):
    """Two of anything."""

    first: Any
    second: Any


def tree(m: Any, inputs: Any) -> Any:
    """A function of a tree that gives a tree."""
    a, (b, rest) = inputs["a"], inputs["more"]
    return {"sum": (a * b).sum(), "list": [a.exp() + rest, (b.sin(), rest * 2)]}


def inputs(m: Any) -> Any:
    return {"a": vector(m), "more": (vector(m, Y), [vector(m, T)][0])}


# --- grad ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (1, 0), (0, -1)])
def test_grad(argnums: Any) -> None:
    def code(m: Any) -> Any:
        def f(x: Any, y: Any, *, power: int = 2) -> Any:
            return (x**power * y.sin()).sum()

        x, y = vector(m), vector(m, Y)
        return [
            m.func.grad(f, argnums=argnums)(x, y),
            m.func.grad(f, argnums)(x, y, power=3),
            m.func.grad_and_value(f, argnums)(x, y),
        ]

    both(code)


def test_grad_of_a_tree() -> None:
    def code(m: Any) -> Any:
        def f(p: Any, n: Any) -> Any:
            return (p["a"] * p["b"][0] * n).sum() + p["b"][1].exp().sum()

        p = {"a": vector(m), "b": [vector(m, Y), vector(m, T)]}
        return m.func.grad(f)(p, 3.0)

    both(code)


def test_aux() -> None:
    def code(m: Any) -> Any:
        def f(x: Any) -> Any:
            y = x.exp()
            return y.sum(), {"y": y, "twice": (2 * x,)}

        x = vector(m)
        g, aux = m.func.grad(f, has_aux=True)(x)
        made = [
            g, aux, m.func.grad_and_value(f, has_aux=True)(x),
            m.func.jvp(f, (x,), (vector(m, T),), has_aux=True),
            m.func.jacrev(f, has_aux=True)(x), m.func.jacfwd(f, has_aux=True)(x),
        ]  # fmt: skip
        out, pull, more = m.func.vjp(f, x, has_aux=True)
        return [*made, out, more, pull(m.ones_like(out)), g.requires_grad, aux["y"].requires_grad]

    both(code)


def test_results_have_no_graph_unless_something_outside_has() -> None:
    def code(m: Any) -> Any:
        w = vector(m, Y).requires_grad_()
        x = vector(m)

        def free(x: Any) -> Any:
            return (x.sin() * x).sum()

        def bound(x: Any) -> Any:
            return (x.sin() * w).sum()

        flags = [
            t.requires_grad
            for f in (free, bound)
            for t in (
                *m.func.grad_and_value(f)(x), *m.func.grad_and_value(f)(w),
                *m.func.jvp(f, (x,), (x,)), *m.func.vjp(f, x)[1](m.ones(()).double()),
                m.func.hessian(f)(x),
            )
        ]  # fmt: skip
        m.func.grad(bound)(x).sum().backward()
        with m.no_grad():
            flags += [t.requires_grad for t in m.func.grad_and_value(bound)(w)]
            flags.append(m.func.grad(m.func.grad(lambda v: w[0] * v**3))(w[1]).requires_grad)
        return [flags, w.grad]

    both(code)


def test_grad_modes() -> None:
    def code(m: Any) -> Any:
        def f(x: Any) -> Any:
            with m.no_grad():
                c = x**2
            return (x * c).sum()

        x = vector(m)
        with m.no_grad():
            outside = m.func.grad(lambda x: (x**3).sum())(x)
        return [m.func.grad(f)(x), outside]

    both(code)


def test_perturbations_are_kept_apart() -> None:
    def code(m: Any) -> Any:
        g, one = m.func.grad, m.tensor(1.0, dtype=m.float64)

        def d(f: Any) -> Any:
            return lambda x: m.func.jvp(f, (x,), (m.ones_like(x),))[1]

        def sums(a: Any, b: Any) -> Any:
            return a(lambda x: x * b(lambda y: x + y)(one))(one * 2)

        def products(a: Any, b: Any) -> Any:
            return a(lambda x: x * b(lambda y: x * y * y)(x))(one * 2)

        def three(a: Any, b: Any, c: Any) -> Any:
            return a(lambda x: x * b(lambda y: y * c(lambda z: x * y * z * z)(y))(x))(one * 2)

        pairs = list(itertools.product((g, d), repeat=2))
        return [
            [sums(a, b) for a, b in pairs], [products(a, b) for a, b in pairs],
            [three(a, b, c) for a, b, c in itertools.product((g, d), repeat=3)],
        ]  # fmt: skip

    both(code)


def test_captured_input_is_a_constant() -> None:
    def code(m: Any) -> Any:
        x = vector(m)
        w = vector(m).requires_grad_()
        return [
            m.func.grad(lambda y: (x * y).sum())(x),
            m.func.grad(lambda y: (w * y).sum())(w),
            m.func.jvp(lambda y: x * y, (x,), (x,)),
        ]

    both(code)


# --- vjp and jvp ---------------------------------------------------------------------------------


def test_vjp_of_trees() -> None:
    def code(m: Any) -> Any:
        out, pull = m.func.vjp(lambda p: tree(m, p), inputs(m))
        ones = {"sum": m.ones(()).double(), "list": [vector(m, T), (vector(m, Y), vector(m))]}
        return [out, pull(ones), pull(ones)]

    both(code)


def test_jvp_of_trees() -> None:
    def code(m: Any) -> Any:
        given = inputs(m)
        tangents = {"a": vector(m, T), "more": (vector(m), vector(m, Y))}
        return m.func.jvp(lambda p: tree(m, p), (given,), (tangents,))

    both(code)


def test_named_tuples() -> None:
    def code(m: Any) -> Any:
        def f(p: Any) -> Any:
            return Pair(p.first * p.second, p.second.sum())

        p = Pair(vector(m), vector(m, Y))
        made, tangent = m.func.jvp(f, (p,), (Pair(vector(m, T), vector(m)),))
        assert type(made) is type(tangent) is Pair
        return [list(made), list(tangent), list(m.func.grad(lambda p: f(p).second)(p))]

    both(code)


def test_complex() -> None:
    def code(m: Any) -> Any:
        z = m.complex(vector(m), vector(m, Y))
        t = m.complex(vector(m, T), vector(m))
        return [
            m.func.jvp(lambda z: (z.abs(), z.conj() * z * z, z.angle(), z.real), (z,), (t,)),
            m.func.grad(lambda z: (z * z.conj()).real.sum())(z),
            m.func.vjp(lambda z: z**3, z)[1](t),
        ]

    both(code)


def test_integers_have_no_tangent() -> None:
    def code(m: Any) -> Any:
        x = vector(m)
        return m.func.jvp(lambda x: (x > 0, x.argmax(), x.topk(2)), (x,), (x,))

    both(lambda m: [list(map(str, code(m)[1][:1])), code(m)[1][2][0]])


# --- Jacobians -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("argnums", [0, 1, (0,), (0, 1)])
def test_jacobians(transform: str, argnums: Any) -> None:
    def code(m: Any) -> Any:
        def f(x: Any, y: Any) -> Any:
            return {"outer": m.outer(x, y[:2]).sin(), "rest": (x.prod() * y, x.sum())}

        return getattr(m.func, transform)(f, argnums)(vector(m), vector(m, Y))

    both(code)


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
def test_jacobians_of_trees(transform: str) -> None:
    both(lambda m: getattr(m.func, transform)(lambda p: tree(m, p))(inputs(m)))


@pytest.mark.parametrize("route", list(itertools.product(["jacrev", "jacfwd"], repeat=2)))
def test_hessian_by_each_route(route: tuple[str, str]) -> None:
    def code(m: Any) -> Any:
        def f(x: Any, y: Any) -> Any:
            return (x.exp() * m.softmax(y * x, 0)).sum() + x.prod() * y.norm()

        outer, inner = (getattr(m.func, name) for name in route)
        x, y = vector(m), vector(m, Y)
        return [
            outer(inner(f))(x, y), outer(inner(f, 0), 1)(x, y),
            outer(inner(f, (0, 1)), (0, 1))(x, y),
            m.func.hessian(f, (0, 1))(x, y),
        ]  # fmt: skip

    both(code)


def test_third_order() -> None:
    def f(x: Any) -> Any:
        return (x.sin() * x.sum()).prod()

    r, x = refgrad.func, vector(refgrad)
    made = [a(b(c(f)))(x).numpy() for a, b, c in itertools.product((r.jacrev, r.jacfwd), repeat=3)]
    theirs = torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(f)))(vector(torch)).numpy()
    for one in made:
        np.testing.assert_allclose(one, theirs, rtol=1e-12, atol=1e-12)


def test_transforms_of_every_kind_within_each_other() -> None:
    def code(m: Any) -> Any:
        f = m.func
        x, t = vector(m), vector(m, T)

        def inner(x: Any) -> Any:
            return (x.tanh() * x.roll(1, 0)).sum()

        def hvp(x: Any) -> Any:
            return f.jvp(f.grad(inner), (x,), (t,))[1]

        def pulled(x: Any) -> Any:
            out, pull = f.vjp(lambda y: y.cumsum(0) * x, x * 2)
            return pull(out)[0].sum() + f.jvp(lambda y: y * out, (x,), (t,))[1].prod()

        return [
            hvp(x), f.grad(lambda x: hvp(x).sum())(x), f.jacfwd(hvp)(x), f.jacrev(hvp)(x),
            f.grad(pulled)(x), f.hessian(pulled)(x),
            f.jvp(lambda x: f.vjp(inner, x)[1](m.ones(()).double())[0], (x,), (t,)),
            f.grad(lambda x: f.jacfwd(lambda y: x * y.exp())(x).sum())(x),
        ]  # fmt: skip

    both(code)


def test_with_autograd() -> None:
    def code(m: Any) -> Any:
        x = vector(m).requires_grad_()
        g = m.func.grad(lambda y: (y**3).sum())(x)
        (h,) = m.autograd.grad(g.sum(), x)
        _, t = m.func.jvp(lambda y: y.exp() * x, (x,), (x * 2,))
        t.sum().backward()
        return [g, h, x.grad]

    both(code)


def test_linearize() -> None:
    def code(m: Any) -> Any:
        out, push = m.func.linearize(lambda x, y: (x.sin() * y, x.sum()), vector(m), vector(m, Y))
        return [out, push(vector(m, T), vector(m)), push(vector(m), vector(m, T))]

    both(code)


# --- vmap ----------------------------------------------------------------------------------------


def test_vmap() -> None:
    def code(m: Any) -> Any:
        v = m.func.vmap
        a, b = m.arange(6.0).reshape(2, 3).double(), m.arange(6.0).reshape(3, 2).double()
        return [
            v(lambda x, y: (x * y).sum())(a, a),
            v(lambda x, y: x * y, in_dims=(0, 1))(a, b),
            v(lambda x, y: x * y, in_dims=(0, None), out_dims=1)(a, a[0]),
            v(lambda x: (x, {"s": x.sum()}), in_dims=1, out_dims=(1, {"s": 0}))(a),
            v(v(lambda x, y: x + y, in_dims=(0, None)), in_dims=(None, 0))(a[0], b[:, 0]),
            v(lambda p, n: p["a"] * n, in_dims=({"a": -1}, None))({"a": a}, 3.0),
            v(m.func.grad(lambda x: x.prod()))(a + 1),
            m.func.grad(lambda a: v(m.dot)(a, a).sum())(a),
            m.vmap(m.func.hessian(lambda x: x.prod()))(a + 1),
        ]  # fmt: skip

    both(code)


@pytest.mark.parametrize(
    "code",
    [
        lambda m, v, x: v(lambda x, y: x, in_dims=(None, None))(x, x),
        lambda m, v, x: v(lambda x, y: x)(x, x[:2]),
        lambda m, v, x: v(lambda x: x, in_dims=1)(x),
        lambda m, v, x: v(lambda x: x, in_dims="a")(x),
        lambda m, v, x: v(lambda x: x)(3.0),
        lambda m, v, x: v(lambda: x)(),
        lambda m, v, x: v(lambda x: 3.0)(x),
        lambda m, v, x: v(lambda x: x, out_dims=(0, 0))(x),
        lambda m, v, x: v(lambda x: x, randomness="none")(x),
    ],
)
def test_vmap_errors(code: Any) -> None:
    both_raise(lambda m: code(m, m.func.vmap, vector(m)), match="(?i)vmap|randomness")


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (lambda f, x: f.grad(lambda x: x)(x), "scalar Tensor, got tensor with 1 dims"),
        (lambda f, x: f.grad(lambda x: 3.0)(x), "to return a Tensor, got"),
        (lambda f, x: f.grad(lambda x: x.sum(), argnums=1)(x), "only 1 positional inputs"),
        (lambda f, x: f.grad(lambda x: x.sum(), argnums="a")(x), "argnums must be int or Tuple"),
        (lambda f, x: f.grad(lambda x, y: x, argnums=(0, 0))(x, x), "must be unique"),
        (lambda f, x: f.grad(lambda x: x.sum(), argnums=())(x), "must be non-empty"),
        (lambda f, x: f.grad(lambda x: x["a"])({"a": 3.0}), "must be Tensor"),
        (lambda f, x: f.grad(lambda x: x.sum(), has_aux=True)(x), "should be a tuple"),
        (lambda f, x: f.grad(lambda x: x.sum())(x.long()), "floating point"),
        (lambda f, x: f.grad(lambda x: x.sin_().sum())(x), "a leaf Variable that requires grad"),
        (lambda f, x: f.vjp(lambda x: x > 0, x), "must be floating-point or complex"),
        (lambda f, x: f.vjp(lambda x: None, x), "non-empty output"),
        (lambda f, x: f.vjp(lambda x: x, x)[1]((x, x)), "Expected pytree structure"),
        (lambda f, x: f.vjp(lambda x: x, x)[1](x[:1]), "Mismatch in shape"),
        (lambda f, x: f.jvp(lambda x: x, x, x), "Expected primals to be a tuple"),
        (lambda f, x: f.jvp(lambda x: x, (x,), (x, x)), "same python structure"),
        (lambda f, x: f.jvp(lambda x: x, (x,), (x[:1],)), "different size"),
        (lambda f, x: f.jvp(lambda x: x, (1.0,), (x,)), "only contain Tensors"),
        (lambda f, x: f.jvp(lambda x: x, (), ()), "at least one Tensor"),
        (lambda f, x: f.jvp(lambda x: 1.0, (x,), (x,)), "only tensors"),
        (lambda f, x: f.jvp(lambda y: x, (x,), (x,), strict=True), "independent of the inputs"),
        (lambda f, x: f.jacrev(lambda x: x, chunk_size=0), "should be greater than 0"),
        (lambda f, x: f.jacrev(lambda x: x * 1j)(x), "outputs to be real"),
        (lambda f, x: f.jacfwd(lambda x: x.real)(x * 1j), "inputs to be real"),
    ],
)
def test_errors(code: Any, match: str) -> None:
    both_raise(lambda m: code(m.func, vector(m)), match=match)


def test_an_error_closes_the_level() -> None:
    with pytest.raises(ZeroDivisionError):
        refgrad.func.jvp(lambda x: x / (1 // 0), (vector(refgrad),), (vector(refgrad),))
    assert refgrad.levels.Levels.open == 0
    assert refgrad.levels.levels.visible == ()


def test_levels_are_separate_from_dual_level() -> None:
    """torch refuses func.jvp within dual_level; here it is one more level."""
    forward, x = refgrad.autograd.forward_ad, vector(refgrad)
    with forward.dual_level():
        d = forward.make_dual(x, refgrad.ones_like(x))
        _, t = refgrad.func.jvp(lambda y: y**3, (d,), (refgrad.ones_like(x),))
        second = forward.unpack_dual(t).tangent
    np.testing.assert_allclose(second.numpy(), 6 * np.array(X))
