"""The hand-picked witnesses of the corpus: functions at the very points where rules go wrong.

`python -m conformance.sources.witnesses` captures them and writes the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from conformance.sources.base import Sample
from conformance.sources.captured import capture
from conformance.sources.corpus import DIRECTORY, save

inf, nan = float("inf"), float("nan")


@dataclass(frozen=True)
class Witness:
    """A function of tensors, and their values; integers and booleans are not differentiated."""

    name: str
    op: str
    note: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def sample(self) -> Sample:
        """The function as a captured Program."""
        tensors = [
            torch.tensor(value, dtype=torch.float64 if _floating(value) else None)
            for value in self.arguments
        ]
        for tensor in tensors:
            tensor.requires_grad_(tensor.is_floating_point())
        capture_ = capture(self.function, tensors)
        return Sample(self.op, capture_.program, capture_.values, self.name, self.note)


def _floating(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_floating, value)) or not value
    return isinstance(value, float)


def witnesses() -> Iterator[Witness]:
    """Every hand-picked witness."""
    for name, op, note, function, *arguments in _TABLE:
        yield Witness(name, op, note, function, tuple(arguments))


def write(directory: Path = DIRECTORY) -> list[Path]:
    """Capture and save them all."""
    directory.mkdir(exist_ok=True)
    return [save(w.sample(), directory / f"{w.name}.json") for w in witnesses()]


_TABLE: tuple[tuple[Any, ...], ...] = (
    # Ties
    ("max-tie", "max", "equal maxima share the gradient of max()",
     lambda x: x.max(), [1.0, 3.0, 3.0]),
    ("max-dim-tie", "max", "max along a dimension gives the first of equal maxima all of it",
     lambda x: x.max(dim=1).values, [[2.0, 2.0, 1.0], [0.0, 5.0, 5.0]]),
    ("amax-dims-tie", "amax", "equal maxima over two dimensions share the gradient",
     lambda x: x.amax(dim=(0, 2)), [[[1.0, 4.0], [2.0, 2.0]], [[4.0, 0.0], [2.0, -1.0]]]),
    ("maximum-tie", "maximum", "equal operands get half the gradient each",
     lambda x, y: torch.maximum(x, y), [1.0, 2.0], [1.0, 3.0]),
    ("maximum-same", "maximum", "one tensor as both operands: the halves add up",
     lambda x: torch.maximum(x, x), [1.0, -2.0]),
    ("sort-tie", "sort", "equal elements keep their order when the sort is stable",
     lambda x: torch.sort(x, stable=True).values * torch.arange(4.0, dtype=x.dtype),
     [2.0, 1.0, 2.0, 1.0]),
    ("topk-tie", "topk", "the selected ones of equal elements get the gradient",
     lambda x: torch.topk(x, 2).values, [1.0, 3.0, 3.0, 0.0]),
    ("clamp-edge", "clamp", "an element equal to a bound passes its gradient on",
     lambda x: x.clamp(-1.0, 1.0), [-1.0, 0.5, 1.0, 2.0]),
    # Zeros
    ("relu-zero", "relu", "the slope at 0 is 0", lambda x: F.relu(x), [-1.0, 0.0, 2.0]),
    ("leaky-relu-zero", "nn.functional.leaky_relu", "the slope at 0 is the negative one",
     lambda x: F.leaky_relu(x, 0.25), [-1.0, 0.0, 2.0]),
    ("abs-zero", "abs", "the slope at 0 is 0", lambda x: x.abs(), [-1.0, 0.0, -0.0, 2.0]),
    ("prod-one-zero", "prod", "one zero: only its own derivative is not 0",
     lambda x: x.prod(), [2.0, 0.0, 3.0]),
    ("prod-two-zeros", "prod", "two zeros: every derivative is 0; a quotient would be nan",
     lambda x: x.prod(dim=1), [[2.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.0, 4.0, 5.0]]),
    ("cumprod-zero", "cumprod", "a quotient by the element itself fails at 0",
     lambda x: x.cumprod(0), [2.0, 0.0, 3.0, 0.0, 4.0]),
    ("norm-zero", "linalg.vector_norm", "the 2-norm's subgradient at 0 is 0, not nan",
     lambda x: torch.linalg.vector_norm(x, dim=1), [[0.0, 0.0], [3.0, 4.0]]),
    ("pow-zero-exponent", "pow", "x ** 0 is constant, at 0 too",
     lambda x: x ** 0.0, [0.0, 2.0, -1.0]),
    ("pow-zero-base", "pow", "0 ** 2: the slope is 0, though log(0) is not finite",
     lambda x, y: torch.pow(x, y), [0.0, 2.0], [2.0, 3.0]),
    ("xlogy-zero", "xlogy", "0 log 0 is 0, and so is its derivative in y",
     lambda x, y: torch.xlogy(x, y), [0.0, 2.0], [2.0, 0.5]),
    ("sqrt-zero", "sqrt", "the slope at 0 is infinite", lambda x: x.sqrt(), [0.0, 4.0]),
    ("atan2-axes", "atan2", "on the axes, where one operand is 0",
     lambda y, x: torch.atan2(y, x), [0.0, 1.0, 0.0], [1.0, 0.0, -2.0]),
    ("sinc-zero", "sinc", "a removable singularity", lambda x: torch.sinc(x), [0.0, 0.5, 1.0]),
    ("sign-zero", "sign", "the derivative is 0 everywhere", lambda x: x.sign(), [-2.0, 0.0, 1.0]),
    # One tensor in several places
    ("mul-same", "mul", "x * x: both uses add up", lambda x: x * x, [3.0, -2.0]),
    ("mul-same-transposed", "mul", "x * x.T: one use is a view",
     lambda x: x * x.T, [[1.0, 2.0], [3.0, 4.0]]),
    ("matmul-same", "matmul", "x @ x", lambda x: x @ x, [[1.0, 2.0], [3.0, 4.0]]),
    ("cat-same", "cat", "the same tensor twice in one list",
     lambda x: torch.cat([x, x]) * torch.arange(4.0, dtype=x.dtype), [1.0, 2.0]),
    ("third-use", "add", "three uses: store, add, and add in place",
     lambda x: x + x * 2.0 + x * x, [1.0, -3.0]),
    ("fan-out", "exp", "a result used by three calls, one of which is unused",
     lambda x: (lambda y: (y.sin() + y * y, y.sum()))(x.exp()), [0.5, -1.0]),
    # Broadcasting
    ("mul-broadcast-lead", "mul", "a lower rank: summed over the leading dimension",
     lambda x, y: x * y, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [1.0, -1.0, 2.0]),
    ("mul-broadcast-keep", "mul", "size-1 dimensions on both sides",
     lambda x, y: x * y, [[1.0], [2.0]], [[3.0, 4.0, 5.0]]),
    ("add-broadcast-0d", "add", "a 0-d operand gets the sum of all",
     lambda x, y: x + y, [[1.0, 2.0], [3.0, 4.0]], 5.0),
    ("where-broadcast", "where", "condition and both branches broadcast",
     lambda c, x, y: torch.where(c, x, y), [[True], [False]], [1.0, 2.0], 3.0),
    ("expand-sum", "expand", "an expanded dimension sums up",
     lambda x: x.expand(3, 2, 2) * 2.0, [[1.0], [2.0]]),
    # Indices
    ("getitem-duplicates", "__getitem__", "duplicate indices add up",
     lambda x, i: x[i], [1.0, 2.0, 3.0], [0, 2, 2, 2]),
    ("getitem-apart", "__getitem__", "index tensors apart: their dimension comes first",
     lambda x, i, j: x[i, :, j], [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]],
     [0, 1, 1], [1, 0, 0]),
    ("gather-duplicates", "gather", "duplicate indices add up; fewer rows than the tensor",
     lambda x, i: torch.gather(x, 1, i), [[1.0, 2.0], [3.0, 4.0]], [[0, 0, 1]]),
    ("index-add-duplicates", "index_add", "duplicates add up in value, copy in gradient",
     lambda x, i, y: x.index_add(0, i, y), [1.0, 2.0, 3.0], [1, 1, 0], [4.0, 5.0, 6.0]),
    ("scatter-overwrites", "scatter", "what is overwritten gets no gradient",
     lambda x, i, y: x.scatter(0, i, y), [1.0, 2.0, 3.0], [2, 0], [4.0, 5.0]),
    ("index-put-accumulate", "index_put", "duplicates add up",
     lambda x, i, y: x.index_put((i,), y, accumulate=True),
     [1.0, 2.0, 3.0], [2, 2, 0], [4.0, 5.0, 6.0]),
    ("embedding-padding", "nn.functional.embedding", "the padding row gets no gradient",
     lambda i, w: F.embedding(i, w, padding_idx=1), [0, 1, 0], [[1.0, 2.0], [3.0, 4.0]]),
    ("masked-select-none", "masked_select", "nothing selected: an empty result",
     lambda x, m: torch.masked_select(x, m), [1.0, 2.0], [False, False]),
    ("unfold-overlap", "unfold", "windows overlap: their gradients add up",
     lambda x: x.unfold(0, 3, 1), [1.0, 2.0, 3.0, 4.0]),
    # Infinities, nan, and masks
    ("softmax-masked", "softmax", "-inf scores get no weight and no gradient",
     lambda x, m: torch.softmax(x.masked_fill(m, -inf), -1),
     [[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]], [[False, True, False], [True, False, True]]),
    ("softmax-all-masked", "softmax", "a row of -inf is nan throughout",
     lambda x, m: torch.softmax(x.masked_fill(m, -inf), -1), [[1.0, 2.0]], [[True, True]]),
    ("logsumexp-masked", "logsumexp", "-inf elements get no gradient",
     lambda x, m: torch.logsumexp(x.masked_fill(m, -inf), 0), [1.0, 2.0], [True, False]),
    ("logsumexp-large", "logsumexp", "overflows without the shift",
     lambda x: torch.logsumexp(x, 0), [800.0, 801.0, -800.0]),
    ("where-nan-branch", "where", "the branch not taken is nan, and 0 * nan is its gradient",
     lambda x: torch.where(x > 0, x.log(), x), [-1.0, 2.0]),
    ("mul-inf", "mul", "an infinite operand makes an infinite gradient",
     lambda x, y: x * y, [inf, 1.0], [2.0, 0.5]),
    ("sigmoid-saturated", "sigmoid", "a tiny derivative keeps its relative accuracy on one side",
     lambda x: torch.sigmoid(x), [-40.0, 0.0, 40.0]),
    ("softplus-threshold", "nn.functional.softplus", "beyond the threshold it is the identity",
     lambda x: F.softplus(x), [-50.0, 0.0, 19.9, 20.0, 20.1]),
    ("logaddexp-apart", "logaddexp", "operands far apart: one weight is 0",
     lambda x, y: torch.logaddexp(x, y), [0.0, 1000.0], [-1000.0, 0.0]),
    # Sizes
    ("var-one", "var", "the variance of one number, without correction, is 0",
     lambda x: x.var(dim=1, correction=0), [[2.0], [3.0]]),
    ("std-equal", "std", "equal numbers: the derivative of the root at 0",
     lambda x: x.std(dim=1), [[2.0, 2.0], [1.0, 3.0]]),
    ("sum-empty", "sum", "an empty dimension", lambda x: x.sum(dim=0), [[], []]),
    ("matmul-empty-inner", "matmul", "an empty inner dimension gives zeros",
     lambda x, y: x @ y.T, [[], []], [[], [], []]),
    ("cat-empty", "cat", "an empty tensor among others",
     lambda x, y: torch.cat([x, y]), [], [1.0, 2.0]),
    ("cat-abs-sum", "cat", "second order: torch's gradient is a lazy zero tensor",
     lambda x, y: torch.cat([x, y]).abs().sum(), [1.0, -2.0], [3.0]),
    ("layer-norm-constant", "nn.functional.layer_norm", "a constant row: eps alone divides",
     lambda x: F.layer_norm(x, (2,), eps=0.1), [[2.0, 2.0], [1.0, 3.0]]),
    ("cumsum-0d", "cumsum", "of a 0-d tensor", lambda x: x.cumsum(0), 3.0),
    ("conv-strided", "nn.functional.conv1d", "the stride leaves the last element out",
     lambda x, w: F.conv1d(x, w, stride=2), [[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, -1.0]]]),
    # Writing in place
    ("in-place-view", "mul_", "a view is written into, and its base is used after",
     lambda x: (lambda y: (y[0].mul_(3.0), y)[1])(x * 2.0), [[1.0, 2.0], [3.0, 4.0]]),
    ("setitem", "__setitem__", "what is written over gets no gradient",
     lambda x, y: (lambda z: (z.__setitem__(slice(0, 2), y), z)[1])(x.clone()),
     [1.0, 2.0, 3.0], [4.0, 5.0]),
    # Where PyTorch 2.13 itself is wrong (expectations/torch.json)
    ("interpolate-nearest-scale", "nn.functional.interpolate",
     "the backward pass reads the size for the scale: each gradient is how often it is copied",
     lambda x: F.interpolate(x, scale_factor=2.3), [[[0.0, 1.0, 2.0]]]),
    ("interpolate-nearest-3d", "nn.functional.interpolate", "the same in three dimensions",
     lambda x: F.interpolate(x, scale_factor=1.3),
     [[[[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[6.0, 7.0], [8.0, 9.0], [10.0, 11.0]]]]]),
    ("var-no-dim", "var", "dim=() means every dimension",
     lambda x: torch.var(x, dim=()), [[0.0, 1.0, 2.5], [3.0, 4.0, 5.0]]),
    ("pinv-cut", "linalg.pinv", "a singular value above zero is left out",
     lambda x: torch.linalg.pinv(x, rtol=0.7), [[2.0, 0.5], [0.0, 1.0]]),
    ("lstsq-cut", "linalg.lstsq", "a singular value above zero is left out",
     lambda a, b: torch.linalg.lstsq(a, b, rcond=0.7, driver="gelsd").solution,
     [[2.0, 0.5], [0.0, 1.0]], [[1.0], [-2.0]]),
    ("celu-alpha", "nn.functional.celu", "no alpha is rounded to float32 on the way back",
     lambda x: F.celu(x, alpha=0.7), [-0.9, 0.5, -2.0]),
    ("ldexp-negative", "ldexp", "the power of two of a negative integer is no integer",
     lambda x, y: torch.ldexp(x, y), [1.5, 2.5], [-2, 3]),
    ("index-add-complex", "index_add", "a complex factor is conjugated on the way back",
     lambda x, i, y: torch.complex(x, x * 0).index_add(0, i, torch.complex(y, y * 2), alpha=1j),
     [0.0, 1.0], [0, 1], [1.0, 2.0]),
    ("asinh-far", "asinh", "x x is beyond double, the derivative is not",
     lambda x: torch.asinh(x), [1e200]),
    ("atan2-far", "atan2", "x x + y y is beyond double, the derivative is not",
     lambda x, y: torch.atan2(x, y), [2e200], [1e200]),
    ("bce-logits-far", "nn.functional.binary_cross_entropy_with_logits",
     "1 - sigmoid(x) is 0 where exp(-x) is not",
     lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
     [40.0], [1.0]),
    ("triangular-solve-transposed", "triangular_solve",
     "forward mode forgets to transpose the tangent",
     lambda b, a: torch.triangular_solve(b, a.triu(), transpose=True)[0],
     [[1.0], [2.0]], [[2.0, 1.0], [0.0, 4.0]]),
    ("matrix-exp-large-cotangent", "matrix_exp",
     "the cotangent, as a block of a larger matrix, decides on the squarings",
     lambda x: torch.matrix_exp(x) * 2.0**20, [[1.0, 0.5], [0.25, -1.0]]),
    ("ctc-loss-raw", "nn.functional.ctc_loss", "log-probabilities that no log_softmax made",
     lambda x, t, n, m: F.ctc_loss(x, t, n, m, reduction="sum"),
     [[[0.5, -1.0, 0.25]], [[-0.75, 0.5, 1.0]], [[1.0, 0.0, -0.5]]], [[1, 2]], [3], [2]),
    ("embedding-bag-by-frequency", "nn.functional.embedding_bag",
     "a row is divided by how often another is used, though it is used once",
     lambda i, w, o: F.embedding_bag(
         i, w, o, mode="sum", scale_grad_by_freq=True, padding_idx=0
     ),
     [0, 0, 1], [[1.0, 2.0], [3.0, 4.0]], [0, 1]),
    ("det-negative-bit", "linalg.det", "a conjugate's imaginary part is negated when it is read",
     lambda x, y: torch.linalg.det(torch.complex(x, y).conj().imag),
     [[0.5, 1.0], [-1.5, 2.0]], [[1.0, -0.5], [0.25, 2.0]]),
)  # fmt: skip


if __name__ == "__main__":
    write()
