"""torch.autograd: gradients of recorded computations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.autograd import forward_ad as forward_ad
from refgrad.autograd import functional as functional
from refgrad.autograd.anomaly import detect_anomaly, set_detect_anomaly
from refgrad.autograd.backward import accumulate, accumulate_watched, walk
from refgrad.autograd.function import Function
from refgrad.autograd.hooks import changed, shown
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
from refgrad.ops.joining import stack
from refgrad.tensor import Tensor, tensors_of, wrap

__all__ = [
    "Function",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Add the gradients of `tensors`, contracted with `grad_tensors`, to `.grad` of the leaves.

    `grad_tensors` are cotangents, each of its tensor's shape, None for a single element.
    With `inputs` only these tensors get a gradient. `create_graph` records the pass itself.

    Raises:
        RuntimeError: a root does not require grad, a cotangent is missing or misshapen, the graph
            was freed, or a saved tensor was written in place.
    """
    if grad_variables is not None:
        warnings.warn(
            "`grad_variables` is deprecated. Use `grad_tensors` instead.",
            FutureWarning,
            stacklevel=2,
        )
        if grad_tensors is not None:
            raise RuntimeError(
                "`grad_tensors` and `grad_variables` (deprecated) arguments both passed to "
                "`backward()`. Please only use `grad_tensors`."
            )
        grad_tensors = grad_variables
    roots = _tensors(tensors)
    wanted = None
    if inputs is not None:
        inputs = _tensors(inputs)
        if not inputs:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
        if not all(t._requires_grad for t in inputs):
            raise RuntimeError("One of the inputs to backward() does not require grad")
        wanted = {_target(t) for t in inputs}
    before, state.enabled = state.enabled, create_graph
    try:
        grads = walk(
            _starts(roots, grad_tensors, create_graph),
            wanted=wanted,
            retain=create_graph if retain_graph is None else retain_graph,
            record=create_graph,
        )
        of, shared = grads.of, grads.shared
        if inputs is None:
            for leaf, g in of.items():
                if g is not None and isinstance(leaf, Tensor):
                    put = accumulate_watched if leaf._watched else accumulate
                    put(leaf, g, leaf not in shared, create_graph)
        else:  # what retains its gradient got it on the way
            leaves = {_target(t): t for t in inputs if t._retained is None}
            for target, leaf in leaves.items():
                if (g := of.get(target)) is not None:
                    put = accumulate_watched if leaf._watched else accumulate
                    put(leaf, g, leaf is target and target not in shared, create_graph)
    finally:
        state.enabled = before


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
    `allow_unused`, zeros with `materialize_grads`. With `is_grads_batched` the cotangents have a
    further first dimension, of several passes, and so have the results.

    Raises:
        RuntimeError: as `backward`; an input does not require grad, or is unused.
        ValueError: `materialize_grads` with `allow_unused=False`.
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False."
        )
    roots, leaves = _tensors(outputs), _tensors(inputs)
    if not leaves:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    for t in leaves:
        if not t._requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    retain = create_graph if retain_graph is None else retain_graph
    options = (create_graph, bool(allow_unused), materialize_grads)
    if is_grads_batched:
        return _batched(roots, leaves, grad_outputs, retain, options)
    return _gradients(roots, leaves, grad_outputs, retain, *options)


def _gradients(
    roots: Sequence[Tensor],
    leaves: Sequence[Tensor],
    cotangents: Any,
    retain: bool,
    create_graph: bool,
    allow_unused: bool,
    materialize: bool,
) -> tuple[Any, ...]:
    wanted = {_target(t): t for t in leaves}
    record = create_graph or bool(levels.visible)  # arrays have no tangents
    before, state.enabled = state.enabled, create_graph
    try:
        starts = _starts(roots, cotangents, record)
        grads = walk(starts, wanted=set(wanted), retain=retain, record=record)
        for target, t in wanted.items():
            if t._hooks and target in grads.of:
                grads.of[target] = changed(t._hooks, grads.of[target], record)
                grads.shared.add(target)
        found: list[Any] = []
        for t in leaves:
            target = _target(t)
            g = grads.of.get(target)
            if g is not None:
                made = shown(g, record)
                if record:
                    made = made if create_graph else detached(made)
                elif made._array is as_array(g) and (t._node is not None or target in grads.shared):
                    made = wrap(made._array.copy())
                grads.shared.add(target)
                found.append(made)
            elif materialize:
                found.append(wrap(np.zeros_like(t._array)))
                found[-1]._requires_grad = create_graph
            elif allow_unused:
                found.append(None)
            else:
                raise RuntimeError(
                    "One of the differentiated Tensors appears to not have been used in the graph. "
                    "Set allow_unused=True if this is the desired behavior."
                )
        return tuple(found)
    finally:
        state.enabled = before


