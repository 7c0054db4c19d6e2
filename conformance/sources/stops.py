"""What a black box computes without gradient: detached, under no_grad, in a backward pass within.

And the rows of an embedding that `padding_idx` names.

By design autograd does not differentiate it, so a numerical derivative has to hold it constant: it
is recorded once, and put back when the function is evaluated at other points. What runs inside an
`autograd.Function` is without gradient too, and is left alone: its derivative is its backward. A
reentrant checkpoint is such a Function as well, and what it runs has its own derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import CheckpointFunction

from conformance.sources.as_written import AsWritten

_DETACH = torch.ops.aten.detach.default
_EMBEDDING = torch.ops.aten.embedding.default
_RENORM = torch.ops.aten.embedding_renorm_.default  # an embedding's weight, by max_norm
_OF_DATA = (torch.Tensor.detach_, torch.Tensor.data.__get__)  # type: ignore[attr-defined]
_LEAVING = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.item)
_STRAIGHT_THROUGH = (torch.nn.functional.gumbel_softmax,)  # they detach by intention inside
_BACKWARD = (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward)


class Stops:
    """The results that a function computed without gradient, in order."""

    def __init__(self) -> None:
        self.recorded: list[tuple[Any, list[torch.Tensor]] | None] = []

    def __bool__(self) -> bool:
        return any(self.recorded)

    @property
    def in_reverse_alone(self) -> bool:
        """Whether forward mode goes on at any: it stops where a tensor is detached alone."""
        return any(
            stop is not None and stop[0] is not _DETACH and stop[0] not in _OF_DATA
            for stop in self.recorded
        )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what runs inside."""
        with self._watching(again=False):
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """Give what runs inside the recorded results; RuntimeError where it takes another path."""
        with self._watching(again=True):
            yield

    @contextmanager
    def _watching(self, *, again: bool) -> Iterator[None]:
        with _counted() as running:
            watching = _Watching(self, running, again=again)
            with watching, _Calls(watching):
                yield


