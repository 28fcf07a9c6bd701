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
    attention,
    cnn,
    continuous_flow,
    coupling_flow,
    deep_equilibrium,
    egnn,
    encoder_decoder,
    gpt,
    graph,
    graph_attention,
    graph_attention_v2,
    graph_isomorphism,
    group_cnn,
    gru,
    hopfield,
    lstm,
    message_passing,
    mlp,
    neural_ode,
    recurrent,
    resnet,
    score,
    sequence_encoder,
    set_transformer,
    sets,
    state_space,
    steerable,
    transformer,
    vae,
    vision_transformer,
)
from ._entry import Architecture, Exemption, Symmetry, arguments
from ._graphs import adjacency, checked_graph
from ._pieces import ACTIVATIONS, LAWS, ArchitectureError, Law
from .attention import MultiHeadAttention, attend, linear_attention
from .cnn import CNN, SignalCNN
from .continuous_flow import ContinuousFlow, HutchinsonFlow
from .coupling_flow import AffineCoupling, CouplingFlow
from .deep_equilibrium import DeepEquilibrium
from .egnn import EGNN, EGNNLayer
from .encoder_decoder import DecoderLayer, EncoderDecoder, greedy
from .gpt import GPT
from .graph import GCN, GCNLayer
from .graph_attention import GAT, GATLayer
from .graph_attention_v2 import GATv2, GATv2Layer
from .graph_isomorphism import GIN, GINLayer
from .group_cnn import GroupCNN, GroupConv, LiftingConv
from .gru import GRU
from .hopfield import Hopfield
from .lstm import LSTM
from .message_passing import MessagePassing
from .mlp import MLP, DeepLinear
from .neural_ode import AdaptiveNeuralODE, AugmentedNeuralODE, NeuralODE
from .normalisation import BatchNorm, GroupNorm
from .norms import LayerNorm
from .ode import SOLVERS, adaptive, adjoint, integrate, trajectory
from .point_groups import kernel_basis, kernel_dimension
from .positions import Positions
from .recurrent import RNN, Bidirectional, FlatReadout, SequenceNet
from .resnet import BasicBlock, ResNet
from .score import ScoreModel, denoising_score_matching, perturbed
from .sequence_encoder import SequenceEncoder
from .set_transformer import ISAB, MAB, PMA, SAB, SetTransformer
from .sets import DeepSets, EquivariantDeepSets
from .state_space import S4D, DiagonalSSM
from .steerable import SteerableCNN, SteerableConv
from .transformer import Encoder, EncoderLayer, FeedForward
from .vae import VAE, LinearVAE, bernoulli_elbo, gaussian_elbo, kl_divergence
from .vector_field import VectorField
from .vision_transformer import VisionTransformer

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CNN",
    "EGNN",
    "GAT",
    "GCN",
    "GIN",
    "GPT",
    "GRU",
    "ISAB",
    "LAWS",
    "LSTM",
    "MAB",
    "MLP",
    "PMA",
    "RNN",
    "S4D",
    "SAB",
    "SOLVERS",
    "VAE",
    "AdaptiveNeuralODE",
    "AffineCoupling",
    "Architecture",
    "ArchitectureError",
    "AugmentedNeuralODE",
    "BasicBlock",
    "BatchNorm",
    "Bidirectional",
    "ContinuousFlow",
    "CouplingFlow",
    "DecoderLayer",
    "DeepEquilibrium",
    "DeepLinear",
    "DeepSets",
    "DiagonalSSM",
    "EGNNLayer",
    "Encoder",
    "EncoderDecoder",
    "EncoderLayer",
    "EquivariantDeepSets",
    "Exemption",
    "FeedForward",
    "FlatReadout",
    "GATLayer",
    "GATv2",
    "GATv2Layer",
    "GCNLayer",
    "GINLayer",
    "GroupCNN",
    "GroupConv",
    "GroupNorm",
    "Hopfield",
    "HutchinsonFlow",
    "Law",
    "LayerNorm",
    "LiftingConv",
    "LinearVAE",
    "MessagePassing",
    "MultiHeadAttention",
    "NeuralODE",
    "Positions",
    "ResNet",
    "ScoreModel",
    "SequenceEncoder",
    "SequenceNet",
    "SetTransformer",
    "SignalCNN",
    "SteerableCNN",
    "SteerableConv",
    "Symmetry",
    "VectorField",
    "VisionTransformer",
    "adaptive",
    "adjacency",
    "adjoint",
    "arguments",
    "attend",
    "bernoulli_elbo",
    "checked_graph",
    "denoising_score_matching",
    "gaussian_elbo",
    "greedy",
    "integrate",
    "kernel_basis",
    "kernel_dimension",
    "kl_divergence",
    "linear_attention",
    "perturbed",
    "trajectory",
]

#: Every architecture of the lab, once for each variant whose derivatives or symmetries differ.
ARCHITECTURES: tuple[Architecture, ...] = (
    *mlp.ENTRIES,
    *cnn.ENTRIES,
    *resnet.ENTRIES,
    *recurrent.ENTRIES,
    *lstm.ENTRIES,
    *gru.ENTRIES,
    *state_space.ENTRIES,
    *attention.ENTRIES,
    *transformer.ENTRIES,
    *gpt.ENTRIES,
    *encoder_decoder.ENTRIES,
    *sequence_encoder.ENTRIES,
    *vision_transformer.ENTRIES,
    *message_passing.ENTRIES,
    *graph.ENTRIES,
    *graph_isomorphism.ENTRIES,
    *graph_attention.ENTRIES,
    *graph_attention_v2.ENTRIES,
    *sets.ENTRIES,
    *set_transformer.ENTRIES,
    *group_cnn.ENTRIES,
    *steerable.ENTRIES,
    *egnn.ENTRIES,
    *neural_ode.ENTRIES,
    *continuous_flow.ENTRIES,
    *hopfield.ENTRIES,
    *deep_equilibrium.ENTRIES,
    *vae.ENTRIES,
    *coupling_flow.ENTRIES,
    *score.ENTRIES,
)
