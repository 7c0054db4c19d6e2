"""A stand-in for a GPU under torch: the device "spare", whose tensors compute on the CPU.

    register()
    torch.ones(3, device="spare")

As on a GPU, a tensor there has no NumPy array and meets no tensor of the CPU in an op, numbers of
no dimensions excepted. Registration is torch's door for backends (PrivateUse1, in Python): it holds
for the whole process, in which "spare" is then the accelerator, and cannot be undone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "spare"
_ACROSS = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
_LAZY = {  # what marks a tensor, which the CPU's kernels no longer see: done at once
    torch.ops.aten._neg_view.default: torch.ops.aten.neg.default,
    torch.ops.aten._conj.default: torch.ops.aten.conj_physical.default,
    torch.ops.aten._efficientzerotensor.default: torch.ops.aten.zeros.default,
}


class Spare(torch.Tensor):
    """A tensor on the device; `held` has its memory."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Spare:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    outer: dict[int, Spare] = {}

    def host(value: Any) -> Any:
        if isinstance(value, Spare):
            outer[id(value.held)] = value
            return value.held
        if isinstance(value, torch.device) and value.type == NAME:
            return torch.device("cpu")
        if isinstance(value, torch.Tensor) and value._is_zerotensor():
            return torch.zeros(value.shape, dtype=value.dtype)
        return value

    func = _LAZY.get(func, func)
    if func not in _ACROSS:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Spare) and leaf.dim():
                raise RuntimeError(
                    f"{func}: expected all tensors on the same device, but found {NAME} and cpu"
                )
    to_host = func is _ACROSS[1] and kwargs.get("device") == torch.device("cpu")
    there = not (to_host or (func is _ACROSS[0] and not isinstance(args[0], Spare)))
    with torch._C._AutoDispatchBelowAutograd():
        result = func(*pytree.tree_map(host, args), **pytree.tree_map(host, kwargs))

    def device(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not there:
            return value
        return outer[id(value)] if id(value) in outer else Spare(value)

    return pytree.tree_map(device, result)


def register() -> None:
    """Make the device; once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
    _kept.append(library)


_kept: list[Any] = []  # a library that is collected takes its kernels along
