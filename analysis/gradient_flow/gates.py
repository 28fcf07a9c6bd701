"""The gates inside torch's own recurrent layers, which keep them to themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LSTM = (("input gate", "sigmoid"), ("forget gate", "sigmoid"), ("candidate", "tanh"), ("output gate", "sigmoid"))
_GRU = (("reset gate", "sigmoid"), ("update gate", "sigmoid"), ("candidate", "tanh"))

Gates = dict[str, tuple[str, Tensor]]


def gates(module: nn.Module, args: tuple) -> Gates:
    """Name, kind and values (N, …) of each gate in a call of ``nn.LSTM``, ``nn.GRU`` or their cells; else nothing.

    They are computed again from the inputs, step by step. Packed sequences are left out, and so are initial states that
    are passed by keyword.
    """
    if not args or not isinstance(args[0], Tensor):
        return {}
    with torch.no_grad():
        if isinstance(module, nn.LSTMCell | nn.GRUCell):
            return _cell(module, args)
        if isinstance(module, nn.LSTM | nn.GRU):
            return _sequence(module, args)
    return {}


def _cell(module: nn.LSTMCell | nn.GRUCell, args: tuple) -> Gates:
    x = args[0] if args[0].ndim > 1 else args[0][None]
    state = args[1] if len(args) > 1 else None
    h = (state[0] if isinstance(state, tuple | list) else state) if state is not None else None
    h = x.new_zeros(len(x), module.hidden_size) if h is None else h.reshape(len(x), -1)
    weights = module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh
    values = _values(isinstance(module, nn.LSTMCell), x, h, weights)
    names = _LSTM if isinstance(module, nn.LSTMCell) else _GRU
    return {name: (kind, value) for (name, kind), value in zip(names, values, strict=True)}


def _sequence(module: nn.LSTM | nn.GRU, args: tuple) -> Gates:
    x = args[0] if args[0].ndim == 3 else args[0].unsqueeze(0 if module.batch_first else 1)
    x = x.transpose(0, 1) if module.batch_first else x  # (T, N, i)
    lstm, ways = isinstance(module, nn.LSTM), 2 if module.bidirectional else 1
    states = (args[1] if lstm else (args[1],)) if len(args) > 1 and args[1] is not None else None
    found: Gates = {}
    for layer in range(module.num_layers):
        outputs = []
        for way in range(ways):
            place = layer * ways + way
            start = None if states is None else [s.reshape(s.shape[0], x.shape[1], -1)[place] for s in states]
            output, values = _run(module, x, f"l{layer}" + "_reverse" * way, start)
            outputs.append(output)
            for (name, kind), value in zip(_LSTM if lstm else _GRU, values, strict=True):
                label = name + f", layer {layer}" * (module.num_layers > 1) + ", backwards" * way
                found[label] = kind, value.transpose(0, 1)
        x = torch.cat(outputs, -1)
    return found


def _run(module: Any, x: Tensor, suffix: str, start: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """The outputs (T, N, h) of one direction of one layer, and its gates over time, (T, N, n) each."""
    lstm, size = isinstance(module, nn.LSTM), module.hidden_size
    names = [f"weight_ih_{suffix}", f"weight_hh_{suffix}", f"bias_ih_{suffix}", f"bias_hh_{suffix}"]
    weights = tuple(getattr(module, name, None) for name in names)
    project = getattr(module, f"weight_hr_{suffix}", None)
    h = start[0] if start else x.new_zeros(x.shape[1], weights[1].shape[1])  # type: ignore[union-attr]
    c = start[1] if start and lstm else x.new_zeros(x.shape[1], size)
    backwards = suffix.endswith("reverse")
    outputs, steps = [], []
    for now in x.flip(0) if backwards else x:
        values = _values(lstm, now, h, weights)
        if lstm:
            i, f, g, o = values
            c = f * c + i * g
            h = o * c.tanh()
            h = h if project is None else h @ project.T
        else:
            _, z, n = values
            h = (1 - z) * n + z * h
        outputs.append(h)
        steps.append(values)
    order = slice(None, None, -1) if backwards else slice(None)
    return torch.stack(outputs[order]), [torch.stack(parts[order]) for parts in zip(*steps, strict=True)]


def _values(lstm: bool, x: Tensor, h: Tensor, weights: tuple[Tensor | None, ...]) -> list[Tensor]:
    """The gates of one step, (N, n) each, in torch's order."""
    w_x, w_h, b_x, b_h = weights
    assert w_x is not None and w_h is not None
    from_x = x @ w_x.T + (0 if b_x is None else b_x)
    from_h = h @ w_h.T + (0 if b_h is None else b_h)
    if lstm:
        i, f, g, o = (from_x + from_h).chunk(4, -1)
        return [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, -1), from_h.chunk(3, -1)
    r = (r_x + r_h).sigmoid()
    return [r, (z_x + z_h).sigmoid(), (n_x + r * n_h).tanh()]
