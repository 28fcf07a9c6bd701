"""The training tracker: training stays the same to the bit, numbers by closed forms and other analyzers, a bounded share of time."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, LemmataError, ModelStateError
from lemmata.analysis.gradient_flow import Track, tracker
from lemmata.analysis.gradient_flow.training_record import Series

EVERYTHING = ("gradient", "updates", "sharpness", "noise", "kernel", "balance")


def problem() -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """With batch normalisation, dropout and layers that balance each other."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1)
    )
    x = torch.randn(48, 4)
    return net, (x, x.sum(1, keepdim=True).sin())


def train(net: nn.Module, data: tuple[Tensor, Tensor], steps: int, call: Callable[..., None] | None = None) -> list:
    """Shuffled batches, dropout, Adam, and draws from all generators: what a tracker might disturb."""
    loader = DataLoader(TensorDataset(*data), batch_size=16, shuffle=True)
    adam, drawn, done = torch.optim.Adam(net.parameters(), lr=0.01), [], 0
    while done < steps:
        for inputs, target in loader:
            adam.zero_grad()
            loss = nn.functional.mse_loss(net(inputs), target)
            loss.backward()
            if call is not None:
                call(loss=loss)
            adam.step()
            drawn.append((float(torch.rand(())), random.random(), np.random.rand()))
            done += 1
    return drawn


def test_training_is_the_same_to_the_bit() -> None:
    ends = []
    for tracked in (True, False):
        net, data = problem()
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        loader = DataLoader(TensorDataset(*data), batch_size=12, shuffle=True)

        def wild(model: nn.Module, x: Tensor = data[0]) -> float:  # what a user's function may do to what it is given
            model.train()
            random.random(), np.random.rand(), torch.rand(3)
            model(x).sum().backward()
            for parameter in model.parameters():
                parameter.data.mul_(2)
            return 1.0

        watch = la.track(net, nn.MSELoss(), loader, EVERYTHING, {"wild": wild}, every=2) if tracked else None
        drawn = train(net, data, 5, watch.step if watch else None)
        assert all(p.grad is not None for p in net.parameters()) and net.training
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
        gradients = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
        ends.append((copy.deepcopy(net.state_dict()), gradients, drawn))
        if watch is not None:
            assert watch.track.steps.tolist() == [0, 2, 4]
    (first, slopes, drawn), (second, others, undrawn) = ends
    assert all(torch.equal(first[name], second[name]) for name in first) and drawn == undrawn
    assert all(torch.equal(a, b) for a, b in zip(slopes, others, strict=True))
    net, data = problem()
    assert train(net, data, 5) != drawn  # another seed is another path: the comparison could fail


@pytest.mark.parametrize("where", ["loader", "sampler", "workers"])
def test_training_shares_its_loader_with_the_tracker(where: str) -> None:
    """Its generator, its sampler's, and the one iterator that lasting workers have."""
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    examples, ends = TensorDataset(x, x.sum(1, keepdim=True)), []
    for tracked in (True, False):
        own = torch.Generator().manual_seed(1)
        if where == "sampler":
            loader = DataLoader(examples, batch_sampler=BatchSampler(RandomSampler(examples, generator=own), 8, False))
        else:
            lasting = dict(num_workers=1, persistent_workers=True) if where == "workers" else {}
            loader = DataLoader(examples, 8, shuffle=True, generator=own, **lasting)  # type: ignore[arg-type]
        torch.manual_seed(2)
        net, losses = nn.Linear(4, 1), list[float]()
        descent = torch.optim.SGD(net.parameters(), lr=0.1)
        watch = la.track(net, nn.MSELoss(), loader, ("gradient",), every=2)
        for inputs, target in (batch for _ in range(2) for batch in loader):
            descent.zero_grad()
            loss = nn.functional.mse_loss(net(inputs), target)
            loss.backward()
            descent.step()
            losses.append(loss.item())
            if tracked:
                watch.step()
        ends.append(losses)
    assert len(ends[0]) == 6 and ends[0] == ends[1] and len(set(ends[0])) == 6


def test_every_record_sees_the_network_as_it_is() -> None:
    """Numbers that are neither parameters nor buffers move too; what cannot be followed is named, with its remedy."""

    class Scaled(nn.Linear):
        scale, keeps = 1.0, False

        def forward(self, x: Tensor) -> Tensor:
            out = self.scale * super().forward(x)
            if self.keeps:
                self.kept = out
            return out

    net = Scaled(1, 1, bias=False)
    nn.init.ones_(net.weight)
    data = torch.ones(1, 1), torch.zeros(1, 1)
    watch = la.track(net, nn.MSELoss(), data, ("gradient", "sharpness"), every=1)
    for net.scale in (1.0, 3.0):
        watch.step()
    assert watch.track["loss"].values.tolist() == [1, 9]
    assert watch.track["sharpness"].values.tolist() == pytest.approx([2, 18])
    net.keeps = True
    net(data[0])
    with pytest.raises(ModelStateError, match="detached") as caught:
        watch.step()
    assert caught.value.name == "Scaled"
    del net.kept
    watch.step()
    net.weight.requires_grad_(False)
    with pytest.raises(ModelStateError, match="another tracker") as caught:
        watch.step()
    assert "weight" in caught.value.given


