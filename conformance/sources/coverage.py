"""Which classes of operands the calls of some Programs met: zeros, ties, empty tensors, layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from conformance.engines.torch import TorchEngine
from conformance.program import Array, Call, Program, Ref, Values
from conformance.sources.grammar import FAMILIES, OPS
from conformance.sources.values import BIG

CLASSES = (
    "exact zero",
    "tie",
    "|x| > 30",
    "negative",
    "size-1",
    "rank 0",
    "rank 4+",
    "empty",
    "non-contiguous",
    "same tensor twice",
    "requires_grad mask",
)
CALLS = "calls"

Table = dict[str, Counter[str]]


class _Watching(TorchEngine):
    """torch; what every call is given is put down as it was when the call ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[tuple[Ref, Array, bool]]] = []

    def _call(self, call: Call, fill: Callable[[Any], Any], *, grad: bool) -> Any:
        given = [(ref, fill(ref)) for ref in call.refs]
        self.seen.append([(ref, self.to_numpy(x), x.is_contiguous()) for ref, x in given])
        return super()._call(call, fill, grad=grad)


def coverage(samples: Iterable[tuple[Program, Values]]) -> Table:
    """How many calls met each class, by target and class; the key "calls" counts all of them.

    A call meets a class where an operand of a floating or complex dtype does. "requires_grad mask":
    an operand is an input of which no gradient is asked.
    """
    table: Table = {}
    engine = _Watching()
    for program, values in samples:
        engine.seen.clear()
        engine.run(program, values)
        frozen = {i.name for i in program.inputs if not i.requires_grad}
        for call, given in zip(program.calls, engine.seen, strict=True):
            operands = [(ref, x, flat) for ref, x, flat in given if x.dtype.kind in "fc"]
            met = {name for _, x, _ in operands for name in classes_of(x)}
            if not all(contiguous for _, _, contiguous in operands):
                met.add("non-contiguous")
            if len(operands) > len({ref for ref, _, _ in operands}):
                met.add("same tensor twice")
            if any(ref.name in frozen for ref, _, _ in operands):
                met.add("requires_grad mask")
            table.setdefault(call.target, Counter()).update({CALLS, *met})
    return table


def merged(tables: Iterable[Table]) -> Table:
    """The counts of several tables, added."""
    whole: Table = {}
    for table in tables:
        for target, row in table.items():
            whole.setdefault(target, Counter()).update(row)
    return whole


def classes_of(x: Array) -> Iterator[str]:
    """The classes that one floating or complex array belongs to by its shape and its values."""
    if not x.ndim:
        yield "rank 0"
    if x.ndim >= 4:
        yield "rank 4+"
    if 1 in x.shape:
        yield "size-1"
    if not x.size:
        yield "empty"
        return
    if (x == 0).any():
        yield "exact zero"
    if x.dtype.kind == "f" and (x < 0).any():
        yield "negative"
    if np.abs(x).max() > BIG:
        yield "|x| > 30"
    if len(np.unique(x)) < x.size:
        yield "tie"


def short(table: Mapping[str, Mapping[str, int]], least: int) -> list[tuple[str, str, int]]:
    """The cells (op, class, hits) with fewer hits than `least`, but for those that cannot be."""
    return [
        (op.name, name, hits)
        for op in OPS.values()
        for name in CLASSES
        if (hits := table.get(op.target, {}).get(name, 0)) < least and not why_not(op.name, name)
    ]


def why_not(op: str, name: str) -> str:
    """Why no call of the op is drawn with operands of that class; empty where it can be."""
    return _WHY_NOT.get((op, name), "")


# What cannot be, by class: the reason, and the ops (or the families) that it holds for.
_ONE = (
    *("smooth", "switching", "activation", "reducing", "along", "shaping"),
    *("gt", "le", "__getitem__", "gather", "take_along_dim", "index_select", "take"),
    *("masked_select", "index_fill", "exp_", "sin_", "tanh_", "neg_", "relu_", "clamp_", "zero_"),
    *("masked_fill_", "nn.functional.embedding", "nn.functional.cross_entropy"),
    *("nn.functional.nll_loss", "nn.functional.avg_pool2d", "nn.functional.max_pool2d"),
    *("linalg.det", "linalg.slogdet", "linalg.inv", "trace", "diag_embed"),
)
_SQUARE = ("linalg.det", "linalg.slogdet", "linalg.inv", "linalg.solve")
_LOGARITHMIC = ("acosh", "log", "log2", "log10", "sqrt", "rsqrt", "logit", "lgamma", "digamma")
_MATRICES = ("mm", "bmm", "mv", "dot", "outer", "addmm", "baddbmm", "addmv")
_IMPOSSIBLE: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "exact zero": (
        ("a pole, a branch point, or the end of the domain", (*_LOGARITHMIC, "reciprocal")),
    ),
    "negative": (("outside the domain", _LOGARITHMIC),),
    "tie": (("torch leaves open which of equal elements is taken", ("topk", "kthvalue")),),
    "|x| > 30": (
        ("outside the domain", ("asin", "acos", "atanh", "logit", "erfinv")),
        ("a pole is too near", ("tan",)),
        ("the result, or what is left of the derivative, is beyond all digits",
         ("sinh", "cosh", "erf", "erfc", "pow", "prod", "cumprod")),
    ),
    "rank 0": (
        ("there is no dimension to divide, to cut or to join",
         ("unflatten", "narrow", "select", "split", "chunk", "unbind", "cat", "nn.functional.pad")),
        ("it takes matrices, or batches of them",
         ("diagonal", "tril", "triu", *_MATRICES, "nn.functional.scaled_dot_product_attention",
          *_SQUARE, "linalg.householder_product", "trace")),
        ("it takes vectors at least",
         ("matmul", "nn.functional.linear", "nn.functional.layer_norm", "nn.functional.rms_norm",
          "diag_embed")),
        ("it takes channels, classes, or the rows of a table",
         ("nn.functional.conv1d", "nn.functional.conv2d", "nn.functional.embedding",
          "nn.functional.cross_entropy", "nn.functional.nll_loss", "nn.functional.batch_norm",
          "nn.functional.group_norm", "nn.functional.avg_pool2d", "nn.functional.max_pool2d")),
        ("torch takes no index of it", ("take_along_dim", "index_put")),
        ("one number has no spread", ("std",)),
    ),
    "rank 4+": (
        ("it takes fewer dimensions",
         (*_MATRICES, "nn.functional.conv1d", "nn.functional.embedding", "trace", "diag_embed")),
    ),
    "same tensor twice": (
        ("it takes one tensor", _ONE),
        ("a matrix and a vector", ("mv", "linalg.householder_product")),
        ("what it saves would be written over", ("mul_", "div_")),
    ),
    "requires_grad mask": (
        ("its one operand is a result: no input is written into",
         ("exp_", "sin_", "tanh_", "neg_", "relu_", "clamp_", "zero_", "masked_fill_")),
    ),
}  # fmt: skip


def _cells() -> Iterator[tuple[tuple[str, str], str]]:
    for name, entries in _IMPOSSIBLE.items():
        for reason, ops in entries:
            for op in ops:
                for member in FAMILIES.get(op, (OPS.get(op),)):
                    assert member is not None, op
                    if member.name not in ("cat", "stack") or name != "same tensor twice":
                        yield (member.name, name), reason


_WHY_NOT = dict(_cells())
