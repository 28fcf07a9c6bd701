"""The Gauss–Newton matrix of every architecture of the lab, against finite differences of outputs and losses alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import lemmata.analysis as la
from lemmata.architectures import ARCHITECTURES, Architecture
from lemmata.studies.claim import numerics


def curvature(model: nn.Module, loss: Any, inputs: Any, target: Any, direction: list[Tensor]) -> float:
    """vᵀGv: the second difference of the loss along the first difference of the outputs."""
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)

    def moved(step: float) -> Any:
        for parameter, part in zip(model.parameters(), direction, strict=True):
            parameter.add_(part, alpha=step)
        output = tree_map(torch.clone, model(*arguments))  # some outputs are views of a parameter
        for parameter, part in zip(model.parameters(), direction, strict=True):
            parameter.sub_(part, alpha=step)
        return output

    with torch.no_grad():
        h, size = 1e-3, 1e-3
        centre = model(*arguments)
        first, second = (tree_map(lambda a, b, s=s: (a - b) / (2 * s), moved(s), moved(-s)) for s in (h, 2 * h))
        slope = tree_map(lambda a, b: (4 * a - b) / 3, first, second)
        values = [loss(tree_map(lambda c, d, t=t: c + t * size * d, centre, slope), target) for t in (-2, -1, 0, 1, 2)]
        stencil = sum(w * v for w, v in zip((-1, 16, -30, 16, -1), values, strict=True))
        return float(stencil) / (12 * size**2)


@pytest.mark.parametrize("entry", [e for e in ARCHITECTURES if not e.exempt], ids=lambda e: e.name)
def test_quadratic_form(entry: Architecture) -> None:
    with numerics():
        module = entry.build().double()
        inputs, target = entry.sample(0, torch.float64, "cpu")
        G = la.GGN(module, entry.loss, [(inputs, target)])
        v = torch.randn(G.shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        v /= v.norm()
        found = float(v @ (G @ v))
        truth = curvature(module, entry.loss, inputs, target, list(G.split(v).values()))
        assert abs(found - truth) <= 1e-6 * abs(truth) + 1e-8
        if found:  # the losses of the flows are linear in the output
            assert abs(1.01 * found - truth) > 1e-6 * abs(truth) + 1e-8
