"""The tracker against dense eigenvalues at each record, thresholds against simulated runs, nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.curvature.stability import (
    Preconditioned,
    adam_preconditioner,
    adam_threshold,
    gradient_descent_threshold,
    heavy_ball_threshold,
    nesterov_threshold,
)
from lemmata.analysis.curvature.tracking import CurvatureRecord, CurvatureTracker
from lemmata.analysis.errors import ArgumentError, OperandError

X = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
Y = torch.sin(4 * X)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1)).double()


def train(model: nn.Module, optimizer: Any, steps: int, before: Callable[[], None] = lambda: None) -> None:
    for _ in range(steps):
        before()
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), Y).backward()
        optimizer.step()


def dense(model: nn.Module) -> np.ndarray:
    """The Hessian by differences of the gradient."""
    parameters = list(model.parameters())
    theta = torch.nn.utils.parameters_to_vector(parameters).detach()

    def slope(point: Tensor) -> Tensor:
        copy = network()
        torch.nn.utils.vector_to_parameters(point, copy.parameters())
        loss = nn.functional.mse_loss(copy(X), Y)
        return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(copy.parameters()))])

    step = 1e-5
    columns = [(slope(theta + step * e) - slope(theta - step * e)) / (2 * step) for e in torch.eye(len(theta)).double()]
    matrix = torch.stack(columns).numpy()
    return (matrix + matrix.T) / 2


@pytest.mark.parametrize("k", [1, 3])
def test_against_dense_eigenvalues(k: int) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    tracker = CurvatureTracker(model, nn.MSELoss(), (X, Y), k=k, every=10, tol=1e-4)
    truth, losses, shares = [], [], []

    def look() -> None:
        if tracker.calls % 10 == 0:
            matrix = dense(model)
            values, vectors = np.linalg.eigh(matrix)
            truth.append(values[::-1][:k])
            losses.append(((model(X) - Y) ** 2).mean().item())
            g = torch.cat(
                [p.reshape(-1) for p in torch.autograd.grad(((model(X) - Y) ** 2).mean(), list(model.parameters()))]
            )
            shares.append(float(((vectors[:, ::-1][:, :k].T @ g.numpy()) ** 2).sum() / g.square().sum()))

    with tracker.attached(optimizer):
        train(model, optimizer, 51, look)
    train(model, optimizer, 3)  # detached: nothing more is measured
    record = tracker.record
    assert record.steps.tolist() == [0, 10, 20, 30, 40, 50] and bool(record.converged.all())
    gaps = np.abs(record.eigenvalues.numpy() - np.array(truth))
    assert np.all(gaps <= record.residuals.numpy() + 1e-6)
    assert not np.all(np.abs(1.01 * record.eigenvalues.numpy() - np.array(truth)) <= record.residuals.numpy() + 1e-6)
    assert record.losses.numpy() == pytest.approx(np.array(losses), rel=1e-12)
    assert record.overlaps.numpy() == pytest.approx(np.array(shares), abs=1e-2)


def test_warm_starts_save_products() -> None:
    def spent(warm: bool) -> tuple[int, int]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        tracker = CurvatureTracker(model, nn.MSELoss(), (X, Y), every=1, tol=1e-3)

        def measure() -> None:
            if not warm:
                tracker._start = None
            tracker()

        train(model, optimizer, 10, measure)
        return int(tracker.record.matvecs[0]), int(tracker.record.matvecs[1:].sum())

    warm, cold = spent(True), spent(False)
    assert warm[0] == cold[0] and warm[1] < 0.75 * cold[1], (warm, cold)


def test_training_is_the_same_to_the_bit() -> None:
    def run(tracked: bool) -> tuple[list[Tensor], list[Tensor], Tensor]:
        model = network()
        loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        tracker = CurvatureTracker(model, nn.MSELoss(), loader, every=3)
        with tracker.attached(optimizer):
            if not tracked:
                tracker.every = 10**9
                tracker.calls = 1
            for _ in range(3):
                for x, y in loader:
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()
        assert len(tracker.record.steps) == (3 if tracked else 0)
        gradients = [part.grad.clone() for part in model.parameters() if part.grad is not None]
        assert model.training
        return [part.detach().clone() for part in model.parameters()], gradients, torch.get_rng_state()

    for plain, tracked in zip(run(False)[:2], run(True)[:2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain, tracked, strict=True))
    assert torch.equal(run(False)[2], run(True)[2])


def test_gradient_descent_arrives_at_its_threshold_and_stays() -> None:
    lr = 0.25
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    tracker = CurvatureTracker(model, nn.MSELoss(), (X, Y), every=101)
    with tracker.attached(optimizer):
        train(model, optimizer, 3000)
    late = tracker.record.eigenvalues[-10:, 0].median()
    assert float(late) == pytest.approx(gradient_descent_threshold(lr), rel=0.05)


def diverges(make: Callable[[list[Tensor]], Any], curvature: float) -> bool:
    """Does an optimiser of torch leave the minimum of ½ λ x²?"""
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    for _ in range(4000):
        optimizer.zero_grad()
        (0.5 * curvature * x**2).sum().backward()
        optimizer.step()
        if abs(x.item()) > 1e6:
            return True
    return False


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_thresholds_of_momentum(beta: float) -> None:
    lr = 0.1
    for nesterov, threshold in ((False, heavy_ball_threshold(lr, beta)), (True, nesterov_threshold(lr, beta))):
        if nesterov and not beta:
            continue

        def make(parameters: Any, nesterov: bool = nesterov) -> Any:
            return torch.optim.SGD(parameters, lr, momentum=beta, nesterov=nesterov)

        assert diverges(make, 1.01 * threshold) and not diverges(make, 0.99 * threshold)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_threshold_of_adam_with_a_frozen_preconditioner(beta: float) -> None:
    def radius(curvature: float, lr: float = 0.1) -> float:
        step = np.array([[beta, (1 - beta) * curvature], [-lr * beta, 1 - lr * (1 - beta) * curvature]])
        return float(np.abs(np.linalg.eigvals(step)).max())

    threshold = adam_threshold(0.1, beta)
    assert radius(1.001 * threshold) > 1 > radius(0.999 * threshold)


def test_adam_preconditioner_predicts_adams_step() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, betas=(0.8, 0.95), eps=1e-3)
    diagonal = adam_preconditioner(optimizer)
    parameters = dict(model.named_parameters())
    assert diagonal(parameters) is None
    train(model, optimizer, 3)
    before = torch.cat([part.detach().clone().reshape(-1) for part in parameters.values()])
    train(model, optimizer, 1)
    moved = torch.cat([part.detach().reshape(-1) for part in parameters.values()]) - before
    mean = torch.cat([optimizer.state[part]["exp_avg"].reshape(-1) for part in parameters.values()])
    found = diagonal(parameters)
    assert found is not None and torch.allclose(moved, -1e-2 * mean / found, rtol=1e-10)


def test_preconditioned_eigenvalues() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    diagonal = adam_preconditioner(optimizer)
    tracker = CurvatureTracker(model, nn.MSELoss(), (X, Y), every=5, tol=1e-5, preconditioner=diagonal)
    truth = []

    def look() -> None:
        P = diagonal(dict(model.named_parameters()))
        if tracker.calls % 5 == 0 and P is not None:
            truth.append(np.linalg.eigvals(dense(model) / P.numpy()[:, None]).real.max())

    with tracker.attached(optimizer):
        train(model, optimizer, 11, look)
    assert tracker.record.steps.tolist() == [5, 10]  # before the first step there is no preconditioner
    assert tracker.record.eigenvalues[:, 0].numpy() == pytest.approx(truth, rel=1e-4)


def test_record_and_plot() -> None:
    tracker = CurvatureTracker(network(), nn.MSELoss(), (X, Y), k=2, every=1)
    assert "empty" in repr(tracker.record) and tracker.record.eigenvalues.shape == (0, 0)
    tracker()
    tracker()
    record = tracker.record
    again = CurvatureRecord.from_dict(record.to_dict())
    assert all(torch.equal(a, b) for a, b in zip(vars(record).values(), vars(again).values(), strict=True))
    assert "2 measurements" in repr(record)
    axes = record.plot(threshold=4.0)
    assert "threshold" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_errors() -> None:
    model = network()
    for options in ({"k": 0}, {"every": 0}, {"every": 1.5}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            CurvatureTracker(model, nn.MSELoss(), (X, Y), **options)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="step size"):
        gradient_descent_threshold(0)
    with pytest.raises(ArgumentError, match="momentum"):
        heavy_ball_threshold(0.1, 1)
    with pytest.raises(ArgumentError, match="amsgrad"):
        adam_preconditioner(torch.optim.SGD(model.parameters(), 0.1))
    some = torch.optim.Adam(model[0].parameters())
    with pytest.raises(ArgumentError, match="2.weight"):
        for part in model[0].parameters():
            part.grad = torch.ones_like(part)
        some.step()
        adam_preconditioner(some)(dict(model.named_parameters()))
    with pytest.raises(OperandError, match="positive"):
        Preconditioned(la.Dense(torch.eye(2)), torch.tensor([1.0, 0.0]))
