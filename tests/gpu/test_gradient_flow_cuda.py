"""Every analyzer of gradient flow on CUDA against the same on the CPU, in float64, and its result where it belongs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis import gradient_flow as gf
from lemmata.architectures import GPT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no CUDA device")

FLOAT = torch.float64
LOSS = nn.CrossEntropyLoss()
Data = list[tuple[Tensor, Tensor]]


def draw(module: nn.Module) -> None:
    """Weights drawn on the CPU, so that a seed means the same network on every device."""
    if isinstance(module, nn.Linear):
        with torch.no_grad():
            for parameter in (module.weight, module.bias):
                parameter.copy_(torch.randn(parameter.shape, dtype=FLOAT) / 2)


def network(device: torch.device | str = "cpu") -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double().to(device)


def problem(device: str) -> tuple[nn.Module, Data]:
    draws = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network()
    x, y = torch.randn(20, 6, generator=draws, dtype=FLOAT).to(device), (torch.arange(20) % 3).to(device)
    return model.to(device), [(x[:7], y[:7]), (x[7:], y[7:])]


def moved(model: nn.Module) -> nn.Module:
    """The same a step further."""
    after = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.mul_(1.1)
    return after


def half(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output - target).square().mean()


def linearised(model: nn.Module, data: Data) -> Any:
    x = data[0][0]
    return gf.LinearisedTraining(model, half, (x, x[:, :3])).flow([0.0, 1.0]).outputs


def tracked(model: nn.Module, data: Data) -> list[float]:
    model = copy.deepcopy(model)
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    with la.track(model, LOSS, data, every=1) as tracker:
        for _ in range(3):
            tracker.step()
            descent.zero_grad()
            LOSS(model(data[1][0]), data[1][1]).backward()
            descent.step()
    return [*tracker.track["loss"].values.tolist(), *tracker.track["sharpness"].values.tolist()]


def exponents(model: nn.Module, data: Data) -> Any:
    square = nn.Sequential(*list(model)[2:4])  # type: ignore[call-overload]
    maps = islice(gf.tangent_maps(square, torch.zeros(8, dtype=FLOAT, device=data[0][0].device)), 400)
    return gf.lyapunov_exponents(maps, 8, steps=200, k=2, tol=1e-9, device=data[0][0].device).values


def tokens(model: nn.Module, data: Data) -> Tensor:
    """A tied table, attention and norms."""
    s = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(0)).to(data[0][0].device)
    gpt = GPT(5, 8, 2, 2, 4, dtype=FLOAT, generator=torch.Generator().manual_seed(1)).to(s.device)
    return la.gradient_norms(gpt, lambda output, y: LOSS(output.mT, y), (s, s.roll(1, 1))).squares


def stock(model: nn.Module, data: Data) -> Tensor:
    """Parameters whose gradients are formed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True).double()
    x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=FLOAT).to(data[0][0].device)
    return la.gradient_norms(layer.to(x.device), nn.MSELoss(), (x, 0 * x)).squares


def ensemble(model: nn.Module, data: Data) -> Tensor:
    found = gf.Ensemble([model, moved(model)])
    values = found.each(lambda call, theta: call(theta, data[0][0]))
    assert values.device == data[0][0].device and found.route == "side by side"
    return values


def propagated(model: nn.Module, data: Data) -> list[float]:
    found = la.signal_propagation(model, data[0][0][:2], draws=10, initialise=draw, tol=1e-9)
    return [found.signal_rate.value, found.gradient_rate.value]


def conserved(data: Data) -> Any:
    """Of rectified units, whose layers can be rescaled."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().to(data[0][0].device)
    return la.conserved(net, data[0][0]).drift([net, moved(net)]).values


NUMBERS: dict[str, Callable[[nn.Module, Data], Any]] = {
    "gradient norms": lambda m, d: la.gradient_norms(m, LOSS, d).squares,
    "gradient norms of a GPT": tokens,
    "gradient norms, formed": stock,
    "ensemble": ensemble,
    "noise scale": lambda m, d: [(found := la.noise_scale(m, LOSS, d, groups=20)).value, found.low, found.trace.value],
    "health": lambda m, d: [part.gradient.value for part in la.gradient_health(m, LOSS, d).parameters],
    "conserved": lambda m, d: conserved(d),
    "Lyapunov exponents": exponents,
    "Jacobian": lambda m, d: la.jacobian_spectrum(m, d[0][0], k=2, tol=1e-9).values,
    "propagation": propagated,
    "nngp": lambda m, d: gf.empirical_nngp(lambda: network(d[0][0].device), d[0][0][:3], max_draws=20).values,
    "ntk": lambda m, d: gf.empirical_ntk(lambda: network(d[0][0].device), d[0][0][:3], max_draws=20).values,
    "flow": lambda m, d: la.flow(m, LOSS, d, time=[0.0, 0.5, 1.0]).parameters,
    "discretisation": lambda m, d: la.discretisation(m, LOSS, d, 0.125, 4).to_flow,
    "escape": lambda m, d: gf.saddle_escape(zeroed(m), half, regression(d)).predicted,
    "lazy or rich": lambda m, d: (
        (found := la.lazy_rich(m, moved(m), d[0][0])).kernel_change.value + found.linear_gap.value
    ),
    "linearised training": linearised,
    "tracker": tracked,
}


def zeroed(model: nn.Module) -> nn.Module:
    """A saddle: two linear layers without weights."""
    device = next(model.parameters()).device
    net = nn.Sequential(nn.Linear(6, 3, bias=False), nn.Linear(3, 3, bias=False)).double().to(device)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


def regression(data: Data) -> tuple[Tensor, Tensor]:
    x = data[1][0]
    return x, x[:, :3]


def number(found: Any) -> Tensor:
    return torch.as_tensor(found, dtype=FLOAT).cpu()


@pytest.mark.parametrize("name", NUMBERS)
def test_cuda_equals_cpu(name: str) -> None:
    here, there = (number(NUMBERS[name](*problem(device))) for device in ("cpu", "cuda"))
    tol = (
        1e-6 if name in ("flow", "discretisation", "tracker", "linearised training") else 1e-8
    )  # of their own tolerance
    assert here.shape == there.shape and bool(here.isfinite().all())
    assert float((here - there).norm()) <= tol * float(here.norm())
    assert float((1.1 * here - there).norm()) > tol * float(here.norm())


def test_gradient_norms_leave_nothing_behind() -> None:
    model, data = problem("cuda")
    la.gradient_norms(model, LOSS, data)
    before = torch.cuda.memory_allocated()
    norms = la.gradient_norms(model, LOSS, data)
    assert norms.squares.device.type == "cpu" and len(norms) == 20
    assert torch.cuda.memory_allocated() == before
