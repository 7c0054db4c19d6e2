"""check_gradients: judge the derivatives that PyTorch gives of a function of yours.

The function is captured as a Program, and torch's backward pass of it is compared, entry by entry,
with refgrad's where refgrad has every call, and along random directions with derivatives that no
rule had a part in. What cannot be captured is judged as a black box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conformance import checks
from conformance.checks.compare import compare
from conformance.engines.base import Engine
from conformance.engines.torch import TorchEngine
from conformance.errors import CaptureError, EngineError, GradientMismatch, Unsupported, UsageError
from conformance.oracles.directional import moved
from conformance.oracles.pairs import direction
from conformance.program import OPAQUE, Call, Input, Program, Ref, Values
from conformance.results import FAILING, Result
from conformance.settings import Settings
from conformance.sources.base import Sample
from conformance.sources.captured import capture

SOURCE = "user"
DIRECTIONS = 4
NUDGE = 1e-3  # of the inputs: far enough to show a value that left torch
_UNLIKE = (
    "judged as a black box: the captured calls do not follow the inputs as the function does "
    "(a value left torch, or a branch depends on one)"
)


@dataclass(frozen=True)
class Report:
    """What `check_gradients` found.

    `ok` says that every check passed and something was compared; an inconclusive check is not ok.
    `worst` is the Result that failed first, or None. str(report) is for people.
    """

    ok: bool
    verdict: str
    worst: Result | None
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a derivative is wrong, or could not be computed."""
        return any(r.outcome in FAILING for r in self.results)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{'ok' if self.ok else 'NOT OK'}: {self.verdict}"]
        lines += [f"  {_line(r)}" for r in self.results]
        lines += [f"  note: {note}" for note in self.notes]
        if self.worst is not None:
            lines += ["", *_details(self.worst)]
        return "\n".join(lines)


def check_gradients(
    fn: Callable[..., Any],
    *inputs: Any,
    order: int = 1,
    raise_on_failure: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    directions: int = DIRECTIONS,
    seed: int = 0,
) -> Report:
    """Check the gradients that torch gives of `fn(*inputs, **kwargs)`.

    fn: a function of tensors, an `autograd.Function`'s apply, an `nn.Module`; it returns a tensor
    or a tree of them. Inputs of floating or complex dtype that require grad are differentiated,
    and so are a module's parameters. `order=2` adds Hessian-vector products. `directions` is how
    many independent random directions are compared numerically.

    Raises GradientMismatch with str(report) where `raise_on_failure` is set and a derivative is
    wrong; UsageError where nothing requires grad; and whatever `fn` itself raises.
    """
    if order not in (1, 2):
        raise UsageError(f"order is {order}; first (1) and second (2) order can be checked")
    arguments = dict(kwargs or {})
    try:
        captured = capture(fn, inputs, arguments)
        program, values, notes = captured.program, captured.values, captured.notes
        box = _black_box(fn, inputs, arguments)
        if not notes and not _alike(program, values, *box):
            program, values = box
            notes = (_UNLIKE,)
    except CaptureError as error:
        program, values = _black_box(fn, inputs, arguments)
        notes = (f"judged as a black box, since it could not be captured: {error}",)
    if not program.leaves:
        raise UsageError(
            "nothing to differentiate: no input requires grad; call requires_grad_() on one"
        )
    reference, opinion = _second_opinion(program)
    settings = Settings(
        engine="torch", reference=reference.name, order=order, directions=directions, seed=seed,
        standalone=0, dtypes=(program.leaves[0].dtype,),
    )  # fmt: skip
    context = checks.context_for(settings, engine=TorchEngine(), reference=reference)
    sample = Sample(_name(fn), program, values)
    results = tuple(checks.check_sample(sample, context, SOURCE))
    report = _report(results, (*notes, *opinion))
    if raise_on_failure and report.failed:
        raise GradientMismatch(str(report))
    return report


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


def _second_opinion(program: Program) -> tuple[Engine, tuple[str, ...]]:
    """refgrad where it has every call; else torch, whose forward the numerical check then uses."""
    from conformance.engines.refgrad import RefgradEngine

    refgrad = RefgradEngine()
    missing = refgrad.missing(program)
    if not missing:
        return refgrad, ()
    return TorchEngine(), (f"refgrad has no opinion: it lacks {', '.join(missing)}",)


