"""check_gradients: judge the derivatives that PyTorch gives of a function of yours.

The function is captured as a Program, and torch's backward pass of it is compared, entry by entry,
with refgrad's where refgrad has every call, and along random directions with derivatives that no
rule had a part in. What cannot be captured is judged as a black box.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from conformance import checks, expectations
from conformance.checks.base import USER
from conformance.checks.compare import compare
from conformance.checks.invariants import READS_MEMORY
from conformance.checks.numerical import NOT_FINITE
from conformance.engines.base import Engine
from conformance.engines.torch import TorchEngine, unrounded
from conformance.errors import EngineError, GradientMismatch, Unsupported, UsageError
from conformance.oracles.frozen import held
from conformance.program import Array, Program, Values
from conformance.report.gradients import Report, summary
from conformance.results import FAILING, Result
from conformance.settings import Settings, user_checks
from conformance.sources.base import Sample
from conformance.sources.black_box import BlackBox
from conformance.sources.function import as_program
from conformance.specs import Spec
from conformance.specs import tensors as drawn
from conformance.writes import dependent, writes

DIRECTIONS = 4
SAMPLES = 8  # sets of inputs that are drawn from specs
SAME = 1e-4  # of the values: another sign differs by more
COARSER = 20.0  # times the tolerance of float32: what kernels that approximate tanh are off by
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
_BY_BACKWARD = (
    "torch.autograd.grad does not give all gradients of it: they were read where backward() leaves "
    "them, and what cannot be asked in that way is unsupported"
)
_EMPTY = "no leaf has an element: there is nothing in its gradient but a shape and a dtype"


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
    rtol: float = 0.0,
    device: str = "cpu",
    allow_known: bool = False,
) -> Report:
    """Check the gradients that torch gives of `fn(*inputs, **kwargs)`.

    fn: a function of tensors, an `autograd.Function` or its apply, a `torch.library` custom op, an
    `nn.Module`; it returns a tensor or a tree of them. Inputs of floating or complex dtype that
    require grad are differentiated, and so are a module's parameters.

    Tensors and parameters may be on any device; there the derivatives are asked for, and what
    torch rounds to TF32 by default is not.

    An input may be a Spec, as in `spec("float64[n, 3] in (0, 1)")`: then `samples` sets of inputs
    are drawn, and brought to `device`. Or `factory` makes them: called without arguments, or with
    the sample's number where it takes one, it returns a tuple of inputs, or such a tuple and a dict
    of keyword arguments. `order=2` adds second order. `directions` is how many independent random
    directions are compared numerically. The same `seed` draws the same. With `half` real functions
    are judged in float16 and bfloat16 too: each call at the values given, and at these times powers
    of two. `rtol` is for rules that are approximate by design, an adjoint of an ODE or an iterative
    solver: an entry that differs by less than so much of its leaf's scale is no fault. Along a
    random direction errors of either sign cancel in part, so that five times as much is all but
    sure to be seen, and not twice as much. By default rounding alone is allowed for.

    A fault of PyTorch's own ops that is listed is told in a note. With `allow_known` the check that
    it fails counts as passed, as in `conformance verify`: what else that check might have found in
    the same sample is not seen then.

    Raises GradientMismatch with str(report) where `raise_on_failure` is set and a derivative is
    wrong; UsageError where nothing requires grad; and whatever `fn` itself raises, unless it does
    so at some of the inputs that were drawn alone, which are then left out.
    """
    if order not in (1, 2):
        raise UsageError(f"order is {order}; first (1) and second (2) order can be checked")
    if directions < 1:
        raise UsageError(f"directions is {directions}; at least one is needed")
    if not 0 <= rtol < 1:
        raise UsageError(f"rtol is {rtol}; it is a part of the gradient's scale, from 0 to 1")
    if isinstance(fn, type) and issubclass(fn, torch.autograd.Function):
        fn = fn.apply
    if not callable(fn) or (isinstance(fn, type) and issubclass(fn, torch.nn.Module)):
        given = f"the class {fn.__name__}" if isinstance(fn, type) else f"a {type(fn).__name__}"
        raise UsageError(f"{given} cannot be checked; give a function of tensors or a module")
    if isinstance(fn, torch.jit.ScriptModule):
        raise UsageError(
            "the parameters of a torch.jit.ScriptModule cannot be replaced; give the module that "
            "was scripted, or a function that calls this one, whose inputs alone are then checked"
        )
    if isinstance(fn, torch.nn.Module) and any(map(is_lazy, fn.parameters())):
        raise UsageError(
            "the module's parameters have no shape yet: call it once before it is checked"
        )
    results: list[Result] = []
    notes: list[str] = []
    sets = _sets(inputs, dict(kwargs or {}), factory, samples, seed, device)
    drawn_here = any(isinstance(x, Spec) for x in inputs)
    for number, (label, args, arguments) in enumerate(sets):
        try:
            with _plainly():
                whole = BlackBox(fn, args, arguments)
                with whole.undisturbed():
                    found, said = _check(
                        whole, label, order, directions, seed,
                        half=half, rtol=rtol, allow_known=allow_known,
                    )  # fmt: skip
        except UsageError:
            raise
        except Exception as error:
            if not drawn_here or (number == len(sets) - 1 and not results):
                raise
            notes.append(f"left out, since the function raised {checks.one_line(error)}")
            continue
        beyond = any(r.evidence.get("reason") == NOT_FINITE for r in found)  # as of exp at 750
        if beyond and drawn_here and results and not any(r.outcome in FAILING for r in found):
            notes.append(f"left out, since {NOT_FINITE}: sample {label}")
            continue
        results += found
        notes += said
    report = summary(results, notes, len(sets))
    if raise_on_failure and report.failed:
        raise GradientMismatch(str(report))
    return report


@contextmanager
def _plainly() -> Iterator[None]:
    """What the caller's contexts say is not said of the function."""
    own = torch.accelerator.current_accelerator()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(unrounded())
        for kind in ("cpu",) if own is None else ("cpu", own.type):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _known(results: list[Result], program: Program) -> list[list[str]]:
    """What is known of each as a fault of PyTorch's own ops; a single call is blamed."""
    if not any(result.outcome in FAILING for result in results):
        return [[] for _ in results]
    listed = expectations.load("torch")
    alone = program.targets[0] if len(program.targets) == 1 else ""
    plain = not any(call.in_place or call.opaque for call in program.calls)  # torch's alone

    def said(result: Result) -> list[str]:
        culprit = str(result.evidence.get("culprit", alone))
        name = culprit.removeprefix("torch.").removeprefix("Tensor.").removeprefix("ops.aten.")
        blamed = replace(result, op=name or "-")
        covering = [
            known
            for known in listed
            if (known.op, known.call) != ("*", "*") or (plain and known.verdict != "*")
            if known.covers(blamed)
        ]
        about = f"known of PyTorch{f', {culprit}' if culprit else ''}"
        return [f"{about}: {k.reason}{f' [{k.link}]' if k.link else ''}" for k in covering]

    return [said(r) if r.outcome in FAILING else [] for r in results]


