"""Traces and eigenvalues of blocks against dense linear algebra, and heads against what they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.curvature.blocks import blocks_of
from lemmata.analysis.curvature.layers import LayerCurvature, per_layer
from lemmata.analysis.errors import ArgumentError, ParameterError
from lemmata.architectures import ARCHITECTURES, MLP, MultiHeadAttention


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Packed(nn.Module):
    """torch's own attention, heads packed in one matrix."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64, **options)
        self.last = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x)[0])


class Lab(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(4, 2, dtype=torch.float64, generator=generator(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[..., :2]


def hessian(model: nn.Module) -> la.Hessian:
    return la.Hessian(model, nn.MSELoss(), (draw(5, 3, 4), draw(5, 3, 2, seed=1)))


def agrees(found: LayerCurvature, matrix: np.ndarray, model: nn.Module, layout: la.Layout) -> bool:
    """Do intervals and values agree with the dense blocks?"""
    rounding = 1e-10 * np.abs(matrix).max()
    for row, block in zip(found.rows, blocks_of(layout, model), strict=True):
        dense = matrix[np.ix_(block.positions, block.positions)]
        top = np.linalg.eigvalsh(dense)
        low, high = row.trace.interval(0.9999)
        if not low - rounding <= np.trace(dense) <= high + rounding:
            return False
        if not abs(top[-1] - row.eigenvalue) <= row.residual + rounding:
            return False
    return True


@pytest.mark.parametrize("make", [Packed, Lab])
@pytest.mark.parametrize("budget", [40, 1000])
def test_blocks_of_a_hessian(make: Any, budget: int) -> None:
    model = make()
    H = hessian(model)
    found = per_layer(H, model, max_matvecs=budget)
    matrix = H.dense().numpy()
    assert agrees(found, matrix, model, H.layout)
    assert not agrees(found, 1.01 * matrix + 0.01 * np.eye(len(matrix)), model, H.layout) or budget == 40
    assert sum(row.parameters for row in found.rows if row.kind == "layer") == H.shape[0]
    assert found.converged or budget == 40


def test_traces_cover_on_a_planted_matrix_larger_than_its_budget() -> None:
    model = MLP([20, 30, 20, 10], activation="tanh", dtype=torch.float64, generator=generator(0))
    layout = la.Hessian(model, nn.MSELoss(), (draw(2, 20), draw(2, 10))).layout
    factor = draw(layout.size, 40, seed=3).numpy() * np.linspace(1, 3, 40)
    matrix = factor @ factor.T
    operator = la.Dense(torch.from_numpy(matrix), layout)
    covered = total = 0
    for seed in range(40):
        found = per_layer(operator, model, tol=0.05, max_matvecs=100, seed=seed)
        for row, block in zip(found.rows, blocks_of(layout, model), strict=True):
            low, high = row.trace.interval()
            covered, total = covered + (low <= matrix[block.positions, block.positions].sum() <= high), total + 1
    assert 0.88 <= covered / total <= 1.0
    assert found.rows[0].trace.method == "Hutchinson" and found.rows[0].trace.stderr > 0


def test_exact_traces_of_a_gauss_newton_matrix() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).double()
    data = draw(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    for kind in (la.GGN, la.Hessian):
        operator = kind(model, nn.CrossEntropyLoss(), data)
        found = per_layer(operator, model)
        assert found.rows[0].trace.method == "per-example gradients"
        assert agrees(found, operator.dense().numpy(), model, operator.layout)


def test_one_product_serves_all_traces() -> None:
    model = Packed()
    H = hessian(model)
    found = per_layer(H, model, max_matvecs=12, tol=0.3)
    assert len({row.trace.matvecs for row in found.rows}) == 1 and found.rows[0].trace.matvecs <= 12


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 4, "vdim": 4}, {"add_bias_kv": True}], ids=str)
def test_heads_of_torch_are_what_their_output_columns_read(options: Any) -> None:
    check_heads(Packed(**options), "attention.out_proj.weight")


def test_heads_of_the_lab_are_what_their_output_columns_read() -> None:
    check_heads(Lab(), "attention.W_o.weight")


def check_heads(model: nn.Module, output: str) -> None:
    """With one head's columns of the output map zero, the loss depends on nothing else of that head."""
    H = hessian(model)
    blocks = [block for block in blocks_of(H.layout, model) if block.kind == "head"]
    assert [block.name for block in blocks] == ["attention.head 0", "attention.head 1"]
    assert not set(blocks[0].positions.tolist()) & set(blocks[1].positions.tolist())
    names = [name for name, size in zip(H.layout.names, H.layout.sizes, strict=True) for _ in range(size)]
    for block, other in (blocks, blocks[::-1]):
        changed = dict(model.named_parameters())
        flat = torch.cat([part.detach().reshape(-1) for part in changed.values()])
        columns = [i for i in block.positions.tolist() if names[i] == output]
        assert len(columns) == 8
        flat[columns] = 0
        with torch.no_grad():
            for part, piece in zip(changed.values(), flat.split(H.layout.sizes), strict=True):
                part.copy_(piece.reshape(part.shape))
        slope = hessian(model).gradient
        inner = [i for i in block.positions.tolist() if names[i] != output]
        assert float(slope[inner].abs().max()) < 1e-15 < 1e-4 < float(slope[other.positions].abs().max())


def test_a_gpt_has_a_block_for_each_module_and_head() -> None:
    entry = next(e for e in ARCHITECTURES if e.name == "gpt")
    model = entry.build()
    G = la.GGN(model, entry.loss, [entry.sample(0, torch.float64, "cpu")])
    found = per_layer(G, model)
    assert sum(row.kind == "head" for row in found.rows) >= 2
    assert agrees(found, G.dense().numpy(), model, G.layout)


def test_chosen_parameters_only() -> None:
    model = Packed()
    H = la.Hessian(model, nn.MSELoss(), (draw(5, 3, 4), draw(5, 3, 2)), params="last.*")
    assert [row.name for row in per_layer(H, model).rows] == ["last"]


def test_table_plot_and_record() -> None:
    model = Packed()
    found = per_layer(hessian(model), model)
    lines = repr(found).splitlines()
    assert len(lines) == 2 + len(found.rows) and "attention.head 1" in repr(found)
    assert LayerCurvature.from_dict(found.to_dict()) == found
    labels = [label.get_text() for label in found.plot().get_yticklabels()]
    assert labels == [row.name for row in found.rows]
    assert found["last"].interval[0] <= found["last"].eigenvalue


def test_errors() -> None:
    model = Packed()
    with pytest.raises(ParameterError, match="that the operator was built from"):
        per_layer(hessian(Lab()), model)
    with pytest.raises(ArgumentError, match="Pass the model"):
        per_layer(hessian(model), hessian(model))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="tol"):
        per_layer(hessian(model), model, tol=2)