def _black_box(
    fn: Callable[..., Any], inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Program, Values]:
    """The whole function as one opaque call of its tensors, a module's parameters included."""
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    parameters: dict[str, torch.Tensor] = {}
    if isinstance(fn, torch.nn.Module):
        parameters = dict(fn.named_parameters())
    made: list[Input] = []
    values: Values = {}
    for number, tensor in enumerate([*tensors, *parameters.values()]):
        name = f"x{number}" if number < len(tensors) else f"p{number - len(tensors)}"
        aliases = () if number < len(tensors) else (list(parameters)[number - len(tensors)],)
        array = tensor.detach().clone().resolve_conj().resolve_neg().numpy()
        grad = tensor.requires_grad
        made.append(Input.of(name, array, requires_grad=grad, aliases=aliases))
        values[name] = array

    def call(*given: torch.Tensor) -> Any:
        rest = iter(given[: len(tensors)])
        args = [next(rest) if isinstance(x, torch.Tensor) else x for x in inputs]
        if isinstance(fn, torch.nn.Module):
            replaced = dict(zip(parameters, given[len(tensors) :], strict=True))
            return torch.func.functional_call(fn, replaced, tuple(args), kwargs)
        return fn(*args, **kwargs)

    refs = tuple(Ref(i.name) for i in made)
    box = Call("v0", OPAQUE + _name(fn), refs, opaque=call)
    outputs = call(*(torch.from_numpy(values[i.name]) for i in made))
    return Program(tuple(made), (box,), _references(outputs, ())), values


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


def _report(results: tuple[Result, ...], notes: tuple[str, ...]) -> Report:
    failing = [r for r in results if r.outcome in FAILING]
    # the entry-by-entry comparison says most: it names the leaf and the entry
    order = {"vjp": 0, "numerical": 1, "rr": 2, "value": 3}
    failing.sort(key=lambda r: order.get(r.check, 9))
    undecided = [r for r in results if r.outcome not in ("passed", "precision", *FAILING)]
    if failing:
        worst = failing[0]
        text = worst.evidence.get("verdict") or worst.evidence.get("reason", worst.outcome)
        return Report(False, str(text), worst, results, notes)
    if undecided:
        reason = undecided[0].evidence.get("reason", undecided[0].outcome)
        text = f"{undecided[0].check} is {undecided[0].outcome}: {reason}"
        return Report(False, text, None, results, notes)
    if not any(r.check == "numerical" for r in results):
        return Report(
            False, "nothing was compared: no output is differentiable", None, results, notes
        )
    return Report(True, "every derivative agrees", None, results, notes)


def _line(result: Result) -> str:
    evidence = result.evidence
    said = [f"{result.check}: {result.outcome}"]
    if "oracle" in evidence:
        said.append(f"against {evidence['oracle']}")
        said.append(f"bound {evidence['bound']:.1e}")
    if evidence.get("diagnosis") == "kink":
        said[1:] = ["at a kink, where the gradient is one of several"]
    elif "oracle" not in evidence and "compared" in evidence:
        said.append(f"{evidence['compared']} entries")
    if result.outcome != "passed" and "reason" in evidence:
        said.append(str(evidence["reason"]))
    return ", ".join(said)


def _details(worst: Result) -> list[str]:
    evidence = worst.evidence
    if evidence.get("reference") == evidence.get("engine"):
        evidence = {k: v for k, v in evidence.items() if k != "reference"}
    keys = ("leaf", "index", "engine", "reference", "numerical", "bound", "absolute", "relative")
    names = {"engine": "torch", "reference": "second opinion"}
    lines = [f"{names.get(k, k):>15}: {evidence[k]}" for k in keys if k in evidence]
    for key in ("diagnosis", "description", "first_call", "error"):
        if key in evidence:
            lines.append(f"{key.replace('_', ' '):>15}: {evidence[key]}")
    if worst.repro is not None:
        lines += ["", *("    " + line for line in worst.repro["program"].splitlines())]
    return lines
