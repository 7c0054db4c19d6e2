"""What a mutant is: one thing of refgrad changed while it is in force, and put back after."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from refgrad.graph import Rule
from refgrad.ops.op import Op
from refgrad.tensor import Tensor

Wrong = Callable[..., Any]


@dataclass
class Reached:
    """Whether the mutated place was run through."""

    count: int = 0


@dataclass(frozen=True)
class Mutant:
    """A fault by name and kind; `targets` are the calls in whose Programs it can show.

    `put` makes the change and returns what undoes it. `equivalent` says why no Program can tell the
    mutant from the original; empty where one can.
    """

    name: str
    fault: str
    targets: tuple[str, ...]
    put: Callable[[Reached], Callable[[], None]]
    dtype: str = "float64"
    equivalent: str = ""

    @contextmanager
    def applied(self) -> Iterator[Reached]:
        """refgrad with the fault."""
        reached = Reached()
        undo = self.put(reached)
        try:
            yield reached
        finally:
            undo()


def rule(
    name: str,
    fault: str,
    op: str,
    argument: str,
    wrong: Wrong,
    *,
    targets: Sequence[str] = (),
    reading: str = "both",
    dtype: str = "float64",
    equivalent: str = "",
) -> Mutant:
    """A mutant of one vjp: `wrong(right, g, *reads)` in place of the right gradient.

    Parameters of `wrong` after `right` and `g` name what it reads, as a rule's do. `reading` limits
    it to the first-order pass ("raw") or to one that is recorded ("graph").
    """

    def put(reached: Reached) -> Callable[[], None]:
        found = op_named(op)
        before = found.rules
        of = next(r for i, r in found.rules if found.named(i) == argument)
        found.vjp(
            **{
                found.named(i): _changed(r, wrong, reading, reached) if r is of else r.function
                for i, r in found.rules
            }
        )

        def undo() -> None:
            found.rules = before

        return undo

    called = tuple(targets) or (f"torch.{op}",)
    return Mutant(name, fault, called, put, dtype, equivalent)


def patch(
    name: str,
    fault: str,
    place: str,
    change: Callable[[Any], Any],
    *,
    targets: Sequence[str] = (),
    dtype: str = "float64",
    equivalent: str = "",
) -> Mutant:
    """A mutant of the engine: the function at `place` ("module:name.attribute") by another."""

    def put(reached: Reached) -> Callable[[], None]:
        owner, attribute = _owner(place)
        before = inspect.getattr_static(owner, attribute)
        changed = change(before)

        def counted(*args: Any, **kwargs: Any) -> Any:
            reached.count += 1
            return changed(*args, **kwargs)

        setattr(owner, attribute, counted if callable(changed) else changed)

        def undo() -> None:
            setattr(owner, attribute, before)

        return undo

    return Mutant(name, fault, tuple(targets), put, dtype, equivalent)


def claim(
    name: str, fault: str, op: str, attribute: str, value: Any, *, targets: Sequence[str] = (),
    equivalent: str = "",
) -> Mutant:  # fmt: skip
    """A mutant of what an op says of itself: that it is linear, elementwise, ..."""

    def put(reached: Reached) -> Callable[[], None]:
        found = op_named(op)
        before = getattr(found, attribute)
        setattr(found, attribute, value)
        reached.count += 1  # read wherever the op is called

        def undo() -> None:
            if attribute in vars(type(found)) and attribute not in _slots(found, before):
                delattr(found, attribute)
            else:
                setattr(found, attribute, before)

        return undo

    return Mutant(name, fault, tuple(targets) or (f"torch.{op}",), put, "float64", equivalent)


def _slots(found: Op, before: Any) -> tuple[str, ...]:
    """The attributes that were the op's own before."""
    return ("linear_in",) if before is not None else ()


def _changed(original: Rule, wrong: Wrong, reading: str, reached: Reached) -> Callable[..., Any]:
    asked = tuple(inspect.signature(wrong).parameters)[2:]
    needs = tuple(dict.fromkeys((*original.needs, *asked)))
    function = original.function

    def changed(g: Any, *reads: Any) -> Any:
        right = function(g, *reads[: len(original.needs)])
        recorded = isinstance(g, Tensor) or (type(g) is tuple and isinstance(g[0], Tensor))
        if reading != "both" and (reading == "graph") is not recorded:
            return right
        reached.count += 1
        named = dict(zip(needs, reads, strict=True))
        return wrong(right, g, *(named[n] for n in asked))

    parameters = [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("g", *needs)
    ]
    changed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return changed


@cache
def op_named(name: str) -> Op:
    """The op of refgrad with this name; "div@1" is the second of that name.

    Raises KeyError where there is none.
    """
    for module in ("refgrad.linalg", "refgrad.nn.functional", "refgrad.ops.copyslices"):
        importlib.import_module(module)
    wanted, _, number = name.partition("@")
    found: dict[int, Op] = {}
    for module in sorted(m for m in sys.modules if m.startswith("refgrad.ops")):
        for value in vars(sys.modules[module]).values():
            if isinstance(value, Op) and value.name == wanted and value.rules:
                found.setdefault(id(value), value)
    ops = list(found.values())
    if not ops:
        raise KeyError(f"refgrad has no differentiable op named {wanted!r}")
    return ops[int(number or 0)]


def _owner(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parts, attribute = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    return owner, attribute
