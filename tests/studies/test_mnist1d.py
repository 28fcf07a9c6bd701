"""MNIST-1D: the networks are those published, they learn, and a shuffle takes from the convolution what it lived on."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.architectures import mnist1d
from lemmata.studies.claim import numerics


@pytest.mark.parametrize("model", mnist1d.MODELS)
def test_every_model_reads_signals_and_takes_a_step(model):
    with numerics():
        network = mnist1d.MODELS[model](torch.Generator().manual_seed(0))
        assert network(torch.zeros(3, mnist1d.POINTS)).shape == (3, mnist1d.CLASSES)
        before = mnist1d.accuracy(model, 1, 0, False)
    assert 0 <= before <= 0.5


@pytest.mark.parametrize(("model", "parameters"), [("cnn", 5210), ("gru", 5134 - 24), ("logistic", 410)])
def test_sizes_are_those_published(model, parameters):
    """The published GRU has 5134: torch keeps two biases where their sum is all that counts, 12 more in each direction."""
    network = mnist1d.MODELS[model](torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_a_shuffle_takes_the_convolution_below_the_perceptron_and_leaves_the_perceptron():
    cnn, shuffled = (mnist1d.mnist1d_table("cnn", steps=250, seed=0, shuffled=s)["accuracy"] for s in (False, True))
    mlp, blind = (mnist1d.mnist1d_table("mlp", steps=250, seed=0, shuffled=s)["accuracy"] for s in (False, True))
    assert shuffled < mlp < cnn
    assert abs(mlp - blind) < 0.1 < cnn - shuffled


def test_the_same_seed_gives_the_same_accuracy():
    first, again, other = (mnist1d.mnist1d_table("mlp", steps=40, seed=s)["accuracy"] for s in (0, 0, 2))
    assert first == again != other


def test_gates_are_compared_with_themselves_in_the_control():
    assert mnist1d.mnist1d_gates("rnn", steps=3, seed=0) == 0
