"""check_gradients: judge the derivatives that PyTorch gives of a function of yours.

The function is captured as a Program, and torch's backward pass of it is compared, entry by entry,
with refgrad's where refgrad has every call, and along random directions with derivatives that no
rule had a part in. What cannot be captured is judged as a black box.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conformance import checks
from conformance.checks.compare import compare
from conformance.engines.base import Engine
from conformance.engines.torch import TorchEngine
from conformance.errors import CaptureError, EngineError, GradientMismatch, Unsupported, UsageError
from conformance.oracles.directional import moved
from conformance.oracles.pairs import direction
from conformance.program import OPAQUE, Call, Input, Program, Ref, Values
from conformance.report.gradients import Report, summary
from conformance.results import Result
from conformance.settings import Settings, user_checks
from conformance.sources.base import Sample
from conformance.sources.captured import capture
from conformance.specs import Spec
from conformance.specs import tensors as drawn

SOURCE = "user"
DIRECTIONS = 4
SAMPLES = 8  # sets of inputs that are drawn from specs
NUDGE = 1e-3  # of the inputs: far enough to show a value that left torch
SAME = 1e-4  # of the values: another sign differs by more
_UP_TO_SIGNS = frozenset(
    f"torch.{name}"
    for name in ("linalg.eigh", "linalg.eig", "linalg.svd", "linalg.qr", "svd", "qr")
)
_READ_MEMORY = frozenset(
    f"torch.{name}"
    for name in (
        "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "Tensor.as_strided",
        "Tensor.as_strided_", "Tensor.view", "Tensor.view_as",
    )
)  # fmt: skip
_ITSELF = "torch's own of another run"
_UNLIKE = (
    "judged as a black box: the captured calls do not follow the inputs as the function does "
    "(a value left torch, or a branch depends on one)"
)


def check_gradients(
    fn: Callable[..., Any],
    *inputs: Any,
    order: int = 1,
    raise_on_failure: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    factory: Callable[..., Any] | None = None,
    samples: int = SAMPLES,
    directions: int = DIRECTIONS,
    seed: int = 0,
    half: bool = False,
) -> Report:
    """Check the gradients that torch gives of `fn(*inputs, **kwargs)`.

    fn: a function of tensors, an `autograd.Function`'s apply, a `torch.library` custom op, an
    `nn.Module`; it returns a tensor or a tree of them. Inputs of floating or complex dtype that
    require grad are differentiated, and so are a module's parameters.

    An input may be a Spec, as in `spec("float64[n, 3] in (0, 1)")`: then `samples` sets of inputs
    are drawn. Or `factory` makes them: called without arguments, or with the sample's number where
    it takes one, it returns a tuple of inputs, or such a tuple and a dict of keyword arguments.
    `order=2` adds second order. `directions` is how many independent random directions are compared
    numerically. The same `seed` draws the same. With `half` real functions are judged in float16
    and bfloat16 too: each call at the values given, and at these times powers of two.

    Raises GradientMismatch with str(report) where `raise_on_failure` is set and a derivative is
    wrong; UsageError where nothing requires grad; and whatever `fn` itself raises.
    """
    if order not in (1, 2):
        raise UsageError(f"order is {order}; first (1) and second (2) order can be checked")
    if isinstance(fn, torch.jit.ScriptModule):
        raise UsageError(
            "the parameters of a torch.jit.ScriptModule cannot be replaced; give the module that "
            "was scripted, or a function that calls this one, whose inputs alone are then checked"
        )
    results: list[Result] = []
    notes: list[str] = []
    sets = _sets(inputs, dict(kwargs or {}), factory, samples, seed)
    for label, args, arguments in sets:
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            found, said = _check(fn, args, arguments, label, order, directions, seed, half=half)
        results += found
        notes += said
    report = summary(results, notes, len(sets))
    if raise_on_failure and report.failed:
        raise GradientMismatch(str(report))
    return report


def _sets(
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    factory: Callable[..., Any] | None,
    samples: int,
    seed: int,
) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """The sets of inputs to try: label, positional and keyword arguments."""
    if samples < 1:
        raise UsageError(f"samples is {samples}; at least one set of inputs is needed")
    specs = [x for x in inputs if isinstance(x, Spec)]
    if factory is None and not specs:
        return [("", inputs, kwargs)]
    if factory is not None:
        if inputs:
            raise UsageError("give the inputs or a factory that makes them, not both")
        numbered = bool(inspect.signature(factory).parameters)
        made = [factory(n) if numbered else factory() for n in range(samples if numbered else 1)]
        return [(f"factory, {n}", *_split(m, kwargs)) for n, m in enumerate(made)]
    sets = []
    for number in range(samples):
        rest = iter(drawn(specs, seed, number))
        args = tuple(next(rest) if isinstance(x, Spec) else x for x in inputs)
        shapes = ", ".join(str(list(x.shape)) for x in args if isinstance(x, torch.Tensor))
        sets.append((f"{number}, of shapes {shapes}", args, kwargs))
    return sets


def _split(made: Any, kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a factory returned, as positional and keyword arguments."""
    if isinstance(made, torch.Tensor):
        return (made,), kwargs
    if not isinstance(made, tuple | list):
        raise UsageError(f"the factory returned a {type(made).__name__}, not a tuple of inputs")
    if len(made) == 2 and isinstance(made[0], tuple | list) and isinstance(made[1], dict):
        return tuple(made[0]), kwargs | made[1]
    return tuple(made), kwargs


