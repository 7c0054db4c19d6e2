"""torch with one op's derivative made wrong, for the tests of shrinking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from conformance import engines
from conformance.engines.torch import TorchEngine
from conformance.errors import ConformanceError
from conformance.mutants.skew import Rule, skewed
from conformance.program import Program, Values


class WrongRule(TorchEngine):
    """The gradient of `target` with respect to its first floating operand goes through `rule`."""

    name = "wrong"

    def __init__(self, target: str, rule: Rule) -> None:
        super().__init__()
        self._target = target
        self._rule = rule

    def _find(self, path: str) -> Any:
        found = super()._find(path)
        if path != self._target:
            return found

        def first(tree: Any, done: list[bool]) -> Any:
            if isinstance(tree, tuple | list):
                return type(tree)(first(item, done) for item in tree)
            floating = isinstance(tree, torch.Tensor) and tree.is_floating_point()
            if floating and not done:
                done.append(True)
                return skewed(tree, self._rule)
            return tree

        return lambda *args, **kwargs: found(*first(args, []), **kwargs)


def disagrees(engine: TorchEngine) -> Callable[[Program, Values], bool]:
    """A predicate: the engine's gradients are not torch's."""
    reference = engines.load("torch")

    def fails(program: Program, values: Values) -> bool:
        try:
            right = reference.run(program, values).outputs
            cotangents = [np.linspace(0.5, 1.5, y.size).reshape(y.shape) for y in right]
            first = reference.vjp(program, values, cotangents).gradients
            second = engine.vjp(program, values, cotangents).gradients
        except ConformanceError:
            return False
        return any(
            a is not None and b is not None and not np.allclose(a, b, rtol=1e-9, atol=1e-12)
            for a, b in zip(first.values(), second.values(), strict=True)
        )

    return fails
