"""check_gradients of what stands on a device: `python -m tests.conformance.on_accelerator DEVICE`.

Prints a JSON object: for each case by name whether the report failed, and its text. "spare" is the
stand-in of tests.fakes.accelerator, which is registered for the whole process: hence a process.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from conformance.api import check_gradients
from conformance.report.gradients import Report
from conformance.specs import spec
from tests.fakes import accelerator


class Exp(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return g * ctx.saved_tensors[0]

    @staticmethod
    def vmap(info: Any, dims: Any, x: torch.Tensor) -> Any:
        return Exp.apply(x), dims[0]


class Sine(torch.autograd.Function):
    """A kernel for 16 bits and float32, 5 % off in its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype in (torch.bfloat16, torch.float32)
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 1.05 * g * ctx.saved_tensors[0].cos()


class Twice(Exp):
    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        return 2 * g * ctx.saved_tensors[0]


class Batched(Exp):
    @staticmethod
    def vmap(info: Any, dims: Any, x: torch.Tensor) -> Any:
        return Exp.apply(x).flip(dims[0]), dims[0]


class Mixing(torch.nn.Module):
    """Parameters, a buffer, and a constant that the function makes where its input is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(4, dtype=torch.float64))
        self.register_buffer("shift", torch.rand(4, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = torch.ones(4, dtype=x.dtype, device=x.device)
        return torch.softmax(x * self.weight + self.shift * one, -1) @ self.weight


@torch.library.custom_op("on_accelerator::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x


def _keep(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
    ctx.save_for_backward(inputs[0])


square.register_autograd(lambda ctx, g: 3 * g * ctx.saved_tensors[0], setup_context=_keep)


def cases(device: str) -> Iterator[tuple[str, Callable[[], Report]]]:
    """What is checked, by name."""

    def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype).to(device).requires_grad_()

    def moves(x: torch.Tensor) -> torch.Tensor:
        return (x.to(device) * 2).sin().cpu()

    def picks(x: torch.Tensor) -> torch.Tensor:
        return x[torch.tensor([0, 0, 1]).to(device)] * torch.tensor(2.0)

    def drops(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x.tanh(), 0.5)

    def wrong(x: torch.Tensor) -> torch.Tensor:
        return Twice.apply(x.sin()).sum()

    x, memory = leaf(3, 4), leaf(3, 3).detach()
    shared = memory.clone().requires_grad_()
    layers = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.GELU(), torch.nn.LayerNorm(4))
    yield "module", lambda: check_gradients(Mixing().to(device), x, order=2)
    yield "float32", lambda: check_gradients(layers.to(device), leaf(2, 2, 6, dtype=torch.float32))
    yield "right", lambda: check_gradients(Exp.apply, x, order=2)
    yield "wrong", lambda: check_gradients(Twice.apply, x)
    yield "wrong_within", lambda: check_gradients(wrong, x)
    yield "wrong_batch", lambda: check_gradients(Batched.apply, x)
    yield "custom_op", lambda: check_gradients(square, x)
    yield "moves", lambda: check_gradients(moves, torch.randn(3).double().requires_grad_())
    yield "picks", lambda: check_gradients(picks, x)
    yield "drops", lambda: check_gradients(drops, x)
    yield "closure", lambda: check_gradients(lambda: (x.sin() * x).sum())
    yield "shared", lambda: check_gradients(lambda a, b: a * b.sin(), shared, shared.t())
    yield (
        "complex",
        lambda: check_gradients(
            lambda z: (z * z.conj()).real.sum(), leaf(3, dtype=torch.complex128)
        ),
    )
    dense = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    rounded = leaf(3, 4, dtype=torch.bfloat16)
    yield "bfloat16", lambda: check_gradients(dense.to(device, torch.bfloat16), rounded)
    steep = torch.linspace(-1, 1, 12).reshape(3, 4).bfloat16().to(device).requires_grad_()
    yield "wrong_bfloat16", lambda: check_gradients(Sine.apply, steep)
    yield "half", lambda: check_gradients(lambda x: x.sin().sum(0), x, half=True)
    yield (
        "spec",
        lambda: check_gradients(
            lambda x: Exp.apply(x[:1]) * x.sum(), spec("float64[n, 3]"), device=device, samples=4
        ),
    )


def main(device: str) -> None:
    """Check them all and print what came of it."""
    warnings.simplefilter("ignore")
    if device == accelerator.NAME:
        accelerator.register()
    found = {}
    for name, check in cases(device):
        torch.manual_seed(0)
        report = check()
        found[name] = {"failed": report.failed, "text": str(report)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
