"""Templates of indexing, gathering and scattering, of products, and of layers."""

from __future__ import annotations

import math
from typing import Any

from conformance.sources.draft import Draft
from conformance.sources.node import Node, Unfit
from conformance.sources.templates import Arguments, Template
from conformance.sources.values import REAL, Domain

NEAR = Domain(-50.0, 50.0)

# Indexing


def basic(d: Draft) -> Arguments:
    """x[...]: integers, slices with steps, None and an Ellipsis."""
    x = d.operand(high=4)
    return (x, basic_index(d, x)), {}


def basic_index(d: Draft, x: Node) -> tuple[Any, ...]:
    """An index without tensors."""
    if not x.rank:
        return d.choose.of(((), (None,), (Ellipsis,), (None, Ellipsis)))
    index: list[Any] = []
    sizes = x.shape[: d.choose.integer(1, x.rank)]
    while sizes:
        size, *rest = sizes
        sizes = tuple(rest)
        kind = d.choose.of(("slice", "integer", "all", "ellipsis", "none"))
        if kind == "ellipsis" and Ellipsis not in index:
            index.append(Ellipsis)
            sizes = x.shape[x.rank - len(rest) :]  # what follows counts from the end
            continue
        if kind == "none":
            index.append(None)
        if kind == "integer" and size:
            index.append(d.choose.integer(-size, size - 1))
        elif kind == "slice":
            start = d.choose.of((None, 0, 1, -1, -2))
            stop = d.choose.of((None, size, -1, 2))
            index.append(slice(start, stop, d.choose.of((None, 2, 3))))
        else:
            index.append(slice(None))
    return tuple(index)


def advanced(d: Draft) -> Arguments:
    """x[i, :, j]: index tensors, with duplicates, that broadcast with each other."""
    x = d.operand(low=1, high=4)
    shape = d.choose.of(((2,), (3,), (2, 2), (), (1,)))
    index: list[Any] = []
    found = 0
    for size in x.shape[: d.choose.integer(1, x.rank)]:
        if size and found < 2 and not d.choose.flag(0.3):
            piece = shape[-1:] if found else shape
            index.append(d.indices(piece, size))
            found += 1
        elif size and d.choose.flag(0.3):
            index.append(d.choose.integer(-size, size - 1))
        else:
            index.append(d.choose.of((slice(None), slice(1, None))))
    if not found:
        raise Unfit("no tensor among the indices")
    return (x, tuple(index)), {}


def masked(d: Draft) -> Arguments:
    """x[mask], the mask of the whole shape or of its first dimensions."""
    x = d.operand(low=1, high=4)
    return (x, d.mask(x.shape[: d.choose.integer(1, x.rank)])), {}


def getitem(d: Draft) -> Arguments:
    """One of the three kinds of indexing."""
    return d.choose.of((basic,) if d.focus == "rank 0" else (basic, advanced, masked))(d)


def gather(d: Draft) -> Arguments:
    """As many indices along a dimension as one likes, fewer along the others."""
    x = d.operand(high=4)
    dim = d.axis(x, 1)
    return (x, dim, _along(d, x, dim, 3)), {}


def _along(d: Draft, x: Node, dim: int, most: int) -> Node:
    """Indices along a dimension, at most so many, for as many or fewer of the other places."""
    if not x.rank:
        return d.indices((), 1)
    shape = [n if d.choose.flag(0.7) else min(n, 1) for n in x.shape]
    shape[dim] = d.choose.integer(1, most)
    return d.indices(shape, x.shape[dim])


def take_along(d: Draft) -> Arguments:
    """take_along_dim: the indices broadcast with the tensor."""
    x = d.operand(low=1, high=4)
    dim = d.axis(x, 1)
    return (x, _along(d, x, dim, 3), dim), {}


def index_select(d: Draft) -> Arguments:
    """A vector of indices along one dimension."""
    x = d.operand()
    dim = d.axis(x, 1)
    if not x.rank:
        return (x, dim, d.indices((1,), 1)), {}
    return (x, dim, d.indices((d.choose.integer(0, 4),), x.shape[dim])), {}


def take(d: Draft) -> Arguments:
    """Indices into the flattened tensor."""
    x = d.operand()
    shape = d.choose.of(((3,), (2, 2), (), (0,)))
    return (x, d.indices(shape, math.prod(x.shape))), {}


def masked_select(d: Draft) -> Arguments:
    """The elements under a mask, which broadcasts."""
    x = d.operand()
    return (x, d.mask(x.shape[d.choose.integer(0, x.rank) :])), {}


