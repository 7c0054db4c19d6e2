"""Products of vectors and matrices."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.ops.arrays import wrap_dim, wrap_dims
from refgrad.ops.casting import fill
from refgrad.ops.composites import composite
from refgrad.ops.kernels import reshaped, rowwise, widened
from refgrad.ops.op import INPLACE, UFUNCS, op
from refgrad.ops.placing import constant
from refgrad.ops.pointwise import mul
from refgrad.ops.shaping import broadcast_tensors, expand, permute, reshape, unsqueeze
from refgrad.tensor import Tensor

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "cross", "dot", "einsum", "ger",
    "inner", "kron", "matmul", "matrix_power", "mm", "mv", "outer", "tensordot", "vdot",
]  # fmt: skip


def _same_dtype(a: Any, b: Any) -> None:
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"expected m1 and m2 to have the same dtype, but got: {a.dtype} != {b.dtype}"
        )


@op
def matmul(input: Any, other: Any) -> Any:
    """The matrix product over the last two dimensions; vectors as in PyTorch.

    Raises:
        RuntimeError: the inner lengths or the dtypes differ, or an operand is 0-d.
    """
    if input.dtype is not other.dtype:
        _same_dtype(input, other)
    try:
        return np.matmul(input, other)
    except ValueError:
        if not input.ndim or not other.ndim:
            raise RuntimeError(
                f"both arguments to matmul need to be at least 1D, but they are {input.ndim}D and "
                f"{other.ndim}D"
            ) from None
        if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
            raise RuntimeError(
                f"mat1 and mat2 shapes cannot be multiplied ({_shown(input)} and {_shown(other)})"
            ) from None
        raise


def _shown(x: Any) -> str:
    return "x".join(map(str, x.shape))


def _of_left(g: Any, shape: Any, other: Any) -> Any:
    """d out = da b, so da gets g b^T."""
    if other.ndim == 1:
        return g[..., None] * other
    if len(shape) == 1:
        return np.matmul(other, g[..., None])[..., 0]
    return np.matmul(g, other.mT)


def _of_right(g: Any, shape: Any, input: Any) -> Any:
    """d out = a db, so db gets a^T g."""
    if input.ndim == 1:
        return input * g if g.ndim == 0 else input[:, None] * g[..., None, :]
    if len(shape) == 1:
        return np.matmul(input.mT, g[..., None])[..., 0]
    if len(shape) == 2 and input.ndim > 2:  # one product over all batches instead of their sum
        rows = math.prod(input.shape[:-1])
        left = reshaped(input, (rows, input.shape[-1]))
        return np.matmul(left.mT, reshaped(g, (rows, g.shape[-1])))
    return np.matmul(input.mT, g)


matmul.vjp(
    input=lambda g, shape, other: _of_left(g, shape, other),
    other=lambda g, shape, input: _of_right(g, shape, input),
)
matmul.linear("input", "other")
UFUNCS[np.matmul] = matmul


def _ranked(name: str, ranks: tuple[int, int], doc: str) -> Any:
    def product(input: Any, other: Any) -> Any:
        for position, (x, rank) in enumerate(zip((input, other), ranks, strict=True)):
            if x.ndim != rank:
                raise RuntimeError(
                    f"{name}: argument {position + 1} must be a {rank}D tensor, but got {x.ndim}D"
                )
        if ranks == (3, 3) and input.shape[0] != other.shape[0]:
            raise RuntimeError(f"{name}: batch sizes {input.shape[0]} and {other.shape[0]} differ")
        return matmul(input, other)

    product.__name__ = name
    product.__doc__ = doc
    return composite(product)


mm = _ranked("mm", (2, 2), "The product of two matrices.")
bmm = _ranked("bmm", (3, 3), "The products of two batches of matrices.")
mv = _ranked("mv", (2, 1), "The product of a matrix and a vector.")
dot = _ranked("dot", (1, 1), "The inner product of two vectors, without conjugation.")


@composite
def vdot(input: Any, other: Any) -> Any:
    """The inner product of two vectors, the first conjugated."""
    return dot(np.conj(input) if input.is_complex() else input, other)


@composite
def inner(input: Any, other: Any) -> Any:
    """The sums of products over the last dimension of both."""
    if not input.ndim or not other.ndim:
        return mul(input, other)
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(input.shape)} and {list(other.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


@composite
def outer(input: Any, vec2: Any) -> Any:
    """The products of all pairs of elements of two vectors."""
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(f"outer: Expected 1-D arguments, but got {input.ndim}D and {vec2.ndim}D")
    return mul(unsqueeze(input, 1), vec2)


ger = composite(lambda input, vec2: outer(input, vec2), name="ger")


def _added(input: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """beta * input + alpha * product, an array in whose memory that comes to be.

    There is nothing of `input` where beta is 0, nan included.
    """
    if input.dtype != product.dtype:
        raise RuntimeError(
            f"self and mat2 must have the same dtype, but got {input.dtype} and {product.dtype}"
        )
    if product.dtype.kind not in "fc":
        beta, alpha = int(beta), int(alpha)
    if alpha != 1:
        product *= alpha
    scaled = (input if beta == 1 else input * beta) if beta else np.zeros_like(input)
    try:
        with rowwise(product, scaled):
            product += scaled
    except ValueError:
        expand(scaled, product.shape)  # whose error says more
        raise
    return product


def _scaled(x: Any, number: Any) -> Any:
    return x if number == 1 else x * number


@op(inplace=True)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * mat1 @ mat2; nothing of `input` where beta is 0, nan included.

    Raises:
        RuntimeError: the shapes or the dtypes do not fit.
    """
    return _added(input, mm(mat1, mat2), beta, alpha)


