"""backward() and autograd.grad, each under torch and under refgrad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refgrad
from tests.refgrad.both import both, leaf


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

    @pytest.mark.parametrize("shape", [(3,), (1, 2), (17, 31), ()])
    @pytest.mark.parametrize("create_graph", [False, True])
    def test_a_leaf_that_is_used_very_often(
        self, shape: tuple[int, ...], create_graph: bool
    ) -> None:
        def code(t: Any) -> Any:
            x = t.linspace(0.5, 1.5, int(np.prod(shape)), dtype=t.float64).reshape(shape)
            x, c = x.requires_grad_(), t.tensor(0.5, dtype=t.float64, requires_grad=True)
            seen: list[Any] = []
            x.register_hook(lambda g: seen.append(g.detach().clone()) or g * 2)
            y = x + 0
            parts = [y]  # the gradient of x comes to it as it is, in another's memory, and anew
            for k in range(150):
                y = (y * c).sin() + x
                parts += [x * (k / 150), x]
            first = t.autograd.grad(
                t.cat([p.reshape(-1) for p in parts]).square().sum() + y.sum(),
                (x, c), create_graph=create_graph,
            )  # fmt: skip
            if not create_graph:
                return (*first, *seen)
            return (*first, *seen, *t.autograd.grad(first[0].square().sum(), (x, c)))

        both(code)

    @pytest.mark.parametrize("turned", [False, True])
    def test_many_branches_that_were_made_layer_by_layer(self, turned: bool) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.5, 2.0)
            layer = [x * (k / 20) for k in range(20)]
            for _ in range(3):
                layer = [(a * b).sin() for a, b in zip(layer, layer[1:] + layer[:1])]
            t.cat(layer[::-1] if turned else layer).square().sum().backward()
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

    @pytest.mark.parametrize("n", [3, 400])
    @pytest.mark.parametrize("code", [
        lambda t, x, c: x + x,
        lambda t, x, c: x + x.reshape(1, -1).reshape(-1),
        lambda t, x, c: x + x * c,
        lambda t, x, c: (x + c) + (x + x * c) * x,
        lambda t, x, c: t.exp(x) + (x - x.reshape(-1)) * c,
        lambda t, x, c: x.sin().mul(c) + x + x.cos(),
    ])  # fmt: skip
    def test_nothing_but_grad_is_written_where_gradients_are_added(
        self, code: Any, n: int
    ) -> None:
        def written(t: Any) -> Any:
            x = t.linspace(0.5, 1.5, n, dtype=t.float64).requires_grad_()
            c = t.linspace(1.0, 2.0, n, dtype=t.float64)
            g = t.linspace(2.0, 3.0, n, dtype=t.float64)
            y = code(t, x, c)
            y.backward(g, retain_graph=True)
            first = x.grad.clone()
            y.backward(g)
            return first, x.grad, x.detach(), c, g

        both(written)

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

    @pytest.mark.parametrize("inputs", ["y", "yxx", "root"])
    def test_inputs_that_are_no_leaves(self, inputs: str) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0)
            y = x * 3
            root = (y * y).sum()
            of = {"x": x, "y": y}
            wanted = [root] if inputs == "root" else [of[i] for i in inputs]
            root.backward(inputs=wanted)
            return [w.grad for w in wanted], x.grad is None

        both(code)

    def test_one_input_without_a_list_and_an_unused_one(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 2.0), leaf(t, 1.0)
            z = (x * x).sum()
            z.backward(inputs=x, retain_graph=True)
            z.backward(inputs=[y])
            return x.grad, y.grad is None

        both(code)

    @pytest.mark.parametrize(
        "gradient",
        [
            lambda t: t.ones(1),
            lambda t: t.ones(1, dtype=t.int64),
            lambda t: t.ones(1, dtype=t.float64),
        ],
    )
    def test_a_cotangent_of_another_dtype(self, gradient: Any) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0)
            (x * x).backward(gradient(t))
            return x.grad

        both(code)

    def test_a_pass_that_is_no_longer_needed_frees_only_what_it_ran(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 0.5)
            y = x.exp()
            (g,) = t.autograd.grad(y.sin().sum(), y)
            return g, t.autograd.grad(y.sum(), x)  # the node of y did not run before

        both(code)

    def test_within_no_grad(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.5)
            y = x**3
            with t.no_grad():
                y.backward(retain_graph=True)
                (g,) = t.autograd.grad(y, x, create_graph=True)
            return x.grad, g.requires_grad, t.autograd.grad(g, x)

        both(code)

    def test_accumulates_in_place(self) -> None:
        def code(t: Any) -> Any:
            x, given = leaf(t, 2.0, 3.0), t.ones(2, dtype=t.float64)
            x.grad = given
            (x * x).sum().backward()
            x.grad.zero_()
            (x * x).sum().backward()
            (x * x).sum().backward(create_graph=True)
            second = x.grad
            (x * x).sum().backward()
            return given, second is x.grad, x.grad, x.grad.requires_grad

        both(code)

    def test_grads_of_a_recorded_pass_share_no_memory(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0), leaf(t, 2.0)
            (x + y).backward(create_graph=True)
            with t.no_grad():
                x.grad.zero_()
            return x.grad, y.grad

        both(code)

    def test_grad_has_the_strides_of_its_leaf(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(2, 3, dtype=t.float64).t().requires_grad_()
            y = t.ones(2, 3, dtype=t.float64, requires_grad=True)
            z = t.ones(2, 3, dtype=t.float64, requires_grad=True)
            ((x * 2).sum() + (y.t() * t.ones(3, 2)).sum() + z.sum()).backward()
            return [(a.grad, a.grad.stride()) for a in (x, y, z)]

        both(code)

    def test_grad_variables_is_the_former_name(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0, 3.0)
            with pytest.warns(FutureWarning, match="deprecated"):
                t.autograd.backward(x * x, grad_variables=t.ones(2, dtype=t.float64))
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

    def test_leaves_and_roots_among_inputs_and_outputs(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0)
            y = x * x
            return (
                t.autograd.grad(x, x),
                t.autograd.grad([x, x], [x, x]),
                t.autograd.grad(y, [y, x, y], retain_graph=True),
                t.autograd.grad([x * 2, y.exp()], x, [t.full((1,), 3.0, dtype=t.float64), None]),
            )

        both(code)

    def test_materialized_grads_of_a_recorded_pass(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 2.0), leaf(t, 1.0, 2.0)
            found = t.autograd.grad(
                (x * x).sum(), [x, y], materialize_grads=True, create_graph=True
            )
            return found, [g.requires_grad for g in found]

        both(code)

    def test_of_a_cotangent(self) -> None:
        def code(t: Any) -> Any:
            x, v = leaf(t, 2.0, 3.0), leaf(t, 1.0, -1.0)
            (g,) = t.autograd.grad(x**3, x, v, create_graph=True)
            return g, t.autograd.grad((g * g).sum(), [x, v])

        both(code)

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_a_batch_of_cotangents(self, create_graph: bool) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 2.0, 3.0), leaf(t, 1.0)
            found = t.autograd.grad(
                [x**3, x.exp()], [x, y], [t.eye(2, dtype=t.float64), t.ones(2, 2, dtype=t.float64)],
                is_grads_batched=True, allow_unused=True, create_graph=create_graph,
            )  # fmt: skip
            return (
                found[0],
                found[1] is None,
                (t.autograd.grad(found[0].sum(), x) if create_graph else None),
            )

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

    def test_grads_do_not_share_memory_either(self) -> None:
        """A leaf's grad may be what a rule made and reshaped, but no one else's memory."""
        x, y, z = (refgrad.rand(1, 1, 2, 2, requires_grad=True) for _ in range(3))
        joined = (x.reshape(4) + y.view(4)).reshape(1, 1, 2, 2) * 1.0
        pooled = refgrad.nn.functional.max_pool2d(z, 2).sum()
        seed = refgrad.rand(1, 1, 2, 2)
        refgrad.autograd.backward([joined, pooled], [seed, None])
        grads = [t.grad.numpy() for t in (x, y, z)]
        for i, a in enumerate(grads):
            for b in (seed.numpy(), z.detach().numpy(), *grads[:i]):
                assert not np.shares_memory(a, b)
        assert grads[2].base is not None
        assert grads[2].sum() == 1
