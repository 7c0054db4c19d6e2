"""Invariants of an engine's graph: kept graphs, `.grad`, hooks, cotangents on any memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from conformance.checks.base import Case
from conformance.checks.claims import Claim, Fault, Invariant, other_cotangents
from conformance.checks.compare import same
from conformance.checks.invariants_vjp import has_axes, ordered
from conformance.child import in_child
from conformance.engines.base import ALL
from conformance.engines.variants import Recording
from conformance.errors import EngineError, Unsupported
from conformance.oracles.pairs import gaussian
from conformance.oracles.torch_autograd import scale
from conformance.program import Array

UPDATING = ("batch_norm", "instance_norm")  # ops that update what they are given

Relaid = Callable[[np.random.Generator, Array], Array]


def create_graph(case: Case) -> Iterator[Claim]:
    """create_graph on and off; and on with cotangents that require grad, as a loss sends them."""
    expected = case.engine_vjp.gradients
    graph = _recorded(case)
    found = graph.arrays(graph.grad(graph.weighed(case.cotangents), create_graph=True))
    yield Claim(found, expected, "under create_graph=True")
    graph = _recorded(case)
    pairs = graph.weighed(case.cotangents)
    with graph.failures():
        for _, cotangent in pairs:
            cotangent.requires_grad_()
    found = graph.arrays(graph.grad(pairs, create_graph=True))
    yield Claim(found, expected, "under create_graph=True, with cotangents that require grad")


def retain_graph(case: Case) -> Iterator[Claim]:
    """A graph that is kept gives the same again."""
    graph = _recorded(case)
    pairs = graph.weighed(case.cotangents)
    first = graph.arrays(graph.grad(pairs, retain_graph=True))
    second = graph.arrays(graph.grad(pairs))
    yield Claim(first, case.engine_vjp.gradients, "under retain_graph=True")
    yield Claim(second, first, "in the second backward pass over a kept graph")


def subset(case: Case) -> Iterator[Claim]:
    """The gradients of some leaves, asked of autograd.grad without the others."""
    leaves = [i.name for i in case.program.leaves]
    rng = case.rng("subset")
    wanted = {leaves[int(rng.integers(len(leaves)))]}
    graph = _recorded(case)
    found = graph.arrays(graph.grad(graph.weighed(case.cotangents), wanted))
    expected = {n: g for n, g in case.engine_vjp.gradients.items() if n in wanted}
    yield Claim(found, expected, f"of {', '.join(wanted)} asked for alone")


def flipped_inputs(case: Case) -> Iterator[Claim]:
    """Leaves that the function reads through a flip (where an engine can, by negative strides)."""
    names = [i.name for i in case.program.leaves if i.storage is None]
    graph = Recording(case.engine, case.program, case.values, flipped=names)
    gradients = graph.arrays(graph.grad(graph.weighed(case.cotangents)))
    turned = {n: np.flip(g) if g is not None and n in names else g for n, g in gradients.items()}
    yield Claim(turned, case.engine_vjp.gradients, "with leaves that are read through a flip")


def flipped_cotangents(case: Case) -> Iterator[Claim]:
    """Cotangents that come through a flip of the outputs."""
    graph = _recorded(case)
    pairs = []
    for number, (output, cotangent) in enumerate(graph.weighed(case.cotangents)):
        weight = graph.flip(cotangent) if number % 2 == 0 else cotangent
        pairs.append((graph.flip(output) if number % 2 == 0 else output, weight))
    found = graph.arrays(graph.grad(pairs))
    yield Claim(found, case.engine_vjp.gradients, "with the outputs read through a flip")


def relaid_cotangents(relaid: Relaid, said: str, case: Case) -> Iterator[Claim]:
    """Cotangents on another memory, against copies of the same numbers."""
    rng = case.rng("cotangents", said)
    laid = [None if c is None else relaid(rng, c) for c in case.cotangents]
    dense = [None if c is None else np.ascontiguousarray(c).reshape(c.shape) for c in laid]
    same = all(
        a is None or b is None or np.array_equal(a, b, equal_nan=True)
        for a, b in zip(dense, case.cotangents, strict=True)
    )
    base = case.engine_vjp if same else case.engine.vjp(case.program, case.values, dense)
    graph = _recorded(case)
    found = graph.arrays(graph.grad(graph.weighed(laid, laid=True)))
    yield Claim(found, base.gradients, said)


def _transposed(rng: np.random.Generator, array: Array) -> Array:
    return _in(array, ordered(array.shape, rng))


def _strided(rng: np.random.Generator, array: Array) -> Array:
    wide = np.full((*array.shape, 2), np.nan, array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


def expanded_cotangents(case: Case) -> Iterator[Claim]:
    """One number for all entries, with strides of 0, as the backward pass of a sum makes it.

    And a number for each place along one axis: of one number alone softmax has the gradient 0.
    """
    shapes = [c.shape for c in case.cotangents if c is not None]
    rank = max(map(len, shapes))
    axes = [a for a in range(rank) if any(len(s) > a and s[a] > 1 for s in shapes)]
    for axis in (None, *(axes if len(axes) > 1 else ())):
        said = "with cotangents that are expanded" + (
            "" if axis is None else f" but for axis {axis}"
        )
        yield from relaid_cotangents(partial(_expanded, axis), said, case)


def _expanded(axis: int | None, rng: np.random.Generator, array: Array) -> Array:
    along = range(array.ndim)
    count = 1 if axis is None or axis not in along else array.shape[axis]
    strides = tuple(array.itemsize if a == axis else 0 for a in along)
    return as_strided(gaussian(rng, (count,), array.dtype), array.shape, strides)


def _in(array: Array, strides: tuple[int, ...]) -> Array:
    memory = np.zeros(array.size, array.dtype)
    view = as_strided(memory, array.shape, tuple(s * array.itemsize for s in strides))
    view[...] = array
    return view


def unmodified(case: Case) -> Iterator[Fault]:
    """No input is changed, and by the backward pass no output and no cotangent either."""
    if case.mutated:
        yield Fault(f"the values of {', '.join(case.mutated)} changed", case.mutated[0])
        return
    graph = _recorded(case)
    pairs = graph.weighed(case.cotangents)

    def state() -> dict[str, Array | None]:
        tensors = dict(graph.inputs)
        tensors |= {f"output {n}": t for n, t in enumerate(graph.outputs)}
        tensors |= {f"cotangent {n}": c for n, (_, c) in enumerate(pairs)}
        return graph.arrays(tensors)

    if not any(call.in_place for call in case.program.calls):
        given = {n: t for n, t in graph.arrays(dict(graph.inputs)).items() if t is not None}
        meant = _statistics(case)
        written = [n for n, array in given.items() if not same(array, case.values[n])]
        written = [n for n in written if n not in meant]
        if written:
            yield Fault(f"the forward changed the values of {', '.join(written)}", written[0])
            return
    before = state()
    graph.grad(pairs)
    after = state()
    changed = [n for n, array in before.items() if not same(array, after[n])]
    if changed:
        yield Fault(f"the backward pass changed the values of {', '.join(changed)}", changed[0])


def form(case: Case) -> Iterator[Fault]:
    """A gradient has the dtype, the shape and the device of its leaf, and no graph."""
    graph = _recorded(case)
    for name, gradient in graph.grad(graph.weighed(case.cotangents)).items():
        if gradient is None:
            continue
        leaf = graph.inputs[name]
        for what in ("dtype", "shape", "device"):
            left, right = getattr(gradient, what), getattr(leaf, what)
            if left != right:
                left, right = (tuple(left), tuple(right)) if what == "shape" else (left, right)
                yield Fault(f"the {what} of the gradient is {left}, the leaf's {right}", name)
                return
        if gradient.requires_grad:
            yield Fault("the gradient requires grad without create_graph", name)
            return


def accumulated(case: Case) -> Iterator[Claim]:
    """Two backward passes leave twice the gradient in `.grad`."""
    graph = _recorded(case)
    graph.backward(graph.weighed(case.cotangents))
    once = graph.accumulated()
    yield Claim(once, case.engine_vjp.gradients, "in .grad after backward()")
    later = graph.again()
    later.backward(later.weighed(case.cotangents))
    double = {n: None if g is None else 2 * g for n, g in case.engine_vjp.gradients.items()}
    yield Claim(graph.accumulated(), double, "in .grad after two backward passes, beside twice it")


def preset_grad(case: Case) -> Iterator[Claim]:
    """backward() adds to the `.grad` that is there."""
    rng = case.rng("preset")
    graph = _recorded(case)
    given: dict[str, Array] = {}
    expected: dict[str, Array | None] = {}
    terms: dict[str, float] = {}
    for name, gradient in case.engine_vjp.gradients.items():
        if gradient is None or gradient.shape != case.values[name].shape:
            continue
        size = scale(gradient) or 1.0
        noise = gaussian(rng, gradient.shape, gradient.dtype)
        given[name] = np.asarray(size * noise, gradient.dtype)
        with np.errstate(all="ignore"):
            expected[name] = np.asarray(given[name] + gradient)
        terms[name] = scale(gradient) + scale(given[name])
    graph.preset({n: g.copy() for n, g in given.items()})
    graph.backward(graph.weighed(case.cotangents))
    found = {n: g for n, g in graph.accumulated().items() if n in expected}
    yield Claim(found, expected, "in a .grad that held something, beside the sum", terms)


def readable(case: Case) -> Iterator[Fault]:
    """Gradients, and theirs: one without memory is read in a process that may crash."""
    graph = _recorded(case)
    first = graph.grad(graph.weighed(case.cotangents), create_graph=True)
    second: dict[str, Any] = {}
    with suppress(EngineError, Unsupported):  # which second order tells
        second = graph.second(first, case.second.tangents)
    for what, tensors in (("gradient", first), ("gradient's gradient", second)):
        for name, tensor in tensors.items():
            if tensor is not None and graph.engine.memoryless(tensor) and _crashes(tensor):
                yield Fault(f"to read the {what} of {name} crashes the process", name)


def _crashes(tensor: Any) -> bool:
    return in_child(lambda: float(np.abs(tensor.numpy(force=True)).sum())) is None


def own_memory(case: Case) -> Iterator[Fault]:
    """A write into one leaf's `.grad` reaches no other tensor."""
    graph = _recorded(case)
    pairs = graph.weighed(case.cotangents)
    graph.backward(pairs)

    def state() -> dict[str, Array | None]:
        tensors = dict(graph.inputs)
        tensors |= {f"output {n}": t for n, t in enumerate(graph.outputs)}
        tensors |= {f"cotangent {n}": c for n, (_, c) in enumerate(pairs)}
        tensors |= {f"the .grad of {n}": leaf.grad for n, leaf in graph.leaves.items()}
        return graph.arrays(tensors)

    before = state()
    for number, (name, leaf) in enumerate(graph.leaves.items()):
        if leaf.grad is None or not before[name].size:  # type: ignore[union-attr]
            continue
        graph.overwrite(name, 1e6 + number)
        after = state()
        own = f"the .grad of {name}"
        reached = [n for n, a in before.items() if n != own and not same(a, after[n])]
        if reached:
            text = f"the .grad of {name} shares memory with {reached[0]}"
            yield Fault(text, name)
            return
        before = after


