"""The four parts of the Gauss–Newton matrix of cross-entropy against loops in numpy, and what its outliers come from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lemmata.analysis.curvature.attribution import Attribution, attribute
from lemmata.analysis.curvature.class_structure import PARTS, ClassStructure, class_structure
from lemmata.analysis.curvature.low_rank import LowRank
from lemmata.analysis.errors import ArgumentError, LemmataError, LossError, OperandError
from lemmata.analysis.operators.layout import Layout

CE = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def problem(classes: int = 4, count: int = 21) -> tuple[nn.Module, Tensor, Tensor]:
    labels = torch.arange(count) % classes
    inputs = torch.randn(count, 5).double() + 2 * torch.eye(classes, 5).double()[labels]
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, classes)).double()
    return model, inputs, labels


def by_hand(model: nn.Module, inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Jacobians (N, C, P) and chances (N, C) of a network with one hidden layer of tanh, or of a linear layer."""
    parts = [p.detach().numpy() for p in model.parameters()]
    jacobians, chances = [], []
    for x in inputs.numpy():
        if len(parts) == 2:
            f = parts[0] @ x + parts[1]
            rows = [np.concatenate([np.outer(e, x).ravel(), e]) for e in np.eye(len(f))]
        else:
            W1, b1, W2, b2 = parts
            h = np.tanh(W1 @ x + b1)
            f = W2 @ h + b2
            rows = []
            for c, e in enumerate(np.eye(len(f))):
                delta = W2[c] * (1 - h**2)
                rows.append(np.concatenate([np.outer(delta, x).ravel(), delta, np.outer(e, h).ravel(), e]))
        p = np.exp(f - f.max())
        jacobians.append(np.array(rows))
        chances.append(p / p.sum())
    return np.array(jacobians), np.array(chances)


def reference(J: np.ndarray, p: np.ndarray, labels: np.ndarray, a: np.ndarray) -> dict[str, np.ndarray]:
    """The definitions, one loop for each sum."""
    N, C, P = J.shape
    g = {(n, o): J[n].T @ (p[n] - np.eye(C)[o]) for n in range(N) for o in range(C)}
    parts = {name: np.zeros((P, P)) for name in PARTS}
    for c in range(C):
        mine = [n for n in range(N) if labels[n] == c and a[n] > 0]
        means, pi = {}, {}
        for o in range(C):
            if o != c and mine:
                pi[o] = sum(a[n] * p[n, o] for n in mine)
                means[o] = sum(a[n] * p[n, o] * g[n, o] for n in mine) / pi[o]
                for n in mine:
                    d = g[n, o] - means[o]
                    parts["within"] += a[n] * p[n, o] * np.outer(d, d)
        if mine:
            centre = sum(pi[o] * means[o] for o in pi) / sum(pi.values())
            parts["class"] += sum(pi.values()) * np.outer(centre, centre)
            for o in pi:
                parts["cross"] += pi[o] * np.outer(means[o] - centre, means[o] - centre)
        for n in mine:
            parts["same"] += a[n] * p[n, c] * np.outer(g[n, c], g[n, c])
    return parts


def split(inputs: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(inputs[:8], labels[:8]), (inputs[8:13], labels[8:13]), (inputs[13:], labels[13:])]


