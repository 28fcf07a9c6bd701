"""Outliers of classifiers: the data, a count by dense algebra, and each control at one cheap point."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.studies.curvature import class_outliers as study

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
