"""Architectures written from their defining equations, and the catalogue that every generic test runs on.

>>> [entry.name for entry in ARCHITECTURES][:5]
['mlp', 'mlp-relu', 'deep-linear', 'cnn', 'cnn-zeros']
>>> entry = ARCHITECTURES[0]
>>> inputs, target = entry.sample(seed=0, dtype=torch.float64, device="cpu")
>>> loss = entry.loss(entry.build()(*arguments(inputs)), target)
>>> loss.shape, loss.dtype
(torch.Size([]), torch.float64)

To add an architecture: one file with its equation and its tiny instances (`ENTRIES`), one line in `ARCHITECTURES`.
"""

from __future__ import annotations

import torch  # noqa: F401  (the example above)

from . import cnn, mlp
from ._entry import Architecture, Exemption, Symmetry, arguments
from ._pieces import ACTIVATIONS, LAWS, ArchitectureError, Law
from .cnn import CNN, SignalCNN
from .mlp import MLP, DeepLinear

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CNN",
    "LAWS",
    "MLP",
    "Architecture",
    "ArchitectureError",
    "DeepLinear",
    "Exemption",
    "Law",
    "SignalCNN",
    "Symmetry",
    "arguments",
]

#: Every architecture of the lab, once for each variant whose derivatives or symmetries differ.
ARCHITECTURES: tuple[Architecture, ...] = (
    *mlp.ENTRIES,
    *cnn.ENTRIES,
)
