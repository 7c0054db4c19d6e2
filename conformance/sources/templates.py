"""How to draw operands and arguments that fit, one function per shape of op.

A template takes the Draft and returns the positional and the keyword arguments of one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conformance.choose import subset
from conformance.sources.draft import Draft
from conformance.sources.node import Node, Undefined, Unfit
from conformance.sources.values import REAL, Domain, permutation

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Template = Callable[[Draft], Arguments]


NEARLY = 1e-9  # numbers as near as this, rounding may put in another order


@dataclass(frozen=True)
class Op:
    """One op of the grammar; `result` is where its results must lie for the call to be kept."""

    target: str
    template: Template
    result: Domain = REAL

    @property
    def name(self) -> str:
        """The op's short name: softmax, nn.functional.softplus, __getitem__."""
        return self.target.removeprefix("torch.").removeprefix("Tensor.")


def given(**options: tuple[Any, ...]) -> Callable[[Draft], dict[str, Any]]:
    """Keyword arguments, each drawn from its options; the option ... leaves it out."""

    def draw(d: Draft) -> dict[str, Any]:
        drawn = {name: d.choose.of(values) for name, values in options.items()}
        return {name: value for name, value in drawn.items() if value is not ...}

    return draw


def elementwise(domain: Domain = REAL, **options: tuple[Any, ...]) -> Template:
    """f(x), with keyword options."""
    keywords = given(**options)
    return lambda d: ((d.operand(domain),), keywords(d))


def binary(first: Domain = REAL, second: Domain = REAL, **options: tuple[Any, ...]) -> Template:
    """f(x, y) of tensors that broadcast, in either order; a number too where `number` is given."""
    numbers = options.pop("number", ())
    keywords = given(**options)

    def draw(d: Draft) -> Arguments:
        if numbers and d.choose.flag(0.15):
            return (d.operand(first), d.choose.of(numbers)), keywords(d)
        if d.choose.flag():
            y = d.operand(second)
            return (d.partner(y, first), y), keywords(d)
        x = d.operand(first)
        return (x, d.partner(x, second)), keywords(d)

    return draw


def ternary(*domains: Domain, **options: tuple[Any, ...]) -> Template:
    """f(x, y, z) of tensors that broadcast."""
    keywords = given(**options)

    def draw(d: Draft) -> Arguments:
        x = d.operand(domains[0])
        y = d.partner(x, domains[1])
        return (x, y, d.partner(x, domains[2], beside=y.shape)), keywords(d)

    return draw


def where(d: Draft) -> Arguments:
    """where(mask, x, y): the mask, too, broadcasts."""
    x = d.operand()
    shape = x.shape[d.choose.integer(0, x.rank) :] if d.choose.flag(0.3) else x.shape
    y: Node | float = d.choose.of((0.0, -1.5)) if d.choose.flag(0.2) else d.partner(x)
    return (d.mask(shape), x, y) if d.choose.flag() else (d.mask(shape), y, x), {}


def compare(d: Draft) -> Arguments:
    """x against a number that lies between the values, or against a constant tensor."""
    return (d.operand(), d.choose.of((0.25, -0.25, 1.125))), {}


# Reductions


def reduce(
    domain: Domain = REAL, *, many: bool = True, least: int = 0, **options: tuple[Any, ...]
) -> Template:
    """f(x, dim, keepdim): over all, one, several or every dimension by name."""
    keywords = given(**options)

    def draw(d: Draft) -> Arguments:
        x = d.operand(domain)
        kwargs = keywords(d)
        kind = d.choose.of(("one", "all", "many") if many else ("one", "all"))
        if kind == "all":
            if math.prod(x.shape) < least:
                raise Unfit("too few elements")
            return (x,), kwargs
        dim: Any = d.axis(x, least) if kind == "one" else d.axes(x, least)
        return (x,), {"dim": dim, "keepdim": d.choose.flag()} | kwargs

    return draw


def spread(d: Draft) -> Arguments:
    """var or std: correction 0 or 1, over at least two numbers where it is 1."""
    args, kwargs = reduce(least=1)(d)
    dim = kwargs.get("dim", ())
    shape = args[0].shape
    count = math.prod(shape[a] for a in (dim if isinstance(dim, tuple) else (dim,)) if shape)
    if dim == ():
        count = math.prod(shape)
    correction = d.choose.of((1, 0)) if count > 1 else 0
    return args, kwargs | {"correction": correction}


def along(
    domain: Domain = REAL, *, least: int = 0, low: int = 0, **options: tuple[Any, ...]
) -> Template:
    """f(x, dim), the shape kept: softmax, cumsum, sort."""
    keywords = given(**options)

    def draw(d: Draft) -> Arguments:
        x = d.operand(domain, low=low)
        return (x, d.axis(x, least)), keywords(d)

    return draw


def median(d: Draft) -> Arguments:
    """As any reduction; torch's median along a dimension of an expanded tensor is garbage."""
    args, kwargs = reduce(many=False, least=1)(d)
    if 0 in args[0].data.stride():
        raise Unfit("expanded")
    return args, kwargs