@op(inplace=True)
def addmv(input: Any, mat: Any, vec: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * mat @ vec; as `addmm`."""
    return _added(input, mv(mat, vec), beta, alpha)


@op(inplace=True)
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * the products of two batches of matrices; as `addmm`."""
    return _added(input, bmm(batch1, batch2), beta, alpha)


@op(inplace=True)
def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * the sum of the products of two batches of matrices; as `addmm`."""
    products = bmm(batch1, batch2)
    return _added(input, np.sum(products, axis=0, dtype=products.dtype), beta, alpha)


# d out = beta d input + alpha (da b + a db)
addmm.vjp(
    input=lambda g, beta: _scaled(g, beta),
    mat1=lambda g, mat2, alpha: _scaled(np.matmul(g, mat2.mT), alpha),
    mat2=lambda g, mat1, alpha: _scaled(np.matmul(mat1.mT, g), alpha),
)
addmv.vjp(
    input=lambda g, beta: _scaled(g, beta),
    mat=lambda g, vec, alpha: _scaled(g[:, None] * vec, alpha),
    vec=lambda g, mat, alpha: _scaled(np.matmul(mat.mT, g), alpha),
)
for _batched in (baddbmm, addbmm):
    _batched.vjp(
        input=lambda g, beta: _scaled(g, beta),
        batch1=lambda g, batch2, alpha: _scaled(np.matmul(g, batch2.mT), alpha),
        batch2=lambda g, batch1, alpha: _scaled(np.matmul(batch1.mT, g), alpha),
    )


@composite
def addr(input: Any, vec1: Any, vec2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * the outer product; as `addmm`, but of dtypes that are promoted."""
    product = outer(vec1, vec2)
    if not (product.is_floating_point() or product.is_complex()):
        beta, alpha = int(beta), int(alpha)
    scaled = input if beta == 1 else input * beta if beta else fill(input, 0)
    return scaled + _scaled(product, alpha)


INPLACE["addr"] = addr


@composite(method=False)
def chain_matmul(*matrices: Any) -> Any:
    """The product of matrices, left to right."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = mm(product, matrix)
    return product


@composite
def matrix_power(input: Any, n: int) -> Any:
    """The n-th power of square matrices, by repeated squaring; n < 0 inverts.

    Raises:
        RuntimeError: they are not square.
    """
    if input.ndim < 2 or input.shape[-1] != input.shape[-2]:
        raise RuntimeError(
            "linalg.matrix_power: A must be batches of square matrices, but they are "
            f"{list(input.shape[-2:])} matrices"
        )
    if n < 0:
        from refgrad import linalg

        return matrix_power(linalg.inv(input), -n)
    if n == 0:
        eye = np.eye(input.shape[-1], dtype=input._array.dtype)
        return fill(input, 0) + constant(eye, input)
    result, square = None, input
    while n:
        if n & 1:
            result = square if result is None else matmul(result, square)
        n >>= 1
        if n:
            square = matmul(square, square)
    return result.clone() if result is input else result


@composite(method=False)
def tensordot(a: Any, b: Any, dims: Any = 2, out: None = None) -> Any:
    """The product summed over `dims`: so many last of `a` and first of `b`, or two lists.

    Raises:
        RuntimeError: the lengths of the dimensions differ.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        first, second = tuple(range(a.ndim - dims, a.ndim)), tuple(range(dims))
    else:
        of_a, of_b = (tuple(d) if isinstance(d, Sequence) else (d,) for d in dims)
        first, second = wrap_dims(of_a, a.ndim), wrap_dims(of_b, b.ndim)
    for i, j in zip(first, second, strict=True):  # a length of 1 broadcasts
        if a.shape[i] == 1 != b.shape[j]:
            b = b.sum(j, keepdim=True)
        elif b.shape[j] == 1 != a.shape[i]:
            a = a.sum(i, keepdim=True)
    if [a.shape[i] for i in first] != [b.shape[j] for j in second]:
        raise RuntimeError(
            f"contracted dimensions need to match, but first has {[a.shape[i] for i in first]} and "
            f"second {[b.shape[j] for j in second]}"
        )
    free_a = tuple(i for i in range(a.ndim) if i not in first)
    free_b = tuple(i for i in range(b.ndim) if i not in second)
    rows, columns = [a.shape[i] for i in free_a], [b.shape[j] for j in free_b]
    k = int(np.prod([a.shape[i] for i in first]))
    left = reshape(permute(a, free_a + first), (int(np.prod(rows)), k))
    right = reshape(permute(b, second + free_b), (k, int(np.prod(columns))))
    return reshape(matmul(left, right), (*rows, *columns))


@composite
def kron(input: Any, other: Any) -> Any:
    """The Kronecker product."""
    n = max(input.ndim, other.ndim)
    a = reshape(input, (1,) * (n - input.ndim) + tuple(input.shape))
    b = reshape(other, (1,) * (n - other.ndim) + tuple(other.shape))
    left = reshape(a, [m for s in a.shape for m in (s, 1)])
    right = reshape(b, [m for s in b.shape for m in (1, s)])
    return reshape(mul(left, right), [s * r for s, r in zip(a.shape, b.shape, strict=True)])


@composite
def cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """The vector product along a dimension of length 3 (the first such by default).

    Raises:
        RuntimeError: there is none, or the lengths differ.
    """
    input, other = broadcast_tensors(input, other) if dim is not None else (input, other)
    if dim is None:
        found = [i for i, n in enumerate(input.shape) if n == 3]
        if not found:
            raise RuntimeError("no dimension of size 3 in input")
        dim = found[0]
    d = wrap_dim(dim, input.ndim)
    if input.shape[d] != 3 or other.shape[d] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[d]} and "
            f"{other.shape[d]}"
        )
    one, two = np.array([1, 2, 0]), np.array([2, 0, 1])
    at = (slice(None),) * d
    return mul(input[(*at, one)], other[(*at, two)]) - mul(input[(*at, two)], other[(*at, one)])


