"""In what order the dimensions of a result lie in memory: PyTorch's, where NumPy has another.

An op's result is laid out anew in row-major order unless `LAID` names another rule for it. A rule
takes the result and the op's arguments, as arrays, and copies only where the order is not right.
Sizes of 1 have no say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad.layouts import CHANNELS_LAST, contiguous_format

Rule = Callable[[Any, Sequence[Any]], Any]

_FORMATS = {len(order): name for name, order in CHANNELS_LAST.items()}
_LAST = {3: (0, 2, 1)} | {len(order): order for order in CHANNELS_LAST.values()}


def in_order(x: Any, order: Sequence[int]) -> Any:
    """`x`, or a copy of it, dense in memory with its dimensions in `order`, the outermost first."""
    turned = np.transpose(x, order)
    if turned.flags.c_contiguous:
        return x
    return np.transpose(
        np.copy(turned, order="C"), sorted(range(len(order)), key=order.__getitem__)
    )


def rows(out: Any, values: Sequence[Any]) -> Any:
    """In row-major order."""
    return out if out.flags.c_contiguous else np.copy(out, order="C")


def as_made(out: Any, values: Sequence[Any]) -> Any:
    """As the op made it."""
    return out


def columns(out: Any, values: Sequence[Any]) -> Any:
    """Matrices in column-major order, as LAPACK has them."""
    n = out.ndim
    return rows(out, values) if n < 2 else in_order(out, (*range(n - 2), n - 1, n - 2))


def iterated(out: Any, values: Sequence[Any]) -> Any:
    """As the operands lie, the first of which that tells two dimensions apart decides.

    That is PyTorch's TensorIterator; where NumPy's operands disagree, row-major order wins.
    """
    if out.flags.c_contiguous:
        for v in values:
            flags = getattr(v, "flags", None)
            if flags is not None and not flags.c_contiguous:
                break
        else:
            return out
    n = out.ndim
    if n < 2:
        return rows(out, values)
    arrays = [v for v in values if 0 < getattr(v, "ndim", 0) <= n]
    operands = [
        (0,) * (n - v.ndim) + tuple([0 if m == 1 else abs(s) for m, s in zip(v.shape, v.strides)])
        for v in arrays
    ]
    return in_order(out, iteration_order(out.shape, operands))


def iteration_order(shape: Sequence[int], operands: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The dimensions in the order in which TensorIterator goes through them, the outermost first.

    `operands` are their strides, 0 along dimensions that are broadcast.
    """
    order = [d for d in range(len(shape) - 1, -1, -1) if shape[d] > 1]  # the innermost first
    for i in range(1, len(order)):
        at = i
        for before in range(i - 1, -1, -1):
            said = _compared(order[before], order[at], shape, operands)
            if said > 0:
                order[before], order[at] = order[at], order[before]
                at = before
            elif said < 0:
                break
    return (*[d for d in range(len(shape)) if shape[d] <= 1], *reversed(order))


def _compared(a: int, b: int, shape: Sequence[int], operands: Sequence[Sequence[int]]) -> int:
    """Positive where dimension `a` lies outside of `b`, negative where inside, else 0."""
    for strides in operands:
        if strides[a] and strides[b]:
            if strides[a] != strides[b]:
                return strides[a] - strides[b]
            if shape[a] > shape[b]:
                return 1
    return 0


def like_first(out: Any, values: Sequence[Any]) -> Any:
    """As the first argument lies."""
    return iterated(out, values[:1])


def formatted(out: Any, values: Sequence[Any]) -> Any:
    """Channels last where the first argument lies so, else in row-major order."""
    return _last_if(out.ndim > 3 and lies_channels_last(values[0]), out)


def pooled(out: Any, values: Sequence[Any]) -> Any:
    """The same, for (N, C, L) too."""
    return _last_if(lies_channels_last(values[0]), out)


def images(out: Any, values: Sequence[Any]) -> Any:
    """The same, but for volumes, (N, C, D, H, W), always in row-major order."""
    return _last_if(out.ndim < 5 and lies_channels_last(values[0]), out)


