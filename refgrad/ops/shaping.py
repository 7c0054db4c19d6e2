"""Ops that show the same elements in another shape or order."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.layouts import contiguous_format
from refgrad.libraries import to_host
from refgrad.ops.arrays import unbroadcast, wrap_dim, wrap_dims
from refgrad.ops.composites import composite
from refgrad.ops.kernels import reshaped, swapped, turned, widened
from refgrad.ops.op import METHODS, op

__all__ = [
    "adjoint", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "broadcast_to",
    "expand_copy", "flatten", "flip", "fliplr", "flipud", "moveaxis", "movedim", "narrow",
    "narrow_copy", "permute", "permute_copy", "ravel", "repeat_interleave", "reshape", "roll", "rot90",
    "squeeze", "swapaxes", "swapdims", "t", "t_copy", "tile", "transpose", "transpose_copy",
    "unflatten", "unsqueeze", "unsqueeze_copy", "view_copy",
]  # fmt: skip


def ints(size: Any) -> tuple[int, ...]:
    """A size argument, an int or several, as a tuple of ints."""
    if type(size) is tuple or isinstance(size, Sequence):
        return tuple(map(operator.index, size))
    return (operator.index(size),)


def solve_size(size: Any, numel: int) -> tuple[int, ...]:
    """`size` with its -1 solved for `numel` elements.

    Raises:
        RuntimeError: no such shape exists.
    """
    shape = ints(size)
    if math.prod(shape) == numel and (not shape or min(shape) >= 0):
        return shape
    known = math.prod(n for n in shape if n != -1)
    free = [i for i, n in enumerate(shape) if n == -1]
    if len(free) > 1:
        raise RuntimeError("only one dimension can be inferred")
    if any(n < -1 for n in shape):
        raise RuntimeError(f"invalid shape dimension {min(shape)}")
    if free and known == 0:
        raise RuntimeError(
            f"cannot reshape tensor of {numel} elements into shape {list(shape)} because the "
            "unspecified dimension size -1 can be any value and is ambiguous"
        )
    if free and numel % known == 0:
        shape = tuple(numel // known if n == -1 else n for n in shape)
    if math.prod(shape) != numel or -1 in shape:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
    return shape


@op(view=True, variadic="shape", node_name="ViewBackward0")
def reshape(input: Any, shape: Any) -> Any:
    """The same elements in `shape`, of which one length may be -1; a view where that is possible."""
    shape = ints(shape)
    if shape and min(shape) >= -1:
        try:
            return reshaped(input, shape)  # which solves it in 0.4 us, and `solve_size` in 2.5
        except ValueError:  # PyTorch's error says more
            pass
    return reshaped(input, solve_size(shape, input.size))


reshape.vjp(input=lambda g, shape: reshaped(g, shape))


def view(input: Any, *size: Any) -> Any:
    """The same memory in another shape.

    Raises:
        RuntimeError: the strides do not allow it.
    """
    out = reshape(input, *size)
    array = out._array
    if (
        out._base is None
        and array.size
        and hasattr(array, "base")
        and not np.may_share_memory(array, input._array)
    ):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension "
            "spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return out


def _view_method(input: Any, *size: Any, dtype: Any = None) -> Any:
    """The same memory in another shape, or read as another dtype of the same width."""
    if dtype is not None or (size and hasattr(size[0], "is_floating_point") and len(size) == 1):
        from refgrad.ops.casting import view_dtype

        return view_dtype(input, size[0] if dtype is None else dtype)
    return view(input, *size)


METHODS["view"] = _view_method


@composite
def view_as(input: Any, other: Any) -> Any:
    """`input` viewed in the shape of `other`."""
    return view(input, other.shape)


@composite
def reshape_as(input: Any, other: Any) -> Any:
    """`input` in the shape of `other`."""
    return reshape(input, other.shape)


@composite
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """The dimensions from `start_dim` to `end_dim` as one."""
    shape = input.shape
    start, end = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if not shape:
        return reshape(input, (1,))
    if start == end:
        return input
    return reshape(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@composite
def ravel(input: Any) -> Any:
    """All elements in one dimension."""
    return reshape(input.contiguous(), (-1,) if input.numel() else (0,))


@composite
def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """One dimension as several, of `sizes`."""
    shape = input.shape
    if not shape:
        raise RuntimeError("unflatten: Dimension specified as 0 but tensor has no dimensions")
    dim = wrap_dim(dim, len(shape))
    sizes = ints(sizes)
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    known = math.prod(n for n in sizes if n != -1)
    if (-1 not in sizes and known != shape[dim]) or (known and shape[dim] % known):
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {dim} "
            f"({shape[dim]}) in the input tensor"
        )
    return reshape(input, (*shape[:dim], *solve_size(sizes, shape[dim]), *shape[dim + 1 :]))


@op(view=True, node_name="TransposeBackward0")
def transpose(input: Any, dim0: Any, dim1: Any) -> Any:
    """Two dimensions swapped."""
    a, b = wrap_dim(dim0, input.ndim), wrap_dim(dim1, input.ndim)
    return swapped(input, a, b) if input.ndim else input[...]


transpose.vjp(input=lambda g, dim0, dim1: swapped(g, dim0, dim1) if g.ndim else g)
swapaxes = composite(lambda input, axis0, axis1: transpose(input, axis0, axis1), name="swapaxes")
swapdims = composite(lambda input, dim0, dim1: transpose(input, dim0, dim1), name="swapdims")


@composite
def t(input: Any) -> Any:
    """The transpose of a matrix; a vector as it is.

    Raises:
        RuntimeError: `input` has more than two dimensions.
    """
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return transpose(input, 0, 1) if input.ndim == 2 else reshape(input, input.shape)


@op(view=True, variadic="dims", node_name="PermuteBackward0")
def permute(input: Any, dims: Any) -> Any:
    """The dimensions in the order `dims`."""
    if len(dims) != input.ndim:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {input.ndim} is not "
            f"equal to len(dims) = {len(dims)}"
        )
    order = wrap_dims(tuple(dims), input.ndim)
    return turned(input, order) if input.ndim else input[...]


permute.vjp(input=lambda g, dims: turned(g, inverse_order(dims, g.ndim)) if g.ndim else g)


def inverse_order(dims: Any, ndim: int) -> tuple[int, ...]:
    """The permutation that undoes `dims`."""
    order = wrap_dims(tuple(dims), ndim)
    return tuple(order.index(i) for i in range(ndim))


@composite
def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved to new places, the others in order."""
    n = input.ndim
    source = wrap_dims(source, n)
    destination = wrap_dims(destination, n)
    if len(source) != len(destination):
        raise RuntimeError(
            "movedim: Invalid source or destination dims: source and destination must have the "
            "same number of elements"
        )
    order = [-1] * n
    for s, d in zip(source, destination, strict=True):
        order[d] = s
    rest = iter(i for i in range(n) if i not in source)
    return permute(input, tuple(next(rest) if o == -1 else o for o in order))


