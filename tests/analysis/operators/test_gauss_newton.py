"""GGN, Fisher and empirical Fisher against closed forms on Jacobians by central differences."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, LossError, ParameterError

CLASSES = 4


def network(outputs: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def inputs(n: int = 7) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def labels(n: int = 7) -> Tensor:
    return torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(2))


def ragged(target: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(inputs()[:2], target[:2]), (inputs()[2:], target[2:])]


@torch.no_grad()
def slopes(model: nn.Module, x: Tensor) -> np.ndarray:
    """The Jacobian (n, outputs, P) of a model by central differences, extrapolated once."""
    theta = nn.utils.parameters_to_vector(model.parameters())
    columns = []
    for i in range(len(theta)):
        halves = []
        for h in (1e-3, 2e-3):
            ends = []
            for sign in (1, -1):
                moved = theta.clone()
                moved[i] += sign * h
                nn.utils.vector_to_parameters(moved, model.parameters())
                ends.append(model(x))
            halves.append((ends[0] - ends[1]) / (2 * h))
        columns.append((4 * halves[0] - halves[1]) / 3)
    nn.utils.vector_to_parameters(theta, model.parameters())
    return torch.stack(columns, -1).numpy()


def sandwich(jacobians: np.ndarray, middles: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("n,ncp,ncd,ndq->pq", weights, jacobians, middles, jacobians)


def softmax(output: Tensor) -> np.ndarray:
    return output.detach().softmax(-1).numpy()


def categorical(p: np.ndarray) -> np.ndarray:
    return np.stack([np.diag(row) - np.outer(row, row) for row in p])


def expect(operator: la.Operator, truth: np.ndarray, tolerance: float = 1e-9) -> None:
    gap = np.abs(operator.dense(block=5).numpy() - truth).max() / np.abs(truth).max()
    assert gap < tolerance


WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
CROSS = {
    "plain": (nn.CrossEntropyLoss(), np.ones(7)),
    "function": (partial(nn.functional.cross_entropy, ignore_index=2), (labels() != 2).double().numpy()),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), WEIGHT[labels()].numpy()),
    "ignored": (nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1), (WEIGHT[labels()] * (labels() != 1)).numpy()),
}


@pytest.mark.parametrize("cap", [None, 0], ids=["retained", "fresh"])
@pytest.mark.parametrize("kind", CROSS)
def test_cross_entropy_in_closed_form(kind, cap):
    """Σ w_n Jᵀ(diag p − ppᵀ)J / Σ w_n, and with the observed scores p − e_y for the empirical one."""
    loss, weights = CROSS[kind]
    model, x = network(), inputs()
    J, p = slopes(model, x), softmax(model(x))
    weights = weights / weights.sum()
    truth = sandwich(J, categorical(p), weights)
    expect(la.GGN(model, loss, ragged(labels()), memory_cap=cap), truth)
    expect(la.Fisher(model, loss, ragged(labels()), memory_cap=cap), truth)
    scores = p - np.eye(CLASSES)[labels().numpy()]
    observed = sandwich(J, np.einsum("nc,nd->ncd", scores, scores), weights)
    expect(la.EmpiricalFisher(model, loss, ragged(labels()), memory_cap=cap), observed)
    with pytest.raises(AssertionError):  # these tests can tell the two apart
        expect(la.GGN(model, loss, ragged(labels()), memory_cap=cap), observed)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_squared_error_in_closed_form(reduction):
    model, x = network(), inputs()
    target = torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    J, loss = slopes(model, x), nn.MSELoss(reduction=reduction)
    each = 1 / 7 if reduction == "mean" else 1.0
    entry = each / CLASSES if reduction == "mean" else 1.0
    truth = sandwich(J, np.stack([2 * np.eye(CLASSES)] * 7), np.full(7, entry))
    expect(la.GGN(model, loss, ragged(target)), truth)
    expect(la.Fisher(model, loss, ragged(target)), truth)
    scores = 2 * (model(x) - target).detach().numpy() * entry / each
    expect(
        la.EmpiricalFisher(model, loss, ragged(target)),
        sandwich(J, np.einsum("nc,nd->ncd", scores, scores), np.full(7, each)),
    )


def test_logits_of_bernoulli_in_closed_form():
    model, x = network(), inputs()
    J, p = slopes(model, x), model(x).detach().sigmoid().numpy()
    target = torch.ones(7, CLASSES, dtype=torch.float64)
    truth = sandwich(J, np.stack([np.diag(row * (1 - row)) for row in p]), np.full(7, 1 / 28))
    expect(la.GGN(model, nn.BCEWithLogitsLoss(), ragged(target)), truth)
    expect(la.Fisher(model, nn.BCEWithLogitsLoss(), ragged(target)), truth)


def test_positions_of_a_sequence_are_data():
    """Logits (n, C, t): every position is a datum of the empirical Fisher."""
    model = nn.Conv1d(2, CLASSES, 1).double()
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randint(CLASSES, (3, 5), generator=torch.Generator().manual_seed(2))
    flat = nn.Linear(2, CLASSES).double()
    flat.load_state_dict({"weight": model.weight[:, :, 0], "bias": model.bias})
    rows, targets = x.movedim(1, -1).reshape(15, 2), y.reshape(15)
    for kind in (la.GGN, la.Fisher, la.EmpiricalFisher):
        one = kind(model, nn.CrossEntropyLoss(), (x, y)).dense()
        torch.testing.assert_close(one, kind(flat, nn.CrossEntropyLoss(), (rows, targets)).dense(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(), nn.MSELoss()], ids=lambda m: type(m).__name__
)
def test_samples_have_the_fisher_as_mean(loss):
    """Entries' z-scores over independent seeds look normal; a Fisher off by a tenth does not."""
    model, target = network(), torch.zeros(7, CLASSES, dtype=torch.float64)
    data = ragged(labels() if isinstance(loss, nn.CrossEntropyLoss) else target)
    exact = la.Fisher(model, loss, data).dense()
    draws = torch.stack([la.Fisher(model, loss, data, samples=2, seed=s).dense() for s in range(200)])
    spread = draws.std(0) / 200**0.5
    z = ((draws.mean(0) - exact) / spread.clamp(min=1e-300))[spread > 1e-9]
    off = ((1.1 * draws.mean(0) - exact) / spread.clamp(min=1e-300))[spread > 1e-9]
    assert len(z) and z.abs().max() < 5 < off.abs().max()


