"""What an op is: a forward on arrays, and beside it a vjp for each argument it differentiates.

    @op
    def logaddexp(input, other):
        return np.logaddexp(input, other)

    logaddexp.vjp(                                  # d out = e^(x - out) dx + e^(y - out) dy
        input=lambda g, out, input: g * np.exp(input - out),
        other=lambda g, out, other: g * np.exp(other - out),
    )

A vjp names what it reads (`Rule`); several arguments may share one. Broadcasting, dtypes, and which
arguments need a gradient at all are the backward pass's business. Called on Tensors an op records
itself; called on arrays, as a rule may do, it is its forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from operator import is_
from types import MethodType
from typing import Any

import numpy as np

from refgrad.graph import Links, Node, Output, Rule, node
from refgrad.levels import Levels
from refgrad.libraries import Loaded
from refgrad.mode import state
from refgrad.ops.arrays import as_array
from refgrad.ops.forward import push
from refgrad.ops.placing import together
from refgrad.ops.promotion import promote
from refgrad.ops.strides import LAID, iterated, rows
from refgrad.outputs import into
from refgrad.tensor import FUNCTIONS as FUNCTIONS
from refgrad.tensor import UFUNCS as UFUNCS
from refgrad.tensor import Tensor, wrap
from refgrad.views import make_view

MISSING: Any = object()
_BOOL = np.dtype(bool)
_INTS = {int}
_HELD = (Tensor, tuple, list)  # what may be, or hold, a Tensor
Place = Any  # of the argument of a rule, an index; or of those that share it, a tuple of these
REAL_SCALARS = frozenset((bool, int, float))
_ALIASES = {
    "exponent": "other",
    "axis": "dim",
    "keepdims": "keepdim",
    "x": "input",
    "a": "input",
    "axes": "dim",
}

METHODS: dict[str, Callable[..., Any]] = {}  # what Tensor offers as methods, by name
INPLACE: dict[str, Callable[..., Any]] = {}  # and those that have an in-place form, name_


class MultiNode(Node):
    """The node of an op with several differentiable results."""

    __slots__ = ("specs",)
    specs: tuple[tuple[tuple[int, ...], Any], ...]  # the results' shapes and dtypes


class Op:
    """An operation of the engine.

    `promote` names the arguments that are brought to one dtype first, by PyTorch's promotion; with
    `floats` integers become the default dtype. `view` says that the result may share memory with
    the first argument, and lies in memory as it comes; other results are laid out by the rule that
    `refgrad.ops.strides` has for the op. `differentiable` says how many of several results have a
    gradient (None: all); `unread` which of them no rule reads, so that it need not be saved and may
    be written in place (where that is the first, the rules take None for the others where no
    gradient reached any of these); `variadic` the parameter that also takes loose integers.
    """

    failures: tuple[type[Exception], ...] = (ValueError,)  # of a forward: torch's RuntimeError
    elementwise = False

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        name: str | None = None,
        promote: Sequence[str] = (),
        floats: bool = False,
        view: bool = False,
        differentiable: int | None = 1,
        unread: int | None = None,
        variadic: str | None = None,
        node_name: str | None = None,
        method: bool = True,
        inplace: bool = False,
    ) -> None:
        self.forward = forward
        self.name = self.__name__ = name or forward.__name__
        self.__doc__ = forward.__doc__
        self.view = view
        self.laid: Any = (
            None if view else LAID.get(self.name, iterated if self.elementwise else rows)
        )
        self.floats = floats
        self.differentiable = differentiable
        self.unread = unread
        camel = "".join(part.capitalize() for part in self.name.split("_"))
        self.node_name = node_name or f"{camel}Backward0"
        self.__signature__ = inspect.signature(forward)
        parameters = list(self.__signature__.parameters.values())
        self.names = tuple(p.name for p in parameters)
        self.index = {n: i for i, n in enumerate(self.names)}
        self.kinds, self.inexact = "fc" if floats else "fciub", "fc"  # dtypes of a fast call
        self.real, self.picky = False, floats
        self.positional = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
        self.keywords = self.names[self.positional :]
        self.defaults = [MISSING if p.default is p.empty else p.default for p in parameters]
        self.tail = self.defaults[self.positional :]
        self.promoted = tuple(self.index[n] for n in promote)
        self.variadic = None if variadic is None else self.index[variadic]
        required = sum(d is MISSING for d in self.defaults)
        most = self.positional if self.variadic is None else self.variadic
        # of so many positional arguments, where there is nothing to sort out: what follows them
        self.fillers = {n: self.defaults[n:] for n in range(required, most + 1)}
        self.rules = ()
        self.linear_in: frozenset[int] = frozenset()
        if method:
            METHODS[self.name] = self
        if inplace:
            INPLACE[self.name] = self

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def rules(self) -> tuple[tuple[Place, Rule], ...]:
        """The places of the arguments that have a vjp, and their rules."""
        return tuple(zip(self.places, self.vjps, strict=True))

    @rules.setter
    def rules(self, rules: tuple[tuple[Place, Rule], ...]) -> None:
        self.places: tuple[Place, ...] = tuple([i for i, _ in rules])
        self.vjps: tuple[Rule, ...] = tuple([rule for _, rule in rules])
        used = {n for _, rule in rules for n in rule.needs if n != "shape"}  # that of an array
        each = {i for place in self.places for i in (place if type(place) is tuple else (place,))}
        self.saved = tuple((i, i in each) for n, i in self.index.items() if n in used)
        # all arguments, each of which is differentiated
        self.saves_all = len(self.saved) == len(rules) == len(self.names)
        self.saves_out = "out" in used

    def vjp(self, **rules: Callable[..., Any]) -> Op:
        """Give the vjp of each argument by its name; the parameters after `g` say what it reads.

        Several, as `{"input, weight": ...}`, may share the only one: it returns as many gradients,
        each a new array or None, and reads as `shape` theirs, None for one that needs no gradient.

        Raises:
            TypeError: a name is neither an argument of the op nor `out` nor `shape`, or is `out`
                where that is an argument too; or some arguments share a rule, and others have theirs.
        """
        made = []
        for argument, function in rules.items():
            needs = tuple(inspect.signature(function).parameters)[1:]
            if "out" in needs and "out" in self.index:
                raise TypeError(f"{self.name}: `out` would be an argument of it, and its result")
            of = argument.split(", ")
            for n in (*of, *needs):
                if n not in self.index and (n in of or n not in ("out", "shape")):
                    raise TypeError(f"{self.name}: a vjp names {n!r}, which is no argument of it")
            at = tuple(self.index[n] for n in of)
            joint = len(at) > 1
            if joint and len(rules) > 1:
                raise TypeError(f"{self.name}: {argument} cannot share a rule beside others")
            made.append((at if joint else at[0], Rule(function, needs, self.index, joint)))
        self.rules = tuple(made)
        return self

    def named(self, place: Place) -> str:
        """The argument of a rule, or those that share it, as `vjp` takes them."""
        return ", ".join(self.names[i] for i in (place if type(place) is tuple else (place,)))

    def adding(self, **rules: Callable[..., Any]) -> Op:
        """Beside the vjp of an argument: what adds it to a total, `(total, g, *needs)`, in place."""
        for argument, function in rules.items():
            rule = dict(self.rules)[self.index[argument]]
            needs = tuple(inspect.signature(function).parameters)[2:]
            rule.into = _adding(function, [self.index[n] for n in needs])
        return self

    def linear(self, *arguments: str) -> Op:
        """Say that it is linear in each of these: its jvp is then itself, on the tangent."""
        self.linear_in = frozenset(self.index[n] for n in arguments)
        return self

    # --- calling ---------------------------------------------------------------------------------

    def __get__(self, tensor: Any, owner: Any = None) -> Any:
        """As a method of a Tensor."""
        return self if tensor is None else MethodType(self, tensor)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rest = None if kwargs else self.fillers.get(len(args))
        if rest is not None:
            values = [*args, *rest]
        elif "out" in kwargs and not self.view:
            out = kwargs.pop("out")
            return self(*args, **kwargs) if out is None else into(out, self, args, kwargs)
        else:
            values = self.bind(args, kwargs)
        if Loaded.cuda is not None:
            together(self, values)
        raws: list[Any]
        if self.view:  # it is taken again later, when a tensor that gave a size may be another
            first = values[0]
            tensors = isinstance(first, Tensor)
            wanted = tensors and first._requires_grad
            raws = [first._array if tensors else first]
            for i, v in enumerate(values[1:], 1):
                if type(v) is not int and not (type(v) is tuple and {*map(type, v)} == _INTS):
                    values[i] = as_number(v)
                    v = raw_of(values[i])
                raws.append(v)
        else:
            raws, tensors, wanted = [], False, False  # is there any, and one that requires grad
            for v in values:
                if isinstance(v, Tensor):
                    tensors = True
                    if not wanted:
                        wanted = v._requires_grad
                    raws.append(v._array)
                elif type(v) is list or (type(v) is tuple and {*map(type, v)} != _INTS):
                    parts = []
                    for e in v:
                        if isinstance(e, Tensor):
                            tensors = True
                            if not wanted:
                                wanted = e._requires_grad
                            parts.append(e._array)
                        else:
                            parts.append(raw_of(e))
                    raws.append(parts if type(v) is list else tuple(parts))
                else:
                    raws.append(v)
        if not tensors:
            return self._on_arrays(values)
        if self.promoted and not self._agreed(values):
            self._promote(values)
            raws = [raw_of(v) for v in values]
        out = self._forward(raws)
        links = self.links(values) if wanted and state.enabled and self.vjps else ()
        if type(out) is not np.ndarray:
            if isinstance(out, (tuple, list)):
                several = self._several(out, values, raws, links)
                return push(self, values, raws, several) if Levels.open else several
            out = as_array(out)
        if self.laid is not None:
            out = self.laid(out, raws)
        by = self._node(links, values, raws, out) if links and out.dtype.kind in "fc" else None
        made = make_view(out, by, self, tuple(values), None) if self.view else wrap(out, by)
        return push(self, values, raws, made) if Levels.open else made

    def _on_arrays(self, values: list[Any]) -> Any:
        """Its forward, for a rule that runs on arrays.

        Raises:
            TypeError: there is no array either.
        """
        if self.promoted:  # 0-d results are NumPy's scalars here
            values = [
                [as_array(e) for e in v] if type(v) in (list, tuple) else as_array(v)
                for v in values
            ]
            self._promote(values)
        out = self._forward(values)
        if not (values and hasattr(values[0], "dtype")) and not any(
            hasattr(v, "dtype") for v in _flat(values)
        ):
            kind = type(values[0]).__name__ if values else "nothing"
            raise TypeError(
                f"{self.name}(): argument '{self.names[0]}' (position 1) must be Tensor, not {kind}"
            )
        return out

    def on(self, values: Sequence[Any]) -> Any:
        """Its result on arguments that are bound already."""
        k = self.positional
        return self(*values[:k], **dict(zip(self.keywords, values[k:], strict=True)))

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """The arguments in the order of the signature, defaults filled in.

        Raises:
            TypeError: too many, unknown, repeated or missing arguments.
        """
        n, i = len(args), self.variadic
        if i is not None and n > i:
            rest = args[i:]
            if n == i + 1 and type(rest[0]) is tuple and not kwargs:  # 0.3 us in place of 0.9
                return [*args, *self.defaults[n:]]
            if type(rest[0]) is int and not kwargs and {*map(type, rest)} == _INTS:  # likewise
                return [*args[:i], rest, *self.defaults[i + 1 :]]
            if not any(isinstance(r, (tuple, list)) for r in rest) and (
                len(rest) > 1 or args[i] is not None
            ):
                args, n = (*args[:i], tuple(rest)), i + 1
        if n > self.positional:
            raise TypeError(
                f"{self.name}() takes {self.positional} positional arguments but {n} were given"
            )
        values = [*args, *self.defaults[n:]]
        for key, value in kwargs.items():
            i = self.index.get(key, -1)
            if i < 0:
                i = self.index.get(_ALIASES.get(key, key), -1)
            if i < 0:
                raise TypeError(f"{self.name}() got an unexpected keyword argument '{key}'")
            if i < n:
                raise TypeError(f"{self.name}() got multiple values for argument '{key}'")
            values[i] = value
        for i, value in enumerate(values):
            if value is MISSING:
                raise TypeError(
                    f"{self.name}() missing 1 required positional argument: '{self.names[i]}'"
                )
        return values

    def reals(self) -> Op:
        """Say that complex numbers have no place in it: it refuses them."""
        self.real = self.picky = True
        self.kinds, self.inexact = self.kinds.replace("c", ""), "f"
        return self

    def _forward(self, raws: Sequence[Any]) -> Any:
        if self.real and _any_complex(raws):
            raise NotImplementedError(f'"{self.name}" not implemented for complex numbers')
        try:
            if self.keywords:
                k, tail = self.positional, self.tail
                if raws[k] is tail[0] and all(map(is_, raws[k:], tail)):  # 0.4 us less
                    return self.forward(*raws[:k])
                return self.forward(*raws[:k], **dict(zip(self.keywords, raws[k:])))
            return self.forward(*raws)
        except np.exceptions.AxisError as error:
            raise IndexError(f"{self.name}(): Dimension out of range ({error})") from error
        except np.linalg.LinAlgError as error:
            from refgrad.errors import LinAlgError

            raise LinAlgError(f"{self.name}(): {error}") from error
        except (TypeError, ValueError) as error:
            if isinstance(error, TypeError) and _any_complex(raws):  # NumPy or SciPy has no loop
                text = f'"{self.name}" not implemented for complex numbers'
                raise NotImplementedError(text) from error
            if isinstance(error, self.failures):
                raise RuntimeError(f"{self.name}(): {explain(error, raws)}") from error
            raise

    def _agreed(self, values: Sequence[Any]) -> bool:
        """Whether promotion leaves them: Tensors of one dtype that it takes, and numbers that give way."""
        first, numbers = None, False
        for i in self.promoted:
            v = values[i]
            for e in v if type(v) is list or type(v) is tuple else (v,):
                if isinstance(e, Tensor):
                    dtype = e._array.dtype
                    if first is None:
                        first = dtype
                    elif dtype is not first:
                        return False
                elif type(e) in REAL_SCALARS:
                    numbers = True
                else:
                    return False
        return first is not None and (first.kind in "fc" if numbers or self.floats else True)

    def _promote(self, values: list[Any]) -> None:
        """Bring the promoted arguments (or the tensors of a list) to their common dtype."""
        where: list[tuple[int, int | None]] = []
        for i in self.promoted:
            if type(values[i]) in (list, tuple):
                values[i] = list(values[i])
                where += [(i, j) for j in range(len(values[i]))]
            elif values[i] is not None:
                where.append((i, None))
        operands = [values[i] if j is None else values[i][j] for i, j in where]
        for (i, j), new in zip(where, promote(operands, self.floats), strict=True):
            if j is None:
                values[i] = new
            else:
                values[i][j] = new

    # --- recording -------------------------------------------------------------------------------

    def links(self, values: Sequence[Any]) -> Links | tuple[()]:
        """Targets, rules, shapes and dtypes of the arguments; () where none needs a gradient."""
        places = self.places
        first = places[0]
        if type(first) is tuple:
            return self._joint_links([values[i] for i in first])
        if len(places) == 1 and isinstance(v := values[first], Tensor):
            if not v._requires_grad:
                return ()
            array = v._array
            return (v._node or v,), self.vjps, (array.shape,), (array.dtype,)
        targets: list[Any] = []
        shapes: list[Any] = []
        dtypes: list[Any] = []
        needed = False
        for i in places:
            v = values[i]
            target = shape = dtype = None
            if isinstance(v, Tensor):
                if v._requires_grad:
                    array = v._array
                    target, shape, dtype, needed = v._node or v, array.shape, array.dtype, True
            elif type(v) is tuple or type(v) is list:
                each: list[Any] = []
                of_each: list[Any] = []
                kinds: list[Any] = []
                for t in v:
                    if isinstance(t, Tensor):
                        array = t._array
                        each.append((t._node or t) if t._requires_grad else None)
                        of_each.append(array.shape)
                        kinds.append(array.dtype)
                    else:
                        each.append(None)
                        of_each.append(())
                        kinds.append(None)
                if any(t is not None for t in each):
                    target, shape, dtype = tuple(each), tuple(of_each), tuple(kinds)
                    needed = True
            targets.append(target)
            shapes.append(shape)
            dtypes.append(dtype)
        return (tuple(targets), self.vjps, tuple(shapes), tuple(dtypes)) if needed else ()

    def _joint_links(self, values: Sequence[Any]) -> Links | tuple[()]:
        """The same for arguments that share a rule, as those of a tuple; see `vjp`."""
        targets: list[Any] = []
        shapes: list[Any] = []
        dtypes: list[Any] = []
        needed = False
        for v in values:
            target = shape = dtype = None
            if isinstance(v, Tensor):
                array = v._array
                dtype = array.dtype
                if v._requires_grad:
                    target, shape, needed = v._node or v, array.shape, True
            targets.append(target)
            shapes.append(shape)
            dtypes.append(dtype)
        if not needed:
            return ()
        return (tuple(targets),), self.vjps, (tuple(shapes),), (tuple(dtypes),)

    def kept(self, values: Sequence[Any], raws: Sequence[Any]) -> list[Any] | None:
        """What a node keeps of the arguments (see `refgrad.graph`); None where that is nothing.

        At the end come the names and the Tensors of those that are not differentiated, as indices
        and masks are: rules take their arrays, but they may be written in place as well.
        """
        if self.saves_all:
            return [*raws, *values]
        if not self.saved:
            return None
        n = len(raws)
        kept: list[Any] = [None] * (2 * n)
        for i, differentiated in self.saved:
            kept[i] = raws[i]
            kept[i + n] = values[i] if differentiated else raws[i]
            if not differentiated and isinstance(values[i], _HELD):
                kept.append((self.names[i], values[i]))
        return kept

    def _node(
        self, links: Links, values: Sequence[Any], raws: Sequence[Any], out: Any
    ) -> Any:
        return node(self, *links, self.kept(values, raws), out if self.saves_out else None)

    def _several(
        self, out: Any, values: Sequence[Any], raws: Sequence[Any], links: Links | tuple[()]
    ) -> Any:
        """Wrap several results; those that have a gradient hang on one node."""
        arrays = [o if type(o) is np.ndarray else as_array(o) for o in out]
        laid = self.laid
        if type(laid) is tuple:
            arrays = [rule(a, raws) for rule, a in zip(laid, arrays, strict=True)]
        elif laid is not None:
            arrays = [laid(a, raws) for a in arrays]
        if self.view:
            results = [make_view(a, None, self, tuple(values), i) for i, a in enumerate(arrays)]
        else:
            results = [wrap(a) for a in arrays]
        made: Any = None
        if links and self.differentiable == 1:
            made = self._node(links, values, raws, tuple(arrays))
            _record(results[0], made)
        elif links:
            made = node(self, *links, self.kept(values, raws), None, MultiNode)
            if self.saves_out:
                kept = list(arrays)
                if self.unread is not None:
                    kept[self.unread] = None
                made.out = tuple(kept)
            made.specs = tuple([(a.shape, a.dtype) for a in arrays[: self.differentiable]])
            for i in range(len(made.specs)):
                if arrays[i].dtype.kind in "fc":
                    _record(results[i], Output(made, i))
        if made is not None and self.saves_out and self.differentiable is not None:
            apart = results[self.differentiable :]  # as indices: see `kept`
            made.saved = [*(made.saved or [None] * (2 * len(raws))), ("out", apart)]
        if type(out) is tuple:
            return tuple(results)
        return type(out)(*results) if hasattr(out, "_fields") else type(out)(results)

    def rewrap(self, node: Node) -> Any:
        """The saved result of `node` as Tensors that hang on it."""
        if not Levels.open and type(node.out) is not tuple:
            return wrap(node.out, node)
        if isinstance(node, MultiNode):
            made = tuple(
                wrap(a, Output(node, i))
                if a is not None and i < len(node.specs) and a.dtype.kind in "fc"
                else wrap(a)
                for i, a in enumerate(node.out)
            )
        elif type(node.out) is tuple:
            made = (wrap(node.out[0], node), *map(wrap, node.out[1:]))
        else:
            made = (wrap(node.out, node),)
        for m, tangents in zip(made, getattr(node, "tangents", ()), strict=False):
            m._tangents = tangents
        return made if type(node.out) is tuple else made[0]

    def outputs_of(self, node: MultiNode) -> int:
        """How many results of `node` have a gradient."""
        return len(node.specs)

    def complete(self, parts: list[Any], node: MultiNode, record: bool) -> tuple[Any, ...]:
        """The gradients of all results of `node`; zero for those that none reached."""
        if self.unread == 0 and all(p is None for p in parts[1:]):
            return tuple(parts)
        like = next(p for p in parts if p is not None)
        return tuple(
            np.zeros_like(like, shape=shape, dtype=dtype) if p is None else p
            for p, (shape, dtype) in zip(parts, node.specs, strict=True)
        )


def _adding(function: Callable[..., Any], at: Sequence[int]) -> Callable[[Any, Any, Any], None]:
    return lambda total, g, node: function(total, g, *[node.saved[i] for i in at])


def op(forward: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function on arrays an `Op`; as `@op` or `@op(view=True, ...)`."""
    if forward is None:
        return lambda f: Op(f, **options)
    return Op(forward, **options)


