"""Fits against training written out, numpy's least squares, floors, and a floor that is wrong."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lemmata.analysis import Box, FitGrid, Target, best_in_span, best_pieces, fit_grid
from lemmata.analysis.approximation.fits import mean_square
from lemmata.analysis.approximation.last_layer import refit
from lemmata.analysis.approximation.training import train
from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError

X = torch.linspace(-1, 1, 33, dtype=torch.float64)[:, None]
Y = (3 * X).sin()


def relu(width: int, depth: int) -> nn.Module:
    inner = [part for _ in range(depth - 1) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(1, width), nn.ReLU(), *inner, nn.Linear(width, 1)).double()


def written_out(seed: int, steps: int, lr: float) -> tuple[float, float]:
    """The first network of the first cell, trained by a plain loop."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = relu(4, 1)
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        ((net(X) - Y) ** 2).mean().backward()
        adam.step()
        decay.step()
    gap = (net(X) - Y).detach()
    return float(gap.square().mean().sqrt()), float(gap.abs().max())


@pytest.mark.parametrize("seeds", [3, 1])
def test_a_fit_is_plain_training(seeds: int) -> None:
    found = fit_grid(relu, (X, Y), [4], seeds=seeds, steps=50, lr=0.02, seed=7)
    for k in range(seeds):
        truth = written_out(7 + k, 50, 0.02)
        assert (found.l2[0, 0, k].item(), found.sup[0, 0, k].item()) == pytest.approx(truth, rel=1e-8)
    assert found.routes == (("side by side" if seeds > 1 else "one by one",),)


def test_a_target_is_sampled_on_its_domain() -> None:
    box = Box.cube(1, 0.0)
    points = [box.sample(1024, 3), box.sample(8192, 4)]
    data, dense = [(x.float(), (x**2).float()) for x in points]
    build = lambda width, depth: relu(width, depth).float()  # noqa: E731
    found = fit_grid(build, Target("x²", lambda x: x[:, 0] ** 2, box), [3], seeds=2, steps=3, seed=3)
    assert torch.equal(found.sup, fit_grid(build, data, [3], seeds=2, steps=3, grid=dense, seed=3).sup)


def test_wide_networks_go_one_by_one() -> None:
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    found = fit_grid(relu, (x, x), [2, 600], seeds=2, steps=1)
    assert found.routes == (("side by side",), ("one by one",)) and found.parameters == ((7,), (1801,))


def test_the_dense_grid_is_where_errors_are_measured() -> None:
    dense = torch.linspace(-2, 2, 101, dtype=torch.float64)[:, None]
    inside = fit_grid(relu, (X, Y), [8], seeds=2, steps=20)
    outside = fit_grid(relu, (X, Y), [8], seeds=2, steps=20, grid=(dense, (3 * dense).sin()))
    assert bool((outside.sup > inside.sup).all())


def test_batches_are_drawn_for_each_seed_and_nothing_else_is_touched() -> None:
    before = torch.random.get_rng_state()
    call = lambda: fit_grid(relu, (X, Y), [4], seeds=3, steps=30, batch=8, seed=1)  # noqa: E731
    first, again = call(), call()
    assert torch.equal(first.sup, again.sup) and torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first.sup, fit_grid(relu, (X, Y), [4], seeds=3, steps=30, seed=1).sup)
    assert len(set(first.sup.flatten().tolist())) == 3


def test_the_last_layer_is_that_of_least_squares() -> None:
    net = relu(6, 2)
    with torch.no_grad():
        hidden = net[:-1](X)
    design = np.concatenate([hidden.numpy(), np.ones((33, 1))], 1)
    fit = design @ np.linalg.lstsq(design, Y.numpy(), rcond=None)[0]
    refit(net, X, Y)
    assert np.abs(net(X).detach().numpy() - fit).max() < 1e-10
    floor = best_in_span(torch.from_numpy(design), Y[:, 0], order=2)
    error = float((net(X) - Y).detach().square().mean().sqrt())
    assert floor.lower <= error * (1 + 1e-9) and error == pytest.approx(floor.upper, rel=1e-9)


def test_least_squares_at_the_end_is_never_worse() -> None:
    trained = fit_grid(relu, (X, Y), [6], seeds=4, steps=40)
    fitted = fit_grid(relu, (X, Y), [6], seeds=4, steps=40, last_layer="least squares")
    assert bool((fitted.l2 < trained.l2).all())


def floor(width: int, depth: int) -> float:
    return best_pieces(X[:, 0], Y[:, 0], width + 1).lower


def test_no_training_crosses_the_floor_and_a_wrong_floor_is_crossed() -> None:
    options = dict(seeds=4, steps=150, lr=0.03, last_layer="least squares")
    found = fit_grid(relu, (X, Y), [2, 4], floor=floor, **options)
    assert found.crossed == [] and bool((found.best() >= found.floors).all())
    smooth = lambda width, depth: nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1)).double()  # noqa: E731
    assert (4, 1) in fit_grid(smooth, (X, Y), [2, 4], floor=floor, **options).crossed


