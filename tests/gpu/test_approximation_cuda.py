"""Every analyzer of approximation on CUDA against the same on the CPU, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no CUDA device")

FLOAT = torch.float64
DESCENT = partial(torch.optim.SGD, lr=0.5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT, device="cpu")


def network(*widths: int) -> nn.Sequential:
    """Rectifiers with weights drawn on the CPU."""
    layers: list[nn.Module] = []
    for k, (n, m) in enumerate(pairwise(widths)):
        linear = nn.Linear(n, m, dtype=FLOAT)
        with torch.no_grad():
            linear.weight.copy_(normal(m, n, seed=2 * k) * (2 / n) ** 0.5)
            linear.bias.copy_(normal(m, seed=2 * k + 1) / 2)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def ranks(device: str) -> list[float]:
    found = la.representation_ranks(network(4, 12, 3).to(device), normal(40, 4).to(device))
    return [float(place.rank) for place in found if place.rank is not None]


def report(device: str) -> list[float]:
    found = la.capacity_report(network(4, 12, 3).to(device), normal(30, 4).to(device), steps=20)
    assert found.labels is not None and found.regions is not None and found.content is not None and not found.notes
    return [*found.labels.shares.tolist(), found.regions.per_length.value, float(found.content.above)]


def planes(device: str) -> list[float]:
    found = la.regions_in_plane(network(4, 12, 6, 1).to(device), *normal(3, 4).to(device))
    return [float(len(part)) for part in (found.vertices, found.edges, found.patterns)]


def frequencies(device: str) -> Tensor:
    modes = la.circle_modes(16, 3)
    target = modes.points[:, 0] + modes.points[:, 1]
    found = la.frequency_learning([network(2, 16, 1).to(device)], modes, target, DESCENT, 10)
    return found.residuals


def fitted(device: str) -> Tensor:
    x = torch.linspace(-1, 1, 32, dtype=FLOAT, device=device)[:, None]
    return la.fit_grid(lambda width, depth: network(1, width, 1).to(device), (x, x.abs()), [3], seeds=8, steps=10).l2


BITS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=FLOAT)] * 3)
X = torch.linspace(-1, 1, 41, dtype=FLOAT)

NUMBERS: dict[str, Callable[[str], Any]] = {
    "effective ranks": ranks,
    "random labels": lambda d: la.random_labels(network(4, 12, 3).to(d), normal(30, 4).to(d), steps=20).shares,
    "capacity report": report,
    "spectrum along lines": lambda d: (
        la.fourier_content(network(4, 12, 3).to(d), la.data_lines(normal(40, 4).to(d))).shares
    ),
    "regions on a line": lambda d: la.regions_on_line(network(4, 12, 6, 3).to(d), *normal(2, 4).to(d)).breakpoints,
    "regions on a path": lambda d: la.regions_on_path(network(4, 12, 6, 3).to(d), normal(5, 4).to(d)).regions,
    "regions in a plane": planes,
    "learning by frequency": frequencies,
    "a grid of fits": fitted,
    "permutation floor": lambda d: la.permutation_floor(BITS.to(d), BITS[:, 0].to(d)).value,
    "separability": lambda d: la.separability(normal(12, 2).to(d), (torch.arange(12) % 2).to(d)).accuracy,
    "monotone floor": lambda d: la.monotone_floor(X.to(d), X.square().to(d)).lower,
    "best in a span": lambda d: la.best_in_span(torch.stack([X**0, X], 1).to(d), X.abs().to(d)).lower,
    "best pieces": lambda d: la.best_pieces(X.to(d), X.square().to(d), 3).upper,
    "growth of a state": lambda d: la.state_bound(nn.LSTM(3, 5).to(d)).growth,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_cuda_equals_cpu(name: str) -> None:
    here, there = (torch.as_tensor(NUMBERS[name](device), dtype=FLOAT).cpu() for device in ("cpu", "cuda"))
    assert here.shape == there.shape and bool(here.isfinite().all()) and float(here.norm()) > 0
    assert float((here - there).norm()) <= 1e-8 * float(here.norm())
    assert float((1.1 * here - there).norm()) > 1e-8 * float(here.norm())


@pytest.mark.parametrize("name", NUMBERS)
def test_no_run_is_disturbed_by_a_default_device(name: str) -> None:
    """What is drawn or gathered on the CPU says so."""
    here = torch.as_tensor(NUMBERS[name]("cuda"), dtype=FLOAT).cpu()
    with torch.device("cuda"):
        there = torch.as_tensor(NUMBERS[name]("cuda"), dtype=FLOAT).cpu()
    assert float((here - there).norm()) <= 1e-8 * float(here.norm())
