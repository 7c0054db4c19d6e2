"""torch.autograd.functional: Jacobians, Hessians and their products with vectors.

Inputs and outputs are tensors or tuples of tensors. `create_graph` keeps the results
differentiable; `strict` makes it an error that a result does not depend on an input, where
otherwise zeros are given. `vectorize` is accepted and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad import autograd
from refgrad.autograd.forward_ad import alias, dual
from refgrad.autograd.strictness import (
    NO_GRAPH_FORWARD,
    NO_LOOP_FORWARD,
    NO_STRICT_FORWARD,
    NO_STRICT_VECTORIZED,
    check_depend,
    filled,
    forbidden,
)
from refgrad.levels import enter, leave
from refgrad.mode import enable_grad, set_grad_enabled, state
from refgrad.ops.forward import tangent
from refgrad.ops.placing import constant
from refgrad.tensor import Tensor, wrap

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Function = Callable[..., Any]
Tensors = tuple[Any, ...]

# --- tuples --------------------------------------------------------------------------------------


def _tuple(value: Any, what: str, function: str) -> tuple[bool, Tensors]:
    """Whether `value` is a tuple, and it as one.

    Raises:
        TypeError: it holds something else than tensors.
    """
    several = isinstance(value, tuple)
    values = value if several else (value,)
    for i, v in enumerate(values):
        if not isinstance(v, Tensor):
            where = f"the value at index {i}" if several else f"the given {what}"
            raise TypeError(
                f"The {what} given to {function} must be either a Tensor or a tuple of Tensors but "
                f"{where} has type {type(v)}."
            )
    return several, values


def _alone(values: Any, several: bool) -> Any:
    return values if several else values[0]


def _entered(inputs: Tensors, create_graph: bool, requires_grad: bool = True) -> Tensors:
    """New tensors on the memory of the inputs, which a function that uses both can tell apart."""
    return tuple(
        alias(t) if create_graph and t._requires_grad else t.detach().requires_grad_(requires_grad)
        for t in inputs
    )


def _left(results: Any, create_graph: bool) -> Any:
    """The results as the caller gets them: without history unless it is asked for."""
    if isinstance(results, Tensor):
        return results if create_graph else results.detach()
    return tuple(_left(r, create_graph) for r in results)


def _vector(v: Any, like: Tensors, several: bool, create_graph: bool, function: str) -> Tensors:
    """The vector of a product, which must be as `like`.

    Raises:
        RuntimeError: it is not.
    """
    _, vs = _tuple(v, "v", function)
    vs = _entered(vs, create_graph, requires_grad=False)
    if len(vs) != len(like):
        raise RuntimeError(
            f"v is a tuple of invalid length: should be {len(like)} but got {len(vs)}."
            if several
            else "The given v should contain a single Tensor."
        )
    for i, (a, b) in enumerate(zip(vs, like, strict=True)):
        if a.shape != b.shape:
            where = f"Entry {i} in " if several else ""
            raise RuntimeError(f"{where}v has invalid size: should be {b.shape} but got {a.shape}.")
    return vs


# --- gradients -----------------------------------------------------------------------------------


def _grad(
    outputs: Sequence[Any], inputs: Tensors, cotangents: Any = None, *,
    create_graph: bool = False, retain_graph: bool | None = None,
) -> Sequence[Any]:  # fmt: skip
    """autograd.grad for outputs of which some may be None or constant."""
    given = [None] * len(outputs) if cotangents is None else cotangents
    pairs = [
        (o, c) for o, c in zip(outputs, given, strict=True) if o is not None and o._requires_grad
    ]
    if not pairs:
        return (None,) * len(inputs)
    return autograd.grad(
        [o for o, _ in pairs], inputs, [c for _, c in pairs], allow_unused=True,
        create_graph=create_graph, retain_graph=retain_graph,
    )  # fmt: skip


def vjp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """`(func(*inputs), v^T J)`: v is as the outputs, and may be left out for a single element.

    Raises:
        TypeError: inputs, outputs or v are not tensors or tuples of them.
        RuntimeError: v does not fit; what `strict` refuses.
    """
    with enable_grad():
        several, xs = _tuple(inputs, "inputs", "vjp")
        xs = _entered(xs, create_graph)
        several_out, ys = _tuple(func(*xs), "outputs of the user-provided function", "vjp")
        check_depend(ys, "outputs", strict)
        vs: Any = None
        if v is not None:
            vs = _vector(v, ys, several_out, create_graph, "vjp")
        elif len(ys) != 1 or ys[0].numel() != 1:
            raise RuntimeError(
                "The vector v can only be None if the user-provided function returns a single "
                "Tensor with a single element."
            )
    with set_grad_enabled(create_graph or state.enabled):
        found = _grad(ys, xs, vs, create_graph=create_graph)
        product = filled(found, xs, strict, create_graph, "back")
    return (
        _alone(_left(ys, create_graph), several_out),
        _alone(_left(product, create_graph), several),
    )


def jvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """`(func(*inputs), J v)`, by two backward passes: v is as the inputs.

    Raises as `vjp`.
    """
    with enable_grad():
        several, xs = _tuple(inputs, "inputs", "jvp")
        xs = _entered(xs, create_graph)
        vs = _direction(v, xs, several, create_graph, "jvp")
        several_out, ys = _tuple(func(*xs), "outputs of the user-provided function", "jvp")
        check_depend(ys, "outputs", strict)
        seeds = _seeds(ys)  # the pass is linear in them: their values do not matter
        pulled = _grad(ys, xs, seeds, create_graph=True)
        check_depend(pulled, "grad_inputs", strict)
    with set_grad_enabled(create_graph or state.enabled):
        found = _grad(pulled, seeds, vs, create_graph=create_graph)
        product = filled(found, ys, strict, create_graph, "back_trick")
    return (
        _alone(_left(ys, create_graph), several_out),
        _alone(_left(product, create_graph), several_out),
    )


def _direction(v: Any, xs: Tensors, several: bool, create_graph: bool, function: str) -> Any:
    """`v`, as the inputs; None for a single element."""
    if v is not None:
        return _vector(v, xs, several, create_graph, function)
    if len(xs) != 1 or xs[0].numel() != 1:
        raise RuntimeError(
            "The vector v can only be None if the input to the user-provided function is a single "
            "Tensor with a single element."
        )
    return None


def _seeds(like: Tensors) -> Tensors:
    return tuple(wrap(np.zeros_like(t._array)).requires_grad_() for t in like)


# --- Jacobians and Hessians ----------------------------------------------------------------------


def jacobian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func`: for output i and input j the shape of i and then that of j.

    A tuple for each that is a tuple, outputs first. `strategy` is "reverse-mode" or "forward-mode".

    Raises as `vjp`, and:
        NotImplementedError: "forward-mode" with `create_graph` or without `vectorize`, as PyTorch.
    """
    assert strategy in ("forward-mode", "reverse-mode"), (
        'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function '
        'has more outputs than inputs, "forward-mode" tends to be more performant. Otherwise, '
        'prefer to use "reverse-mode".'
    )
    if strategy == "forward-mode":
        if create_graph:
            raise NotImplementedError(NO_GRAPH_FORWARD)
        if strict:
            raise RuntimeError(NO_STRICT_FORWARD)
        if not vectorize:
            raise NotImplementedError(NO_LOOP_FORWARD)
        return _by_columns(func, inputs)
    with enable_grad():
        several, xs = _tuple(inputs, "inputs", "jacobian")
        xs = _entered(xs, create_graph)
        several_out, ys = _tuple(func(*xs), "outputs of the user-provided function", "jacobian")
        check_depend(ys, "outputs", strict)
        if vectorize and strict:
            raise RuntimeError(NO_STRICT_VECTORIZED)
        rows = tuple(_rows(i, y, xs, create_graph, strict) for i, y in enumerate(ys))
    made = tuple(_alone(row, several) for row in _left(rows, create_graph))
    return _alone(made, several_out)


