"""tinygrad: lazy tensors whose schedule is made anew each time, from kernels in a cache."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from conformance.bench.compiled import compile_program
from conformance.bench.engine import Prepared, cotangent
from conformance.bench.engines.found import expressing, missing, plain, version, warmed, within
from conformance.bench.engines.functional import looked_up
from conformance.bench.workload import Workload
from conformance.errors import Unsupported
from conformance.program import Array

MOST_NODES = 60  # its scheduler takes some 5 ms a node, and compiling 1 s


class Tinygrad:
    """tinygrad without TinyJit."""

    name = "tinygrad"

    def available(self, device: str) -> str | None:
        """None on the CPU, where it is installed and clang can compile for it."""
        reason = missing("tinygrad")
        if reason is not None:
            return reason
        if device != "cpu":  # torch and CuPy then raise "invalid resource handle"
            return f"it makes a context of its own on {device}, in which no other engine runs"
        compiler = os.environ.get("CC", "clang")
        return None if shutil.which(compiler) else "tinygrad needs clang on the CPU: install it"

    def versions(self) -> dict[str, str]:
        """tinygrad's."""
        return version("tinygrad")

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """The Program in tinygrad's words, its kernels compiled by a first step."""
        plain(workload, order=2)
        within(workload, size, MOST_NODES)
        tensor = _tinygrad().Tensor
        program, values = workload.make(size)
        resolve = looked_up(_functions(tensor))
        function = compile_program(program, resolve, methods=False).function

        def place(array: Array) -> Any:
            return tensor(array, device=device.upper()).realize()

        placed = {i.name: place(values[i.name]) for i in program.inputs}
        leaves = {i.name: placed[i.name] for i in program.leaves}
        with expressing():
            shape = function(**placed).shape
        weights = cotangent(shape, workload.dtype)
        seed = None if weights is None else place(weights)
        return warmed(_Prepared(function, placed, leaves, seed, workload.order, tensor.realize))


class _Prepared:
    """`forward` realizes the output; gradients are realized together, as an optimizer does."""

    compile_seconds: float | None = None

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: dict[str, Any],
        leaves: dict[str, Any],
        seed: Any,
        order: int,
        realize: Callable[..., Any],
    ) -> None:
        self._function = function
        self._inputs = tuple(inputs.values())
        self._leaves = leaves
        self._seed = seed
        self._order = order
        self._realize = realize
        self._found: Sequence[Any] = ()

    def forward(self) -> Any:
        return self._function(*self._inputs).realize()

    def backward(self, made: Any) -> None:
        leaves = self._leaves.values()
        found = made.gradient(*leaves, gradient=self._seed)
        if self._order == 2:
            found = sum((g * g).sum() for g in found).gradient(*leaves)
        self._found = found
        self._realize(*found)

    def accumulate(self, made: Any) -> None:
        raise Unsupported("gradients are returned, and add to nothing")

    def step(self) -> Any:
        made = self._function(*self._inputs)
        self.backward(made)
        return made

    def clear(self) -> None:
        self._found = ()

    def gradients(self) -> dict[str, Array]:
        return {name: g.numpy() for name, g in zip(self._leaves, self._found)}

    def synchronize(self) -> None:
        for gradient in self._found:
            importlib.import_module("tinygrad").Device[gradient.device].synchronize()


def _tinygrad() -> Any:
    """The module, told to look for no other device than the CPU by itself."""
    os.environ.setdefault("DEV", "CPU")
    return importlib.import_module("tinygrad")


def _functions(tensor: Any) -> dict[str, Callable[..., Any]]:
    """Tensor's methods by torch's names: most take torch's own arguments."""
    same = (
        *("add", "cos", "exp", "matmul", "mul", "neg", "pow", "relu", "rsqrt", "sigmoid", "sin"),
        *("chunk", "mean", "reshape", "split", "squeeze", "sum", "tanh", "transpose", "unsqueeze"),
        *("flatten", "gather"),
    )
    functional = ("silu", "softplus")

    def layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
        return x.layernorm(axis=tuple(range(-len(shape), 0)), eps=eps) * weight + bias

    def batch_norm(
        x: Any, mean: None, var: None, weight: Any, bias: Any, training: bool, eps: float = 1e-5
    ) -> Any:
        dims = (0, *range(2, x.ndim))
        row = (1, -1) + (1,) * (x.ndim - 2)
        return x.layernorm(axis=dims, eps=eps) * weight.reshape(row) + bias.reshape(row)

    def convolved(
        x: Any, weight: Any, bias: Any = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        return x.conv2d(weight, bias, groups, stride, dilation, padding)

    return {
        **{f"torch.{name}": getattr(tensor, name) for name in same},
        **{f"torch.nn.functional.{name}": getattr(tensor, name) for name in functional},
        "torch.no_grad": nullcontext,
        "torch.addmm": lambda bias, a, b: a.matmul(b) + bias,
        "torch.cat": lambda tensors, dim=0: tensors[0].cat(*tensors[1:], dim=dim),
        "torch.dot": lambda x, y: (x * y).sum(),
        "torch.stack": lambda tensors, dim=0: tensors[0].stack(*tensors[1:], dim=dim),
        "torch.scatter_add": lambda x, dim, ids, y: x.scatter_reduce(dim, ids, y, "sum"),
        "torch.var": lambda x: x.var(),
        "torch.Tensor.contiguous": lambda x: x,
        "torch.Tensor.expand": tensor.expand,
        "torch.Tensor.float": tensor.float,
        "torch.Tensor.view": tensor.view,
        "torch.nn.functional.avg_pool2d": lambda x, side: x.avg_pool2d((side, side)),
        "torch.nn.functional.max_pool2d": lambda x, side: x.max_pool2d((side, side)),
        "torch.nn.functional.batch_norm": batch_norm,
        "torch.nn.functional.conv1d": convolved,
        "torch.nn.functional.conv2d": convolved,
        "torch.nn.functional.cross_entropy": lambda x, y: x.sparse_categorical_crossentropy(
            y, ignore_index=-100
        ),
        "torch.nn.functional.embedding": lambda ids, table, padding_idx=None: table[ids],
        "torch.nn.functional.gelu": lambda x: x * (0.5 + 0.5 * (x * 0.5**0.5).erf()),
        "torch.nn.functional.layer_norm": layer_norm,
        "torch.nn.functional.linear": lambda x, weight, bias=None: x.linear(weight.T, bias),
        "torch.nn.functional.log_softmax": lambda x, dim: x.log_softmax(dim),
        "torch.nn.functional.softmax": lambda x, dim: x.softmax(dim),
        "torch.nn.functional.mse_loss": lambda x, y: ((x - y) ** 2).mean(),
        "torch.nn.functional.pad": lambda x, widths, value=0.0: x.pad(widths, value=value),
        "torch.nn.functional.scaled_dot_product_attention": _attention,
    }


def _attention(
    q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if scale is not None:
        q = q * (scale * q.shape[-1] ** 0.5)
    return q.scaled_dot_product_attention(
        k, v, attn_mask=attn_mask, is_causal=is_causal, enable_gqa=enable_gqa
    )
