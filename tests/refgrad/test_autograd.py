"""The backward API, held to PyTorch's: the same code, results and errors."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import refgrad
from tests.refgrad.both import both, both_raise


def leaf(t: Any, *values: float) -> Any:
    return t.tensor(values, dtype=t.float64, requires_grad=True)


class TestBackward:
    def test_accumulates_into_grad(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            (x * x).sum().backward()
            first = x.grad.clone()
            (x * 3).sum().backward()
            return first, x.grad

        both(code)

    def test_a_shared_subexpression_gets_every_contribution(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.5, 2.0)
            y = x.sin()
            (y * y + y + y * x).sum().backward()
            return x.grad

        both(code)

    def test_grad_is_not_the_users_memory(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            g = t.tensor([3.0, 4.0], dtype=t.float64)
            (x + 0).backward(g)
            g.zero_()
            return x.grad

        both(code)

    def test_two_leaves_do_not_share_a_grad(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0, 2.0), leaf(t, 3.0, 4.0)
            (x + y).sum().backward()
            x.grad.zero_()
            return x.grad, y.grad

        both(code)

    def test_inputs_restricts_the_leaves(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0), leaf(t, 2.0)
            (x * y).sum().backward(inputs=[x])
            return x.grad, y.grad is None

        both(code)

    def test_several_roots(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            a, b = x * x, x.exp()
            t.autograd.backward([a.sum(), b], [None, t.ones(2, dtype=t.float64)])
            return x.grad

        both(code)

    def test_retain_graph(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = (x * x).sum()
            y.backward(retain_graph=True)
            y.backward()
            return x.grad

        both(code)

    def test_retain_grad_of_a_non_leaf(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * x
            y.retain_grad()
            y.exp().sum().backward()
            return x.grad, y.grad, y.retains_grad, x.is_leaf, y.is_leaf

        both(code)

    def test_a_leaf_root(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 3.0)
            x.backward()
            return x.grad

        both(code)

    def test_create_graph_makes_grad_differentiable(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0)
            (x**3).sum().backward(create_graph=True)
            g = x.grad
            x.grad = None
            (g * g).sum().backward()
            return g, x.grad, g.requires_grad

        both(code)


class TestGrad:
    def test_non_leaf_inputs(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * x
            z = (y * x).sum()
            return t.autograd.grad(z, [y, x])

        both(code)

    def test_leaves_grad_alone(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            t.autograd.grad((x * x).sum(), x)
            return x.grad is None

        both(code)

    def test_allow_unused_and_materialize(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0), leaf(t, 2.0)
            z = (x * x).sum()
            unused = t.autograd.grad(z, [x, y], allow_unused=True, retain_graph=True)
            zeros = t.autograd.grad(z, [x, y], materialize_grads=True)
            return unused[1] is None, zeros

        both(code)

    @pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
    def test_any_order(self, order: int) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.3, 0.7)
            y = (x.sin() * x.exp() / (1 + x * x)).sum()
            for _ in range(order):
                (g,) = t.autograd.grad(y, x, create_graph=True)
                y = g.sum()
            return g

        both(code)

    def test_results_do_not_share_memory(self) -> None:
        x, y = leaf(refgrad, 1.0, 2.0), leaf(refgrad, 3.0, 4.0)
        a, b = refgrad.autograd.grad((x + y).sum(), [x, y])
        assert not np.shares_memory(a.numpy(), b.numpy())
        a.zero_()
        assert b.tolist() == [1.0, 1.0]


class TestErrors:
    def test_a_root_with_several_elements(self) -> None:
        both_raise(lambda t: leaf(t, 1.0, 2.0).exp().backward(), match="scalar outputs")

    def test_a_root_that_needs_no_grad(self) -> None:
        both_raise(lambda t: t.ones(()).backward(), match="does not require grad")

    def test_a_freed_graph(self) -> None:
        def code(t: Any) -> Any:
            y = leaf(t, 1.0).exp().sum()
            y.backward()
            y.backward()

        both_raise(code, match="second time")

    def test_a_misshapen_gradient(self) -> None:
        def code(t: Any) -> Any:
            leaf(t, 1.0, 2.0).exp().backward(t.ones(3, dtype=t.float64))

        both_raise(code, match="Mismatch in shape")

    def test_an_unused_input(self) -> None:
        def code(t: Any) -> Any:
            t.autograd.grad(leaf(t, 1.0).sum(), leaf(t, 2.0))

        both_raise(code, match="allow_unused=True")

    def test_an_input_without_grad(self) -> None:
        both_raise(
            lambda t: t.autograd.grad(leaf(t, 1.0).sum(), t.ones(1)), match="not require grad"
        )

    def test_an_in_place_write_to_a_leaf(self) -> None:
        both_raise(lambda t: leaf(t, 1.0).add_(1), match="leaf Variable that requires grad")

    def test_an_indexed_write_to_a_leaf(self) -> None:
        def code(t: Any) -> Any:
            leaf(t, 1.0)[0] = 2.0

        both_raise(code, match="leaf Variable that requires grad")

    def test_a_saved_input_that_was_written(self) -> None:
        def code(t: Any) -> Any:
            y = leaf(t, 1.0) * 2
            z = y.sin()
            y.add_(1)
            z.sum().backward()

        both_raise(code, match="modified by an inplace operation")

    def test_a_saved_output_that_was_written(self) -> None:
        def code(t: Any) -> Any:
            y = leaf(t, 1.0).exp()
            y.detach().mul_(2)
            y.sum().backward()

        both_raise(code, match="modified by an inplace operation")

    def test_a_constant_that_was_written(self) -> None:
        def code(t: Any) -> Any:
            c = t.ones(1, dtype=t.float64)
            z = leaf(t, 1.0) * c
            c.add_(1)
            z.sum().backward()

        both_raise(code, match="modified by an inplace operation")

    def test_shapes_that_do_not_broadcast(self) -> None:
        both_raise(lambda t: t.ones(2, 3) + t.ones(2, 4), match="must match the size of tensor b")

    def test_integers_cannot_require_grad(self) -> None:
        both_raise(lambda t: t.tensor([1]).requires_grad_(), match="floating point")

    def test_numpy_of_a_tensor_that_requires_grad(self) -> None:
        both_raise(lambda t: leaf(t, 1.0).numpy(), match="detach")

    def test_requires_grad_of_a_non_leaf(self) -> None:
        both_raise(lambda t: leaf(t, 1.0).exp().requires_grad_(False), match="leaf variables")

    def test_a_dimension_out_of_range(self) -> None:
        both_raise(lambda t: t.ones(2, 3).sum(2), match="Dimension out of range")

    def test_truth_of_many(self) -> None:
        both_raise(lambda t: bool(t.ones(2)), match="ambiguous")


class TestInPlace:
    def test_a_non_leaf_takes_over_the_history(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * x
            y.mul_(x).add_(1)
            y[0] = x[1] * 5
            y.sum().backward()
            return y, x.grad

        both(code)

    def test_parameters_are_written_under_no_grad(self) -> None:
        def code(t: Any) -> Any:
            w = leaf(t, 1.0, -2.0)
            for _ in range(5):
                loss = ((w - 3) ** 2).sum()
                loss.backward()
                with t.no_grad():
                    w -= 0.1 * w.grad
                w.grad = None
            return w, w.requires_grad, w.is_leaf

        both(code)

    def test_versions(self) -> None:
        def code(t: Any) -> Any:
            x = t.zeros(3)
            view = x[:2]
            before = x._version
            view.add_(1)
            return before, x._version, x

        both(code)


class TestModes:
    def test_no_grad_records_nothing(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            with t.no_grad():
                a = x * 2
                with t.enable_grad():
                    b = x * 2
            c = x * 2
            return a.requires_grad, b.requires_grad, c.requires_grad

        both(code)

    def test_as_decorator_and_call(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)

            @t.no_grad()
            def f() -> Any:
                return x * 2

            t.set_grad_enabled(False)
            a = x * 2
            t.set_grad_enabled(True)
            with t.set_grad_enabled(False):
                b = x * 2
            return f().requires_grad, a.requires_grad, b.requires_grad, t.is_grad_enabled()

        both(code)


class TestGraph:
    def test_a_chain_of_a_million_nodes(self) -> None:
        x = refgrad.ones((), dtype=refgrad.float64, requires_grad=True)
        y = x
        for _ in range(1_000_000):
            y = -y
        y.backward()
        assert x.grad.item() == 1.0
        del y

    def test_saved_values_are_freed_as_the_pass_goes(self) -> None:
        x = leaf(refgrad, 1.0)
        y = x.exp()
        saved = weakref.ref(y.sin().grad_fn)
        z = y.sin()
        node = z.grad_fn
        z.sum().backward()
        assert node.raws is None
        gc.collect()
        assert saved() is None

    def test_a_graph_without_cycles_needs_no_collector(self) -> None:
        gc.disable()
        try:
            x = leaf(refgrad, 1.0)
            y = x.exp()
            gone = weakref.ref(y)
            del y
            assert gone() is None
        finally:
            gc.enable()

    def test_hooks_replace_gradients(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * x
            seen = []
            y.register_hook(lambda g: g * 2)
            handle = x.register_hook(lambda g: seen.append(1))
            y.sum().backward(retain_graph=True)
            handle.remove()
            y.sum().backward()
            return x.grad, len(seen)

        both(code)


def test_a_scalar_gradient_keeps_its_dtype_in_a_rule() -> None:
    def code(t: Any) -> Any:
        x = t.tensor([[0.7, 2.0], [3.0, 1.5]], dtype=t.float64, requires_grad=True)
        t.tanh(t.einsum("ii->", x)).backward()
        return x.grad

    both(code)
