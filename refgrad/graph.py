"""The graph: nodes that remember how a tensor was made, and how a gradient goes back through them.

A `Node` is made for every recorded operation. It holds

- `targets`, `rules`, `shapes` and `dtypes`: for each argument that the op differentiates, where
  its gradient goes (the node that made the argument, or the leaf itself; None where it needs none),
  by which rule, and in what shape and dtype. Of an elementwise op whose operands have the shape and
  the dtype of its result, what the rules give has both: `shapes` and `dtypes` are then None;
- `saved`: the saved arguments, as arrays for a first-order backward; then all of them as Tensors,
  for a recorded one (`create_graph`); and then, with their names, the Tensors that are read as
  arrays alone, as indices are. And `out`, the saved result;
- `seq`: a creation number, so that descending `seq` is a topological order.

The fewer tuples a node has, the less the collector has to look at, and the less it costs to make
one: with a tuple for each argument and two of what is saved, a product that is recorded took a
quarter longer.

`seq` and the time of an in-place write come from one clock. A saved tensor is stale when the tensor
it aliases was written after the node was made, so no version has to be saved with it.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

clock = itertools.count(1)


class Writes:
    """When the last in-place write to any tensor happened: no node younger than it can be stale."""

    last = 0


Links = tuple[Any, Any, Any, Any]  # the targets, rules, shapes and dtypes of a node
_OTHERS = {"out": -2, "shape": -1}  # needs that are no arguments, and their places after those


class Rule:
    """One vjp of an op: J^T g for one argument, and what of the call it reads.

    `function(g, *needs)`: each further parameter names what the rule needs: `out` (the result),
    `shape` (of the argument that is differentiated) or an argument of the op. What no rule
    names is not saved. `function` runs on arrays, and on Tensors under `create_graph`. It returns
    a new array, `g`, or a view of `g`: never a saved array itself.

    `into(total, g, node)`, where there is one, adds what `function` returns to `total`, an array,
    without making it: of a slice it would be mostly zeros.

    `joint` says that `function` returns the gradients of several arguments, each a new array.

    `at` and `among` are the places of the argument that it needs, where that is all, among what a
    node saved: as array and as Tensor. The walk then hands it over itself.
    """

    __slots__ = ("among", "at", "function", "graph", "into", "joint", "needs", "raw", "saves")

    def __init__(
        self,
        function: Callable[..., Any],
        needs: tuple[str, ...],
        index: dict[str, int],
        joint: bool = False,
    ) -> None:
        self.function = function
        self.joint = joint
        self.needs = needs
        self.saves = any(need != "shape" for need in needs)
        self.into: Callable[[Any, Any, Any], None] | None = None
        self.at = self.among = None
        if len(needs) == 1 and needs[0] not in _OTHERS:
            self.at = index[needs[0]]
            self.among = self.at + len(index)
        self.raw = self._on_arrays(function, needs, index)
        self.graph = self._on_tensors(function, needs, index)

    # Both are called as `(g, node, shape)`. The common signatures come first, each without putting
    # in a row all that there is.

    @staticmethod
    def _on_arrays(
        f: Callable[..., Any], needs: tuple[str, ...], index: dict[str, int]
    ) -> Callable[..., Any]:
        if not needs:
            return lambda g, node, shape: f(g)
        if needs == ("out",):
            return lambda g, node, shape: f(g, node.out)
        if needs == ("shape",):
            return lambda g, node, shape: f(g, shape)
        if "out" not in needs and "shape" not in needs:
            if len(needs) == 1:
                i = index[needs[0]]
                return lambda g, node, shape: f(g, node.saved[i])
            if len(needs) == 2:
                i, j = index[needs[0]], index[needs[1]]
                return lambda g, node, shape: f(g, node.saved[i], node.saved[j])

        get = _reading(needs, index, 0)
        return lambda g, node, shape: f(g, *get((*(node.saved or ()), node.out, shape)))

    @staticmethod
    def _on_tensors(
        f: Callable[..., Any], needs: tuple[str, ...], index: dict[str, int]
    ) -> Callable[..., Any]:
        if not needs:
            return lambda g, node, shape: f(g)
        if needs == ("out",):
            return lambda g, node, shape: f(g, node.saved_output())
        if needs == ("shape",):
            return lambda g, node, shape: f(g, shape)
        n = len(index)
        if len(needs) == 1:
            i = index[needs[0]] + n
            return lambda g, node, shape: f(g, node.saved[i])

        get = _reading(needs, index, n)
        if "out" in needs:
            return lambda g, node, shape: f(
                g, *get((*(node.saved or ()), node.saved_output(), shape))
            )
        return lambda g, node, shape: f(g, *get((*(node.saved or ()), None, shape)))


def _reading(needs: tuple[str, ...], index: dict[str, int], start: int) -> Callable[..., Any]:
    """What takes several needs out of what was saved, the result and the shape in a row.

    The arguments stand in the order of `index`, from `start` on.
    """
    return operator.itemgetter(*[_OTHERS[n] if n in _OTHERS else index[n] + start for n in needs])


class Node:
    """One recorded operation."""

    __slots__ = (
        "__weakref__",
        "dtypes",
        "freed",
        "hooks",
        "op",
        "out",
        "rules",
        "saved",
        "seq",
        "shapes",
        "tangents",  # those of the saved result, in forward mode; else not set
        "targets",
        "written",
    )

    op: Any
    seq: int
    targets: tuple[Any, ...]
    rules: tuple[Any, ...]
    shapes: tuple[Any, ...] | None
    dtypes: tuple[Any, ...] | None
    saved: Any
    out: Any
    written: int
    freed: bool
    hooks: Any

    def name(self) -> str:
        """The name PyTorch gives such a node, as `MulBackward0`."""
        return str(self.op.node_name)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes that this one sends gradients to, each with the output of it that it used."""
        found: list[tuple[Any, int]] = []
        for target in self.targets:
            for t in target if isinstance(target, tuple) else (target,):
                if isinstance(t, Output):
                    found.append((t.parent, t.index))
                elif t is not None:
                    found.append((t if isinstance(t, Node) else t.grad_accumulator(), 0))
        return tuple(found)

    def register_hook(self, hook: Callable[[Any, Any], Any]) -> Any:
        """Call `hook(grad_inputs, grad_outputs)` after this node; it may replace the first."""
        from refgrad.autograd.hooks import Handle, of

        return Handle(of(self).after, hook)

    def register_prehook(self, hook: Callable[[Any], Any]) -> Any:
        """Call `hook(grad_outputs)` before this node; it may replace them."""
        from refgrad.autograd.hooks import Handle, of

        return Handle(of(self).before, hook)

    def saved_output(self) -> Any:
        """The result as Tensors of this node, for a rule that is itself recorded."""
        return self.op.rewrap(self)

    def check_fresh(self) -> None:
        """Raise RuntimeError where a saved tensor was written in place since.

        Raises:
            RuntimeError: naming the node, as PyTorch does.
        """
        sent = zip(self.targets, self.rules, strict=True)
        needed = {n for t, rule in sent if t is not None for n in rule.needs}  # more may be saved
        # the first result may be unread by the rules; here it alone has a gradient
        read = not (self.op.unread == 0 and self.op.differentiable == 1)
        stale = "out" in needed and read and self.written > self.seq
        saved, n = self.saved or (), len(self.op.names)
        for name, value in (*zip(self.op.names, saved[n : 2 * n]), *saved[2 * n :]):
            if name in needed:
                for t in value if isinstance(value, (tuple, list)) else (value,):
                    if hasattr(t, "root") and t.root()._written > self.seq:
                        stale = True
        if stale:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor saved by {self.name()} was written after it. Clone "
                "it before the write, or use the out-of-place operation."
            )

    def release(self) -> None:
        """Drop what was saved, so that memory is freed as the backward pass goes."""
        self.freed = True
        self.saved = self.out = None


