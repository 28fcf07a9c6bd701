"""The capacity report against linear separability, known covariances and closed forms; on unusual models and bad input."""

from __future__ import annotations

import copy
import json
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.approximation import RandomLabels, random_labels, representation_ranks
from lemmata.analysis.errors import (
    ArgumentError,
    DataError,
    LemmataError,
    ModelStateError,
    NumericsError,
    ParameterError,
)

D = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def network(*widths: int, unit: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for n, m in pairwise(widths):
            layers += [nn.Linear(n, m, dtype=D), unit()]
    return nn.Sequential(*layers[:-1])


# Random labels


def separable(x: Tensor, y: list[int]) -> bool:
    """Linear programming: is there an affine function with these signs?"""
    rows = [[-s * float(c) for c in (*point, 1.0)] for s, point in zip(y, x, strict=True)]
    found = linprog([0.0] * len(rows[0]), A_ub=rows, b_ub=[-1.0] * len(rows), bounds=(None, None))
    return bool(found.status == 0)


def test_an_affine_function_fits_what_linear_programming_says() -> None:
    x = normal(6, 2)
    truth = sum(separable(x, list(y)) for y in product((-1, 1), repeat=6)) / 2**6
    assert 0.3 < truth < 0.8  # Cover 1965: 2 Σ_{k ≤ 2} C(5, k) / 2⁶ = 32/64
    assert truth == 0.5
    found = random_labels(nn.Linear(2, 1, dtype=D), x, rate=0.5, steps=60, tol=0.01, max_draws=30)
    perfect = float((found.shares == 1).double().mean())
    assert abs(perfect - truth) < 3 * (truth * (1 - truth) / 30) ** 0.5
    assert not found.converged and len(found.shares) == 30 and "not converged" in repr(found)


def test_equal_inputs_cannot_have_different_labels() -> None:
    found = random_labels(network(3, 8, 3), torch.ones(30, 3, dtype=D), steps=80, rate=0.05, max_draws=10)
    assert found.fitted.value == pytest.approx(found.ceiling, abs=1e-12)
    assert 1 / 3 < found.ceiling < 0.6 and found.chance == 1 / 3
    low, high = found.interval
    assert low < found.ceiling < high < 1


def test_memory_grows_with_width() -> None:
    x = normal(40, 3)
    narrow, wide = (random_labels(network(3, width, 2), x, steps=200, rate=0.05) for width in (1, 64))
    assert narrow.interval[1] < wide.interval[0] and wide.interval[0] >= 1 - 3 / 400
    assert (narrow.parameters, wide.parameters) == (3 + 1 + 4, 3 * 64 + 64 + 130)


def test_only_the_chosen_parameters_learn() -> None:
    model, x = network(4, 3, 2), normal(30, 4)
    with torch.no_grad():
        model[2].weight.zero_()  # the head sees nothing of the input: its bias alone can learn
    head = random_labels(model, x, params="2.bias", steps=30, max_draws=10)
    best = max(float(head.fitted.value), 1 - float(head.fitted.value))
    assert head.parameters == 2 and best < 0.75
    whole = random_labels(model, x, steps=100, rate=0.05, max_draws=10)
    assert whole.fitted.value > head.fitted.value and whole.parameters == 4 * 3 + 3 + 8


def test_labels_at_every_position() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4, dtype=D)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.table(tokens)

    found = random_labels(Tokens(), torch.arange(40).reshape(20, 2) % 5, steps=20)
    assert (found.labels, found.classes) == (40, 4)


