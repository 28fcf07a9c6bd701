"""The kernel formed layer by layer: the same numbers as products with the Jacobian, and never where it must not be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.operators import ntk
from lemmata.architectures import GPT

from .test_gauss_newton import inputs, network, slopes


def seeded(make):
    torch.manual_seed(0)
    return make().double()


class Wide(nn.Module):
    """Many uses: a convolution of signals, a gain outside any layer, a weight used twice and one out of reach."""

    def __init__(self):
        super().__init__()
        self.signal = nn.Conv1d(2, 3, 3, padding=1, stride=2)
        self.gain = nn.Parameter(torch.randn(3, 4))
        self.twice = nn.Linear(4, 4)
        self.last = nn.Linear(12, 2, bias=False)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        h = torch.tanh(self.signal(x)) * self.gain
        return self.last(torch.tanh(self.twice(self.twice(h))).flatten(1))


MODELS = {
    "linear layers": (network, inputs),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, dilation=1),
            nn.Tanh(),
            nn.Conv2d(3, 4, 2, stride=2),
            nn.Flatten(),
            nn.Linear(36, 3),
        ),
        lambda: torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    ),
    "conv1d, a bare parameter, a weight used twice": (
        Wide,
        lambda: torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    ),
    "transformer with tied embedding": (
        lambda: GPT(7, 8, 2, 2, 5),
        lambda: torch.randint(0, 7, (3, 5), generator=torch.Generator().manual_seed(1)),
    ),
    "a long sequence of one narrow layer": (
        lambda: nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)),
        lambda: torch.randn(6, 2, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_layer_by_layer_is_the_product_of_jacobians(name):
    make, data = MODELS[name]
    model, x = seeded(make), data()
    K = la.NTK(model, x)
    found = ntk._by_layers(K.jacobian)
    assert found is not None
    truth = K.jacobian.dense() @ K.jacobian.dense().T
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12 * float(truth.norm()))
    torch.testing.assert_close(K.dense(), found, rtol=0, atol=0)
    torch.testing.assert_close(
        K @ torch.ones(len(truth), dtype=truth.dtype), truth.sum(1), rtol=0, atol=1e-11 * float(truth.norm())
    )


def test_against_finite_differences_and_a_part_of_the_parameters():
    model, x = network(), inputs()
    truth = torch.from_numpy(slopes(model, x)).reshape(28, -1)
    found = ntk._by_layers(la.Jacobian(model, x))
    assert found is not None
    torch.testing.assert_close(found, truth @ truth.T, rtol=0, atol=1e-8)
    some = [name for name, _ in model.named_parameters()][1:2]
    K = la.NTK(model, x, params=some)
    assert ntk._by_layers(K.jacobian) is not None
    torch.testing.assert_close(K.dense(), K.jacobian.dense() @ K.jacobian.dense().T)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(K.dense(), truth @ truth.T)


def test_examples_that_see_each_other_are_not_taken_apart():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)))
    for stats, layered in (("batch", False), ("frozen", True)):
        K = la.NTK(batch, x, batch_stats=stats)
        assert (ntk._by_layers(K.jacobian) is not None) == layered
        torch.testing.assert_close(K.dense(), K.jacobian.dense() @ K.jacobian.dense().T)

    class Mean(nn.Module):
        """The batch is seen only by a parameter outside any layer."""

        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return (x - x.mean(0)) * self.gain

    K = la.NTK(Mean().double(), x)
    assert ntk._by_layers(K.jacobian) is None
    torch.testing.assert_close(K.dense(), K.jacobian.dense() @ K.jacobian.dense().T)


def test_models_of_several_inputs_and_recurrent_ones():
    torch.manual_seed(0)
    graph, lstm = seeded(lambda: nn.Bilinear(3, 4, 2)), seeded(lambda: Recurrent())
    for model, given in (
        (graph, (torch.randn(5, 3).double(), torch.randn(5, 4).double())),
        (lstm, torch.randn(5, 4, 3).double()),
        (seeded(lambda: nn.Embedding(4, 2)), torch.tensor([0, 1, 1, 3])),
        (Scaled().double(), {"x": torch.randn(4, 3).double(), "scale": 2.0}),
    ):
        K = la.NTK(model, given)
        truth = K.jacobian.dense() @ K.jacobian.dense().T
        torch.testing.assert_close(K.dense(), truth, rtol=0, atol=1e-12 * float(truth.norm()))


class Recurrent(nn.Module):
    """torch's LSTM, whose layers no recorder sees."""

    def __init__(self):
        super().__init__()
        self.body, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.body(x)[0][:, -1])


class Scaled(nn.Module):
    """Inputs by keyword, one of them a number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, scale):
        return scale * self.layer(x)


class Running(nn.Module):
    """Each example sees those before it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return torch.tanh(self.layer(x)).cumsum(0)


@pytest.mark.parametrize("examples", [2, 5])
def test_examples_that_see_those_before_them_are_not_taken_apart(examples):
    x = torch.randn(examples, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    K = la.NTK(seeded(Running), x)
    assert ntk._by_layers(K.jacobian) is None
    torch.testing.assert_close(K.dense(), K.jacobian.dense() @ K.jacobian.dense().T)


@pytest.mark.parametrize("places", [1, 4])
def test_layers_without_slopes_add_nothing(places):
    """A head of zeros lets no slope through to the layers before it."""
    layers = nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Flatten(), nn.Linear(4 * places, 2)
    model = seeded(lambda: nn.Sequential(*layers))
    nn.init.zeros_(model[-1].weight)
    x = torch.randn(5, places, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    K = la.NTK(model, x)
    J = K.jacobian.dense()
    torch.testing.assert_close(ntk._by_layers(K.jacobian), J @ J.T)
    torch.testing.assert_close(K.dense().diagonal(), J.square().sum(1))
    assert float(K.dense().diagonal().min()) >= 1.0  # the head's bias alone


def test_the_halves_do_not_depend_on_the_default_device():
    K = la.NTK(network(), inputs())
    truth = K.dense()
    with torch.device("meta"):
        torch.testing.assert_close(K.dense(), truth)