def _rows(i: int, y: Any, xs: Tensors, create_graph: bool, strict: bool) -> Tensors:
    """The Jacobian of output `i` with respect to each input, an element of the output at a time."""
    made: list[list[Any]] = [[] for _ in xs]
    flat = y.reshape(-1)
    for k in range(y.numel()):
        found = _grad((flat[k],), xs, create_graph=create_graph, retain_graph=True)
        for j, (g, x) in enumerate(zip(found, xs, strict=True)):
            if g is None and strict:
                which = f"Output {i} of the user-provided function is independent of input {j}."
                raise RuntimeError(forbidden(which))
            if g is not None and strict and create_graph and not g._requires_grad:
                raise RuntimeError(
                    f"The jacobian of the user-provided function is independent of input {i}. This "
                    "is not allowed in strict mode when create_graph=True."
                )
            made[j].append(wrap(np.zeros_like(x._array)) if g is None else g)
    return tuple(
        np.reshape(np.stack(gs), y._array.shape + x._array.shape)
        if gs
        else wrap(np.zeros_like(x._array, shape=y._array.shape + x._array.shape))
        for gs, x in zip(made, xs, strict=True)
    )


def _by_columns(func: Function, inputs: Any) -> Any:
    """The Jacobian by forward mode, an element of the inputs at a time."""
    several, xs = _tuple(inputs, "inputs", "jacobian")
    columns: list[list[Tensors]] = []
    several_out = False
    ys: Tensors = ()
    for j, x in enumerate(xs):
        columns.append([])
        for k in range(x.numel()):
            one = (np.arange(x.numel()) == k).astype(x._array.dtype).reshape(x._array.shape)
            e = constant(one, x)
            level = enter()
            try:
                given = tuple(dual(t, e, level) if i == j else t for i, t in enumerate(xs))
                several_out, ys = _tuple(func(*given), "outputs", "jacobian")
                columns[j].append(tuple(tangent(y, level) for y in ys))
            finally:
                leave(level)
    made = []
    for i, y in enumerate(ys):
        row = [_side_by_side([c[i] for c in columns[j]], y, x) for j, x in enumerate(xs)]
        made.append(_alone(tuple(row), several))
    return _alone(tuple(made), several_out)


