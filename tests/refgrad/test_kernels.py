"""Each kernel against the line of NumPy that it stands for; what is built on it against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special as sps

import refgrad
from refgrad.ops import kernels
from refgrad.ops.convolution import _correlate, _spread, _weight
from tests.refgrad.both import both
from tests.refgrad.derivatives import assert_same

mpmath = pytest.importorskip("mpmath")

GENERATOR = np.random.default_rng(5)
START = GENERATOR.bit_generator.state
SHAPES = [
    (), (0,), (7,), (3, 0), (5, 13), (130, 517), (2, 3, 1, 5), (3, 5, 7, 11), (6, 5, 8, 9),
    (9, 8, 32, 33),
]  # fmt: skip


@pytest.fixture(autouse=True)
def the_same_numbers_whatever_ran_before() -> None:
    GENERATOR.bit_generator.state = START


def drawn(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    values = GENERATOR.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * GENERATOR.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def layouts(x: np.ndarray) -> list[np.ndarray]:
    """`x` in row-major and in column-major order, and with strides."""
    wide = np.zeros(tuple(2 * n for n in x.shape), dtype=x.dtype)
    strided = wide[(..., *(slice(None, None, 2) for _ in x.shape))]
    strided[...] = x
    return [x, np.array(x, order="F"), strided]


def axes_of(ndim: int) -> list[tuple[int, ...]]:
    """No axis, each, the first and the last two, the first and the last, all but the second."""
    found = [(), *((i,) for i in range(ndim)), tuple(range(ndim))]
    if ndim > 2:
        found += [(0, 1), (ndim - 2, ndim - 1), (0, ndim - 1), (0, *range(2, ndim))]
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64, np.bool_])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_maxima(shape: tuple[int, ...], dtype: Any) -> None:
    tolerance = 1e-4 if dtype is np.float32 else 1e-11
    for x in layouts(drawn(shape, dtype)):
        for axis in axes_of(x.ndim):
            for keep in (False, True):
                made, line = kernels.sum_over(x, axis, keep), np.sum(x, axis=axis, keepdims=keep)
                assert made.shape == line.shape
                assert made.dtype == line.dtype
                np.testing.assert_allclose(made, line, rtol=tolerance, atol=tolerance)
            if x.size:
                made, line = kernels.row_max(x, axis), np.max(x, axis, keepdims=True)
                assert made.dtype == line.dtype
                np.testing.assert_array_equal(made, line)


def test_a_row_with_a_nan_has_it_for_its_maximum() -> None:
    x = drawn((64, 40), np.float32)
    x[3, 7] = x[60, 0] = np.nan
    x[5], x[6, 2] = -np.inf, np.inf
    np.testing.assert_array_equal(kernels.row_max(x, 1), np.max(x, 1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_products(shape: tuple[int, ...], dtype: Any) -> None:
    tolerance = 1e-4 if dtype is np.float32 else 1e-11
    x, y = drawn(shape, dtype), drawn(shape, dtype)
    for a, b in zip(layouts(x), reversed(layouts(y)), strict=True):
        for axis in axes_of(x.ndim):
            made, line = kernels.inner_over(a, b, axis), np.sum(x * y, axis=axis, keepdims=True)
            assert made.shape == line.shape
            assert made.dtype == line.dtype
            np.testing.assert_allclose(made, line, rtol=tolerance, atol=tolerance)


def test_sums_of_products_that_broadcast() -> None:
    x, y = drawn((3, 4), np.float64), drawn((4,), np.float64)
    line = np.sum(x * y, axis=(1,), keepdims=True)
    np.testing.assert_array_equal(kernels.inner_over(x, y, (1,)), line)


def test_nan_and_infinities_in_sums() -> None:
    x = np.ones((300, 300), dtype=np.float32)
    x[3, 4], x[5, 6], x[7, 8] = np.inf, -np.inf, np.nan
    x[9, 1], x[9, 2] = np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(kernels.sum_over(x, (1,)), np.sum(x, axis=1))
        line = np.sum(x * x, axis=1, keepdims=True)
        np.testing.assert_allclose(kernels.inner_over(x, x, (1,)), line)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [5, 3001])
def test_expit(n: int, dtype: Any) -> None:
    x = drawn((n,), dtype) * 30
    x[:5] = 0, np.inf, -np.inf, np.nan, 200
    with np.errstate(over="ignore"):
        made = kernels.expit(x)
    assert made.dtype == x.dtype
    np.testing.assert_allclose(made, sps.expit(x), rtol=8 * np.finfo(dtype).eps, atol=1e-37)


EPS = np.finfo(float).eps


def angles(where: str, n: int = 1024) -> np.ndarray:
    rng = np.random.default_rng(3)
    near = 1 + rng.uniform(-1e-6, 1e-6, n)
    return {
        "normal": rng.standard_normal(n),
        "wide": rng.uniform(-1000, 1000, n),
        "a zero of cos": np.pi / 2 * near,
        "a zero of sin": np.pi * rng.integers(1, 9, n) * near,
        "far": 10.0 ** rng.uniform(3, 300, n),
        "tiny": 10.0 ** rng.uniform(-300, 0, n),
        "zeros": rng.choice([0.0, -0.0], n),
    }[where]


@pytest.mark.parametrize("where", [
    "normal", "wide", "a zero of cos", "a zero of sin", "far", "tiny", "zeros",
])  # fmt: skip
def test_slopes_of_sin_and_cos(where: str) -> None:
    """Against mpmath: of the sine relative to it, of the cosine relative to 1."""
    x = angles(where)
    with mpmath.workdps(350):
        for made, function, weak in (
            (kernels.cosine(x), mpmath.cos, True),
            (kernels.sine(x), mpmath.sin, False),
        ):
            for number, angle in zip(made.tolist(), x.tolist(), strict=True):
                due = function(mpmath.mpf(angle))
                assert abs(number - due) <= 1.5 * EPS * (1 if weak else abs(due))


@pytest.mark.parametrize("kernel", [kernels.cosine, kernels.sine])
def test_slopes_of_sin_and_cos_where_these_are_none(kernel: Any) -> None:
    x = np.full(1000, np.inf)
    x[::2] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(kernel(x)).all()


def test_slopes_of_sin_and_cos_without_a_vector_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_fast_tan", lambda: False)
    x = angles("wide")
    assert np.array_equal(kernels.cosine(x), np.cos(x))
    assert np.array_equal(kernels.sine(x), np.sin(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64, np.float16])
@pytest.mark.parametrize("shape", [(40, 3), (40, 200), (300, 200), (5, 7, 31), (0, 4), (30, 0)])
def test_rows_are_added_in_order(shape: tuple[int, ...], dtype: Any) -> None:
    rows = (drawn(shape, np.float64) * 8).astype(dtype)
    index = GENERATOR.integers(-6, 6, len(rows))
    made, line = np.zeros((6, *shape[1:]), dtype), np.zeros((6, *shape[1:]), dtype)
    kernels.add_rows_at(made, index, rows)
    np.add.at(line, index, rows)
    np.testing.assert_array_equal(made, line)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [
    (slice(None), GENERATOR.integers(-5, 5, 70)),
    (slice(None), GENERATOR.integers(0, 5, (7, 10)), slice(None)),
    (GENERATOR.integers(0, 30, (2, 3)),),
    (slice(None), slice(None), GENERATOR.integers(0, 9, 100)),
    (GENERATOR.integers(0, 30, 50), GENERATOR.integers(0, 5, 50)),
    (GENERATOR.integers(0, 30, 50), slice(None), GENERATOR.integers(0, 9, 50)),
    (GENERATOR.random((30, 5)) < 0.5,),
    (slice(None), GENERATOR.random((5, 9)) < 0.5),
    (np.array(True),),
])  # fmt: skip
def test_additions_by_index(index: Any, dtype: Any) -> None:
    start = drawn((30, 5, 9), dtype)
    for values in (drawn(start[index].shape, dtype), drawn((), dtype)):
        made, line = start.copy(), start.copy()
        kernels.add_at(made, index, values)
        np.add.at(line, index, values)
        tolerance = 1e-5 if dtype is np.float32 else 1e-12
        np.testing.assert_allclose(made, line, rtol=tolerance, atol=tolerance)


# --- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1), 1), ((3, 2), (1, 1), (4, 0), (1, 2), 2),
        ((1, 1), (1, 1), (0, 0), (1, 1), 4), ((3, 3), (1, 1), (0, 3), (2, 1), 4),
        ((3, 3), (2, 1), (1, 1), (1, 1), 1), ((2, 3), (2, 3), (1, 2), (1, 1), 4),
        ((5, 1), (1, 1), (0, 0), (1, 1), 1),
    ],
)  # fmt: skip
def test_the_three_convolutions_are_one_form(
    kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, dtype: Any
) -> None:
    """<g, conv(x, w)> is one number, whichever of the three is contracted with the rest."""
    x, w = drawn((3, 4, 9, 11), dtype), drawn((8 if groups < 4 else 4, 4 // groups, *kernel), dtype)
    places = tuple(
        (n + 2 * p - r * (k - 1) - 1) // s + 1
        for n, k, s, p, r in zip((9, 11), kernel, stride, padding, dilation, strict=True)
    )
    options = (stride, padding, dilation, groups)
    plain = np.zeros((3, len(w), *places))
    wide = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding))).astype(np.float64)
    for o in range(len(w)):
        lead = o // (len(w) // groups) * w.shape[1]
        for c, i, j in np.ndindex(*w.shape[1:]):
            rows = slice(i * dilation[0], i * dilation[0] + places[0] * stride[0], stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + places[1] * stride[1], stride[1])
            part = wide[:, lead + c, rows, columns][:, : places[0], : places[1]]
            plain[:, o] += part * w[o, c, i, j]
    tolerance = 1e-4 if dtype is np.float32 else 1e-11
    for a in layouts(x):
        y = _correlate(a, w, places, stride, padding, padding, dilation, groups)
        np.testing.assert_allclose(y, plain, atol=tolerance)
    g = drawn(plain.shape, dtype)
    form = np.sum(g * plain)
    by_x = np.sum(_spread(g, w, (9, 11), *options).astype(np.float64) * x)
    by_w = np.sum(_weight(g, x, kernel, *options).astype(np.float64) * w)
    np.testing.assert_allclose([by_x, by_w], form, rtol=tolerance, atol=tolerance)


# --- what is built on them, against torch --------------------------------------------------------


NORMS = [
    (name, weight, bias)
    for name in ("layer", "batch", "group", "instance")
    for weight in (False, True)
    for bias in (False, True)
    if name != "group" or weight is bias  # torch raises with create_graph where one is alone
]


@pytest.mark.parametrize(("name", "weight", "bias"), NORMS)
def test_norms_at_second_order(name: str, weight: bool, bias: bool) -> None:
    def norm(m: Any, x: Any, *vectors: Any) -> Any:
        given = iter(vectors)
        w, b = (next(given) if has else None for has in (weight, bias))
        f = m.nn.functional
        x = x.transpose(2, 3)  # not in order
        if name == "layer":
            return f.layer_norm(x, (4,), w, b) ** 2
        if name == "group":
            return f.group_norm(x, 2, w, b) ** 2
        return getattr(f, f"{name}_norm")(x, None, None, w, b, True) ** 2

    vectors = [drawn((4,), np.float64) for has in (weight, bias) if has]
    order = 2 if weight is bias else 1  # torch raises at second order with one of them alone
    assert_same(norm, drawn((3, 4, 4, 5), np.float64), *vectors, order=order, rtol=1e-7)


def test_a_norm_may_be_written_over() -> None:
    def code(m: Any) -> Any:
        x = m.linspace(-2.0, 3.0, 24, dtype=m.float64).reshape(4, 6).requires_grad_()
        y = m.nn.functional.batch_norm(x, None, None, None, None, True)
        y.relu_()
        (y * y * y).sum().backward()
        return x.grad

    both(code)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 3, 4)])
@pytest.mark.parametrize("ignored", [-100, 1])
def test_nll_at_second_order(reduction: str, shape: Any, ignored: int) -> None:
    targets = GENERATOR.integers(0, 3, shape[:1] + shape[2:] if len(shape) > 1 else ())
    targets = np.asarray(targets)
    targets.reshape(-1)[0] = 0

    def loss(m: Any, x: Any) -> Any:
        p = m.nn.functional.log_softmax(x * x, 0 if len(shape) == 1 else 1)
        return m.nn.functional.nll_loss(
            p, m.from_numpy(targets), reduction=reduction, ignore_index=ignored
        )

    assert_same(loss, drawn(shape, np.float64), order=2)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gathering_at_second_order(dim: int) -> None:
    index = GENERATOR.integers(0, 3, (3, 3, 2))

    def code(m: Any, x: Any, y: Any) -> Any:
        i = m.from_numpy(index)
        picked = m.gather(x * x, dim, i)
        return m.scatter_add(y * y, dim, i, picked * picked)[:, [0, 2, 2]]

    assert_same(code, drawn((3, 4, 5), np.float64), drawn((4, 3, 3), np.float64), order=2)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softmax", "log_softmax"])
def test_slopes_at_second_order(name: str) -> None:
    def code(m: Any, x: Any) -> Any:
        made = getattr(m, name)
        return made(x.mT, -1) ** 2 if name.endswith("softmax") else made(x.mT) ** 2

    x = drawn((4, 5), np.float64) * 3
    assert_same(code, x, order=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_views_by_methods(shape: tuple[int, ...]) -> None:
    for x in layouts(drawn(shape, np.float64)):
        made = kernels.reshaped(x, (-1,) if x.size else (0,))
        np.testing.assert_array_equal(made, x.ravel())
        np.testing.assert_array_equal(kernels.turned(x, range(x.ndim)[::-1]), x.T)
        if x.ndim > 1:
            np.testing.assert_array_equal(kernels.swapped(x, 0, -1), np.swapaxes(x, 0, -1))


@pytest.mark.parametrize(
    ("shape", "to"),
    [((), (2, 3)), ((3,), (2, 3)), ((2, 1), (2, 3)), ((1, 1), (4, 2, 3)), ((2, 3), (2, 3)),
     ((0, 1), (0, 3)), ((1, 0), (3, 0)), ((1,), (0,))],
)  # fmt: skip
def test_widened(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    for x in layouts(drawn(shape, np.float32)):
        made, line = kernels.widened(x, to), np.broadcast_to(x, to)
        np.testing.assert_array_equal(made, line)
        assert made.dtype == line.dtype
        assert made.flags.writeable is False
        assert np.may_share_memory(made, x) == bool(line.size)


@pytest.mark.parametrize(("shape", "to"), [((2,), (3,)), ((2, 3), (3,)), ((3, 2), (2, 3))])
def test_what_does_not_broadcast_is_not_widened(shape: Any, to: Any) -> None:
    with pytest.raises(ValueError, match=r"broadcast|dimensions"):
        kernels.widened(np.ones(shape), to)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_place(shape: tuple[int, ...], dtype: Any) -> None:
    x, y = drawn(shape, dtype), drawn(shape, dtype)
    a, b, c = (drawn((*shape[:-1], 1) if shape else (), dtype) for _ in range(3))
    line = (x * a + y - b) * c
    np.testing.assert_array_equal(kernels.fitted(x, a, y, b, c), line)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.int64])
@pytest.mark.parametrize("shape", [(40, 50), (50,), (40, 1), (2, 40, 50), (3, 4), ()])
def test_choices_are_those_of_numpy(shape: tuple[int, ...], dtype: Any) -> None:
    condition = drawn((3, 4) if shape == (3, 4) else (40, 50), np.float64) > 0
    x, y = (drawn(shape, np.float64).astype(dtype) for _ in "xy")
    if x.dtype.kind in "fc" and x.size >= 8:
        x.flat[:8:2] = y.flat[1:8:2] = (np.nan, np.inf, -np.inf, -0.0)
    column = x[..., :1] if shape else x
    for a, b in ((x, y), (x, column), (x, 0.0), (0.0, y), (x, -0.0), (-0.0, y), (2, y), (x, 1.5)):
        made, line = kernels.either(condition, a, b), np.where(condition, a, b)
        assert (made.shape, made.dtype) == (line.shape, line.dtype)
        np.testing.assert_array_equal(made, line)
        np.testing.assert_array_equal(np.signbit(made.real), np.signbit(line.real))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("n", [7, 9000])
@pytest.mark.parametrize(("low", "high"), [
    (0, None), (None, 0), (-0.5, 0.25), (0.5, -0.5), (None, None), (0.0, np.inf), (np.nan, 1.0),
    (-1, np.nan), (np.float64(0.5), None),
])  # fmt: skip
def test_bounds(low: Any, high: Any, n: int, dtype: Any) -> None:
    x = drawn((n,), np.float64).astype(dtype)
    if x.dtype.kind == "f":
        x[:4] = np.nan, np.inf, -np.inf, -0.0
    line = x if low is None else np.maximum(x, low)
    line = line if high is None else np.minimum(line, high)
    made = kernels.between(x, low, high)
    assert made.dtype == line.dtype
    np.testing.assert_array_equal(made, line)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_within_rounding(dtype: Any) -> None:
    x = np.concatenate([np.linspace(-80, 80, 4001), [0.0, -0.0, 1e-30, -1e-30]]).astype(dtype)
    due = np.logaddexp(x.astype(np.longdouble), 0)
    assert np.max(np.abs(kernels.softplus(x) - due) / due) <= 4 * np.finfo(dtype).eps
    extreme = np.tile(np.array([np.inf, -np.inf, np.nan, 1e30, -1e30], dtype), 20)
    with np.errstate(under="ignore"):
        made = kernels.softplus(extreme)
    np.testing.assert_array_equal(made[:5], [np.inf, 0, np.nan, dtype(1e30), 0])


@pytest.mark.parametrize(("shape", "other", "rows"), [
    ((64, 1024), (64, 1), True),        # a column
    ((64, 1024), (1024,), True),        # a row
    ((64, 1024), (1, 1024), True),
    ((8, 32, 64, 64), (1, 32, 1, 1), True),
    ((8, 32, 1, 1024), (32, 1, 1), True),
    ((4, 16, 32, 32), (16, 32, 32), False),  # a row that is longer than the buffer
    ((4, 8, 8192), (4, 8, 1), False),
    ((128, 128), (128, 1), True),       # the shortest
    ((1024, 64), (1024, 1), False),     # rows that are not worth it
    ((8, 1024), (8, 1), False),         # few elements
    ((64, 1024), (), False),            # a single loop
    ((64, 1024), (64, 1024), False),
])  # fmt: skip
def test_where_a_row_more_than_fills_the_buffer(shape: Any, other: Any, rows: bool) -> None:
    x, v = drawn(shape, np.float32), drawn(other, np.float32)
    line, before = x - v, np.getbufsize()
    with kernels.rowwise(x, v):
        assert (np.getbufsize() == 64) is rows
        np.testing.assert_array_equal(x - v, line)
    assert np.getbufsize() == before


def test_the_buffer_is_afterwards_as_the_user_had_it() -> None:
    x, v = np.ones((64, 1024)), np.ones((64, 1))
    before = np.setbufsize(4096)
    try:
        with pytest.raises(FloatingPointError), np.errstate(divide="raise"), kernels.rowwise(x, v):
            np.divide(x, v - 1)
        assert np.getbufsize() == 4096
        assert np.geterr()["divide"] == "warn"
    finally:
        np.setbufsize(before)


@pytest.mark.parametrize(("name", "x", "g"), [("rsqrt", 4e-4, 0.1), ("reciprocal", 2e-3, 0.05)])
def test_float16_keeps_a_slope_whose_power_is_beyond_it(name: str, x: float, g: float) -> None:
    leaf = refgrad.tensor([x], dtype=refgrad.float16, requires_grad=True)
    getattr(refgrad, name)(leaf).backward(refgrad.tensor([g], dtype=refgrad.float16))
    at, weight = float(leaf.detach()), float(refgrad.tensor(g, dtype=refgrad.float16))
    due = weight * (-0.5 * at**-1.5 if name == "rsqrt" else -(at**-2))
    assert abs(float(leaf.grad) - due) <= 4e-3 * abs(due)


def test_attention_in_float16_whose_scores_are_beyond_it() -> None:
    def code(t: Any) -> Any:
        q = (200.0 * t.eye(4, 64)).to(t.float16)
        k = t.full((4, 64), 200.0, dtype=t.float16)
        v = t.arange(12.0).reshape(4, 3).to(t.float16).requires_grad_()
        out = t.nn.functional.scaled_dot_product_attention(q, k, v, scale=8.0)
        return out, *t.autograd.grad(out.sum(), (v,))

    both(code)
