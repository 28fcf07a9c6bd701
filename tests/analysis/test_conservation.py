"""What gradient flow conserves: known symmetries found, others refused, and drifts in closed form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.gradient_flow import Balance, Drift


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).double()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pairs(found: la.gradient_flow.Conserved) -> list[tuple[str, str, bool]]:
    return [(b.into, b.out, b.whole) for b in found.balances]


def test_what_is_conserved_where() -> None:
    model = chain(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 4),
        nn.Linear(4, 5),
        nn.Tanh(),
        nn.Linear(5, 2),
    )
    found = la.conserved(model, inputs(6, 1, 8, 8))
    assert pairs(found) == [("0", "4", False), ("4", "5", True)] and found.alone == ("7",)
    assert "its diagonal" in repr(found) and "nothing" in repr(found)


@pytest.mark.parametrize(
    "unit",
    [nn.Tanh(), nn.GELU(), nn.Sigmoid(), nn.LayerNorm(4), nn.Softplus(), nn.ELU()],
    ids=lambda u: type(u).__name__,
)
def test_units_that_cannot_be_rescaled(unit: nn.Module) -> None:
    found = la.conserved(chain(nn.Linear(3, 4), unit, nn.Linear(4, 2)), inputs(9, 3))
    assert not found.balances and found.alone == ("0", "2")
    with pytest.raises(la.LemmataError, match=r"conserved quantity.*nothing to follow"):
        found.drift([])


@pytest.mark.parametrize("unit", [nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU(), nn.ReLU(inplace=True)])
def test_units_that_can(unit: nn.Module) -> None:
    assert pairs(la.conserved(chain(nn.Linear(3, 4), unit, nn.Linear(4, 2)), inputs(9, 3))) == [("0", "2", False)]


def test_a_skip_connection_spares_the_branch_alone() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.outer, self.last = (nn.Linear(4, 4) for _ in range(4))
            self.unused, self.pair = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.first(x)
            return {"y": self.last(h + self.outer(self.inner(h).relu()))}

    found = la.conserved(Skip().double(), inputs(9, 4))
    assert pairs(found) == [("inner", "outer", False)]  # moving h moves both of its readers
    assert found.alone == ("first", "last", "unused", "pair")


def test_sides_are_sums_over_each_channel() -> None:
    model = chain(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    (balance,) = la.conserved(model, inputs(4, 2, 4, 4)).balances
    into, out = balance.sides(dict(model.named_parameters()))
    w, b, v, _ = (p.detach().numpy() for p in model.parameters())
    assert np.allclose(into, [(w[c] ** 2).sum() + b[c] ** 2 for c in range(3)])
    assert np.allclose(out, [sum((v[:, 4 * c + p] ** 2).sum() for p in range(4)) for c in range(3)])
    matrix = Balance("0", "3", whole=True).sides(dict(model.named_parameters()))
    assert np.allclose(matrix[1][0, 2], sum(v[:, p] @ v[:, 8 + p] for p in range(4)))


def test_drift_of_two_numbers() -> None:
    """f = v w x: w² − v² is 3 at first; (2, 1) → (3, 1) changes in by 5 and out by 0, → (√5, √2) both by 1."""
    model = chain(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    found = la.conserved(model, inputs(5, 1))

    def run():
        for w, v in ((2.0, 1.0), (3.0, 1.0), (5**0.5, 2**0.5)):  # one model, in place
            nn.init.constant_(model[0].weight, w)
            nn.init.constant_(model[1].weight, v)
            yield model

    drift = found.drift(run())
    assert np.allclose(drift.values[:, 0], [0, 1, 0], atol=1e-12)
    assert "0 → 1" in repr(drift) and drift.plot().get_lines()
    again = Drift.from_dict(json.loads(json.dumps(drift.to_dict())))
    assert again.balances == drift.balances and np.array_equal(again.values, drift.values)


def test_small_steps_conserve_and_weight_decay_does_not() -> None:
    draws = torch.Generator().manual_seed(1)
    x, y = (torch.randn(20, 3, generator=draws, dtype=torch.float64) for _ in range(2))
    ends = {}
    for decay in (0.0, 0.5):
        torch.manual_seed(0)
        model = chain(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 3))
        found = la.conserved(model, x)
        rule = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=decay)

        def run(model: nn.Module = model, rule: torch.optim.Optimizer = rule):
            yield model
            for _ in range(200):
                rule.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                rule.step()
            yield model

        ends[decay] = found.drift(run()).values[-1, 0]
    assert ends[0.0] < 0.01 < 0.05 < ends[0.5]


def test_the_model_is_left_alone_and_bad_input_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).train()  # float32
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = la.conserved(model, inputs(5, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(la.LemmataError, match=r"0\.weight.*all of its parameters"):
        found.drift([{}])
    with pytest.raises(la.LemmataError, match=r"run.*at least one point"):
        found.drift([])
    with pytest.raises(la.LemmataError, match=r"parameters.*module that is trained"):
        la.conserved(nn.ReLU(), inputs(5, 3))
    with pytest.raises(la.LemmataError, match=r"finite outputs.*gradient_health"):
        la.conserved(model, torch.full((2, 3), float("nan")))
    with pytest.raises(la.LemmataError, match=r"(?i)dropout"):
        la.conserved(nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2)), inputs(5, 3))
