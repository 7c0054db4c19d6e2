"""A Program on refgrad as a function of torch tensors, so that gradcheck can judge refgrad's rules.

Backward is a Function of its own, whose backward differentiates refgrad's recorded backward pass:
so gradgradcheck sees refgrad's second order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from conformance.engines.refgrad import RefgradEngine
from conformance.program import Program, Values

Tensors = tuple[torch.Tensor, ...]


def bridged(
    program: Program, values: Values
) -> tuple[Callable[..., Tensors], tuple[torch.Tensor, ...]]:
    """The function of the leaves, and the leaves; its outputs are those that are floating."""
    engine = RefgradEngine()
    leaves = program.leaves

    def outputs_of(arrays: Sequence[Any], *, grad: bool) -> tuple[list[Any], list[Any]]:
        """refgrad's leaves and floating outputs at these arrays."""
        at = {**values, **{i.name: a for i, a in zip(leaves, arrays, strict=True)}}
        tensors = engine.inputs(program, at, grad=grad)
        found = engine.execute(program, tensors)
        floating = [t for t in found if t.is_floating_point() or t.is_complex()]
        return [tensors[i.name] for i in leaves], floating

    def gradients(arrays: Sequence[Any], cotangents: Sequence[Any], *, create: bool) -> Any:
        points, outputs = outputs_of(arrays, grad=True)
        seeds = [engine.to_tensor(c, c.dtype.name).requires_grad_(create) for c in cotangents]
        pairs = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.requires_grad]
        found = engine.namespace.autograd.grad(
            [o for o, _ in pairs], points, [s for _, s in pairs],
            create_graph=create, allow_unused=True,
        )  # fmt: skip
        return points, seeds, found

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: torch.Tensor) -> Tensors:
            ctx.save_for_backward(*args)
            arrays = [a.detach().numpy() for a in args]
            points, cotangents = arrays[: len(leaves)], arrays[len(leaves) :]
            _, _, found = gradients(points, cotangents, create=False)
            return tuple(_back(g, a) for g, a in zip(found, args[: len(leaves)], strict=True))

        @staticmethod
        def backward(ctx: Any, *weights: torch.Tensor) -> Any:
            arrays = [a.detach().numpy() for a in ctx.saved_tensors]
            points, seeds, found = gradients(
                arrays[: len(leaves)], arrays[len(leaves) :], create=True
            )
            pairs = [
                (g, engine.to_tensor(w.detach().numpy().copy(), str(w.dtype)[6:]))
                for g, w in zip(found, weights, strict=True)
                if g is not None and g.requires_grad
            ]
            if not pairs:
                return tuple(torch.zeros_like(a) for a in ctx.saved_tensors)
            second = engine.namespace.autograd.grad(
                [g for g, _ in pairs], [*points, *seeds], [w for _, w in pairs], allow_unused=True
            )
            return tuple(_back(g, a) for g, a in zip(second, ctx.saved_tensors, strict=True))

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: torch.Tensor) -> Tensors:
            ctx.save_for_backward(*args)
            _, outputs = outputs_of([a.detach().numpy() for a in args], grad=False)
            return tuple(torch.from_numpy(engine.to_numpy(o)) for o in outputs)

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
            return Backward.apply(*ctx.saved_tensors, *cotangents)  # type: ignore[no-untyped-call]

    points = tuple(torch.from_numpy(values[i.name].copy()).requires_grad_() for i in leaves)
    return Forward.apply, points


def _back(gradient: Any, like: torch.Tensor) -> torch.Tensor:
    if gradient is None:
        return torch.zeros_like(like)
    return torch.from_numpy(gradient.detach().numpy().copy())
