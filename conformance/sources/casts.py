"""The dtypes to which a function rounds on the way: which these are, and how it is without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Met(TorchDispatchMode):
    """The floating dtypes to which something more precise is rounded within; and implicit draws."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()
        self.implicit = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.implicit = self.implicit or func in _IMPLICITLY
        given = [_eps(t.dtype) for t in floating((args, kwargs))]
        if given:
            self.dtypes |= {t.dtype for t in floating(result) if _eps(t.dtype) > min(given)}
        return result

    def narrower(self, given: set[torch.dtype]) -> str:
        """The least precise of them by name; nothing where one of `given` is no more precise."""
        known = [_eps(d) for d in given if d.is_floating_point or d.is_complex]
        least = max(self.dtypes, key=_eps, default=None)
        if least is None or _eps(least) <= max(known, default=0.0):
            return ""
        return str(least).removeprefix("torch.")


_IMPLICITLY = (torch.ops.aten._standard_gamma.default, torch.ops.aten._sample_dirichlet.default)


class Widened(TorchFunctionMode):
    """What casts inside to a dtype of less precision than `given` have casts to theirs."""

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.eps = min((_eps(t.dtype) for t in floating(given)), default=1.0)
        self.double = self.eps < _eps(torch.float32)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = args, kwargs or {}
        if any(isinstance(leaf, torch.dtype) for leaf in tree_leaves(given)):
            given = tree_map(self._wide, given)
        if func in _CASTS and _eps(_CASTS[func]) > self.eps:
            return given[0][0].to(self._wide(_CASTS[func]))
        return func(*given[0], **given[1])

    def _wide(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.dtype) or not (leaf.is_floating_point or leaf.is_complex):
            return leaf
        if _eps(leaf) <= self.eps:
            return leaf
        if leaf.is_complex:
            return torch.complex128 if self.double else torch.complex64
        return torch.float64 if self.double else torch.float32


_CASTS = {
    getattr(torch.Tensor, name): dtype
    for name, dtype in {
        "float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16,
        "cfloat": torch.complex64, "chalf": torch.complex32,
    }.items()
}  # fmt: skip


@contextmanager
def no_autocast() -> Iterator[None]:
    """What asks for autocast inside does not get it."""
    enter = mock.patch.object(torch.autocast, "__enter__", lambda self: self)
    leave = mock.patch.object(torch.autocast, "__exit__", return_value=None)
    with enter, leave:
        yield


def in_double(tensor: torch.Tensor) -> torch.Tensor:
    """A leaf with the same numbers in float64 or complex128; itself where that changes nothing."""
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    if tensor.dtype == dtype or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)


def _eps(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).eps)


def floating(tree: Any) -> list[torch.Tensor]:
    """The floating and complex tensors of a tree that hold numbers."""
    found = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
    return [
        t for t in found
        if (t.is_floating_point() or t.is_complex()) and t.device.type != "meta" and t.numel()
    ]  # fmt: skip
