"""A function as one opaque call of the tensors that it depends on: for what cannot be captured.

The tensors are replaced where they stand: among the arguments, in modules, and where the function
holds them (closures, globals, the arguments of a partial); until the next call, since a backward
pass may run a module again. Each call starts from the same state of the modules and the same random
numbers.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from conformance.errors import CaptureError, Unsupported, UsageError
from conformance.program import OPAQUE, Call, Input, Program, Ref, Values
from conformance.sources import randomness
from conformance.sources.as_written import as_compiled, recompile
from conformance.sources.captured import module_of
from conformance.sources.casts import Met, Widened, dispensable, in_double, no_autocast
from conformance.sources.recorder import NUMPY_DTYPE, by_field, device_of
from conformance.sources.stops import Stops

_IMPLICIT = (
    "the gradient of a draw of a gamma or Dirichlet distribution is implicit, that of the "
    "distribution's quantile: no derivative of the numbers that a sampler returns"
)
ROUNDED = {torch.bfloat16: torch.Tensor.bfloat16, torch.complex32: torch.Tensor.chalf}
DRAWS = "it draws random numbers: each call was given the same ones"
_HOOKED = "{names}: what hooks make of a gradient is judged as part of it"
_NOT_RUN = "{names}: hooks that run after a gradient is accumulated are not judged"
_UNSEEN = (
    "{count} more tensors that require grad take part and stand where they cannot be replaced: "
    "their gradients were not checked (make them arguments)"
)


class BlackBox:
    """`fn(*args, **kwargs)`, as a function of its tensors; to be called within `undisturbed`.

    Raises UsageError for a tensor that NumPy cannot hold, and whatever `fn` raises.
    """

    may_differentiate = True  # gradients may be taken inside

    def __init__(self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]):
        self.fn, self.args, self.kwargs = fn, tuple(args), dict(kwargs)
        self.arguments = tree_flatten((self.args, self.kwargs))
        same = map(operator.is_, self.arguments[0], self.args)
        self._flat = not kwargs and len(self.arguments[0]) == len(self.args) and all(same)
        self.holders = tuple(_holders(fn))
        self.modules = _modules(fn, (*self.arguments[0], *(h.value for h in self.holders)))
        self.tensors: dict[str, torch.Tensor] = {}  # by the name of the input
        self.aliases: dict[str, tuple[str, ...]] = {}
        self._names: dict[int, str] = {}  # by the tensor's id
        for tensor in _tensors(self.arguments[0]):
            self._declare(tensor, "x")
        for key, value in kwargs.items():
            for tensor in _tensors(tree_leaves(value)):
                self.aliases.setdefault(self._names[id(tensor)], (key,))
        for module in self.modules:
            for name, parameter in module.named_parameters():
                self._declare(parameter, "p", (name,))
        for holder in self.holders:
            for tensor in _tensors(_leaves(holder.value)):
                if tensor.requires_grad:  # of one with a graph behind it, its value
                    self._declare(tensor, "p", (holder.name,))
        self.standing = [  # where some of them stand
            holder
            for holder in self.holders
            if any(id(t) in self._names for t in _tensors(_leaves(holder.value)))
        ]
        self.kinds = {
            name: _Kind(t.device, t.dtype, tuple(_hooks(t))) for name, t in self.tensors.items()
        }
        self.device = device_of(self.tensors.values())
        self.state = list(_state(self.modules))
        self.put: Callable[[Any], Any] | None = None  # what stands in place of what, by now
        self.standing_in = ExitStack()  # undoes it
        self.stops = Stops()
        self.autocasts = False  # whether it is autocast that makes it compute in 16 bits
        self.casts_to = ""  # what it casts float64 to, where it is the same function without
        self.draws_implicitly = False
        self.unseen: list[torch.Tensor] = []  # leaves that are out of reach
        self.gradients: list[tuple[torch.Tensor, torch.Tensor | None]] = []  # the caller's
        self.randomness = _Randomness(_generators((self.arguments[0], self.holders)))

    def _declare(self, tensor: torch.Tensor, kind: str, aliases: tuple[str, ...] = ()) -> None:
        if id(tensor) in self._names:
            return
        name = f"{kind}{sum(n.startswith(kind) for n in self.tensors)}"
        self._names[id(tensor)] = name
        self.tensors[name] = tensor
        if aliases:
            self.aliases[name] = aliases

    def __call__(self, *given: torch.Tensor) -> Any:
        """What the function returns with these in place of its tensors, in the order of the inputs.

        Each is brought to the device of what it stands for, and to its dtype where NumPy has none
        such. A leaf's own hooks are put on what takes its place.
        """
        outputs, replaced = self._run(given)
        if self._outside:
            for output in _tensors(tree_leaves(outputs)):
                if output.requires_grad:  # its backward pass finds what its forward pass found
                    output.register_hook(lambda _: self._put(replaced))
        return outputs

    def once(self, *given: torch.Tensor) -> Any:
        """The same, for one pass forward that is recorded."""
        return self._run(given)[0]

    def _run(self, given: Sequence[torch.Tensor]) -> tuple[Any, Callable[[Any], Any]]:
        places = {}
        for (name, kind), place in zip(self.kinds.items(), given, strict=True):
            if kind.hooks and place.requires_grad and not place.grad_fn:
                for hook in kind.hooks:
                    place.register_hook(hook)
            there = place if place.device == kind.device else place.to(kind.device)
            rounded = ROUNDED.get(kind.dtype)
            places[name] = there if rounded is None else rounded(there)

        def replaced(leaf: Any) -> Any:
            return places.get(self._names.get(id(leaf), ""), leaf)

        leaves, structure = self.arguments
        args: Any = [replaced(leaf) for leaf in leaves]
        kwargs: dict[str, Any] = {}
        if not self._flat:
            args, kwargs = tree_unflatten(args, structure)
        if self._outside:
            self._put(replaced)
        if self.randomness.drawn is False:
            return by_field(self.fn(*args, **kwargs)), replaced
        with self.randomness.again():
            return by_field(self.fn(*args, **kwargs)), replaced

    @property
    def _outside(self) -> bool:
        """Whether anything stands outside the arguments that has to be replaced, or put back."""
        return bool(self.modules or self.standing or self.state)

    def _put(self, replaced: Callable[[Any], Any]) -> None:
        """Put what `replaced` says where the tensors stand outside the arguments."""
        if self.put is replaced:
            return
        self.standing_in.close()
        with ExitStack() as stack:
            for module in self.modules:
                stack.enter_context(_with_parameters(module, replaced))
            stack.enter_context(_with_state(self.state))
            for holder in self.standing:
                stack.enter_context(holder.holding(tree_map(replaced, holder.value)))
            self.put, self.standing_in = replaced, stack.pop_all()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Parameters, buffers, random numbers and gradients are afterwards as before."""
        for tensor in self.tensors.values():
            if tensor.is_leaf:
                self._set_aside(tensor)
        try:
            with _with_state(self.state), self.randomness.again(), as_compiled():
                try:
                    yield
                finally:
                    self.standing_in.close()
        finally:
            for tensor, gradient in self.gradients:
                tensor.grad = gradient

    def _set_aside(self, leaf: torch.Tensor) -> None:
        """Take a gradient away that a backward pass would add to, where it is."""
        self.gradients.append((leaf, leaf.grad))
        leaf.grad = None

    @property
    def rounded(self) -> str:
        """The dtype of tensors that are held in another, in which NumPy has them; or nothing."""
        found = (kind.dtype for kind in self.kinds.values())
        return next((str(d).removeprefix("torch.") for d in found if d in NUMPY_DTYPE), "")

    @property
    def left(self) -> bytes:
        """Where its last run left the generators; nothing where it draws no random numbers."""
        return self.randomness.left

    @property
    def steady(self) -> Callable[..., Any] | None:
        """The same with what it computes without gradient held constant; None without such.

        Raises Unsupported where its gradient is by design no derivative of what it computes.
        """
        if self.draws_implicitly:
            raise Unsupported(_IMPLICIT)
        return _Steady(self) if self.stops or self.autocasts or self.casts_to else None

    @property
    def in_reverse_alone(self) -> bool:
        """Whether it stops gradients where forward mode goes on."""
        return self.stops.in_reverse_alone

    def inputs(self) -> tuple[list[Input], Values]:
        """What it depends on, and the values now."""
        values: Values = {}
        inputs = []
        for number, (name, tensor) in enumerate(self.tensors.items()):
            array = self._array(number, name, tensor)
            aliases = self.aliases.get(name, ())
            inputs.append(
                Input.of(name, array, requires_grad=tensor.requires_grad, aliases=aliases)
            )
            values[name] = array
        return inputs, values

    def given(self, values: Values) -> list[torch.Tensor]:
        """The values as leaves of their own, on the device."""
        return [
            torch.from_numpy(values[name]).to(self.device).requires_grad_(tensor.requires_grad)
            for name, tensor in self.tensors.items()
        ]

    def program(self, name: str) -> tuple[Program, Values, tuple[str, ...]]:
        """The one call of it, the values, and what is to be said of it."""
        inputs, values = self.inputs()
        given = self.given(values)
        met = Met()
        try:
            with met, self.stops.recording():
                outputs = self(*given)
        except Exception:  # what cannot be watched (compiled code); or it raises for itself again
            self.stops = Stops()
            recompile()
            outputs = self(*given)
        if any(t.is_nested for t in _tensors(tree_leaves(outputs))):
            raise UsageError("the function returns a nested tensor; return its values()")
        notes = []
        self.draws_implicitly = met.implicit
        through = met.narrower({t.dtype for t in given})
        if through in ("bfloat16", "float16"):
            plainly = Met()
            with plainly, no_autocast():
                self(*given)
            self.autocasts = not plainly.narrower({t.dtype for t in given})
        double = all(t is d for t, d in zip(given, map(in_double, given), strict=True))
        if (through or not double) and not self.autocasts and not self.rounded:
            self._widen(given, outputs)
        if through:
            notes.append(f"it computes in {through} on the way, and is held to that")
        if self.randomness.drawn:
            notes.append(DRAWS)
        hooked = [n for n, t in self.tensors.items() if t.requires_grad and self.kinds[n].hooks]
        if hooked:
            notes.append(_HOOKED.format(names=", ".join(hooked)))
        late = [n for n, t in self.tensors.items() if t._post_accumulate_grad_hooks]
        if late:
            notes.append(_NOT_RUN.format(names=", ".join(late)))
        self.unseen = self._out_of_reach(given, outputs)
        for leaf in self.unseen:
            self._set_aside(leaf)
        if self.unseen:
            notes.append(_UNSEEN.format(count=len(self.unseen)))
        refs = tuple(Ref(i.name) for i in inputs)
        box = Call("v0", OPAQUE + name, refs, opaque=self, through=through)
        return Program(tuple(inputs), (box,), _references(outputs, ())), values, tuple(notes)

    def _widen(self, given: Sequence[torch.Tensor], outputs: Any) -> None:
        """See whether it casts float64 to less precision, as a norm does, and can do without."""
        stops, left = Stops(), self.left
        try:
            self.casts_to = dispensable(self, given, outputs, stops.recording())
        except Exception:  # a kernel for one dtype alone, or what cannot be watched
            recompile()
            return
        if self.left != left:
            self.casts_to = ""
        if self.casts_to:
            self.stops = stops

    def _out_of_reach(self, given: Sequence[torch.Tensor], outputs: Any) -> list[torch.Tensor]:
        """Leaves of the graph that are none of the given ones, nor made by the call itself."""
        own = {id(t) for t in given}
        found = [t for t in _accumulated(outputs) if id(t) not in own]
        if not found:
            return []
        again = {id(t) for t in _accumulated(self(*given))}
        return [t for t in found if id(t) in again]

    def _array(self, number: int, name: str, tensor: torch.Tensor) -> np.ndarray[Any, Any]:
        try:
            plain = tensor.detach().clone().resolve_conj().resolve_neg().cpu()
            return plain.to(NUMPY_DTYPE.get(plain.dtype, plain.dtype)).numpy()
        except (TypeError, RuntimeError):
            what = f"input {number}" if name.startswith("x") else self.aliases[name][0]
            if tensor.layout is not torch.strided:
                raise UsageError(
                    f"{what} is {tensor.layout}: give its values(), and make it in the function"
                ) from None
            raise UsageError(
                f"{what} is {tensor.dtype}, and NumPy holds no such values; give float32, and "
                "convert it in the function"
            ) from None


