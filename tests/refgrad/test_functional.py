"""torch.autograd.functional, held to torch's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.refgrad.both import both, both_raise

NAMES = ("jacobian", "hessian", "vjp", "jvp", "hvp", "vhp")
SCALAR = ("hessian", "hvp", "vhp")


def vector(m: Any, *values: float) -> Any:
    return m.tensor(values or (0.3, -0.7, 1.1), dtype=m.float64)


def scalar(x: Any, y: Any = None) -> Any:
    return (x.exp() * x.roll(1, 0)).sum() + (0 if y is None else (x[:2] * y**3).sum())


def several(x: Any, y: Any) -> Any:
    return x.sin() * y.sum(), y.prod() * x.sum()


def one(x: Any) -> Any:
    return x.sin() * x.sum()


def vectors(m: Any, name: str, shape: str) -> list[Any]:
    """What `name` takes as v after a function of one or two inputs."""
    x, y = vector(m, 1.0, -2.0, 0.5), vector(m, 0.4, 1.5)
    if name in ("jacobian", "hessian"):
        return []
    if name == "vjp":
        return [x] if shape == "one" else [(x, m.tensor(2.0, dtype=m.float64))]
    return [x] if shape == "one" else [(x, y)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", ["one", "two"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_values(name: str, shape: str, create_graph: bool) -> None:
    def code(m: Any) -> Any:
        x, y = vector(m).requires_grad_(create_graph), vector(m, 2.0, -0.5)
        function = scalar if name in SCALAR else one if shape == "one" else several
        given = x if shape == "one" else (x, y)
        made = getattr(m.autograd.functional, name)(
            function, given, *vectors(m, name, shape), create_graph=create_graph
        )
        flat = leaves(made)
        flags = [t.requires_grad for t in flat]
        if create_graph:
            sum((t * t).sum() for t in flat).backward()
        return [made, flags, x.grad]

    both(code)


def leaves(tree: Any) -> list[Any]:
    return [t for e in tree for t in leaves(e)] if isinstance(tree, tuple) else [tree]


def test_strategies() -> None:
    def code(m: Any) -> Any:
        f, x, y = m.autograd.functional, vector(m), vector(m, 2.0, -0.5)
        return [
            f.jacobian(one, x, vectorize=True),
            f.jacobian(several, (x, y), vectorize=True),
            f.jacobian(one, x, vectorize=True, strategy="forward-mode"),
            f.jacobian(several, (x, y), vectorize=True, strategy="forward-mode"),
            f.hessian(scalar, x, vectorize=True),
            f.hessian(scalar, (x, y), vectorize=True, outer_jacobian_strategy="forward-mode"),
        ]

    both(code)


def test_without_v() -> None:
    def code(m: Any) -> Any:
        f, x = m.autograd.functional, vector(m, 0.7)
        return [
            f.vjp(lambda x: x.exp(), x), f.jvp(lambda x: x * vector(m), x),
            f.hvp(lambda x: x**3, x), f.vhp(lambda x: x**3, x),
        ]  # fmt: skip

    both(code)


def test_independent_inputs_give_zeros() -> None:
    def code(m: Any) -> Any:
        f, x, y = m.autograd.functional, vector(m), vector(m, 2.0, -0.5)
        one = vector(m, 1.0, 1.0, 1.0)
        return [
            f.jacobian(lambda x, y: x * 2, (x, y)), f.jacobian(lambda x: vector(m, 1.0), x),
            f.hessian(lambda x, y: x.sum() * 3, (x, y)), f.hvp(lambda x: x.sum(), x, one),
            f.vhp(lambda x: x.sum(), x, one), f.jvp(lambda x: vector(m, 2.0), x, one),
            f.vjp(lambda x: vector(m, 2.0), x),
        ]  # fmt: skip

    both(code)


def test_capture_is_a_constant() -> None:
    def code(m: Any) -> Any:
        x = vector(m).requires_grad_()
        return m.autograd.functional.jacobian(lambda y: x * y, x)

    both(code)


def test_without_grad_mode() -> None:
    def code(m: Any) -> Any:
        with m.no_grad():
            f, x = m.autograd.functional, vector(m)
            return [f.jacobian(one, x), f.hessian(scalar, x), f.hvp(scalar, x, x)]

    both(code)


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (lambda f, x: f.jacobian(one, 3.0), "must be either a Tensor or a tuple of Tensors"),
        (lambda f, x: f.jacobian(one, (x, 3.0)), "the value at index 1 has type"),
        (lambda f, x: f.vjp(lambda x: 3.0, x), "outputs of the user-provided function"),
        (lambda f, x: f.vjp(one, x), "The vector v can only be None"),
        (lambda f, x: f.jvp(one, x), "The vector v can only be None"),
        (lambda f, x: f.vjp(one, x, x[:1]), "v has invalid size"),
        (lambda f, x: f.vjp(one, x, (x, x)), "The given v should contain a single Tensor"),
        (lambda f, x: f.jvp(several, (x, x), x), "v is a tuple of invalid length"),
        (lambda f, x: f.hvp(scalar, (x, x[:2]), (x, x)), "Entry 1 in v has invalid size"),
        (lambda f, x: f.hessian(one, x), "should contain a single element"),
        (lambda f, x: f.hvp(lambda x: (x.sum(), x.sum()), x, x), "should return a single Tensor"),
        (lambda f, x: f.vhp(one, x, x), "should contain a single element"),
        (lambda f, x: f.jacobian(one, x, strategy="other"), "Expected strategy to be either"),
        (lambda f, x: f.jacobian(one, x, strategy="forward-mode"), "only implemented for"),
        (
            lambda f, x: f.jacobian(one, x, True, strategy="forward-mode"),
            '`create_graph=True` and `strategy="forward-mode"`',
        ),
        (
            lambda f, x: f.jacobian(one, x, strict=True, strategy="forward-mode"),
            '`strict=True` and `strategy="forward-mode"`',
        ),
        (lambda f, x: f.jacobian(one, x, strict=True, vectorize=True), "not supported together"),
        (lambda f, x: f.jacobian(lambda y: x * 2, x, strict=True), "does not require gradients"),
        (
            lambda f, x: f.jacobian(lambda x, y: x * 2, (x, x), strict=True),
            "Output 0 of the user-provided function is independent of input 1",
        ),
        (
            lambda f, x: f.jacobian(lambda x: x * 2, x.requires_grad_(), True, strict=True),
            "The jacobian of the user-provided function is independent of input 0",
        ),
        (
            lambda f, x: f.vjp(lambda x, y: x * 2, (x, x), x, strict=True),
            "independent of input 1. This is not allowed in strict mode",
        ),
        (
            lambda f, x: f.jvp(lambda x, y: x * 2, (x, x), (x, x), strict=True),
            "independent of input 1. This is not allowed in strict mode",
        ),
        (
            lambda f, x: f.hessian(lambda x: x.sum(), x, strict=True),
            "jacobian of the user-provided function with respect to input 0 is independent",
        ),
        (
            lambda f, x: f.vhp(lambda x: x.sum(), x, x, strict=True),
            "jacobian of the user-provided function with respect to input 0 is independent",
        ),
        (
            lambda f, x: f.hvp(lambda x: x.sum(), x, x, strict=True),
            "jacobian of the user-provided function with respect to input 0 is independent",
        ),
    ],
)
def test_errors(code: Any, match: str) -> None:
    both_raise(lambda m: code(m.autograd.functional, vector(m)), match=match)