def _sets(
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    factory: Callable[..., Any] | None,
    samples: int,
    seed: int,
    device: str,
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
        rest = iter(drawn(specs, seed, number, device))
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
    whole: BlackBox,
    label: str,
    order: int,
    directions: int,
    seed: int,
    *,
    half: bool,
    rtol: float,
    allow_known: bool,
) -> tuple[list[Result], list[str]]:
    """The results for one set of inputs, and what is to be said of them."""
    given = as_program(whole)
    program, values, own = given.program, given.values, TorchEngine(whole.device)
    if not program.leaves:
        raise UsageError(
            "nothing to differentiate: no input requires grad; call requires_grad_() on one"
        )
    reference, opinion = _second_opinion(own, program, values)
    if reference.name == "refgrad":
        program, values = _with_own_constants(own, reference, program, values)
    settings = Settings(
        engine="torch", reference=reference.name, order=order, directions=directions, seed=seed,
        standalone=0, dtypes=(program.leaves[0].dtype,), device=whole.device,
        checks=user_checks(order, half=half), rtol=rtol,
    )  # fmt: skip
    engine = TorchEngine(whole.device)
    context = checks.context_for(settings, engine=engine, reference=reference)
    apart = whole.device != "cpu"
    sample = Sample(given.name, program, values, label, by_memory=apart or given.compiled)
    results = list(checks.check_sample(sample, context, USER))
    if context.independent:
        faults = [f"refgrad is wrong here: {r.evidence['verdict']}" for r in results if _spared(r)]
        opinion = (*opinion, *faults)
        results = [_passed(r) if _spared(r) else r for r in results]
    else:
        results = [replace(r, evidence={"against": _ITSELF, **r.evidence}) for r in results]
    blind = any(r.evidence.get("reason") == READS_MEMORY for r in results)
    remarks = [READS_MEMORY] if blind else []
    narrow = [r for r in results if r.check == "narrow" and r.outcome in ("passed", "precision")]
    if apart and narrow:
        results = [_less_exact(r) if _approximate(r) else r for r in results]
    if given.boxed and whole.unseen:
        results = [_unseen(r) if r.check == "vjp" and r.outcome == "passed" else r for r in results]
    remarks += [_BY_BACKWARD] if engine.accumulated else []
    remarks += [] if any(values[i.name].size for i in program.leaves) else [_EMPTY]
    known = _known(results, program)
    if allow_known:
        results = [_passed(r) if k else r for r, k in zip(results, known, strict=True)]
    return results, [*given.notes, *remarks, *opinion, *itertools.chain(*known)]


