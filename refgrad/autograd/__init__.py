"""torch.autograd: gradients of recorded computations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.autograd import forward_ad as forward_ad
from refgrad.autograd import functional as functional
from refgrad.autograd.backward import accumulate, walk
from refgrad.autograd.function import Function
from refgrad.levels import levels
from refgrad.mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
    state,
)
from refgrad.ops.arrays import as_array
from refgrad.ops.forward import detached
from refgrad.tensor import Tensor, tensors_of, wrap

__all__ = [
    "Function",
    "backward",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    inputs: Any = None,
) -> None:
    """Add the gradients of `tensors`, contracted with `grad_tensors`, to `.grad` of the leaves.

    `grad_tensors` are cotangents, each of its tensor's shape, None for a single element.
    With `inputs` only these tensors get a gradient. `create_graph` records the pass itself.

    Raises:
        RuntimeError: a root does not require grad, a cotangent is missing or misshapen, the graph
            was freed, or a saved tensor was written in place.
    """
    roots = tensors_of(tensors)
    starts = _starts(roots, grad_tensors, create_graph)
    wanted = None
    if inputs is not None:
        inputs = tensors_of(inputs)
        if not inputs:
            raise RuntimeError("'inputs' argument to backward() cannot be empty.")
        wanted = {_target(t) for t in inputs}
    grads = _walk(starts, wanted, retain_graph, create_graph, create_graph)
    if inputs is None:
        for target, g in grads.of.items():
            if isinstance(target, Tensor):
                accumulate(target, g, owned=target not in grads.shared, record=create_graph)
    else:
        for t in dict.fromkeys(inputs):
            g = grads.of.get(_target(t))
            if g is not None:
                owned = t._node is None and t not in grads.shared
                accumulate(t, g, owned=owned, record=create_graph)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs`, contracted with `grad_outputs`, with respect to `inputs`.

    Returns one tensor an input, of its shape and dtype; None for an unused one with
    `allow_unused`, zeros with `materialize_grads`.

    Raises:
        RuntimeError: as `backward`; an input does not require grad, or is unused.
        ValueError: `materialize_grads` with `allow_unused=False`.
    """
    if is_grads_batched:
        raise NotImplementedError("is_grads_batched: call grad once for each cotangent")
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True"
        )
    roots, leaves = tensors_of(outputs), tensors_of(inputs)
    for t in leaves:
        if not t._requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    record = create_graph or bool(levels.visible)  # arrays have no tangents
    starts = _starts(roots, grad_outputs, record)
    grads = _walk(starts, {_target(t) for t in leaves}, retain_graph, create_graph, record)
    found: list[Any] = []
    for t in leaves:
        g = grads.of.get(_target(t))
        if g is None:
            if materialize_grads:
                g = wrap(np.zeros_like(t._array))
            elif not allow_unused:
                raise RuntimeError(
                    "One of the differentiated Tensors appears to not have been used in the graph. "
                    "Set allow_unused=True if this is the desired behavior."
                )
            found.append(g)
            continue
        complex_valued = t._array.dtype.kind == "c"
        if complex_valued:
            g = np.conj(g)
        if record:
            g = g if create_graph else detached(g)
        else:
            array = as_array(g)
            own = complex_valued or (t._node is None and t not in grads.shared)
            g = wrap(array if own else array.copy())
        for hook in tuple((t._hooks or {}).values()):
            changed = hook(g)
            g = g if changed is None else changed
        found.append(g)
    return tuple(found)


def _target(t: Tensor) -> Any:
    return t if t._node is None else t._node


def _walk(
    starts: list[tuple[Any, Any]],
    wanted: set[Any] | None,
    retain: bool | None,
    create_graph: bool,
    record: bool,
) -> Any:
    before, state.enabled = state.enabled, create_graph
    try:
        retain = create_graph if retain is None else retain
        return walk(starts, wanted=wanted, retain=retain, record=record)
    finally:
        state.enabled = before


def _starts(roots: Sequence[Tensor], cotangents: Any, record: bool) -> list[tuple[Any, Any]]:
    """Where a backward pass starts: each root's target and cotangent, conjugated if complex."""
    given = [None] * len(roots) if cotangents is None else list(tensors_of(cotangents))
    if len(given) != len(roots):
        raise RuntimeError(
            f"got {len(roots)} tensors and {len(given)} gradients: give one for each, or None"
        )
    starts = []
    for i, (root, cotangent) in enumerate(zip(roots, given, strict=True)):
        if not root._requires_grad:
            raise RuntimeError(
                f"element {i} of tensors does not require grad and does not have a grad_fn"
            )
        array = root._array
        if cotangent is None:
            if array.size != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            if array.dtype.kind == "c":
                raise RuntimeError(
                    "grad can be implicitly created only for real scalar outputs but got "
                    f"{root.dtype!r}"
                )
            seed: Any = np.ones_like(array)
            seed = wrap(seed) if record else seed
        else:
            if not isinstance(cotangent, Tensor):
                raise TypeError(
                    f"gradients can be either Tensors or None, but got {type(cotangent).__name__}"
                )
            if cotangent._array.shape != array.shape:
                raise RuntimeError(
                    f"Mismatch in shape: grad_output[{i}] has a shape of {cotangent.shape} and "
                    f"output[{i}] has a shape of {root.shape}."
                )
            if cotangent._array.dtype.kind == "c" and array.dtype.kind != "c":
                raise RuntimeError(
                    f"For complex Tensors, both grad_output and output are required to have the "
                    f"same dtype. Mismatch: {cotangent.dtype!r} and {root.dtype!r}"
                )
            seed = cotangent if record else cotangent._array
            if seed.dtype != (root.dtype if record else array.dtype):
                seed = cotangent.to(root.dtype) if record else seed.astype(array.dtype)
            if array.dtype.kind == "c":
                seed = np.conj(seed)
        starts.append((_target(root), seed))
    return starts