# --- einsum --------------------------------------------------------------------------------------


@op(promote=("operands",), method=False, node_name="EinsumBackward0")
def _contract(equation: Any, operands: Any) -> Any:
    """An explicit einsum whose operands name no label twice."""
    return np.einsum(equation, *operands, optimize=len(operands) > 1)


def _contract_back(g: Any, equation: Any, operands: Any) -> list[Any]:
    """Each operand gets g contracted with the others; a label of its own alone is spread."""
    inputs, output = equation.split("->")
    labels = inputs.split(",")
    sizes = {
        c: n for s, x in zip(labels, operands, strict=True) for c, n in zip(s, x.shape, strict=True)
    }
    for s, x in zip(labels, operands, strict=True):
        sizes |= {c: n for c, n in zip(s, x.shape, strict=True) if n != 1}
    found = []
    for i, own in enumerate(labels):
        others = [s for j, s in enumerate(labels) if j != i]
        known = set(output).union(*others)
        kept = "".join(c for c in own if c in known)
        part = _contract(
            ",".join([output, *others]) + "->" + kept,
            [g, *(x for j, x in enumerate(operands) if j != i)],
        )
        if kept != own:
            place = tuple(slice(None) if c in kept else None for c in own)
            part = widened(part[place], tuple(
                part.shape[kept.index(c)] if c in kept else sizes[c] for c in own
            ))  # fmt: skip
        found.append(part)
    return found


