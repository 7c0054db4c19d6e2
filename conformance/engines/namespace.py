"""An engine made of any module with torch's surface: torch itself, refgrad, a stand-in."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from conformance.engines import routes
from conformance.engines.base import Capabilities, Run, Vjp
from conformance.errors import ConformanceError, EngineError, ProgramError, Unsupported
from conformance.program import (
    OPAQUE,
    Array,
    Call,
    Program,
    Ref,
    Symbol,
    Values,
    layout,
    leaves_of,
    map_tree,
)

# Where a Program's names may live. A Program can come from a file, and a path such as
# torch.hub.load would run what the file says.
_HOMES = (
    "torch",
    "torch.Tensor",
    "torch.autograd",
    "torch.fft",
    "torch.linalg",
    "torch.nested",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.signal.windows",
    "torch.sparse",
    "torch.special",
    "torch.ops.aten",
    "torch._C._nn",
    "torch._VF",
)
_FORBIDDEN = re.compile(r"torch\.(compile|fork|from_file|import_ir|load$|parse_|save|set_)")
_FOREIGN = {"torch", "torch._utils", "torch._utils_internal", "torch.random", "torch.serialization"}
_METHODS = {"__get__", "__set__"}


@functools.cache
def allowed(path: str) -> bool:
    """Whether a Program may name this: a function, method, property or constant of torch."""
    home, _, name = path.rpartition(".")
    if name in _METHODS:
        home, _, name = home.rpartition(".")
        return home == "torch.Tensor"
    return home in _HOMES and not _FORBIDDEN.match(path)


def resolve(namespace: Any, path: str) -> Any:
    """What `path` ("torch.nn.functional.linear") names in `namespace`.

    Raises AttributeError where it is absent, ProgramError where no Program may name it.
    """
    if not allowed(path):
        raise ProgramError(f"a Program may not name {path!r}")
    found = namespace
    for part in path.split(".")[1:]:
        found = getattr(found, part)
    if isinstance(found, ModuleType):  # a module of that name is not the function
        raise AttributeError(f"{path!r} is a module")
    foreign = isinstance(found, FunctionType) and found.__module__ in _FOREIGN
    if foreign or isinstance(found, type):
        raise ProgramError(f"a Program may not name {path!r}")
    return found


class NamespaceEngine:
    """Runs a Program on a module that has torch's names.

    Used of it: the names that the Program calls, from_numpy, no_grad, enable_grad, autograd.grad,
    and on tensors requires_grad_, detach, numpy. Subclasses set `name`, `standalone`, `describe`.
    """

    name = "namespace"
    standalone = False
    recorded = False  # not inherited: see `variants.recorded`

    def __init__(self, namespace: Any) -> None:
        self.namespace = namespace
        self._names: dict[str, Any] = {}  # what a Program named before

    def describe(self) -> Capabilities:
        """What the module offers; forward mode where it has autograd.forward_ad."""
        autograd = self.namespace.autograd
        modes = ("reverse", "forward") if hasattr(autograd, "forward_ad") else ("reverse",)
        version = str(getattr(self.namespace, "__version__", "unknown"))
        return Capabilities((1, 2), modes, ("float32", "float64"), ("cpu",), version)

    def missing(self, program: Program) -> tuple[str, ...]:
        """The targets and constants that do not resolve; opaque calls are torch's alone."""
        names = list(program.targets)
        for call in program.calls:
            names += [symbol.path for symbol in call.symbols]
        names += [f"torch.{i.dtype}" for i in program.inputs]
        known = self._names
        return tuple(
            [n for n in dict.fromkeys(names) if n not in known and not self._has(n, program)]
        )

    def run(self, program: Program, values: Values, *, keep: Collection[str] = ()) -> Run:
        """Outputs and kept results, without derivatives."""
        inner = program.differentiates
        with self.failures(), nullcontext() if inner else self.namespace.no_grad():
            tensors = self.inputs(program, values, grad=inner)
            kept: dict[str, tuple[Array, ...]] = {}

            def keeper(call: Call, result: Any) -> None:
                if call.name in keep or "*" in keep:
                    kept[call.name] = tuple([self.to_numpy(t) for t in self.flat(result)])

            outputs = self.execute(program, tensors, keeper if keep else None, grad=inner)
            return Run(tuple([self.to_numpy(t) for t in outputs]), kept)

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        """Gradients of the leaves and of the kept results.

        A result that a later call writes into is kept as it was last.
        """
        with self.failures():
            tensors = self.inputs(program, values, grad=True)
            results: dict[str, list[Any]] = {}

            def keeper(call: Call, result: Any) -> None:
                if call.name in keep or "*" in keep:
                    results[call.name] = self.flat(result)

            outputs = self.execute(program, tensors, keeper if keep else None)
            leaves = [tensors[i.name] for i in program.leaves]
            kept = [t for flat in results.values() for t in flat if t.requires_grad]
            found = iter(self.grad(outputs, [*leaves, *kept], cotangents, create_graph=False))
            gradients = {i.name: self._array(next(found)) for i in program.leaves}
            flat_kept = {
                name: tuple(self._array(next(found)) if t.requires_grad else None for t in flat)
                for name, flat in results.items()
            }
            differentiable = tuple([bool(t.requires_grad) for t in outputs])
            arrays = tuple([self.to_numpy(t) for t in outputs])
            return Vjp(arrays, gradients, flat_kept, differentiable)

    def hvp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        tangents: Mapping[str, Array],
        route: str = "rr",
    ) -> dict[str, Array | None]:
        """Second order by the routes that give a Hessian-vector product: rr, fr, rf."""
        return routes.product(self, program, values, cotangents, tangents, route)

    def curvature(
        self,
        program: Program,
        values: Values,
        tangents: Mapping[str, Array],
        others: Mapping[str, Array],
    ) -> tuple[Array | None, ...]:
        """Second order by forward over forward."""
        return routes.curvature(self, program, values, tangents, others)

    def jvp(
        self, program: Program, values: Values, tangents: Mapping[str, Array]
    ) -> tuple[Array, ...]:
        """Tangents of the flat outputs by forward mode; zero where none arises."""
        forward = getattr(self.namespace.autograd, "forward_ad", None)
        if forward is None:
            raise Unsupported(f"{self.name} has no forward mode")
        with self.failures(), forward.dual_level():
            tensors = self.inputs(program, values, grad=program.differentiates)
            for i in program.leaves:
                if i.name in tangents:
                    tangent = self.to_tensor(tangents[i.name], i.dtype)
                    tensors[i.name] = forward.make_dual(tensors[i.name], tangent)
            moving = {i.name for i in program.leaves if i.name in tangents}

            def keeper(call: Call, result: Any) -> None:
                if not any(ref.name in moving for ref in call.refs):
                    return
                made = self.flat(result)
                still = all(forward.unpack_dual(t).tangent is None for t in made)
                if call.opaque is not None and made and still:  # as of a torch.library.custom_op
                    text = f"no tangent comes out of {call.target}: it has no forward mode"
                    raise Unsupported(text)
                if not still:
                    moving.add(call.name)

            outputs = self.execute(program, tensors, keeper)
            duals = [forward.unpack_dual(t) for t in outputs]
            return tuple(
                np.zeros_like(self.to_numpy(d.primal))
                if d.tangent is None
                else self.to_numpy(d.tangent)
                for d in duals
            )

    def to_tensor(self, array: Array, dtype: str) -> Any:
        """A tensor on this array's memory, or a copy where `dtype` is not the array's."""
        tensor = self.namespace.from_numpy(array)
        if array.dtype == _held(dtype):
            return tensor
        return tensor.to(self._resolve(f"torch.{dtype}"))

    def seed(self, cotangent: Array, output: Any) -> Any:
        """What the backward pass starts from: a tensor where `output` lives, in its dtype."""
        seed = self.to_tensor(cotangent, dtype_name(output))
        where = getattr(output, "device", None)  # a Program may bring its result elsewhere
        return seed if where is None or seed.device == where else seed.to(where)

    def to_numpy(self, tensor: Any) -> Array:
        """A copy of a tensor as a NumPy array."""
        return np.array(tensor.detach().numpy(), copy=True)

    def _resolve(self, path: str) -> Any:
        found = self._names.get(path)
        if found is None:
            found = self._names[path] = self._find(path)
        return found

    def _find(self, path: str) -> Any:
        try:
            return resolve(self.namespace, path)
        except AttributeError as error:
            raise Unsupported(targets=(path,)) from error

    def _has(self, path: str, program: Program) -> bool:
        if path.startswith(OPAQUE):
            calls = [c for c in program.calls if c.target == path]
            return not self.standalone and all(c.opaque is not None for c in calls)
        try:
            self._resolve(path)
        except Unsupported:
            return False
        return True

    def _array(self, tensor: Any) -> Array | None:
        return None if tensor is None else self.to_numpy(tensor)

    def is_tensor(self, value: Any) -> bool:
        """Whether this is one of the engine's tensors."""
        return isinstance(value, self.namespace.Tensor)

    def memoryless(self, tensor: Any) -> bool:
        """Whether a tensor has no memory of its own, so that to read it as it is may crash."""
        return False

    def flat(self, result: Any) -> list[Any]:
        """The tensors in a tree, in order."""
        if self.is_tensor(result):
            return [result]
        if type(result) in (tuple, list):
            return [tensor for item in result for tensor in self.flat(item)]
        return [leaf for leaf in leaves_of(result) if self.is_tensor(leaf)]

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        """Fresh tensors for the Program's inputs; with `grad`, leaves require it."""
        fresh = layout(program.inputs, values)
        tensors = {}
        for i in program.inputs:
            tensor = self.to_tensor(fresh[i.name], i.dtype)
            tensors[i.name] = tensor.requires_grad_() if grad and i.requires_grad else tensor
        return tensors

    def execute(
        self,
        program: Program,
        tensors: Mapping[str, Any],
        keeper: Callable[[Call, Any], None] | None = None,
        *,
        grad: bool = True,
    ) -> list[Any]:
        """Run every call; the flat outputs. What is not needed again is let go at once."""
        env: dict[str, Any] = dict(tensors)
        fill = functools.partial(self._fill, env)
        for call, spent in zip(program.calls, program.spent, strict=True):
            result = self._call(call, fill, grad=grad)
            env[call.name] = result
            if keeper is not None:
                keeper(call, result)
            for name in spent:
                env.pop(name, None)
        return self.flat(map_tree(fill, program.outputs))

    def _call(self, call: Call, fill: Callable[[Any], Any], *, grad: bool) -> Any:
        args, kwargs = list(call.args), call.kwargs
        positions, keywords = call.holes
        for n in positions:
            args[n] = fill(args[n]) if type(args[n]) is Ref else map_tree(fill, args[n])
        if keywords:
            kwargs = {**kwargs, **{key: map_tree(fill, kwargs[key]) for key in keywords}}
        function = self._names.get(call.target) or self._function(call)
        try:
            if grad and not call.grad:
                with self.namespace.no_grad():
                    return function(*args, **kwargs)
            return function(*args, **kwargs)
        except ConformanceError:
            raise
        except NotImplementedError as error:
            raise Unsupported(f"{call.target}: {error}") from error
        except Exception as error:
            message = f"{self.name} raised {type(error).__name__} in {call.target}: {error}"
            raise EngineError(message, call=call.name) from error

    def _function(self, call: Call) -> Callable[..., Any]:
        if not call.target.startswith(OPAQUE):
            function: Callable[..., Any] = self._resolve(call.target)
            return function
        if self.standalone or call.opaque is None:
            raise Unsupported(targets=(call.target,))
        return call.opaque

    def _fill(self, env: Mapping[str, Any], leaf: Any) -> Any:
        if type(leaf) is not Ref:
            return self._resolve(leaf.path) if isinstance(leaf, Symbol) else leaf
        value = env[leaf.name]
        for key in leaf.path:
            value = value[key]
        return value

    def grad(
        self,
        outputs: Sequence[Any],
        leaves: Sequence[Any],
        cotangents: Sequence[Array | None],
        *,
        create_graph: bool,
    ) -> Sequence[Any]:
        """Gradients by the backward pass; an output without a cotangent counts nothing."""
        if len(cotangents) != len(outputs):
            text = f"{len(outputs)} flat outputs need as many cotangents, not {len(cotangents)}"
            raise ProgramError(text)
        pairs = [
            (output, self.seed(np.array(cotangent), output))
            for output, cotangent in zip(outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad
        ]
        if not pairs or not leaves:
            return [None] * len(leaves)
        heads, seeds = map(list, zip(*pairs, strict=True))
        return self.pulled_back(heads, list(leaves), seeds, create_graph=create_graph)

    def pulled_back(
        self, outputs: list[Any], leaves: list[Any], seeds: list[Any], **options: Any
    ) -> Sequence[Any]:
        """autograd.grad, with its `options`; None for a leaf that it does not reach."""
        gradients: Sequence[Any] = self.namespace.autograd.grad(
            outputs, leaves, seeds, allow_unused=True, **options
        )
        return gradients

    def failures(self) -> Failures:
        """Anything that the engine raises inside becomes Unsupported or EngineError."""
        return Failures(self)

    def failure(self, error: Exception) -> ConformanceError:
        """What is raised in place of what the engine raised, which is its cause."""
        if isinstance(error, ConformanceError):
            return error
        made: ConformanceError = EngineError(f"{self.name} raised {type(error).__name__}: {error}")
        if isinstance(error, NotImplementedError):
            made = Unsupported(str(error) or "not implemented")
        made.__cause__ = error
        return made


class Failures:
    """A context in which `engine.failure` says what is raised; a generator takes twice as long."""

    def __init__(self, engine: NamespaceEngine) -> None:
        self.engine = engine

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            said = self.engine.failure(error)
            if said is not error:
                raise said


@functools.lru_cache
def _held(dtype: str) -> np.dtype[Any] | None:
    """NumPy's dtype of that name; None for one that it does not have."""
    try:
        return np.dtype(dtype)
    except TypeError:
        return None


def dtype_name(tensor: Any) -> str:
    """The dtype of a tensor as a Program names it."""
    return _named(tensor.dtype)


@functools.cache
def _named(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


__all__ = ["NamespaceEngine", "allowed", "dtype_name", "resolve"]