def test_the_same_seed_gives_the_same_labels_and_another_seed_others() -> None:
    x = normal(20, 3)
    first, again, other = (random_labels(network(3, 2, 2), x, steps=10, max_draws=10, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.shares, again.shares) and not torch.equal(first.shares, other.shares)
    assert repr(RandomLabels.from_dict(json.loads(json.dumps(first.to_dict())))) == repr(first)


# Effective ranks


@pytest.mark.parametrize("scales", [[1.0] * 8, [3.0, 1.0, 1.0, 0.5], [1.0, 0.0, 0.0]])
def test_the_rank_of_a_known_covariance(scales: list[float]) -> None:
    d = len(scales)
    model = nn.Linear(d, d, dtype=D)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor(scales, dtype=D)))
        model.bias.fill_(100.0)  # a mean is no direction
    variances = torch.tensor(scales, dtype=D).square()
    truth = float(variances.sum() ** 2 / variances.square().sum())
    rank = representation_ranks(model, normal(1000, d))[0].rank
    assert rank is not None
    low, high = rank.interval(0.999)
    assert low - 1e-9 <= truth <= high + 1e-9 and high - low < 0.3 * truth
    wrong = truth + 1
    assert not low <= wrong <= high


def test_intervals_of_ranks_cover() -> None:
    model, hits = nn.Linear(5, 5, bias=False, dtype=D), 0
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.5], dtype=D)))
    variances = torch.tensor([4.0, 1.0, 1.0, 1.0, 0.25], dtype=D)
    truth = float(variances.sum() ** 2 / variances.square().sum())
    for seed in range(100):
        rank = representation_ranks(model, normal(120, 5, seed=seed), seed=seed)[0].rank
        assert rank is not None
        low, high = rank.interval()
        hits += low <= truth <= high
    assert 89 <= hits  # of 95 expected: fewer have a chance of 0.4 %, 89 or more with half the width one of 1e-6


def test_few_inputs_do_not_converge_and_constants_have_no_rank() -> None:
    model = network(4, 6, 2)
    assert not any(place.rank and place.rank.converged for place in representation_ranks(model, normal(8, 4)))
    with torch.no_grad():
        model[0].bias.fill_(-1e6)  # dead units
    places = {place.name: place for place in representation_ranks(model, normal(40, 4))}
    assert places["1"].rank is None and places["0"].rank is not None and places["1"].entries == 6


# The report


def test_every_row_of_an_affine_model() -> None:
    x = normal(60, 3)
    report = la.capacity_report(network(3, 4), x, steps=20)
    assert report.regions is not None and set(report.regions.regions.tolist()) == {1}
    assert report.content is not None and report.labels is not None and report.notes == ()
    first = float(report.content.shares[0])
    assert first == pytest.approx(96 / torch.pi**4, abs=2e-3)  # a ramp's first cosine
    weight = network(3, 4)[0].weight.detach()
    gram = weight.T @ weight
    rank, truth = report["0"].rank, torch.linalg.eigvalsh(gram)
    low, high = rank.interval(0.999)
    assert low < float(truth.sum() ** 2 / truth.square().sum()) < high
    assert report.parameters == 16 and report.examples == 60
    table = repr(report)
    assert all(words in table for words in ("random labels fitted", "region borders", "energy above", "effective rank"))


def test_record_and_plot() -> None:
    report = la.capacity_report(network(3, 8, 2), normal(30, 3), steps=10)
    again = la.CapacityReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert repr(again) == repr(report) and "not converged" in repr(report) and not report.converged
    assert len(report.plot().get_xticklabels()) == 3
    assert report.labels is not None and report.labels.plot().get_ylabel()


def test_more_bends_more_borders() -> None:
    x = normal(40, 3)
    few, many = (la.capacity_report(network(3, width, 2), x, steps=5) for width in (4, 64))
    assert few.regions is not None and many.regions is not None
    assert few.regions.per_length.interval()[1] < many.regions.per_length.interval()[0]


