"""A Program: a straight line of calls named as PyTorch names them, over typed inputs.

    inputs   x0: float64[2, 3]   x1: float64[3]
    v0 = torch.mul(x0, x1)
    v1 = torch.nn.functional.softmax(v0, dim=-1)
    v2 = torch.Tensor.sum(v1, 0)
    return v2

Values are kept apart: a dict of NumPy arrays by input name. This module knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import ProgramError

Array = np.ndarray[Any, Any]
Values = dict[str, Array]

OPAQUE = "opaque:"
HERMITIAN = frozenset(  # they read a triangle of a matrix, and differentiate by both
    f"torch.{name}"
    for name in (
        "cholesky", "linalg.cholesky", "linalg.cholesky_ex", "linalg.eigh", "linalg.eigvalsh",
        "lobpcg", "Tensor.cholesky",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Ref:
    """An input or a call's result, or an element of a structured result: v3[1] has path (1,)."""

    name: str
    path: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        return self.name + "".join(f"[{key!r}]" for key in self.path)


@dataclass(frozen=True)
class Symbol:
    """A named constant of torch: "torch.float64", "torch.strided", "torch.channels_last"."""

    path: str


@dataclass(frozen=True)
class Input:
    """One tensor that a Program takes.

    `strides` and `offset` count elements; inputs with one `storage` name alias each other.
    `aliases` are the user's names for it (a tied parameter has several); a `constant` was copied
    when a capture first saw it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool = False
    aliases: tuple[str, ...] = ()
    constant: bool = False
    storage: str | None = None
    offset: int = 0

    @classmethod
    def of(cls, name: str, array: Array, *, requires_grad: bool = False, **fields: Any) -> Input:
        """The Input that describes a NumPy array (negative strides become contiguous ones)."""
        size = array.itemsize
        strides = tuple(s // size for s in array.strides)
        if any(s < 0 or s % size for s in array.strides):
            strides = contiguous(array.shape)
        return cls(name, array.dtype.name, array.shape, strides, requires_grad, **fields)

    @cached_property
    def plain(self) -> bool:
        """Whether it has its memory to itself, in C order."""
        return self.storage is None and self.strides == contiguous(self.shape)

    @property
    def extent(self) -> int:
        """How many elements of storage it spans, counted from its offset."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((n - 1) * s for n, s in steps)


