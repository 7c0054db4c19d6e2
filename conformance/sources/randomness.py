"""Calls that draw random numbers, written as calls that do not: the drawn numbers are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from conformance.errors import CaptureError
from conformance.sources.trees import tensors_of

# out = x * mask, where mask is what the call gives for ones
_MASKED: dict[str, Callable[..., torch.Tensor]] = {
    "torch.dropout": torch.dropout,
    "torch.feature_dropout": torch.feature_dropout,
    "torch.nn.functional.dropout": F.dropout,
    "torch.nn.functional.dropout1d": F.dropout1d,
    "torch.nn.functional.dropout2d": F.dropout2d,
    "torch.nn.functional.dropout3d": F.dropout3d,
}
_POOLED = {
    "torch.nn.functional.fractional_max_pool2d": 2,
    "torch.nn.functional.fractional_max_pool3d": 3,
    "torch.nn.functional.fractional_max_pool2d_with_indices": 2,
    "torch.nn.functional.fractional_max_pool3d_with_indices": 3,
}
_DRAWN_IN_PLACE = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_"}
_DRAWN_IN_PLACE |= {"random_", "uniform_"}


@dataclass(frozen=True)
class Drawn:
    """The call that gives the same result from the drawn numbers."""

    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def generators() -> tuple[torch.Generator, ...]:
    """Those that a call may draw from unasked: torch's own, and a GPU's where it is in use."""
    there = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    return (torch.default_generator, *there)


@dataclass(frozen=True)
class State:
    """Of these generators."""

    generators: tuple[torch.Generator, ...]
    states: tuple[torch.Tensor, ...]

    @classmethod
    def now(cls) -> State:
        """As they are."""
        found = generators()
        return cls(found, tuple(g.get_state() for g in found))

    @property
    def left(self) -> bool:
        """Whether any has been drawn from since."""
        pairs = zip(self.generators, self.states, strict=True)
        return any(not torch.equal(g.get_state(), s) for g, s in pairs)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw from here once more, and leave the generators as they were found."""
        found = [g.get_state() for g in self.generators]
        try:
            for generator, state in zip(self.generators, self.states, strict=True):
                generator.set_state(state)
            yield
        finally:
            for generator, state in zip(self.generators, found, strict=True):
                generator.set_state(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw as after `torch.manual_seed(seed)`, and leave the generators as they were found."""
    with State.now().again():
        for generator in generators():
            generator.manual_seed(seed)
        yield


def explain(
    target: str,
    state: State,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Any,
) -> Drawn | None:
    """How a random call's result follows from its arguments and the numbers that it drew.

    `state` is that of before the call. None: it does not depend on an argument
    differentiably. Raises CaptureError where the drawn numbers cannot be told apart.
    """
    name = target.rpartition(".")[2]
    method = target.startswith("torch.Tensor.") and name in _DRAWN_IN_PLACE
    if method or target.startswith("torch.nn.init."):
        return Drawn("torch.Tensor.copy_", (result, result.detach().clone()))
    if not any(t.requires_grad for t in tensors_of(result)):
        return None
    if target in _MASKED and isinstance(result, torch.Tensor) and not _in_place(args, kwargs):
        x = args[0] if args else kwargs["input"]
        rest = {key: value for key, value in kwargs.items() if key != "input"}
        with state.again(), torch.no_grad():
            mask = _MASKED[target](torch.ones_like(x), *args[1:], **rest)
        return Drawn("torch.mul", (x, mask))
    if target in _POOLED:
        x = args[0] if args else kwargs["input"]
        batch = x.shape[0] if x.dim() == _POOLED[target] + 2 else 1
        with state.again():
            channels = x.shape[-1 - _POOLED[target]]
            samples = torch.rand(batch, channels, _POOLED[target], dtype=x.dtype, device=x.device)
        return Drawn(target, args, {**kwargs, "_random_samples": samples})
    raise CaptureError(
        f"random: {target} draws numbers inside, which cannot be recorded; "
        "use eval mode, or a dropout of 0"
    )


def _in_place(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("inplace")) or (len(args) > 3 and bool(args[3]))