def ordered(d: Draft) -> Arguments:
    """sort and argsort, stable where there are ties: else torch leaves their order open.

    Ties of a result, or what is nearly one, another engine's rounding may break.
    """
    x = d.operand()
    kwargs: dict[str, Any] = {"dim": d.axis(x), "descending": d.choose.flag(0.3)}
    if d.choose.flag(0.3) or _ties(x):
        kwargs["stable"] = True
    if x.ref.name.startswith("v") and _ties(x, NEARLY):
        raise Unfit("what rounding may put in another order")
    return (x,), kwargs


def _ties(x: Node, nearly: float = 0.0) -> bool:
    """Whether elements are equal, or differ by no more than that part of the largest."""
    if x.data.is_complex():
        raise Undefined("complex numbers have no order")
    flat = x.data.flatten().sort().values
    gaps = flat[1:] - flat[:-1]
    return bool((gaps <= nearly * max(abs(x.low), abs(x.high))).any())


def ranked(d: Draft) -> Arguments:
    """topk(x, k, dim), without ties: torch leaves open which of equal elements it takes."""
    x = d.operand()
    if _ties(x, NEARLY):
        raise Unfit("ties")
    dim = d.axis(x, 1)
    k = d.choose.integer(1, x.shape[dim]) if x.shape else 1
    return (x, k), {"dim": dim, "largest": d.choose.flag()}


def kth(d: Draft) -> Arguments:
    """kthvalue(x, k, dim)."""
    (x, k), kwargs = ranked(d)
    return (x, k), {"dim": kwargs["dim"], "keepdim": d.choose.flag()}


# Shapes


def _factor(d: Draft, count: int) -> list[int]:
    """Sizes whose product is count, some of them 1."""
    sizes: list[int] = []
    rest = count
    while rest > 1:
        size = d.choose.of([n for n in range(2, rest + 1) if rest % n == 0])
        sizes.append(size)
        rest //= size
    if d.choose.flag(0.3):
        sizes.insert(d.choose.integer(0, len(sizes)), 1)
    return sizes


def reshape(d: Draft) -> Arguments:
    """Any shape of as many elements; one size may be -1."""
    x = d.operand()
    count = math.prod(x.shape)
    sizes = _factor(d, count) if count else [0, d.choose.integer(1, 3)]
    if sizes and count and d.choose.flag(0.3):
        sizes[d.choose.integer(0, len(sizes) - 1)] = -1
    return (x, tuple(sizes)), {}


def view(d: Draft) -> Arguments:
    """As reshape, where the strides allow it; of any strides, with a dimension of size 1 put in."""
    if d.choose.flag():
        x = d.operand(high=4)
        at = d.choose.integer(0, x.rank)
        return (x, (*x.shape[:at], 1, *x.shape[at:])), {}
    args, kwargs = reshape(d)
    if not args[0].data.is_contiguous():
        raise Unfit("not contiguous")
    return args, kwargs


def permute(d: Draft) -> Arguments:
    """Any permutation; dimensions counted from either end."""
    x = d.operand()
    dims = permutation(d.choose, x.rank)
    return (x, tuple(a - x.rank if d.choose.flag(0.3) else a for a in dims)), {}


def two_axes(low: int = 0) -> Template:
    """f(x, dim0, dim1), also of the same dimension twice."""

    def draw(d: Draft) -> Arguments:
        x = d.operand(low=low)
        return (x, d.axis(x), d.axis(x)), {}

    return draw


def matrices(low: int = 2, **options: tuple[Any, ...]) -> Template:
    """f(x) of tensors of at least that rank."""
    keywords = given(**options)
    return lambda d: ((d.operand(low=low),), keywords(d))


def squeeze(d: Draft) -> Arguments:
    """No dimension named, one, or several; not all of size 1."""
    x = d.operand()
    kind = d.choose.of(("all", "one", "many"))
    if kind == "all":
        return (x,), {}
    return (x, d.axis(x) if kind == "one" else d.axes(x)), {}


def unsqueeze(d: Draft) -> Arguments:
    """A new dimension anywhere, counted from either end."""
    x = d.operand(high=4)
    return (x, d.choose.integer(-x.rank - 1, x.rank)), {}


def expand(d: Draft) -> Arguments:
    """Size-1 dimensions enlarged, new ones in front, -1 for what stays."""
    x = d.operand(high=4)
    sizes = [d.choose.integer(1, 3) if n == 1 else d.choose.of((n, -1)) for n in x.shape]
    lead = [d.choose.integer(1, 3)] if d.choose.flag() else []
    return (x, *lead, *sizes) if lead or sizes else (x, ()), {}


def broadcast_to(d: Draft) -> Arguments:
    """As expand, the sizes as a tuple."""
    (x, *sizes), _ = expand(d)
    return (x, tuple(s for s in sizes if s != ())), {}


def repeat(d: Draft) -> Arguments:
    """Each dimension 1 to 3 times, with dimensions in front."""
    x = d.operand(high=4)
    counts = [d.choose.integer(1, 3) for _ in range(x.rank + d.choose.integer(0, 1))]
    return (x, tuple(counts)), {}