def test_the_same_draws_in_every_mode_and_whatever_the_global_generator_does():
    model, loss, data = network(), nn.CrossEntropyLoss(), ragged(labels())
    first = la.Fisher(model, loss, data, samples=3, seed=5).dense()
    torch.rand(3)
    torch.testing.assert_close(first, la.Fisher(model, loss, data, samples=3, seed=5, memory_cap=0).dense())
    assert not torch.allclose(first, la.Fisher(model, loss, data, samples=3, seed=6).dense(), rtol=1e-3)


def test_mappings_and_several_outputs():
    """A model that returns a mapping, and a loss that reads two of its entries."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2).double(), nn.Linear(3, 1).double()

        def forward(self, x: Tensor) -> Mapping[str, Tensor]:
            return {"mean": self.a(x), "other": self.b(x), "count": torch.tensor(len(x))}

    def loss(output: Mapping[str, Tensor], target: Tensor) -> Tensor:
        return ((output["mean"] - target) ** 2).mean() + (output["other"] ** 2).mean()

    model = Two()
    data = [({"x": inputs()[:2]}, torch.zeros(2, 2).double()), ({"x": inputs()[2:]}, torch.zeros(5, 2).double())]
    G, H = la.GGN(model, loss, data), la.Hessian(model, loss, data)
    torch.testing.assert_close(G.dense(), H.dense(), rtol=0, atol=1e-14)  # linear in θ
    torch.testing.assert_close(la.GGN(model, loss, data, memory_cap=0).dense(), H.dense(), rtol=0, atol=1e-14)
    with pytest.raises(LossError, match="one tensor"):
        la.EmpiricalFisher(model, loss, data)


def test_a_loss_that_is_linear_in_the_output_has_no_curvature():
    model = network()
    G = la.GGN(model, lambda output, target: output.mean(), (inputs(), labels()))
    assert not G.dense().any()
    assert G.gradient.any()


def test_of_functions():
    G = la.GGN.of(lambda p: p["x"] ** 2, lambda f: (f**2).sum(), {"x": torch.tensor([1.0, 2.0])})
    assert G.dense().tolist() == [[8.0, 0.0], [0.0, 32.0]]
    assert G.value == 17.0


def test_restriction_and_frozen_parameters():
    model = network()
    whole = la.GGN(model, nn.CrossEntropyLoss(), (inputs(), labels()))
    part = la.GGN(model, nn.CrossEntropyLoss(), (inputs(), labels()), params="2.*")
    torch.testing.assert_close(whole.restrict("2.*").dense(), part.dense())
    model[0].requires_grad_(False)
    torch.testing.assert_close(la.GGN(model, nn.CrossEntropyLoss(), (inputs(), labels())).dense(), part.dense())


def test_batch_split_and_float32():
    model = network()
    whole = la.GGN(model, nn.CrossEntropyLoss(), (inputs(), labels())).dense()
    torch.testing.assert_close(
        la.GGN(model, nn.CrossEntropyLoss(), ragged(labels())).dense(), whole, rtol=0, atol=1e-15
    )
    single = la.GGN(model, nn.CrossEntropyLoss(), ragged(labels()), dtype=torch.float32).dense()
    torch.testing.assert_close(single.double(), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (nn.L1Loss(), "likelihood is known.*la.GGN"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "label_smoothing.*la.GGN"),
        (nn.BCEWithLogitsLoss(pos_weight=torch.ones(CLASSES).double()), "pos_weight"),
    ],
)
def test_a_loss_without_likelihood_is_refused(loss, words):
    target = labels() if isinstance(loss, nn.CrossEntropyLoss) else torch.zeros(7, CLASSES).double()
    with pytest.raises(LossError, match=words):
        la.Fisher(network(), loss, (inputs(), target))


def test_bad_arguments():
    data = (inputs(), labels())
    with pytest.raises(ArgumentError, match="samples: expected an integer ≥ 1"):
        la.Fisher(network(), nn.CrossEntropyLoss(), data, samples=0)
    with pytest.raises(ParameterError, match="depends on the chosen parameters"):
        la.GGN(network(), lambda output, target: output.detach().mean(), data)
    with pytest.raises(LossError, match="floating-point tensors, given str"):
        la.GGN(nn.Sequential(network(), Word()), lambda output, target: torch.zeros(()), data)
    with pytest.raises(LossError, match="batch 0"):
        la.GGN(network(), lambda output, target: (output * float("nan")).mean(), data)
    with pytest.raises(ArgumentError, match="output: expected a callable"):
        la.GGN.of(3, lambda f: f, {"x": torch.ones(1)})


class Word(nn.Module):
    """Returns no tensor."""

    def forward(self, x: Tensor) -> str:
        """Return a word."""
        return "word"
