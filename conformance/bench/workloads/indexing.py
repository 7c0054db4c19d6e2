"""Reading and writing by index."""

from __future__ import annotations

from conformance.bench.workload import Cost, Made, Workload, Writer

_WIDTH = 64
_VOCABULARY = 1_000
_HALF = _WIDTH // 2


def _embedding(size: int) -> Made:
    w = Writer("float32")
    table = w.leaf("table", _VOCABULARY, _WIDTH)
    ids = w.indices("ids", _VOCABULARY, size)
    return w.program(w.call("nn.functional.embedding", ids, table))


def _embedding_cost(size: int) -> Cost:
    """Rows are copied; back they are added to a table of zeros, which is written first."""
    rows = 4 * size * _WIDTH
    table = 4 * _VOCABULARY * _WIDTH
    return Cost(1, size * _WIDTH, size * _WIDTH, 2 * rows, table + 3 * rows)


def _scatter(size: int) -> Made:
    """x[i, j] is added to row ids[i, j] of column j in a table."""
    w = Writer("float32")
    x = w.leaf("x", size, _WIDTH)
    table = w.leaf("table", _VOCABULARY, _WIDTH)
    ids = w.indices("ids", _VOCABULARY, size, _WIDTH)
    return w.program(w.call("scatter_add", table, 0, ids, x))


def _scatter_cost(size: int) -> Cost:
    """The table is copied and added to; back it is gathered from, and handed on. Indices are 8."""
    floats = size * _WIDTH
    table = 4 * _VOCABULARY * _WIDTH
    return Cost(1, floats, floats, 2 * table + 20 * floats, 16 * floats)


def _index(size: int) -> Made:
    """Slices with steps, and rows by number: what user code does most."""
    w = Writer("float32")
    x = w.leaf("x", size, _WIDTH)
    ids = w.indices("ids", size, size)
    left = w.call("Tensor.__getitem__", x, (slice(None), slice(None, _HALF)))
    right = w.call("Tensor.__getitem__", x, (slice(None), slice(_HALF, None)))
    first = w.call("Tensor.__getitem__", x, 0)
    rows = w.call("Tensor.__getitem__", x, ids)
    halves = w.call("cat", [right, left], dim=1)
    return w.program(w.call("add", w.call("mul", rows, halves), first))


def _index_cost(size: int) -> Cost:
    """Views are free; rows, cat, product and sum make an array each.

    Back: four gradients of x the size of x, of which three are joined, and rows are added by index.
    """
    floats = size * _WIDTH
    return Cost(7, 4 * floats, 10 * floats, 4 * 10 * floats, 4 * 28 * floats)


WORKLOADS = tuple(
    Workload(
        name=name,
        group="indexing",
        title=title,
        make=make,
        cost=cost,
        sizes=(64, 1_024, 16_384),
        quick=64,
        size_means="rows",
        cuda_sizes=(16_384, 262_144),
    )
    for name, title, make, cost in (
        ("embedding", "rows of a table of 1,000 by 64", _embedding, _embedding_cost),
        ("scatter_add", "numbers added into a table by index", _scatter, _scatter_cost),
        ("index", "slices and rows by number", _index, _index_cost),
    )
)