@dataclass(frozen=True)
class Call:
    """One call: `target` is the public name, `args` and `kwargs` are trees of plain values.

    `grad` is the grad mode when it ran. `opaque` is the live callable of an opaque call (target
    "opaque:NAME"); it is not saved. `through` is the dtype in which that computes, where it is less
    precise than the dtypes that are seen.
    """

    name: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    grad: bool = True
    opaque: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    through: str = field(default="", compare=False, repr=False)

    @property
    def own(self) -> Any:
        """What the user calls in an opaque call, without what was put around it."""
        return getattr(self.opaque, "own", self.opaque)

    @cached_property
    def refs(self) -> tuple[Ref, ...]:
        """Every Ref among the arguments, in order."""
        return tuple(refs((self.args, self.kwargs)))

    @cached_property
    def holes(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The positions and the keywords of the arguments that are no constants."""

        def open_(tree: Any) -> bool:
            if type(tree) in _LEAVES:
                return type(tree) is Ref
            return any(isinstance(leaf, (Ref, Symbol)) for leaf in leaves_of(tree))

        positions = tuple(n for n, item in enumerate(self.args) if open_(item))
        return positions, tuple(key for key, item in self.kwargs.items() if open_(item))

    @property
    def symbols(self) -> Iterator[Symbol]:
        """Every Symbol among the arguments."""
        positions, keywords = self.holes
        for tree in (*[self.args[n] for n in positions], *[self.kwargs[key] for key in keywords]):
            if type(tree) is not Ref:
                yield from (leaf for leaf in leaves_of(tree) if isinstance(leaf, Symbol))

    @property
    def in_place(self) -> bool:
        """Whether it writes into an argument, judged by name, `out=` and `inplace=`."""
        name = self.target.rpartition(".")[2]
        if name == "requires_grad_":
            return False
        dunder = name.startswith("__") and name.endswith("__")
        writes = name in _WRITING_DUNDERS if dunder else name.endswith("_")
        set_property = name == "__set__"
        out = self.kwargs.get("out") is not None
        return writes or set_property or out or bool(self.kwargs.get("inplace"))

    @property
    def written(self) -> Ref | None:
        """What it writes into; None where it writes into nothing."""
        given = self.args if self.kwargs.get("out") is None else self.kwargs["out"]
        return next(refs((given, self.kwargs)), None) if self.in_place else None


_WRITING_DUNDERS = {"__setitem__", "__set__"} | {
    f"__i{op}__"
    for op in (
        *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
        *("lshift", "rshift", "and", "or", "xor"),
    )
}


_CANONICAL = json.JSONEncoder(sort_keys=True, allow_nan=False)


@dataclass(frozen=True)
class Program:
    """Inputs, calls in order, and a tree of Refs for what is returned."""

    inputs: tuple[Input, ...]
    calls: tuple[Call, ...]
    outputs: Any

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The distinct call names, in the order of first use."""
        return tuple(dict.fromkeys(call.target for call in self.calls))

    @cached_property
    def leaves(self) -> tuple[Input, ...]:
        """The inputs that require grad."""
        return tuple(i for i in self.inputs if i.requires_grad)

    @cached_property
    def aliased(self) -> bool:
        """Whether inputs share memory."""
        return any(i.storage is not None for i in self.inputs)

    @cached_property
    def opaque(self) -> bool:
        """Whether any call is a callable of the user's, which no name stands for."""
        return any(call.opaque is not None for call in self.calls)

    @cached_property
    def differentiates(self) -> bool:
        """Whether a gradient may be taken inside: what runs it has to record a graph then."""
        whole = any(getattr(call.opaque, "may_differentiate", False) for call in self.calls)
        return whole or "torch.autograd.grad" in self.targets

    @cached_property
    def takes_hermitian(self) -> bool:
        """Whether a call takes its matrix for Hermitian: it has a gradient on such alone."""
        return any(c.target in HERMITIAN or c.kwargs.get("hermitian") is True for c in self.calls)

    @cached_property
    def spent(self) -> tuple[tuple[str, ...], ...]:
        """For each call, the names that neither a later call nor the outputs refer to."""
        last = {r.name: number for number, call in enumerate(self.calls) for r in call.refs}
        for ref in refs(self.outputs):
            last.pop(ref.name, None)
        return tuple(
            tuple(name for name in dict.fromkeys(r.name for r in call.refs) if last.get(name) == n)
            for n, call in enumerate(self.calls)
        )

    def digest(self, values: Values, length: int = 8) -> str:
        """The first hex digits of a hash of structure and values; the user's names play no part."""
        from conformance import store

        structure = store.structure(self)
        for entry in structure["inputs"]:
            entry.pop("aliases", None)
        state = hashlib.sha256(_CANONICAL.encode(structure).encode())
        for i in self.inputs:
            state.update(np.ascontiguousarray(values[i.name]).tobytes())
        return state.hexdigest()[:length]

    def __str__(self) -> str:
        from conformance import script

        return script.listing(self)

    def script(
        self,
        values: Values,
        *,
        engine_import: str = "import torch",
        cotangents: Iterable[Array | None] | None = None,
        expect: Mapping[str, Array] | None = None,
        values_file: str | None = None,
    ) -> str:
        """A standalone script that runs the Program and prints its gradients.

        `engine_import` binds the name torch ("import refgrad as torch"). `cotangents` weigh the
        flat outputs (ones by default). `expect` has gradients to compare with, by input name.
        `values_file` is an .npz, as `save` writes it, to read larger inputs from.
        """
        from conformance import script

        return script.standalone(
            self,
            values,
            engine_import=engine_import,
            cotangents=cotangents,
            expect=expect,
            values_file=values_file,
        )

    def to_json(self, values: Values, *, inline: int = 64) -> dict[str, Any]:
        """Plain data for json.dumps; values above `inline` elements are named, not held."""
        from conformance import store

        return store.to_json(self, values, inline=inline)

    @staticmethod
    def from_json(data: Any, beside: Mapping[str, Array] | None = None) -> tuple[Program, Values]:
        """The Program and its values; `beside` has the values that are not inline.

        Raises ProgramError where the data is not a Program.
        """
        from conformance import store

        return store.from_json(data, beside or {})

    def save(self, path: str | Path, values: Values) -> Path:
        """Write JSON to `path`, and larger values to an .npz beside it."""
        from conformance import store

        return store.save(self, Path(path), values)

    @staticmethod
    def load(path: str | Path) -> tuple[Program, Values]:
        """Read what `save` wrote; raises ProgramError where it is not a Program."""
        from conformance import store

        return store.load(Path(path))

    def isolate(
        self, call_name: str, all_values: Mapping[str, Array | tuple[Array, ...]]
    ) -> tuple[Program, Values]:
        """One call alone, its tensors being inputs with the values that they had.

        `all_values` has each input's array and each call's flat results, by name. A tensor
        requires grad where a gradient reached it in the whole Program.
        """
        from conformance import excerpt

        return excerpt.isolate(self, call_name, all_values)

    def live(self) -> Program:
        """The same Program without calls that no output needs.

        An in-place call stays where what it writes into may share memory with a live value.
        """
        ancestors: dict[str, set[str]] = {i.name: {i.storage or i.name} for i in self.inputs}
        for call in self.calls:
            made = {call.name}
            for ref in call.refs:
                made |= ancestors[ref.name]
            ancestors[call.name] = made
        needed = {r.name for r in refs(self.outputs)}
        before = -1
        while before != len(needed):
            before = len(needed)
            reach = set().union(*(ancestors[n] for n in needed)) if needed else set()
            for call in reversed(self.calls):
                writes = call.in_place and bool(ancestors[call.name] & reach)
                if call.name in needed or writes:
                    needed.add(call.name)
                    needed.update(r.name for r in call.refs)
        calls = tuple(c for c in self.calls if c.name in needed)
        inputs = tuple(i for i in self.inputs if i.name in needed or i.requires_grad)
        return Program(inputs, calls, self.outputs)

    def check(self) -> Program:
        """The Program itself; raises ProgramError where a name is used before it is made."""
        seen: set[str] = set()
        for i in self.inputs:
            if i.name in seen:
                raise ProgramError(f"two inputs are named {i.name!r}")
            if len(i.shape) != len(i.strides):
                raise ProgramError(f"input {i.name}: shape {i.shape}, strides {i.strides}")
            seen.add(i.name)
        for call in self.calls:
            for ref in call.refs:
                if ref.name not in seen:
                    raise ProgramError(f"{call.name} uses {ref.name} before it is made")
            if call.name in seen:
                raise ProgramError(f"the name {call.name!r} is made twice")
            seen.add(call.name)
        for ref in refs(self.outputs):
            if ref.name not in seen:
                raise ProgramError(f"the output {ref.name} is never made")
        return self


# Trees: tuples, lists and dicts of anything; depth first, in order.


_LEAVES = frozenset((Ref, int, float, bool, str, type(None)))  # the most frequent


def leaves_of(tree: Any) -> Iterator[Any]:
    """The leaves of a tree of tuples, lists, dicts and slices, depth first and in order."""
    if isinstance(tree, (tuple, list)):
        for item in tree:
            yield from leaves_of(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves_of(item)
    elif isinstance(tree, slice):
        yield from leaves_of((tree.start, tree.stop, tree.step))
    else:
        yield tree


def refs(tree: Any) -> Iterator[Ref]:
    """Every Ref of a tree, in order."""
    return (leaf for leaf in leaves_of(tree) if isinstance(leaf, Ref))


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to each leaf; containers keep their plain kind."""
    if type(tree) in _LEAVES:
        return function(tree)
    if isinstance(tree, tuple):
        return tuple([map_tree(function, item) for item in tree])
    if isinstance(tree, list):
        return [map_tree(function, item) for item in tree]
    if isinstance(tree, dict):
        return {key: map_tree(function, item) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(map_tree(function, item) for item in (tree.start, tree.stop, tree.step)))
    return function(tree)


def map_refs(function: Callable[[Ref], Any], tree: Any) -> Any:
    """The tree with `function` applied to each Ref, and everything else as it is."""
    return map_tree(lambda leaf: function(leaf) if isinstance(leaf, Ref) else leaf, tree)


# Memory: arrays with the strides and the sharing that the inputs declare.


@lru_cache(1024)
def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """C-contiguous strides, in elements, as torch gives them (a size 0 counts as 1)."""
    return tuple(math.prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape)))


def layout(inputs: Iterable[Input], contents: Mapping[str, Array]) -> Values:
    """Fresh arrays with the same contents, laid out as the inputs say: strides and sharing."""
    inputs = tuple(inputs)
    extents: dict[str, int] = {}
    for i in inputs:
        if i.storage is not None:
            extents[i.storage] = max(extents.get(i.storage, 0), i.offset + i.extent)
    buffers: dict[str, Array] = {}
    made: Values = {}
    for i in inputs:
        array = np.asarray(contents[i.name])
        if array.shape != i.shape:
            raise ProgramError(f"input {i.name} is {i.shape}, its value is {array.shape}")
        if i.plain:
            made[i.name] = np.array(array, order="C")
            continue
        offset = 0
        if i.storage is None:
            buffer = np.zeros(i.extent, array.dtype)
        else:
            buffer = buffers.setdefault(i.storage, np.zeros(extents[i.storage], array.dtype))
            offset = i.offset * array.itemsize if i.extent else 0
        if buffer.dtype != array.dtype:
            raise ProgramError(f"inputs that share storage {i.storage} differ in dtype")
        strides = tuple(s * array.itemsize for s in i.strides)
        view: Array = np.ndarray(i.shape, array.dtype, buffer, offset, strides)
        view[...] = array
        made[i.name] = view
    return made