def _check(
    fn: Callable[..., Any],
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    label: str,
    order: int,
    directions: int,
    seed: int,
    *,
    half: bool,
) -> tuple[list[Result], list[str]]:
    """The results for one set of inputs, and what is to be said of them."""
    try:
        captured = capture(fn, inputs, kwargs)
        program, values, notes = captured.program, captured.values, captured.notes
        box, box_values, said = _black_box(fn, inputs, kwargs)
        if not notes and not _alike(program, values, box, box_values):
            program, values, notes = box, box_values, (_UNLIKE, *said)
    except CaptureError as error:
        program, values, said = _black_box(fn, inputs, kwargs)
        notes = (f"judged as a black box, since it could not be captured: {error}", *said)
    if not program.leaves:
        raise UsageError(
            "nothing to differentiate: no input requires grad; call requires_grad_() on one"
        )
    reference, opinion = _second_opinion(program, values)
    settings = Settings(
        engine="torch", reference=reference.name, order=order, directions=directions, seed=seed,
        standalone=0, dtypes=(program.leaves[0].dtype,),
        checks=user_checks(order, half=half),
    )  # fmt: skip
    context = checks.context_for(settings, engine=TorchEngine(), reference=reference)
    sample = Sample(_name(fn), program, values, label)
    results = list(checks.check_sample(sample, context, SOURCE))
    if not context.independent:
        results = [replace(r, evidence={"against": _ITSELF, **r.evidence}) for r in results]
    return results, [*notes, *opinion]


def _alike(program: Program, values: Values, box: Program, box_values: Values) -> bool:
    """Whether the Program is the function beside the point too, as far as that can be compared."""
    named = {i.name: i.shape for i in box.leaves}
    if {i.name: i.shape for i in program.leaves} != named:
        return True
    step = direction(np.random.default_rng(0), program, values)
    torch_engine = TorchEngine()
    try:
        ours = torch_engine.run(program, moved(program, values, step, NUDGE)).outputs
        theirs = torch_engine.run(box, moved(box, box_values, step, NUDGE)).outputs
    except (EngineError, Unsupported):
        return True
    if len(ours) != len(theirs):
        return True
    return all(compare(a, b, relative=NUDGE**2) is None for a, b in zip(ours, theirs, strict=True))


def _second_opinion(program: Program, values: Values) -> tuple[Engine, tuple[str, ...]]:
    """refgrad where it has every call; else torch, whose forward the numerical check then uses.

    So too where the function depends on the signs of eigenvectors or singular vectors, or on the
    order of a result's dimensions in memory, and refgrad has others: both are right.
    """
    from conformance.engines.refgrad import RefgradEngine

    refgrad = RefgradEngine()
    missing = refgrad.missing(program)
    if missing:
        return TorchEngine(), (f"refgrad has no opinion: it lacks {', '.join(missing)}",)
    free = [target for target in program.targets if target in _UP_TO_SIGNS]
    if free and not _same_values(refgrad, program, values):
        names = ", ".join(free)
        return TorchEngine(), (
            f"refgrad has no opinion: the function depends on the signs that {names} leaves open",
        )
    reading = _READ_MEMORY.intersection(program.targets)
    if reading and (target := _first_other(refgrad, program, values)) in reading:
        return TorchEngine(), (
            f"refgrad has no opinion: the function depends on the memory layout of what {target} "
            "reads, which refgrad gives otherwise",
        )
    return refgrad, ()


def _first_other(other: Engine, program: Program, values: Values) -> str | None:
    """The first call that gives `other` another value than torch, or raises there alone."""
    try:
        theirs = TorchEngine().run(program, values, keep=("*",)).kept
    except (EngineError, Unsupported):  # which the checks then tell
        return None
    try:
        ours = other.run(program, values, keep=("*",)).kept
    except EngineError as error:
        return next((c.target for c in program.calls if c.name == error.call), None)
    except Unsupported as error:
        return error.reason.partition(":")[0]
    for call in program.calls:
        pairs = zip(ours.get(call.name, ()), theirs.get(call.name, ()), strict=False)
        if any(compare(a, b, relative=SAME) is not None for a, b in pairs):
            return call.target
    return None