def test_numbers_are_those_of_the_analyzers_at_each_step() -> None:
    net, data = problem()
    seen: list[nn.Module] = []
    watch = la.track(net, nn.MSELoss(), data, EVERYTHING, {"count": lambda m: len(list(m.parameters()))}, every=3)

    def call(loss: Tensor) -> None:
        seen.append(copy.deepcopy(net).eval())
        watch.step(loss=loss)

    with watch:
        train(net, data, 6, call)
    found, kept = watch.track, seen[::3]
    seen.append(copy.deepcopy(net).eval())
    assert found.steps.tolist() == [0, 3] and found.calls == 6
    balances = la.conserved(kept[0], data[0])
    kernels = [la.NTK(each, data[0]).dense() for each in kept]
    for i, each in enumerate(kept):
        hessian = la.Hessian(each, nn.MSELoss(), data)
        assert found["loss"].values[i].item() == pytest.approx(hessian.value, rel=1e-5)
        assert found["gradient norm"].values[i].item() == pytest.approx(float(hessian.gradient.norm()), rel=1e-4)
        top = float(torch.linalg.eigvalsh(hessian.dense())[-1])
        low, high = (float(part[i]) for part in (found["sharpness"].low, found["sharpness"].high))
        assert low - 1e-5 * top <= top <= high + 1e-5 * top and high - low < 0.05 * top
        scale = la.noise_scale(each, nn.MSELoss(), data)
        assert found["noise scale"].values[i].item() == pytest.approx(scale.value, rel=1e-4)
        assert found["noise scale"].low[i].item() == pytest.approx(scale.low, rel=1e-3)
        drift = float((kernels[i] - kernels[0]).norm() / kernels[0].norm())
        assert found["kernel drift"].values[i].item() == pytest.approx(drift, abs=1e-5)
        for b, value in zip(balances.balances, balances.drift([kept[0], each]).values[-1], strict=True):
            assert found[f"balance drift: {b.into} → {b.out}"].values[i].item() == pytest.approx(value, abs=1e-9)
        now, then = (m.state_dict() for m in (seen[3 * i], seen[3 * i + 1]))
        moved = sum(float((then[n] - now[n]).square().sum()) for n in ("3.weight", "3.bias")) ** 0.5
        size = sum(float(now[n].square().sum()) for n in ("3.weight", "3.bias")) ** 0.5
        assert found["update ratio: 3"].values[i].item() == pytest.approx(moved / size, rel=1e-5)
    assert found["kernel drift"].values[1] > 0.01 and found["count"].values.tolist() == [8, 8]
    assert (
        abs(found["loss"].values[0] - found["loss"].values[1]) > 1e-3 and found["training loss"].values.isfinite().all()
    )


def test_estimates_keep_their_intervals_and_steps_their_numbers() -> None:
    net, data = problem()
    watch = la.track(net, nn.MSELoss(), data, (), {"scale": lambda m: la.noise_scale(m, nn.MSELoss(), data)}, every=1)
    watch.step(step=70)
    watch.step(step=80, loss=0.5)
    found = watch.track
    assert found.steps.tolist() == [70, 80]
    assert found["scale"].low[0] < found["scale"].values[0] < found["scale"].high[0]
    assert found["training loss"].values.isnan().tolist() == [True, False]
    with pytest.raises(ArgumentError, match="recorded") as caught:
        found["sharpness"]
    assert "scale" in caught.value.expected


