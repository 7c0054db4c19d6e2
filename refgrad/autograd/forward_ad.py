"""torch.autograd.forward_ad: tensors with a tangent, in one level of forward mode.

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, t)
        y, jvp = forward_ad.unpack_dual(f(dual))

To nest forward mode, use `refgrad.func.jvp`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from refgrad.levels import below, enter, leave, levels, only
from refgrad.ops.forward import SIZE, give, tangent
from refgrad.ops.op import Op
from refgrad.tensor import Tensor

__all__ = [
    "UnpackedDualTensor",
    "dual_level",
    "enter_dual_level",
    "exit_dual_level",
    "make_dual",
    "unpack_dual",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Entered(threading.local):
    level: int | None = None  # the level that this module opened, if any


_entered = _Entered()


def _alias(input: Any) -> Any:
    """The same memory as another tensor."""
    return input[...]


def _primal(input: Any) -> Any:
    """The same memory as a tensor that is no view, so it has no tangent by way of its base."""
    return input


alias = Op(_alias, name="alias", view=True, method=False)
alias.vjp(input=lambda g: g)
primal_of = Op(_primal, name="primal", method=False, node_name="AliasBackward0")
primal_of.vjp(input=lambda g: g)


class UnpackedDualTensor(NamedTuple):
    """A dual tensor taken apart: its value, and its tangent or None."""

    primal: Tensor
    tangent: Tensor | None


def enter_dual_level() -> int:
    """Open the level of forward mode, and return 0, its number in PyTorch.

    Raises:
        RuntimeError: it is open already.
    """
    if _entered.level is not None:
        raise RuntimeError("Nested forward mode AD is not supported at the moment")
    _entered.level = enter()
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the level of forward mode; its tangents are gone then.

    Raises:
        RuntimeError: it is not open.
    """
    if level not in (None, 0):
        raise RuntimeError(
            "Trying to exit a forward AD level that was not the last one that was created. This is "
            "not supported."
        )
    if _entered.level is None:
        raise RuntimeError("Dual level must be a positive number.")
    leave(_entered.level)
    _entered.level = None


class dual_level:
    """A level of forward mode as a context manager or a decorator."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc: object) -> None:
        exit_dual_level()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A tensor on the same memory that carries `tangent`, of its shape.

    Raises:
        RuntimeError: no level is open, `tensor` has a tangent of it already, the shapes differ.
        ValueError: one of the two is neither floating nor complex.
    """
    if _entered.level is None or level not in (None, 0):
        raise RuntimeError(
            "Trying to create a dual Tensor for forward AD but no level exists, make sure to "
            "enter_dual_level() first."
        )
    made: Tensor = dual(tensor, tangent, _entered.level)
    return made


def dual(tensor: Any, direction: Any, level: int) -> Any:
    """A tensor on the memory of `tensor` with the tangent `direction` at `level`."""
    for name, t in (("primal", tensor), ("tangent", direction)):
        if t._array.dtype.kind not in "fc":
            raise ValueError(f"Expected {name} to be floating point or complex, but got: {t.dtype}")
    if tangent(tensor, level) is not None:
        raise RuntimeError(
            "Making a dual Tensor based on a Tensor that already has a forward gradient at the "
            "same level 0 is not supported."
        )
    if tensor._array.shape != direction._array.shape:
        raise RuntimeError(SIZE.format(list(tensor.shape), list(direction.shape)))
    made = alias(tensor)
    with only(below(level)):
        direction = direction.to(tensor.dtype)
    give(made, level, direction)
    return made


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The value of a tensor, without a tangent, and its tangent: None where it has none."""
    if _entered.level is None or level not in (None, 0):
        return UnpackedDualTensor(tensor, None)
    return UnpackedDualTensor(*unpacked(tensor, _entered.level))


def unpacked(tensor: Any, level: int) -> tuple[Any, Any]:
    """The value of `tensor` as it is below `level`, and its tangent at `level` or None."""
    value = tangent(tensor, level)
    if value is None:
        return tensor, None
    with only(tuple(n for n in levels.visible if n != level)):
        primal = primal_of(tensor)
    primal._base = tensor.root()
    return primal, value
