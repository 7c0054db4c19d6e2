"""Functions of several kinds at any size, as Programs with one leaf `x0` to look at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.program import Array, Call, Input, Program, Ref, Values

LEAF = "x0"
SIZES = (1, 2, 3, 4, 5, 8, 13, 36, 64, 100, 255, 256, 1000, 1024, 2047, 4096, 1_000_000)
BOXED = (1, 13, 64, 256, 1024, 4096)  # sizes for a black box
COPIES = 3  # times that a broadcast leaf is repeated, and columns of a matrix product


@dataclass(frozen=True)
class Subject:
    """A function and its values."""

    kind: str
    program: Program
    values: Values

    @property
    def size(self) -> int:
        """Elements of the leaf."""
        return int(self.values[LEAF].size)


def near_square(size: int) -> tuple[int, int]:
    """Rows and columns, the rows being the largest divisor that is no more than the root."""
    rows = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return rows, size // rows


def subject(kind: str, size: int, dtype: str, rng: np.random.Generator) -> Subject:
    """A function of that kind whose leaf has so many elements, at Gaussian values."""
    calls, values, output = KINDS[kind](size, rng)
    made = {n: x.astype(dtype) if x.dtype.kind == "f" else x for n, x in values.items()}
    inputs = tuple(Input.of(n, x, requires_grad=x.dtype.kind == "f") for n, x in made.items())
    return Subject(kind, Program(inputs, tuple(calls), output), made)


Made = tuple[list[Call], Values, Any]


def _matrix(size: int, rng: np.random.Generator) -> Array:
    return rng.standard_normal(near_square(size))


def _elementwise(size: int, rng: np.random.Generator) -> Made:
    calls = [
        Call("v0", "torch.sin", (Ref("x0"),)),
        Call("v1", "torch.exp", (Ref("v0"),)),
        Call("v2", "torch.mul", (Ref("v1"), Ref("x0"))),
    ]
    return calls, {"x0": _matrix(size, rng)}, Ref("v2")


def _matmul(size: int, rng: np.random.Generator) -> Made:
    x = _matrix(size, rng)
    w = rng.standard_normal((x.shape[1], COPIES))
    return [Call("v0", "torch.matmul", (Ref("x0"), Ref("x1")))], {"x0": x, "x1": w}, Ref("v0")


def _softmax(size: int, rng: np.random.Generator) -> Made:
    call = Call("v0", "torch.softmax", (Ref("x0"), -1))
    return [call], {"x0": _matrix(size, rng)}, Ref("v0")


def _layer_norm(size: int, rng: np.random.Generator) -> Made:
    x = _matrix(size, rng)
    call = Call("v0", "torch.nn.functional.layer_norm", (Ref("x0"), (x.shape[1],)))
    return [call], {"x0": x}, Ref("v0")


def _reduction(size: int, rng: np.random.Generator) -> Made:
    call = Call("v0", "torch.logsumexp", (Ref("x0"), 0))
    return [call], {"x0": _matrix(size, rng)}, Ref("v0")


def _scan(size: int, rng: np.random.Generator) -> Made:
    return [Call("v0", "torch.cumsum", (Ref("x0"), -1))], {"x0": _matrix(size, rng)}, Ref("v0")


def _indexing(size: int, rng: np.random.Generator) -> Made:
    x = _matrix(size, rng)
    each = np.broadcast_to(np.arange(x.shape[1]), x.shape)
    index = np.concatenate([each, rng.integers(0, x.shape[1], x.shape)], 1)  # some more than once
    call = Call("v0", "torch.gather", (Ref("x0"), 1, Ref("x1")))
    return [call], {"x0": x, "x1": index}, Ref("v0")


def _convolution(size: int, rng: np.random.Generator) -> Made:
    call = Call("v0", "torch.nn.functional.conv1d", (Ref("x0"), Ref("x1")), {"padding": 1})
    values = {"x0": rng.standard_normal((1, 1, size)), "x1": rng.standard_normal((2, 1, 3))}
    return [call], values, Ref("v0")


def _sort(size: int, rng: np.random.Generator) -> Made:
    call = Call("v0", "torch.sort", (Ref("x0"), -1))
    return [call], {"x0": _matrix(size, rng)}, Ref("v0", (0,))


def _broadcast(size: int, rng: np.random.Generator) -> Made:
    calls = [
        Call("v0", "torch.add", (Ref("x1"), Ref("x0"))),  # its gradient is x0's before the sum
        Call("v1", "torch.sin", (Ref("v0"),)),
    ]
    values = {"x0": rng.standard_normal(size), "x1": rng.standard_normal((COPIES, size))}
    return calls, values, Ref("v1")


KINDS: dict[str, Callable[[int, np.random.Generator], Made]] = {
    "elementwise": _elementwise,
    "matmul": _matmul,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "reduction": _reduction,
    "scan": _scan,
    "indexing": _indexing,
    "convolution": _convolution,
    "sort": _sort,
    "broadcast": _broadcast,
}
