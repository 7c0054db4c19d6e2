"""The graph: nodes that remember how a tensor was made, and how a gradient goes back through them.

A `Node` is made for every recorded operation. It holds

- `links`: for each input that requires grad, where its gradient goes (the node that made the input,
  or the leaf itself), by which rule, and in what shape and dtype (a dtype of None: what the rule
  of an elementwise op gives has both already, which saves the walk a tenth of its time);
- `raws` and `args`: the saved arguments, as arrays for a first-order backward and as Tensors for a
  recorded one (`create_graph`), and after these, with their names, the Tensors that are read as
  arrays alone, as indices are; `out`, the saved result;
- `seq`: a creation number, so that descending `seq` is a topological order.

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


_OTHERS = {"out": -2, "shape": -1}  # needs that are no arguments, and their places after those


class Rule:
    """One vjp of an op: J^T g for one argument, and what of the call it reads.

    `function(g, *needs)`: each further parameter names what the rule needs: `out` (the result),
    `shape` (of the argument that is differentiated) or an argument of the op. What no rule
    names is not saved. `function` runs on arrays, and on Tensors under `create_graph`. It returns
    a new array, `g`, or a view of `g`: never a saved array itself.

    `at` is the place of the argument that it needs, where that is all: the walk then hands it
    over itself.
    """

    __slots__ = ("at", "function", "graph", "needs", "raw", "saves")

    def __init__(
        self, function: Callable[..., Any], needs: tuple[str, ...], index: dict[str, int]
    ) -> None:
        self.function = function
        self.needs = needs
        self.saves = any(need != "shape" for need in needs)
        self.at = index.get(needs[0]) if len(needs) == 1 and needs[0] not in _OTHERS else None
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
                return lambda g, node, shape: f(g, node.raws[i])
            if len(needs) == 2:
                i, j = index[needs[0]], index[needs[1]]
                return lambda g, node, shape: f(g, node.raws[i], node.raws[j])

        get = _reading(needs, index)
        return lambda g, node, shape: f(g, *get((*(node.raws or ()), node.out, shape)))

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
        if len(needs) == 1:
            i = index[needs[0]]
            return lambda g, node, shape: f(g, node.args[i])

        get = _reading(needs, index)
        if "out" in needs:
            return lambda g, node, shape: f(
                g, *get((*(node.args or ()), node.saved_output(), shape))
            )
        return lambda g, node, shape: f(g, *get((*(node.args or ()), None, shape)))


def _reading(needs: tuple[str, ...], index: dict[str, int]) -> Callable[..., Any]:
    """What takes several needs out of the saved arguments, the result and the shape in a row."""
    return operator.itemgetter(*[_OTHERS.get(n, index.get(n)) for n in needs])


class Node:
    """One recorded operation."""

    __slots__ = (
        "__weakref__",
        "args",
        "freed",
        "hooks",
        "links",
        "op",
        "out",
        "raws",
        "seq",
        "tangents",  # those of the saved result, in forward mode; else not set
        "written",
    )

    op: Any
    links: tuple[Any, ...]
    raws: Any
    args: Any
    out: Any

    def __init__(self, op: Any, links: tuple[Any, ...], raws: Any, args: Any, out: Any) -> None:
        self.op = op
        self.seq = next(clock)
        self.links = links
        self.raws = raws
        self.args = args
        self.out = out
        self.written = 0
        self.freed = False
        self.hooks: Any = None

    def name(self) -> str:
        """The name PyTorch gives such a node, as `MulBackward0`."""
        return str(self.op.node_name)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes that this one sends gradients to, each with the output of it that it used."""
        found: list[tuple[Any, int]] = []
        for target, *_ in self.links:
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
        needed = {n for link in self.links for n in link[1].needs}  # what is saved may be more
        # the first result may be unread by the rules; here it alone has a gradient
        read = not (self.op.unread == 0 and self.op.differentiable == 1)
        stale = "out" in needed and read and self.written > self.seq
        args = self.args or ()
        n = len(self.op.names)
        for name, value in (*zip(self.op.names, args[:n], strict=False), *args[n:]):
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
        self.raws = self.args = self.out = None


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