moveaxis = composite(lambda input, source, destination: movedim(input, source, destination),
                     name="moveaxis")  # fmt: skip


@composite
def adjoint(input: Any) -> Any:
    """The conjugate transpose of the last two dimensions."""
    out = transpose(input, -2, -1)
    return np.conj(out) if input.is_complex() else out


@op(view=True, node_name="SqueezeBackward0")
def squeeze(input: Any, dim: Any = None) -> Any:
    """Without the dimensions of size 1 (those in `dim`)."""
    dims = wrap_dims(dim, input.ndim)
    keep = tuple(n for i, n in enumerate(input.shape) if n != 1 or i not in dims)
    return reshaped(input, keep)


squeeze.vjp(input=lambda g, shape: reshaped(g, shape))


@op(view=True, node_name="UnsqueezeBackward0")
def unsqueeze(input: Any, dim: Any) -> Any:
    """With a further dimension of size 1 at `dim`."""
    at = wrap_dim(dim, input.ndim + 1)
    return input[(slice(None),) * at + (None,)]


unsqueeze.vjp(input=lambda g, shape: reshaped(g, shape))


@op(view=True, variadic="size", node_name="ExpandBackward0")
def expand(input: Any, size: Any, *, implicit: bool = False) -> Any:
    """`input` broadcast to `size`, where -1 keeps a length."""
    size = ints(size)
    if len(size) < input.ndim:
        raise RuntimeError(
            f"expand(): the number of sizes provided ({len(size)}) must be greater or equal to the "
            f"number of dimensions in the tensor ({input.ndim})"
        )
    extra = len(size) - input.ndim
    if -1 in size[:extra]:
        raise RuntimeError(
            "expand(): the expanded size of the tensor (-1) isn't allowed in a leading, non-existing "
            f"dimension {size.index(-1)}"
        )
    old = (1,) * extra + input.shape
    new = tuple(o if n == -1 else n for n, o in zip(size, old, strict=True))
    for i, (n, o) in enumerate(zip(new, old, strict=True)):
        if o not in (1, n):
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({o}) at "
                f"non-singleton dimension {i}."
            )
    out = widened(input, new)
    if isinstance(input, np.ndarray) and input.flags.writeable:
        out.flags.writeable = True  # a part of it may be without repetition, and so be written
    return out


