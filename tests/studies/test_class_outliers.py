"""Outliers of classifiers: the data, a count by dense algebra, and each control at one cheap point."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.func import functional_call, jacrev, vmap

import lemmata.analysis as la
from lemmata.studies.curvature import class_outliers as study
from lemmata.studies.curvature import spectrum_figures

pytestmark = pytest.mark.usefixtures("double")


def test_clusters_have_the_stated_means_and_spread() -> None:
    _, x, y = study.trained("wide clusters", 3, 400, 0)
    means = torch.stack([x[y == label].mean(0) for label in range(3)])
    torch.testing.assert_close(means @ means.T, 9 * torch.eye(3), atol=0.6, rtol=0)
    assert float((x - means[y]).std()) == pytest.approx(0.7, rel=0.02)
    net, x, y = study.trained("wide clusters", 3, 30, 0, shuffled=True)
    assert float((net(x).argmax(1) == y).double().mean()) > 0.9


def test_the_count_is_that_of_the_dense_matrix_and_depends_on_the_data() -> None:
    found = study.hessian_outliers_classes("wide clusters", 8, 100, 0)
    net, x, y = study.trained("wide clusters", 8, 100, 0)
    values = torch.linalg.eigvalsh(la.Hessian(net, nn.CrossEntropyLoss(), (x, y)).dense()).flip(0)[:17]
    torch.testing.assert_close(torch.from_numpy(found["eigenvalues"]), values, rtol=1e-3, atol=0)
    assert found["value"] == 0
    assert study.hessian_outliers_classes("tight clusters", 10, 30, 0)["value"] == 1
    assert study.hessian_outliers_classes("wide clusters", 10, 100, 0, shuffled=True)["value"] != 0


def test_outliers_are_class_means_only_of_clusters() -> None:
    assert study.outliers_lie_in_class_means("wide clusters", 5, 30, 0) > 0.95
    assert study.outliers_lie_in_class_means("wide clusters", 5, 30, 0, clustered=False) < 0.9


def test_knockouts_are_those_of_dense_matrices_built_example_by_example() -> None:
    found = study.class_structure_digits(20, 0)
    net, _, (x, y) = study.digits_classifier(20, 0)
    assert bool((net(x).argmax(1) == y).all()) and found["error"] < 1e-12
    leaves, chances = dict(net.named_parameters()), net(x).detach().softmax(1)
    logits = vmap(jacrev(lambda p, datum: functional_call(net, p, (datum[None],))[0]), in_dims=(None, 0))(leaves, x)
    jacobians = torch.cat([part.flatten(2) for part in logits.values()], 2).detach()
    gradients = torch.einsum("nc,ncp->np", chances, jacobians)[:, None] - jacobians  # for every supposed label
    weights = chances / len(y)
    scaled = (weights.sqrt()[..., None] * gradients).flatten(0, 1)
    whole = scaled.T @ scaled
    mean = torch.zeros(10, whole.shape[0])
    part = torch.zeros_like(whole)
    for label in range(10):
        own = weights[y == label].clone()
        own[:, label] = 0
        mean[label] = torch.einsum("nc,ncp->p", own, gradients[y == label]) / own.sum()
        part += own.sum() * torch.outer(mean[label], mean[label])
    before, after = (torch.linalg.eigvalsh(matrix)[-9:].sum() for matrix in (whole, whole - part))
    assert found["value"] == pytest.approx(float(1 - after / before), abs=1e-3)
    torch.testing.assert_close(torch.from_numpy(found["class"])[:9], torch.linalg.eigvalsh(part)[-9:].flip(0))
    shares = sum(found[f"share {name}"] for name in spectrum_figures.COLOURS)
    np.testing.assert_allclose(shares, 1, atol=1e-9)
    others = study.class_structure_digits(20, 0, shuffled=True), study.class_structure_digits(20, 0, part="within")
    assert all(other["value"] < 0.4 < 0.5 < found["value"] for other in others)
    row = SimpleNamespace(arm="", k=0, values=found)
    for draw in study.class_structure_digits.figures:
        assert {len(column) for column in draw(Figure().subplots(), [row]).values()} == {spectrum_figures.RANKS}


def test_density_holds_the_eigenvalues_of_its_own_network_only() -> None:
    found = study.density_interval_digits(20, 1, 0)
    assert found["value"] >= 0.95 and len(found["eigenvalues"]) == 1482
    assert study.density_interval_digits(20, 1, 0, behind=50)["value"] < 0.8
    assert study.density_interval_digits(20, 1, 0, shrink=5.0)["value"] < 0.8
    above = np.array([(found["eigenvalues"] > x).sum() for x in found["above"]])
    np.testing.assert_allclose(found["true number above"], above, atol=1e-9)
    step = found["x"][1] - found["x"][0]
    for name in ("density", "density of all"):
        assert float(found[name].sum() * step) == pytest.approx(1, abs=0.01)
    row = SimpleNamespace(arm="", k=0, values=found)
    for draw, length in zip(study.density_interval_digits.figures, (400, 120), strict=True):
        assert {len(column) for column in draw(Figure().subplots(), [row]).values()} == {length}
