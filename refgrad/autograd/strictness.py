"""What autograd.functional refuses: combinations of options, and with `strict` constant results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad.tensor import wrap

NO_STRICT_FORWARD = (
    'torch.autograd.functional.jacobian: `strict=True` and `strategy="forward-mode"` are not '
    'supported together (yet). Please either set `strict=False` or `strategy="reverse-mode"`.'
)
NO_GRAPH_FORWARD = (
    'torch.autograd.functional.jacobian: `create_graph=True` and `strategy="forward-mode"` are not '
    'supported together (yet). Please either set `create_graph=False` or `strategy="reverse-mode"`.'
)
NO_STRICT_VECTORIZED = (
    "torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported "
    "together. Please either set `strict=False` or `vectorize=False`."
)
NO_LOOP_FORWARD = (
    "Computing Jacobian using forward-AD or forward-over-reverse Hessian is only implemented for "
    "`vectorize=True`."
)
INDEPENDENT = {  # what `strict` refuses: a gradient that does not exist
    "back": "The output of the user-provided function is independent of input {}.",
    "back_trick": "The gradient with respect to the input is independent of entry {} in the "
        "grad_outputs when using the double backward trick to compute forward mode gradients.",
    "double_back": "The jacobian of the user-provided function is independent of input {}.",
    "double_back_trick": "The hessian of the user-provided function is independent of entry {} in "
        "the grad_jacobian.",
}  # fmt: skip
CONSTANT = {  # and a tensor that does not depend on the inputs
    "outputs": "Output {} of the user-provided function does not require gradients. The outputs "
        "must be computed in a differentiable manner from the input when running in strict mode.",
    "grad_inputs": "The gradient with respect to input {} is independent of the inputs of the "
        "user-provided function. This is not allowed in strict mode.",
    "jacobian": "While computing the hessian, found that the jacobian of the user-provided "
        "function with respect to input {} is independent of the input. This is not allowed in "
        "strict mode. You should ensure that your function is twice differentiable and that the "
        "jacobian depends on the inputs (this would be violated by a linear function for example).",
}  # fmt: skip


def check_depend(tensors: Sequence[Any], what: str, strict: bool) -> None:
    """Raise RuntimeError where `strict` forbids that one of these is a constant."""
    for i, t in enumerate(tensors if strict else ()):
        if t is None:
            raise RuntimeError(forbidden(INDEPENDENT["back"].format(i)))
        if not t._requires_grad:
            raise RuntimeError(CONSTANT[what].format(i))


def forbidden(sentence: str) -> str:
    return f"{sentence} This is not allowed in strict mode."


def filled(
    gradients: Sequence[Any], like: tuple[Any, ...], strict: bool, create_graph: bool, stage: str
) -> tuple[Any, ...]:
    """The gradients with zeros for those that do not exist.

    Raises:
        RuntimeError: `strict`, and one does not, or is constant under `create_graph`.
    """
    found: list[Any] = []
    for i, (g, t) in enumerate(zip(gradients, like, strict=True)):
        if g is None:
            if strict:
                raise RuntimeError(forbidden(INDEPENDENT[stage].format(i)))
            g = wrap(np.zeros_like(t._array))
        elif strict and create_graph and not g._requires_grad:
            which = "hessian" if "double" in stage else "jacobian"
            raise RuntimeError(
                f"The {which} of the user-provided function is independent of input {i}. This is "
                "not allowed in strict mode when create_graph=True."
            )
        found.append(g)
    return tuple(found)
