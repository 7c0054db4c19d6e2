"""Hooks on tensors and nodes, held to PyTorch's: order, replacement, removal, errors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.refgrad.both import both, both_raise, leaf


class TestTensorHooks:
    def test_run_in_the_order_of_registration(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 1.0, 2.0)
            y = x * 3
            for of, name in ((x, "x"), (y, "y")):
                of.register_hook(lambda g, name=name: (seen.append((name, 1, g)), g * 2)[1])
                of.register_hook(lambda g, name=name: seen.append((name, 2, g)))
                of.register_hook(lambda g, name=name: (seen.append((name, 3, g)), g + 1)[1])
            y.sum().backward()
            return seen, x.grad

        both(code)

    def test_a_hook_registered_twice_runs_twice(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            first, _ = [x.register_hook(lambda g: g * 2) for _ in range(2)]
            hook = lambda g: g * 3
            second, _ = x.register_hook(hook), x.register_hook(hook)
            found = []
            for handle in (None, first, first, second):
                if handle is not None:
                    handle.remove()
                x.grad = None
                (x * 1).sum().backward()
                found.append(x.grad)
            return found

        both(code)

    def test_a_handle_is_a_context_manager(self) -> None:
        def code(t: Any) -> Any:
            seen: list[int] = []
            x = leaf(t, 1.0)
            with x.register_hook(lambda g: seen.append(1)):
                (x * x).sum().backward()
            (x * x).sum().backward()
            return seen

        both(code)

    def test_a_hook_may_remove_itself(self) -> None:
        def code(t: Any) -> Any:
            seen: list[int] = []
            x = leaf(t, 1.0)

            def hook(g: Any) -> None:
                seen.append(1)
                handle.remove()

            handle = x.register_hook(hook)
            x.register_hook(lambda g: seen.append(2))
            for _ in range(2):
                (x * x).sum().backward()
            return seen

        both(code)

    def test_each_stays_with_the_values_it_was_registered_for(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 1.0, 2.0)
            y = x * 1
            y.register_hook(lambda g: seen.append(("before", g.clone())))
            y.mul_(3)
            y.register_hook(lambda g: seen.append(("after", g.clone())))
            y[0] = x[1] * 5
            y.register_hook(lambda g: seen.append(("last", g.clone())))
            (y * y).sum().backward()
            return seen, x.grad

        both(code)

    def test_on_one_of_several_outputs(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 1.0, 2.0, 3.0, 4.0)
            a, b = (x * 1).split(2)
            a.register_hook(lambda g: (seen.append(g), g * 2)[1])
            (a * b).sum().backward()
            return seen, x.grad

        both(code)

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_run_in_the_grad_mode_of_the_pass(self, create_graph: bool) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 2.0)
            y = x**3

            def hook(g: Any) -> Any:
                seen.append((t.is_grad_enabled(), g.requires_grad))
                return g * g

            y.register_hook(hook)
            x.register_hook(hook)
            (g,) = t.autograd.grad((y**2).sum(), x, create_graph=create_graph)
            return seen, g, t.autograd.grad(g.sum(), x) if create_graph else None

        both(code)

    def test_a_hook_that_raises_leaves_the_mode_alone(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            x.register_hook(lambda g: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                (x * x).sum().backward()
            return t.is_grad_enabled()

        both(code)

    def test_see_pytorchs_complex_gradient(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = t.tensor([1 + 2j], dtype=t.complex128, requires_grad=True)
            y = x * 1j
            for of in (x, y):
                of.register_hook(lambda g: (seen.append(g.clone()), g * (1 + 1j))[1])
            (y * y.conj()).real.sum().backward()
            return seen, x.grad

        both(code)

    # PyTorch runs y's hook too when both are asked for, but gives y's gradient from before it
    @pytest.mark.parametrize("inputs", ["x", "xx", "y", "yy"])
    def test_run_for_inputs_of_grad_once(self, inputs: str) -> None:
        def code(t: Any) -> Any:
            seen: list[str] = []
            x = leaf(t, 2.0)
            y = x * 1
            x.register_hook(lambda g: (seen.append("x"), g * 10)[1])
            x.register_post_accumulate_grad_hook(lambda p: seen.append("never"))
            y.register_hook(lambda g: (seen.append("y"), g * 10)[1])
            of = {"x": x, "y": y}
            return t.autograd.grad((y * y).sum(), [of[i] for i in inputs]), seen

        both(code)


class TestRetainedGradients:
    def test_are_kept_after_the_hooks(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * 1
            y.register_hook(lambda g: g * 2)
            y.retain_grad()
            y.retain_grad()
            y.register_hook(lambda g: g * 5)
            y.sum().backward()
            return y.grad, x.grad

        both(code)

    def test_are_those_of_the_values_after_a_write(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = x * 1
            y.retain_grad()
            y.mul_(3)
            y[:1].mul_(2)
            (y * y).sum().backward()
            return y.grad, y.retains_grad, x.grad

        both(code)

    def test_add_up(self) -> None:
        def code(t: Any) -> Any:
            y = leaf(t, 1.0, 2.0) * 1
            y.retain_grad()
            z = (y * y).sum()
            z.backward(retain_graph=True)
            first = y.grad
            z.backward(inputs=[y])
            return first, y.grad

        both(code)

    def test_access_to_a_gradient_that_is_not_kept_warns(self) -> None:
        def code(t: Any) -> Any:
            y = leaf(t, 1.0) * 1
            with pytest.warns(UserWarning, match="not a leaf Tensor is being accessed"):
                return y.grad

        both(code)


class TestPostAccumulateHooks:
    def test_run_after_the_gradient_was_added(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 1.0)
            x.register_hook(lambda g: seen.append(("hook", g, x.grad)))
            x.register_post_accumulate_grad_hook(lambda p: seen.append((p is x, p.grad.clone())))
            handle = x.register_post_accumulate_grad_hook(lambda p: seen.append("second"))
            (x * 2 + x * 3).sum().backward()
            handle.remove()
            (x * 2).sum().backward()
            return seen

        both(code)

    def test_a_step_in_the_hook(self) -> None:
        def code(t: Any) -> Any:
            w = leaf(t, 1.0, 2.0)

            def step(p: Any) -> None:
                assert not t.is_grad_enabled()
                p.sub_(p.grad * 0.1)
                p.grad = None

            w.register_post_accumulate_grad_hook(step)
            for _ in range(3):
                (w * w).sum().backward()
            return w, w.grad is None

        both(code)


class TestNodeHooks:
    def test_order_and_replacement(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x, y = leaf(t, 1.0, 2.0), leaf(t, 3.0, 4.0)
            z = x * y

            def after(given: Any, outputs: Any) -> Any:
                seen.append((given, outputs))
                return given[0] * 10, given[1]

            z.grad_fn.register_hook(after)
            z.grad_fn.register_hook(lambda given, outputs: seen.append((given, outputs)))
            z.grad_fn.register_prehook(lambda outputs: (outputs[0] * 2,))
            z.register_hook(lambda g: seen.append(g))
            z.grad_fn.register_hook(lambda *_: seen.append("removed")).remove()
            z.sum().backward()
            return seen, x.grad, y.grad

        both(code)

    def test_what_needs_no_gradient_is_none(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            z = leaf(t, 1.0, 2.0) * t.ones(2, dtype=t.float64)
            z.grad_fn.register_hook(lambda given, outputs: seen.append((given, outputs)))
            z.sum().backward()
            return seen

        both(code)

    def test_of_an_accumulator(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []
            x = leaf(t, 1.0, 2.0)
            z = x * 2
            accumulator = z.grad_fn.next_functions[0][0]
            accumulator.register_hook(lambda given, outputs: seen.append((given, outputs)))
            accumulator.register_prehook(lambda outputs: (outputs[0] * 5,))
            z.sum().backward()
            return seen, x.grad, accumulator.variable is x

        both(code)

    def test_of_a_function(self) -> None:
        def code(t: Any) -> Any:
            seen: list[Any] = []

            class Double(t.autograd.Function):  # type: ignore[misc]
                @staticmethod
                def forward(ctx: Any, x: Any, k: int) -> Any:
                    return x * k

                @staticmethod
                def backward(ctx: Any, g: Any) -> Any:
                    return g * 2, None

            x = leaf(t, 1.0)
            y = Double.apply(x, 2)
            y.grad_fn.register_hook(lambda given, outputs: seen.append((given[0], outputs)))
            y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 3,))
            y.backward()
            return seen, x.grad

        both(code)


class TestErrors:
    @pytest.mark.parametrize(
        ("made", "match"),
        [
            (lambda t: 3, "hook returned 'int'"),
            (lambda t: t.ones(3, dtype=t.float64), "has changed the size of value"),
            (lambda t: t.ones(1), "has changed the type of value"),
        ],
    )
    @pytest.mark.parametrize("of_leaf", [True, False])
    def test_of_what_a_hook_returns(self, made: Any, match: str, of_leaf: bool) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            y = x * 2
            (x if of_leaf else y).register_hook(lambda g: made(t))
            (y * 2).sum().backward()

        both_raise(code, match=match)

    def test_of_what_a_post_accumulate_hook_returns(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)
            x.register_post_accumulate_grad_hook(lambda p: 5)
            x.sum().backward()

        both_raise(code, match="hook returned 'int'")

    def test_of_the_number_a_node_hook_returns(self) -> None:
        def code(t: Any) -> Any:
            y = leaf(t, 1.0) * leaf(t, 2.0)
            y.grad_fn.register_hook(lambda given, outputs: (*given, None))
            y.sum().backward()

        both_raise(code, match=r"got 3, but expected 2")

    @pytest.mark.parametrize(
        ("code", "match"),
        [
            (lambda t: t.ones(1).register_hook(print), "doesn't require gradient"),
            (
                lambda t: t.ones(1).register_post_accumulate_grad_hook(print),
                "doesn't require gradient",
            ),
            (
                lambda t: (leaf(t, 1.0) * 2).register_post_accumulate_grad_hook(print),
                "cannot be registered on non-leaf",
            ),
            (lambda t: t.ones(1).retain_grad(), "requires_grad=False"),
        ],
    )
    def test_of_registering(self, code: Any, match: str) -> None:
        both_raise(code, match=match)