_new = object.__new__


def node(
    op: Any, targets: Any, rules: Any, shapes: Any, dtypes: Any, saved: Any, out: Any,
    kind: type[Node] = Node,
) -> Any:  # fmt: skip
    """A new node, of what `Node` says that it has; a third less time than by a constructor."""
    made = _new(kind)
    made.op = op
    made.seq = next(clock)
    made.targets = targets
    made.rules = rules
    made.shapes = shapes
    made.dtypes = dtypes
    made.saved = saved
    made.out = out
    made.written = 0
    made.freed = False
    made.hooks = None
    return made


class Output:
    """One result of an op with several: it hands its gradient to the op's node at its place."""

    __slots__ = ("__weakref__", "_written", "hooks", "index", "parent", "seq")

    def __init__(self, parent: Node, index: int) -> None:
        self.parent = parent
        self.index = index
        self.seq = next(clock)
        self.hooks: Any = None
        self._written = 0

    @property
    def written(self) -> int:
        """When it was last written in place; its node notes the last write to any that is read."""
        return self._written

    @written.setter
    def written(self, tick: int) -> None:
        self._written = tick
        if self.index != self.parent.op.unread:
            self.parent.written = tick


class AccumulateGrad:
    """The node PyTorch shows for a leaf: gradients that reach it are added to its `.grad`."""

    next_functions = ()
    register_hook = Node.register_hook
    register_prehook = Node.register_prehook

    def __init__(self, variable: Any) -> None:
        self.variable = variable

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self.variable):#x}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and self.variable is other.variable

    def __hash__(self) -> int:
        return id(self.variable)

    def name(self) -> str:
        """Its name in PyTorch."""
        return "struct torch::autograd::AccumulateGrad"

    @property
    def hooks(self) -> Any:
        """The hooks of the accumulation, which the leaf keeps."""
        return self.variable._accumulator_hooks

    @hooks.setter
    def hooks(self, hooks: Any) -> None:
        self.variable._accumulator_hooks, self.variable._watched = hooks, True