@dataclass(frozen=True)
class _Kind:
    """What takes a tensor's place is brought to, and the tensor's own hooks."""

    device: torch.device
    dtype: torch.dtype
    hooks: tuple[Callable[..., Any], ...]


@dataclass(frozen=True)
class _Steady:
    """A black box with what it computes without gradient held constant, and without autocast.

    Where it is the same function so, without casts to less precision than its inputs have.
    """

    box: BlackBox
    may_differentiate = True

    @property
    def left(self) -> bytes:
        """Where its last run left the generators."""
        return self.box.left

    def through(self, own: str) -> str:
        """The least precise dtype in which it computes; that of the box is `own`."""
        return "float32" if self.box.autocasts else "" if self.box.casts_to else own

    def __call__(self, *given: torch.Tensor) -> Any:
        with ExitStack() as stack:
            if self.box.autocasts:
                stack.enter_context(no_autocast())
            if self.box.casts_to:
                stack.enter_context(Widened(given))
            if self.box.stops:
                stack.enter_context(self.box.stops.again())
            return self.box(*given)


class _Holder:
    """A place outside the arguments where a function finds a value: a cell, a global name."""

    def __init__(self, name: str, value: Any, put: Callable[[Any], None]) -> None:
        self.name, self.value, self._put = name, value, put

    @contextmanager
    def holding(self, value: Any) -> Iterator[None]:
        """Another value in its place."""
        self._put(value)
        try:
            yield
        finally:
            self._put(self.value)


