"""Noise of gradients: laws against sums made another way, and faults that must be found or must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.studies.gradient_flow.noise import (
    DEPTH,
    FAULTS,
    deep,
    gradient,
    gradient_health_culprit,
    gradient_health_healthy,
    gradient_noise_scale,
    gradient_noise_scale_epoch,
    gradient_noise_scale_interval,
    images,
    network,
    orderings,
)

pytestmark = pytest.mark.usefixtures("double")


def test_orderings_count_all_sequences() -> None:
    assert orderings((0, 1, 2)) == 6 and orderings((0, 0, 2)) == 3 and orderings((1, 1)) == 1


@pytest.mark.parametrize("kind", ["MLP", "CNN"])
def test_a_gradient_by_differences(kind: str) -> None:
    draws = torch.Generator().manual_seed(0)
    model = network(kind, draws).requires_grad_(False)
    inputs, labels = images(kind, 6, draws)
    found = gradient(model, inputs, labels, [0, 3, 3])
    weight = next(model.parameters())
    step, losses = 1e-5, []
    for move in (step, -2 * step):
        weight.view(-1)[1] += move
        parts = torch.nn.functional.cross_entropy(model(inputs), labels, reduction="none")
        losses.append(float(parts[0] + 2 * parts[3]) / 3)
    assert abs(float(found[1]) - (losses[0] - losses[1]) / (2 * step)) < 1e-8


def test_the_law_of_finite_populations() -> None:
    trial = dict(kind="MLP", batch=2, examples=5)
    without, replaced = gradient_noise_scale(**trial, seed=1), gradient_noise_scale(**trial, seed=1, replacement=True)
    assert abs(without["value"] - 1) < 1e-12 and abs(replaced["value"] - 4 / 3) < 1e-12
    assert abs(replaced["variance"] - 1 / 2) < 1e-12  # 1/B
    epoch = dict(kind="CNN", batch=50, seed=1)
    assert gradient_noise_scale_epoch(**epoch) < 1e-14 < 1e-2 < gradient_noise_scale_epoch(**epoch, fresh=True)


def test_coverage_is_lost_where_examples_are_copies() -> None:
    trial = dict(noise=2.0, examples=400, sets=60)
    assert gradient_noise_scale_interval(**trial, seed=1)["value"] > 0.88
    assert gradient_noise_scale_interval(**trial, seed=1, copies=8)["value"] < 0.8


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_where_it_is(fault: str) -> None:
    found, healthy = (gradient_health_culprit(fault, seed=3, planted=planted) for planted in (True, False))
    assert found["value"] == 1 and healthy["value"] == 0 and found["place"] == healthy["place"]
    assert (
        len(healthy["gradient"]) == DEPTH + 1 and 1e-3 < np.min(healthy["gradient"]) < np.max(healthy["gradient"]) < 1e3
    )
    assert found["gradient"].tolist() == gradient_health_culprit(fault, seed=3)["gradient"].tolist()


def test_a_clean_bill_and_one_that_is_not() -> None:
    assert gradient_health_healthy(depth=12, seed=1) == 0
    assert gradient_health_healthy(depth=12, seed=1, law="default") > 3
    assert len(deep(3, "he", torch.Generator().manual_seed(0)).layers) == 4