def batched(case: Case) -> Iterator[Claim]:
    """is_grads_batched, against one backward pass after the other."""
    other = other_cotangents(case, "batched")
    looped = [
        case.engine_vjp.gradients,
        case.engine.vjp(case.program, case.values, other).gradients,
    ]
    stacked = [
        None if c is None or d is None else np.stack([c, d])
        for c, d in zip(case.cotangents, other, strict=True)
    ]
    graph = _recorded(case)
    found = graph.arrays(graph.grad(graph.weighed(stacked), is_grads_batched=True))
    for number, expected in enumerate(looped):
        part = {n: None if g is None else g[number] for n, g in found.items()}
        yield Claim(part, expected, f"number {number} of a batch of cotangents")


def hooks(case: Case) -> Iterator[Claim | Fault]:
    """Hooks and retain_grad see the gradient of a result, once, after those of what is made of it.

    The gradients that they are to see are those that autograd.grad gives.
    """
    kept = case.engine.vjp(case.program, case.values, case.cotangents, keep=ALL).kept
    graph = _recorded(case)
    tensors: dict[int, tuple[str, Any]] = {}
    owner: dict[str, int] = {}
    for name, flat in [*((n, [t]) for n, t in graph.leaves.items()), *graph.results.items()]:
        if len(flat) == 1 and flat[0].requires_grad:
            tensors.setdefault(id(flat[0]), (name, flat[0]))
            owner[name] = id(flat[0])
    seen: list[tuple[str, Any]] = []
    for name, tensor in tensors.values():
        tensor.register_hook(partial(_saw, seen, name))
        if name in graph.results:
            tensor.retain_grad()
    graph.backward(graph.weighed(case.cotangents))
    retained = {n: t.grad for n, t in tensors.values() if n in graph.results}
    expected = {n: flat[0] for n, flat in kept.items() if n in retained}
    yield Claim(graph.arrays(retained), expected, "kept by retain_grad")
    leaves = {n: g for n, g in case.engine_vjp.gradients.items() if n in owner}
    met = graph.arrays({n: g for n, g in seen if n in expected or n in leaves})
    yield Claim(met, {**expected, **leaves}, "as a hook sees it")
    yield from _hooked_twice(case)
    order = [name for name, _ in seen]
    for name in dict.fromkeys(order):
        if order.count(name) > 1:
            yield Fault(f"the hook of {name} was called {order.count(name)} times", name)
            return
    place = {name: n for n, name in enumerate(order)}
    for call in case.program.calls:
        for ref in call.refs:
            if owner.get(ref.name) == owner.get(call.name):
                continue
            if place.get(call.name, -1) > place.get(ref.name, len(order)):
                text = f"the hook of {ref.name} was called before that of {call.name}"
                yield Fault(f"{text}, which is made of it", ref.name)
                return