def convolved(out: Any, values: Sequence[Any]) -> Any:
    """Channels last where the input or the weight lies so; of (N, C, L) the weight, of volumes none."""
    asked = {3: values[1:2], 4: values[:2]}.get(out.ndim, ())
    return _last_if(any(map(lies_channels_last, asked)), out)


def joined(out: Any, values: Sequence[Any]) -> Any:
    """Channels last where all of the joined tensors lie so, else in row-major order."""
    return _last_if(out.ndim > 3 and all(map(lies_channels_last, values[0])), out)


def transformed(out: Any, values: Sequence[Any]) -> Any:
    """The transformed dimensions innermost, all by the input's strides, as MKL's wrapper has them.

    `values` are the input, the dimensions, and perhaps those that are still further inside.
    """
    x, dims, *_ = values
    dims = (dims,) if isinstance(dims, int) else dims
    last = values[2] if isinstance(values[2], list) else ()
    return in_order(out, sorted(range(x.ndim), key=lambda d: (d in last, d in dims, -x.strides[d])))


def attended(out: Any, values: Sequence[Any]) -> Any:
    """As the query lies, where torch's kernel for attention takes the arguments."""
    *three, _, kept, _ = values
    flash = kept is None and all(x.ndim == 4 and x.strides[-1] == x.itemsize for x in three)
    return like_first(out, values) if flash else rows(out, values)


def contracted(out: Any, values: Sequence[Any]) -> Any:
    """As einsum's: a product without sums as its operands lie, else as bmm makes it.

    That is, the labels of both sides of the last product, then those of one, then those of the other.
    """
    equation, operands = values[:2]
    inputs, output = equation.split("->")
    *first, last = inputs.split(",")
    if set(output) >= set(inputs) - {","}:
        turned = [
            np.transpose(x, [s.index(c) for c in output if c in s])[
                tuple([slice(None) if c in s else None for c in output])
            ]
            for s, x in zip((*first, last), operands)
        ]
        return iterated(out, turned)
    rest = "".join(first)
    if len(first) == 1 and not set(rest).intersection(last) - set(output):
        return rows(out, values)  # each was summed alone
    sides = [(c in rest, c in last) for c in output]
    ranks = {side: n for n, side in enumerate(dict.fromkeys([(True, True), *sides]))}
    return in_order(out, sorted(range(out.ndim), key=lambda d: ranks[sides[d]]))


def indexed(out: Any, x: Any, index: Sequence[Any]) -> Any:
    """x[index], where arrays and full slices index: as a TensorIterator of all of them has it."""
    arrays = [p for p in index if not isinstance(p, slice)]
    if x.flags.c_contiguous and all(p.flags.c_contiguous for p in arrays):
        return rows(out, ())
    strides, kept, places = list(x.strides), list[int](), list[int]()
    for n, p in enumerate(index):
        if isinstance(p, slice):
            kept.append(strides.pop(0))
        else:
            places.append(n)
            del strides[: p.ndim if p.dtype == bool else 1]
    m = out.ndim - len(
        kept
    )  # the dimensions of the index take the place of the first, or the front
    lead = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    operands = [(*kept[:lead], *(0,) * m, *kept[lead:])]
    for p in arrays:
        own = (p.itemsize,) if p.dtype == bool else p.strides
        shape = (0,) if p.dtype == bool else p.shape
        own = tuple([0 if k == 1 else s for k, s in zip(shape, own)])
        operands.append((*(0,) * (lead + m - len(own)), *own, *(0,) * (len(kept) - lead)))
    return in_order(out, iteration_order(out.shape, operands))


def suggested(x: Any) -> Any:
    """The memory format that an array lies in; `contiguous_format` where in none."""
    last = x.ndim > 3 and lies_channels_last(x)
    return _FORMATS[x.ndim] if last else contiguous_format


def copied(x: Any, memory_format: Any = None) -> Any:
    """A copy, its dimensions in the same order in memory, or in that of `memory_format`.

    Raises:
        RuntimeError: the format is a channels-last one and the rank does not fit.
    """
    order = CHANNELS_LAST.get(memory_format)
    if order is not None:
        if len(order) != x.ndim:
            raise RuntimeError(f"required rank {len(order)} tensor to use {memory_format} format")
        return in_order(np.copy(x, order="C"), order)
    if memory_format is contiguous_format:
        return np.copy(x, order="C")
    return like_first(np.copy(x, order="K"), (x,))


