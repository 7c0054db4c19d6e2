"""What is wrong with a gradient is recognised, and where."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.checks.compare import compare
from conformance.diagnosis import diagnose, localise
from conformance.program import Array

RIGHT = np.random.default_rng(0).standard_normal((4, 4))
SCALE = float(np.abs(RIGHT).max())
OTHER = {"x1": np.random.default_rng(1).standard_normal((4, 4))}


def _single() -> Array:
    wrong = RIGHT.copy()
    wrong[2, 1] += 1e-9 * SCALE
    return wrong


def _nan() -> Array:
    wrong = RIGHT.copy()
    wrong[1, 1] = np.nan
    return wrong


@pytest.mark.parametrize(
    ("slug", "wrong", "words"),
    [
        ("sign", -RIGHT, "wrong sign"),
        ("missing factor", RIGHT / 2, "1/2"),
        ("missing factor", 3 * RIGHT, "3"),
        ("missing factor", RIGHT * 1.0009, "1.0009"),
        ("missing factor", RIGHT / OTHER["x1"], "x1"),
        ("missing factor", RIGHT * OTHER["x1"], "x1"),
        ("transposed", RIGHT.T, "axes 0 and 1"),
        ("flipped", RIGHT[::-1], "axis 0"),
        ("permuted", np.roll(RIGHT, 1, 1), "rolled by 1 along axis 1"),
        ("permuted", np.sort(RIGHT.reshape(-1)).reshape(4, 4), "other places"),
        ("summed too much", np.broadcast_to(RIGHT.sum(0), (4, 4)).copy(), "axis 0"),
        ("summed too much", np.broadcast_to(RIGHT.mean(1, keepdims=True), (4, 4)).copy(), "axis 1"),
        ("zero", 0 * RIGHT, "zero everywhere"),
        ("nan", _nan(), "1 of 16"),
        ("single entry", _single(), "(2, 1)"),
        ("precision floor", RIGHT * (1 + 1e-10 * OTHER["x1"]), "off by"),
        ("bias", RIGHT + 0.25, "0.25"),
        ("dtype", RIGHT.astype(np.float32), "float32"),
        ("shape", RIGHT.reshape(-1), "(16,)"),
        ("wrong", OTHER["x1"] ** 2, "no known pattern"),
    ],
)
def test_a_pattern_is_named(slug: str, wrong: Array, words: str) -> None:
    found = diagnose(wrong, RIGHT, (4, 4), others=OTHER)
    assert found.slug == slug
    assert words in found.sentence


def test_none_and_shapes_of_broadcast_leaves() -> None:
    assert diagnose(None, RIGHT, (4, 4)).slug == "none"
    assert diagnose(RIGHT, None, (4, 4)).slug == "none"
    unreduced = np.random.default_rng(2).standard_normal((3, 4))
    found = diagnose(unreduced, unreduced.sum(0), (4,))
    assert found.slug == "not reduced over a broadcast dimension"
    assert "[0]" in found.sentence
    assert diagnose(np.zeros((2, 3)), np.ones((3, 2)), (3, 2)).slug == "transposed"


def test_wrong_entries_are_found_by_bisection() -> None:
    rng = np.random.default_rng(0)
    wrong = np.zeros(4096)
    wrong[[7, 1000, 4095]] = 1.0
    asked = []

    def disagreement(direction: Array) -> bool:
        asked.append(1)
        return bool(abs(wrong @ direction) > 1e-12)

    assert localise(disagreement, 4096, rng) == [7, 1000, 4095]
    assert len(asked) < 150


def test_comparison_takes_nan_and_inf_as_values() -> None:
    a = np.array([1.0, np.nan, np.inf])
    assert compare(a, a.copy(), relative=1e-12) is None
    for other in ([1.0, np.nan, -np.inf], [1.0, 0.0, np.inf]):
        found = compare(np.array(other), a, relative=1e-12)
        assert found is not None
        assert found.kind == "nan"
    assert compare(None, None, relative=0) is None
    empty = np.zeros((0, 3))
    assert compare(empty, empty, relative=0) is None


def test_comparison_is_on_the_scale_of_the_leaf() -> None:
    right = np.array([1.0, 1e-20])
    assert compare(np.array([1.0, 3e-13]), right, relative=1e-12) is None
    found = compare(np.array([1.0, 3e-12]), right, relative=1e-12)
    assert found is not None
    assert found.index == (1,)
    assert found.error == pytest.approx(3e-12)
    complex_right = right + 1j
    found = compare(complex_right + np.array([0, 1e-3j]), complex_right, relative=1e-12)
    assert found is not None
    assert found.index == (1,)
