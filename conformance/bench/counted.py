"""What a Program costs, counted from the shapes that its calls met: for whole models."""

from __future__ import annotations

import math

from conformance.bench.workload import Cost
from conformance.engines.base import ALL
from conformance.engines.refgrad import RefgradEngine
from conformance.program import Array, Call, Program, Ref, Values

_VIEWS = frozenset(
    ("Tensor.__getitem__", "Tensor.contiguous", "Tensor.expand", "Tensor.view", "chunk", "flatten")
    + ("permute", "reshape", "split", "squeeze", "transpose", "unbind", "unsqueeze")
)
_PRODUCTS = frozenset(
    ("addmm", "bmm", "dot", "matmul", "mm", "nn.functional.linear")
    + ("nn.functional.conv1d", "nn.functional.conv2d", "nn.functional.scaled_dot_product_attention")
)


def counted(program: Program, values: Values) -> Cost:
    """The cost of a Program that is run once, on refgrad.

    A product costs two operations for each element of the result and each term of its sum. Any
    other call costs one for each element of its largest operand or result, and a view nothing.
    Bytes are those of operands and results. A derivative is counted as twice its call: one way back
    for each of two operands (Griewank and Walther, Evaluating Derivatives, 4.2).
    """
    kept = RefgradEngine().run(program, values, keep=ALL).kept
    arrays: dict[str, tuple[Array, ...]] = {name: (array,) for name, array in values.items()} | kept
    flops = moved = 0
    for call in program.calls:
        name = call.target.removeprefix("torch.")
        if name in _VIEWS:
            continue
        operands = [_operand(arrays, ref) for ref in call.refs]
        results = kept[call.name]
        moved += sum(array.nbytes for array in (*operands, *results))
        if name in _PRODUCTS:
            flops += 2 * sum(r.size for r in results) * _terms(name, call, arrays)
        else:
            flops += max(array.size for array in (*operands, *results))
    return Cost(len(program.calls), flops, 2 * flops, moved, 2 * moved)


def _operand(arrays: dict[str, tuple[Array, ...]], ref: Ref) -> Array:
    found = arrays[ref.name]
    return found[int(ref.path[0])] if ref.path else found[0]


def _terms(name: str, call: Call, arrays: dict[str, tuple[Array, ...]]) -> int:
    """How many terms each element of a product sums."""
    shapes = [_operand(arrays, ref).shape for ref in call.refs]
    if name == "addmm":
        return int(shapes[1][-1])
    if "conv" in name:
        return math.prod(shapes[1][1:])
    if "attention" in name:
        return 2 * int(shapes[1][-2])  # scores, and values weighed by them: as many operations
    return int(shapes[0][-1])


__all__ = ["counted"]