def _batched(
    roots: Sequence[Tensor],
    leaves: Sequence[Tensor],
    cotangents: Any,
    retain: bool,
    options: tuple[bool, bool, bool],
) -> tuple[Any, ...]:
    """One pass for each cotangent of a batch, the results stacked."""
    batches = [None] * len(roots) if cotangents is None else _tensors(cotangents)
    for i, (b, t) in enumerate(zip(batches, roots, strict=True)):
        if b is not None and tuple(b.shape[1:]) != tuple(t.shape):
            raise RuntimeError(
                "If `is_grads_batched=True`, we interpret the first dimension of each grad_output "
                "as the batch dimension. The sizes of the remaining dimensions are expected to "
                f"match the shape of corresponding output, but a mismatch was detected: "
                f"grad_output[{i}] has a shape of {b.shape} and output[{i}] has a shape of "
                f"{t.shape}."
            )
    sizes = {b.shape[0] for b in batches if b is not None}
    if len(sizes) != 1:
        raise ValueError(f"the cotangents of a batch differ in number: {sorted(sizes)}")
    (n,) = sizes
    passes = [
        _gradients(
            roots,
            leaves,
            [None if b is None else b[i] for b in batches],
            retain or i < n - 1,
            *options,
        )
        for i in range(n)
    ]
    return tuple(None if g[0] is None else stack(g) for g in zip(*passes, strict=True))


def _tensors(values: Any) -> tuple[Any, ...]:
    """One Tensor or several as a tuple; a cotangent may be None.

    Raises:
        TypeError: something else is among them.
    """
    if isinstance(values, Tensor):
        return (values,)
    made = tensors_of(values)
    for t in made:
        if t is not None and not isinstance(t, Tensor):
            raise TypeError(f"expected a Tensor or several, but got {type(t).__name__}")
    return made


def _target(t: Tensor) -> Any:
    return t if t._node is None else t._node


def _starts(roots: Sequence[Tensor], cotangents: Any, record: bool) -> list[tuple[Any, Any]]:
    """Where a backward pass starts: each root's target and cotangent, conjugated if complex."""
    if len(roots) == 1 and (cotangents is None or isinstance(cotangents, Tensor)):  # 0.2 us less
        return [(_target(roots[0]), _seed(0, roots[0], cotangents, record))]
    given = (None,) * len(roots) if cotangents is None else tensors_of(cotangents)
    if len(given) != len(roots):
        raise RuntimeError(
            f"got {len(roots)} tensors and {len(given)} gradients: give one for each, or None"
        )
    starts = []
    for i, root in enumerate(roots):
        starts.append((_target(root), _seed(i, root, given[i], record)))
    return starts


def _seed(i: int, root: Tensor, cotangent: Any, record: bool) -> Any:
    """The gradient that a backward pass starts with at a root, the i-th."""
    if not root._requires_grad:
        raise RuntimeError(
            f"element {i} of tensors does not require grad and does not have a grad_fn"
        )
    array = root._array
    kind = array.dtype.kind
    if cotangent is None:
        if array.size != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        if kind == "c":
            raise RuntimeError(
                "grad can be implicitly created only for real scalar outputs but got "
                f"{root.dtype!r}"
            )
        seed = array.copy()
        seed.fill(1)  # a quarter of the time of `np.ones_like`
        return wrap(seed) if record else seed
    if not isinstance(cotangent, Tensor):
        raise TypeError(
            f"gradients can be either Tensors or None, but got {type(cotangent).__name__}"
        )
    given = cotangent._array
    if given.shape != array.shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[{i}] has a shape of {cotangent.shape} and "
            f"output[{i}] has a shape of {root.shape}."
        )
    if not type(given) is type(array) is np.ndarray and cotangent.device != root.device:
        raise RuntimeError(
            f"Mismatch in device: grad_output[{i}] is on {cotangent.device} and "
            f"output[{i}] is on {root.device}."
        )
    if given.dtype is not array.dtype:
        if given.dtype.kind == "c" and kind != "c":
            raise RuntimeError(
                f"For complex Tensors, both grad_output and output are required to have the "
                f"same dtype. Mismatch in dtype: grad_output[{i}] has a dtype of "
                f"{cotangent.dtype!r} and output[{i}] has a dtype of {root.dtype!r}."
            )
        if given.dtype != array.dtype:
            cotangent = cotangent.to(root.dtype)
    seed = cotangent if record else cotangent._array
    return np.conj(seed) if kind == "c" else seed
