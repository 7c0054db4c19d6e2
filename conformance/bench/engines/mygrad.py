"""MyGrad: NumPy with a tape, and its layers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from conformance.bench.compiled import compile_program
from conformance.bench.engine import Prepared, cotangent
from conformance.bench.engines import numpy_names
from conformance.bench.engines.found import expressing, missing, on_cpu, plain, version, within
from conformance.bench.engines.functional import looked_up
from conformance.bench.workload import Workload
from conformance.errors import Unsupported
from conformance.program import Array

MOST_NODES = 20_000


class MyGrad:
    """MyGrad with its default settings, memory guard included."""

    name = "mygrad"

    def available(self, device: str) -> str | None:
        """None on the CPU where it is installed."""
        return on_cpu(device) or missing("mygrad")

    def versions(self) -> dict[str, str]:
        """MyGrad's, and NumPy's beneath."""
        return version("mygrad", "numpy")

    def prepare(self, workload: Workload, size: int, device: str) -> Prepared:
        """The Program in MyGrad's words; Unsupported at order 2, which it has not."""
        plain(workload)
        within(workload, size, MOST_NODES)
        mg = importlib.import_module("mygrad")
        program, values = workload.make(size)
        resolve = looked_up(_functions(mg))
        function = compile_program(program, resolve, methods=False).function
        leaves = {i.name: mg.tensor(values[i.name]) for i in program.leaves}
        inputs = values | leaves
        with expressing(), mg.no_autodiff:
            shape = function(**inputs).shape
        return _Prepared(function, inputs, leaves, cotangent(shape, workload.dtype))


class _Prepared:
    compile_seconds: float | None = None

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: dict[str, Any],
        leaves: dict[str, Any],
        seed: Array | None,
    ) -> None:
        self._function = function
        self._inputs = tuple(inputs.values())
        self._leaves = leaves
        self._seed = seed

    def forward(self) -> Any:
        return self._function(*self._inputs)

    def backward(self, made: Any) -> None:
        made.backward(self._seed)

    def accumulate(self, made: Any) -> None:
        raise Unsupported("a tensor's gradient is nulled when the tensor is used again")

    def step(self) -> Any:
        made = self._function(*self._inputs)
        made.backward(self._seed)
        return made

    def clear(self) -> None:
        for leaf in self._leaves.values():
            leaf.null_grad()

    def gradients(self) -> dict[str, Array]:
        return {name: leaf.grad for name, leaf in self._leaves.items() if leaf.grad is not None}

    def synchronize(self) -> None:
        """The CPU's work is done when a call returns."""


def _functions(mg: Any) -> dict[str, Callable[..., Any]]:
    """NumPy's names, and MyGrad's own layers.

    It makes an array of a number, which is float64: numbers are given the dtype of what they meet.
    """
    nnet = importlib.import_module("mygrad.nnet")
    layers, activations = nnet.layers, nnet.activations

    def like(x: Any, y: Any) -> Any:
        return x.dtype.type(y) if isinstance(y, int | float) else y

    def convolved(
        x: Any, weight: Any, bias: Any = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        if groups != 1:
            raise Unsupported("conv_nd has no groups")
        y = layers.conv_nd(x, weight, stride=stride, padding=padding, dilation=dilation)
        return y if bias is None else y + mg.reshape(bias, (1, -1) + (1,) * (y.ndim - 2))

    def cross_entropy(logits: Any, labels: Any) -> Any:
        labels = labels.data if isinstance(labels, mg.Tensor) else labels
        counted = labels != -100
        if not counted.all():
            logits, labels = logits[counted], labels[counted]
        return nnet.losses.softmax_crossentropy(logits, labels)

    own = {
        "torch.no_grad": nullcontext,
        "torch.add": lambda x, y: mg.add(x, like(x, y)),
        "torch.mul": lambda x, y: mg.multiply(x, like(x, y)),
        "torch.pow": lambda x, y: mg.power(x, like(x, y)),
        "torch.dot": mg.matmul,
        "torch.relu": activations.relu,
        "torch.sigmoid": activations.sigmoid,
        "torch.nn.functional.silu": lambda x: x * activations.sigmoid(x),
        "torch.nn.functional.softmax": lambda x, dim: activations.softmax(x, dim),
        "torch.nn.functional.log_softmax": lambda x, dim: activations.logsoftmax(x, dim),
        "torch.nn.functional.cross_entropy": cross_entropy,
        "torch.nn.functional.conv1d": convolved,
        "torch.nn.functional.conv2d": convolved,
        "torch.nn.functional.max_pool2d": lambda x, side: layers.max_pool(x, (side, side), side),
        "torch.nn.functional.avg_pool2d": lambda x, side: numpy_names.pooled(mg, x, side, mg.mean),
    }
    return numpy_names.functions(mg) | own
