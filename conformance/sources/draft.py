"""A Program under construction: each call runs on torch as it is drawn, on small tensors.

So shapes, dtypes, finite values and domains are known at every point, without inference rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conformance.choose import Choose, subset
from conformance.engines.torch import TorchEngine
from conformance.errors import EngineError
from conformance.program import Call, Input, Program, Ref, Values
from conformance.sources import values as classes
from conformance.sources.node import Node, Shape, Undefined, Unfit
from conformance.sources.values import REAL, Domain

COMPLEX = Domain(-4.0, 4.0, gap=0.125)

FOCUSES = ("empty", "frozen", "rank 0", "rank 4+", "twice", "big")  # classes that are else rare

LIMIT = 1e5  # results beyond it are drawn again: conditioning would hide an error behind rounding
ELEMENTS = 600  # and so are larger results,
LARGE = (67, 257, 1031)  # but for a dimension of such a size: past vector tails and blocks


class Draft:
    """Draws inputs and operands, and appends calls. Every draw goes through `choose`."""

    def __init__(self, choose: Choose, dtype: str = "float64") -> None:
        self.choose = choose
        self.dtype = dtype
        self.inputs: list[Input] = []
        self.values: Values = {}
        self.calls: list[Call] = []
        self.nodes: list[Node] = []
        self.used: set[Ref] = set()
        self.focus = ""  # a class that the operands of the next call are to meet: see FOCUSES
        self.given: Node | None = None  # the operand that the call in hand was given last

    # Inputs

    def fresh(self, shape: Sequence[int], domain: Domain = REAL, kind: str | None = None) -> Node:
        """A new floating input: its values by class, its layout, and whether it requires grad."""
        if self.focus == "big" and "big" in domain.classes:
            kind = "big"
        x = self._values(shape, domain, kind)
        layout = self.choose.of(classes.LAYOUTS) if x.ndim and self.choose.flag(0.4) else ""
        x = classes.lay(x.astype(self.dtype, copy=False), layout)
        return self._input(
            x, requires_grad=not self.choose.flag(1 if self.focus == "frozen" else 0.15)
        )

    def _values(self, shape: Sequence[int], domain: Domain, kind: str | None) -> NDArray[Any]:
        if not self.dtype.startswith("complex"):
            return classes.draw(self.choose, shape, domain, kind)
        # no real axis and no zero: there branches are cut, and sides differ
        parts = [classes.draw(self.choose, shape, COMPLEX, "ordinary") for _ in range(2)]
        return np.asarray(parts[0] + 1j * parts[1])  # of no dimension it would be a scalar

    def writable(self, node: Node) -> bool:
        """Whether a call may write into it: a result in memory of its own, each element once."""
        alike = str(node.data.dtype) == f"torch.{self.dtype}"  # nothing is lost of what is written
        own = node.ref.name[0] == "v" and node.memory not in self._given
        return alike and own and node.needs_grad and not node.overlaps

    @property
    def _given(self) -> set[int]:
        """The memory of the inputs."""
        return {n.memory for n in self.nodes if n.ref.name[0] == "x"}

    def indices(self, shape: Sequence[int], size: int) -> Node:
        """An integer tensor of the shape with numbers below size: a new input, or one at hand."""
        if size == 0 and 0 not in shape:
            raise Unfit("no index into a dimension of size 0")
        for node in reversed(self.nodes):
            if node.data.dtype == torch.int64 and node.shape == tuple(shape) and node.high < size:
                return node
        return self._input(classes.indices(self.choose, shape, max(size, 1)))

    def mask(self, shape: Sequence[int]) -> Node:
        """A boolean tensor of the shape: a new input, or one at hand."""
        for node in reversed(self.nodes):
            if node.data.dtype == torch.bool and node.shape == tuple(shape):
                return node
        bits = [self.choose.flag() for _ in range(math.prod(shape))]
        return self._input(np.array(bits, dtype=np.bool_).reshape(shape))

    def _input(self, array: NDArray[Any], requires_grad: bool = False) -> Node:
        name = f"x{len(self.inputs)}"
        self.inputs.append(Input.of(name, array, requires_grad=requires_grad))
        self.values[name] = array
        node = Node(Ref(name), torch.from_numpy(array), requires_grad)
        self.nodes.append(node)
        return node

    # Shapes, axes and operands, uniform over their classes

    def shape(self, low: int = 0, high: int = 5, nonempty: bool = False) -> Shape:
        """A shape of a rank from low to high: distinct, equal, size-1 or size-0 dimensions."""
        choose = self.choose
        ranks = [r for r in (1, 2, 0, 3, 4, 2, 3, 5) if low <= r <= high]
        rank = choose.of([r for r in ranks if self._in_focus(r)] or ranks)
        if not rank:
            return ()
        top = (6, 5, 4, 3, 2)[rank - 1]
        sizes = [choose.integer(2, max(top, 2)) for _ in range(rank)]
        kind = choose.of(("distinct", "equal", "one", "distinct", "ones", "empty", "large"))
        if kind == "equal":
            sizes = sizes[:1] * rank
        elif kind == "one":
            sizes[choose.integer(0, rank - 1)] = 1
        elif kind == "ones":
            for axis in subset(choose, range(rank)):
                sizes[axis] = 1
        elif kind == "large" and rank <= 2 and choose.flag(0.3):
            sizes[choose.integer(0, rank - 1)] = choose.of(LARGE)
        elif kind == "empty" and not nonempty and choose.flag(0.3):
            sizes[choose.integer(0, rank - 1)] = 0
        if self.focus == "empty" and not nonempty:
            sizes[choose.integer(0, rank - 1)] = 0
        return tuple(sizes)

    def _in_focus(self, rank: int) -> bool:
        wanted = {"rank 0": rank == 0, "rank 4+": rank >= 4, "empty": rank > 0}
        return wanted.get(self.focus, True)

    def size(self, low: int, high: int) -> int:
        """A size from low to high; now and then 0."""
        small = 1.0 if self.focus == "empty" else 0.04
        return 0 if self.choose.flag(small) else self.choose.integer(low, high)

    def operand(
        self, domain: Domain = REAL, low: int = 0, high: int = 5, nonempty: bool = False
    ) -> Node:
        """A floating tensor of a rank from low to high: one at hand, or a new input."""

        def fits(n: Node) -> bool:
            return low <= n.rank <= high and not (nonempty and 0 in n.shape) and n.fits(domain)

        found = self._again(fits)
        if found is None and self.nodes and not self.focus and not self.choose.flag(0.3):
            found = self._at_hand(fits)
        if found is None:
            found = self.fresh(self.shape(low, high, nonempty), domain)
        self.given = found
        return found

    def fit(self, shape: Sequence[int], domain: Domain = REAL) -> Node:
        """A floating tensor of exactly this shape: one at hand, or a new input."""
        shape = tuple(shape)

        def fits(n: Node) -> bool:
            return n.shape == shape and n.fits(domain)

        found = self._again(fits)
        if found is None and not self.focus and not self.choose.flag(0.5):
            found = self._at_hand(fits)
        if found is None:
            found = self.fresh(shape, domain)
        self.given = found
        return found

    def _again(self, condition: Callable[[Node], bool]) -> Node | None:
        """The operand that was given last, where one tensor is to come twice."""
        if self.focus == "twice" and self.given is not None and condition(self.given):
            return self.given
        return None

    def partner(self, node: Node, domain: Domain = REAL, beside: Shape = ()) -> Node:
        """A tensor that broadcasts with the node: the same one, smaller, larger, or at hand.

        `beside` is the shape of a further operand that it must broadcast with.
        """
        choose = self.choose
        shape = tuple(torch.broadcast_shapes(node.shape, beside)) if beside else node.shape
        kind = choose.of(("equal", "same", "scalar", "lead", "ones", "more", "hand"))
        if self.focus == "twice":
            kind = "same"
        if kind == "same" and node.fits(domain):
            return node
        if kind == "hand":
            found = self._at_hand(lambda n: n.fits(domain) and broadcasts(n.shape, shape))
            if found:
                return found
        if kind == "scalar":
            shape = ()
        elif kind == "lead":
            shape = shape[choose.integer(0, len(shape)) :]
        elif kind == "ones" and shape:
            ones = set(subset(choose, range(len(shape))))
            shape = tuple(1 if axis in ones else n for axis, n in enumerate(shape))
            shape = shape[choose.integer(0, 1) :]
        elif kind == "more" and len(shape) < 5 and math.prod(shape) * 3 < ELEMENTS:
            lead = (choose.integer(1, 3),) if choose.flag() else ()
            shape = lead + tuple(choose.integer(1, 3) if n == 1 else n for n in shape)
        return self.fit(shape, domain)

    def _at_hand(self, condition: Callable[[Node], bool]) -> Node | None:
        """The latest such floating tensor, or any of them."""
        found = [
            n
            for n in self.nodes
            if (n.data.dtype.is_floating_point or n.data.is_complex()) and condition(n)
        ]
        if not found:
            return None
        return self.choose.of(found) if self.choose.flag() else found[-1]

    def axis(self, node: Node, least: int = 0) -> int:
        """A dimension of at least that size, counted from the front or from the end."""
        rank = node.rank
        if not rank:
            return self.choose.of((0, -1))
        axes = [a for a in range(rank) if node.shape[a] >= least]
        if not axes:
            raise Unfit(f"no dimension has {least} elements")
        axis = self.choose.of(axes)
        return axis - rank if self.choose.flag() else axis

    def axes(self, node: Node, least: int = 0) -> tuple[int, ...]:
        """Some dimensions of at least that size, in random order, from the front or the end."""
        rank = node.rank
        if not rank:
            return self.choose.of(((), (0,), (-1,)))
        large = [a for a in range(rank) if node.shape[a] >= least]
        if not large:
            raise Unfit(f"no dimension has {least} elements")
        chosen = subset(self.choose, large)
        return tuple(a - rank if self.choose.flag() else a for a in chosen)

    # Calls

    def call(
        self, target: str, args: Sequence[Any], kwargs: dict[str, Any], result: Domain = REAL
    ) -> None:
        """Append one call; raises Unfit where a result is not finite, too large, or off domain."""
        refs: list[Ref] = []
        needs_grad = False

        def plain(tree: Any, data: bool) -> Any:
            nonlocal needs_grad
            if isinstance(tree, Node):
                refs.append(tree.ref)
                needs_grad = needs_grad or tree.needs_grad
                return tree.data if data else tree.ref
            if isinstance(tree, tuple | list):
                return type(tree)(plain(item, data) for item in tree)
            return tree

        call = Call(
            f"v{len(self.calls)}",
            target,
            plain(tuple(args), False),
            {key: plain(value, False) for key, value in kwargs.items()},
        )
        written = args[0] if call.in_place else None
        before = written.data.clone() if written is not None else None
        try:
            with torch.no_grad():
                made = resolve(target)(
                    *plain(tuple(args), True),
                    **{key: plain(value, True) for key, value in kwargs.items()},
                )
            results = self._results_of(call.name, made, needs_grad, result)
            touched = [] if written is None else self._sharing(written)
            for node in touched:
                node.measure()
                self._plain_range(node, result)
        except (Unfit, RuntimeError, IndexError) as error:
            if written is not None and before is not None:
                written.data.copy_(before)
                for node in self._sharing(written):
                    node.measure()
            if isinstance(error, Unfit):
                raise
            raise Undefined(str(error)) from error
        for node in touched:
            node.needs_grad = node.needs_grad or needs_grad
        self.calls.append(call)
        self.nodes.extend(results)
        self.used.update(refs)
        for node in touched:  # what was written through a view is worth looking at
            if written is not None and node.ref != written.ref:
                self.used.discard(node.ref)

    def _results_of(self, name: str, made: Any, needs_grad: bool, domain: Domain) -> list[Node]:
        if made is None:
            return []
        if isinstance(made, torch.Tensor):
            return [self._result(Ref(name), made, needs_grad, domain)]
        return [
            self._result(Ref(name, (position,)), item, needs_grad, domain)
            for position, item in enumerate(made)
        ]

    def _sharing(self, written: Node) -> list[Node]:
        return [n for n in self.nodes if n.memory == written.memory]

    def _result(self, ref: Ref, data: torch.Tensor, needs_grad: bool, domain: Domain) -> Node:
        most = 6 * ELEMENTS if max(data.shape, default=0) >= LARGE[0] else ELEMENTS
        if data.numel() > most:
            raise Unfit(f"{data.numel()} elements")
        differentiable = data.dtype.is_floating_point or data.is_complex()
        node = Node(ref, data, needs_grad and differentiable)
        if differentiable:
            self._plain_range(node, domain)
        return node

    def _plain_range(self, node: Node, domain: Domain) -> None:
        """Raises Unfit where a value is not finite, too large, or off the domain."""
        if node.data.numel():
            finite = node.low >= -LIMIT and node.high <= LIMIT
            if not (finite and node.fits(domain)):
                raise Unfit(f"values from {node.low} to {node.high}")

    def mark(self) -> tuple[int, int, int]:
        """Where the draft stands, for `back_to`."""
        return len(self.inputs), len(self.nodes), len(self.calls)

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what was drawn since, for a call that did not come about."""
        inputs, nodes, calls = mark
        del self.calls[calls:]
        for extra in self.inputs[inputs:]:
            del self.values[extra.name]
        del self.inputs[inputs:]
        del self.nodes[nodes:]

    @property
    def _results(self) -> list[Node]:
        made = (n for n in self.nodes if n.ref.name[0] == "v")
        return [n for n in made if n.data.dtype.is_floating_point or n.data.is_complex()]

    @property
    def has_result(self) -> bool:
        """Whether some call made a floating tensor, so that there is something to differentiate."""
        return bool(self._results)

    def finish(self) -> tuple[Program, Values]:
        """The Program: its last result and some of its loose ends are the outputs."""
        *others, last = self._results
        loose = [n for n in others if n.ref not in self.used]
        outputs = [n for n in loose if not self.choose.flag(0.4)] + [last]
        inputs = self.inputs
        if not any(n.needs_grad for n in outputs):
            inputs = [replace(i, requires_grad=i.dtype == self.dtype) for i in inputs]
        tree = tuple(n.ref for n in outputs)
        program = Program(tuple(inputs), tuple(self.calls), tree if len(tree) > 1 else tree[0])
        if self.dtype.startswith("complex") or any(call.in_place for call in self.calls):
            differentiable(program, self.values)
        return program, self.values


def differentiable(program: Program, values: Values) -> None:
    """Raises Unfit where a call writes over what another's backward pass needs, or has none."""
    engine = TorchEngine()
    try:
        outputs = engine.run(program, values).outputs
        ones = [np.ones_like(o) if o.dtype.kind in "fc" else None for o in outputs]
        engine.vjp(program, values, ones)
    except EngineError as error:
        raise Unfit(str(error)) from error


def broadcasts(a: Shape, b: Shape) -> bool:
    """Whether two shapes broadcast, to a rank and size that stay small."""
    pairs = list(zip(reversed(a), reversed(b), strict=False))
    fits = all(m == n or 1 in (m, n) for m, n in pairs)
    size = math.prod(a) * math.prod(b) // math.prod(min(m, n) or 1 for m, n in pairs)
    return fits and size <= ELEMENTS


@cache
def resolve(target: str) -> Callable[..., Any]:
    """torch's callable of that public name."""
    found: Any = torch
    for part in target.split(".")[1:]:
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]