def _saw(seen: list[tuple[str, Any]], name: str, gradient: Any) -> None:
    if gradient is not None:  # torch calls hooks with None for zeros that it has not made
        seen.append((name, gradient.detach().clone()))


def _hooked_twice(case: Case) -> Iterator[Claim]:
    """Two hooks on one leaf change its gradient in the order in which they were registered."""
    gradients = case.engine_vjp.gradients
    name = next((n for n, g in gradients.items() if g is not None and g.size), None)
    if name is None:
        return
    graph = _recorded(case)
    leaf = graph.leaves[name]
    leaf.register_hook(lambda g: g * 2)
    leaf.register_hook(lambda g: g + 1)
    graph.backward(graph.weighed(case.cotangents))
    right = gradients[name]
    assert right is not None
    expected = {name: right * 2 + 1}
    yield Claim(graph.arrays({name: leaf.grad}), expected, "after hooks that double and add 1")


def _recorded(case: Case) -> Recording:
    return Recording(case.engine, case.program, case.values)


def _statistics(case: Case) -> set[str]:
    """The inputs that a call is given to update: running statistics."""
    norms = [c for c in case.program.calls if any(name in c.target for name in UPDATING)]
    return {ref.name for call in norms for ref in call.refs}


def _output_axes(case: Case) -> bool:
    return any(c is not None and c.size > 1 for c in case.cotangents)


