"""Source `user:MODULE:NAME`: what a user asks to verify, whole and call by call."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from conformance.errors import UsageError
from conformance.sources.alone import calls_alone
from conformance.sources.base import Item, Sample, Skipped

if TYPE_CHECKING:
    from conformance.settings import Settings

PREFIX = "user:"

_ADVICE = (
    "give a factory without arguments that returns (callable, args) or (callable, args, kwargs)"
)


@dataclass(frozen=True)
class Subject:
    """What to verify: a callable and what to call it with; `chosen` says that we made these up.

    From `specs` further sets of arguments may be drawn.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    chosen: str = ""
    specs: tuple[str, ...] = ()

    def drawn(
        self, inputs: Sequence[str], seed: int, number: int, device: str, *, huge: bool = True
    ) -> Subject:
        """The same with the arguments of set `number` drawn by `inputs`, as `huge` numbers too."""
        from conformance import specs

        described = [replace(specs.spec(text), huge=huge) for text in inputs]
        args = specs.tensors(described, seed, number, device)
        return Subject(self.fn, args, {}, f"drawn from {'; '.join(inputs)}")


class User:
    """One item: the user's callable. Made by `sources.load("user:MODULE:NAME")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec = name.removeprefix(PREFIX)

    def items(self, settings: Settings) -> list[Item]:
        """The one item; raises UsageError where MODULE:NAME cannot be used."""
        load(self.spec, settings.inputs)
        return [Item(self.name, self.spec, self.spec.rpartition(":")[2])]

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """The whole Program, then each distinct call alone; or the whole as one opaque call.

        What cannot be judged is an error, since the user asked for it by name. So is a set of
        arguments that the user describes and the callable refuses; one of ours is left out. Beyond
        the first of ours the whole alone is judged.
        """
        first = load(item.key, settings.inputs, settings.seed, 0, settings.place)
        specs = settings.inputs or first.specs
        for number in range(settings.draws if specs else 1):
            ours = number > 0 and not settings.inputs
            subject = first
            if number:
                given = (specs, settings.seed, number, settings.place)
                subject = first.drawn(*given, huge=not ours)
            label = f"{item.key}, set {number}" if specs else item.key
            yield from _programs(subject, item.op, label, settings.place, ours)


def _programs(
    subject: Subject, op: str, label: str, place: str, ours: bool
) -> Iterator[Sample | Skipped]:
    from conformance.sources.black_box import BlackBox
    from conformance.sources.function import as_program

    try:
        whole = BlackBox(subject.fn, subject.args, subject.kwargs)
        on = whole.device.partition(":")[0]
        if on != place:
            raise UsageError(f"it runs on {on}: add --device {on}")
        with whole.undisturbed():
            found = as_program(whole)
            note = "; ".join(filter(None, (subject.chosen, *found.notes)))
            if found.boxed and whole.unseen:
                raise UsageError(note)
            by_memory = found.compiled or on != "cpu"
            yield Sample(op, found.program, found.values, label, note, by_memory)
            if not found.boxed and len(found.program.calls) > 1 and not ours:
                yield from calls_alone(found.program, found.values, label, whole.device)
    except UsageError as error:
        yield Skipped(op, label, str(error), outcome="errored")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if ours:
            yield Skipped(op, label, f"arguments made up that it does not take: {reason}")
        else:
            yield Skipped(op, label, f"{label} raised {reason}", outcome="errored")


def load(
    spec: str, inputs: Sequence[str] = (), seed: int = 0, number: int = 0, device: str = "cpu"
) -> Subject:
    """The callable that MODULE:NAME names, with arguments: those of set `number` drawn by `inputs`.

    A module, and arguments that are not the user's, are brought to `device`. What the user's code
    draws from torch's generators meanwhile, as a module's parameters, is that of `seed`.

    MODULE is an import path or a file ending in .py. NAME is a factory without arguments, or a
    function, autograd.Function or nn.Module, for which small arguments are made up where no
    `inputs` describe them (see conformance.specs). Raises UsageError that says what to do.
    """
    from conformance.sources.randomness import seeded

    with seeded(seed):
        found = _found(spec, device)
        if inputs:
            fn = found.apply if _is_function(found) else found
            return Subject(fn).drawn(inputs, seed, number, device)
        return _with_arguments(found, spec, device)


def _is_function(thing: Any) -> bool:
    """Whether it is a class of autograd.Function."""
    import torch

    return isinstance(thing, type) and issubclass(thing, torch.autograd.Function)


def _found(spec: str, device: str) -> Any:
    """What MODULE:NAME names: of a module class an instance, of `F.apply` the Function.

    Raises UsageError where it is not there, or cannot be called.
    """
    import torch

    module_name, _, name = spec.rpartition(":")
    if not module_name or not name:
        raise UsageError(f"{spec!r} should be MODULE:NAME, as in my_package.layers:attention")
    found = _attribute(_import(module_name), name, spec)
    owner = getattr(found, "__self__", None)
    if _is_function(owner) and found.__name__ == "apply":
        return owner
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        found = _call(found, spec, "make it without arguments")
    if not callable(found):
        raise UsageError(f"{spec} is a {type(found).__name__}, which cannot be called; {_ADVICE}")
    return found.to(device) if isinstance(found, torch.nn.Module) else found


def _with_arguments(found: Any, spec: str, device: str) -> Subject:
    """Made-up arguments, or those of a factory."""
    import torch

    if _is_function(found):
        return _guess(found.apply, _required(found.forward)[1:], spec, device)
    if isinstance(found, torch.nn.Module):
        return _guess(found, _required(found.forward), spec, device)
    required = _required(found)
    if required:
        return _guess(found, required, spec, device)
    made = _call(found, spec, "call it without arguments")
    if isinstance(made, tuple) and made and callable(made[0]):
        return _from_factory(made, spec)
    return Subject(found)


def _import(name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            path = Path(name).resolve()
            location = importlib.util.spec_from_file_location(path.stem, path)
            if location is None or location.loader is None:
                raise ImportError(f"cannot load {path}")
            module = importlib.util.module_from_spec(location)
            sys.modules[path.stem] = module
            location.loader.exec_module(module)
            return module
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(
            f"importing {name} failed ({type(error).__name__}: {error}); "
            "is it installed, in this folder, or on PYTHONPATH?"
        ) from error


def _attribute(module: ModuleType, name: str, spec: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"{spec}: {getattr(found, '__name__', found)} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def _call(fn: Callable[[], Any], spec: str, what: str) -> Any:
    try:
        return fn()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{spec}: could not {what} ({reason}); {_ADVICE}") from error


def _from_factory(made: tuple[Any, ...], spec: str) -> Subject:
    fn, *rest = made
    args = rest[0] if rest else ()
    kwargs = rest[1] if len(rest) > 1 else {}
    fits = len(rest) <= 2 and isinstance(args, tuple | list) and isinstance(kwargs, dict)
    if not fits:
        kinds = ", ".join(type(part).__name__ for part in made)
        raise UsageError(
            f"{spec} returned ({kinds}); it should return (callable, args) with a tuple of "
            "arguments, or (callable, args, kwargs) with a dict as well"
        )
    return Subject(fn, tuple(args), kwargs)


def _required(fn: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters that have no default."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin says nothing
        return ["input"]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def _guess(fn: Callable[..., Any], required: list[str], spec: str, device: str) -> Subject:
    """Gaussian arguments of the first shape that the callable accepts."""
    import torch

    parameters = list(fn.parameters()) if isinstance(fn, torch.nn.Module) else []
    dtype = parameters[0].dtype if parameters else torch.float64
    width = next((p.shape[-1] for p in parameters if p.dim() > 1), 4)
    last = str(width) if parameters else "k"
    shapes = (
        ((3, width), f"n, {last}"),
        ((width, width), "n, n"),
        ((2, 3, width), f"m, n, {last}"),
        ((width,), last),
        ((), ""),
    )
    reasons = []
    for shape, sizes in shapes:
        generator = torch.Generator().manual_seed(0)
        args = tuple(
            torch.randn(shape, generator=generator, dtype=dtype).to(device).requires_grad_()
            for _ in required
        )
        try:
            fn(*args)
        except Exception as error:
            reasons.append(f"{list(shape)}: {type(error).__name__}: {error}")
            continue
        drawn = _further(fn, len(required), dtype, (sizes, ", ".join(map(str, shape))), device)
        named = ", ".join(required)
        return Subject(fn, args, {}, f"arguments made up: {named} = randn{list(shape)}", drawn)
    raise UsageError(
        f"{spec} takes ({', '.join(required)}), and no made-up arguments fit "
        f"({str(reasons[0])[:200]}); {_ADVICE}"
    )


def _further(
    fn: Callable[..., Any], count: int, dtype: Any, sizes: Sequence[str], device: str
) -> tuple[str, ...]:
    """Specs for `count` arguments, of the first sizes that the callable takes when drawn once."""
    from conformance import specs

    kind = str(dtype).removeprefix("torch.")
    for text in sizes:
        drawn = (f"{kind}[{text}]",) * count
        with suppress(Exception):  # other sizes than those that it takes
            fn(*specs.tensors([specs.spec(each) for each in drawn], 0, 0, device))
            return drawn
    return ()