def grid(errors: Tensor) -> FitGrid:
    sizes = tuple((w,) for w in (1, 2, 4, 8)[: len(errors)])
    widths = tuple(w for (w,) in sizes)
    return FitGrid(widths, (1,), sizes, errors, errors, None, (("one by one",),) * len(sizes), True)


def test_medians_have_an_interval_by_order() -> None:
    errors = torch.arange(1.0, 11.0, dtype=torch.float64).expand(1, 1, 10)
    low, high = grid(errors).interval()
    assert (float(low), float(high)) == (2.0, 9.0)  # P(B ≤ 1) = 11/1024 for 10 fair coins, on each side
    assert float(grid(errors).median()) == 5.5 and float(grid(errors).best()) == 1.0
    low, high = grid(errors[..., :4]).interval()
    assert (float(low), float(high)) == (0.0, float("inf"))


def test_the_interval_holds_the_median() -> None:
    draws = torch.distributions.Cauchy(0.0, 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        errors = draws.sample((2000, 1, 12)).double().exp()
    low, high = grid(errors[:4]).interval()
    found = FitGrid(**{**vars(grid(errors[:4])), "sup": errors, "l2": errors})
    low, high = found.interval()
    share = float(((low <= 1) & (high >= 1)).double().mean())
    assert 0.95 <= share + 0.01 and share < 1


def test_rates_along_the_grid() -> None:
    errors = torch.tensor([1.0, 0.25, 0.0625, 0.015625], dtype=torch.float64)[:, None, None].expand(4, 1, 3)
    assert grid(errors).rate().slope == pytest.approx(-2)
    assert grid(errors).rate("l2", "parameters").slope == pytest.approx(-2)
    with pytest.raises(ArgumentError, match="along.*width"):
        grid(errors).rate(along="seeds")
    with pytest.raises(ArgumentError, match="of.*sup"):
        grid(errors).rate("l1")


def test_a_run_that_diverges_is_counted() -> None:
    found = fit_grid(relu, (X, Y), [4], seeds=2, steps=3, lr=1e200)
    assert found.diverged == 2 and not found.converged and "2 diverged" in repr(found)
    back = FitGrid.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert bool(back.sup.isinf().all()) and back.widths == (4,)


def test_table_record_and_picture() -> None:
    found = fit_grid(relu, (X, Y), [2, 4], [1, 2], seeds=3, steps=5, floor=lambda width, depth: 0.01)
    assert "4 × 2" in repr(found) and "floor" in repr(found) and not found.converged
    back = FitGrid.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.sup, found.sup) and torch.equal(back.floors, found.floors) and repr(back) == repr(found)
    assert found.plot(ax=Figure().subplots()).get_xscale() == "log" and found.plot("l2").lines


def test_outputs_without_an_axis_of_their_own() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = relu(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, 0]

    flat = fit_grid(lambda width, depth: Flat(), (X, Y[:, 0]), [1], seeds=2, steps=20)
    assert torch.allclose(flat.sup, fit_grid(lambda width, depth: relu(4, 1), (X, Y), [1], seeds=2, steps=20).sup)
    assert float(mean_square(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))) == 25.0


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_frozen_stays(count: int) -> None:
    nets = [relu(3, 1) for _ in range(count)]
    for net in nets:
        net[0].weight.requires_grad_(False)
    before = [net[0].weight.clone() for net in nets], [net[2].weight.clone() for net in nets]
    data = X.expand(count, -1, -1), Y.expand(count, -1, -1)
    train(nets, mean_square, lambda step: data, 3, partial(torch.optim.Adam, lr=0.1))
    for k, net in enumerate(nets):
        assert torch.equal(net[0].weight, before[0][k]) and not torch.equal(net[2].weight, before[1][k])
        assert net[2].weight.grad is None


NAN = torch.where(X > 0, Y, float("nan"))


