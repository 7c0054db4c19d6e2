"""The time of a chain of small tensors on refgrad over that on torch eager, one thread.

    python -m tests.refgrad.speed_against_torch

Both engines take turns within one process, and the ratio is the median over paired rounds: the
same code timed in separate sessions differs by more than what is looked for.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch

import refgrad

ROUNDS = 60
LINKS = 250  # of five nodes each, on 8 floats


def timed(module: Any) -> tuple[float, float]:
    """Seconds of the forward and of the backward of one chain."""
    x = module.from_numpy(np.linspace(0.1, 0.9, 8)).requires_grad_()
    w = module.from_numpy(np.linspace(0.5, 1.5, 8)).requires_grad_()
    start = time.perf_counter()
    y = x
    for _ in range(LINKS):
        y = module.exp(module.neg(module.add(module.mul(module.sin(y), w), x)))
    loss = y.sum()
    middle = time.perf_counter()
    loss.backward()
    return middle - start, time.perf_counter() - middle


def main() -> None:
    """Print the median ratio and its quartiles, and the time of a node."""
    torch.set_num_threads(1)
    pairs = [(timed(refgrad), timed(torch)) for _ in range(ROUNDS)][5:]
    for i, what in enumerate(("forward", "backward")):
        ratios = [ours[i] / theirs[i] for ours, theirs in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        each = [statistics.median(p[k][i] for p in pairs) / (5 * LINKS) * 1e6 for k in (0, 1)]
        print(
            f"{what}: ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}), "
            f"{each[0]:.2f} us a node on refgrad, {each[1]:.2f} on torch, n = {len(pairs)}"
        )


if __name__ == "__main__":
    main()
