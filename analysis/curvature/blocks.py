"""Which entries of a flat vector belong to a layer, and which to an attention head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from ..operators.base import Derived, Operator
from ..operators.layout import Layout

#: How modules name the number of heads, and the maps into and out of them.
_COUNTS = ("heads", "num_heads", "n_heads", "num_attention_heads", "n_head")
_INTO = (
    "W_q",
    "W_k",
    "W_v",
    "q_proj",
    "k_proj",
    "v_proj",
    "query",
    "key",
    "value",
    "to_q",
    "to_k",
    "to_v",
    "q",
    "k",
    "v",
)
_OUT = ("W_o", "out_proj", "o_proj", "to_out", "o")


@dataclass(frozen=True)
class Block:
    """Some entries of the flat vector: those of a module's own parameters (a layer) or of an attention head."""

    name: str
    kind: str
    positions: Tensor


class Entries(Derived):
    """The diagonal block of an operator at some entries of its vectors. A product costs one product of the operator."""

    def __init__(self, operator: Operator, positions: Tensor) -> None:
        self.operator, self.positions = operator, positions.to(operator.device)
        self.layout = Layout(("entries",), ((len(positions),),))
        self.dtype, self.device = operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        full = vectors.new_zeros(vectors.shape[0], self.operator.shape[0])
        full[:, self.positions] = vectors
        return self.operator._multiply(full)[:, self.positions]


def blocks_of(layout: Layout, model: nn.Module) -> list[Block]:
    """The layers of a model, then its attention heads, as far as the layout names their parameters."""
    model = getattr(model, "_orig_mod", model)
    places = dict(zip(layout.names, torch.arange(layout.size).split(layout.sizes), strict=True))
    places = {name: place.reshape(shape) for (name, place), shape in zip(places.items(), layout.shapes, strict=True)}
    layers, heads, known = [], [], set[str]()
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = [prefix + name for name in module._parameters if prefix + name in places]
        known.update(own)
        if own:
            layers.append(Block(path or "model", "layer", torch.cat([places[name].reshape(-1) for name in own])))
        for index, parts in enumerate(_heads(module, prefix, places)):
            if parts:
                heads.append(Block(f"{prefix}head {index}", "head", torch.cat([part.reshape(-1) for part in parts])))
    missing = [name for name in layout.names if name not in known]
    if missing:
        remedy = "Pass the model that the operator was built from."
        raise ParameterError(missing[0], "a parameter of the model", "an operator on another's", remedy)
    return layers + heads


def _heads(module: nn.Module, prefix: str, places: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """The entries of each head of a module, by parameter; empty where it has none."""
    count = next((n for n in (getattr(module, name, None) for name in _COUNTS) if isinstance(n, int)), 0)
    found: list[tuple[int, Tensor]] = []  # the axis that the heads divide, and the entries
    if isinstance(module, nn.MultiheadAttention):
        packed = {"in_proj_weight": (3, -1), "in_proj_bias": (3, -1)}
        for name in ("in_proj_weight", "in_proj_bias"):
            if prefix + name in places:
                entries = places[prefix + name]
                found.append((1, entries.reshape(*packed[name], *entries.shape[1:])))
        found += [
            (0, places[prefix + n]) for n in _own(module, "_proj_weight") if prefix + n in places and n[0] in "qkv"
        ]
        found += [(2, places[prefix + n]) for n in ("bias_k", "bias_v") if prefix + n in places]
    for names, axis in ((_INTO, 0), (_OUT, 1)):
        for name in names:
            if isinstance(getattr(module, name, None), nn.Linear):
                parameters = (("weight", axis),) if axis else (("weight", 0), ("bias", 0))
                found += [(a, places[f"{prefix}{name}.{p}"]) for p, a in parameters if f"{prefix}{name}.{p}" in places]
    into = any(isinstance(getattr(module, name, None), nn.Linear) for name in _INTO)
    if count < 1 or not found or not (into or isinstance(module, nn.MultiheadAttention)):
        return []
    if any(entries.shape[axis] % count for axis, entries in found):
        return []  # queries and keys that share heads have no rows for each
    return [[entries.chunk(count, axis)[index] for axis, entries in found] for index in range(count)]


def _own(module: nn.Module, ending: str) -> list[str]:
    return [name for name in module._parameters if name.endswith(ending)]