def _same_values(other: Engine, program: Program, values: Values) -> bool:
    try:
        ours, theirs = (e.run(program, values).outputs for e in (TorchEngine(), other))
    except (EngineError, Unsupported):  # which the checks then tell
        return True
    pairs = zip(ours, theirs, strict=False)
    return all(compare(a, b, relative=SAME) is None for a, b in pairs)


def _black_box(
    fn: Callable[..., Any], inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Program, Values, tuple[str, ...]]:
    """The whole function as one opaque call of its tensors, a module's parameters included.

    And what is to be said of it. Random numbers that it draws are the same at each call.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    parameters: dict[str, torch.Tensor] = {}
    if isinstance(fn, torch.nn.Module):
        parameters = dict(fn.named_parameters())
    made: list[Input] = []
    values: Values = {}
    for number, tensor in enumerate([*tensors, *parameters.values()]):
        name = f"x{number}" if number < len(tensors) else f"p{number - len(tensors)}"
        aliases = () if number < len(tensors) else (list(parameters)[number - len(tensors)],)
        try:
            array = tensor.detach().clone().resolve_conj().resolve_neg().numpy()
        except TypeError:
            what = aliases[0] if aliases else f"input {number}"
            raise UsageError(
                f"{what} is {tensor.dtype}, {tensor.layout} on {tensor.device}, and NumPy holds no "
                "such values; give float32 on the CPU, and convert it in the function"
            ) from None
        grad = tensor.requires_grad
        made.append(Input.of(name, array, requires_grad=grad, aliases=aliases))
        values[name] = array

    state, drew = torch.get_rng_state(), list[bool]()

    def call(*given: torch.Tensor) -> Any:
        rest = iter(given[: len(tensors)])
        args = [next(rest) if isinstance(x, torch.Tensor) else x for x in inputs]
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            if isinstance(fn, torch.nn.Module):
                replaced = dict(zip(parameters, given[len(tensors) :], strict=True))
                result = torch.func.functional_call(fn, replaced, tuple(args), kwargs)
            else:
                result = fn(*args, **kwargs)
            if not torch.equal(torch.get_rng_state(), state):
                drew.append(True)
        return result

    refs = tuple(Ref(i.name) for i in made)
    given = [torch.from_numpy(values[i.name]).requires_grad_(i.requires_grad) for i in made]
    met = _Met()
    try:
        with met:
            outputs = call(*given)
    except Exception:  # what cannot be watched (compiled code); or it raises for itself again
        outputs = call(*given)
    notes = []
    through = met.narrower({t.dtype for t in given})
    if through:
        notes.append(f"it computes in {through} on the way, and is held to that")
    if drew:
        notes.append("it draws random numbers: each call was given the same ones")
    box = Call("v0", OPAQUE + _name(fn), refs, opaque=call, through=through)
    return Program(tuple(made), (box,), _references(outputs, ())), values, tuple(notes)


class _Met(TorchDispatchMode):
    """The floating dtypes of all that is computed within."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.dtypes |= {
            t.dtype
            for t in tree_leaves(result)
            if isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex())
        }
        return result

    def narrower(self, given: set[torch.dtype]) -> str:
        """The least precise of them by name; nothing where one of `given` is no more precise."""

        def eps(dtype: torch.dtype) -> float:
            return float(torch.finfo(dtype).eps)

        floating = [d for d in given if d.is_floating_point or d.is_complex]
        least = max(self.dtypes, key=eps, default=None)
        if least is None or eps(least) <= max(map(eps, floating), default=0.0):
            return ""
        return str(least).removeprefix("torch.")


def _references(tree: Any, path: tuple[int | str, ...]) -> Any:
    if isinstance(tree, torch.Tensor):
        return Ref("v0", path)
    if isinstance(tree, tuple | list):
        return tuple(_references(t, (*path, n)) for n, t in enumerate(tree) if _holds(t))
    if isinstance(tree, dict):
        return {k: _references(t, (*path, k)) for k, t in tree.items() if _holds(t)}
    raise UsageError(
        f"the function returns a {type(tree).__name__}, not a tensor or a tuple of them"
    )


def _holds(tree: Any) -> bool:
    return isinstance(tree, torch.Tensor | tuple | list | dict)


def _name(fn: Any) -> str:
    if isinstance(fn, torch.nn.Module):
        return type(fn).__name__
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
        return owner.__name__
    name = str(getattr(fn, "__name__", type(fn).__name__))
    return "function" if name == "<lambda>" else name
