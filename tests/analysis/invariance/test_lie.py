"""Lie derivatives against closed forms, central differences of finite group elements, and layers taken alone."""

from __future__ import annotations

import json
from math import pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import LemmataError
from lemmata.analysis.invariance.generators import FIELDS, slopes
from lemmata.architectures import CNN, EGNN, MLP, GroupCNN, ResNet, VisionTransformer


def images(n: int = 9, channels: int = 1, count: int = 5, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, n, n, dtype=torch.float64, generator=draws)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("n", [7, 8])
def test_generators_are_the_analytic_derivative_of_band_limited_images(name: str, n: int) -> None:
    """x(y, x) = cos(ω·p + φ) has the gradient −ω sin(ω·p + φ)."""
    c = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    y, x = c[:, None], c[None, :]
    a, b = 2 * pi * 2 / n, 2 * pi * 3 / n
    vy, vx = FIELDS[name][0](y, x)
    truth = (vy * a + vx * b) * torch.sin(a * y + b * x + 0.4)
    found = la.image_generator(name, (n, n))("input", torch.cos(a * y + b * x + 0.4)[None, None])
    assert found is not None and float((found - truth).abs().max()) < 1e-13 * n
    coarse = la.image_generator(name, (2 * n, 2 * n))("map", torch.cos(a * y + b * x + 0.4)[None, None])
    scale = (
        0.5 if "translation" in name else 1.0
    )  # a pixel of the input is half a pixel of the map; angles are the same
    assert coarse is not None and torch.allclose(coarse, scale * found, atol=1e-12)


def test_cubic_interpolation_has_the_sine_of_the_frequency_in_its_place() -> None:
    n, omega = 64, 2 * pi * 5 / 64
    wave = torch.cos(omega * torch.arange(n, dtype=torch.float64))
    slope = (slopes(n, "zeros") @ wave)[1:-1]
    truth = -torch.sin(omega * torch.arange(n, dtype=torch.float64))[1:-1]
    assert torch.allclose(slope, torch.sin(torch.tensor(omega)) * truth, atol=1e-14)
    assert not torch.allclose(slope, omega * truth, atol=1e-3)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("boundary", ["torus", "zeros"])
def test_generators_are_the_sum_over_both_axes(name: str, boundary: str) -> None:
    """−v_y ∂_y h − v_x ∂_x h from einsum over the map's own coordinates; a single pixel does not move but by translation."""
    h = images(5, 2, 3)
    y, x = torch.meshgrid(*[torch.arange(5, dtype=torch.float64) - 2] * 2, indexing="ij")
    down, across = FIELDS[name][0](y, x)
    D = slopes(5, boundary)
    truth = -down * torch.einsum("ij,bcjk->bcik", D, h) - across * torch.einsum("ij,bckj->bcki", D, h)
    found = la.image_generator(name, (5, 5), boundary)
    moved = found("input", h)
    assert moved is not None and torch.allclose(moved, truth, atol=1e-13) and float(truth.norm()) > 1
    turned = found("input", h.mT.contiguous().mT)  # another layout in memory
    assert turned is not None and torch.allclose(turned, truth, atol=1e-13)
    pixel = found("pixel", torch.ones(2, 3, 1, 1, dtype=torch.float64))
    assert pixel is not None and not pixel.any()


def test_a_generator_first_used_in_inference_mode_serves_graphs_afterwards() -> None:
    generator, h = la.image_generator("scale", (11, 11)), images(11)
    with torch.inference_mode():
        first = generator("input", h)
    second = generator("input", h.requires_grad_())
    assert first is not None and second is not None and torch.allclose(first, second.detach(), atol=1e-14)
    assert torch.autograd.grad(second.square().sum(), h)[0].any()


def test_the_flow_of_a_translation_is_the_shift() -> None:
    x = images(9)
    flow = la.image_generator("x-translation", (9, 9)).flow("input", x, 2.0)
    assert torch.allclose(flow, x.roll(2, -1), atol=1e-12) and not torch.allclose(flow, x.roll(-2, -1), atol=0.1)


@pytest.mark.parametrize(("wave", "truth"), [(1, 0.0), (3, pi * sqrt(4 / 3))])
def test_a_square_commutes_until_it_aliases(wave: int, truth: float) -> None:
    """cos² has twice the frequency ω; beyond π it is seen at 2π − 2ω, and L f = π sin 2ωi."""
    n = 9
    x = torch.cos(2 * pi * wave * torch.arange(n, dtype=torch.float64) / n).expand(3, 1, n, n)
    found = la.lie_derivative(Squares(), x, "x-translation")
    assert found.output.value == pytest.approx(truth, rel=1e-12, abs=1e-13) and found.exact is (truth == 0)


