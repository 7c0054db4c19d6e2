"""Recurrent layers and cells, held to torch's: outputs, last states and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from conformance import check_gradients
from tests.refgrad.both import both

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def numbers(*shapes: tuple[int, ...]) -> list[Any]:
    """The same Gaussian numbers each time."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


def gradients(t: Any, run: Callable[..., Any], arrays: list[Any]) -> list[Any]:
    """The outputs of `run` on leaves, and the gradients of their weighted sum."""
    leaves = [t.tensor(a, dtype=t.float64, requires_grad=True) for a in arrays]
    outputs = run(*leaves)
    total = sum((y * (n + 1)).cos().sum() for n, y in enumerate(outputs))
    return [*outputs, *t.autograd.grad(total, leaves)]


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_layer(name: str, biases: bool, both_ways: bool, batch_first: bool) -> None:
    features, hidden, layers, ways = 3, 2, 2, 1 + both_ways
    shapes: list[tuple[int, ...]] = []
    for layer in range(layers):
        for _ in range(ways):
            width = features if layer == 0 else hidden * ways
            shapes += [(GATES[name] * hidden, width), (GATES[name] * hidden, hidden)]
            shapes += [(GATES[name] * hidden,)] * (2 * biases)
    x = (2, 4, features) if batch_first else (4, 2, features)
    states = [(layers * ways, 2, hidden)] * (2 if name == "lstm" else 1)

    def run(t: Any, x: Any, *rest: Any) -> Any:
        hx = list(rest[:2]) if name == "lstm" else rest[0]
        params = list(rest[len(states) :])
        options = (biases, layers, 0.0, True, both_ways, batch_first)
        return getattr(t, name)(x, hx, params, *options)

    arrays = numbers(x, *states, *shapes)
    both(lambda t: gradients(t, lambda *leaves: run(t, *leaves), arrays))


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("biases", [True, False])
def test_a_cell(name: str, biases: bool) -> None:
    gates = GATES[name] * 2
    shapes = [(2, 3), (2, 2), (2, 2), (gates, 3), (gates, 2), (gates,), (gates,)]

    def run(t: Any, x: Any, h: Any, c: Any, *params: Any) -> Any:
        hx = (h, c) if name == "lstm" else h
        made = getattr(t, f"{name}_cell")(x, hx, *params[: None if biases else 2])
        outputs = made if name == "lstm" else (made,)
        return (*outputs, c * 1, *(p * 1 for p in params))

    arrays = numbers(*shapes)
    both(lambda t: gradients(t, lambda *leaves: run(t, *leaves), arrays))


def test_what_is_not_there_says_so() -> None:
    x, h = refgrad.zeros(2, 1, 3), refgrad.zeros(2, 1, 3)
    weights = [refgrad.zeros(3, 3)] * 4
    with pytest.raises(NotImplementedError, match="dropout"):
        refgrad.rnn_tanh(x, h, weights, False, 2, 0.5, True, False, False)
    with pytest.raises(NotImplementedError, match="packed"):
        refgrad.lstm(x, refgrad.tensor([1, 1]), [h, h], weights, False, 2, 0.0, True, False)
    with pytest.raises(NotImplementedError, match="packed"):
        refgrad.gru(x, refgrad.tensor([1, 1]), h, weights, False, 2, 0.0, True, False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.LSTM(3, 4, proj_size=2, batch_first=True),
        lambda: torch.nn.GRU(3, 2, num_layers=2, bidirectional=True),
        lambda: torch.nn.RNN(3, 2, nonlinearity="relu"),
    ],
)
def test_a_module_is_judged_with_a_second_opinion(make: Callable[[], torch.nn.Module]) -> None:
    torch.manual_seed(0)
    report = check_gradients(make().double(), torch.randn(2, 2, 3, dtype=torch.float64))
    assert report.ok, str(report)
    assert not report.notes


def test_detach_is_a_function_too() -> None:
    both(lambda t: t.detach(t.tensor([1.0, 2.0], requires_grad=True) * 2))