def _holders(fn: Any, seen: set[int] | None = None) -> Iterator[_Holder]:
    """The places of a function, and of the functions that it holds."""
    seen = set() if seen is None else seen
    while isinstance(fn, functools.partial):
        for key, value in fn.keywords.items():
            yield _Holder(key, value, functools.partial(fn.keywords.__setitem__, key))
        for value in fn.args:  # modules alone can be replaced in there
            if isinstance(value, torch.nn.Module) or callable(value):
                yield _Holder("partial", value, lambda _: None)
                yield from _holders(value, seen)
        fn = fn.func
    if isinstance(fn, torch.nn.Module):
        yield _Holder("module", fn, lambda _: None)
    owner = getattr(fn, "__self__", None) if inspect.ismethod(fn) else fn
    plain = not isinstance(owner, torch.nn.Module | type) and not inspect.isroutine(owner)
    if plain and hasattr(owner, "__dict__"):
        for name, value in list(vars(owner).items()):
            yield _Holder(name, value, functools.partial(vars(owner).__setitem__, name))
        if owner is fn:
            fn = type(fn).__call__ if callable(fn) else None
    fn = inspect.unwrap(getattr(fn, "__func__", fn)) if callable(fn) else fn
    if not inspect.isfunction(fn) or id(fn) in seen:
        return
    seen.add(id(fn))
    found = []
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
        found.append(_Holder(name, value, functools.partial(setattr, cell, "cell_contents")))
    if fn.__defaults__:
        found.append(
            _Holder("default", fn.__defaults__, functools.partial(setattr, fn, "__defaults__"))
        )
    keywords = fn.__kwdefaults__ or {}
    for name, value in keywords.items():
        found.append(_Holder(name, value, functools.partial(keywords.__setitem__, name)))
    space = fn.__globals__
    found += [
        _Holder(name, space[name], functools.partial(space.__setitem__, name))
        for name in dict.fromkeys(_names(fn.__code__))
        if name in space
    ]
    for holder in found:
        yield holder
        if getattr(holder.value, "__module__", None) == fn.__module__:  # no library's insides
            yield from _holders(holder.value, seen)


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function's code looks up, and that of the functions defined in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _modules(fn: Any, held: Sequence[Any]) -> list[torch.nn.Module]:
    """The modules whose parameters the function may use; none that is a part of another."""
    found: list[torch.nn.Module] = []
    for value in (fn, *held):
        if callable(value):
            try:
                value = module_of(value)
            except CaptureError:  # a scripted one: its parameters cannot be replaced
                continue
        for leaf in _leaves(value):
            if isinstance(leaf, torch.nn.Module) and leaf not in found:
                found.append(leaf)
    parts = {id(part) for module in found for part in module.modules() if part is not module}
    return [module for module in found if id(module) not in parts]


