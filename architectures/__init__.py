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

from . import (
    cnn,
    continuous_flow,
    coupling_flow,
    deep_equilibrium,
    gru,
    hopfield,
    lstm,
    mlp,
    neural_ode,
    recurrent,
    score,
    state_space,
    vae,
)
from ._entry import Architecture, Exemption, Symmetry, arguments
from ._pieces import ACTIVATIONS, LAWS, ArchitectureError, Law
from .cnn import CNN, SignalCNN
from .continuous_flow import ContinuousFlow, HutchinsonFlow
from .coupling_flow import AffineCoupling, CouplingFlow
from .deep_equilibrium import DeepEquilibrium
from .gru import GRU
from .hopfield import Hopfield
from .lstm import LSTM
from .mlp import MLP, DeepLinear
from .neural_ode import AdaptiveNeuralODE, AugmentedNeuralODE, NeuralODE
from .recurrent import RNN, Bidirectional, FlatReadout, SequenceNet
from .score import ScoreModel, denoising_score_matching, perturbed
from .state_space import S4D, DiagonalSSM
from .vae import VAE, LinearVAE, bernoulli_elbo, gaussian_elbo, kl_divergence
from .vector_field import VectorField

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CNN",
    "GRU",
    "LAWS",
    "LSTM",
    "MLP",
    "RNN",
    "S4D",
    "VAE",
    "AdaptiveNeuralODE",
    "AffineCoupling",
    "Architecture",
    "ArchitectureError",
    "AugmentedNeuralODE",
    "Bidirectional",
    "ContinuousFlow",
    "CouplingFlow",
    "DeepEquilibrium",
    "DeepLinear",
    "DiagonalSSM",
    "Exemption",
    "FlatReadout",
    "Hopfield",
    "HutchinsonFlow",
    "Law",
    "LinearVAE",
    "NeuralODE",
    "ScoreModel",
    "SequenceNet",
    "SignalCNN",
    "Symmetry",
    "VectorField",
    "arguments",
    "bernoulli_elbo",
    "denoising_score_matching",
    "gaussian_elbo",
    "kl_divergence",
    "perturbed",
]

#: Every architecture of the lab, once for each variant whose derivatives or symmetries differ.
ARCHITECTURES: tuple[Architecture, ...] = (
    *mlp.ENTRIES,
    *cnn.ENTRIES,
    *recurrent.ENTRIES,
    *lstm.ENTRIES,
    *gru.ENTRIES,
    *state_space.ENTRIES,
    *neural_ode.ENTRIES,
    *continuous_flow.ENTRIES,
    *hopfield.ENTRIES,
    *deep_equilibrium.ENTRIES,
    *vae.ENTRIES,
    *coupling_flow.ENTRIES,
    *score.ENTRIES,
)
