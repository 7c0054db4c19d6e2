"""Random numbers by name: the same again, and independent from name to name."""

from __future__ import annotations

import numpy as np

from conformance.streams import named


def test_the_same_names_give_the_same_numbers_and_others_give_others() -> None:
    first = named("a", "b", seed=0).standard_normal(4)
    assert np.array_equal(first, named("a", "b", seed=0).standard_normal(4))
    others = [named("a", "b", seed=1), named("ab", seed=0), named("b", "a", seed=0)]
    assert all(not np.array_equal(first, other.standard_normal(4)) for other in others)


def test_streams_whose_names_are_alike_are_independent() -> None:
    drawn = np.array([named("case", str(n), seed=0).standard_normal(2) for n in range(10_000)])
    assert np.abs(drawn.mean(axis=0)).max() < 0.04
    assert np.abs(drawn.var(axis=0) - 1).max() < 0.06
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.04
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.04