class _Watching(AsWritten, TorchDispatchMode):
    def __init__(self, stops: Stops, running: _Running, *, again: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stops, self.running, self.replays = stops, running, again
        self.next = 0
        self.stopped = self.detaches = False  # of the user's call that is running

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is _EMBEDDING and not self.running.functions and not self.stopped:
            return self._padded(func(*args, **(kwargs or {})), *args, **(kwargs or {}))
        written = args[0] if args and _writes(func) and isinstance(args[0], torch.Tensor) else None
        detaches = func is _DETACH and self.detaches
        counts = not self.running.functions and (self.stopped or detaches or func is _RENORM)
        before = written.clone() if written is not None and counts else None
        result = func(*args, **(kwargs or {}))
        if not counts:
            return result
        if not detaches and _is_view(func):  # what is computed of it counts
            return result
        leaves, structure = tree_flatten(result)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not self.replays:
            kept = [t.clone() for t in tensors]
            self.stops.recorded.append((func, kept if before is None else [*kept, before]))
            return result
        if before is not None:
            return self._written(func, result, before)
        same = self._following(func, tensors)
        if same is None:
            return result
        if detaches:  # it shares memory with what moves
            return same[0].to(tensors[0].dtype, copy=True)
        for tensor, value in zip(tensors, same, strict=True):
            tensor.copy_(value)  # in place: an operand may have been written into
        return tree_unflatten(leaves, structure)

    def _padded(
        self, result: torch.Tensor, weight: Any, indices: Any, padding_idx: int = -1, *_: Any
    ) -> torch.Tensor:
        """Embedded rows, of which those that are padding are as they were first."""
        padding = (indices == padding_idx).unsqueeze(-1)
        if padding_idx < 0 or not padding.any():
            return result
        if not self.replays:
            self.stops.recorded.append((_EMBEDDING, [result.clone()]))
            return result
        same = self._following(_EMBEDDING, [result])
        return result if same is None else torch.where(padding, same[0], result)

    def held(self, func: Any, result: torch.Tensor) -> torch.Tensor:
        """A tensor without its graph, of which no operation tells, as it was first."""
        if not self.replays:
            self.stops.recorded.append((func, [result.clone()]))
            return result
        same = self._following(func, [result])
        if same is None:
            return result
        if func == torch.Tensor.detach_:
            with torch.no_grad():
                return result.copy_(same[0])
        return same[0].clone()

    def _written(self, func: Any, result: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """What was written is held; what the operand had been moved by stays."""
        same = self._following(func, [result, before])
        if same is not None:
            result.copy_(same[0] + (before - same[1]) if before.is_floating_point() else same[0])
        return result

    def _following(self, func: Any, tensors: list[torch.Tensor]) -> list[torch.Tensor] | None:
        """What was recorded; None where that was no stop."""
        if self.next < len(self.stops.recorded):
            stop = self.stops.recorded[self.next]
            self.next += 1
            if stop is None:
                return None
            known, values = stop
            if known == func and [v.shape for v in values] == [t.shape for t in tensors]:
                return values
        raise RuntimeError("the function takes another path beside the point")


class _Calls(TorchFunctionMode):
    """Tells what of the user's calls runs without gradient.

    torch's own code is not asked: it detaches what it saves, and clamps a norm without gradient.
    Nor does a gradient stop by intention where a tensor is detached to leave torch, as for NumPy.
    """

    def __init__(self, watching: _Watching) -> None:
        super().__init__()
        self.watching = watching
        self.detached: dict[int, tuple[int, Any]] = {}  # by id: the stop's place, and the tensor

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        watching = self.watching
        detach = func in (torch.Tensor.detach, torch.detach)
        watching.detaches = detach or func in _STRAIGHT_THROUGH
        backward = func in _BACKWARD and not kwargs.get("create_graph")
        differentiable = torch.is_grad_enabled() or watching.running.checkpoints
        watching.stopped = detach or backward or not differentiable
        recorded = watching.stops.recorded
        before = len(recorded)
        if func in _LEAVING and args and id(args[0]) in self.detached:
            recorded[self.detached[id(args[0])][0]] = None
        if func in _OF_DATA and not watching.running.functions:
            return watching.held(func, func(*args, **kwargs))
        try:
            result = func(*args, **kwargs)
        finally:
            detaches, watching.detaches, watching.stopped = watching.detaches, False, False
        if detaches and not watching.replays and recorded:
            self.detached[id(result)] = len(recorded) - 1, result
            if func in _STRAIGHT_THROUGH:  # but for the last, what autograd saves is detached
                meant = bool(kwargs.get("hard", args[2] if len(args) > 2 else False))
                for place in range(before, len(recorded) - meant):
                    recorded[place] = None
        return result


@functools.cache
def _writes(func: Any) -> bool:
    """Whether it returns the first operand, which it has written into."""
    alias = func._schema.arguments[0].alias_info if func._schema.arguments else None
    return alias is not None and alias.is_write and len(func._schema.returns) == 1


@functools.cache
def _is_view(func: Any) -> bool:
    """Whether the result shares memory with an operand that is not written into."""
    aliases = [r.alias_info for r in func._schema.returns]
    return any(a is not None and not a.is_write for a in aliases)


@dataclass
class _Running:
    """How many calls of `apply` are running: of Functions, and of reentrant checkpoints."""

    functions: int = 0
    checkpoints: int = 0


@contextmanager
def _counted() -> Iterator[_Running]:
    """Count what runs inside."""
    running = _Running()
    base: Any = torch.autograd.function._SingleLevelFunction

    def counted_apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super(base, cls)
        kind = "checkpoints" if issubclass(cls, CheckpointFunction) else "functions"
        setattr(running, kind, getattr(running, kind) + 1)
        try:
            return parent.apply(*args, **kwargs)
        finally:
            setattr(running, kind, getattr(running, kind) - 1)

    with mock.patch.object(base, "apply", classmethod(counted_apply), create=True):
        yield running
