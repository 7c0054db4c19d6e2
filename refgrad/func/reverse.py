"""The reverse transforms: they call the function on tensors of their own, and go back once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad import autograd
from refgrad.autograd.backward import reachable
from refgrad.autograd.forward_ad import alias
from refgrad.func.arguments import (
    Argnums,
    Function,
    basis,
    check_outputs,
    check_real,
    picked,
    replaced,
    split_aux,
)
from refgrad.graph import Node, Output
from refgrad.levels import levels
from refgrad.mode import enable_grad, state
from refgrad.ops.forward import detached, tangent
from refgrad.tensor import Tensor, wrap
from refgrad.trees import Spec, flatten, tree_map, unflatten


class Run:
    """One call of a function by a reverse transform, and the graph that it left.

    The function gets tensors of this run's own: on the memory of the given ones, and linked to them
    where these take part in an outer derivative.
    """

    def __init__(self, function: Function, args: tuple[Any, ...], argnums: Argnums | None,
                 kwargs: dict[str, Any]) -> None:  # fmt: skip
        self.outer = state.enabled  # whether what this run returns is to be recorded
        flat, self.spec = flatten(picked(args, argnums))
        self.inputs = [self._own(t) for t in flat]
        self.leaves = {id(t) for t in self.inputs}
        with enable_grad():
            own = unflatten(self.inputs, self.spec)
            self.output = function(*replaced(args, argnums, own), **kwargs)

    def _own(self, t: Any) -> Tensor:
        if not isinstance(t, Tensor):
            raise ValueError(f"Thing passed to transform API must be Tensor, got {type(t)}")
        if self.outer and t._requires_grad:
            made: Tensor = alias(t)
            return made
        made = detached(t)
        return made.requires_grad_()

    def leads_out(self, tensors: Sequence[Any]) -> bool:
        """Whether these depend on a tensor that requires grad outside of this run."""
        if not self.outer:
            return False
        roots: list[Any] = []
        pending = list(tensors)
        while pending:
            t = pending.pop()
            if t._requires_grad:
                roots.append(t._node or t)
            pending += [v for n in levels.visible if (v := tangent(t, n)) is not None]
        targets = list(roots)
        for node in reachable(roots):
            if isinstance(node, Node):
                for target in node.targets:
                    targets += target if isinstance(target, tuple) else (target,)
        return any(
            t is not None and not isinstance(t, (Node, Output)) and id(t) not in self.leaves
            for t in targets
        )

    def result(self, t: Any) -> Any:
        """A tensor that the function made, as the caller gets it: without this run's graph."""
        if not isinstance(t, Tensor) or self.leads_out([t]):
            return t
        return detached(t)

    def pull(
        self, outputs: Sequence[Tensor], cotangents: Sequence[Any], *, retain: bool, record: bool
    ) -> list[Any]:
        """The gradients of the inputs; zeros for those that the outputs do not depend on."""
        pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o._requires_grad]
        found: Sequence[Any] = [None] * len(self.inputs)
        if pairs:
            found = autograd.grad(
                [o for o, _ in pairs], self.inputs, [c for _, c in pairs],
                retain_graph=retain, create_graph=record, allow_unused=True,
            )  # fmt: skip
        return [
            wrap(np.zeros_like(t._array)) if g is None else g
            for g, t in zip(found, self.inputs, strict=True)
        ]


