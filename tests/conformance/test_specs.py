"""Inputs described in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance import check_gradients
from conformance.errors import UsageError
from conformance.specs import LONG, Spec, draw, spec, tensors


@pytest.mark.parametrize(
    "text",
    [
        "float64[]",
        "float64[n, 3]",
        "float64[n, 3] in (0, 1)",
        "float32[4] in [0, )",
        "complex128[n] frozen",
        "int64[n] in [0, 10)",
        "bool[2, n]",
    ],
)
def test_a_spec_prints_as_it_is_written(text: str) -> None:
    assert str(spec(text)) == text
    assert spec(str(spec(text))) == spec(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("float[3]", "the dtype is 'float'"),
        ("float64[3", "describes no input"),
        ("float64[-1]", "neither a number nor a name"),
        ("int64[3]", "integers need an interval"),
        ("float64[2] in (1, 0)", "the interval is empty"),
        ("float64[2] in (a, 1)", "is no number"),
        ("float64[9999, 9999]", "more than"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        spec(text)


def test_a_named_size_is_one_size_in_all_specs_of_a_sample() -> None:
    specs = [spec("float64[n, m]"), spec("int64[m] in [0, 3]"), spec("float64[n]")]
    sizes = set()
    for number in range(40):
        a, b, c = draw(specs, 0, number)
        assert a.shape == (len(c), len(b))
        sizes.add(a.shape)
    assert any(1 in shape for shape in sizes)
    assert len(sizes) > 10


def test_in_every_fourth_sample_a_name_is_longer_than_a_tile() -> None:
    specs = [spec("float64[n, m]"), spec("float64[m, 3]")]
    long = set()
    for number in range(80):
        sizes = draw(specs, 0, number)[0].shape
        assert (max(sizes) > 5) == (number % 4 == 3)
        long |= {(axis, size) for axis, size in enumerate(sizes) if size > 5}
    assert {axis for axis, _ in long} == {0, 1}
    assert {size for _, size in long} == set(LONG)


def test_no_input_becomes_too_large_by_a_long_name() -> None:
    specs = [spec("float64[n, 100]"), spec("float64[n, n]"), spec("int64[2000] in [0, 9]")]
    shapes = [a.shape for number in range(3, 80, 4) for a in draw(specs, 0, number)[:2]]
    assert {n for n, _ in shapes} == {9, 17, 33}


@pytest.mark.parametrize(
    "text",
    [
        "float64[50] in (0, 1)",
        "float64[50] in (-3, )",
        "float64[50] in ( , 2)",
        "float32[50] in (5, 7)",
    ],
)
def test_values_keep_inside_an_open_interval(text: str) -> None:
    each = spec(text)
    drawn = np.concatenate([draw([each], 0, n)[0] for n in range(30)])
    assert (drawn > each.low).all()
    assert (drawn < each.high).all()
    assert drawn.dtype == each.dtype


def test_integers_meet_the_ends_of_their_interval() -> None:
    drawn = np.concatenate([draw([spec("int64[9] in [-2, 3)")], 0, n)[0] for n in range(20)])
    assert set(drawn) == {-2, -1, 0, 1, 2}


def test_classes_of_values_and_layouts_are_drawn() -> None:
    arrays = [draw([spec("float64[4, 5]")], 0, n)[0] for n in range(60)]
    assert any((a == 0).any() for a in arrays)
    assert any((np.abs(a) > 30).any() for a in arrays)
    assert any(len(np.unique(a)) < a.size and (a != 0).all() for a in arrays)
    assert any(not a.flags.c_contiguous for a in arrays)


def test_tensors_require_grad_as_the_specs_say() -> None:
    x, y, n = tensors(
        [spec("float64[2]"), spec("float64[2] frozen"), spec("int64[2] in [0, 1]")], 0, 0
    )
    assert x.requires_grad
    assert not y.requires_grad
    assert n.dtype == torch.int64


def test_the_same_seed_draws_the_same() -> None:
    each = spec("complex64[n, 2]")
    assert np.array_equal(draw([each], 5, 1)[0], draw([each], 5, 1)[0])
    assert not np.array_equal(draw([each], 5, 1)[0][:1], draw([each], 6, 1)[0][:1])
    assert isinstance(each, Spec)


def test_eight_samples_meet_every_class_of_values() -> None:
    drawn = [draw([spec("float64[n, 3]")], seed, n)[0] for seed in range(5) for n in range(8)]
    for eight in (drawn[k : k + 8] for k in range(0, 40, 8)):
        assert max(np.abs(x).max() for x in eight) > 30
        assert any((x == 0).any() for x in eight)
        assert any((x < 0).all() for x in eight)


def test_inputs_at_which_the_function_raises_are_left_out() -> None:
    from conformance import check_gradients

    def picky(x: Any) -> Any:
        if (x.detach() < 0).any():
            raise ValueError("negative")
        return x.sqrt()

    report = check_gradients(picky, spec("float64[3]"))
    assert any(
        "left out, since the function raised ValueError: negative" in n for n in report.notes
    )
    with pytest.raises(ValueError, match="negative"):
        check_gradients(picky, spec("float64[3] in (-2, -1)"))


class Tiled(torch.autograd.Function):
    """x * x, whose backward pass forgets what is left after the last whole tile of eight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        made = 2 * x * grad
        if len(x) > 8:
            made[len(x) // 8 * 8 :] = 0
        return made


def test_a_fault_beyond_the_last_tile_is_found_in_what_is_drawn() -> None:
    report = check_gradients(Tiled.apply, spec("float64[n, 2]"))
    assert not report.ok
    assert "along axis 0 is wrong, and zero there" in str(report)
    assert check_gradients(torch.square, spec("float64[n, 2]")).ok


class Sigmoid(torch.autograd.Function):
    """Its gradient is by exp(x), and nan where that overflows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        grown = ctx.saved_tensors[0].exp()
        return grad * grown / (1 + grown) ** 2


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_rule_that_overflows_is_found_in_what_is_drawn(dtype: str) -> None:
    for shape in ("n", "n, 3"):
        report = check_gradients(Sigmoid.apply, spec(f"{dtype}[{shape}]"))
        assert not report.ok
        assert "the gradient is nan where the function is smooth" in str(report)
    for stable in (torch.tanh, torch.exp, torch.nn.functional.softplus, torch.square):
        assert check_gradients(stable, spec(f"{dtype}[n, 3]")).ok


def test_a_set_at_which_a_function_overflows_is_left_out() -> None:
    report = check_gradients(torch.exp, spec("float64[1]"))
    assert report.ok
    assert "left out, since no entry of the gradient is finite: sample 5" in str(report)