@pytest.mark.parametrize("name", ["x-translation", "y-translation"])
def test_linear_circular_convolutions_are_exact_and_their_wrong_variants_are_not(name: str) -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular").double()
    assert la.lie_derivative(conv, images(), name).exact and la.lie_derivative(conv, images(), name).culprit is None
    rotated = la.lie_derivative(conv, images(), "rotation")
    assert not rotated.exact and rotated.output.interval()[0] > 0.5
    padded = la.lie_derivative(nn.Conv2d(1, 3, 3, padding=1).double(), images(), name)
    assert padded.output.interval()[0] > 0.1 and padded.culprit is not None


def test_float32_is_judged_by_its_own_rounding() -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")
    found = la.lie_derivative(conv, images().float(), "x-translation")
    assert found.exact and 1e-9 < found.output.value < 1e-5


@pytest.mark.parametrize(
    "model",
    [
        CNN([1, 4, 4], 3, activation="tanh", dtype=torch.float64, generator=seeded()),
        VisionTransformer(9, 3, 1, 4, 2, 2, 3, dtype=torch.float64, generator=seeded()),
        ResNet([1, 4, 8], 3, norm="group", groups=2, activation="tanh", dtype=torch.float64, generator=seeded()),
        nn.Sequential(nn.Flatten(), MLP([81, 7, 3], dtype=torch.float64, generator=seeded())),
    ],
)
@pytest.mark.parametrize("name", ["x-translation", "rotation", "scale", "x-shear"])
def test_central_differences_agree_to_second_order_and_contributions_add_up(model: nn.Module, name: str) -> None:
    found = la.lie_derivative(model, images(), name, steps=(2e-3, 1e-3))
    assert found.order == pytest.approx(2, abs=0.05) and found.differences[1][1] < 1e-2 * found.output.value
    assert found.chain < 1e-12
    difference = la.lie_difference(model, images(), name, 1e-3)
    with torch.no_grad():
        size = float(difference.norm() / model(images()).norm())
    assert found.output.value == pytest.approx(size, rel=1e-2)


def test_each_own_defect_is_that_of_the_layer_alone() -> None:
    """Truth: central differences of one layer, at the input it has inside the model."""
    conv, act, other = nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, act, other).double()
    found, x = la.lie_derivative(model, images(), "rotation"), images()
    for place, layer in enumerate(model):
        alone = la.lie_difference(layer, x, "rotation", 1e-4)
        with torch.no_grad():
            x = layer(x)
        assert found[str(place)].own.value == pytest.approx(float(alone.norm() / x.norm()), rel=1e-5)


def test_what_has_gathered_is_that_of_the_model_cut_off() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 2, 3, padding=1)).double()
    found = la.lie_derivative(model, images(), "scale")
    cut = la.lie_derivative(model[:2], images(), "scale")
    assert found["1"].gathered.value == pytest.approx(cut.output.value, rel=1e-12)
    assert found.layers[-1].gathered.value == pytest.approx(found.output.value, rel=1e-12)


