"""torch.func: transforms of functions, which compose with each other in any order.

A reverse transform (`grad`, `vjp`, `jacrev`) calls the function on tensors of its own and takes the
gradient with respect to these alone, so that nested ones keep their variables apart; a forward one
(`jvp`, `jacfwd`) opens a level of forward mode. Inputs and outputs are trees of tensors: tuples,
lists and dicts.
"""

from __future__ import annotations

from refgrad.func.batching import vmap
from refgrad.func.forward import hessian, jacfwd, jvp, linearize
from refgrad.func.reverse import grad, grad_and_value, jacrev, vjp

__all__ = [
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "vjp",
    "vmap",
]
