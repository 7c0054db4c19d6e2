"""The dtypes to which a function rounds on the way: which these are, and how it is without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any
from unittest import mock

import torch
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from conformance.oracles.directional import ANOTHER, apart
from conformance.sources import randomness
from conformance.sources.as_written import AsWritten
from conformance.sources.trees import tensors_of


class Met(AsWritten, TorchDispatchMode):
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


class Widened(AsWritten, TorchFunctionMode):
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


class _Asked(TorchFunctionMode):
    """Whether a cast to a floating dtype is asked for by name."""

    found = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = args, kwargs or {}
        named = (d for d in tree_leaves(given) if isinstance(d, torch.dtype))
        self.found = self.found or func in _CASTS or any(d.is_floating_point for d in named)
        return func(*args, **given[1])


class Casting:
    """A user's function, `own`, that rounds to less precision on the way, as norms do.

    `casts_to` is what it rounds float64 to, where it is the same function without; or nothing.
    """

    def __init__(self, own: Callable[..., Any], casts_to: str, inside: Callable[..., Any]) -> None:
        self.own, self.casts_to, self._inside = own, casts_to, inside

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.own(*args, **kwargs)

    @property
    def steady(self) -> Uncast | None:
        """The same without; None where that is another function."""
        return Uncast(self.own, self._inside) if self.casts_to else None


class Uncast:
    """The same without rounding to less precision than it is given."""

    def __init__(self, own: Callable[..., Any], inside: Callable[..., Any]) -> None:
        self.own, self._inside = own, inside

    def through(self, own: str) -> str:
        """The least precise dtype in which it computes: none that is less than is given."""
        return ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with Widened(list(tensors_of((args, kwargs)))):
            return self._inside(*args, **kwargs)


def _inside(op: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The kernel of a `torch.library.custom_op`, into which no mode sees; itself of another."""
    packet = getattr(op, "overloadpacket", op)
    made = OPDEFS.get(getattr(packet, "_qualified_op_name", ""))
    if made is None:
        return op
    kernels: dict[str | None, Callable[..., Any]] = made._backend_fns
    return kernels.get(device) or kernels.get(None) or made._init_fn


def watched(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, Callable[..., Any], str]:
    """The result of a user's function, and the function, as a `Casting` where it casts.

    And the dtype in which it computes, where this is less precise than what it is given.
    """
    before, asked, met = randomness.State.now(), _Asked(), Met()
    copies = tree_map(_copied, (args, dict(kwargs)))
    given = [x for x in tree_leaves(copies) if isinstance(x, torch.Tensor)]
    inside = _inside(function, next((t.device.type for t in given), "cpu"))
    with asked:
        result = function(*args, **kwargs)
    if inside is function and not asked.found:
        return result, function, ""

    def on(*tensors: torch.Tensor) -> Any:
        places = map(_copied, tensors)  # it may write into them
        again = tree_map(lambda x: next(places) if isinstance(x, torch.Tensor) else x, copies)
        return inside(*again[0], **again[1])

    casts_to = ""
    try:
        with before.again(), torch.no_grad():
            with met:
                outputs = on(*given)
            with suppress(Exception):  # a kernel for one dtype alone
                casts_to = dispensable(on, given, outputs)
    except Exception:  # what cannot be watched, as compiled code
        return result, function, ""
    through = met.narrower({t.dtype for t in given})
    if casts_to:
        function = Casting(function, casts_to, inside)
    return result, function, through


def dispensable(
    function: Callable[..., Any],
    given: Sequence[torch.Tensor],
    outputs: Any,
    around: AbstractContextManager[Any] | None = None,
) -> str:
    """What a function casts float64 to, where it is the same function without, as a norm is.

    `outputs` are those of `given`. `around` is entered while it runs without.
    """
    met, without = Met(), Met()
    with met:
        function(*map(in_double, given))
    casts_to = met.narrower({in_double(t).dtype for t in given})
    if not casts_to:
        return ""
    wide = [in_double(t) for t in given]
    with without, Widened(wide), around or nullcontext():
        other = function(*wide)
    if without.narrower({t.dtype for t in wide}):
        return ""
    ours, theirs = (
        [in_double(t).detach().cpu().numpy() for t in floating(tree)] for tree in (outputs, other)
    )
    return casts_to if apart(ours, theirs) <= ANOTHER else ""


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
    return [
        t for t in tensors_of(tree)
        if (t.is_floating_point() or t.is_complex()) and t.device.type != "meta" and t.numel()
    ]  # fmt: skip


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf
