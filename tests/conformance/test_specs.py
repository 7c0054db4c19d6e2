"""Inputs described in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conformance.errors import UsageError
from conformance.specs import Spec, draw, spec, tensors


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
