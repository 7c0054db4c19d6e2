"""Calls that draw random numbers, written as calls that do not: the drawn numbers are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from conformance.errors import CaptureError

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


def explain(
    target: str,
    state: torch.Tensor,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Any,
) -> Drawn | None:
    """How a random call's result follows from its arguments and the numbers that it drew.

    `state` is the generator's state before the call. None: it does not depend on an argument
    differentiably. Raises CaptureError where the drawn numbers cannot be told apart.
    """
    name = target.rpartition(".")[2]
    method = target.startswith("torch.Tensor.") and name in _DRAWN_IN_PLACE
    if method or target.startswith("torch.nn.init."):
        return Drawn("torch.Tensor.copy_", (result, result.detach().clone()))
    if not any(t.requires_grad for t in _tensors(result)):
        return None
    if target in _MASKED and isinstance(result, torch.Tensor) and not _in_place(args, kwargs):
        x = args[0] if args else kwargs["input"]
        rest = {key: value for key, value in kwargs.items() if key != "input"}
        with _again(state), torch.no_grad():
            mask = _MASKED[target](torch.ones_like(x), *args[1:], **rest)
        return Drawn("torch.mul", (x, mask))
    if target in _POOLED:
        x = args[0] if args else kwargs["input"]
        batch = x.shape[0] if x.dim() == _POOLED[target] + 2 else 1
        with _again(state):
            channels = x.shape[-1 - _POOLED[target]]
            samples = torch.rand(batch, channels, _POOLED[target], dtype=x.dtype)
        return Drawn(target, args, {**kwargs, "_random_samples": samples})
    raise CaptureError(
        f"random: {target} draws numbers inside, which cannot be recorded; "
        "use eval mode, or a dropout of 0"
    )


class _again:
    """Draw from `state` once more, and leave the generator as it was found."""

    def __init__(self, state: torch.Tensor) -> None:
        self.state = state

    def __enter__(self) -> None:
        self.now = torch.random.get_rng_state()
        torch.random.set_rng_state(self.state)

    def __exit__(self, *_: object) -> None:
        torch.random.set_rng_state(self.now)


def _in_place(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("inplace")) or (len(args) > 3 and bool(args[3]))


def _tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, tuple | list):
        return [t for item in tree for t in _tensors(item)]
    return [tree] if isinstance(tree, torch.Tensor) else []
