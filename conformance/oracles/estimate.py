"""What an oracle says: a derivative, a bound on its error, and what it met at the point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Kink:
    """The slopes from the two sides of a point where they differ, with their bounds.

    `jump` is true where the function itself jumps, and the slopes are those of its pieces.
    """

    left: Array
    right: Array
    left_bound: Array
    right_bound: Array
    jump: bool = False

    def holds(self, value: Array, slack: float = 0.0) -> bool:
        """Whether `value` lies between the two slopes, bounds included."""
        low = np.minimum(self.left - self.left_bound, self.right - self.right_bound) - slack
        high = np.maximum(self.left + self.left_bound, self.right + self.right_bound) + slack
        return bool(((low <= value) & (value <= high)).all())


@dataclass(frozen=True)
class Estimate:
    """A derivative and the bound on its absolute error; nan and inf where nothing is known.

    `size` is that of the function itself: of its value, or beside the point where that is 0.
    """

    value: Array
    bound: Array
    evaluations: int = 0
    reason: str = ""  # why the bound is poor, or one-sided; empty where all is plain
    kink: Kink | None = None
    size: Array | None = None
