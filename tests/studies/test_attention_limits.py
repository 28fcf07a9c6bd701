"""Influence and derivatives: all flips, differences, closed forms; trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.studies.approximation import attention_limits as limits
from lemmata.studies.data import gaussian

pytestmark = pytest.mark.usefixtures("double")


def test_the_parity_machine_counts_modulo_two() -> None:
    bits = torch.randint(2, (20, 37), generator=torch.Generator().manual_seed(0))
    out = limits.parity_machine()(bits[..., None].double())[..., 0]
    assert torch.equal(out, (bits.cumsum(1) % 2).double())


def test_three_flips_are_all_there_are() -> None:
    """Every token flipped by itself, the encoder run on each: no other influence is larger."""
    draws = torch.Generator().manual_seed(1)
    net, vectors, first = limits.transformer(2, draws)
    before = {name: p.clone() for name, p in net.named_parameters()}
    bits = torch.randint(2, (24,), generator=draws)
    bits[1:3] = torch.tensor([0, 1])
    every = torch.stack([bits, *(torch.where(torch.arange(24) == i, 1 - bits, bits) for i in range(23))])

    def largest(rows: torch.Tensor) -> float:
        out = limits.read_last(net, vectors, first, rows, 2.0)
        return float((out[1:] - out[0]).norm(dim=1).max())

    assert largest(limits.flipped(bits)) == pytest.approx(largest(every), rel=1e-9)
    assert all(torch.allclose(before[name], p, rtol=1e-15, atol=0) for name, p in net.named_parameters())
    hot, cold = (limits.read_last(net, vectors, first, bits[None], scale) for scale in (2.0, 1.0))
    assert not torch.allclose(hot, cold)


def test_influence_falls_like_one_over_n_and_the_controls_do_not() -> None:
    small = dict(longest=256, layers=2, nets=3, seed=0)
    assert abs(limits.hahn_influence_1_over_n(**small)["value"] + 1) < 0.2
    assert limits.hahn_influence_1_over_n(**small, logarithmic=True)["value"] > -0.6
    machine = limits.hahn_influence_1_over_n(**small, recurrent=True)
    assert machine["value"] == pytest.approx(0, abs=1e-12) and machine["influence"] == pytest.approx(np.ones(5))


def test_the_derivative_is_that_of_differences_and_of_the_covariance() -> None:
    draws = torch.Generator().manual_seed(2)
    Q, K, V = (gaussian(draws, 4, 4) for _ in range(3))
    others = gaussian(draws, 5, 4)
    X = torch.cat([torch.zeros(1, 4), others - others.mean(0)])
    step, columns = 1e-6, []
    for i in range(X.numel()):
        e = torch.zeros(X.numel()).index_fill(0, torch.tensor(i), step).view_as(X)
        both = [limits.head(X + s * e, limits.products, Q, K, V) for s in (1, -1)]
        columns.append((both[0] - both[1]).flatten() / (2 * step))
    J = torch.stack(columns, 1)
    found = limits.derivative(lambda Y: limits.head(Y, limits.products, Q, K, V), X)
    assert float(found) == pytest.approx(float(torch.linalg.matrix_norm(J, 2)), rel=1e-6)
    block = Q @ K.mT / 2 @ (X.mT @ X / 6) @ V + V / 6
    assert torch.allclose(J[:4, :4], block.mT, rtol=1e-5, atol=1e-7)


def test_distances_keep_the_derivative_bounded_only_if_tied() -> None:
    assert limits.dot_attention_not_lipschitz(R=1000, seed=0)["value"] == pytest.approx(1e6, rel=1e-3)
    assert limits.dot_attention_not_lipschitz(R=1000, seed=0, scores="distances")["value"] < 100
    small = dict(tokens=3, starts=100, steps=20, seed=0)
    tied = limits.dot_attention_not_lipschitz_distances(**small)["value"]
    assert 0.05 < tied < 1 < limits.dot_attention_not_lipschitz_distances(**small, tied=False)["value"]
