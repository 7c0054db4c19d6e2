"""What autograd.Function refuses, as PyTorch's does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import refgrad
from tests.refgrad.both import both, both_raise
from tests.refgrad.test_function import cube, doubling, exponential, function, leaf


def saves(*values: Any) -> Callable[[Any], Any]:
    """A program whose Function saves `values`."""

    def code(t: Any) -> Any:
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(*values)
            return x * 2

        function(t, forward, lambda ctx, g: g).apply(leaf(t, 1.0))

    return code


def gives(*gradients: Any, arguments: tuple[Any, ...] = ()) -> Callable[[Any], Any]:
    """A program whose Function's backward returns `gradients`."""

    def code(t: Any) -> Any:
        def tensor(g: Any) -> Any:
            return t.ones(*g, dtype=t.float64) if isinstance(g, tuple) else g

        f = function(
            t,
            lambda ctx, x, *rest: x.sum(),
            lambda ctx, g: tuple(tensor(g) for g in gradients),
        )
        f.apply(leaf(t, 1.0, 2.0), *arguments).backward()

    return code


def stale(make: Any, write: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def code(t: Any) -> Any:
        y = leaf(t, 1.0) * 1
        z = make(t).apply(y)
        write(y, z)
        z.backward()

    return code


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "match"),
        [
            (gives((2,), arguments=(1,)), r"number of gradients \(expected 2, got 1\)"),
            (gives((2,), (2,)), r"number of gradients \(expected 1, got 2\)"),
            (gives((3,)), r"invalid gradient at index 0 - got \[3\] but expected shape"),
            (gives((2,), (2,), arguments=(1,)), "different than None at position 2"),
            (gives(3.0), r"expected Variable or None \(got float\)"),
            (saves(3), "can only save variables, but argument 0 is of type int"),
            (saves(None, [1]), "can only save variables, but argument 1 is of type list"),
            (stale(cube, lambda y, z: y.add_(1)), "modified by an inplace operation"),
            (stale(exponential, lambda y, z: z.add_(1)), "modified by an inplace operation"),
        ],
    )
    def test_of_gradients_and_saved_tensors(self, code: Any, match: str) -> None:
        both_raise(code, match=match)

    def test_more_gradients_than_arguments_may_be_none(self) -> None:
        gives((2,), None, None)(refgrad)

    def test_a_saved_tensor_that_is_not_read_may_be_written(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return x * 2

            x = leaf(t, 1.0)
            y = x * 1
            z = function(t, forward, lambda ctx, g: g * 2).apply(y)
            y.add_(1)
            z.backward()
            return x.grad

        both(code)

    def test_a_freed_graph(self) -> None:
        def code(t: Any) -> Any:
            y = cube(t).apply(leaf(t, 1.0))
            y.backward()
            return y.grad_fn.saved_tensors

        both_raise(code, match="second time")

    @pytest.mark.parametrize(
        ("argument", "match"),
        [
            (lambda x: x, "leaf Variable that requires grad"),
            (lambda x: x[:1], "a view of a leaf Variable that requires grad"),
        ],
    )
    def test_a_dirty_leaf(self, argument: Any, match: str) -> None:
        both_raise(lambda t: doubling(t).apply(argument(leaf(t, 1.0))), match=match)

    def test_a_dirty_input_that_is_not_returned(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, x: Any) -> Any:
                ctx.mark_dirty(x)
                return x * 1

            function(t, forward, lambda ctx, g: g).apply(leaf(t, 1.0) * 1)

        both_raise(code, match="not returned as output")

    def test_a_dirty_view_among_several_outputs(self) -> None:
        def code(t: Any) -> Any:
            def forward(ctx: Any, x: Any) -> Any:
                ctx.mark_dirty(x)
                return x, x * 2

            function(t, forward, lambda ctx, g, h: g).apply((leaf(t, 1.0) * 1)[:1])

        both_raise(code, match="cannot return more than one Tensor")

    @pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:1], lambda x: (x * 2)[:1]])
    def test_a_write_to_a_view_that_a_function_returned(self, view: Any) -> None:
        def code(t: Any) -> Any:
            f = function(t, lambda ctx, x: view(x), lambda ctx, g: g)
            f.apply(leaf(t, 1.0, 2.0) * 1).add_(1)

        both_raise(code, match="created inside a custom Function")

    def test_a_write_to_what_a_function_returned_a_view_of(self) -> None:
        def code(t: Any) -> Any:
            x = leaf(t, 1.0, 2.0) * 1
            y = function(t, lambda ctx, x: x[:1], lambda ctx, g: g).apply(x)
            x.add_(1)
            return y.grad_fn

        both_raise(code, match="its base or another view of its base has been")

    @pytest.mark.parametrize(
        ("methods", "match"),
        [
            ({}, "must implement the forward"),
            ({"forward": lambda ctx, x: x * 2}, "either the backward or vjp"),
            (
                {
                    "forward": lambda ctx, x: x * 2,
                    "backward": lambda ctx, g: g,
                    "vjp": lambda ctx, g: g,
                },
                "both 'backward' and 'vjp'",
            ),
        ],
    )
    def test_missing_methods(self, methods: Any, match: str) -> None:
        def code(t: Any) -> Any:
            made = {k: staticmethod(f) for k, f in methods.items()}
            type("Mine", (t.autograd.Function,), made).apply(leaf(t, 1.0)).backward()

        both_raise(code, match=match)

    def test_an_instance_cannot_be_called(self) -> None:
        def code(t: Any) -> Any:
            with pytest.warns(DeprecationWarning, match="should not be instantiated"):
                made = cube(t)()
            made(leaf(t, 1.0))

        both_raise(code, match="Legacy autograd function")