def repeat_interleave(d: Draft) -> Arguments:
    """Each element along a dimension so many times."""
    x = d.operand()
    if not x.rank or d.choose.flag(0.3):
        return (x, d.choose.integer(1, 3)), {}
    return (x, d.choose.integer(1, 3)), {"dim": d.axis(x)}


def flip(d: Draft) -> Arguments:
    """Reversed along some dimensions."""
    x = d.operand()
    return (x, d.axes(x)), {}


def roll(d: Draft) -> Arguments:
    """Rolled along all, one or several dimensions, by either sign, also past the size."""
    x = d.operand()
    kind = d.choose.of(("one", "all", "many"))
    if kind == "all" or not x.rank:
        return (x, d.choose.integer(-4, 4)), {}
    if kind == "one":
        return (x, d.choose.integer(-4, 4), d.axis(x)), {}
    dims = d.axes(x)
    return (x, tuple(d.choose.integer(-4, 4) for _ in dims), dims), {}


def flatten(d: Draft) -> Arguments:
    """A run of dimensions made one."""
    x = d.operand()
    start = d.choose.integer(0, max(x.rank - 1, 0))
    end = d.choose.integer(start, max(x.rank - 1, 0))
    return (x, start, end - x.rank if x.rank and d.choose.flag() else end), {}


def unflatten(d: Draft) -> Arguments:
    """One dimension made several."""
    x = d.operand(low=1, high=4)
    dim = d.axis(x, 1)
    return (x, dim, tuple(_factor(d, x.shape[dim])) or (1,)), {}


def narrow(d: Draft) -> Arguments:
    """A stretch of one dimension, also of length 0."""
    x = d.operand(low=1)
    dim = d.axis(x)
    start = d.choose.integer(0, x.shape[dim])
    return (x, dim, start, d.choose.integer(0, x.shape[dim] - start)), {}


def select(d: Draft) -> Arguments:
    """One index of one dimension, counted from either end."""
    x = d.operand(low=1)
    dim = d.axis(x, 1)
    return (x, dim, d.choose.integer(-x.shape[dim], x.shape[dim] - 1)), {}


def unfold(d: Draft) -> Arguments:
    """Windows of one dimension; they overlap where the step is smaller than the size."""
    x = d.operand(high=4)
    dim = d.axis(x, 1)
    most = x.shape[dim] if x.rank else 1
    return (x, dim, d.choose.integer(1, most), d.choose.integer(1, 3)), {}


def diagonal(d: Draft) -> Arguments:
    """A diagonal, offset to either side, of two different dimensions."""
    x = d.operand(low=2)
    first, second = subset(d.choose, range(x.rank), 2)[:2]
    return (x,), {"offset": d.choose.integer(-1, 1), "dim1": first, "dim2": second - x.rank}


def triangle(d: Draft) -> Arguments:
    """tril or triu, with a diagonal on either side."""
    return (d.operand(low=2), d.choose.integer(-2, 2)), {}


def split(d: Draft) -> Arguments:
    """Pieces of one size, or of given sizes; some may be left unused."""
    x = d.operand(low=1)
    dim = d.axis(x, 1)
    size = x.shape[dim]
    if d.choose.flag():
        return (x, d.choose.integer(1, size), dim), {}
    first = d.choose.integer(0, size)
    return (x, [first, size - first], dim), {}


def chunk(d: Draft) -> Arguments:
    """So many pieces."""
    x = d.operand(low=1)
    return (x, d.choose.integer(1, 3), d.axis(x, 1)), {}


def join(d: Draft) -> Arguments:
    """cat: tensors that differ in one dimension; the same tensor may come twice."""
    x = d.operand(low=1)
    dim = d.axis(x)
    tensors = [x]
    for _ in range(d.choose.integer(0, 2)):
        shape = list(x.shape)
        shape[dim] = d.choose.integer(0, 3) if d.choose.flag(0.3) else shape[dim]
        tensors.append(x if d.choose.flag(0.3) else d.fit(shape))
    return (tensors, dim), {}


def stack(d: Draft) -> Arguments:
    """Tensors of one shape along a new dimension."""
    x = d.operand(high=4)
    others = [x if d.choose.flag(0.3) else d.fit(x.shape) for _ in range(d.choose.integer(0, 2))]
    return ([x, *others], d.choose.integer(-x.rank - 1, x.rank)), {}


def pad(d: Draft) -> Arguments:
    """Zeros or a constant around the last one or two dimensions; negative padding cuts."""
    x = d.operand(low=1, high=4)
    sides = []
    for axis in range(d.choose.integer(1, min(x.rank, 2))):
        cut = d.choose.flag(0.2) and x.shape[-1 - axis] > 1
        sides += [-1 if cut else d.choose.integer(0, 2), d.choose.integer(0, 2)]
    if d.choose.flag():
        return (x, tuple(sides)), {}
    return (x, tuple(sides)), {"mode": "constant", "value": d.choose.of((1.5, 0.0))}
