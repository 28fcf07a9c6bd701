"""Linear attention in context: the head by loops, risk by closed form and enumeration, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.studies.approximation import in_context as study
from lemmata.studies.data import gaussian

pytestmark = pytest.mark.usefixtures("double")


def test_the_head_is_its_sum_and_its_prediction_a_correlation() -> None:
    draws = torch.Generator().manual_seed(0)
    e, truth = study.tasks(draws, 2, 3, 5, 2)
    W, V = gaussian(draws, 2, 4, 4)
    head, out = study.LinearHead(W, V, 5), e.clone()
    for b in range(2):
        for i in range(7):
            for j in range(5):
                out[b, i] += (e[b, i] @ W @ e[b, j]) * (V @ e[b, j]) / 5
    assert torch.allclose(head(e), out, rtol=1e-12) and truth.shape == (2, 2)
    x, y = e[:, :5, :3], e[:, :5, 3]
    step = 0.7 * (x * y[..., None]).mean(1)  # one step from zero, by hand
    found = study.predictions(study.one_step(3, 5, 0.7)(e), 5)
    assert torch.allclose(found, (e[:, 5:, :3] @ step[..., None])[..., 0], rtol=1e-12)
    assert torch.allclose(study.descended(e, 5, 0.7, 1, torch.zeros(2, 3)), found, rtol=1e-12)


def test_a_query_tells_nothing_of_its_answer() -> None:
    e, truth = study.tasks(torch.Generator().manual_seed(1), 6, 3, 4, 2)
    assert float(e[:, 4:, -1].abs().max()) == 0
    w = torch.linalg.lstsq(e[:, :4, :3], e[:, :4, 3:]).solution
    assert torch.allclose((e[:, 4:, :3] @ w)[..., 0], truth)


def test_frames_average_to_all_weights_and_queries() -> None:
    n, d, rate = 6, 3, 0.4
    e, truth = study.framed(torch.Generator().manual_seed(2), 1, d, n)
    x = e[0, :n, :d]
    M = torch.eye(d) - rate * x.T @ x / n  # w − ŵ = M w, so the mean over w and x of (w − ŵ)·x squared is ‖M‖²
    found = study.predictions(study.one_step(d, n, rate)(e), n)
    assert float((truth - found).square().mean()) == pytest.approx(float(M.square().sum()), rel=1e-12)


def test_the_risk_is_least_at_the_best_step() -> None:
    n, d = 20, 5
    assert study.risk(np.array(n / (n + d + 1)), n, d) == pytest.approx(d * (d + 1) / (n + d + 1))
    assert study.risk(np.array(1.0), n, d) == pytest.approx(d * (d + 1) / n)
    e, truth = study.tasks(torch.Generator().manual_seed(3), 10_000, d, n, 1)
    errors = (truth - study.predictions(study.one_step(d, n, 0.9)(e), n)).square()
    assert abs(float(errors.mean()) - study.risk(np.array(0.9), n, d)) < 4 * float(errors.std()) / 100


def test_the_trials_part_from_their_controls() -> None:
    small = dict(layers=3, n=7, d=4, seed=0)
    assert study.linear_attention_is_gd(**small) < 1e-14
    assert study.linear_attention_is_gd(**small, softmax=True) > 0.1
    assert study.linear_attention_is_gd(**small, start=1.0) > 0.1
    risk = dict(n=20, d=5, count=1000, seed=0)
    assert study.linear_attention_is_gd_risk(**risk)["value"] == pytest.approx(30 / 26, rel=0.05)
    assert study.linear_attention_is_gd_risk(**risk, best=False)["value"] == pytest.approx(1.5, rel=0.05)
    assert study.linear_attention_is_gd_risk(**risk, softmax=True)["value"] > 1.5
    trained = dict(n=20, d=5, nets=1, steps=100, seed=0)
    found = study.linear_attention_is_gd_trained(**trained)
    assert found["value"] == pytest.approx(20 / 26, rel=0.08) and found["matrix"].shape == (6, 6)
    assert study.linear_attention_is_gd_trained(**trained, noise=True)["value"] == pytest.approx(20 / 31, rel=0.08)