@contextmanager
def _with_parameters(module: torch.nn.Module, replaced: Callable[[Any], Any]) -> Iterator[None]:
    before = [(owner, dict(owner._parameters)) for owner in module.modules()]
    try:
        for owner, own in before:
            owner._parameters.update({name: replaced(p) for name, p in own.items()})
        yield
    finally:
        for owner, own in before:
            owner._parameters.update(own)


_State = tuple[dict[str, Any], str, Any]  # where a module holds a value, its name, the value


def _state(modules: Sequence[torch.nn.Module]) -> Iterator[_State]:
    """What a call may leave behind in modules: buffers, and tensors and numbers held plainly."""
    kept: dict[int, torch.Tensor] = {}  # one for those that share one
    for owner in (part for module in modules for part in module.modules()):
        for space in (owner._buffers, vars(owner)):
            for name, value in space.items():
                if isinstance(value, torch.Tensor) and not value.requires_grad:
                    yield space, name, kept.setdefault(id(value), value.detach().clone())
                elif isinstance(value, int | float):
                    yield space, name, value


@contextmanager
def _with_state(state: list[_State]) -> Iterator[None]:
    before = [space[name] for space, name, _ in state]
    try:
        fresh: dict[int, torch.Tensor] = {}
        for space, name, value in state:
            tensor = isinstance(value, torch.Tensor)
            space[name] = fresh.setdefault(id(value), value.clone()) if tensor else value
        yield
    finally:
        for (space, name, _), value in zip(state, before, strict=True):
            space[name] = value


