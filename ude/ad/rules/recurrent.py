"""Recurrent cells and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ude.ad.rules.table import register_names

Cell = Callable[..., Any]


def lstm_cell(input: Any, hx: Sequence[Any], w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """Return the next hidden state and cell state."""
    hidden, cell = hx
    gates = F.linear(input, w_ih, b_ih) + F.linear(hidden, w_hh, b_hh)
    take, keep, new, give = gates.chunk(4, -1)
    state = torch.sigmoid(keep) * cell + torch.sigmoid(take) * torch.tanh(new)
    return torch.sigmoid(give) * torch.tanh(state), state


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """Return the next hidden state."""
    reset, update, new = F.linear(input, w_ih, b_ih).chunk(3, -1)
    old_reset, old_update, old = F.linear(hx, w_hh, b_hh).chunk(3, -1)
    fresh = torch.tanh(new + torch.sigmoid(reset + old_reset) * old)
    return fresh + torch.sigmoid(update + old_update) * (hx - fresh)


def simple_cell(activation: Callable[[Any], Any]) -> Cell:
    """Make the cell of a plain recurrent network."""

    def cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        return activation(F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh))

    return cell


rnn_tanh_cell, rnn_relu_cell = simple_cell(torch.tanh), simple_cell(torch.relu)


def layers(cell: Cell, states: int = 1) -> Callable[..., Any]:
    """Make the rule of `nn.RNN`, `nn.GRU` or `nn.LSTM` from that of its cell.

    Args:
        cell: Advances by one step.
        states: Number of tensors that make up the state.
    """

    def handler(
        input: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool = False,
    ) -> Any:  # fmt: skip
        if not isinstance(input.ndim, int) or isinstance(params, torch.Tensor) or not isinstance(has_biases, bool):
            raise NotImplementedError("Expected padded sequences, got packed ones, which have no rule for jets.")
        x = input.transpose(0, 1) if batch_first else input
        initial = (hx,) if states == 1 else tuple(hx)
        ways = 2 if bidirectional else 1
        size = (4 if has_biases else 2) + (1 if len(params) > (4 if has_biases else 2) * num_layers * ways else 0)
        if size % 2:
            raise NotImplementedError("Expected `proj_size=0`, got projections, which have no rule for jets.")
        finals = []
        for layer in range(num_layers):
            outputs = []
            for way in range(ways):
                number = layer * ways + way
                weights = params[number * size : (number + 1) * size]
                start = tuple(state[number] for state in initial)
                output, final = _run(cell, x, start, weights, backwards=way == 1)
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, -1) if ways == 2 else outputs[0]
            if dropout and train and layer < num_layers - 1:
                x = F.dropout(x, dropout, True)
        ends = tuple(torch.stack([final[i] for final in finals]) for i in range(states))
        return (x.transpose(0, 1) if batch_first else x, *ends)

    return handler


def _run(cell: Cell, x: Any, state: tuple[Any, ...], weights: Sequence[Any], *, backwards: bool) -> Any:
    """Apply a cell along the first axis; return all hidden states and the last state."""
    single = len(state) == 1
    outputs = []
    inputs = list(x.unbind(0))
    for u in reversed(inputs) if backwards else inputs:
        new = cell(u, state[0] if single else state, *weights)
        state = (new,) if single else tuple(new)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def install() -> None:
    """Enter the rules of this file."""
    for name, cell in {
        "lstm_cell": lstm_cell,
        "gru_cell": gru_cell,
        "rnn_tanh_cell": rnn_tanh_cell,
        "rnn_relu_cell": rnn_relu_cell,
    }.items():
        register_names(cell, name)
        register_names(layers(cell, 2 if name == "lstm_cell" else 1), name.removesuffix("_cell"))