def _approximate(result: Result) -> bool:
    """Whether it is float32 that a device's kernels are a little less exact in, as cuDNN's are."""
    error, allowed = (result.evidence.get(key, math.nan) for key in ("absolute", "tolerance"))
    narrow = result.dtype in ("float32", "complex64")
    return narrow and result.outcome == "failed" and error <= COARSER * allowed


def _less_exact(result: Result) -> Result:
    off = result.evidence["absolute"] / result.evidence["tolerance"]
    reason = f"off by {off:.1f} tolerances of float32; its derivative in float64 is right"
    return replace(result, outcome="precision", evidence={"reason": reason}, repro=None)


def _spared(result: Result) -> bool:
    """Whether it is the second opinion that is wrong, and not torch, which is judged."""
    verdict = str(result.evidence.get("verdict", ""))
    return result.outcome == "failed" and verdict.startswith("reference wrong")


def _passed(result: Result) -> Result:
    kept = {k: v for k, v in result.evidence.items() if k == "compared"}
    return replace(result, outcome="passed", evidence=kept, repro=None)


def _unseen(result: Result) -> Result:
    reason = "leaves that stand out of reach take part; their gradients were not checked"
    return replace(result, outcome="inconclusive", evidence={"reason": reason})


def _second_opinion(
    own: Engine, program: Program, values: Values
) -> tuple[Engine, tuple[str, ...]]:
    """refgrad where it has every call; else torch, whose forward the numerical check then uses.

    So too where the function depends on the signs of eigenvectors or singular vectors, or on the
    order of a result's dimensions in memory, and refgrad has others: both are right.
    """
    from conformance.engines.refgrad import RefgradEngine

    refgrad = RefgradEngine()
    missing = refgrad.missing(program)
    if missing:
        return own, (f"refgrad has no opinion: it lacks {', '.join(missing)}",)
    free = [target for target in program.targets if target in _UP_TO_SIGNS]
    if free and not _same_values(own, refgrad, program, values):
        names = ", ".join(free)
        return own, (
            f"refgrad has no opinion: the function depends on the signs that {names} leaves open",
        )
    reading = _READ_MEMORY.intersection(program.targets)
    if reading and (target := _first_other(own, refgrad, program, values)) in reading:
        return own, (
            f"refgrad has no opinion: the function depends on the memory layout of what {target} "
            "reads, which refgrad gives otherwise",
        )
    return refgrad, ()


def _with_own_constants(
    own: Engine, other: Engine, program: Program, values: Values
) -> tuple[Program, Values]:
    """The Program with torch's numbers for what depends on no leaf, where the other rounds them
    otherwise (a table of positions in float32): of that neither has a derivative."""
    reached = dependent(program)
    free = [call.name for call in program.calls if call.name not in reached]
    written = writes(program)
    free = [name for name in free if name not in written]
    if not free:
        return program, values
    try:
        ours, theirs = (e.run(program, values, keep=free).kept for e in (own, other))
        names = [n for n in free if not _bits(ours[n], theirs[n])]
        return held(own, program, values, names) if names else (program, values)
    except (EngineError, Unsupported):  # which the checks then tell
        return program, values


def _bits(a: tuple[Array, ...], b: tuple[Array, ...]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y, equal_nan=x.dtype.kind in "fc") for x, y in zip(a, b, strict=True)
    )


def _first_other(own: Engine, other: Engine, program: Program, values: Values) -> str | None:
    """The first call that gives `other` another value than torch, or raises there alone."""
    try:
        theirs = own.run(program, values, keep=("*",)).kept
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


def _same_values(own: Engine, other: Engine, program: Program, values: Values) -> bool:
    try:
        ours, theirs = (e.run(program, values).outputs for e in (own, other))
    except (EngineError, Unsupported):  # which the checks then tell
        return True
    pairs = zip(ours, theirs, strict=False)
    return all(compare(a, b, relative=SAME) is None for a, b in pairs)
