"""How to draw calls that write in place: into results and into views of them, never into an input.

What an earlier call saved may not be written over: a Program that PyTorch refuses to differentiate
for that is drawn again (`Draft.finish`).
"""

from __future__ import annotations

from typing import Any

from conformance.sources.draft import Draft
from conformance.sources.node import Node, Unfit
from conformance.sources.templates import Arguments, Template, given
from conformance.sources.templates_index import basic_index
from conformance.sources.values import REAL, Domain


def target(d: Draft, domain: Domain = REAL, low: int = 0, nonempty: bool = False) -> Node:
    """A tensor to write into: a result at hand or a view of it, or a copy made for the purpose."""
    found = [
        n
        for n in d.nodes
        if d.writable(n) and n.fits(domain) and n.rank >= low and not (nonempty and 0 in n.shape)
    ]
    if found and not d.focus and d.choose.flag(0.7):
        return d.choose.of(found)
    x = d.operand(domain, low=low, nonempty=nonempty)
    d.call("torch.clone", (x,), {})
    made = d.nodes[-1]
    if made.rank and d.choose.flag() and 0 not in made.shape:  # through a view
        axis = d.axis(made, 1)
        size = made.shape[axis]
        start = d.choose.integer(0, size - 1)
        d.call("torch.narrow", (made, axis, start, d.choose.integer(1, size - start)), {})
        made = d.nodes[-1]
    d.given = made
    return made


def unary(domain: Domain = REAL, **options: tuple[Any, ...]) -> Template:
    """x.f_()."""
    keywords = given(**options)
    return lambda d: ((target(d, domain),), keywords(d))


def binary(first: Domain = REAL, second: Domain = REAL, number: tuple[Any, ...] = ()) -> Template:
    """x.f_(y) of a y that broadcasts to x, or a number."""

    def draw(d: Draft) -> Arguments:
        x = target(d, first)
        if number and d.choose.flag(0.2):
            return (x, d.choose.of(number)), {}
        return (x, _beside(d, x, second)), {}

    return draw


def _beside(d: Draft, x: Node, domain: Domain) -> Node:
    """A tensor of the shape of x, or one that broadcasts to it."""
    shape = x.shape
    kind = d.choose.of(("equal", "lead", "ones", "scalar"))
    if kind == "lead":
        shape = shape[d.choose.integer(0, len(shape)) :]
    elif kind == "ones" and shape:
        axis = d.choose.integer(0, len(shape) - 1)
        shape = (*shape[:axis], 1, *shape[axis + 1 :])
    elif kind == "scalar":
        shape = ()
    return d.fit(shape, domain)


def masked_fill(d: Draft) -> Arguments:
    """x.masked_fill_(mask, number)."""
    x = target(d)
    return (x, d.mask(x.shape), d.choose.of((0.0, -1.5))), {}


def setitem(d: Draft) -> Arguments:
    """x[index] = y, by slices and numbers or by a mask; y broadcasts to the part."""
    x = target(d, low=1)
    if x.rank > 4:
        raise Unfit("more dimensions than are indexed")
    if d.choose.flag(0.25):
        return (x, d.mask(x.shape), d.choose.of((0.0, 1.5))), {}
    index = basic_index(d, x)
    shape = tuple(x.data[index].shape)
    if 0 in shape:
        raise Unfit("nothing to write into")
    if d.choose.flag(0.3):
        shape = shape[d.choose.integer(0, len(shape)) :]
    return (x, index, d.fit(shape)), {}