def masked_fill(d: Draft) -> Arguments:
    """A number, or a 0-d tensor, under a mask that broadcasts."""
    x = d.operand(high=0 if d.focus == "twice" else 5)
    mask = d.mask(x.shape[d.choose.integer(0, x.rank) :])
    number = d.focus != "twice" and d.choose.flag(0.7)
    return (x, mask, d.choose.of((0.0, -2.5)) if number else d.fit(())), {}


def masked_scatter(d: Draft) -> Arguments:
    """Elements of a source, in order, under a mask."""
    x = d.operand()
    return (x, d.mask(x.shape), d.fit(x.shape)), {}


def _scatter(d: Draft, unique: bool) -> tuple[Node, int, Node, Node]:
    x = d.operand(high=4)
    dim = d.axis(x, 1)
    index = _along(d, x, dim, 1 if unique else 3)
    return x, dim, index, d.fit(index.shape)


def scatter_add(d: Draft) -> Arguments:
    """Duplicate indices add up."""
    return _scatter(d, unique=False), {}


def scatter(d: Draft) -> Arguments:
    """A source, or a number; one index a row, since duplicates have no defined winner."""
    x, dim, index, source = _scatter(d, unique=True)
    return (x, dim, index, source if d.choose.flag(0.7) else 1.5), {}


def index_add(d: Draft) -> Arguments:
    """Slices added at indices; duplicates add up; alpha scales."""
    x = d.operand(high=4)
    dim = d.axis(x, 1)
    kwargs = {"alpha": d.choose.of((2.0, -0.5))} if d.choose.flag(0.3) else {}
    if not x.rank:
        return (x, dim, d.indices((), 1), d.fit(())), kwargs
    count = x.shape[dim] if d.focus == "twice" else d.choose.integer(1, 3)
    shape = list(x.shape)
    shape[dim] = count
    return (x, dim, d.indices((count,), x.shape[dim]), d.fit(shape)), kwargs


def index_fill(d: Draft) -> Arguments:
    """A number at indices."""
    x, dim, index = index_select(d)[0]
    return (x, dim, index, d.choose.of((0.0, -1.5))), {}


def index_put(d: Draft) -> Arguments:
    """Values added at index tensors, with duplicates."""
    x = d.operand(low=1, high=3)
    shape = d.choose.of(((2,), (3,), (2, 2)))
    count = d.choose.integer(1, x.rank)
    index = tuple(d.indices(shape, n) for n in x.shape[:count])
    return (x, index, d.fit((*shape, *x.shape[count:]))), {"accumulate": True}


# Products


def inner(low: int, high: int, second: int) -> Template:
    """f(a, b) where the last dimension of a meets the one before last of b (or its only one)."""

    def draw(d: Draft) -> Arguments:
        a = d.operand(NEAR, low=low, high=high)
        n = a.shape[-1]
        if second == 1:
            return (a, d.fit((n,), NEAR)), {}
        lead = a.shape[:-2] if second == 3 else ()
        columns = n if d.choose.flag(0.3) else d.choose.integer(0 if d.choose.flag(0.1) else 1, 4)
        return (a, d.fit((*lead, n, columns), NEAR)), {}

    return draw


def matmul(d: Draft) -> Arguments:
    """All pairs of ranks, with broadcast batches; also a matrix with itself."""
    a = d.operand(NEAR, low=1, high=4)
    n, kind = a.shape[-1], d.choose.of(("matrix", "vector", "batch", "same"))
    if kind == "same" and (a.rank == 1 or a.shape[-2] == n):
        return (a, a), {}
    if kind == "vector":
        return (a, d.fit((n,), NEAR)), {}
    lead: tuple[int, ...] = ()
    if kind == "batch":
        lead = tuple(s if d.choose.flag() else 1 for s in a.shape[:-2])
        lead = lead or (d.choose.integer(1, 3),)
    return (a, d.fit((*lead, n, d.choose.integer(1, 4)), NEAR)), {}


def outer(d: Draft) -> Arguments:
    """Two vectors of any two lengths."""
    return (d.operand(NEAR, low=1, high=1), d.operand(NEAR, low=1, high=1)), {}


