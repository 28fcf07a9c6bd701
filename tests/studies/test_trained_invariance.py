"""What the study of trained symmetries measures with, against plain loops; and its controls fail at small sizes."""

from __future__ import annotations

import torch

from lemmata.studies.claim import numerics
from lemmata.studies.invariance import trained_invariance as study
from lemmata.studies.invariance import trained_networks as networks


def test_digits_lie_whole_on_a_blank_canvas() -> None:
    with numerics():
        x, _ = networks.canvas(held_out=False)
        border = torch.ones(networks.SIDE, networks.SIDE, dtype=torch.bool)
        border[networks.MARGIN : -networks.MARGIN, networks.MARGIN : -networks.MARGIN] = False
        assert float(x[..., border].abs().max()) == 0 <= float(x.min())


def test_random_elements_are_what_they_say() -> None:
    """Shifts against rolls one by one; renamed graphs keep their spectra, reordered sets their elements."""
    with numerics():
        draws = torch.Generator().manual_seed(0)
        x = torch.randn(6, 1, networks.SIDE, networks.SIDE)
        rolls = [x.roll((i, j), (-2, -1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        moved = networks.shifted(x, draws)
        assert all(any(torch.equal(moved[k], roll[k]) for roll in rolls) for k in range(6))
        assert not torch.equal(moved, x)
        graphs = torch.triu((torch.rand(4, 6, 6) > 0.5).double(), 1)
        graphs = graphs + graphs.mT
        other = networks.renamed(graphs, draws)
        assert torch.allclose(torch.linalg.eigvalsh(other), torch.linalg.eigvalsh(graphs), atol=1e-12)
        assert not torch.equal(other, graphs)
        sets = networks.pixels(x)
        assert torch.equal(networks.reordered(sets, draws)[..., 0].sort(1).values, sets[..., 0].sort(1).values)


def test_built_in_symmetries_are_exact_and_learned_ones_are_not() -> None:
    with numerics():
        for symmetry in ("pixels", "nodes"):
            assert study.trained_symmetry_built_in(symmetry=symmetry, steps=5, seed=0)["value"] < 1e-13
            assert study.trained_symmetry_built_in(symmetry=symmetry, steps=5, seed=0, learned=True)["value"] > 0.05


def test_designs_and_their_control() -> None:
    with numerics():
        torus, stride = (study.cnn_translation_invariance(design=d, steps=5, seed=0) for d in ("torus", "stride 2"))
        assert torus["value"] < 1e-13 and stride["value"] > 0.02
        told = study.cnn_translation_invariance(design="torus", steps=5, seed=0, positional=True)
        assert told["value"] > 0.02
