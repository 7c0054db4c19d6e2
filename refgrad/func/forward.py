"""The forward transforms: each call of the function is at a level of forward mode of its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad import autograd
from refgrad.autograd.forward_ad import dual
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
from refgrad.func.reverse import jacrev, pulled
from refgrad.levels import enter, leave
from refgrad.mode import enable_grad, state
from refgrad.ops.forward import tangent
from refgrad.tensor import Tensor, wrap
from refgrad.trees import LEAF, Spec, flatten, unflatten

_JVP = "jvp(f, primals, tangents)"


def jvp(
    func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> Any:
    """`(func(*primals), J tangents)`, by forward mode.

    With `strict` an output that does not depend on the primals is an error; with `has_aux`, `func`
    returns a pair, of which the second is given back as a third.

    Raises:
        RuntimeError: primals and tangents differ in structure or shape, `func` returns other
            things than tensors.
    """
    if not isinstance(primals, tuple):
        raise RuntimeError(
            f"{_JVP}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals)."
        )
    flat, spec = flatten(primals)
    directions, found = flatten(tangents)
    if spec != found:
        raise RuntimeError(
            f"{_JVP}: Expected primals and tangents to have the same python structure. For "
            "example, if primals is a tuple of 3 tensors, tangents also must be. Got primals with "
            f"structure {spec} and tangents with structure {found}"
        )
    for name, ts in (("primals", flat), ("tangents", directions)):
        if not ts:
            raise RuntimeError(f"{_JVP}: Expected {name} to contain at least one Tensor.")
        for t in ts:
            if not isinstance(t, Tensor):
                raise RuntimeError(
                    f"{_JVP}: Expected {name} to only contain Tensors, got {type(t)}"
                )
    outputs, results, out_spec, aux = _pushed(func, flat, spec, directions, has_aux)
    if strict and any(t is None for t in results):
        raise RuntimeError(
            "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. "
            "This is not allowed with strict=True."
        )
    filled = [_or_zeros(t, o) for t, o in zip(results, outputs, strict=True)]
    made = unflatten(outputs, out_spec), unflatten(filled, out_spec)
    return (*made, aux) if has_aux else made


def _pushed(
    func: Function, flat: Sequence[Any], spec: Spec, directions: Sequence[Any], has_aux: bool
) -> tuple[list[Any], list[Any], Spec, Any]:
    """The outputs of `func`, their tangents or None, their structure, and what it returns besides.

    A direction None is none: that input has no tangent.
    """
    level = enter()
    try:
        duals = [
            t if d is None else dual(t, d, level) for t, d in zip(flat, directions, strict=True)
        ]
        output, aux = split_aux(func(*unflatten(duals, spec)), has_aux, _JVP)
        outputs, out_spec = flatten(output)
        check_outputs(outputs, _JVP)
        return outputs, [tangent(o, level) for o in outputs], out_spec, aux
    finally:
        leave(level)


def _or_zeros(t: Any, like: Any) -> Any:
    return wrap(np.zeros_like(like._array)) if t is None else t


def jacfwd(
    func: Function, argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Function:
    """The function that gives the Jacobian of `func` by forward mode, column by column.

    It is as that of `jacrev`. `func` is called once for each element of the inputs, so a random
    one (`randomness`) draws anew each time.

    Raises:
        RuntimeError: (when called) an input or an output is complex.
    """

    @functools.wraps(func)
    def wrapped(*args: Any) -> Any:
        check_real("jacfwd", args, "inputs")
        flat, spec = flatten(picked(args, argnums))

        def of_chosen(*chosen: Any) -> Any:
            return func(*replaced(args, argnums, chosen[0]))

        outputs: list[Any] = []
        columns: list[list[list[Any]]] = []
        out_spec, aux = LEAF, None
        for i, t in enumerate(flat):
            made = []
            for e in basis(t):
                directions = [e if j == i else None for j in range(len(flat))]
                outputs, tangents, out_spec, aux = _pushed(
                    of_chosen, flat, Spec(tuple, (), (spec,)), directions, has_aux
                )
                check_real("jacfwd", outputs, "outputs")
                made.append([_or_zeros(d, o) for d, o in zip(tangents, outputs, strict=True)])
            columns.append(made)
        if not outputs:  # no input has an element
            output, aux = split_aux(func(*args), has_aux, _JVP)
            outputs, out_spec = flatten(output)
        blocks = [
            unflatten(
                [_columns([c[k] for c in columns[i]], o, t) for i, t in enumerate(flat)], spec
            )
            for k, o in enumerate(outputs)
        ]
        jacobian = unflatten(blocks, out_spec)
        return (jacobian, aux) if has_aux else jacobian

    return wrapped


def _columns(columns: list[Any], output: Any, input: Any) -> Any:
    """The tangents of `output` along each element of `input` as one tensor."""
    shape = output._array.shape + input._array.shape
    if not columns:
        return wrap(np.zeros_like(output._array, shape=shape))
    return np.reshape(np.stack(columns, -1), shape)


def hessian(func: Function, argnums: Argnums = 0) -> Function:
    """The function that gives the Hessian of `func`, as forward over reverse mode."""
    return jacfwd(jacrev(func, argnums), argnums)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """`(func(*primals), jvp_fn)`: `jvp_fn(*tangents)` is J tangents without a call of `func`.

    Raises:
        RuntimeError: (of `jvp_fn`) the tangents are not as the primals.
    """
    run, flat, spec, _ = pulled(func, primals, None, False)
    seeds = [wrap(np.zeros_like(o._array)).requires_grad_() for o in flat]
    with enable_grad():  # linear in the seeds: what its own vjp transposes back
        gradients = run.pull(flat, seeds, retain=True, record=True)

    def jvp_fn(*tangents: Any) -> Any:
        directions, found = flatten(tangents)
        if found != run.spec:
            raise RuntimeError(
                f"Expected the tangents {found} to have the same argspec as the primals {run.spec}"
            )
        for i, (d, t) in enumerate(zip(directions, run.inputs, strict=True)):
            if d.shape != t.shape:
                raise RuntimeError(
                    f"tangent:{i} with shape {d.shape} in flattened pytree doesn't match the shape "
                    f"{t.shape} of the corresponding primal."
                )
        pairs = [(p, d) for p, d in zip(gradients, directions, strict=True) if p._requires_grad]
        results: Sequence[Any] = [None] * len(flat)
        if pairs:
            results = autograd.grad(
                [p for p, _ in pairs], seeds, [d for _, d in pairs], retain_graph=True,
                create_graph=state.enabled and run.leads_out([*flat, *directions]),
                allow_unused=True,
            )  # fmt: skip
        return unflatten([_or_zeros(t, o) for t, o in zip(results, flat, strict=True)], spec)

    return unflatten([run.result(o) for o in flat], spec), jvp_fn
