"""How to draw matrices: square ones far from singular, right-hand sides, reflectors."""

from __future__ import annotations

import torch

from conformance.sources.draft import Draft
from conformance.sources.node import Node, Unfit
from conformance.sources.templates import Arguments
from conformance.sources.values import Domain

NEAR = Domain(-50.0, 50.0)
LEADS = ((), (2,), (), (1, 2))  # batches of matrices
CONDITION = 1e3  # at most: what is lost beyond it is the matrix's fault


def _square(d: Draft, largest: float = CONDITION) -> Node:
    lead = (1, 2) if d.focus == "rank 4+" else d.choose.of(LEADS)
    n = d.size(1, 3)
    x = d.fit((*lead, n, n), NEAR)
    if x.data.numel() and float(torch.linalg.cond(x.data).max()) > largest:
        raise Unfit("nearly singular")
    return x


def any_square(d: Draft) -> Arguments:
    """f(x) of square matrices, singular ones among them."""
    return (_square(d, float("inf")),), {}


def regular(d: Draft) -> Arguments:
    """f(x) of square matrices that have an inverse."""
    return (_square(d),), {}


def solve(d: Draft) -> Arguments:
    """A x = b, b of one or several columns, of one batch with A; also A x = A."""
    a = _square(d)
    if d.focus == "twice" or d.choose.flag(0.1):
        return (a, a), {}
    return (a, d.fit((*a.shape[:-1], d.choose.integer(1, 3)), NEAR)), {}


def householder(d: Draft) -> Arguments:
    """Reflectors below the diagonal of a tall matrix, and their factors tau."""
    lead = (1, 2) if d.focus == "rank 4+" else d.choose.of(LEADS)
    columns = d.size(1, 3)
    a = d.fit((*lead, columns + d.choose.integer(0, 2), columns), NEAR)
    return (a, d.fit((*lead, d.choose.integer(min(columns, 1), columns)), NEAR)), {}


def trace(d: Draft) -> Arguments:
    """One matrix of any two sizes."""
    return (d.operand(low=2, high=2),), {}


def diag_embed(d: Draft) -> Arguments:
    """Vectors onto a diagonal, offset to either side, of new dimensions."""
    x = d.operand(low=1, high=3)
    dims = (d.choose.of((-2, 0)), -1)
    return (x,), {"offset": d.choose.integer(-1, 1), "dim1": dims[0], "dim2": dims[1]}
