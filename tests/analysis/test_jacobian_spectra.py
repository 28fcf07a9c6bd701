"""Jacobian spectra against products of matrices, differences, and the matrix-free way against the dense one."""

from __future__ import annotations

import copy
import json
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lemmata.analysis import LemmataError
from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError, NumericsError
from lemmata.analysis.gradient_flow import JacobianSpectrum, jacobian_spectrum, jacobians


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(widths: list[int], unit: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    """Linear layers "0", "2", … with units between them."""
    parts: list[nn.Module] = []
    for i, (n, m) in enumerate(pairwise(widths)):
        linear = nn.Linear(n, m).double()
        linear.weight.data, linear.bias.data = drawn(m, n, seed=seed + i) / n**0.5, 0.1 * drawn(m, seed=seed + i + 99)
        parts += [linear, unit()]
    return nn.Sequential(*parts[:-1])


def by_hand(model: nn.Sequential, x: Tensor) -> np.ndarray:
    """The product of weights and slopes of a tanh network, in NumPy."""
    h, J = x.numpy(), np.eye(len(x))
    for part in model:
        if isinstance(part, nn.Linear):
            W, b = part.weight.detach().numpy(), part.bias.detach().numpy()
            h, J = W @ h + b, W @ J
        else:
            h = np.tanh(h)
            J = (1 - h**2)[:, None] * J
    return J


def differences(f, x: Tensor, step: float = 1e-5) -> np.ndarray:
    """Central differences of a function of one example, entry by entry."""
    columns = []
    for i in range(x.numel()):
        moved = torch.zeros_like(x).reshape(-1).index_fill(0, torch.tensor([i]), step).reshape(x.shape)
        with torch.no_grad():
            columns.append(((f((x + moved)[None]) - f((x - moved)[None])) / (2 * step)).flatten().numpy())
    return np.stack(columns, 1)


@pytest.mark.parametrize("widths", [[7, 9, 4], [4, 9, 7], [5, 5, 5, 5]], ids=["wide", "tall", "square"])
def test_values_and_moments_are_those_of_products_by_hand(widths: list[int]) -> None:
    model, x = network(widths), drawn(3, widths[0], seed=5)
    found = jacobian_spectrum(model, x)
    truth = np.stack([np.linalg.svd(by_hand(model, one), compute_uv=False) for one in x])
    assert found.shape == (widths[-1], widths[0]) and found.complete and found.converged
    assert np.allclose(found.values, truth, rtol=1e-12)
    assert bool((found.low <= torch.from_numpy(truth)).all() and (torch.from_numpy(truth) <= found.high).all())
    assert np.allclose(found.mean_squares, (truth**2).mean(1), rtol=1e-12)
    assert np.allclose(found.spreads, (truth**4).mean(1) / (truth**2).mean(1) ** 2, rtol=1e-12)
    other = np.linalg.svd(by_hand(model, drawn(widths[0], seed=6)), compute_uv=False)
    assert not np.allclose(found.values[0], other, rtol=1e-3)  # another input is told apart


def test_convolutions_against_differences() -> None:
    parts = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3, stride=2)]
    model = nn.Sequential(*parts).double()
    x = drawn(2, 2, 5, 4)
    found = jacobian_spectrum(model, x)
    truth = [np.linalg.svd(differences(model, one), compute_uv=False) for one in x]
    assert found.shape == (4, 40) and np.allclose(found.values, np.stack(truth), atol=1e-8)