def _output_matrix(case: Case) -> bool:
    return any(c is not None and sum(n > 1 for n in c.shape) > 1 for c in case.cotangents)


def _no_writes(case: Case) -> bool:
    return not any(call.in_place for call in case.program.calls)


def _cotangents(name: str, relaid: Relaid, how: str, fits: Callable[[Case], bool]) -> Invariant:
    said = f"with cotangents {how}"
    claims = partial(relaid_cotangents, relaid, said)
    return Invariant(name, f"cotangents {how} give what copies of them give", claims, fits)


INVARIANTS = (
    Invariant("create_graph", "create_graph on and off agree", create_graph, twice=True),
    Invariant("retain_graph", "a kept graph gives the same again", retain_graph),
    Invariant(
        "subset",
        "a gradient does not depend on which others are asked for",
        subset,
        lambda case: len(case.program.leaves) > 1,
    ),
    Invariant(
        "flipped_inputs",
        "a leaf read through a flip has its gradient",
        flipped_inputs,
        has_axes,
        may_refuse=True,
    ),
    Invariant(
        "flipped_cotangents",
        "an output read through a flip gives the same",
        flipped_cotangents,
        _output_axes,
    ),
    _cotangents(
        "transposed_cotangents", _transposed, "whose axes lie in another order", _output_matrix
    ),
    _cotangents("strided_cotangents", _strided, "with gaps in memory", _output_axes),
    Invariant(
        "expanded_cotangents",
        "cotangents that are expanded give what copies of them give",
        expanded_cotangents,
        _output_axes,
    ),
    Invariant(
        "unmodified", "inputs, outputs and cotangents keep their values",
        unmodified,
    ),
    Invariant("form", "dtype, shape and device of a gradient are the leaf's", form),
    Invariant("accumulated", "backward() twice leaves twice the gradient", accumulated),
    Invariant("preset_grad", "backward() adds to the .grad that is there", preset_grad),
    Invariant(
        "readable",
        "a gradient, or a gradient's gradient, can be read",
        readable,
        of_engine=True,
    ),
    Invariant(
        "own_memory",
        "a .grad shares no memory with another tensor",
        own_memory,
        of_engine=True,
    ),
    Invariant(
        "batched",
        "a batch of cotangents gives what one after the other gives",
        batched,
        may_refuse=True,
    ),
    Invariant(
        "hooks",
        "hooks and retain_grad see the gradients, once and in order",
        hooks,
        _no_writes,
        of_engine=True,
    ),
)  # fmt: skip
