"""All ordered pairs of ops: g of what f returned, one small Program a pair.

Random graphs seldom hold a given pair, and a fault of one op can need another before or after it:
a layout, a view, a shared buffer. The same seed draws the same Programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from conformance.choose import Choose, Seeded
from conformance.expression import Expression
from conformance.program import Program, Values, leaves_of
from conformance.settings import Settings
from conformance.sources.base import Item, Sample, Skipped
from conformance.sources.draft import Draft
from conformance.sources.generated import DTYPES
from conformance.sources.grammar import FAMILIES, OPS
from conformance.sources.node import Node, Shape, Undefined, Unfit
from conformance.sources.templates import Arguments, Op
from conformance.sources.values import REAL, Domain

ATTEMPTS = 60  # draws of the first call
SECOND = 4  # draws of the second, for each of the first

REFUSALS = 6  # so often torch did not differentiate the pair, or lacks a call: it always will

_WRITING = FAMILIES["in place"]
_NO_PLACE = "no place for"
_UNDIFFERENTIABLE = "torch does not differentiate it"


@dataclass
class Wishes:
    """What second calls would have taken, for the first of the next draft to make."""

    shapes: list[Shape] = field(default_factory=list)
    domains: list[Domain] = field(default_factory=list)


class Pair(Draft):
    """A draft of two calls: while `wanted` is set, a call is drawn to take one of these nodes."""

    def __init__(self, choose: Choose, dtype: str, wishes: Wishes, *, apart: bool) -> None:
        super().__init__(choose, dtype)
        self.wishes = wishes
        self.apart = apart  # the first call works on a copy, so that views of it are written into
        self.wanted: tuple[Node, ...] = ()
        self.placed = False

    def shape(self, low: int = 0, high: int = 5, nonempty: bool = False) -> Shape:
        """As of any draft, but never empty: nothing would be compared. Wishes are heard."""
        if not self.wanted and self.wishes.shapes and self.choose.flag():
            shape = self.choose.of(self.wishes.shapes)
            if self.choose.flag(0.3):  # what a reduction, or an index, takes away
                axis = self.choose.integer(0, len(shape))
                shape = (*shape[:axis], self.choose.integer(1, 3), *shape[axis:])
            if low <= len(shape) <= high:
                return shape
        return super().shape(low, high, nonempty=True)

    def operand(
        self, domain: Domain = REAL, low: int = 0, high: int = 5, nonempty: bool = False
    ) -> Node:
        """What is wanted, where it fits and has no place yet."""
        found = self._place(lambda n: low <= n.rank <= high and n.fits(domain))
        if found is not None:
            return found
        if self.wanted:
            if not self.placed:
                self.wishes.domains.append(domain)
            return super().operand(domain, low, high, nonempty)
        if domain is REAL and self.wishes.domains and self.choose.flag(0.7):
            domain = self.choose.of(self.wishes.domains)
        found = super().operand(domain, low, high, nonempty)
        if self.apart and found.ref.name.startswith("x"):
            self.call("torch.clone", (found,), {})
            found = self.nodes[-1]
        return found

    def fit(self, shape: Sequence[int], domain: Domain = REAL) -> Node:
        """What is wanted, where it has that shape and no place yet."""
        shape = tuple(shape)
        found = self._place(lambda n: n.shape == shape and n.fits(domain))
        if found is not None:
            return found
        if self.wanted and not self.placed and 0 not in shape:
            self.wishes.shapes.append(shape)
        return super().fit(shape, domain)

    def writable(self, node: Node) -> bool:
        """As of any draft; where something is wanted, that alone."""
        return (not self.wanted or node in self.wanted) and super().writable(node)

    def _place(self, condition: Callable[[Node], bool]) -> Node | None:
        if self.placed:
            return None
        for node in self.wanted:
            if (node.data.dtype.is_floating_point or node.data.is_complex()) and condition(node):
                self.placed = True
                return node
        return None


def draw(choose: Choose, first: Op, second: Op, dtype: str = "float64") -> tuple[Program, Values]:
    """A Program in which the second op takes what the first returned, and its values.

    Raises Unfit, with the reason that tells most, where the two do not compose.
    """
    reasons: Counter[str] = Counter()
    wishes = Wishes()
    undefined = 0  # so many calls that torch does not have
    for _ in range(ATTEMPTS):
        if undefined >= REFUSALS:
            break
        draft = Pair(choose, dtype, wishes, apart=second in _WRITING and choose.flag())
        try:
            draft.wanted = _first(draft, first)
        except Unfit as error:
            reasons[f"{first.name}: {error}"] += 1
            undefined += isinstance(error, Undefined)
            continue
        for _ in range(SECOND):
            mark = draft.mark()
            try:
                args, kwargs = _second(draft, second)
                draft.call(second.target, args, kwargs, second.result)
            except Unfit as error:
                reasons[f"{second.name}: {error}"] += 1
                draft.back_to(mark)
                undefined += isinstance(error, Undefined)
                continue
            try:
                return _finish(draft)
            except Unfit as error:
                refused = str(error)
                reasons[refused] += 1
                if reasons[refused] == REFUSALS:
                    raise
                break  # the first result has been written over
    raise Unfit(max(reasons, key=lambda reason: (_weight(reason), reasons[reason])))


def _weight(reason: str) -> int:
    """How much a reason tells."""
    return 2 * reason.startswith(_UNDIFFERENTIABLE) + (_NO_PLACE in reason)


def _first(draft: Pair, op: Op) -> tuple[Node, ...]:
    """Call the op; what it returned, or what it wrote into where it returns nothing."""
    args, kwargs = op.template(draft)
    draft.call(op.target, args, kwargs, op.result)
    name = draft.calls[-1].name
    made = [n for n in draft.nodes if n.ref.name == name]
    if not made:
        made = [n for n in draft.nodes if n.memory == args[0].memory]
    found = tuple(n for n in made if n.data.numel())
    if not found:
        raise Unfit("an empty result")
    return found


def _second(draft: Pair, op: Op) -> Arguments:
    """Arguments of the op, among which there is what is wanted."""
    draft.placed = False
    args, kwargs = op.template(draft)
    wanted = {n.ref for n in draft.wanted}
    given = {n.ref for n in leaves_of((args, kwargs)) if isinstance(n, Node)}
    if not wanted & given:
        kinds = {str(n.data.dtype).removeprefix("torch.") for n in draft.wanted}
        raise Unfit(f"{_NO_PLACE} a {' or '.join(sorted(kinds))} of that shape and those values")
    return args, kwargs


def _finish(draft: Pair) -> tuple[Program, Values]:
    """The Program; the results of the second call are outputs even where they are integers."""
    if not draft.has_result:
        raise Unfit("nothing has a derivative")
    last = draft.calls[-1].name
    try:
        program, values = draft.finish()
    except Unfit as error:
        raise Unfit(f"{_UNDIFFERENTIABLE}: {_gist(error)}") from error
    outputs = program.outputs if isinstance(program.outputs, tuple) else (program.outputs,)
    more = [n.ref for n in draft.nodes if n.ref.name == last and n.ref not in outputs]
    if not any(r.name == last for r in outputs) and more:
        program = replace(program, outputs=(*outputs, *more))
    return program, values


def _gist(error: Unfit) -> str:
    """What torch says, without the shapes and the versions of one draw."""
    said = str(error).partition("\n")[0].removeprefix("torch raised RuntimeError: ")
    return said.partition(": [")[0]


class Pairs:
    """The source `pairs`: one Program for each ordered pair of ops of the grammar."""

    name = "pairs"

    def items(self, settings: Settings) -> list[Item]:
        """A block for each first op."""
        return [Item(self.name, op, op) for op in OPS]

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """One Program for each second op, in the first of the dtypes that are asked for."""
        dtype = settings.main_dtype
        if dtype not in DTYPES:
            yield Skipped(item.op, item.key, f"no {dtype} Programs are generated")
            return
        chosen = Expression(settings.expression)
        later = (*settings.chosen_checks, *settings.dtypes, settings.device)
        for second in OPS.values():
            name = f"{item.op}:{second.name}"
            if not chosen.may_match(f"{self.name}/{name}/", later):
                continue
            seed = f"{settings.seed}/{name}"
            try:
                program, values = draw(Seeded(seed), OPS[item.op], second, dtype)
            except Unfit as error:
                yield Skipped(name, f"seed {seed}", str(error))
            else:
                yield Sample(name, program, values, label=f"seed {seed}")