class _Randomness:
    """Where random numbers come from, as it is now: NumPy, Python, and generators of torch."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators
        self.states = self._now()
        self.drawn: bool | None = None  # whether the first call drew any
        self._after = self.states  # of the last call

    @property
    def left(self) -> bytes:
        """The states after the last call, digested; nothing where none draws."""
        if not self.drawn:
            return b""
        (_, keys, at, *_), python, *own = self._after
        parts = (keys.tobytes(), repr((at, python)).encode(), *(s.numpy().tobytes() for s in own))
        return hashlib.sha256(b"".join(parts)).digest()

    def _now(self) -> tuple[Any, ...]:
        own = tuple(g.get_state() for g in self.generators)
        return (np.random.get_state(), random.getstate(), *own)

    def _put(self, states: tuple[Any, ...], now: tuple[Any, ...]) -> None:
        if _alike(states, now):  # telling takes a tenth of the time of setting
            return
        np.random.set_state(states[0])
        random.setstate(states[1])
        for generator, state in zip(self.generators, states[2:], strict=True):
            generator.set_state(state)

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same numbers as at first."""
        before = self._now()
        self._put(self.states, before)
        try:
            yield
        finally:
            self._after = after = self._now()
            if self.drawn is None:
                self.drawn = not _alike(after, self.states)
            self._put(before, after)


def _alike(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether generators are in the same states."""
    (_, keys, at, *_), (_, other_keys, other_at, *_) = a[0], b[0]
    same = a[1] == b[1] and at == other_at and np.array_equal(keys, other_keys)
    with torch._C.DisableTorchFunction():  # no part of a function that is being recorded
        return same and all(
            np.array_equal(x.numpy(), y.numpy()) for x, y in zip(a[2:], b[2:], strict=True)
        )


def _generators(tree: tuple[list[Any], tuple[_Holder, ...]]) -> list[torch.Generator]:
    arguments, holders = tree
    held = [leaf for holder in holders for leaf in _leaves(holder.value)]
    given = [leaf for leaf in (*arguments, *held) if isinstance(leaf, torch.Generator)]
    return [*randomness.generators(), *given]


def _leaves(value: Any) -> list[Any]:
    """The leaves of what a function holds; none of what holds itself."""
    try:
        return list(tree_leaves(value))
    except RecursionError:
        return []


def _tensors(leaves: Sequence[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _hooks(tensor: torch.Tensor) -> list[Callable[..., Any]]:
    return list((tensor._backward_hooks or {}).values())


def _accumulated(outputs: Any) -> Iterator[torch.Tensor]:
    """The leaves that a backward pass from these would reach."""
    ahead = [t.grad_fn for t in _tensors(tree_leaves(outputs)) if t.grad_fn is not None]
    seen = set(ahead)
    while ahead:
        node: Any = ahead.pop()
        if hasattr(node, "variable"):
            yield node.variable
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)


def _references(tree: Any, path: tuple[int | str, ...]) -> Any:
    if isinstance(tree, torch.Tensor):
        return Ref("v0", path)
    if isinstance(tree, tuple | list):
        return tuple(_references(t, (*path, n)) for n, t in enumerate(tree) if _holds(t))
    if isinstance(tree, dict):
        return {k: _references(t, (*path, k)) for k, t in tree.items() if _holds(t)}
    raise UsageError(
        f"the function returns a {type(tree).__name__}, not a tensor or a tree of them"
    )


def _holds(tree: Any) -> bool:
    return isinstance(tree, torch.Tensor | tuple | list | dict)
