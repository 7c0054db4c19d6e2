"""The graph, and what is refused on it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import refgrad
from refgrad.ops.op import op
from tests.refgrad.both import both, both_raise, leaf


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
        assert node.saved is None
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


class TestSharedRules:
    """An op whose arguments share a rule: batch and layer norm, of input, weight and bias."""

    @pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
    @pytest.mark.parametrize("needed", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)])
    @pytest.mark.parametrize("given", [(1, 1), (1, 0), (0, 1)])
    def test_of_what_needs_a_gradient(self, norm: str, needed: Any, given: Any) -> None:
        def code(t: Any) -> Any:
            f = t.nn.functional
            x = t.arange(12.0, dtype=t.float64).reshape(4, 3).sin()
            vectors = [t.tensor([1.0, -2.0, 0.5], dtype=t.float64) * k for k in (1, 2)]
            leaves = [v.requires_grad_(bool(n)) for v, n in zip((x, *vectors), needed)]
            x, weight, bias = (v if k else None for v, k in zip(leaves, (1, *given)))
            out = (
                f.layer_norm(x, (3,), weight, bias)
                if norm == "layer_norm"
                else f.batch_norm(x, None, None, weight, bias, training=True)
            )
            if not out.requires_grad:
                return out
            wanted = [v for v in (x, weight, bias) if v is not None and v.requires_grad]
            firsts = t.autograd.grad((out**3).sum(), wanted, create_graph=True)
            if weight is not None:  # else torch's second order lacks the bias's part
                sum((g * g).sum() for g in firsts).backward(retain_graph=True)
            alone = t.autograd.grad((out**3).sum(), wanted[-1:])
            return firsts, alone, [v.grad for v in wanted]

        both(code)

    def test_their_gradients_are_their_own(self) -> None:
        x, w = (refgrad.rand(3, 3, requires_grad=True) for _ in range(2))
        norm = refgrad.nn.functional.batch_norm
        norm(x * w, None, None, w[0], w[1], training=True).sum().backward()
        assert not np.shares_memory(x.grad.numpy(), w.grad.numpy())

    def test_what_a_rule_cannot_name(self) -> None:
        made = op(lambda input, out: input * out, name="made", method=False)
        with pytest.raises(TypeError, match="`out` would be an argument of it, and its result"):
            made.vjp(input=lambda g, out: g * out)
        with pytest.raises(TypeError, match="input, out cannot share a rule beside others"):
            made.vjp(**{"input, out": lambda g: (g, g), "input": lambda g: g})
        with pytest.raises(TypeError, match="'other', which is no argument"):
            made.vjp(**{"input, other": lambda g: (g, g)})


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


def test_a_scalar_gradient_keeps_its_dtype_in_a_rule() -> None:
    def code(t: Any) -> Any:
        x = t.tensor([[0.7, 2.0], [3.0, 1.5]], dtype=t.float64, requires_grad=True)
        t.tanh(t.einsum("ii->", x)).backward()
        return x.grad

    both(code)
