"""What is wrong with a gradient is recognised, and where; what has no pattern gets no story."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from conformance.checks.compare import compare
from conformance.diagnosis import COTANGENT, diagnose, localise
from conformance.program import Array

RNG = np.random.default_rng(0)
RIGHT = RNG.standard_normal((4, 5))
SQUARE = RNG.standard_normal((4, 4))
CUBE = RNG.standard_normal((2, 3, 4))
COMPLEX = RNG.standard_normal((3, 4)) + 1j * RNG.standard_normal((3, 4))
SCALE = float(np.abs(RIGHT).max())
X = np.round(RNG.standard_normal((4, 5)) * 2, 1)
X[0, 0] = X[2, 3] = 0.0
X[1, 1] = X[3, 2] = 45.0
X[3, 0] = X[1, 4] = 0.7
OTHER = RNG.standard_normal((4, 5))
THIRD = RNG.standard_normal((4, 5))
VALUES = {"x0": X, "x1": OTHER, "x2": np.abs(RNG.standard_normal(5)) + 0.5}
GRADIENTS = {"x0": RIGHT, "x1": THIRD, COTANGENT: RNG.standard_normal((4, 5))}


def at(places: object, value: object, of: Array = RIGHT) -> Array:
    """The right gradient with another value at some places."""
    wrong = of.copy()
    wrong[places] = value
    return wrong


def where(condition: Array, made: Array) -> Array:
    """The right gradient with what was made of it where the condition holds."""
    return np.where(condition, made, RIGHT)


def centred(array: Array, axis: int) -> Array:
    """Without its mean."""
    return np.asarray(array - array.mean(axis, keepdims=True))


TIED = (X[:, :, None, None] == X).sum((2, 3)) > 1
LOWER = np.tril(np.ones((4, 4), bool), -1)
ORDER = np.argsort(X, 0, kind="stable")
CENTRED = centred(RIGHT, 1)

# slug, the wrong gradient, words of the sentence; then the right one where it is not RIGHT
PLANTED: list[tuple[str, str, Array, Array]] = [
    ("sign", "wrong sign everywhere", -RIGHT, RIGHT),
    ("sign", "absolute value", np.abs(RIGHT), RIGHT),
    ("missing factor", "0.5 (1/2)", RIGHT / 2, RIGHT),
    ("missing factor", "2 times", 2 * RIGHT, RIGHT),
    ("missing factor", "is 1.01 times", (1.01 - 2e-14j) * COMPLEX, COMPLEX),
    ("missing factor", "3 times", 3 * RIGHT, RIGHT),
    ("missing factor", "-2 times", -2 * RIGHT, RIGHT),
    ("missing factor", "(pi)", np.pi * RIGHT, RIGHT),
    ("missing factor", "(1/log 2)", RIGHT / np.log(2), RIGHT),
    ("missing factor", "(2/sqrt pi)", 2 / np.sqrt(np.pi) * RIGHT, RIGHT),
    ("missing factor", "5; 5 is the size of axis 1", 5 * RIGHT, RIGHT),
    ("missing factor", "1/5; 5 is the size of axis 1", RIGHT / 5, RIGHT),
    ("missing factor", "5/4; 5 is the size of axis 1", RIGHT * 5 / 4, RIGHT),
    ("missing factor", "4/3; 4 is the size of axis 0", RIGHT * 4 / 3, RIGHT),
    ("missing factor", "1/20; 20 is the number of entries", RIGHT / 20, RIGHT),
    ("missing factor", "1/sqrt 5; 5 is the size of axis 1", RIGHT / np.sqrt(5), RIGHT),
    ("missing factor", "1.0009 times", RIGHT * 1.0009, RIGHT),
    ("missing factor", "1 +1.000e-09 times", RIGHT * (1 + 1e-9), RIGHT),
    ("missing factor", "lacks the factor x1", RIGHT / OTHER, RIGHT),
    ("missing factor", "the factor x1 too often", RIGHT * OTHER, RIGHT),
    ("missing factor", "the factor x2 too often", RIGHT * VALUES["x2"], RIGHT),
    ("missing factor", "the factor x1^2 too often", RIGHT * OTHER**2, RIGHT),
    ("missing factor", "lacks the factor cos(x1)", RIGHT / np.cos(OTHER), RIGHT),
    ("missing factor", "the factor exp(x1) too often", RIGHT * np.exp(OTHER), RIGHT),
    ("factor along an axis", "axis 1 has a factor of its own: 1, 2, 3", RIGHT * [1, 2, 3, 4, 5],
     RIGHT),
    ("factor along an axis", "axis 0", RIGHT * np.array([[1.0], [-1], [0.5], [2]]), RIGHT),
    ("transposed", "axes 0 and 1", SQUARE.T, SQUARE),
    ("transposed", "(4, 3)", CUBE[0].T, CUBE[0]),
    ("transposed", "permuted: (1, 2, 0)",
     np.ones((3, 3, 3)) * np.arange(27.0).reshape(3, 3, 3).transpose(1, 2, 0) ** 1.5,
     np.arange(27.0).reshape(3, 3, 3) ** 1.5),
    ("flipped", "axis 0", RIGHT[::-1], RIGHT),
    ("flipped", "the axes [0, 1]", RIGHT[::-1, ::-1], RIGHT),
    ("permuted", "rolled by 2 along axis 1", np.roll(RIGHT, 2, 1), RIGHT),
    ("permuted", "other places", RNG.permutation(RIGHT.reshape(-1)).reshape(4, 5), RIGHT),
    ("permuted", "(0, 1) and (2, 3) are exchanged",
     at(([0, 2], [1, 3]), RIGHT[[2, 0], [3, 1]]), RIGHT),
    ("unsorted", "sorted x0 along axis 0", np.take_along_axis(RIGHT, ORDER, 0), RIGHT),
    ("swapped", "the one that x1 should have", THIRD, RIGHT),
    ("missing derivative", "the cotangent itself", GRADIENTS[COTANGENT], RIGHT),
    ("missing sum", "sum over axis 1",
     RIGHT, np.broadcast_to(RIGHT.sum(1, keepdims=True), (4, 5)).copy()),
    ("summed too much", "axis 0: the sum", np.broadcast_to(RIGHT.sum(0), (4, 5)).copy(), RIGHT),
    ("summed too much", "axis 1: the mean",
     np.broadcast_to(RIGHT.mean(1, keepdims=True), (4, 5)).copy(), RIGHT),
    ("missing centring", "mean along axis 1 was not taken off", RIGHT, CENTRED),
    ("centred too much", "mean along axis 0 was taken off", centred(RIGHT, 0), RIGHT),
    ("running sum", "from the end of the right one along axis 1",
     np.cumsum(RIGHT[:, ::-1], 1)[:, ::-1], RIGHT),
    ("running sum", "along axis 0 was not taken", RIGHT, np.cumsum(RIGHT, 0)),
    ("not reduced over a broadcast dimension", "axes [0]", CUBE, CUBE.sum(0)),
    ("not reduced over a broadcast dimension", "axes [0, 2]",
     CUBE, CUBE.sum((0, 2)).reshape(3, 1)),
    ("keepdim", "(4,), the leaf's (4, 1)", RIGHT[:, 0], RIGHT[:, :1]),
    ("shape", "(20,)", RIGHT.reshape(-1), RIGHT),
    ("zero", "zero everywhere", 0 * RIGHT, RIGHT),
    ("only negative", "where x0 < 0 (", where(X < 0, -RIGHT), RIGHT),
    ("only negative", "and zero there", where(X < 0, 0 * RIGHT), RIGHT),
    ("only positive", "where x0 > 0", where(X > 0, RIGHT + THIRD), RIGHT),
    ("only zeros", "where x0 is 0 (2 of 20 entries), by a factor 0.5 (1/2)",
     where(X == 0, RIGHT / 2), RIGHT),
    ("only large", "|x0| > 30 (2 of 20 entries), and zero there",
     where(np.abs(X) > 30, 0 * RIGHT), RIGHT),
    ("only ties", "where x0 has ties", where(TIED, 2 * RIGHT), RIGHT),
    ("only above 1", "|x0| > 1", where(np.abs(X) > 1, 0 * RIGHT), RIGHT),
    ("only negative", "where x1 < 0", where(OTHER < 0, RIGHT + 1), RIGHT),
    ("only lower triangle", "below the diagonal",
     np.where(LOWER, 2 * SQUARE, SQUARE), SQUARE),
    ("only diagonal", "on the diagonal", at((range(4), range(4)), 0.0, SQUARE), SQUARE),
    ("nan", "2 of 20 entries, exactly where x0 is 0", where(X == 0, np.nan), RIGHT),
    ("nan", "1 of 20", at((1, 1), np.nan), RIGHT),
    ("inf", "2 of 20 entries, exactly where |x0| > 30", where(np.abs(X) > 30, np.inf), RIGHT),
    ("one slice", "slice 3 along axis 1 is wrong, and zero there", at((slice(None), 3), 0), RIGHT),
    ("one slice", "slice 0 along axis 0 is wrong, with the wrong sign there",
     at(0, -RIGHT[0]), RIGHT),
    ("single entry", "at (2, 1)", at((2, 1), RIGHT[2, 1] + 1e-9 * SCALE), RIGHT),
    ("single entry", "at (2, 1), and zero there", at((2, 1), 0.0), RIGHT),
    ("few entries", "3 of 100", at((range(3), range(3)), 7.0, np.ones((10, 10))
     * np.arange(100.0).reshape(10, 10)), np.arange(100.0).reshape(10, 10)),
    ("clipped", "clipped at 0.5", np.clip(RIGHT, -0.5, 0.5), RIGHT),
    ("bias", "off by 0.25", RIGHT + 0.25, RIGHT),
    ("bias along an axis", "along axis 1", RIGHT + THIRD[:, :1], RIGHT),
    ("rounded", "rounded to float32", RIGHT.astype(np.float32).astype(float), RIGHT),
    ("rounded", "as by float32 on the way", RIGHT * (1 + 6e-8 * OTHER), RIGHT),
    ("precision floor", "off by", RIGHT * (1 + 1e-10 * OTHER), RIGHT),
    ("dtype", "float32", RIGHT.astype(np.float32), RIGHT),
    ("conjugate", "complex conjugate", COMPLEX.conj(), COMPLEX),
    ("conjugate", "minus the conjugate", -COMPLEX.conj(), COMPLEX),
    ("imaginary part", "is dropped", COMPLEX.real + 0j, COMPLEX),
    ("real part", "is dropped", 1j * COMPLEX.imag, COMPLEX),
    ("missing factor", "(i)", 1j * COMPLEX, COMPLEX),
    ("sign", "wrong sign", -COMPLEX, COMPLEX),
    ("wrong", "no known pattern", THIRD**2, RIGHT),
]  # fmt: skip


@pytest.mark.parametrize(
    ("slug", "words", "wrong", "right"), PLANTED, ids=[f"{p[0]}: {p[1]}" for p in PLANTED]
)
def test_a_pattern_is_named(slug: str, words: str, wrong: Array, right: Array) -> None:
    own = right is RIGHT
    values = VALUES if own else {}
    gradients = GRADIENTS if own else {}
    found = diagnose(wrong, right, right.shape, values, leaf="x0", gradients=gradients)
    assert found.slug == slug, found
    assert words in found.sentence


def test_an_operand_that_should_have_been_transposed_is_named() -> None:
    cotangent, weight, other = RNG.standard_normal((3, 4, 4))
    given = {"x0": other, "x1": weight}
    for wrong, right, words in (
        (cotangent @ weight, cotangent @ weight.T, "by x1, and should be by x1 transposed"),
        (cotangent @ weight.T, cotangent @ weight, "by x1 transposed, and should be by x1"),
        (weight @ cotangent, weight.T @ cotangent, "by x1, and should be by x1 transposed"),
    ):
        said = diagnose(wrong, right, (4, 4), given, leaf="x0", gradients={COTANGENT: cotangent})
        assert said.slug == "transposed"
        assert words in said.sentence


def test_the_table_is_long_enough() -> None:
    assert len(PLANTED) >= 70
    assert len({slug for slug, *_ in PLANTED}) >= 30


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda rng, r: r + rng.standard_normal(r.shape),
        lambda rng, r: rng.standard_normal(r.shape),
        lambda rng, r: r * (1 + 0.3 * rng.standard_normal(r.shape)),
        lambda rng, r: np.where(rng.random(r.shape) < 0.5, r, rng.standard_normal(r.shape)),
    ],
    ids=["added", "replaced", "scaled", "half of it"],
)
def test_random_wrongness_gets_no_story(
    spoil: Callable[[np.random.Generator, Array], Array], dtype: str
) -> None:
    told = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        shape = [(7,), (3, 4), (4, 4), (2, 3, 4), (40,)][seed % 5]
        right = rng.standard_normal(shape)
        values = {"x0": np.round(rng.standard_normal(shape), 1), "x1": rng.standard_normal(shape)}
        wrong = spoil(rng, right).astype(dtype)
        others = {"x0": right, "x1": rng.standard_normal(shape)}
        found = diagnose(wrong, right.astype(dtype), shape, values, leaf="x0", gradients=others)
        if found.slug not in ("wrong", "single entry", "few entries"):  # these count, and no more
            told.append((seed, found))
    assert not told


@pytest.mark.parametrize("size", [1e-3, 1e-9])
def test_noise_on_a_vanishing_sum_is_no_missing_centring(size: float) -> None:
    rng = np.random.default_rng(1)
    right = centred(rng.standard_normal((4, 6)), 1)
    found = diagnose(right + size * rng.standard_normal((4, 6)), right, (4, 6))
    assert found.slug in ("wrong", "precision floor")


def test_one_number_is_a_multiple_of_any_other() -> None:
    right = np.array([1.0])
    assert diagnose(np.array([0.317]), right, (1,)).slug == "wrong"
    assert diagnose(np.array([0.5]), right, (1,)).slug == "missing factor"
    assert diagnose(np.array([-1.0]), right, (1,)).slug == "sign"


def test_none_and_shapes_of_broadcast_leaves() -> None:
    assert diagnose(None, RIGHT, (4, 5)).slug == "none"
    assert diagnose(RIGHT, None, (4, 5)).slug == "none"
    assert diagnose(np.zeros((2, 3)), np.ones((3, 2)), (3, 2)).slug == "transposed"


@pytest.mark.parametrize(("count", "most"), [(1, 50), (3, 110), (8, 294)])
def test_wrong_entries_of_4096_are_found_by_bisection(count: int, most: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        places = sorted(int(n) for n in rng.choice(4096, count, replace=False))
        wrong = np.zeros(4096)
        wrong[places] = rng.standard_normal(count)
        asked = []

        def disagreement(direction: Array, wrong: Array = wrong, asked: list[int] = asked) -> bool:
            asked.append(1)
            return bool(abs(wrong @ direction) > 1e-12)

        assert localise(disagreement, 4096, rng) == places
        assert len(asked) <= most


def test_a_weary_bisection_gives_what_is_left() -> None:
    wrong = np.zeros(64)
    wrong[[3, 40]] = 1.0
    asked: list[int] = []

    def disagreement(direction: Array) -> bool:
        asked.append(1)
        return bool(abs(wrong @ direction) > 1e-12)

    rng = np.random.default_rng(0)
    found = localise(disagreement, 64, rng, weary=lambda: len(asked) > 6)
    assert {3, 40} < set(found) < set(range(64))


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


# entries that tie: rounding exchanges their gradients, so that two right engines differ in them
MANY = np.random.default_rng(1).standard_normal((50, 60))
TWO = (np.array([7, 30]), np.array([11, 2]))
ANYTHING = np.zeros_like(MANY)
ANYTHING[TWO] = 10.0
EXCHANGED = MANY.copy()
EXCHANGED[TWO] = MANY[TWO][::-1]


def test_of_entries_that_may_be_anything_nothing_is_said() -> None:
    wrong = EXCHANGED.copy()
    wrong[3, 4] += 1e-5
    found = diagnose(wrong, MANY, MANY.shape, allowed=ANYTHING)
    assert found.slug == "single entry"
    assert "at (3, 4)" in found.sentence
    assert "1.0e-05" not in diagnose(wrong, MANY, MANY.shape).sentence


@pytest.mark.parametrize(
    ("slug", "made"),
    [
        ("permuted", lambda g: np.roll(g, 1, 1)),
        ("flipped", lambda g: np.flip(g, 0)),
        ("missing factor", lambda g: g / 2),
    ],
)
def test_the_rest_still_makes_a_pattern(slug: str, made: Callable[[Array], Array]) -> None:
    wrong = np.ascontiguousarray(made(EXCHANGED))
    found = diagnose(wrong, MANY, MANY.shape, allowed=ANYTHING)
    assert found.slug == slug
    assert "other places" not in found.sentence


def test_where_many_may_be_anything_a_pattern_still_has_to_hold_of_all() -> None:
    wrong = np.roll(MANY, 1, 1)
    wrong[TWO] += 1.0
    assert diagnose(wrong, MANY, MANY.shape, allowed=10.0 * np.ones_like(MANY)).slug == "wrong"
