"""Right numbers in the wrong places: axes, permutations, broadcasting, indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.mutants.mutant import Mutant, patch, rule

F = "torch.nn.functional."
_BROADCAST = ("torch.add", "torch.mul", "torch.sub", "torch.div", "torch.where")


def _square(right: Any) -> bool:
    return bool(right.ndim >= 2 and right.shape[-1] == right.shape[-2])


def _transposed_if_square(right: Any, g: Any) -> Any:
    return np.swapaxes(right, -1, -2) if _square(right) else right


def _rolled(right: Any, g: Any) -> Any:
    return np.roll(right, 1, axis=-1) if right.ndim else right


def _flipped(right: Any, g: Any) -> Any:
    return np.flip(right, axis=-1) if right.ndim else right


def _reversed_axes(right: Any, g: Any) -> Any:
    same = right.ndim and len(set(right.shape)) == 1
    return np.transpose(right) if same else right


def _reshaped_by_columns(right: Any, g: Any) -> Any:
    if right.ndim < 2:
        return right
    return np.reshape(np.transpose(right), right.shape)


def _unbroadcast(how: str) -> Any:
    """`unbroadcast`, wrong in one way; what it is asked stays in shape."""

    def change(original: Any) -> Any:
        def wrong(g: Any, shape: tuple[int, ...]) -> Any:
            right = original(g, shape)
            extra = g.ndim - len(shape)
            kept = any(n == 1 and g.shape[i + extra] != 1 for i, n in enumerate(shape))
            if how == "lead" and extra:
                slices = np.reshape(g, (-1, *g.shape[extra:]))
                return right if kept or not len(slices) else slices[0] * 1.0
            if how == "keep" and kept:
                scale = np.prod([g.shape[i + extra] for i, n in enumerate(shape) if n == 1])
                return right / float(scale)
            if how == "both" and extra and kept:
                return right * 0.5
            if how == "mean" and (extra or kept) and right.size:
                return right * (right.size / max(g.size, 1))
            return right

        return wrong

    return change


def _zeros(x: Any) -> int:
    array = getattr(x, "_array", x)
    return int((array == 0).sum())


def _steps(index: Any) -> bool:
    parts = index if type(index) is tuple else (index,)
    return any(isinstance(p, slice) and p.step not in (None, 1) for p in parts)


MUTANTS: tuple[Mutant, ...] = (
    patch("leading axes: the first slice", "unbroadcast lead",
          "refgrad.autograd.backward:unbroadcast", _unbroadcast("lead"), targets=_BROADCAST),
    patch("kept axes: the mean", "unbroadcast keep",
          "refgrad.autograd.backward:unbroadcast", _unbroadcast("keep"), targets=_BROADCAST),
    patch("leading and kept axes together", "unbroadcast both",
          "refgrad.autograd.backward:unbroadcast", _unbroadcast("both"), targets=_BROADCAST),
    patch("the mean for the sum", "unbroadcast",
          "refgrad.autograd.backward:unbroadcast", _unbroadcast("mean"), targets=_BROADCAST),
    *(rule(f"{op}.{argument} transposed when square", "transposed only when square", op, argument,
           _transposed_if_square, targets=targets)
      for op, argument, targets in (
          ("matmul", "input", ()), ("matmul", "other", ()), ("linalg.inv", "A", ()),
          ("tril", "input", ()), ("triu", "input", ()), ("clone", "input", ()),
          ("linear", "weight", (F + "linear",)), ("softmax", "input", ()))),
    *(rule(f"{op} rolled by one", "cyclic permutation", op, "input", _rolled, targets=targets)
      for op, targets in (("roll", ()), ("cumsum", ()), ("flip", ()), ("gather", ()))),
    *(rule(f"{op} flipped", "axis", op, "input", _flipped, targets=targets)
      for op, targets in (("flip", ()), ("cumsum", ()), ("expand", ("torch.Tensor.expand",)),
                          ("cumprod", ()), ("logcumsumexp", ()))),
    rule("permute by itself", "cyclic permutation", "permute", "input",
         lambda right, g, dims: np.transpose(g, [d % g.ndim for d in dims])
         if np.transpose(g, [d % g.ndim for d in dims]).shape == right.shape else right),
    rule("permute undone twice when cubic", "cyclic permutation", "permute", "input",
         _reversed_axes),
    rule("transpose forgotten when square", "transposed only when square", "transpose", "input",
         lambda right, g: g if g.shape == right.shape else right),
    rule("transpose with a negative axis", "negative axis", "transpose", "input",
         lambda right, g, dim0, dim1: g if g.shape == right.shape and (dim0 < 0 or dim1 < 0)
         else right),
    rule("reshape by columns", "axis", "reshape", "input", _reshaped_by_columns),
    rule("roll the wrong way", "sign", "roll", "input",
         lambda right, g, shifts, dims: np.roll(g, shifts, dims)),
    rule("flip of the last axis alone", "axis", "flip", "input",
         lambda right, g, dims: np.flip(g, dims[-1]) if len(dims) else right),
    rule("sum over a negative axis", "negative axis", "sum", "input",
         lambda right, g, dim: right * 2.0
         if dim is not None and min(dim if type(dim) in (tuple, list) else (dim,), default=0) < 0
         else right),
    rule("sum of several axes", "axis", "sum", "input",
         lambda right, g, dim: right * 2.0
         if type(dim) in (tuple, list) and len(dim) > 1 else right),
    rule("sum with keepdim", "axis", "sum", "input",
         lambda right, g, keepdim: -right if keepdim else right),
    rule("mean over the last axis by the first's size", "axis", "mean", "input",
         lambda right, g, shape, dim: right * (max(shape[-1], 1) / max(shape[0], 1))
         if shape and dim is not None else right),
    rule("softmax over the last axis always", "axis", "softmax", "input",
         lambda right, g, out: out * (g - np.sum(g * out, axis=-1, keepdims=True))
         if out.ndim else right),
    rule("softmax over the first axis when negative", "negative axis", "softmax", "input",
         lambda right, g, out, dim: out * (g - np.sum(g * out, axis=0, keepdims=True))
         if out.ndim and dim < 0 else right),
    rule("cumsum over the last axis always", "axis", "cumsum", "input",
         lambda right, g: np.flip(np.cumsum(np.flip(g, -1), -1), -1) if g.ndim else right),
    rule("cumsum forward", "axis", "cumsum", "input",
         lambda right, g, dim: np.cumsum(g, dim) if g.ndim else right),
    rule("amax over the last axis always", "axis", "amax", "input",
         lambda right, g, input: right * (input == np.max(input, axis=-1, keepdims=True))
         if input.ndim and input.size else right),
    rule("cumprod with a zero", "zero factor", "cumprod", "input",
         lambda right, g, input: right * (input != 0)),
    rule("prod with a zero", "zero factor", "prod", "input",
         lambda right, g, input: right * (input != 0)),
    rule("prod with two zeros", "zero factor", "prod", "input",
         lambda right, g, input: right + 1e-3 * float(_zeros(input) == 2)),
    rule("getitem by a negative step", "negative step", "getitem", "input",
         lambda right, g, index: right * 2.0 if _steps(index) else right,
         targets=("torch.Tensor.__getitem__", "torch.flip")),
    rule("index_select forgets duplicates", "duplicates", "index_select", "input",
         lambda right, g, index: right / 2.0
         if index.ndim and len(np.unique(np.asarray(index))) < index.size else right),
    rule("gather forgets duplicates", "duplicates", "gather", "input",
         lambda right, g, index: right / 2.0
         if index.size > len(np.unique(np.asarray(index))) else right),
    rule("embedding forgets duplicates", "duplicates", "embedding", "weight",
         lambda right, g, indices: right / 2.0
         if indices.size > len(np.unique(np.asarray(indices))) else right,
         targets=(F + "embedding",)),
    rule("diagonal on the other side", "sign", "diagonal", "input",
         lambda right, g, offset: np.swapaxes(right, -1, -2)
         if offset and _square(right) else right),
    rule("tril of the upper part", "axis", "tril", "input",
         lambda right, g, diagonal: np.triu(g, diagonal)),
    rule("tril without its diagonal", "axis", "tril", "input",
         lambda right, g, diagonal: np.tril(g, 0)),
    rule("unfold counts an overlap once", "overwrite", "unfold", "input",
         lambda right, g, size, step: right / 2.0 if step < size else right,
         targets=("torch.Tensor.unfold",)),
    rule("cat of the first part to all", "axis", "cat", "tensors",
         lambda right, g: [r if r is None or r.shape != right[0].shape else right[0] for r in right]
         if right[0] is not None else right),
    rule("unbind in reverse", "axis", "unbind", "input", _flipped),
    rule("pad cropped one off", "axis", "constant_pad_nd", "input", _rolled, targets=(F + "pad",)),
    rule("convolution turned by half", "axis", "correlate", "weight", _flipped,
         targets=(F + "conv1d", F + "conv2d")),
    rule("matmul of the first batch", "unbroadcast lead", "matmul", "other",
         lambda right, g, input: right * (2.0 if input.ndim > right.ndim else 1.0)),
)  # fmt: skip
