"""The backward API, held to PyTorch's: the same code, results and errors."""

from __future__ import annotations

import gc
import threading
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

    @pytest.mark.parametrize(
        ("code", "match"),
        [
            (lambda t, x: x.sum().backward(inputs=[]), "cannot be empty"),
            (lambda t, x: x.sum().backward(inputs=[t.ones(1)]), "requires?_grad|not require grad"),
            (lambda t, x: t.autograd.grad(x.sum(), []), "cannot be empty"),
            (lambda t, x: t.autograd.grad([x, x], x, [t.ones(2)]), "got 2 tensors and 1 grad"),
            (
                lambda t, x: t.autograd.grad(
                    x.sum(), x, materialize_grads=True, allow_unused=False
                ),
                "Expected allow_unused to be True",
            ),
            (
                lambda t, x: t.autograd.grad(x * x, x, t.ones(2), is_grads_batched=True),
                "first dimension of each grad_output as the batch",
            ),
            (lambda t, x: x.backward(t.ones(2, dtype=t.complex64)), "required to have the same"),
            (lambda t, x: setattr(x, "grad", 3), "expected to be a Tensor or None"),
            (lambda t, x: setattr(x, "grad", x), "as its own grad"),
            (lambda t, x: setattr(x, "grad", t.ones(2)), "assign a gradient with dtype"),
            (lambda t, x: setattr(x, "grad", t.ones(3, dtype=t.float64)), "gradient of size"),
            (lambda t, x: setattr(x, "data", t.ones(2, dtype=t.int64)), "must be floating point"),
            (lambda t, x: (x * 1)[0].detach_(), "detach views in-place"),
            (lambda t, x: t.sin(x, out=t.ones(2, dtype=t.float64)), "automatic differentiation"),
            (lambda t, x: t.sin(t.ones(2), out=x), "automatic differentiation"),
            (lambda t, x: t.sin(t.ones(2), out=3), "'out' must be Tensor"),
            (
                lambda t, x: t.sin(t.ones(2), out=t.ones(2, dtype=t.int64)),
                "can't be cast to the desired output type",
            ),
        ],
    )
    def test_of_the_api(self, code: Any, match: str) -> None:
        both_raise(lambda t: code(t, leaf(t, 1.0, 2.0)), match=match)

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

    def test_a_detached_leaf_may_be_written(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            x.detach().mul_(2)
            x.detach()[0] = 7.0
            return x, x._version

        both(code)

    def test_data_is_outside_the_graph_and_its_checks(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 2.0)
            y = x * x
            x.data.mul_(3)
            y.backward()
            first = x.grad, x._version
            x.data = t.ones(3, dtype=t.float64)
            return first, x, x.requires_grad

        both(code)

    def test_detach_and_requires_grad_of_results(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0)
            y = (x * 2).detach_()
            z = t.ones(2)
            view = z[0].requires_grad_()
            return y.requires_grad, y.is_leaf, view.requires_grad, z.requires_grad, view.is_leaf

        both(code)


class TestOut:
    @pytest.mark.parametrize(
        "code",
        [
            lambda t, o: t.sin(t.ones(2), out=o),
            lambda t, o: t.add(t.ones(2), 1, alpha=3, out=o),
            lambda t, o: t.sum(t.ones(3, 2), 0, out=o),
            lambda t, o: t.cat([t.ones(1), t.zeros(1)], out=o),
            lambda t, o: t.mv(t.ones(2, 3), t.ones(3), out=o),
            lambda t, o: t.softmax(t.arange(2.0), 0, out=o),
            lambda t, o: t.linalg.solve(2 * t.eye(2), t.ones(2), out=o),
            lambda t, o: t.arange(2, out=o),
            lambda t, o: t.std(t.eye(2), 0, out=o),
        ],
    )
    def test_is_written_and_returned(self, code: Any) -> None:
        def run(t: Any) -> Any:
            base = t.zeros(4)
            outs = t.empty(2), t.empty(0), base[::2]
            return [(code(t, o) is o, o, o._version) for o in outs], base

        both(run)

    def test_of_several_results(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([[1.0, 2.0], [3.0, 0.0]])
            values, indices = t.empty(2), t.empty(2, dtype=t.int64)
            t.max(x, 0, out=(values, indices))
            first = values.clone(), indices.clone()
            t.sort(x[0], out=(values, indices))
            return first, values, indices

        both(code)

    def test_a_resize_warns(self) -> None:
        def code(t: Any) -> Any:
            o = t.empty(3)
            with pytest.warns(UserWarning, match="was resized"):
                t.sin(t.ones(2), out=o)
            return o

        both(code)

    def test_of_another_dtype_and_none(self) -> None:
        def code(t: Any) -> Any:
            o = t.empty(2, dtype=t.float64)
            return t.sqrt(t.full((2,), 4.0), out=o), t.sqrt(t.ones(2), out=None)

        both(code)

    def test_within_no_grad(self) -> None:
        def code(t: Any) -> Any:
            x, o = leaf(t, 1.0), leaf(t, 2.0)
            with t.no_grad():
                t.sin(x, out=o)
            return o, o.requires_grad, o.is_leaf

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

    def test_as_decorators_without_a_call(self) -> None:
        def code(t: Any) -> Any:
            def f() -> Any:
                return t.is_grad_enabled(), t.is_inference_mode_enabled()

            with t.no_grad():
                inner = t.enable_grad(f)()
            return t.no_grad(f)(), t.inference_mode(f)(), inner, t.set_grad_enabled(False)(f)(), f()

        both(code)

    def test_a_decorated_recursion_and_an_exception(self) -> None:
        def code(t: Any) -> Any:
            @t.no_grad()
            def f(n: int) -> Any:
                if n == 0:
                    raise ValueError
                with t.enable_grad():
                    return f(n - 1)

            with pytest.raises(ValueError):
                f(3)
            return t.is_grad_enabled()

        both(code)

    def test_generators_run_in_their_mode_and_their_callers_in_theirs(self) -> None:
        def code(t: Any) -> Any:
            seen = []

            @t.no_grad()
            def f() -> Any:
                try:
                    got = yield t.is_grad_enabled()
                    try:
                        yield got, t.is_grad_enabled()
                    except ValueError:
                        yield "caught", t.is_grad_enabled()
                    return t.is_grad_enabled()
                finally:
                    seen.append(t.is_grad_enabled())

            one, two = f(), f()
            seen += [next(one), t.is_grad_enabled(), one.send(5), one.throw(ValueError())]
            with pytest.raises(StopIteration) as end:
                next(one)
            next(two)
            two.close()
            return seen, end.value.value, t.is_grad_enabled()

        both(code)

    def test_threads_have_modes_of_their_own(self) -> None:
        def code(t: Any) -> Any:
            seen = []
            with t.no_grad():
                thread = threading.Thread(target=lambda: seen.append(t.is_grad_enabled()))
                thread.start()
                thread.join()
            return seen

        both(code)

    def test_inference_mode_is_not_undone_by_enable_grad(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0)

            def now() -> Any:
                y = x * 2
                return t.is_grad_enabled(), t.is_inference_mode_enabled(), y.requires_grad

            with t.inference_mode():
                found = [now()]
                with t.enable_grad():
                    found.append(now())
                with t.inference_mode(False):
                    found.append(now())
            with t.no_grad(), t.inference_mode(False):
                found.append(now())
            return [*found, now()]

        both(code)

    def test_a_decorated_class_warns(self) -> None:
        def code(t: Any) -> Any:
            with pytest.warns(FutureWarning, match="Decorating classes is deprecated"):

                @t.no_grad()
                class Made:
                    def __init__(self) -> None:
                        self.enabled = t.is_grad_enabled()

            return Made().enabled

        both(code)


class TestAnomalyMode:
    def test_names_the_node_that_made_a_nan(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, -1.0)
            with t.autograd.set_detect_anomaly(True):
                (x.sqrt() * 1).sum().backward()

        both_raise(code, match="Function 'SqrtBackward0' returned nan values in its 0th output")

    def test_changes_nothing_else(self) -> None:
        def code(t: Any) -> Any:
            x, y = leaf(t, 1.0, 2.0), leaf(t, 3.0, 4.0)
            with t.autograd.set_detect_anomaly(True):
                on = t.is_anomaly_enabled(), t.is_anomaly_check_nan_enabled()
                (g,) = t.autograd.grad((x.exp() * y).sum(), x, create_graph=True)
                a, b = (g * g).split(1)
                (a * b).backward()
            with pytest.warns(match="Anomaly"), t.autograd.detect_anomaly(check_nan=False):
                leaf(t, -1.0).sqrt().backward()
            return x.grad, y.grad, on, t.is_anomaly_enabled()

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
