"""Random Programs: each is drawn about one op of the grammar, among calls of any others.

So every op is met equally often, with operands that are inputs or results of other calls. The
same seed, op and number draw the same Program, whatever else is drawn.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator

from conformance.choose import Choose, Seeded
from conformance.program import Program, Values
from conformance.settings import Settings
from conformance.sources.base import Item, Sample, Skipped
from conformance.sources.draft import Draft
from conformance.sources.grammar import FAMILIES, OPS
from conformance.sources.node import Undefined, Unfit
from conformance.sources.templates import Op

DTYPES = ("float64", "float32", "complex128")
MIXED = ("float64",) * 6 + ("float32", "complex128")  # where no dtype is asked for
MORE = 0.5  # the chance of one more call
LONGEST = 5  # calls before the op, and after it
ATTEMPTS = 100  # draws of one call; a handful is usual
FOCUSED = 20  # of them with a class in mind
UNDEFINED = 4  # so often torch has no such call: give up
FRUITLESS = 2  # so many Programs without the op: it takes no complex numbers

# The class that each Program's op is to meet, by turns: 4 in 10 are left to chance.
TURNS = ("", "empty", "", "frozen", "", "rank 0", "", "rank 4+", "twice", "big")

_FAMILIES = tuple(FAMILIES.values())


def draw(
    choose: Choose, op: Op | None = None, dtype: str = "float64", focus: str = ""
) -> tuple[Program, Values]:
    """A Program with at least one call of the op (any op where it is None), and its values.

    The op's operands meet the class `focus` where they can (see draft.FOCUSES). Raises Unfit where
    the op takes no complex numbers and these are asked for.
    """
    op = op or choose.of(choose.of(_FAMILIES))
    for attempt in itertools.count():
        if attempt == FRUITLESS and dtype.startswith("complex"):
            break
        draft = Draft(choose, dtype)
        _wander(draft)
        if _append(draft, op, focus if attempt < FRUITLESS else ""):
            _wander(draft)
            if draft.has_result:
                try:
                    return draft.finish()
                except Unfit:  # a write over what another call's backward pass needs
                    continue
    raise Unfit(f"the op takes no {dtype} tensors")


def _wander(draft: Draft) -> None:
    choose = draft.choose
    for _ in range(LONGEST):
        if not choose.flag(MORE):
            return
        _append(draft, choose.of(choose.of(_FAMILIES)))


def _append(draft: Draft, op: Op, focus: str = "") -> bool:
    """Append a call of the op; False where nothing that was drawn would fit."""
    mark = draft.mark()
    undefined = 0
    for attempt in range(ATTEMPTS):
        draft.focus, draft.given = focus if attempt < FOCUSED else "", None
        try:
            args, kwargs = op.template(draft)
            draft.focus = ""
            draft.call(op.target, args, kwargs, op.result)
        except Unfit as error:
            draft.back_to(mark)
            draft.focus = ""
            undefined += isinstance(error, Undefined)
            if undefined == UNDEFINED:
                return False
        else:
            return True
    return False


class Generated:
    """The source `generated`: as many Programs as `settings.generated`, spread over all ops."""

    name = "generated"
    items_name_ops = True  # the op of every sample is its item's

    def items(self, settings: Settings) -> list[Item]:
        """Blocks of numbered Programs of one op: key "first-last"."""
        total, items = settings.generated, []
        for position, op in enumerate(OPS):
            count = (position + 1) * total // len(OPS) - position * total // len(OPS)
            for first in range(0, count, settings.block):
                last = min(first + settings.block, count) - 1
                items.append(Item(self.name, f"{first}-{last}", op))
        return items

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """The Programs of one block, in order; the chosen dtypes take turns, or the mixed ones."""
        first, last = map(int, item.key.split("-"))
        for name in settings.dtypes:
            if name not in DTYPES:
                yield Skipped(item.op, f"{item.key} {name}", f"no {name} Programs are generated")
        dtypes = [n for n in settings.dtypes if n in DTYPES] if settings.dtypes else MIXED
        first_turn = zlib.crc32(item.op.encode())  # so that few Programs have all dtypes
        for number in range(first, last + 1 if dtypes else first):
            dtype = dtypes[(first_turn + number) % len(dtypes)]
            seed = f"{settings.seed}/{item.op}/{number}"
            focus = TURNS[number % len(TURNS)]
            try:
                program, values = draw(Seeded(seed), OPS[item.op], dtype, focus)
            except Unfit as error:
                if settings.dtypes:
                    yield Skipped(item.op, f"seed {seed}", str(error))
                    continue
                program, values = draw(Seeded(seed), OPS[item.op], focus=focus)
            yield Sample(item.op, program, values, label=f"seed {seed}")
