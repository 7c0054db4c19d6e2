"""Capture: a function or module run once, as a Program that has proved itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conformance.engines.torch import TorchEngine
from conformance.errors import CaptureError, CompiledError, EngineError, Unsupported
from conformance.program import Array, Program, Values
from conformance.sources.as_written import none_compiled
from conformance.sources.recorder import Recorder, by_field, device_of
from conformance.sources.trees import tensors_of

# torch's own function does not repeat its last bits: LAPACK's gelsy reads an unset pivot array.
_UNREPEATABLE = {"torch.linalg.lstsq"}


@dataclass(frozen=True)
class Capture:
    """A Program with its values; `notes` say what is special (random numbers made constant).

    `device` is where the function ran.
    """

    program: Program
    values: Values
    notes: tuple[str, ...] = ()
    device: str = "cpu"


def capture(
    fn: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    module: torch.nn.Module | None = None,
    prove: bool = True,
    device: str | None = None,
) -> Capture:
    """Run `fn(*args, **kwargs)` once and record it.

    Tensors among the arguments become inputs x0, x1, ...; a module's parameters, and other leaves
    that turn up, p0, p1, ...; other tensors constants c0, c1, ... with the value they have when
    first seen. `module` has the parameters (default: `fn` itself, where it is a module or its
    method). `device` is where it runs (default: where its arguments and parameters are). With
    `prove` the Program is replayed on torch, and its outputs and gradients must equal the
    original's: bit for bit on the CPU, to rounding elsewhere. Raises CaptureError that names the
    call; what `fn` itself raises passes through.
    """
    kwargs = dict(kwargs or {})
    module = module if module is not None else module_of(fn)
    if device is None:
        parameters = [] if module is None else module.parameters()
        device = device_of((*tensors_of((tuple(args), kwargs)), *parameters))
    recorder = Recorder(device)
    if module is not None:
        recorder.know(dict(module.named_parameters(remove_duplicate=False)))
        recorder.know(dict(module.named_buffers(remove_duplicate=False)))
    for tensor in tensors_of(tuple(args)):
        recorder.declare(tensor, "x")
    for key, value in kwargs.items():
        for tensor in tensors_of(value):
            recorder.declare(tensor, "x", (key,))
    if module is not None:
        for parameter in module.parameters():
            recorder.declare(parameter, "p")
    try:
        refusing = none_compiled(CompiledError())
        with torch.enable_grad(), refusing, recorder.recording():
            outputs = by_field(fn(*args, **kwargs))
    except Exception as error:
        if _of_the_compiler(error):
            raise CompiledError() from error
        raise
    program, values = recorder.program(outputs)
    if prove:
        _prove(program, values, recorder, outputs)
    return Capture(program, values, tuple(recorder.notes), device)


def module_of(fn: Any) -> torch.nn.Module | None:
    """The module that this is, or whose method; raises CaptureError for a scripted one."""
    owner = fn if isinstance(fn, torch.nn.Module) else getattr(fn, "__self__", None)
    if isinstance(owner, torch.jit.ScriptModule):
        raise CaptureError(
            "a scripted module cannot be captured, since its parameters cannot be seen; "
            "pass the module from which it was scripted"
        )
    return owner if isinstance(owner, torch.nn.Module) else None


def _of_the_compiler(error: BaseException) -> bool:
    """Whether it was raised while torch.compile looked at the code."""
    frames = traceback.walk_tb(error.__traceback__)
    return any("/torch/_dynamo/convert_frame" in f.f_code.co_filename for f, _ in frames)


def cotangents_for(outputs: Sequence[Array]) -> list[Array | None]:
    """A fixed Gaussian cotangent for each flat output, None for integers."""
    rng = np.random.default_rng(0)
    made: list[Array | None] = []
    for output in outputs:
        if output.dtype.kind == "c":
            pair = rng.standard_normal((2, *output.shape))
            made.append(np.asarray(pair[0] + 1j * pair[1], output.dtype))
        elif output.dtype.kind == "f":
            made.append(np.asarray(rng.standard_normal(output.shape), output.dtype))
        else:
            made.append(None)
    return made


def _prove(program: Program, values: Values, recorder: Recorder, outputs: Any) -> None:
    """Replay on torch and compare; raises CaptureError naming the call where they part."""
    engine = TorchEngine(recorder.device)
    original = [engine.to_numpy(t) for t in tensors_of(outputs)]
    cotangents = cotangents_for(original)
    try:
        replay = engine.vjp(program, values, cotangents)
    except (EngineError, Unsupported) as error:
        raise CaptureError(f"the recorded Program does not run on torch: {error}") from error
    exact = recorder.device == "cpu" and not _UNREPEATABLE & set(program.targets)
    same = _equal if exact else _close
    if not same(original, replay.outputs):
        where = _first_difference(program, values, recorder, engine)
        raise CaptureError(f"the replay on torch gives another value{where}")
    leaves = [i.name for i in program.leaves]
    gradients = _gradients(outputs, [recorder.tensors[n] for n in leaves], cotangents, engine)
    for name, gradient in zip(leaves, gradients, strict=True):
        if not same([gradient], [replay.gradients[name]]):
            where = _last_difference(program, values, recorder, engine, outputs, cotangents)
            raise CaptureError(f"the replay on torch gives {name} another gradient{where}")


def _gradients(
    outputs: Any,
    wanted: Sequence[torch.Tensor],
    cotangents: Sequence[Array | None],
    engine: TorchEngine,
) -> list[Array | None]:
    pairs = [
        (t, torch.from_numpy(c).to(t.device, t.dtype))
        for t, c in zip(tensors_of(outputs), cotangents, strict=True)
        if c is not None and t.requires_grad
    ]
    if not pairs or not wanted:
        return [None] * len(wanted)
    found = torch.autograd.grad(
        [t for t, _ in pairs],
        list(wanted),
        [c for _, c in pairs],
        retain_graph=True,
        allow_unused=True,
    )
    return [None if g is None else engine.to_numpy(g) for g in found]


def _equal(a: Sequence[Array | None], b: Sequence[Array | None]) -> bool:
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    alike = a.dtype == b.dtype and a.shape == b.shape
    return alike and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _close(a: Sequence[Array | None], b: Sequence[Array | None]) -> bool:
    return len(a) == len(b) and all(
        x is y if x is None or y is None else _near(x, y) for x, y in zip(a, b, strict=True)
    )


def _near(a: Array, b: Array) -> bool:
    part = 1e-4 if b.dtype in (np.float32, np.complex64) else 1e-9
    return np.allclose(a, b, rtol=part, atol=part, equal_nan=True)


def _first_difference(
    program: Program, values: Values, recorder: Recorder, engine: TorchEngine
) -> str:
    """The first call whose result differs from what was recorded."""
    kept = engine.run(program, values, keep=("*",)).kept
    for call, result in zip(recorder.calls, recorder.results, strict=True):
        if call.name in kept:
            recorded = [engine.to_numpy(t) for t in tensors_of(result)]
            if not _equal(recorded, kept[call.name]):
                return f", first in {call.name} = {call.target}"
    return ""


def _last_difference(
    program: Program,
    values: Values,
    recorder: Recorder,
    engine: TorchEngine,
    outputs: Any,
    cotangents: Sequence[Array | None],
) -> str:
    """The first call, on the way back, whose gradient differs from the original's."""
    kept = engine.vjp(program, values, cotangents, keep=("*",)).kept
    for call, result in reversed(list(zip(recorder.calls, recorder.results, strict=True))):
        tensors = list(tensors_of(result))
        if call.name in kept and any(t.requires_grad for t in tensors):
            wanted = [t for t in tensors if t.requires_grad]
            found = iter(_gradients(outputs, wanted, cotangents, engine))
            recorded = [next(found) if t.requires_grad else None for t in tensors]
            if not _equal(recorded, kept[call.name]):
                return f"; the backward passes part after {call.name} = {call.target}"
    return ""