expand.vjp(input=lambda g, shape: unbroadcast(g, shape))


@composite
def expand_as(input: Any, other: Any) -> Any:
    """`input` broadcast to the shape of `other`."""
    return expand(input, other.shape)


@composite
def broadcast_to(input: Any, size: Any) -> Any:
    """`input` broadcast to `size`."""
    return expand(input, size)


@composite(method=False)
def broadcast_tensors(*tensors: Any) -> Any:
    """The tensors, each broadcast to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    try:
        shape = np.broadcast_shapes(*(tuple(x.shape) for x in tensors))
    except ValueError as error:
        raise RuntimeError(f"broadcast_tensors(): {error}") from error
    return tuple(expand(x, shape) for x in tensors)


def _at_least(n: int) -> Any:
    def at_least(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
            tensors = tuple(tensors[0])
        made = []
        for x in tensors:
            if x.ndim == 0:
                x = reshape(x, (1,) * n)
            elif x.ndim == 1 and n > 1:
                x = unsqueeze(x, 0)
                x = unsqueeze(x, 2) if n == 3 else x
            elif x.ndim == 2 and n == 3:
                x = unsqueeze(x, 2)
            made.append(x)
        return made[0] if len(made) == 1 else tuple(made)

    at_least.__name__ = f"atleast_{n}d"
    at_least.__doc__ = f"The tensors with at least {n} dimensions."
    return composite(at_least, method=False)


atleast_1d, atleast_2d, atleast_3d = _at_least(1), _at_least(2), _at_least(3)


# --- order ---------------------------------------------------------------------------------------


@op(variadic="dims")
def flip(input: Any, dims: Any) -> Any:
    """Reversed along `dims`."""
    return np.copy(np.flip(input, wrap_dims(ints(dims), input.ndim)))


flip.vjp(input=lambda g, dims: np.flip(g, wrap_dims(ints(dims), g.ndim)) if g.ndim else g)


@composite
def fliplr(input: Any) -> Any:
    """Reversed along dimension 1."""
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, (1,))


@composite
def flipud(input: Any) -> Any:
    """Reversed along dimension 0."""
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, (0,))


@op
def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """Rolled by `shifts` along `dims`, or flattened."""
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return reshaped(np.roll(reshaped(input, (-1,)), shifts), input.shape)
    return np.roll(input, shifts, wrap_each(dims, input.ndim))


def wrap_each(dims: Any, ndim: int) -> Any:
    """Dimensions from 0, repeated ones allowed."""
    if isinstance(dims, Sequence):
        return tuple(wrap_dim(d, ndim) for d in dims)
    return wrap_dim(dims, ndim)


def _roll_back(g: Any, shifts: Any, dims: Any) -> Any:
    back = tuple(-s for s in shifts) if isinstance(shifts, Sequence) else -shifts
    return roll(g, back, dims)


roll.vjp(input=_roll_back)


@composite
def rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """Rotated by k * 90 degrees in the plane of `dims`."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    a, b = (wrap_dim(d, input.ndim) for d in dims)
    if a == b:
        raise RuntimeError("expected rotation dims to be different")
    k %= 4
    if k == 0:
        return input.clone(memory_format=contiguous_format)
    if k == 2:
        return flip(input, (a, b))
    return transpose(flip(input, (b,)), a, b) if k == 1 else flip(transpose(input, a, b), (b,))