@pytest.mark.parametrize(
    ("error", "name", "call", "remedy"),
    [
        (ArgumentError, "widths", lambda: fit_grid(relu, (X, Y), [0]), "widths=[4, 8, 16]"),
        (ArgumentError, "widths", lambda: fit_grid(relu, (X, Y), []), "widths=[4, 8, 16]"),
        (ArgumentError, "depths", lambda: fit_grid(relu, (X, Y), [2], [1, 1]), "depths="),
        (ArgumentError, "seeds", lambda: fit_grid(relu, (X, Y), [2], seeds=0), "default"),
        (ArgumentError, "batch", lambda: fit_grid(relu, (X, Y), [2], batch=0.5), "default"),
        (ArgumentError, "lr", lambda: fit_grid(relu, (X, Y), [2], lr=0.0), "default"),
        (ArgumentError, "build", lambda: fit_grid(3, (X, Y), [2]), "nn.Sequential"),
        (ArgumentError, "build", lambda: fit_grid(lambda w, d: nn.ReLU(), (X, Y), [2]), "Return the network"),
        (ArgumentError, "last_layer", lambda: fit_grid(relu, (X, Y), [2], last_layer="no"), "Leave it out"),
        (DataError, "data", lambda: fit_grid(relu, X, [2]), "data=(inputs, target)"),
        (DataError, "data", lambda: fit_grid(relu, (X, Y[1:]), [2]), "Evaluate the target"),
        (DataError, "data, target", lambda: fit_grid(relu, (X, NAN), [2]), "Leave those points out"),
        (DataError, "data, target", lambda: fit_grid(relu, (X, Y[:, 0]), [2]), "(m, 1)"),
        (DataError, "grid, target", lambda: fit_grid(relu, (X, Y), [2], grid=(X, NAN)), "Leave those points out"),
    ],
)
def test_bad_input(error: type, name: str, call, remedy: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.name == name and remedy in str(caught.value)


def test_a_network_without_a_last_linear_layer() -> None:
    bent = lambda width, depth: nn.Sequential(nn.Linear(1, 1), nn.Tanh()).double()  # noqa: E731
    with pytest.raises(ArgumentError, match=r"last_layer.*1 \(Tanh\).*nn.Linear"):
        fit_grid(bent, (X, Y), [1], seeds=1, steps=1, last_layer="least squares")


class Waves(nn.Module):
    """Cosines of random frequencies, kept as a buffer or not, and a linear layer."""

    def __init__(self, width: int, kept: bool = True) -> None:
        super().__init__()
        frequencies = 3 * torch.randn(1, width, dtype=torch.float64)
        if kept:
            self.register_buffer("frequencies", frequencies)
        else:
            self.frequencies = frequencies
        self.last = nn.Linear(width, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cos(x @ self.frequencies))


def test_networks_are_trained_with_buffers_of_their_own() -> None:
    together = fit_grid(lambda width, depth: Waves(width), (X, Y), [16], seeds=4, steps=60, lr=0.05)
    alone = [
        fit_grid(lambda w, d: Waves(w), (X, Y), [16], seeds=1, steps=60, lr=0.05, seed=k).l2[0, 0, 0] for k in range(4)
    ]
    torch.testing.assert_close(together.l2[0, 0], torch.stack(alone), rtol=1e-9, atol=0)


def test_random_tensors_that_are_no_buffers_are_refused() -> None:
    with pytest.raises(ArgumentError, match="register_buffer"):
        fit_grid(lambda width, depth: Waves(width, kept=False), (X, Y), [16], seeds=4, steps=2)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("part", [nn.Dropout, nn.BatchNorm1d])
def test_layers_without_one_output_are_refused(part: type[nn.Module], seeds: int) -> None:
    def build(width: int, depth: int) -> nn.Module:
        middle = part() if part is nn.Dropout else part(4)
        return nn.Sequential(nn.Linear(1, 4), middle, nn.Linear(4, 1)).double()

    before = torch.get_rng_state()
    with pytest.raises(ModelStateError, match=rf"1 \({part.__name__}\).*eval mode"):
        fit_grid(build, (X, Y), [4], seeds=seeds, steps=2)
    assert torch.equal(before, torch.get_rng_state())
    settled = fit_grid(lambda width, depth: build(width, depth).eval(), (X, Y), [4], seeds=seeds, steps=2)
    assert bool(settled.l2.isfinite().all())


def test_what_is_not_new_or_does_not_fit_is_refused() -> None:
    net = relu(4, 1)
    with pytest.raises(ArgumentError, match=r"build.*inside build"):
        fit_grid(lambda width, depth: net, (X, Y), [4], seeds=2, steps=2)
    with pytest.raises(ArgumentError, match=r"widths.*Pass widths="):
        fit_grid(relu, (X, Y), 4, seeds=2, steps=2)
    with pytest.raises(DataError, match=r"inputs.*float32.*Pass inputs"):
        fit_grid(relu, (X.float(), Y), [4], seeds=2, steps=2)


def test_a_last_layer_that_is_used_elsewhere_is_refused() -> None:
    layer = nn.Linear(2, 2).double()
    tied = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    tied[0].weight = tied[2].weight
    x = torch.randn(9, 2, dtype=torch.float64)
    for net in (nn.Sequential(layer, nn.ReLU(), layer), tied):
        with pytest.raises(ArgumentError, match=r"used once.*layer of its own"):
            refit(net, x, x)
    with pytest.raises(DataError, match=r"target.*one for each input"):
        refit(nn.Linear(2, 2).double(), x, x[:5])
