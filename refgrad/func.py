"""torch.func: transforms of functions, which compose with each other in any order.

A reverse transform (`grad`, `vjp`, `jacrev`) calls the function on tensors of its own and takes the
gradient with respect to these alone, so that nested ones keep their variables apart; a forward one
(`jvp`, `jacfwd`) opens a level of forward mode. Inputs and outputs are trees of tensors: tuples,
lists and dicts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad import autograd
from refgrad.autograd.backward import reachable
from refgrad.autograd.forward_ad import alias, dual
from refgrad.batching import vmap
from refgrad.graph import Node, Output
from refgrad.levels import enter, leave, levels
from refgrad.mode import enable_grad, state
from refgrad.ops.forward import detached, tangent
from refgrad.tensor import Tensor, wrap
from refgrad.trees import Spec, flatten, tree_map, unflatten

__all__ = [
    "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "vjp", "vmap",
]  # fmt: skip

Function = Callable[..., Any]
Argnums = int | tuple[int, ...]

# --- arguments -----------------------------------------------------------------------------------


def _chosen(args: tuple[Any, ...], argnums: Any) -> tuple[int, ...]:
    """The positions of the arguments to differentiate, from 0.

    Raises:
        RuntimeError: `argnums` is neither an int nor a tuple of distinct ints in range.
    """
    if not isinstance(argnums, (int, tuple)):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    places = []
    for i in argnums if isinstance(argnums, tuple) else (argnums,):
        if not isinstance(i, int):
            raise RuntimeError(f"argnum must be int, got: {type(i)}")
        if not -len(args) <= i < len(args):
            raise RuntimeError(f"Got argnum={i}, but only {len(args)} positional inputs")
        places.append(i % len(args))
    if not places:
        raise RuntimeError("argnums must be non-empty")
    if len(set(places)) != len(places):
        raise RuntimeError(f"argnums elements must be unique, got {argnums}")
    return tuple(places)


def _picked(args: tuple[Any, ...], argnums: Argnums | None) -> Any:
    """The arguments to differentiate, as one tree; with None all."""
    if argnums is None:
        return args
    places = _chosen(args, argnums)
    return args[places[0]] if isinstance(argnums, int) else tuple(args[i] for i in places)


def _replaced(args: tuple[Any, ...], argnums: Argnums | None, new: Any) -> tuple[Any, ...]:
    """`args` with `new` for what `_picked` takes of them."""
    if argnums is None:
        return tuple(new)
    places = _chosen(args, argnums)
    by_place = dict(zip(places, (new,) if isinstance(argnums, int) else new, strict=True))
    return tuple(by_place.get(i, a) for i, a in enumerate(args))


def _split_aux(output: Any, has_aux: bool, api: str) -> tuple[Any, Any]:
    if not has_aux:
        return output, None
    if not (isinstance(output, tuple) and len(output) == 2):
        raise RuntimeError(
            f"{api}: output of function f should be a tuple: (output, aux) if has_aux is True"
        )
    return output


def _check_outputs(flat: Sequence[Any], api: str) -> None:
    if not flat or (len(flat) == 1 and flat[0] is None):
        raise RuntimeError(
            f"{api}: Expected f to be a function that has non-empty output (got output = {flat})"
        )
    for o in flat:
        if not isinstance(o, Tensor):
            raise RuntimeError(
                f"{api}: expected f(*primals) to return only tensors, got unsupported type "
                f"{type(o)}"
            )


def _check_real(api: str, tree: Any, which: str) -> None:
    for i, t in enumerate(flatten(tree)[0]):
        if isinstance(t, Tensor) and t.is_complex():
            raise RuntimeError(
                f"{api}: Expected all {which} to be real but received complex tensor at flattened "
                f"input idx: {i}"
            )


# --- reverse mode --------------------------------------------------------------------------------


class _Run:
    """One call of a function by a reverse transform, and the graph that it left.

    The function gets tensors of this run's own: on the memory of the given ones, and linked to them
    where these take part in an outer derivative.
    """

    def __init__(self, function: Function, args: tuple[Any, ...], argnums: Argnums | None,
                 kwargs: dict[str, Any]) -> None:  # fmt: skip
        self.outer = state.enabled  # whether what this run returns is to be recorded
        flat, self.spec = flatten(_picked(args, argnums))
        self.inputs = [self._own(t) for t in flat]
        self.leaves = {id(t) for t in self.inputs}
        with enable_grad():
            own = unflatten(self.inputs, self.spec)
            self.output = function(*_replaced(args, argnums, own), **kwargs)

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
                for target, *_ in node.links:
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
        run = _Run(func, args, argnums, kwargs)
        output, aux = _split_aux(run.output, has_aux, api)
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
    run, flat, spec, aux = _vjp(func, primals, None, has_aux)

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


def _vjp(
    func: Function, args: tuple[Any, ...], argnums: Argnums | None, has_aux: bool
) -> tuple[_Run, list[Any], Spec, Any]:
    """The run of `func`, its outputs and their structure, and what it returned besides."""
    api = "vjp(f, *primals)"
    run = _Run(func, args, argnums, {})
    output, aux = _split_aux(run.output, has_aux, api)
    flat, spec = flatten(output)
    _check_outputs(flat, api)
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
        _check_real("jacrev", args, "inputs")
        run, flat, spec, aux = _vjp(func, args, argnums, has_aux)
        _check_real("jacrev", flat, "outputs")
        record = run.leads_out(flat)
        blocks = []
        for o in flat:
            rows = [run.pull([o], [e], retain=True, record=record) for e in _basis(o)]
            blocks.append(
                unflatten(
                    [_stacked([row[j] for row in rows], o, t) for j, t in enumerate(run.inputs)],
                    run.spec,
                )
            )
        jacobian = unflatten(blocks, spec)
        return (jacobian, aux) if has_aux else jacobian

    return wrapped


def _basis(t: Any) -> list[Any]:
    """The tensors like `t` with a single one and zeros else."""
    size, shape, dtype = t._array.size, t._array.shape, t._array.dtype
    return [wrap((np.arange(size) == i).astype(dtype).reshape(shape)) for i in range(size)]


def _stacked(rows: list[Any], output: Any, input: Any) -> Any:
    """The gradients of each element of `output` as one tensor."""
    shape = output._array.shape + input._array.shape
    if not rows:
        return wrap(np.zeros(shape, dtype=input._array.dtype))
    return np.reshape(np.stack(rows), shape)


# --- forward mode --------------------------------------------------------------------------------

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
        output, aux = _split_aux(func(*unflatten(duals, spec)), has_aux, _JVP)
        outputs, out_spec = flatten(output)
        _check_outputs(outputs, _JVP)
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
        _check_real("jacfwd", args, "inputs")
        flat, spec = flatten(_picked(args, argnums))

        def of_chosen(*chosen: Any) -> Any:
            return func(*_replaced(args, argnums, chosen[0]))

        outputs: list[Any] = []
        columns: list[list[list[Any]]] = []
        out_spec, aux = Spec(), None
        for i, t in enumerate(flat):
            made = []
            for e in _basis(t):
                directions = [e if j == i else None for j in range(len(flat))]
                outputs, tangents, out_spec, aux = _pushed(
                    of_chosen, flat, Spec(tuple, (), (spec,)), directions, has_aux
                )
                _check_real("jacfwd", outputs, "outputs")
                made.append([_or_zeros(d, o) for d, o in zip(tangents, outputs, strict=True)])
            columns.append(made)
        if not outputs:  # no input has an element
            output, aux = _split_aux(func(*args), has_aux, _JVP)
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
        return wrap(np.zeros(shape, dtype=output._array.dtype))
    return np.reshape(np.stack(columns, -1), shape)


def hessian(func: Function, argnums: Argnums = 0) -> Function:
    """The function that gives the Hessian of `func`, as forward over reverse mode."""
    return jacfwd(jacrev(func, argnums), argnums)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """`(func(*primals), jvp_fn)`: `jvp_fn(*tangents)` is J tangents without a call of `func`.

    Raises:
        RuntimeError: (of `jvp_fn`) the tangents are not as the primals.
    """
    run, flat, spec, _ = _vjp(func, primals, None, False)
    seeds = [wrap(np.zeros_like(o._array)).requires_grad_() for o in flat]
    with enable_grad():  # linear in the seeds: what its own vjp transposes back
        pulled = run.pull(flat, seeds, retain=True, record=True)

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
        pairs = [(p, d) for p, d in zip(pulled, directions, strict=True) if p._requires_grad]
        results: Sequence[Any] = [None] * len(flat)
        if pairs:
            results = autograd.grad(
                [p for p, _ in pairs], seeds, [d for _, d in pairs], retain_graph=True,
                create_graph=state.enabled and run.leads_out([*flat, *directions]),
                allow_unused=True,
            )  # fmt: skip
        return unflatten([_or_zeros(t, o) for t, o in zip(results, flat, strict=True)], spec)

    return unflatten([run.result(o) for o in flat], spec), jvp_fn
