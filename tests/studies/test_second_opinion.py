"""The second opinion: both programs at a Hessian known in closed form, and the controls at one cheap point."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.studies.curvature import second_opinion as study

pytest.importorskip("pyhessian")


pytestmark = pytest.mark.usefixtures("double")


def test_both_programs_find_the_hessian_of_softmax_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal logits the Hessian is (diag(p) - p p^T) (x) mean x x^T; the first factor is 1/10 on its range."""
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    y = torch.arange(30) % 10
    net = nn.Linear(4, 10, bias=False).double()
    nn.init.zeros_(net.weight)
    truth = float(torch.linalg.eigvalsh(x.T @ x / 30)[-1]) / 10
    assert study.asked(net, x, y, 0).eigenvalues(maxIter=500, tol=1e-9)[0][0] == pytest.approx(truth, rel=1e-5)
    assert la.eigenpairs(la.Hessian(net, study.cross_entropy, (x, y)), k=1).values.item() == pytest.approx(
        truth, rel=1e-5
    )


@pytest.mark.parametrize("model", study.MODELS)
def test_they_agree_on_trained_networks_and_tell_neighbours_apart(model: str) -> None:
    sizes = dict(model=model, images=40, steps=10, seed=0)
    assert study.second_opinion_eigenvalues(**sizes)["value"] < 1e-3
    assert study.second_opinion_eigenvalues(**sizes, later=True)["value"] > 1e-3