def plus(product: Template) -> Template:
    """f(c, a, b): c added to the product, broadcast; alpha and beta scale."""

    def draw(d: Draft) -> Arguments:
        a, b = product(d)[0]
        shape = a.shape[:-1] + (b.shape[-1:] if b.rank > 1 else ())
        kind = d.choose.of(("full", "row", "ones") if 0 not in a.shape else ("full",))
        if kind == "row":
            shape = shape[-1:]
        elif kind == "ones":
            shape = (1,) * len(shape)
        kwargs = {"alpha": 2.0, "beta": d.choose.of((-0.5, 0.0))} if d.choose.flag(0.3) else {}
        return (d.fit(shape), a, b), kwargs

    return draw


_EQUATIONS = ("ij,jk->ik", "ij,ij->", "ij,ij->ji", "i,j->ij", "bij,bjk->bik", "ij,kj->ik",
              "ii->i", "ii->", "ij->ji", "ij->j", "ijk,ljm->iklm", "i,i->", "ij,j,jk->ki",
              ",ij->ij", "...ij,jk->...ik")  # fmt: skip


def einsum(d: Draft) -> Arguments:
    """Contractions, traces, diagonals, transposes and sums, by equation."""
    wanted = {"rank 0": _EQUATIONS[-2:-1], "rank 4+": _EQUATIONS[-1:], "twice": ("ij,ij->ji",)}
    equation = d.choose.of(wanted.get(d.focus, _EQUATIONS))
    sizes: dict[str, tuple[int, ...]] = {}
    for letter in sorted(set(equation) - set(".,->")):
        sizes[letter] = (d.size(1, 3),)
    operands = []
    for term in equation.partition("->")[0].split(","):
        lead = (2, 1)[: 1 + (d.focus == "rank 4+" or d.choose.flag(0.3))] if "..." in term else ()
        shape = sum((sizes[letter] for letter in term.replace(".", "")), lead)
        operands.append(d.fit(shape, NEAR))
    return (equation, *operands), {}


def tensordot(d: Draft) -> Arguments:
    """Over so many dimensions, or over named ones."""
    a = d.operand(NEAR, high=4 if d.focus == "rank 4+" else 3)
    if d.focus == "twice":
        return (a, a), {"dims": ([0], [0])} if a.rank else {"dims": 0}
    count = d.choose.integer(0, a.rank)
    if d.choose.flag() or not count:
        return (a, d.fit((*a.shape[a.rank - count :], 2), NEAR)), {"dims": count}
    return (a, d.fit((2, a.shape[0]), NEAR)), {"dims": ([0], [1])}


# Layers


def linear(d: Draft) -> Arguments:
    """x W^T + b, for x of any rank; with and without b."""
    same = d.focus == "twice"
    x = d.operand(NEAR, low=2 if same else 1, high=2 if same else 4)
    width = x.shape[0] if same else d.choose.integer(1, 3)
    weight = d.fit((width, x.shape[-1]), NEAR)
    return ((x, weight, d.fit((width,))) if d.choose.flag() else (x, weight)), {}


