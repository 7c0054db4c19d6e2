"""Engines that are refgrad but for what becomes of its gradients on their way out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from conformance.engines.base import Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.program import Array, Program, Values


class WrongAtTheEnd(RefgradEngine):
    """The gradients of the leaves are changed on their way out."""

    keeps: Collection[str] = ()  # calls whose gradients `finish` reads

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        """Change `gradients` in place."""
        raise NotImplementedError

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        """refgrad's gradients, changed."""
        found = super().vjp(program, values, cotangents, keep=keep or self.keeps)
        gradients = dict(found.gradients)
        self.finish(program, values, found, gradients)
        return Vjp(found.outputs, gradients, found.kept if keep else {})


class Spoilt(WrongAtTheEnd):
    """One leaf's gradient is a function of the right one, and of those of the calls kept."""

    name = "spoilt"

    def __init__(
        self, leaf: str, change: Callable[[Array, Vjp], Array], keeps: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.leaf, self.change, self.keeps = leaf, change, keeps

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        """Change the one leaf's."""
        right = gradients.get(self.leaf)
        if right is not None:
            gradients[self.leaf] = self.change(right, found)
