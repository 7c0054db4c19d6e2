"""A user's function as a Program: captured where that follows it, else as a black box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from conformance.checks import one_line
from conformance.checks.compare import compare
from conformance.engines.base import Engine
from conformance.engines.torch import TorchEngine
from conformance.errors import CaptureError, CompiledError, EngineError, Unsupported, UsageError
from conformance.oracles.directional import moved
from conformance.oracles.frozen import frozen
from conformance.oracles.pairs import direction
from conformance.program import Program, Ref, Values, map_refs
from conformance.sources.black_box import DRAWS, ROUNDED, BlackBox
from conformance.sources.captured import Capture, capture

NUDGES = (1e-3, 1e-8)  # of the inputs: to show a value that left torch, as far as they are allowed
_UNLIKE = (
    "judged as a black box: the captured calls do not follow the inputs as the function does "
    "(a value left torch, or a branch depends on one)"
)


_ROUNDING = {f"torch.Tensor.{method.__name__}" for method in ROUNDED.values()}


@dataclass(frozen=True)
class Function:
    """The Program, what is to be said of it, and whether it is one opaque call.

    And whether that calls what torch.compile made.
    """

    name: str
    program: Program
    values: Values
    notes: tuple[str, ...]
    boxed: bool
    compiled: bool = False


def as_program(whole: BlackBox) -> Function:
    """The function that `whole` calls; within `whole.undisturbed()`, in which it is judged too.

    Raises UsageError for a tensor that no Program can hold, and whatever the function raises.
    """
    name = _name(whole.fn)
    try:
        captured = _captured(whole)
        program, values, notes = captured.program, captured.values, captured.notes
        box, box_values, said = whole.program(name)
        own = TorchEngine(whole.device)
        unfit = "" if notes else _unfit(own, program, values, box, box_values)
    except UsageError:
        raise
    except Exception as error:  # where it is the function's own, that raises it again
        program, values, said = whole.program(name)
        why = str(error) if isinstance(error, CaptureError) else one_line(error)
        reason = f"judged as a black box, since it could not be captured: {why}"
        compiled = isinstance(error, CompiledError)
        return Function(name, program, values, (reason, *said), boxed=True, compiled=compiled)
    if unfit:
        return Function(name, box, box_values, (unfit, *said), boxed=True)
    if whole.randomness.drawn and DRAWS not in notes:
        notes = (*notes, DRAWS)
    return Function(name, program, values, notes, boxed=False)


def _captured(whole: BlackBox) -> Capture:
    """Where NumPy lacks a dtype its inputs are of a wider one, and are rounded to it by calls."""
    if not whole.rounded:
        return capture(whole.fn, whole.args, whole.kwargs, device=whole.device)
    known, values = whole.inputs()
    found = capture(whole.once, whole.given(values), device=whole.device)
    names = {f"x{n}": i for n, i in enumerate(known)}

    def named(ref: Ref) -> Ref:
        return replace(ref, name=names[ref.name].name) if ref.name in names else ref

    program = found.program
    own = {i.name for i in program.inputs} - set(names)
    if own.intersection(i.name for i in known):
        raise CaptureError("leaves that stand out of reach take part")
    inputs = tuple(
        replace(i, name=names[i.name].name, aliases=names[i.name].aliases) if i.name in names else i
        for i in program.inputs
    )
    calls = tuple(
        replace(
            c, args=map_refs(named, c.args), kwargs=map_refs(named, c.kwargs),
            through=whole.rounded if c.target in _ROUNDING else c.through,
        )
        for c in program.calls
    )  # fmt: skip
    renamed = {(names[n].name if n in names else n): array for n, array in found.values.items()}
    outputs = map_refs(named, program.outputs)
    return replace(found, program=Program(inputs, calls, outputs), values=renamed)


def _unfit(own: Engine, program: Program, values: Values, box: Program, box_values: Values) -> str:
    """Why the Program cannot stand for the function; nothing where it can."""
    try:
        frozen(own, program, values)
    except Unsupported as error:  # of what is written without gradient
        return f"judged as a black box, since for the captured calls {error.reason}"
    except EngineError:  # which the checks then tell
        pass
    return "" if _alike(own, program, values, box, box_values) else _UNLIKE


def _alike(own: Engine, program: Program, values: Values, box: Program, box_values: Values) -> bool:
    """Whether the Program is the function beside the point too, as far as that can be compared."""
    named = {i.name: i.shape for i in box.leaves}
    if {i.name: i.shape for i in program.leaves} != named:
        return True
    step = direction(np.random.default_rng(0), program, values)
    for nudge in NUDGES:
        try:
            ours, theirs = (
                own.run(p, moved(p, v, step, nudge)).outputs
                for p, v in ((program, values), (box, box_values))
            )
        except (EngineError, Unsupported):  # as of weights that have to sum to 1
            continue
        return len(ours) != len(theirs) or all(
            compare(a, b, relative=1e-3 * nudge) is None for a, b in zip(ours, theirs, strict=True)
        )
    return True


def _name(fn: Any) -> str:
    if isinstance(fn, torch.nn.Module):
        return type(fn).__name__
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
        return owner.__name__
    name = str(getattr(fn, "__name__", type(fn).__name__))
    return "function" if name == "<lambda>" else name