CLASS_WEIGHT = torch.tensor([1.0, 3.0, 0.5, 2.0]).double()
LOSSES: dict[str, tuple[Any, Any]] = {
    "mean": (CE, lambda y: np.ones(len(y)) / len(y)),
    "function": (F.cross_entropy, lambda y: np.ones(len(y)) / len(y)),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), lambda y: np.ones(len(y))),
    "class weights": (
        nn.CrossEntropyLoss(weight=CLASS_WEIGHT),
        lambda y: CLASS_WEIGHT.numpy()[y] / CLASS_WEIGHT.numpy()[y].sum(),
    ),
    "ignored class": (nn.CrossEntropyLoss(ignore_index=2), lambda y: (y != 2) / (y != 2).sum()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_parts_are_those_of_the_definitions(name: str) -> None:
    model, inputs, labels = problem()
    loss, shares = LOSSES[name]
    found = class_structure(model, loss, split(inputs, labels))
    truth = reference(*by_hand(model, inputs), labels.numpy(), shares(labels.numpy()))
    scale = np.abs(sum(truth.values())).max()
    for part in PARTS:
        assert np.abs(found.parts[part].dense().numpy() - truth[part]).max() < 1e-13 * scale, part
    total = sum(operator.dense() for operator in found.parts.values())
    assert float((total - found.ggn.dense()).abs().max()) < 1e-13 * scale
    assert np.abs(found.ggn.dense().numpy() - sum(truth.values())).max() < 1e-13 * scale
    for part in ("class", "cross"):
        exact = np.linalg.eigvalsh(truth[part])[::-1]
        values = found.eigenvalues(part).numpy()
        assert np.abs(values - exact[: len(values)]).max() < 1e-13 * scale
        assert len(values) >= len(exact) or np.abs(exact[len(values) :]).max() < 1e-13 * scale


def test_definitions_tell_the_parts_apart() -> None:
    model, inputs, labels = problem()
    found = class_structure(model, CE, (inputs, labels))
    J, p = by_hand(model, inputs)
    wrong = reference(J, p, p.argmin(1), np.ones(21) / 21)  # grouped by another label
    unweighted = reference(J, np.full_like(p, 1 / 4), labels.numpy(), np.ones(21) / 21)
    for part in PARTS:
        dense = found.parts[part].dense().numpy()
        assert np.abs(dense - wrong[part]).max() > 1e-3 * np.abs(dense).max()
        assert np.abs(dense - unweighted[part]).max() > 1e-3 * np.abs(dense).max()


def test_softmax_regression_and_weights() -> None:
    _, inputs, labels = problem(3)
    model = nn.Linear(5, 3).double()
    found = class_structure(model, CE, split(inputs, labels))
    J, p = by_hand(model, inputs)
    truth = reference(J, p, labels.numpy(), np.ones(21) / 21)
    for part in PARTS:
        assert np.allclose(found.parts[part].dense().numpy(), truth[part], atol=1e-14)
    pi = np.array([[p[labels == c, o].sum() / 21 * (o != c) for o in range(3)] for c in range(3)])
    assert np.allclose(found.weights.numpy(), pi, atol=1e-15)
    assert found.weights.sum() == pytest.approx(1 - p[np.arange(21), labels].mean())
    mean = sum(p[n, 1] * J[n].T @ (p[n] - np.eye(3)[1]) for n in range(0, 21, 3)) / p[::3, 1].sum()
    assert np.allclose(found.means[0, 1].numpy(), mean, atol=1e-14)


def test_equal_data_in_a_class_leave_nothing_within_and_two_classes_nothing_across() -> None:
    model, inputs, labels = problem()
    same = inputs[labels]  # the first four data stand for their classes
    found = class_structure(model, CE, (same, labels))
    largest = float(found.eigenvalues("class")[0])
    assert float(found.parts["within"].dense().abs().max()) < 1e-14 * largest
    assert largest > 1e-3
    cross = found.eigenvalues("cross")
    assert int((cross > 1e-12 * cross[0]).sum()) == 4 * (4 - 2)
    two = class_structure(*(problem(2)[:1]), CE, problem(2)[1:])
    assert float(two.eigenvalues("cross").max()) < 1e-15


def test_an_absent_class_and_positions() -> None:
    model, inputs, labels = problem()
    kept = labels != 1
    found = class_structure(model, CE, (inputs[kept], labels[kept]))
    truth = reference(*by_hand(model, inputs[kept]), labels[kept].numpy(), np.ones(int(kept.sum())) / int(kept.sum()))
    for part in PARTS:
        assert np.allclose(found.parts[part].dense().numpy(), truth[part], atol=1e-14)
    assert not found.means[1].any() and not found.weights[1].any()
    line = nn.Linear(5, 4).double()
    convolution = nn.Conv1d(5, 4, 1).double()
    convolution.load_state_dict({"weight": line.weight[:, :, None], "bias": line.bias})
    positions = inputs.reshape(7, 3, 5).transpose(1, 2)
    flat, deep = (
        class_structure(line, CE, (inputs, labels)),
        class_structure(convolution, CE, (positions, labels.view(7, 3))),
    )
    for part in PARTS:
        assert torch.allclose(flat.parts[part].dense(), deep.parts[part].dense(), atol=1e-15)


def test_a_product_with_a_block_is_that_of_its_columns() -> None:
    model, inputs, labels = problem()
    found = class_structure(model, CE, (inputs, labels), params="2.*", dtype=torch.float32)
    V = torch.randn(found.ggn.shape[0], 5)
    for operator in found.parts.values():
        assert torch.allclose(operator @ V, torch.stack([operator @ v for v in V.T], 1), atol=1e-6)
        assert operator.plan(3).products >= 3
    assert found.ggn.layout.names == ("2.weight", "2.bias")


def test_attribution_against_numpy() -> None:
    model, inputs, labels = problem()
    found = class_structure(model, CE, split(inputs, labels))
    result = attribute(found, k=3, tol=1e-8)
    truth = reference(*by_hand(model, inputs), labels.numpy(), np.ones(21) / 21)
    values, vectors = np.linalg.eigh(sum(truth.values()))
    values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
    assert np.allclose(result.values.numpy(), values, rtol=1e-9)
    for part in PARTS:
        shares = np.einsum("pk,pq,qk->k", vectors, truth[part], vectors) / values
        assert np.allclose(result.shares[part].numpy(), shares, atol=1e-6)
        knocked = np.linalg.eigvalsh(sum(truth.values()) - truth[part])[::-1][:3]
        assert np.allclose(result.knockouts[part].numpy(), knocked, rtol=1e-7)
        assert (result.knockouts[part] <= result.values + 1e-10).all()
    assert torch.allclose(sum(result.shares.values()), torch.ones(3).double())
    span = np.linalg.eigh(truth["class"])[1][:, -4:]
    assert np.allclose(result.overlaps.numpy(), ((span.T @ vectors) ** 2).sum(0), atol=1e-6)
    assert len(attribute(found).values) == 4


def test_errors_of_the_shares_hold_at_a_rough_tolerance() -> None:
    model, inputs, labels = problem()
    truth = reference(*by_hand(model, inputs), labels.numpy(), np.ones(21) / 21)
    values, vectors = np.linalg.eigh(sum(truth.values()))
    values, vectors = values[::-1][:4], vectors[:, ::-1][:, :4]
    found, worst = class_structure(model, CE, (inputs, labels)), 0.0
    for seed in range(5):
        result = attribute(found, tol=0.1, seed=seed)
        for part in PARTS:
            shares = np.einsum("pk,pq,qk->k", vectors, truth[part], vectors) / values
            gap = np.abs(result.shares[part].numpy() - shares)
            assert (gap <= result.errors.numpy() + 1e-9).all()
            worst = max(worst, gap.max())
    assert worst > 1e-5  # errors of zero would fail


def test_separated_class_means_give_the_outliers() -> None:
    """Data that are nearly one point a class, and a model that has begun to tell them apart."""
    labels = torch.arange(60) % 4
    inputs = 3 * torch.eye(4, 8).double()[labels] + 0.01 * torch.randn(60, 8).double()
    model = nn.Linear(8, 4, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(2 * torch.eye(4, 8))  # the chance of the own class is 0.99
    result = attribute(class_structure(model, CE, (inputs, labels)))
    assert float(result.shares["within"].max()) < 1e-3
    assert bool((result.overlaps > 0.9).all())
    assert bool((result.knockouts["class"] < 0.5 * result.values).all())
    assert bool((result.knockouts["within"] > 0.99 * result.values).all())


def test_products_without_kept_graphs_are_the_same() -> None:
    model, inputs, labels = problem()
    kept = class_structure(model, CE, split(inputs, labels))
    fresh = class_structure(model, CE, split(inputs, labels), memory_cap=0)
    assert "fresh" in repr(fresh.parts["same"]) and "retained" in repr(kept.parts["same"])
    for part in PARTS:
        assert torch.allclose(kept.parts[part].dense(), fresh.parts[part].dense(), atol=1e-14)


def test_low_rank_matrices() -> None:
    rows = torch.randn(4, 9).double()
    rows = torch.cat([rows, rows[:2] + rows[2:]])
    A = LowRank(rows, Layout(("vector",), ((9,),)))
    dense = rows.numpy().T @ rows.numpy()
    assert np.allclose(A.dense().numpy(), dense)
    assert np.allclose(A.spectrum().numpy(), np.linalg.eigvalsh(dense)[::-1][:6], atol=1e-12)
    basis = A.basis().numpy()
    assert basis.shape == (9, 4) and np.allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    assert np.allclose(basis @ (basis.T @ dense), dense, atol=1e-10)
    assert LowRank(0 * rows, A.layout).basis().shape == (9, 0)


def test_records_pictures_and_words() -> None:
    found = class_structure(*problem()[:1], CE, problem()[1:])
    result = attribute(found, k=2)
    again = Attribution.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.to_dict() == result.to_dict() and torch.equal(again.shares["class"], result.shares["class"])
    assert "4 classes" in repr(found) and "class" in repr(result) and len(result.rows()) == 2
    assert len(repr(result).splitlines()) == 4
    assert result.plot().get_xlabel() == "index"


def test_the_model_is_left_alone() -> None:
    model, inputs, labels = problem()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    attribute(class_structure(model, CE, (inputs, labels)))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("loss", "target", "words"),
    [
        (nn.MSELoss(), "onehot", "cross-entropy over class indices"),
        (nn.BCEWithLogitsLoss(), "onehot", "cross-entropy over class indices"),
        (lambda f, t: F.cross_entropy(f, t), "labels", "whose likelihood is known"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "labels", "no label_smoothing"),
        (CE, "onehot", "expected class indices.*argmax"),
    ],
)
def test_other_losses_are_refused(loss: Any, target: str, words: str) -> None:
    model, inputs, labels = problem()
    given = F.one_hot(labels, 4).double() if target == "onehot" else labels
    with pytest.raises(LossError, match=words):
        class_structure(model, loss, (inputs, given))


def test_bad_input_is_named() -> None:
    model, inputs, labels = problem()
    found = class_structure(model, CE, (inputs, labels))
    with pytest.raises(ArgumentError, match="part: expected one of.*given 'between'"):
        found.without("between")
    with pytest.raises(ArgumentError, match=r"part: expected 'class' or 'cross'.*given 'within'"):
        found.eigenvalues("within")
    with pytest.raises(OperandError, match="structure: expected a ClassStructure, given GGN"):
        attribute(found.ggn)  # type: ignore[arg-type]
    for k in (0, 1000, 2.0, True):
        with pytest.raises(ArgumentError, match="k: expected an integer from 1 to P"):
            attribute(found, k)  # type: ignore[arg-type]
    with pytest.raises(LemmataError, match="params='nothing'"):
        class_structure(model, CE, (inputs, labels), params="nothing")
    assert isinstance(found, ClassStructure)