class Block(nn.Module):
    """x + V tanh(U x), and a rest of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6).double(), nn.Linear(6, 4).double()

    def forward(self, x: Tensor) -> dict[str, Tensor | int]:
        return {"steps": 1, "out": x + self.second(self.first(x).tanh()), "rest": x[:, :1]}


def test_between_modules_all_else_is_held_fixed() -> None:
    block, x = Block(), drawn(2, 4)
    V = block.second.weight.detach().numpy()
    slopes = 1 - np.tanh(block.first(x).detach().numpy()) ** 2
    found = jacobian_spectrum(block, x, source="first")  # the way past the branch is no part of it
    for row, slope in zip(found.values, slopes, strict=True):
        assert np.allclose(row, np.linalg.svd(V * slope, compute_uv=False), rtol=1e-12)
    whole = np.eye(4) + V @ (slopes[0][:, None] * block.first.weight.detach().numpy())
    assert np.allclose(jacobian_spectrum(block, x).values[0], np.linalg.svd(whole, compute_uv=False), rtol=1e-12)
    model = network([6, 5, 4, 3])
    inner = jacobian_spectrum(model, drawn(2, 6), "1", "2")
    assert np.allclose(inner.values[1], np.linalg.svd(model[2].weight.detach().numpy(), compute_uv=False), rtol=1e-12)
    assert (inner.source, inner.target, inner.shape) == ("1", "2", (4, 5))


@pytest.mark.parametrize("widths", [[40, 60, 30], [30, 60, 40]], ids=["wide", "tall"])
def test_without_matrices(widths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(widths), drawn(4, widths[0], seed=1)
    truth = jacobian_spectrum(model, x)
    monkeypatch.setattr(jacobians, "_OPERATIONS", 0)
    found = jacobian_spectrum(model, x, k=2, tol=1e-4)
    assert found.method == "Lanczos" and not found.complete and found.converged and found.values.shape == (4, 4)
    extremes = torch.cat([truth.values[:, :2], truth.values[:, -2:]], 1)
    assert bool(((found.low <= extremes) & (extremes <= found.high)).all())
    assert torch.allclose(found.values, extremes, rtol=1e-3) and not torch.equal(found.values, extremes)
    for moment in ("mean_squares", "spreads"):
        gap = (getattr(found, moment) / getattr(truth, moment) - 1).abs()
        assert float(gap.max()) < 2 * found.moment_error < 0.2
    monkeypatch.setattr(jacobians, "eigenpairs", partial(jacobians.eigenpairs, max_steps=4))
    hasty = jacobian_spectrum(model, x[:1], k=2)
    assert not hasty.converged and "not converged" in repr(hasty)


def test_one_example_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network([6, 8, 5]), drawn(5, 6)
    whole = jacobian_spectrum(model, x)
    monkeypatch.setattr(jacobians, "_ENTRIES", 60)
    assert torch.allclose(jacobian_spectrum(model, x).values, whole.values, rtol=1e-12)


def test_isometry_is_judged_by_intervals() -> None:
    model = nn.Sequential(*[nn.Linear(12, 12, bias=False).double() for _ in range(20)])
    for layer in model:
        nn.init.orthogonal_(layer.weight)
    found = jacobian_spectrum(model, drawn(2, 12))
    assert found.isometry().holds and found.isometry(0.999, 1.001).share == 1.0
    assert found.isometry(1.0, 2.0).holds is None  # its edge lies within the rounding
    assert abs(found.spread.value - 1) < 1e-13 and "isometric to a factor of 2" in repr(found)
    gaussian = jacobian_spectrum(network([12] * 21, nn.Identity), drawn(2, 12))
    judged = gaussian.isometry()
    assert judged.holds is False and judged.share is not None and judged.share < 0.5
    with pytest.raises(ArgumentError, match=r"band.*low=0\.5"):
        found.isometry(2.0, 1.0)


def test_intervals_over_examples_cover() -> None:
    """The mean over 4000 inputs lies in 95 % of the intervals of 16, to within chance; in far fewer of a third of them."""
    model, x = network([5, 5, 5]), drawn(4000, 5)
    truth = float(jacobian_spectrum(model, x).mean_squares.mean())
    gaps = [(e.value - truth, e.interval()[1] - e.value) for e in _groups(model, x)]
    inside = sum(abs(gap) < half for gap, half in gaps)
    assert 0.9 * len(gaps) <= inside and sum(abs(gap) < half / 3 for gap, half in gaps) < 0.7 * len(gaps)
    assert jacobian_spectrum(model, x[:1]).mean_square.interval()[1] == float("inf")


def _groups(model: nn.Module, x: Tensor) -> list:
    return [jacobian_spectrum(model, part).mean_square for part in x.split(16)[:200]]


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(9, 4), nn.LSTM(4, 3, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.cell(self.embedding(tokens))[0][:, -1]


def test_integers_are_refused_and_their_embedding_is_taken() -> None:
    model, tokens = Words(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ArgumentError, match=r"source.*source='embedding'"):
        jacobian_spectrum(model, tokens)
    found = jacobian_spectrum(model.double(), tokens, source="embedding")
    cell = lambda e: model.cell(e)[0][:, -1]  # noqa: E731
    truth = differences(cell, model.embedding(tokens)[0].detach())
    assert np.allclose(found.values[0], np.linalg.svd(truth, compute_uv=False), atol=1e-8) and found.shape == (3, 12)
    assert any("recurrent" in switch for switch in found.switched)


def test_the_model_is_left_alone() -> None:
    model = network([4, 4, 4])
    before, hooks = copy.deepcopy(model.state_dict()), [m._forward_hooks for m in model.modules()]
    jacobian_spectrum(model, drawn(2, 4), "0", "2")
    with pytest.raises(LemmataError):
        jacobian_spectrum(model, drawn(2, 4), "2", "0")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert not any(hooks) and all(p.grad is None and p.requires_grad for p in model.parameters())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jacobian_spectrum(network([3, 3]), drawn(2, 3), source="O"), ArgumentError, r"source.*named_modules"),
        (
            lambda: jacobian_spectrum(Twice(), drawn(2, 3), source="layer"),
            ArgumentError,
            r"layer, called 2 times.*once",
        ),
        (lambda: jacobian_spectrum(network([3, 3, 3]), drawn(2, 3), "2", "0"), ArgumentError, r"target.*before the"),
        (lambda: jacobian_spectrum(nn.Bilinear(2, 2, 1).double(), (drawn(3, 2), drawn(3, 2))), ArgumentError, "2 of"),
        (lambda: jacobian_spectrum(normalised(), drawn(4, 3)), ModelStateError, r"1 \(BatchNorm1d\).*eval"),
        (lambda: jacobian_spectrum(normalised(), drawn(4, 3), batch_stats="batch"), ModelStateError, "see each other"),
        (lambda: jacobian_spectrum(nn.RNN(3, 2).double(), drawn(5, 2, 3), target="x"), ArgumentError, "target"),
        (lambda: jacobian_spectrum(nn.Flatten(0), drawn(4, 3)), DataError, r"inputs.*batch_first"),
        (lambda: jacobian_spectrum(network([3, 3]), drawn(2, 3).log()), NumericsError, r"inf or nan.*Look"),
        (lambda: jacobian_spectrum(network([3, 3]), drawn(2, 3), k=0), ArgumentError, r"k.*k=1"),
        (lambda: jacobian_spectrum(network([3, 3]), drawn(2, 3), tol=2), ArgumentError, r"tol.*1e-3"),
        (lambda: jacobian_spectrum(network([3, 3]), drawn(2, 3).float()), DataError, r"inputs.*float32.*Cast"),
    ],
)
def test_errors_name_the_culprit_and_the_remedy(call, error: type[LemmataError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_records_and_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    found = jacobian_spectrum(network([4, 5, 3]), drawn(3, 4))
    again = JacobianSpectrum.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(again.values, found.values) and repr(again) == repr(found)
    assert found.plot().get_xscale() == "log"
    monkeypatch.setattr(jacobians, "_OPERATIONS", 0)
    few = jacobian_spectrum(network([8, 9, 8]), drawn(3, 8))
    assert len(few.plot().containers) == 1 and few.isometry().share is None


class Running(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(0)


class TimeFirst(nn.Module):
    """Recurrent over the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNN(3, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Mixing(nn.Module):
    """Examples see the one a step before, backwards or forwards."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(self.step, 0)


@pytest.mark.parametrize("model", [Running(), TimeFirst(), Mixing(2), Mixing(1), Mixing(-1)])
def test_no_example_may_see_those_before_or_after_it(model: nn.Module) -> None:
    x = drawn(6, 2, 3) if isinstance(model, TimeFirst) else drawn(4, 3)
    with pytest.raises(ModelStateError, match=r"see each other.*batch_first=True"):
        jacobian_spectrum(model, x)
    with pytest.raises(ModelStateError, match="see each other"):
        jacobian_spectrum(model, x[:3])


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x.transpose(0, 1))))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).double()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return (mask.to(x.dtype) @ self.layer(x)).tanh()


@pytest.mark.parametrize("places", [3, 5])
def test_inputs_whose_first_axis_is_time_cannot_be_cut(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Turned(), drawn(places, 5, 4)
    assert len(jacobian_spectrum(model, x, "first").values) == 5
    monkeypatch.setattr(jacobians, "_ENTRIES", 2 * (4 * places) ** 2)
    with pytest.raises(DataError, match=r"inputs.*first axis.*batch_first=True"):
        jacobian_spectrum(model, x, "first")


def test_a_mask_with_as_many_rows_as_examples_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model, mask = Masked(), torch.ones(5, 5, dtype=torch.long).tril()
    whole = jacobian_spectrum(model, (drawn(4, 5, 4), mask))
    monkeypatch.setattr(jacobians, "_ENTRIES", 2 * 400)
    assert torch.allclose(jacobian_spectrum(model, (drawn(4, 5, 4), mask)).values, whole.values, rtol=1e-12)
    with pytest.raises(DataError, match=r"inputs.*holds the rest, such as a mask"):
        jacobian_spectrum(model, (drawn(5, 5, 4), mask))


def test_inputs_changed_in_place_stay_the_users() -> None:
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3), nn.Linear(3, 2)).double(), drawn(4, 3)
    before, weights = x.clone(), [model[i].weight.detach().numpy() for i in (1, 2)]
    inner, whole = jacobian_spectrum(model, x, source="1"), jacobian_spectrum(model, x)
    assert torch.equal(x, before)
    slopes = weights[1] @ weights[0] * (before[0] > 0).numpy()
    for found, truth in ((inner, weights[1]), (whole, slopes)):
        assert np.allclose(found.values[0], np.linalg.svd(truth, compute_uv=False), atol=1e-12)


class Pair(NamedTuple):
    x: Tensor
    shift: Tensor


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, pair: Pair) -> Tensor:
        return self.layer(pair.x.sin() * pair.shift[:, None])


def test_named_tuples_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Shifted()
    given = {"pair": Pair(drawn(4, 3), torch.arange(1, 5))}
    whole = jacobian_spectrum(model, given)
    monkeypatch.setattr(jacobians, "_ENTRIES", 6)
    assert torch.allclose(jacobian_spectrum(model, given).values, whole.values, rtol=1e-12)


@pytest.mark.parametrize("most", [jacobians._OPERATIONS, 0], ids=["dense", "Lanczos"])
def test_the_default_device_plays_no_part(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn or gathered on the CPU says so."""
    monkeypatch.setattr(jacobians, "_OPERATIONS", most)
    model, x = network([6, 8, 5]), drawn(2, 6)
    truth = jacobian_spectrum(model, x)
    with torch.device("meta"):
        found = jacobian_spectrum(model, x)
    assert found.to_dict() == truth.to_dict()