def explain(error: Exception, raws: Sequence[Any]) -> str:
    """NumPy's complaint in PyTorch's words, where shapes do not broadcast."""
    shapes = [r.shape for r in raws if hasattr(r, "shape")]
    if "broadcast" in str(error) and len(shapes) >= 2:
        a, b = shapes[0], shapes[1]
        for back in range(1, min(len(a), len(b)) + 1):
            if a[-back] != b[-back] and 1 not in (a[-back], b[-back]):
                return (
                    f"The size of tensor a ({a[-back]}) must match the size of tensor b ({b[-back]}) "
                    f"at non-singleton dimension {max(len(a), len(b)) - back}"
                )
    return str(error)


def _record(result: Tensor, node: Any) -> None:
    result._node = node
    result._requires_grad = True


def given(*args: Any) -> list[Any]:
    """The arguments that there are."""
    return [a for a in args if a is not MISSING]


def as_number(value: Any) -> Any:
    """An argument with the 0-d integer tensors in it as the integers that they stand for."""
    kind = type(value)
    if kind is int:
        return value
    if kind is tuple or kind is list:
        return value if {*map(type, value)} == _INTS else kind(map(as_number, value))
    if kind is slice:
        return slice(*map(as_number, (value.start, value.stop, value.step)))
    if isinstance(value, Tensor) and not value.ndim and value._array.dtype.kind == "i":
        return value.item()
    return value


def raw_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._array
    if type(value) in (list, tuple):
        return type(value)([raw_of(v) for v in value])
    return value


def _any_complex(raws: Sequence[Any]) -> bool:
    return any(getattr(r, "dtype", _BOOL).kind == "c" for r in _flat(raws))


def _flat(values: Sequence[Any]) -> Sequence[Any]:
    return [e for v in values for e in (v if type(v) in (list, tuple) else (v,))]