def memory_order(x: Any) -> tuple[int, ...]:
    """The dimensions of an array from the outermost in memory to the innermost."""
    return tuple(sorted(range(x.ndim), key=lambda d: -x.strides[d]))


def _last_if(last: bool, out: Any) -> Any:
    return in_order(out, _LAST[out.ndim]) if last and out.ndim in _LAST else rows(out, ())


def lies_channels_last(x: Any) -> bool:
    """Whether an array of (N, C, *spatial) lies as `channels_last` says, by its strides."""
    if x.ndim not in _LAST or x.flags.c_contiguous or x.strides[1] == 0:
        return False
    least = 0
    for d in (1, *range(x.ndim - 1, 1, -1), 0):
        n, stride = x.shape[d], x.strides[d]
        if n == 0 or stride < least or (d == 0 and least == x.strides[1]):
            return False
        least = stride * max(n, 1)
    return True


def _named(*rules: tuple[Any, str]) -> dict[str, Any]:
    return {name: rule for rule, names in rules for name in names.split()}


LAID: dict[str, Any] = _named(
    (
        iterated,
        "addcdiv addcmul binary_cross_entropy chebyshev_polynomial_t chebyshev_polynomial_u "
        "chebyshev_polynomial_v chebyshev_polynomial_w clamp complex elu fill flip frexp "
        "hardshrink hardsigmoid hardswish hardtanh hermite_polynomial_h hermite_polynomial_he huber "
        "igamma igammac isclose laguerre_polynomial_l leaky_relu legendre_polynomial_p lerp mish "
        "nan_to_num polar polygamma raised round shifted_chebyshev_polynomial_t "
        "shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v "
        "shifted_chebyshev_polynomial_w silu softplus softshrink softsign spherical squared_error "
        "tanhshrink threshold where zeta _bernoulli _erfc_integral _gelu _gelu_tanh _iv _ive _prelu "
        "_times_power",
    ),
    (like_first, "order to_device to_dtype _overwrite _same primal"),
    (as_made, "clone"),
    (joined, "cat"),
    (convolved, "correlate spread"),
    (formatted, "constant_pad_nd resample native_batch_norm"),
    (pooled, "maximum"),
    (images, "average bin_maximum"),
    (contracted, "_contract"),
    (transformed, "_c2c _c2r _r2c"),
    (
        columns,
        "linalg.cholesky linalg.inv linalg.qr linalg.solve_triangular unchecked_inverse",
    ),
    ((attended, as_made), "scaled_dot_product_attention"),
    ((columns, as_made, as_made), "linalg.solve"),
    ((columns, rows), "geqrf"),
    ((columns, rows, rows), "ldl_factor_ex linalg.lstsq"),
    ((columns, rows, rows, rows), "linalg.lu"),
    ((rows, columns), "linalg.eig linalg.eigh"),
    ((columns, rows, columns), "linalg.svd"),
)
"""The rule of each op that has another than `rows`, by its name; of several results one for each."""

LAID_COMPOSITES: dict[str, Any] = _named(
    (
        rows,
        "cross functional_instance_norm max_unpool1d max_unpool3d mvlgamma "
        "one_hot pixel_unshuffle renorm topk",
    ),
    (
        like_first,
        "diagonal_scatter index_fill index_put put select_scatter slice_scatter",
    ),
    (iterated, "hinge_embedding_loss"),
    (formatted, "channel_shuffle max_unpool2d pixel_shuffle"),
    (pooled, "adaptive_avg_pool1d"),
    (formatted, "adaptive_avg_pool2d"),
    (rows, "adaptive_avg_pool3d"),
    (columns, "cholesky_inverse householder_product ldl_solve ormqr solve_triangular"),
    ((columns, as_made), "solve_ex"),
    ((as_made, columns), "triangular_solve"),
)
"""The rules of composites whose parts would leave another order, by their names."""
