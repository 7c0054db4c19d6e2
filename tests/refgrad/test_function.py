"""autograd.Function, held to PyTorch's: the same Functions, results and errors."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import refgrad
from refgrad.autograd.function import once_differentiable as ours
from tests.refgrad.both import both, both_raise


def leaf(t: Any, *values: Any) -> Any:
    dtype = t.complex128 if any(isinstance(v, complex) for v in values) else t.float64
    return t.tensor(values, dtype=dtype, requires_grad=True)


def function(
    t: Any,
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    **methods: Callable[..., Any],
) -> Any:
    """A Function of the module `t` from its static methods."""
    methods["forward"] = forward
    if backward is not None:
        methods["backward"] = backward
    return type("Mine", (t.autograd.Function,), {k: staticmethod(f) for k, f in methods.items()})


def cube(t: Any) -> Any:
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    return function(t, forward, lambda ctx, g: 3 * ctx.saved_tensors[0] ** 2 * g)


def exponential(t: Any) -> Any:
    """exp, with its output saved."""

    def forward(ctx: Any, x: Any) -> Any:
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    return function(t, forward, lambda ctx, g: ctx.saved_tensors[0] * g)


def pair(t: Any, seen: list[Any], materialize: bool = True) -> Any:
    """2x and 3x."""

    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(materialize)
        return x * 2, x * 3

    def backward(ctx: Any, g: Any, h: Any) -> Any:
        seen.append((g, h))
        return (0 if g is None else 2 * g) + (0 if h is None else 3 * h)

    return function(t, forward, backward)


def doubling(t: Any, mark: bool = True) -> Any:
    """2x, in place."""

    def forward(ctx: Any, x: Any) -> Any:
        x.mul_(2)
        if mark:
            ctx.mark_dirty(x)
        return x

    return function(t, forward, lambda ctx, g: 2 * g)


def once(t: Any) -> Any:
    if t is refgrad:
        return ours
    from torch.autograd.function import once_differentiable

    return once_differentiable


class TestGradients:
    @pytest.mark.parametrize("make", [cube, exponential])
    def test_any_order(self, make: Any) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.3, -0.7)
            y, found = make(t).apply(x * 2), []
            for _ in range(4):
                (g,) = t.autograd.grad(y.sum(), x, create_graph=True)
                found.append(g)
                y = g * x.sin()
            return found

        both(code)

    def test_several_arguments_and_needs_input_grad(self) -> None:
        def code(t: Any) -> Any:
            needed = []

            def forward(ctx: Any, x: Any, y: Any, k: Any, name: Any) -> Any:
                needed.append(ctx.needs_input_grad)
                ctx.save_for_backward(x, None, y)
                ctx.k = k
                return x * y * k

            def backward(ctx: Any, g: Any) -> Any:
                x, nothing, y = ctx.saved_tensors
                needed.append(nothing)
                return g * y * ctx.k, g * x * ctx.k, None, None

            f = function(t, forward, backward)
            x, y = leaf(t, 1.0, 2.0), leaf(t, 3.0, 4.0)
            f.apply(x, y, 5.0, "name").sum().backward()
            f.apply(x, x, 5.0, None).sum().backward()
            f.apply(x, y.detach(), 5.0, None).sum().backward()
            with t.no_grad():
                out = f.apply(x, y, 5.0, None)
            return needed, x.grad, y.grad, out.requires_grad

        both(code)

    @pytest.mark.parametrize("materialize", [True, False])
    def test_an_output_without_gradient(self, materialize: bool) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 1.0)
            _, b = pair(t, seen, materialize).apply(x)
            b.backward()
            return seen, x.grad

        both(code)

    def test_outputs_that_are_no_tensors_or_not_differentiable(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []

            def forward(ctx: Any, x: Any) -> Any:
                masked = x * 2
                ctx.mark_non_differentiable(masked)
                return x * 3, masked, x.argmax(), "text", None

            f = function(t, forward, lambda ctx, *g: (seen.append(g), g[0] * 3)[1])
            x = leaf(t, 1.0, 2.0)
            a, b, c, *rest = f.apply(x)
            a.sum().backward()
            return x.grad, [o.requires_grad for o in (a, b, c)], rest, seen

        both(code)

    def test_a_gradient_that_is_none(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0), leaf(t, 2.0)
            f = function(t, lambda ctx, x, y: x * y, lambda ctx, g: (None, g))
            f.apply(x * 2, y).backward()
            return x.grad is None, y.grad

        both(code)

    @pytest.mark.parametrize("order", [1, 2])
    def test_complex_gradients_are_pytorchs(self, order: int) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []

            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return x * x * 1j

            def backward(ctx: Any, g: Any) -> Any:
                seen.append(g.detach())
                (x,) = ctx.saved_tensors
                return g * (2j * x).conj()

            x = leaf(t, 1.0 + 2.0j, -0.5j)
            y = function(t, forward, backward).apply(x)
            cotangent = t.tensor([2 + 3j, 1 - 1j], dtype=t.complex128)
            (g,) = t.autograd.grad(y, x, cotangent, create_graph=order == 2)
            if order == 2:
                (g,) = t.autograd.grad(g, x, cotangent)
            return g, seen

        both(code)

    def test_gradients_are_brought_to_the_inputs_shape_and_dtype(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0, 2.0), leaf(t, 1.0)
            f = function(
                t,
                lambda ctx, x, y: x.sum() + y,
                lambda ctx, g: (t.ones(3, 2), t.ones(1, dtype=t.int64), None),
            )
            f.apply(x, y).backward()
            return x.grad, y.grad

        both(code)

    def test_a_graph_of_its_own_inside(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, x: Any) -> Any:
                with t.enable_grad():
                    ctx.x = x.detach().requires_grad_()
                    ctx.y = ctx.x.sin() ** 2
                return ctx.y.detach()

            def backward(ctx: Any, g: Any) -> Any:
                return t.autograd.grad(ctx.y, ctx.x, g)

            x = leaf(t, 0.3)
            function(t, forward, backward).apply(x).backward()
            return x.grad

        both(code)

    def test_a_second_backward(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.3)
            y = function(t, lambda ctx, x: x * 2, lambda ctx, g: g * 2).apply(x)
            y.backward()
            y.backward()  # nothing was saved, so nothing was freed
            z = cube(t).apply(x)
            z.backward(retain_graph=True)
            z.backward()
            return x.grad

        both(code)

    def test_a_straight_through_estimator(self) -> None:
        def code(t: Any) -> Any:
            f = function(t, lambda ctx, x: x.round(), lambda ctx, g: g)
            x = leaf(t, 0.3, 1.7)
            (f.apply(x) * x).sum().backward()
            return x.grad

        both(code)


class TestSetupContext:
    def test_forward_without_ctx(self) -> None:
        def code(t: Any) -> Any:
            given = []

            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                given.append((inputs, output.requires_grad))
                x, ctx.k = inputs
                ctx.save_for_backward(x, output)

            def backward(ctx: Any, g: Any) -> Any:
                x, y = ctx.saved_tensors
                return g * ctx.k * y / x, None

            f = function(t, lambda x, k=2: x**k, backward, setup_context=setup_context)
            x = leaf(t, 1.5)
            (g,) = t.autograd.grad(f.apply(x) + f.apply(x, k=3), x, create_graph=True)
            return g, t.autograd.grad(g, x), [i for i, _ in given], [r for _, r in given]

        both(code)

    def test_keywords_are_arguments_too(self) -> None:
        def code(t: Any) -> Any:
            f = function(t, lambda ctx, x, k: x * k, lambda ctx, g: (g, g * 2))
            x, k = leaf(t, 1.0), leaf(t, 3.0)
            f.apply(k=k, x=x).backward()
            return x.grad, k.grad

        both(code)

    def test_vjp_is_another_name_of_backward(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            function(t, lambda ctx, x: x * 2, vjp=lambda ctx, g: g * 2).apply(x).backward()
            return x.grad

        both(code)


class TestForwardMode:
    def product(self, t: Any, jvp: Any = None) -> Any:
        def forward(ctx: Any, x: Any, k: float, y: Any) -> Any:
            ctx.save_for_forward(x, y)
            ctx.save_for_backward(x, y)
            return x * y * k, x + y

        def tangents(ctx: Any, a: Any, k: None, b: Any) -> Any:  # ten times what is right
            x, y = ctx.saved_tensors
            return 10 * (a * y if b is None else a * y + x * b), a

        def backward(ctx: Any, g: Any, h: Any) -> Any:
            x, y = ctx.saved_tensors
            return g * y + h, None, g * x + h

        return function(t, forward, backward, jvp=jvp or tangents)

    def test_jvp_is_what_the_user_says_and_differentiable(self) -> None:
        def code(t: Any) -> Any:
            ad = t.autograd.forward_ad
            x, y = leaf(t, 2.0), leaf(t, 5.0)
            with ad.dual_level():
                made = self.product(t).apply(ad.make_dual(x, t.ones_like(x)), 3.0, y)
                (a, ta), (_, tb) = map(ad.unpack_dual, made)
                return ta, tb, t.autograd.grad(ta, y), t.autograd.grad(a, [x, y])

        both(code)

    @pytest.mark.parametrize(
        ("jvp", "match"),
        [
            (lambda ctx, *tangents: tangents, "invalid number of forward gradients"),
            (lambda ctx, a, k, b: (a.reshape(1, 1), a), "has a different size"),
        ],
    )
    def test_errors(self, jvp: Any, match: str) -> None:
        def code(t: Any) -> Any:
            ad = t.autograd.forward_ad
            with ad.dual_level():
                x = ad.make_dual(leaf(t, 2.0), leaf(t, 1.0))
                self.product(t, jvp).apply(x, 3.0, leaf(t, 5.0))

        both_raise(code, match=match)


class TestMemory:
    def test_mark_dirty(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * 1
            z = doubling(t).apply(y)
            (z * y).sum().backward()
            return z is y, y._version, y.grad_fn.name(), y, x.grad

        both(code)

    def test_mark_dirty_of_a_view(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * 1
            doubling(t).apply(y[:1])
            y.sum().backward()
            return y, x.grad

        both(code)

    def test_mark_dirty_of_a_constant(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, c: Any, x: Any) -> Any:
                c.add_(x)
                ctx.mark_dirty(c)
                return c

            c, x = t.ones(2, dtype=t.float64), leaf(t, 1.0, 2.0)
            function(t, forward, lambda ctx, g: (g, g)).apply(c, x)
            (c * c).sum().backward()
            return c, c.requires_grad, x.grad

        both(code)

    def test_an_input_returned_unchanged_is_a_view_of_it(self) -> None:
        def code(t: Any) -> Any:
            f = function(t, lambda ctx, x: x, lambda ctx, g: 3 * g)
            x = leaf(t, 1.0)
            y = f.apply(x)
            y.backward()
            with t.no_grad():
                z = f.apply(x)
            return y is x, y.data_ptr() == x.data_ptr(), x.grad, z is x, z.requires_grad

        both(code)

    def test_an_output_returned_twice(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, x: Any) -> Any:
                y = x * 2
                return y, y

            x = leaf(t, 1.0)
            a, b = function(t, forward, lambda ctx, g, h: 2 * (g + h)).apply(x)
            (a + 3 * b).backward()
            return a is b, x.grad

        both(code)

    def test_writes_to_one_of_several_outputs(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, x: Any) -> Any:
                a, b = x.exp(), x * 2
                ctx.save_for_backward(a)
                return a, b

            def backward(ctx: Any, g: Any, h: Any) -> Any:
                return g * ctx.saved_tensors[0] + 2 * h

            x = leaf(t, 0.5)
            a, b = function(t, forward, backward).apply(x)
            b.add_(1)
            (a * b).backward()
            return x.grad

        both(code)

    @pytest.mark.parametrize("which", [0, 1])
    def test_writes_to_an_output_that_is_not_saved(self, which: int) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.5)
            doubled = function(t, lambda ctx, x: (x * 2, x * 3), lambda ctx, g, h: 2 * g + 3 * h)
            made = doubled.apply(x)
            made[which].mul_(2)
            (made[0] + made[1]).backward()
            return x.grad

        both(code)

    def test_a_saved_output_makes_no_cycle(self) -> None:
        gc.disable()
        try:
            y = exponential(refgrad).apply(leaf(refgrad, 1.0))
            gone = weakref.ref(y.grad_fn)
            del y
            assert gone() is None
        finally:
            gc.enable()

    def test_saved_tensors_keep_their_identity_until_freed(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            y = cube(t).apply(x)
            node = y.grad_fn
            same = node.saved_tensors[0] is x
            return same, node.name(), node.needs_input_grad

        both(code)


class TestOnceDifferentiable:
    def test_first_order(self) -> None:
        def code(t: Any) -> Any:
            f = function(t, lambda ctx, x: x * 2, once(t)(lambda ctx, g: g * 2))
            x = leaf(t, 1.0)
            f.apply(x).backward()
            (g,) = t.autograd.grad(f.apply(x), x, create_graph=True)
            return x.grad, g.requires_grad

        both(code)

    def test_second_order(self) -> None:
        def code(t: Any) -> Any:
            f = function(t, lambda ctx, x: x * 2, once(t)(lambda ctx, g: g * 2))
            x = leaf(t, 1.0)
            (g,) = t.autograd.grad(f.apply(x) ** 2, x, create_graph=True)
            g.backward()

        both_raise(code, match="@once_differentiable")