def test_what_cannot_be_measured_is_said() -> None:
    report = la.capacity_report(network(3, 4, 2, unit=nn.Tanh), normal(20, 3), steps=5)
    assert report.regions is None and report.content is not None
    assert len(report.notes) == 1 and "1 (Tanh)" in report.notes[0] and "piecewise linear" in repr(report)
    tokens = torch.arange(60).reshape(20, 3) % 7
    report = la.capacity_report(nn.Sequential(nn.Embedding(7, 2), nn.Flatten(), nn.Linear(6, 2)), tokens, steps=5)
    assert report.regions is None and report.content is None and report.labels is not None
    assert all("embeddings" in note for note in report.notes) and len(report.notes) == 2
    assert la.CapacityReport.from_dict(json.loads(json.dumps(report.to_dict()))).notes == report.notes


class Pair(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2, dtype=D)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(a), self.layer(b)


def test_a_model_of_several_inputs_and_outputs_has_ranks() -> None:
    report = la.capacity_report(Pair(), (normal(20, 3), normal(20, 3, seed=1)))
    assert report.labels is None and report.layers and any("logits" in note for note in report.notes)


def test_the_model_is_never_changed() -> None:
    model = nn.Sequential(network(3, 8, 2), nn.BatchNorm1d(2, dtype=D)).eval()
    before, x = copy.deepcopy(model.state_dict()), normal(20, 3)
    kept, state = x.clone(), torch.get_rng_state()
    la.capacity_report(model, x, steps=5)
    assert all(torch.equal(before[name], part) for name, part in model.state_dict().items()) and torch.equal(x, kept)
    assert all(p.grad is None and p.requires_grad for p in model.parameters()) and not model.training
    assert torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_default_device_that_is_not_the_models() -> None:
    """What is drawn or gathered on the CPU says so: on a device without numbers nothing else could be told."""
    model, x = network(3, 8, 2), normal(30, 3)
    here = la.capacity_report(model, x, steps=5)
    with torch.device("meta"):
        there = la.capacity_report(model, x, steps=5)
    assert repr(here) == repr(there) and not there.notes


BAD: dict[str, tuple[Any, type[LemmataError], str, str]] = {
    "no module": (lambda: la.capacity_report(lambda x: x, normal(9, 3)), ArgumentError, "model", "la.Hessian.of"),
    "few inputs": (lambda: la.capacity_report(network(3, 2), normal(3, 3)), DataError, "inputs", "Pass more inputs"),
    "nan": (lambda: la.capacity_report(network(3, 2), normal(9, 3) / 0), NumericsError, "inputs", "Clean the data"),
    "dtype": (lambda: la.capacity_report(network(3, 2), normal(9, 3).float()), DataError, "inputs", "dtype="),
    "dropout": (
        lambda: la.capacity_report(nn.Sequential(nn.Linear(3, 2, dtype=D), nn.Dropout()), normal(9, 3)),
        ModelStateError,
        "1 (Dropout)",
        "model.eval()",
    ),
    "steps": (lambda: la.capacity_report(network(3, 2), normal(9, 3), steps=0), ArgumentError, "steps", "Leave steps"),
    "rate": (lambda: la.capacity_report(network(3, 2), normal(9, 3), rate=-1.0), ArgumentError, "rate", "Leave rate"),
    "tol": (lambda: representation_ranks(network(3, 2), normal(9, 3), tol=0.0), ArgumentError, "tol", "Leave tol"),
    "draws": (
        lambda: random_labels(network(3, 2), normal(9, 3), max_draws=2),
        ArgumentError,
        "max_draws",
        "Leave max_draws",
    ),
    "diverges": (
        lambda: random_labels(network(3, 8, 8, 2), normal(9, 3), rate=1e200, steps=60),
        NumericsError,
        "the copy in training",
        "Lower rate",
    ),
    "nothing to train": (
        lambda: random_labels(network(3, 2), normal(9, 3), params="nowhere"),
        ParameterError,
        "nowhere",
        "glob",
    ),
    "no logits": (lambda: random_labels(Pair(), (normal(9, 3),) * 2), DataError, "output", "logits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_remedy(case: str) -> None:
    run, kind, name, remedy = BAD[case]
    with pytest.raises(kind) as caught:
        run()
    assert name in str(caught.value) and remedy in str(caught.value)