_contract.vjp(operands=_contract_back)


@composite(method=False)
def einsum(equation: Any, *operands: Any) -> Any:
    """Sums of products as Einstein writes them: labels that the right side lacks are summed over.

    Raises:
        RuntimeError: the equation does not fit the operands.
    """
    if not isinstance(equation, str):
        equation, operands = _from_sublists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    equation = equation.replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    labels = inputs.split(",")
    if len(labels) != len(operands):
        raise RuntimeError(
            f"einsum(): {len(labels)} subscripts were given for {len(operands)} operands"
        )
    spare = [c for c in string.ascii_letters if c not in equation]
    widths = [
        x.ndim - len(s.replace("...", "")) if "..." in s else 0
        for s, x in zip(labels, operands, strict=True)
    ]
    if min(widths, default=0) < 0:
        raise RuntimeError("einsum(): the number of subscripts does not match the dimensions")
    dots = "".join(spare[: max(widths, default=0)])
    full = [
        s.replace("...", dots[len(dots) - w :] if w else "")
        for s, w in zip(labels, widths, strict=True)
    ]
    if not arrow:
        once = sorted(c for c in set("".join(full)) - set(dots) if "".join(full).count(c) == 1)
        output = dots + "".join(once)
    else:
        output = output.replace("...", dots)
    prepared = []
    for k, (s, x) in enumerate(zip(full, operands, strict=True)):
        if len(s) != x.ndim:
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(s)}) does not match the "
                f"number of dimensions ({x.ndim}) for operand {k}"
            )
        for c in dict.fromkeys(s):
            while s.count(c) > 1:  # a label named twice reads a diagonal
                i = s.index(c)
                j = s.index(c, i + 1)
                if x.shape[i] != x.shape[j]:
                    raise RuntimeError(f"einsum(): subscript {c} is repeated for operand {k} but the "
                                       "sizes don't match")  # fmt: skip
                x = x.diagonal(0, i, j)
                s = s[:i] + s[i + 1 : j] + s[j + 1 :] + c
        prepared.append(x)
        full[k] = s
    missing = set(output) - set("".join(full))
    if missing:
        raise RuntimeError(
            f"einsum(): output subscript {min(missing)} does not appear in the equation for any input"
        )
    return _contract(",".join(full) + "->" + output, prepared)


def _from_sublists(args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """An equation from the form einsum(a, [0, 1], b, [1, 2], [0, 2])."""

    def spelled(sublist: Any) -> str:
        return "".join("..." if i is Ellipsis else string.ascii_letters[i] for i in sublist)

    operands = args[0 : len(args) - len(args) % 2 : 2]
    equation = ",".join(spelled(s) for s in args[1::2])
    if len(args) % 2:
        equation += "->" + spelled(args[-1])
    return equation, operands