class Clock:
    """A clock that the test moves: records take one second, training steps a tenth."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_share_of_time_is_kept(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    clock = Clock()
    monkeypatch.setattr(tracker, "perf_counter", clock)
    net, data = problem()

    def slow(model: nn.Module) -> float:
        clock.now += 1.0
        return 0.0

    with la.track(net, nn.MSELoss(), data, (), {"slow": slow}, overhead=share) as watch:
        for _ in range(2000):
            clock.now += 0.1
            watch.step()
            spent = watch.track.overhead
            assert len(watch.track.steps) == 1 or spent <= share + 1e-9
    found = watch.track
    clock.now += 100  # the clock stands still after the loop
    assert watch.track.overhead == found.overhead and found.training == pytest.approx(200) and found.calls == 2000
    assert len(found.steps) == pytest.approx(200 * share, abs=1) and found.seconds == len(found.steps)
    assert f"{found.overhead:.1%}" in repr(found)


def test_bad_options_are_named() -> None:
    net, data = problem()
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("quantities", "extra=", {"quantities": ("gradients",)}),
        ("quantities", "tuple", {"quantities": "gradient"}),
        ("every", "bound the overhead", {"every": 0}),
        ("overhead", "0.05", {"overhead": nan}),
        ("extra['a']", "function", {"extra": {"a": 3}}),
    ]
    for name, remedy, options in cases:
        with pytest.raises(ArgumentError, match=remedy) as caught:
            la.track(net, nn.MSELoss(), data, **options)
        assert caught.value.name == name
    with pytest.raises(ArgumentError, match="network"):
        la.track(lambda x: x, nn.MSELoss(), data)  # type: ignore[arg-type]


def test_faults_while_tracking_are_named_and_leave_everything_as_it_was() -> None:
    net, data = problem()
    alone, last, state = nn.Linear(4, 1), nn.Linear(1, 1), torch.get_rng_state()
    cases: list[tuple[type[LemmataError], str, Callable[[], Any]]] = [
        (ArgumentError, "float", lambda: la.track(net, nn.MSELoss(), data, (), {"text": lambda m: "high"})),
        (DataError, "list", lambda: la.track(net, nn.MSELoss(), iter([data]))),
        (ArgumentError, "another name", lambda: la.track(net, nn.MSELoss(), data, extra={"loss": lambda m: 1.0})),
        (ArgumentError, "nothing to follow", lambda: la.track(alone, nn.MSELoss(), data, ("balance",))),
    ]
    for error, remedy, build in cases:
        with pytest.raises(error, match=remedy), build() as watch:
            watch.step()
    taken = la.track(alone, nn.MSELoss(), data, ("updates",), {"update ratio: model": lambda m: 1.0}, every=1)
    taken.step()
    with pytest.raises(ArgumentError, match="another name") as caught:
        taken.step()
    assert caught.value.name == "extra['update ratio: model']"
    watch = la.track(net, nn.MSELoss(), data, every=1)
    watch.step()
    net.append(last)
    with pytest.raises(ModelStateError, match="another tracker"):
        watch.step()
    assert torch.equal(state, torch.get_rng_state()) and net.training and all(p.grad is None for p in net.parameters())


def test_frozen_and_tied_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.out = nn.Linear(4, 1)
            self.out.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.b(self.a(x).tanh()))

    torch.manual_seed(0)
    net, data = Tied(), problem()[1]
    with la.track(net, nn.MSELoss(), data, every=1) as watch:
        for _ in range(2):
            watch.step()
            with torch.no_grad():
                net.a.weight.mul_(1.5)
    ratios = {name: one.values.tolist() for name, one in watch.track.series.items() if "update" in name}
    assert set(ratios) == {"update ratio: a", "update ratio: b"} and ratios["update ratio: b"] == [0, 0]
    weight, bias = net.a.weight.detach() / 1.5**2, net.a.bias.detach()
    truth = 0.5 * float(weight.norm()) / float((weight.square().sum() + bias.square().sum()).sqrt())
    assert ratios["update ratio: a"][0] == pytest.approx(truth, rel=1e-5)


def test_records_and_plots() -> None:
    net, data = problem()
    watch = la.track(net, nn.MSELoss(), data, every=1)
    assert len(watch.track.steps) == 0 and "0 records" in repr(watch.track) and len(watch.track.plot()) == 1
    for _ in range(3):
        watch.step()
    found = watch.track
    again = Track.from_dict(found.to_dict())
    assert repr(again) == repr(found) and again["sharpness"].low.tolist() == found["sharpness"].low.tolist()
    panels = found.plot()
    assert [panel.get_ylabel() for panel in panels] == ["loss", "gradient norm", "sharpness", "update ratio"]
    assert found.plot(panels[0], names=["loss"]) is panels[0]


def test_intervals_are_told_as_they_lie() -> None:
    def told(value: float, low: float, high: float) -> str:
        series = Series(*(torch.tensor([x], dtype=torch.float64) for x in (value, low, high)))
        text = repr(Track(torch.tensor([0]), {"scale": series}, 1, 0.0, 1.0, "every 1"))
        return text.splitlines()[-1].partition("scale")[2].strip()

    assert told(45.8, 28.1, 122.4).startswith("45.8 [28.1, 122]")
    assert told(45.8, 28.1, inf).startswith("45.8 [28.1, inf]")
    assert "46.0 ± 2.0" in told(46.0, 44.0, 48.0) and "[" not in told(46.0, 44.0, 48.0)
    assert told(2.0, 2.0, 2.0).startswith("2 ")