def _side_by_side(columns: list[Any], y: Any, x: Any) -> Any:
    zeros = wrap(np.zeros_like(y._array))
    stacked = np.stack([zeros if c is None else c for c in columns], -1)
    return np.reshape(stacked, y._array.shape + x._array.shape)


def hessian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of `func`, which returns a single element: the Jacobian of its Jacobian.

    Raises as `jacobian`, and RuntimeError where `func` returns something else.
    """
    several, _ = _tuple(inputs, "inputs", "hessian")
    assert outer_jacobian_strategy in ("forward-mode", "reverse-mode"), (
        'Expected strategy to be either "forward-mode" or "reverse-mode".'
    )

    def single(*xs: Any) -> Any:
        return _single(func(*xs), "hessian", strict).reshape(())

    def gradient(*xs: Any) -> Any:
        if outer_jacobian_strategy == "forward-mode":
            xs = tuple(x.requires_grad_() for x in xs)
        rows = jacobian(single, xs, create_graph=True)
        check_depend(rows, "jacobian", strict)
        return rows

    found = jacobian(
        gradient, inputs, create_graph, strict, vectorize, strategy=outer_jacobian_strategy
    )
    return found if several else found[0]


def _single(output: Any, function: str, strict: bool) -> Any:
    """The output of a scalar function.

    Raises:
        RuntimeError: it is not a single tensor of a single element.
    """
    several, ys = _tuple(output, "outputs of the user-provided function", function)
    check_depend(ys, "outputs", strict)
    if several:
        raise RuntimeError(f"The function given to {function} should return a single Tensor")
    if ys[0].numel() != 1:
        raise RuntimeError(
            f"The Tensor returned by the function given to {function} should contain a single "
            "element"
        )
    return ys[0]


def vhp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """`(func(*inputs), v^T H)` of a function that returns a single element: v is as the inputs.

    Raises as `hessian`.
    """
    with enable_grad():
        several, xs = _tuple(inputs, "inputs", "vhp")
        xs = _entered(xs, create_graph)
        vs = _direction(v, xs, several, create_graph, "vhp")
        y = _single(func(*xs), "vhp", strict)
        gradient = _grad((y,), xs, create_graph=True)
        check_depend(gradient, "jacobian", strict)
    with set_grad_enabled(create_graph or state.enabled):
        found = _grad(gradient, xs, vs, create_graph=create_graph)
        product = filled(found, xs, strict, create_graph, "double_back")
    return _left(y, create_graph), _alone(_left(product, create_graph), several)


def hvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """`(func(*inputs), H v)` of a function that returns a single element: v is as the inputs.

    Raises as `hessian`.
    """
    with enable_grad():
        several, xs = _tuple(inputs, "inputs", "hvp")
        xs = _entered(xs, create_graph)
        vs = _direction(v, xs, several, create_graph, "hvp")
        y = _single(func(*xs), "hvp", strict)
        gradient = _grad((y,), xs, create_graph=True)
        check_depend(gradient, "jacobian", strict)
        seeds = _seeds(xs)
        pulled = _grad(gradient, xs, seeds, create_graph=True)
    with set_grad_enabled(create_graph or state.enabled):
        found = _grad(pulled, seeds, vs, create_graph=create_graph)
        product = filled(found, xs, strict, create_graph, "double_back_trick")
    return _left(y, create_graph), _alone(_left(product, create_graph), several)
