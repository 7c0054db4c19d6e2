"""Recording: a function mode that writes down every outermost torch call as a Call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from conformance.errors import CaptureError
from conformance.program import OPAQUE, Array, Call, Input, Program, Ref, Symbol, Values, layout
from conformance.sources import randomness
from conformance.sources.casts import watched
from conformance.sources.names import canonical, name_of
from conformance.sources.trees import tensors_of

# They return tensors, but are no part of what is computed: a result that nothing recorded becomes
# a constant when it is first used.
_CONSTANTS = {
    "torch.Tensor.__deepcopy__",
    "torch.Tensor.grad.__get__",
    "torch.as_tensor",
    "torch.asarray",
    "torch.from_numpy",
    "torch.tensor",
}
_IGNORED = {"torch.Tensor.retain_grad", "torch.Tensor.share_memory_"}
_REFUSED = {
    "torch.Tensor.backward": "return the loss instead; its backward pass is taken here",
    "torch.autograd.backward": "return the loss instead; its backward pass is taken here",
    "torch.Tensor.register_hook": "a hook changes gradients in a way that no Program can hold",
    "torch.Tensor.register_post_accumulate_grad_hook": "hooks have no place in a Program",
}
_MOVING = {"torch.Tensor.cpu", "torch.Tensor.cuda", "torch.Tensor.to"}  # or not at all
_PYTHON_TYPES = {float: "float64", int: "int64", bool: "bool", complex: "complex128"}
NUMPY_DTYPE = {torch.bfloat16: torch.float32, torch.complex32: torch.complex64}

_OPS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)


class Recorder(TorchFunctionMode):
    """Holds what was recorded: inputs with their values, calls, and the tensors by name.

    A Program says nothing of devices: it runs where its engine puts the inputs. So all that is
    computed has to be on one, `device`.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.calls: list[Call] = []
        self.results: list[Any] = []  # of the calls, to keep the tensors alive and to compare
        self.tensors: dict[str, torch.Tensor] = {}  # the inputs
        self.notes: list[str] = []
        self._inputs: dict[str, Input] = {}
        self._contents: Values = {}
        self._refs: dict[int, Ref] = {}
        self._latest: dict[int, Ref] = {}  # by the last call that returned the very same tensor
        self._alive: list[Any] = []
        self._names: dict[int, list[str]] = {}
        self._busy = 0

    # Inputs.

    def declare(self, tensor: torch.Tensor, kind: str, names: tuple[str, ...] = ()) -> Ref:
        """Make a tensor an input now, with the value that it has now."""
        if id(tensor) in self._refs:
            return self._refs[id(tensor)]
        reason = _unholdable(tensor) or self._elsewhere(tensor)
        if reason:
            raise CaptureError(reason)
        name = f"{kind}{sum(i.startswith(kind) for i in self._inputs)}"
        self._inputs[name] = Input(
            name,
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.requires_grad,
            names or tuple(self._names.get(id(tensor), ())),
            constant=kind == "c",
        )
        self._contents[name] = to_numpy(tensor)
        self.tensors[name] = tensor
        self._remember(tensor, Ref(name))
        return self._refs[id(tensor)]

    def know(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The user's names for tensors that may turn up; a tied one has several."""
        for name, tensor in tensors.items():
            self._alive.append(tensor)
            self._names.setdefault(id(tensor), []).append(name)

    def program(self, outputs: Any) -> tuple[Program, Values]:
        """What was recorded, with `outputs` (a tree holding tensors) as what it returns."""
        with self._handling():
            tree = self._outputs(outputs)
        if not _holds(tree):
            raise CaptureError(f"it returned no tensor but a {type(outputs).__name__}")
        inputs = _with_storage(tuple(self._inputs.values()), self.tensors)
        program = Program(inputs, tuple(self.calls), tree).check().live()
        return program, layout(program.inputs, self._contents)

    def _outputs(self, tree: Any) -> Any:
        """The tree of Refs for a returned value; what is no tensor is left out."""
        if isinstance(tree, torch.Tensor):
            return self._latest.get(id(tree)) or self._ref(tree, "the returned value")
        if isinstance(tree, dict):
            items = [(key, self._outputs(item)) for key, item in tree.items()]
            return {str(key): item for key, item in items if _holds(item)}
        if isinstance(tree, tuple | list):
            found = [item for item in map(self._outputs, tree) if _holds(item)]
            return tuple(found)
        return ()

    # Calls.

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._busy:
            return func(*args, **kwargs)
        with self._handling():
            return self._record(func, args, kwargs)

    @contextmanager
    def _handling(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record what runs inside; custom Functions and scripted functions too."""
        recorder = self
        # Function.apply ends in its base's; patched there, an `f = F.apply` made earlier is seen
        base: Any = torch.autograd.function._SingleLevelFunction
        script_call = torch._C.ScriptFunction.__call__

        def recorded_apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            if recorder._busy:
                parent: Any = super(base, cls)
                return parent.apply(*args, **kwargs)
            with recorder._handling():
                return recorder._opaque(qualified(cls), cls.apply, args, kwargs)

        def recorded_script(script: Any, *args: Any, **kwargs: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                return script_call(script, *args, **kwargs)

            if recorder._busy:
                return call(*args, **kwargs)
            with recorder._handling():
                return recorder._opaque(script.qualified_name, call, args, kwargs)

        function = mock.patch.object(base, "apply", classmethod(recorded_apply), create=True)
        script = mock.patch.object(torch._C.ScriptFunction, "__call__", recorded_script)
        with function, script, self:
            yield self

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_of(func)
        if name in _REFUSED:
            raise CaptureError(f"{name} cannot be captured: {_REFUSED[name]}")
        if name == "torch.Tensor.__iter__":
            return iter(self._record(torch.unbind, (args[0], 0), {}))
        if name in _CONSTANTS or name in _IGNORED:
            return func(*args, **kwargs)
        given = [leaf for leaf in tensors_of((args, kwargs)) if leaf is not None]
        if not given:  # a factory: its tensor is a constant, once it is used
            return func(*args, **kwargs)
        target, canonical_args, canonical_kwargs = canonical(func, args, kwargs)
        moves = self.device != "cpu" and target in _MOVING
        if moves and id(args[0]) not in self._refs and not args[0].requires_grad:
            return func(*args, **kwargs)  # a constant, once it is used where it was brought
        where = target or str(name or func)
        for tensor in given:
            self._ref(tensor, where)
        grad = torch.is_grad_enabled()
        before = randomness.State.now()
        own, through = func, ""
        if isinstance(func, _OPS) and target is None:
            result, own, through = watched(func, args, kwargs)
        else:
            result = func(*args, **kwargs)
        call = Call("", where, (), {}, grad)
        if not _has_tensor(result) and not call.in_place:
            return result
        if moves and result is args[0]:
            return result
        if before.left:
            return self._random(where, before, canonical_args, canonical_kwargs, result)
        if target is None:
            if isinstance(func, _OPS):
                return self._append(f"{OPAQUE}{func}", args, kwargs, result, own, through)
            raise CaptureError(f"{where} has no public name, so no Program can hold it")
        return self._append(target, canonical_args, canonical_kwargs, result)

    def _opaque(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        for tensor in tensors_of((args, kwargs)):
            self._ref(tensor, name)
        result, function, through = watched(function, args, kwargs)
        return self._append(f"{OPAQUE}{name}", args, kwargs, result, function, through)

    def _append(
        self,
        target: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        opaque: Callable[..., Any] | None = None,
        through: str = "",
    ) -> Any:
        for tensor in tensors_of(result):
            if reason := self._elsewhere(tensor):
                raise CaptureError(f"{target}: {reason}")
        if through:
            self.notes.append(f"{target} computes in {through} on the way, and is held to that")
        name = f"v{len(self.calls)}"
        plain_args = tuple(self._plain(arg, target) for arg in args)
        plain_kwargs = {key: self._plain(arg, target) for key, arg in kwargs.items()}
        grad = torch.is_grad_enabled()
        call = Call(name, target, plain_args, plain_kwargs, grad, opaque, through)
        self.calls.append(call)
        self.results.append(result)
        for tensor, path in _tensors_with_paths(result):
            if id(tensor) not in self._refs or call.in_place:
                self._remember(tensor, Ref(name, path))
            if grad:
                self._latest[id(tensor)] = Ref(name, path)
        return result

    def _random(
        self,
        target: str,
        state: randomness.State,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> Any:
        """A call that drew random numbers: what it drew becomes a constant."""
        drawn = randomness.explain(target, state, args, kwargs, result)
        self.notes.append(f"the numbers that {target} drew are a constant")
        if drawn is None:
            return result  # nothing differentiable: a constant, once it is used
        initialises = target.startswith("torch.nn.init.")  # which turns grad mode off inside
        with torch.set_grad_enabled(torch.is_grad_enabled() and not initialises):
            return self._append(drawn.target, drawn.args, drawn.kwargs, result)

    # Values.

    def _remember(self, thing: Any, ref: Ref) -> None:
        self._alive.append(thing)
        self._refs[id(thing)] = ref

    def _ref(self, tensor: torch.Tensor, where: str) -> Ref:
        known = self._refs.get(id(tensor))
        if known is not None:
            return known
        if tensor.grad_fn is not None:
            raise CaptureError(
                f"{where} uses a tensor with grad_fn {tensor.grad_fn.name()} that no recorded call "
                "made; compute it inside the function, or pass it as an argument"
            )
        try:
            return self.declare(tensor, "p" if tensor.requires_grad else "c")
        except CaptureError as error:
            raise CaptureError(f"{where}: {error}") from error

    def _elsewhere(self, tensor: torch.Tensor) -> str | None:
        """Why it has no place beside the others; a number on the CPU has one anywhere."""
        device = tensor.device
        if device == torch.device(self.device) or (device.type == "cpu" and not tensor.dim()):
            return None
        return f"a Program is on one device, and here are tensors on {self.device} and {device}"

    def _is_device(self, value: Any) -> bool:
        """Whether an argument says where everything is anyway."""
        if self.device == "cpu" or not isinstance(value, torch.device | str):
            return False
        return str(value) in (self.device, self.device.partition(":")[0])

    def _plain(self, value: Any, where: str) -> Any:
        """An argument as a Program holds it."""
        if isinstance(value, torch.Tensor):
            return self._ref(value, where)
        if self._is_device(value):
            return None
        if value is None or value is Ellipsis or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            return complex(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return Symbol(str(value))
        if isinstance(value, torch.device):
            return str(value)
        if isinstance(value, type) and value in _PYTHON_TYPES:
            return Symbol(f"torch.{_PYTHON_TYPES[value]}")
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return slice(*(self._plain(part, where) for part in parts))
        if isinstance(value, tuple | range):
            return tuple(self._plain(item, where) for item in value)
        if isinstance(value, list):
            return [self._plain(item, where) for item in value]
        if isinstance(value, dict):
            return {key: self._plain(item, where) for key, item in value.items()}
        if isinstance(value, np.ndarray) and id(value) in self._refs:
            return self._refs[id(value)]
        if isinstance(value, np.ndarray):
            ref = self.declare(torch.from_numpy(value.copy()), "c")
            self._remember(value, ref)
            return ref
        raise CaptureError(f"{where} takes a {type(value).__name__}, which no Program can hold")


def qualified(thing: Any) -> str:
    """`module.Class`, for the name of an opaque call."""
    return f"{thing.__module__}.{thing.__qualname__}"


def to_numpy(tensor: torch.Tensor) -> Array:
    """A contiguous copy; bfloat16 becomes float32, which holds it exactly."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if plain.dtype in NUMPY_DTYPE:
        plain = plain.to(NUMPY_DTYPE[plain.dtype])
    return np.array(plain.cpu().clone().numpy())


def device_of(tensors: Iterable[torch.Tensor]) -> str:
    """Where a function of these runs: on the accelerator that holds any, else on the CPU."""
    devices = (t.device for t in tensors)
    return next((str(d) for d in devices if d.type not in ("cpu", "meta")), "cpu")


def by_field(tree: Any) -> Any:
    """A tree of results in which a dataclass is the dict of its fields."""
    if isinstance(tree, torch.Tensor):
        return tree
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type | dict):
        return {f.name: by_field(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
    if type(tree) in (tuple, list):
        return type(tree)(map(by_field, tree))
    if type(tree) is dict:
        return {key: by_field(item) for key, item in tree.items()}
    return tree


def _has_tensor(tree: Any) -> bool:
    return any(True for _ in tensors_of(tree))


def _holds(tree: Any) -> bool:
    return isinstance(tree, Ref) or bool(tree)


def _tensors_with_paths(
    tree: Any, path: tuple[int | str, ...] = ()
) -> Iterator[tuple[torch.Tensor, tuple[int | str, ...]]]:
    if isinstance(tree, torch.Tensor):
        yield tree, path
    elif isinstance(tree, tuple | list):
        for index, item in enumerate(tree):
            yield from _tensors_with_paths(item, (*path, index))
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from _tensors_with_paths(item, (*path, key))


def _unholdable(tensor: torch.Tensor) -> str | None:
    """Why a Program cannot hold this tensor as an input."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "torch.func transforms (vmap, grad, jvp) inside a function cannot be captured"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return f"a Program holds dense tensors only, not {tensor.layout}"
    if tensor.is_quantized or tensor.device.type == "meta":
        return f"a Program holds plain tensors, not {tensor.dtype} on {tensor.device}"
    return None


def _with_storage(
    inputs: tuple[Input, ...], tensors: Mapping[str, torch.Tensor]
) -> tuple[Input, ...]:
    """Name the storage of inputs that overlap in memory."""
    groups: dict[tuple[int, str], list[Input]] = {}
    for i in inputs:
        key = (_memory(tensors[i.name]), i.dtype)
        groups.setdefault(key, []).append(i)
    placed: dict[str, Input] = {}
    number = 0
    for (pointer, _), group in groups.items():
        if not pointer or len(group) == 1:
            continue
        start = {i.name: int(tensors[i.name].storage_offset()) for i in group}
        shared = [i for i in group if any(_overlap(i, j, start) for j in group if j is not i)]
        base = min((start[i.name] for i in shared), default=0)
        for i in shared:
            placed[i.name] = replace(i, storage=f"s{number}", offset=start[i.name] - base)
        number += bool(shared)
    return tuple(placed.get(i.name, i) for i in inputs)


def _memory(tensor: torch.Tensor) -> int:
    """The address of a tensor's storage; of the object itself, on a device that has no address."""
    storage = tensor.untyped_storage()
    try:
        return storage.data_ptr()
    except RuntimeError:
        return int(storage._cdata)


def _overlap(a: Input, b: Input, start: Mapping[str, int]) -> bool:
    first, second = start[a.name], start[b.name]
    return first < second + b.extent and second < first + a.extent