@composite(method=False)
def _repeat(input: Any, *repeats: Any) -> Any:
    """`input` repeated along each dimension, new ones in front."""
    sizes = ints(repeats[0] if len(repeats) == 1 and isinstance(repeats[0], Sequence) else repeats)
    if len(sizes) < input.ndim:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor"
        )
    shape = (1,) * (len(sizes) - input.ndim) + tuple(input.shape)
    pairs = [n for pair in zip(sizes, shape, strict=True) for n in pair]
    ones = [n for length in shape for n in (1, length)]
    full = reshape(expand(reshape(input, tuple(ones)), tuple(pairs)), [
        r * n for r, n in zip(sizes, shape, strict=True)
    ])  # fmt: skip
    return full if full._base is None else full.clone(memory_format=contiguous_format)


_repeat.__name__ = "repeat"
METHODS["repeat"] = _repeat


@composite
def tile(input: Any, *dims: Any) -> Any:
    """`input` repeated along each dimension, `dims` padded with ones in front."""
    sizes = ints(dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims)
    return _repeat(input, (1,) * (input.ndim - len(sizes)) + sizes)


@composite
def repeat_interleave(
    input: Any, repeats: Any, dim: Any = None, *, output_size: int | None = None
) -> Any:
    """Each element (slice along `dim`) repeated `repeats` times in place."""
    from refgrad.ops.indexing import index_select
    from refgrad.ops.placing import constant
    from refgrad.tensor import Tensor

    if dim is None:
        input, dim = flatten(input), 0
    if input.ndim == 0:
        input = reshape(input, (1,))
    dim = wrap_dim(dim, input.ndim)
    counts = to_host(repeats._array) if isinstance(repeats, Tensor) else np.asarray(repeats)
    if counts.ndim > 1 or (counts.ndim == 1 and counts.size not in (1, input.shape[dim])):
        raise RuntimeError("repeats must have the same size as input along dim")
    if (counts < 0).any():
        raise RuntimeError("repeats can not be negative")
    places = np.repeat(np.arange(input.shape[dim]), counts)
    return index_select(input, dim, constant(places, input))


@composite
def narrow(input: Any, dim: int, start: Any, length: int) -> Any:
    """The `length` slices along `dim` from `start`."""
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    dim, start = wrap_dim(dim, input.ndim), operator.index(start)
    n = input.shape[dim]
    if not -n <= start <= n:
        raise IndexError(
            f"start out of range (expected to be in range of [{-n}, {n}], but got {start})"
        )
    start += n if start < 0 else 0
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return input[(builtins.slice(None),) * dim + (builtins.slice(start, start + length),)]


def _copying(name: str, function: Any) -> Any:
    def copied(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs).clone(memory_format=contiguous_format)

    copied.__name__ = name
    copied.__doc__ = f"`{function.__name__}` into new memory."
    return composite(copied, method=name == "narrow_copy")


narrow_copy = _copying("narrow_copy", narrow)
expand_copy = _copying("expand_copy", expand)
permute_copy = _copying("permute_copy", permute)
t_copy = _copying("t_copy", t)
transpose_copy = _copying("transpose_copy", transpose)
unsqueeze_copy = _copying("unsqueeze_copy", unsqueeze)
view_copy = _copying("view_copy", reshape)  # of any strides, as in torch