def test_probes_cover_the_exact_contribution() -> None:
    """Of the last layer it is its own defect: nothing follows."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh()).double()
    found = la.lie_derivative(model, images(count=24), "x-translation", probes=100)
    low, high = found["1"].contribution.interval(0.999)
    assert not found.without_probes and low < found["1"].own.value < high < 1.5 * low and found.converged
    few = la.lie_derivative(model, images(count=3), "x-translation", probes=10, tol=0.01)
    assert not few.converged and "not converged" in repr(few)


def test_intervals_cover_the_mean_over_many_images() -> None:
    model = CNN([1, 3], 2, dtype=torch.float64, padding="zeros", generator=seeded())
    truth = la.lie_derivative(model, images(count=2000, seed=9), "x-translation", steps=()).output.value
    hits = 0
    for seed in range(40):
        low, high = la.lie_derivative(
            model, images(count=12, seed=100 + seed), "x-translation", steps=()
        ).output.interval()
        hits += low <= truth <= high
    assert 33 <= hits <= 40  # 95 % of 40 are 38
    alone = la.lie_derivative(model, images(count=1), "x-translation", steps=())
    assert alone.output.interval() == (-float("inf"), float("inf"))


def test_discrete_symmetries_are_invisible() -> None:
    """A network that is invariant to quarter turns, to rounding, has a Lie derivative of rotation as large as any."""
    net, x = GroupCNN([1, 4, 4], 3, dtype=torch.float64, generator=seeded()), images()
    with torch.no_grad():
        assert torch.allclose(net(x.rot90(1, (-2, -1))), net(x), atol=1e-14)
    assert not la.lie_derivative(net, x, "rotation").exact


class Cloud(nn.Module):
    """What an EGNN makes of coordinates, or of features that hold them too, which breaks its symmetry."""

    def __init__(self, leak: float) -> None:
        super().__init__()
        self.net, self.leak = EGNN([2, 3, 2], message=4, dtype=torch.float64, generator=seeded()), leak

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.net(h + self.leak * x[..., :2], x)[1]


def test_a_generator_of_the_users_own() -> None:
    turn = torch.zeros(3, 3, dtype=torch.float64)
    turn[0, 1], turn[1, 0] = 1, -1

    def act(place: str, h: Tensor) -> Tensor | None:
        if place == "input[0]":
            return torch.zeros_like(h)
        return h @ turn if place in ("input[1]", "output") else None

    draws = seeded(3)
    inputs = tuple(torch.randn(4, 5, c, dtype=torch.float64, generator=draws) for c in (2, 3))
    rotation = la.Generator("rotation about z", act, "radian")
    assert la.lie_derivative(Cloud(0.0), inputs, rotation).exact
    broken = la.lie_derivative(Cloud(1.0), inputs, rotation, steps=(1e-3, 5e-4))
    assert not broken.exact and broken.order == pytest.approx(2, abs=0.05) and broken.resampling is None


def test_a_module_called_twice_has_two_rows_and_the_model_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.batch = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.batch(self.conv(torch.relu(self.conv(x)).mul_(2)))

    model = Twice().double().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = la.lie_derivative(model, images(), "rotation")
    assert [layer.name for layer in found.layers] == ["conv", "relu after conv", "conv (call 2)", "batch"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.conv._forward_hooks and all(p.grad is None for p in model.parameters()) and found.chain < 1e-12


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True).expand_as(x)


def test_a_module_may_return_one_number_many_times() -> None:
    conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")
    assert la.lie_derivative(nn.Sequential(Mean(), conv).double(), images(), "rotation").exact


def test_modules_that_work_in_place_are_seen_as_others() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(2, 1, 3, padding=1)).double()
    found = la.lie_derivative(model, images(), "scale")
    assert [layer.kind for layer in found.layers] == ["Conv2d", "ReLU", "Conv2d"] and found.chain < 1e-12
    model[1].inplace = False
    assert la.lie_derivative(model, images(), "scale").output.value == pytest.approx(found.output.value, rel=1e-12)


def test_records_and_figures() -> None:
    found = la.lie_derivative(CNN([1, 2], 2, dtype=torch.float64), images(8), "rotation")
    assert type(found).from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert [label.get_text() for label in found.plot().get_yticklabels()] == [layer.name for layer in found.layers]
    assert "discrete symmetries do not show" in repr(found) and "layers.0" in repr(found)


def nothing(place: str, h: Tensor) -> Tensor | None:
    return None


@pytest.mark.parametrize(
    ("change", "name", "remedy"),
    [
        (dict(generator="turning"), "generator", "la.Generator"),
        (dict(generator=3), "generator", "la.Generator"),
        (dict(inputs=torch.zeros(2, 1, 8, 6, dtype=torch.float64)), "rotation", "Crop or pad"),
        (dict(inputs=torch.zeros(2, 64, dtype=torch.float64)), "inputs", "nn.Flatten"),
        (dict(model=nn.Conv2d(1, 1, 3), inputs=images(8)), "inputs", "dtype"),
        (dict(inputs="image"), "inputs", "called with"),
        (dict(generator=la.Generator("none", nothing)), "none", "act('input', x)"),
        (dict(generator=la.Generator("wide", lambda place, h: h[:1])), "wide at input", "return V h"),
        (dict(probes=2), "probes", "probes=64"),
        (dict(tol=0), "tol", "tol=0.25"),
        (dict(seed=0.5), "seed", "seed=0"),
        (dict(steps=(0.0,)), "steps", "steps="),
        (dict(batch_stats="batch"), "batch_stats", "see each other"),
        (dict(model=nn.Sequential(nn.Dropout(0.5))), "0 (Dropout)", "model.eval()"),
        (dict(inputs=torch.zeros(2, 8, 8, dtype=torch.float64)), "inputs", "channel axis"),
        (dict(model=nn.MaxPool2d(2, return_indices=True)), "output", "Wrap the model"),
    ],
)
def test_errors_name_the_culprit_and_the_remedy(change: dict[str, Any], name: str, remedy: str) -> None:
    given = {"model": nn.Tanh(), "inputs": images(8), "generator": "rotation", **change}
    with pytest.raises(LemmataError) as error:
        la.lie_derivative(**given)
    assert error.value.name == name and remedy in str(error.value)


def test_errors_of_generators() -> None:
    for name, culprit, call in [
        ("torus", "boundary", lambda: la.image_generator("scale", (8, 8), boundary="mirror")),
        ("tokens", "acts['a']", lambda: la.image_generator("scale", (8, 8), acts={"a": "image tokens"})),
        ("step", "step", lambda: la.lie_difference(nn.Tanh(), images(8), "scale", 0.0)),
        ("fewer", "scale at input", lambda: la.lie_difference(nn.Tanh(), images(8), "scale", 50.0)),
    ]:
        with pytest.raises(LemmataError) as error:
            call()
        assert error.value.name == culprit and name in str(error.value)
    given = la.image_generator("scale", (8, 8), acts={"output": "unknown"})
    with pytest.raises(LemmataError, match="an action on the output.*act\\('output', y\\)"):
        la.lie_derivative(nn.Tanh(), images(8), given)
