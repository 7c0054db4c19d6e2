"""Recurrent layers, step by step: what torch.nn.RNN, LSTM and GRU call, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from refgrad.ops.activations import relu
from refgrad.ops.composites import composite
from refgrad.ops.elementary import sigmoid, tanh
from refgrad.ops.joining import cat, stack
from refgrad.ops.linear import linear

__all__ = [
    "gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell",
]  # fmt: skip

Step = Callable[..., Any]  # of the input, the state and a layer's parameters: the next state


def _gates(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, count: int) -> Any:
    """What the input and what the state gives each gate."""
    return linear(x, w_ih, b_ih).chunk(count, -1), linear(h, w_hh, b_hh).chunk(count, -1)


@composite(method=False)
def lstm_cell(
    input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> tuple[Any, Any]:
    """The next hidden and cell state: c' = f c + i g and h' = o tanh(c') (Hochreiter 1997)."""
    h, c = hx
    ours, theirs = _gates(input, h, w_ih, w_hh, b_ih, b_hh, 4)
    i, f, g, o = (a + b for a, b in zip(ours, theirs))
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


@composite(method=False)
def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """The next state: h' = (1 - z) n + z h, with n = tanh(x_n + r h_n) (Cho 2014)."""
    ours, theirs = _gates(input, hx, w_ih, w_hh, b_ih, b_hh, 3)
    r, z = (sigmoid(a + b) for a, b in zip(ours[:2], theirs[:2]))
    n = tanh(ours[2] + r * theirs[2])
    return n + z * (hx - n)


@composite(method=False)
def rnn_tanh_cell(
    input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """tanh(W_ih x + b_ih + W_hh h + b_hh)."""
    return tanh(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


@composite(method=False)
def rnn_relu_cell(
    input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """relu(W_ih x + b_ih + W_hh h + b_hh)."""
    return relu(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def _layers(
    name: str,
    step: Step,
    input: Any,
    states: Sequence[Any],
    params: Sequence[Any],
    options: Sequence[Any],
) -> tuple[Any, list[Any]]:
    """The outputs over time, and each layer's and direction's last state.

    `states` are those at the start, one a layer and direction; a state is a tensor or a tuple.

    Raises:
        NotImplementedError: dropout between the layers in training.
    """
    biases, count, dropout, train, both_ways, batch_first = options
    if dropout and train and count > 1:
        raise NotImplementedError(f"{name}() with dropout, which draws numbers, in training")
    ways = 2 if both_ways else 1
    each = len(params) // (count * ways)
    steps = input.unbind(1 if batch_first else 0)
    last = []
    for layer in range(count):
        sides = []
        for way in range(ways):
            place = layer * ways + way
            own = list(params[place * each : (place + 1) * each])
            if not biases:
                own[2:2] = [None, None]
            state, made = states[place], []
            for x in steps[::-1] if way else steps:
                state = step(x, state, *own)
                made.append(state[0] if isinstance(state, tuple) else state)
            sides.append(made[::-1] if way else made)
            last.append(state)
        steps = [cat(pair, -1) for pair in zip(*sides)] if both_ways else sides[0]
    return stack(list(steps), 1 if batch_first else 0), last


def _refuse_packed(name: str, options: Sequence[Any]) -> None:
    if isinstance(options[0], (list, tuple)):  # the parameters, after the sizes of the batches
        raise NotImplementedError(f"{name}() of a packed sequence")


def _projected(x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *w_hr: Any) -> Any:
    h, c = lstm_cell(x, state, w_ih, w_hh, b_ih, b_hh)
    return (linear(h, w_hr[0]) if w_hr else h), c


@composite(method=False)
def lstm(input: Any, hx: Any, params: Any, *options: Any) -> tuple[Any, Any, Any]:
    """What torch.nn.LSTM calls: the outputs, and the last hidden and cell states.

    `options` are has_biases, num_layers, dropout, train, bidirectional, batch_first.

    Raises:
        NotImplementedError: a packed sequence, or dropout between the layers in training.
    """
    _refuse_packed("lstm", options)
    states = list(zip(hx[0].unbind(0), hx[1].unbind(0)))
    out, last = _layers("lstm", _projected, input, states, params, options)
    return out, stack([h for h, _ in last]), stack([c for _, c in last])


def _simple(name: str, cell: Step) -> Any:
    def layer(input: Any, hx: Any, params: Any, *options: Any) -> tuple[Any, Any]:
        _refuse_packed(name, options)
        out, last = _layers(name, cell, input, hx.unbind(0), params, options)
        return out, stack(last)

    layer.__name__ = name
    layer.__doc__ = f"What torch.nn.{name[:3].upper()} calls, by {name}_cell: see `lstm`."
    return composite(layer, method=False)


gru = _simple("gru", gru_cell)
rnn_tanh = _simple("rnn_tanh", rnn_tanh_cell)
rnn_relu = _simple("rnn_relu", rnn_relu_cell)
