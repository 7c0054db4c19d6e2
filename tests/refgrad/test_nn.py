"""torch.nn.functional beyond torch's samples: kinks, ties, geometries, errors, torch's faults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.both import both, both_raise
from tests.refgrad.derivatives import assert_same, assert_same_error, run

F = refgrad.nn.functional
GENERATOR = np.random.default_rng(0)
FIRST = GENERATOR.bit_generator.state


@pytest.fixture(autouse=True)
def _drawn_anew() -> None:
    """Each test draws the same numbers, whatever ran before it in its worker."""
    GENERATOR.bit_generator.state = FIRST


def normal(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape)


# --- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_convolutions(stride: int, padding: int, dilation: int, groups: int) -> None:
    x, b = normal(2, 4, 7, 6), normal(4)
    options = (stride, padding, dilation, groups)
    assert_same(lambda m, *t: m.nn.functional.conv2d(*t, *options),
                x, normal(4, 4 // groups, 3, 2), b, order=2)  # fmt: skip
    options = (stride, padding, min(stride, dilation) - 1, groups, dilation)
    assert_same(lambda m, *t: m.nn.functional.conv_transpose2d(*t, *options),
                x, normal(4, 4 // groups, 3, 2), b, order=2)  # fmt: skip


def _backwards(x: np.ndarray) -> np.ndarray:
    """The same values, the first dimension fastest in memory."""
    return np.asfortranarray(x)


def _every_second(x: np.ndarray) -> np.ndarray:
    """The same values, with gaps between them in memory."""
    return np.repeat(x, 2, -1)[..., ::2]


@pytest.mark.parametrize("lay", [_backwards, _every_second])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
def test_a_convolution_of_any_layout(padding: int, stride: int, size: int, lay: Any) -> None:
    x, w = lay(normal(2, 4, 5, 5)), lay(normal(6, 2, size, size))
    found = []
    for m in (torch, refgrad):
        leaves = [m.from_numpy(a).requires_grad_() for a in (x, w)]
        y = m.nn.functional.conv2d(*leaves, stride=stride, padding=padding, groups=2)
        y.backward(
            m.from_numpy(lay(np.linspace(-1, 1, math.prod(y.shape)).reshape(tuple(y.shape))))
        )
        found.append([t.numpy() for t in (y.detach(), *(a.grad for a in leaves))])
    for theirs, ours in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_named_padding(kernel: int, padding: str) -> None:
    assert_same(lambda m, x, w: m.nn.functional.conv1d(x, w, None, 1, padding, 2),
                normal(2, 3, 9), normal(2, 3, kernel), order=2)  # fmt: skip


def test_what_is_not_finite_stays_where_it_is() -> None:
    x = normal(1, 1, 5, 5)
    x[0, 0, 2, 2] = np.inf
    assert_same(lambda m, x, w: m.nn.functional.conv2d(x, w, padding=1), x, normal(1, 1, 3, 3))


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 3, 5), (2, 2, 3), {}),
        ((1, 2, 2), (2, 2, 3), {}),
        ((1, 2, 5), (2, 2, 3), {"stride": 0}),
        ((1, 2, 5), (2, 2, 3), {"stride": 2, "padding": "same"}),
        ((1, 2, 5), (3, 1, 3), {"groups": 2}),
        ((2, 5), (2, 2, 3, 3), {}),
    ],
)
def test_convolutions_that_do_not_fit(x: Any, w: Any, options: Any) -> None:
    assert_same_error(lambda m, *t: m.nn.functional.conv1d(*t, **options), normal(*x), normal(*w))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "pad", [(2, -1, 1, 0), (-2, 1, -1, 2), (0, 0, 0, 0), (3, 3, 3, 3), (6, 0, 0, 0)]
)
def test_pad(pad: Any, mode: str) -> None:
    x = normal(1, 1, 4, 6)
    if max(pad) > {"reflect": 5, "circular": 6}.get(mode, 6):
        assert_same_error(lambda m, x: m.nn.functional.pad(x, pad, mode), x)
    else:
        assert_same(lambda m, x: m.nn.functional.pad(x, pad, mode), x)


@pytest.mark.parametrize("geometry", [(2, 1, 0, 1), ((3, 2), 1, 1, (2, 1)), ((2, 3), (2, 1), 1, 2)])
def test_unfold_and_fold(geometry: Any) -> None:
    def there_and_back(m: Any, x: Any) -> Any:
        columns = m.nn.functional.unfold(x, *geometry)
        return m.nn.functional.fold(columns * columns, (5, 6), *geometry)

    assert_same(there_and_back, normal(2, 3, 5, 6), order=2)


# --- pools and resizing --------------------------------------------------------------------------


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("values", ["ties", "nan", "minus infinity"])
def test_max_pool_picks_as_torch_does(values: str, ceil_mode: bool) -> None:
    x = np.round(normal(1, 2, 5, 6))
    if values == "nan":
        x[0, 0, 1, 1:4] = np.nan
    if values == "minus infinity":
        x[...] = -np.inf
    for kernel, stride, padding, dilation in [(2, 1, 1, 1), (3, 2, 1, 1), (2, 2, 0, 2)]:
        options = (kernel, stride, padding, dilation, ceil_mode)

        def pool(m: Any, options: Any = options) -> Any:
            given = m.from_numpy(x.copy())
            return list(m.nn.functional.max_pool2d(given, *options, return_indices=True))

        both(pool)


def test_max_pool_where_a_window_sees_only_padding() -> None:
    # PyTorch gives an index out of range here, and its backward pass then writes there
    x = refgrad.from_numpy(normal(1, 1, 5, 1)).requires_grad_()
    out, index = F.max_pool2d(x, 2, (1, 2), 1, (1, 2), return_indices=True)
    assert 0 <= int(index.min()) <= int(index.max()) < 5
    assert refgrad.autograd.grad(out.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("override", [None, 3])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_avg_pool(ceil_mode: bool, counted: bool, override: Any) -> None:
    options = ((3, 2), (2, 3), 1, ceil_mode, counted, override)
    assert_same(lambda m, x: m.nn.functional.avg_pool2d(x * x, *options), normal(2, 6, 7), order=2)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, (2, None)])
def test_adaptive_pools(size: Any) -> None:
    x = np.round(normal(2, 5, 4))
    assert_same(lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, size), x)
    assert_same(lambda m, x: m.nn.functional.adaptive_max_pool2d(x, size), x)


@pytest.mark.parametrize("d", [2, 3])
def test_fractional_max_pool(d: int) -> None:
    x, samples = normal(2, 2, *[7] * d), GENERATOR.random((2, 2, d))
    assert_same(lambda m, x: getattr(m.nn.functional, f"fractional_max_pool{d}d")(
        x, 2, output_size=3, _random_samples=m.from_numpy(samples.copy())), x)  # fmt: skip


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("options", [
    {"size": (3, 2)}, {"size": (9, 5), "align_corners": True}, {"size": (5, 4), "antialias": True},
    {"scale_factor": (1.3, 2.1)}, {"scale_factor": (1.3, 2.1), "recompute_scale_factor": True},
])  # fmt: skip
def test_interpolate(options: Any, mode: str) -> None:
    assert_same(
        lambda m, x: m.nn.functional.interpolate(x, mode=mode, **options), normal(1, 2, 7, 6)
    )


def test_bicubic_goes_back_where_it_came_from() -> None:
    # PyTorch's backward pass copies where the sizes stay, its forward pass does not
    x = refgrad.from_numpy(normal(1, 1, 5, 6)).requires_grad_()
    out = F.interpolate(x, scale_factor=1.05, mode="bicubic")
    g = refgrad.autograd.grad(out, x, x.detach())[0]
    np.testing.assert_allclose((g * x).sum().item(), (out * x).sum().item(), rtol=1e-12)
    assert not np.allclose(out.detach().numpy(), x.detach().numpy())


def test_nearest_goes_back_where_it_came_from() -> None:
    # PyTorch's backward pass forgets the factor where the size stays: it gives [1, 2, 3]
    x = refgrad.arange(3.0).reshape(1, 1, 3).requires_grad_()
    out = F.interpolate(x, scale_factor=1.035, mode="nearest")
    assert out.tolist() == [[[0, 0, 1]]]
    g = refgrad.autograd.grad(out, x, refgrad.tensor([[[1.0, 2.0, 3.0]]]))[0]
    assert g.tolist() == [[[3, 3, 0]]]


@pytest.mark.parametrize("factor", [1.04, 1.3, 1.5, 2.04, 2.3, 2.6, 0.7])
def test_nearest_in_two_dimensions_keeps_or_doubles_a_size(factor: float) -> None:
    # as PyTorch does there alone, whatever the factor is to the digit
    def forward(m: Any, x: Any) -> Any:
        return m.nn.functional.interpolate(x, scale_factor=factor)

    assert_same(forward, normal(1, 2, 3, 2))


def test_antialias_to_width_one() -> None:
    # PyTorch repeats the first row in every one
    x = normal(1, 1, 7, 6)
    wide = F.interpolate(refgrad.from_numpy(x), (3, 6), mode="bilinear", antialias=True)
    narrow = F.interpolate(refgrad.from_numpy(x), (3, 1), mode="bilinear", antialias=True)
    again = F.interpolate(wide, (3, 1), mode="bilinear", antialias=True)
    np.testing.assert_allclose(narrow.numpy(), again.numpy(), rtol=1e-12)
    assert len(set(narrow.numpy().ravel())) == 3


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str, padding_mode: str, align_corners: bool) -> None:
    grid = GENERATOR.uniform(-1.6, 1.6, (2, 3, 4, 2))
    options = (mode, padding_mode, align_corners)
    assert_same(lambda m, x, g: m.nn.functional.grid_sample(x, g, *options),
                normal(2, 2, 4, 5), grid)  # fmt: skip


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics(name: str, training: bool) -> None:
    x, w, b, mean, var = normal(3, 2, 4), normal(2), normal(2), normal(2), normal(2) ** 2

    def code(m: Any) -> Any:
        given = [m.from_numpy(v.copy()) for v in (mean, var, w, b)]
        out = getattr(m.nn.functional, name)(m.from_numpy(x.copy()), *given, training, 0.3)
        return [out, *given[:2]]

    both(code)


@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_layer_norm(shape: Any) -> None:
    def norm(m: Any, *given: Any) -> Any:
        return m.native_layer_norm(given[0], shape, *given[1:], 1e-5)[0]

    assert_same(norm, normal(2, 4, 3), normal(*shape), normal(*shape), order=2)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_normalize(p: float) -> None:
    assert_same(lambda m, x: m.nn.functional.normalize(x, p, 1), normal(2, 4, 3), order=2)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "kl_div"])
def test_likelihoods(name: str) -> None:
    p, t = GENERATOR.uniform(0.1, 0.9, (2, 3, 2))
    assert_same(lambda m, *t: getattr(m.nn.functional, name)(*t), p, t)


def test_statistics_of_native_norms() -> None:
    both(lambda m: list(m.native_layer_norm(m.ones(2, 3).cumsum(1), (3,), None, None, 1e-5)))
    both(lambda m: list(m.native_group_norm(m.ones(2, 4, 3), None, None, 2, 4, 3, 2, 1e-5)))
    # those of a group norm are differentiable; in PyTorch they require grad, but give None
    x = refgrad.from_numpy(normal(2, 4, 3)).requires_grad_()
    _, mean, rstd = refgrad.native_group_norm(x, None, None, 2, 4, 3, 2, 1e-5)
    groups = x.reshape(2, 2, 6)
    plain = (groups.var(2, correction=0) + 1e-5) ** -0.5
    for given, expected in ((mean, groups.mean(2)), (rstd, plain)):
        a, b = (refgrad.autograd.grad(t.sum(), x, retain_graph=True)[0] for t in (given, expected))
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10)


def test_norms_that_do_not_fit() -> None:
    assert_same_error(lambda m, x: m.nn.functional.layer_norm(x, (2,)), normal(2, 3))
    assert_same_error(lambda m, x: m.nn.functional.group_norm(x, 2), normal(2, 3))
    assert_same_error(lambda m, x: m.nn.functional.batch_norm(x, None, None), normal(2, 3))
    assert_same_error(
        lambda m, x: m.nn.functional.batch_norm(x, None, None, training=True), normal(1, 3)
    )


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_distances_at_their_kinks(name: str) -> None:
    x = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    for reduction in ("none", "sum", "mean"):
        assert_same(lambda m, x, t, r=reduction: getattr(m.nn.functional, name)(x, t, reduction=r),
                    x, [0.0] * 7, order=2)  # fmt: skip


@pytest.mark.parametrize("targets", [[0, 2, 1], [0, -100, 1], [-100, -100, -100]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(targets: Any, smoothing: float, weighted: bool) -> None:
    def loss(m: Any, x: Any, reduction: str) -> Any:
        weight = m.tensor([0.2, 1.0, 3.0], dtype=m.float64) if weighted else None
        return m.nn.functional.cross_entropy(
            x, m.tensor(targets), weight, reduction=reduction, label_smoothing=smoothing
        )

    for reduction in ("none", "sum", "mean"):
        assert_same(lambda m, x, r=reduction: loss(m, x, r), normal(3, 3), order=2)


def test_class_out_of_range() -> None:
    both_raise(lambda m: m.nn.functional.cross_entropy(m.zeros(1, 3), m.tensor([3])),
               match="Target 3 is out of bounds")  # fmt: skip
    assert_same_error(lambda m, x: m.nn.functional.cross_entropy(x, m.tensor([0])), normal(2, 3))
    assert_same_error(lambda m, x: m.nn.functional.mse_loss(x, x, reduction="max"), normal(2))


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("target", [2, [2]])
def test_the_loss_of_one_vector_of_scores(name: str, reduction: str, target: Any) -> None:
    def code(t: Any) -> Any:
        x = t.tensor([0.5, -1.0, 2.0], dtype=t.float64, requires_grad=True)
        loss = getattr(t.nn.functional, name)(x, t.tensor(target), reduction=reduction)
        # on the way back torch takes a class alone, (), though forward (1,) too
        return loss, None if isinstance(target, list) else t.autograd.grad(loss, x)

    both(code)


def test_cross_entropy_over_many_scores_and_masked_ones() -> None:
    def code(t: Any) -> Any:
        x = t.arange(64.0 * 1000, dtype=t.float64).reshape(64, 1000).sin() * 30
        x[:, ::7] = -t.inf
        x.requires_grad_()
        loss = t.nn.functional.cross_entropy(x, t.arange(64) * 7 + 1, ignore_index=8)
        return loss, t.autograd.grad(loss, x)

    both(code)


def test_nll_of_impossible_classes_that_do_not_count() -> None:
    assert_same(lambda m, x: m.nn.functional.nll_loss(x, m.tensor([1, -100])),
                [[-np.inf, -1.0], [-np.inf, 0.0]])  # fmt: skip


@pytest.mark.parametrize("name", ["multi_margin_loss", "multilabel_margin_loss"])
def test_margins_at_ties(name: str) -> None:
    target = [0, 2] if name == "multi_margin_loss" else [[0, 2, -1], [-1, 0, 1]]
    assert_same(lambda m, x: getattr(m.nn.functional, name)(x, m.tensor(target)),
                [[1.0, 0.0, 0.0], [0.5, -0.5, 0.5]])  # fmt: skip


def test_binary_cross_entropy_of_certain_predictions() -> None:
    p, t = refgrad.tensor([0.0, 1.0]).requires_grad_(), refgrad.tensor([1.0, 0.0]).requires_grad_()
    loss = F.binary_cross_entropy(p, t, reduction="sum")
    assert loss.item() == 200
    # the logarithms are clamped at -100, so this is finite; PyTorch's gradient of the target is not
    assert refgrad.autograd.grad(loss, t)[0].tolist() == [100, -100]


def test_soft_margin_loss_of_a_wrong_prediction() -> None:
    # e^800 overflows, and PyTorch's loss with it
    x = refgrad.tensor([-800.0], dtype=refgrad.float64).requires_grad_()
    loss = F.soft_margin_loss(x, refgrad.ones(1, dtype=refgrad.float64))
    assert loss.item() == 800
    assert refgrad.autograd.grad(loss, x)[0].item() == -1


@pytest.mark.parametrize("seed", range(4))
def test_ctc_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, 4, (3, 2))

    def loss(m: Any, x: Any) -> Any:
        return m.nn.functional.ctc_loss(
            x.log_softmax(-1), m.from_numpy(targets.copy()), (6, 5, 4), (2, 1, 0), reduction="none"
        )

    assert_same(loss, rng.standard_normal((6, 3, 4)))


def test_ctc_loss_is_differentiated_without_log_softmax_too() -> None:
    # one frame, one label: the loss is -x[0, 0, 1], though PyTorch's gradient says otherwise
    x = refgrad.zeros(1, 1, 3).requires_grad_()
    loss = F.ctc_loss(x, refgrad.tensor([[1]]), (1,), (1,))
    assert refgrad.autograd.grad(loss, x)[0].tolist() == [[[0, -1, 0]]]


# --- embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"padding_idx": 1}, {"padding_idx": -1}, {"scale_grad_by_freq": True},
])  # fmt: skip
def test_embedding(options: Any) -> None:
    assert_same(lambda m, w: m.nn.functional.embedding(m.tensor([[0, 1], [1, 3]]), w, **options),
                normal(4, 2))  # fmt: skip


def test_forward_mode_of_an_embedding_divides_by_no_frequency() -> None:
    def code(t: Any) -> Any:
        w = t.arange(8.0, dtype=t.float64).reshape(4, 2)

        def rows(w: Any) -> Any:
            i = t.tensor([[0, 1], [1, 1]])
            return t.nn.functional.embedding(i, w, scale_grad_by_freq=True)

        return t.func.jvp(rows, (w,), (w + 1,)), t.func.vjp(rows, w)[1](rows(w))

    both(code)


def test_embedding_with_max_norm_shortens_the_table() -> None:
    table = normal(4, 3)

    def code(m: Any) -> Any:
        w = m.from_numpy(table.copy())
        return [m.nn.functional.embedding(m.tensor([0, 2, 2]), w, max_norm=0.5), w]

    both(code)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 1])
def test_bags_empty_and_padded(mode: str, padding_idx: Any) -> None:
    def bag(m: Any, w: Any) -> Any:
        index, offsets = m.tensor([0, 1, 1, 3, 1]), m.tensor([0, 2, 2, 4])
        return m.nn.functional.embedding_bag(index, w, offsets, mode=mode, padding_idx=padding_idx)

    assert_same(bag, np.round(normal(4, 3)))


# --- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"],
)
def test_dropout(name: str) -> None:
    drop = getattr(F, name)
    x = refgrad.ones(40, 30, 5).requires_grad_()
    if name == "dropout3d":
        x = refgrad.ones(40, 30, 5, 1, 1).requires_grad_()
    assert drop(x, 0.4, training=False) is x
    refgrad.manual_seed(0)
    out = drop(x, 0.4, True)
    refgrad.manual_seed(0)
    assert (drop(x, 0.4, True) == out).all()
    kept = out.detach().numpy() > 0.5
    assert abs(kept.mean() - 0.6) < 0.05
    if name not in ("dropout", "alpha_dropout"):
        assert (kept == kept[:, :, :1]).all()  # whole channels
    g = refgrad.autograd.grad(out.sum(), x)[0].numpy()
    assert ((g > 0) == kept).all()
    assert math.isclose(g.max(), 1 / 0.6, rel_tol=1e-6) or "alpha" in name
    assert not drop(x.detach() + 0.0, 1.0, True).numpy().any()
    both_raise(lambda m: getattr(m.nn.functional, name)(m.ones(2, 3, 4), 1.5, True),
               match="between 0 and 1")  # fmt: skip


def test_dropout_in_place() -> None:
    x = refgrad.ones(4, 4)
    assert F.dropout(x, 0.5, True, inplace=True) is x
    assert set(x.numpy().ravel()) <= {0.0, 2.0}


# --- numbered reductions -------------------------------------------------------------------------


def test_losses_of_torch_number_their_reductions() -> None:
    for name in ("kl_div", "margin_ranking_loss"):
        arguments = [[0.2, 0.3]] * (2 if name == "kl_div" else 3)
        found = [
            run(m, lambda m, *t, name=name: getattr(m, name)(*t, reduction=2), *arguments)
            for m in (torch, refgrad)
        ]
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_batch_norm_at_any_order(order: int) -> None:
    """Held to the composition on torch: torch's own batch_norm is wrong from third order on."""

    def composed(t: Any, x: Any) -> Any:
        centred = x - x.mean(0)
        return centred / t.sqrt((centred * centred).mean(0) + 1e-5)

    def own(t: Any, x: Any) -> Any:
        return t.nn.functional.batch_norm(x, None, None, training=True, eps=1e-5)

    def gradient(t: Any, function: Any) -> Any:
        rng = np.random.default_rng(0)
        x = t.from_numpy(rng.standard_normal((4, 3))).requires_grad_()
        y = function(t, x)
        for _ in range(order):
            cotangent = t.from_numpy(rng.standard_normal((4, 3)))
            (y,) = t.autograd.grad(y, x, cotangent, create_graph=True)
        return y.detach().numpy()

    right = gradient(torch, composed)
    np.testing.assert_allclose(gradient(refgrad, own), right, atol=1e-12 * np.abs(right).max())


def test_rms_norm_returns_the_dtype_of_its_input() -> None:
    def code(t: Any) -> Any:
        x, weight = t.ones(2, 3, dtype=t.float32), t.arange(3.0, dtype=t.float64)
        norm = t.nn.functional.rms_norm
        return norm(x, (3,), weight), norm(weight, (3,), x[0])

    both(code)
