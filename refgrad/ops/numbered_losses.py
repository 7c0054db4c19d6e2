"""torch's own losses, which have no `size_average` and `reduce` and number the reductions 0, 1, 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refgrad.ops import likelihoods, losses

__all__ = [
    "binary_cross_entropy_with_logits", "cosine_embedding_loss", "hinge_embedding_loss", "kl_div",
    "margin_ranking_loss", "poisson_nll_loss", "triplet_margin_loss",
]  # fmt: skip


def _numbered(function: Callable[..., Any], parameters: str) -> Callable[..., Any]:
    names = parameters.split()

    def loss(*args: Any, **kwargs: Any) -> Any:
        if len(args) > len(names):
            raise TypeError(f"{function.__name__}() takes {len(names)} positional arguments but "
                            f"{len(args)} were given")  # fmt: skip
        return function(**dict(zip(names, args)), **kwargs)

    loss.__name__ = function.__name__
    loss.__doc__ = f"torch.nn.functional.{function.__name__}, of ({', '.join(names)})."
    return loss


binary_cross_entropy_with_logits = _numbered(
    likelihoods.binary_cross_entropy_with_logits, "input target weight pos_weight reduction"
)
cosine_embedding_loss = _numbered(
    losses.cosine_embedding_loss, "input1 input2 target margin reduction"
)
hinge_embedding_loss = _numbered(losses.hinge_embedding_loss, "input target margin reduction")
kl_div = _numbered(likelihoods.kl_div, "input target reduction")
margin_ranking_loss = _numbered(losses.margin_ranking_loss, "input1 input2 target margin reduction")
poisson_nll_loss = _numbered(
    likelihoods.poisson_nll_loss, "input target log_input full eps reduction"
)
triplet_margin_loss = _numbered(
    losses.triplet_margin_loss, "anchor positive negative margin p eps swap reduction"
)