def grad(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The function that gives the gradient of `func`, which returns a 0-d tensor.

    `argnums` says of which arguments; with `has_aux`, `func` returns a pair, of which the second
    is passed on: `(gradient, aux)`.

    Raises:
        RuntimeError: (when called) `func` returns something else than a 0-d tensor.
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


def grad_and_value(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The function that gives `(gradient, value)` of `func`; see `grad`.

    With `has_aux` it gives `(gradient, (value, aux))`.
    """
    api = "grad_and_value(f)(*args)"

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        run = Run(func, args, argnums, kwargs)
        output, aux = split_aux(run.output, has_aux, api)
        if not isinstance(output, Tensor):
            raise RuntimeError(f"{api}: Expected f(*args) to return a Tensor, got {type(output)}")
        if output.ndim:
            raise RuntimeError(
                f"{api}: Expected f(*args) to return a scalar Tensor, got tensor with "
                f"{output.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
            )
        record = run.leads_out([output])
        aux = tree_map(run.result, aux)
        gradient = unflatten(run.pull([output], [None], retain=record, record=record), run.spec)
        value = output if record else detached(output)
        return gradient, (value, aux) if has_aux else value

    return wrapped


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> Any:
    """`(func(*primals), vjp_fn)`: `vjp_fn(cotangents)` is the tuple of gradients of the primals.

    With `has_aux`, `func` returns a pair, of which the second is given back as a third.

    Raises:
        RuntimeError: `func` returns other things than floating or complex tensors; (of `vjp_fn`)
            the cotangents are not as the outputs.
    """
    run, flat, spec, aux = pulled(func, primals, None, has_aux)

    def vjp_fn(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        given, found = flatten(cotangents)
        if found != spec:
            raise RuntimeError(
                "Expected pytree structure of cotangents to be the same as pytree structure of "
                f"outputs to the function. cotangents: {found}, primal output: {spec}"
            )
        record = create_graph
        if record is None:
            record = state.enabled and run.leads_out([*flat, *given])
        return unflatten(run.pull(flat, given, retain=retain_graph, record=record), run.spec)

    results = unflatten([run.result(o) for o in flat], spec)
    return (results, vjp_fn, aux) if has_aux else (results, vjp_fn)


def pulled(
    func: Function, args: tuple[Any, ...], argnums: Argnums | None, has_aux: bool
) -> tuple[Run, list[Any], Spec, Any]:
    """The run of `func`, its outputs and their structure, and what it returned besides."""
    api = "vjp(f, *primals)"
    run = Run(func, args, argnums, {})
    output, aux = split_aux(run.output, has_aux, api)
    flat, spec = flatten(output)
    check_outputs(flat, api)
    for o in flat:
        if o._array.dtype.kind not in "fc":
            raise RuntimeError(
                "vjp(f, ...): All outputs of f must be floating-point or complex Tensors, got "
                f"Tensor with dtype {o.dtype!r}"
            )
    return run, flat, spec, tree_map(run.result, aux)


def jacrev(
    func: Function,
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Function:
    """The function that gives the Jacobian of `func` by reverse mode, row by row.

    In each output's place it has a tensor for each input, of the shape of the output and then that
    of the input. `chunk_size` is accepted and changes nothing.

    Raises:
        ValueError: `chunk_size` is not positive.
        RuntimeError: (when called) an input or an output is complex.
    """
    if not (chunk_size is None or chunk_size > 0):
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    @functools.wraps(func)
    def wrapped(*args: Any) -> Any:
        check_real("jacrev", args, "inputs")
        run, flat, spec, aux = pulled(func, args, argnums, has_aux)
        check_real("jacrev", flat, "outputs")
        record = run.leads_out(flat)
        blocks = []
        for o in flat:
            rows = [run.pull([o], [e], retain=True, record=record) for e in basis(o)]
            blocks.append(
                unflatten(
                    [_stacked([row[j] for row in rows], o, t) for j, t in enumerate(run.inputs)],
                    run.spec,
                )
            )
        jacobian = unflatten(blocks, spec)
        return (jacobian, aux) if has_aux else jacobian

    return wrapped


def _stacked(rows: list[Any], output: Any, input: Any) -> Any:
    """The gradients of each element of `output` as one tensor."""
    shape = output._array.shape + input._array.shape
    if not rows:
        return wrap(np.zeros_like(input._array, shape=shape))
    return np.reshape(np.stack(rows), shape)