def convolution(rank: int) -> Template:
    """With strides, padding, dilation and groups; with and without a batch and a bias."""

    def draw(d: Draft) -> Arguments:
        same = d.focus == "twice"
        groups = 1 if same else d.choose.of((1, 2))
        channels = groups * d.choose.integer(1, 2)
        batch = (d.size(1, 2),) if d.focus in ("empty", "twice") or not d.choose.flag(0.2) else ()
        x = d.fit((*batch, channels, *(d.choose.integer(3, 5) for _ in range(rank))), NEAR)
        out = x.shape[0] if same else groups * d.choose.integer(1, 2)
        kernel = x.shape[2:] if same else tuple(d.choose.integer(1, 3) for _ in range(rank))
        weight = d.fit((out, channels // groups, *kernel), NEAR)
        bias = d.fit((out,)) if d.choose.flag() else None
        padding = d.choose.integer(0, 1)
        longest = max(weight.shape[2:])
        small = min(x.shape[-rank:]) + 2 * padding
        dilation = d.choose.integer(1, 2) if (longest - 1) * 2 < small else 1
        kwargs = {"stride": d.choose.integer(1, 2), "padding": padding, "dilation": dilation}
        return (x, weight, bias), kwargs | {"groups": groups}

    return draw


def embedding(d: Draft) -> Arguments:
    """Rows of a table; duplicates add up; a padding row gets no gradient."""
    table = d.operand(low=2, high=2)
    shape = d.choose.of(((3,), (2, 2), ()))
    rows = table.shape[0]
    kwargs = {"padding_idx": d.choose.integer(0, rows - 1)} if rows and d.choose.flag(0.3) else {}
    return (d.indices(shape, rows), table), kwargs


def normalised(bias: bool) -> Template:
    """Over the last dimensions, with and without weight and bias; the spread stays above 0."""

    def draw(d: Draft) -> Arguments:
        x = d.operand(low=1, high=4)
        shape = x.shape[d.choose.integer(0, x.rank - 1) :]
        if math.prod(shape) < 1 + bias:
            raise Unfit("a single number has no spread")
        if str(x.data.dtype) != f"torch.{d.dtype}":
            raise Unfit("a weight of another dtype, to which rms_norm would cast")
        weight = d.fit(shape) if d.choose.flag(0.7) else None
        extra = (d.fit(shape) if d.choose.flag() else None,) if bias else ()
        return (x, shape, weight, *extra), {"eps": d.choose.of((1e-5, 0.1))}

    return draw


def batch_norm(d: Draft) -> Arguments:
    """In training, over two or more numbers a channel; with and without weight and bias."""
    batch = d.choose.of(((3,), (2, 2), (2, 2, 3)) if d.focus != "rank 4+" else ((2, 2, 3),))
    channels = d.size(1, 3)
    x = d.fit((batch[0], channels, *batch[1:]))
    shared = (d.fit((channels,)), d.fit((channels,))) if d.choose.flag(0.7) else (None, None)
    return (x, None, None, *shared, True), {"eps": d.choose.of((1e-5, 0.1))}


def group_norm(d: Draft) -> Arguments:
    """Over groups of channels of two or more numbers each."""
    groups = d.choose.integer(1, 2)
    channels = groups * d.choose.integer(1, 2)
    sizes = (2, 3) if d.focus == "rank 4+" else d.choose.of(((2,), (3,), (2, 2)))
    x = d.fit((d.size(1, 2), channels, *sizes))
    shared = (d.fit((channels,)), d.fit((channels,))) if d.choose.flag(0.7) else (None, None)
    return (x, groups, *shared), {"eps": d.choose.of((1e-5, 0.1))}


def pool(d: Draft) -> Arguments:
    """Windows over the last two dimensions, overlapping and padded."""
    batch = (d.size(1, 2),) if d.focus in ("empty", "rank 4+") or d.choose.flag() else ()
    x = d.fit((*batch, d.choose.integer(1, 2), d.choose.integer(2, 4), d.choose.integer(2, 4)))
    kernel = (d.choose.integer(1, 2), d.choose.integer(1, 2))
    return (x, kernel), {
        "stride": d.choose.integer(1, 2),
        "padding": tuple(d.choose.integer(0, 1) if k == 2 else 0 for k in kernel),
        "ceil_mode": d.choose.flag(0.3),
    }


def loss(d: Draft) -> Arguments:
    """f(input, target) of equal shapes, by each reduction."""
    x = d.operand()
    return (x, d.fit(x.shape)), {"reduction": d.choose.of(("mean", "sum", "none"))}


def classify(d: Draft) -> Arguments:
    """cross_entropy and nll_loss: class indices as targets, of rows or of images."""
    rows, kinds = d.size(1, 4), d.choose.integer(1, 4)
    image = (2, 3) if d.focus == "rank 4+" else d.choose.of(((), (), (), (2,), (1, 3)))
    x = d.fit((rows, kinds, *image), NEAR)
    if image and not x.data.is_contiguous():
        raise Unfit("torch's nll_loss of images has no backward pass of it")
    return (x, d.indices((rows, *image), kinds)), {
        "reduction": d.choose.of(("mean", "sum", "none"))
    }


def attention(d: Draft) -> Arguments:
    """Queries, keys and values with one or two batch dimensions; causal, masked or neither."""
    lead = d.choose.of(((2,), (1, 2), ()))
    queries, keys, width = d.size(1, 3), d.choose.integer(1, 3), d.choose.integer(1, 3)
    near = Domain(-8.0, 8.0)
    q = d.fit((*lead, queries, width), near)
    k = q if d.choose.flag(0.2) and queries == keys else d.fit((*lead, keys, width), near)
    v = d.fit((*lead, keys, d.choose.integer(1, 3)), REAL)
    kwargs: dict[str, Any] = {}
    kind = d.choose.of(("plain", "causal", "bias"))
    if kind == "causal":
        kwargs["is_causal"] = True
    elif kind == "bias":
        kwargs["attn_mask"] = d.fit((queries, keys), near)
    return (q, k, v), kwargs
