"""Gradient health of unusual models: each gets the right numbers, by hand or from the same function written otherwise, or a typed error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import lemmata.analysis as la
from lemmata.analysis.errors import LossError, ModelStateError, NumericsError, ParameterError
from lemmata.analysis.gradient_flow import GradientHealth, LayerHealth

X, Y = (torch.randn(20, n, generator=torch.Generator().manual_seed(n)) for n in (5, 1))


class Model(nn.Module):
    """Parts by name, and a forward pass of the test's own."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


def weights(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def linear(n: int, m: int, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(n, m)
    layer.weight.data, layer.bias.data = weights(m, n, seed=seed).data, weights(m, seed=seed + 1).data
    return layer


def health(model: nn.Module, loss: Any = None, data: Any = None, **options: Any) -> GradientHealth:
    found = la.gradient_health(model, loss or nn.MSELoss(), data or (X, Y), groups=5, **options)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not _get_current_function_mode_stack() and all(p.grad is None for p in model.parameters())
    return found


def moments(layer: LayerHealth) -> tuple[float, float]:
    assert layer.signal is not None and layer.gradient is not None
    return layer.signal.value, layer.gradient.value


def close(found: tuple[float, float], truth: tuple[float, float]) -> bool:
    return found == pytest.approx(truth, rel=1e-4)


def test_a_module_with_parameters_only_and_numbered_layers() -> None:
    V, W = weights(5, 6), weights(6, 1, seed=2)
    bare = health(Model(lambda self, x: (x @ self.V).relu() @ self.W, V=V, W=W))
    assert [layer.name for layer in bare.layers] == ["model: relu 1", "model"]
    numbered = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 1, bias=False))
    numbered[0].weight.data, numbered[2].weight.data = V.data.T.contiguous(), W.data.T.contiguous()
    found = health(numbered)
    assert [layer.name for layer in found.layers] == ["0", "1", "2"]
    hidden = (X @ V.detach()).relu()
    slope = 2 * (hidden @ W.detach() - Y)  # of one example's loss
    by_hand = float(hidden.square().mean()), float((slope @ W.detach().T).square().sum(1).mean())
    assert close(moments(bare["model: relu 1"]), by_hand) and close(moments(found["1"]), by_hand)
    assert not close(moments(found["0"]), by_hand)
    norms = {p.name: p.gradient.value for p in bare.parameters if p.gradient is not None}
    assert norms["W"] == pytest.approx(float((hidden.T @ slope / 20).norm()), rel=1e-4)


def test_lazy_layers_are_named_until_they_have_a_shape() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.ReLU(), nn.LazyLinear(1)))
    with pytest.raises(ModelStateError, match="Run the model once") as caught:
        health(net)
    assert caught.value.name == "1.1 (LazyLinear)"
    net(X)
    shaped = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 1)))
    shaped.load_state_dict(net.state_dict())
    assert moments(health(net)["1.1"]) == moments(health(shaped)["1.1"])


def test_outputs_that_are_tuples_and_mappings() -> None:
    pair = Model(lambda self, x: (self.a(x), {"loss on this": self.b(x), "count": 3}), a=linear(5, 2), b=linear(5, 1))
    read = lambda output, target: F.mse_loss(output[1]["loss on this"], target)  # noqa: E731
    found = health(Model(lambda self, x: self.inner(x), inner=pair), read, reduction="mean")
    plain = health(nn.Sequential(linear(5, 1)))
    assert moments(found["inner.b"]) == moments(plain["0"])
    assert found["inner.a"].verdict == "unused" and found["inner.b"].verdict == "healthy"
    whole = found["inner"].gradient  # all that comes back through the tuple
    assert whole is not None and whole.value == pytest.approx(moments(plain["0"])[1])


def test_a_module_called_twice_has_two_rows_and_one_gradient() -> None:
    shared = Model(lambda self, x: self.out(self.fc(self.fc(x).tanh()).tanh()), fc=linear(5, 5), out=linear(5, 1, 7))
    apart = Model(
        lambda self, x: self.out(self.two(self.fc(x).tanh()).tanh()),
        fc=linear(5, 5),
        two=linear(5, 5),
        out=linear(5, 1, 7),
    )
    found, truth = health(shared), health(apart)
    assert moments(found["fc"]) == moments(truth["fc"]) and moments(found["fc (call 2)"]) == moments(truth["two"])
    assert [p.name for p in found.parameters] == ["fc.weight", "fc.bias", "out.weight", "out.bias"]
    step, slopes = 1e-3, []
    for sign in (1, -1):
        moved = copy.deepcopy(shared)
        moved.fc.bias.data[0] += sign * step
        slopes.append(F.mse_loss(moved(X), Y).item() / (2 * step) * sign)
    gradient = la.Hessian(shared, nn.MSELoss(), (X, Y), params="fc.bias").gradient
    assert float(gradient[0]) == pytest.approx(sum(slopes), rel=1e-2)  # both calls are in it
    norms = {p.name: p.gradient.value for p in found.parameters if p.gradient is not None}
    assert norms["fc.bias"] == pytest.approx(float(gradient.norm()), rel=1e-4)


@pytest.mark.parametrize("unit", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Hardtanh])
def test_activations_in_place_are_seen_as_those_that_are_not(unit: Any) -> None:
    nets = [nn.Sequential(linear(5, 6), unit(inplace=flag), linear(6, 1, 3)) for flag in (True, False)]
    found, truth = (health(net) for net in nets)
    assert [layer.name for layer in found.layers] == ["0", "1", "2"]
    assert all(moments(a) == pytest.approx(moments(b)) for a, b in zip(found.layers, truth.layers, strict=True))
    assert [a.verdict for a in found.layers] == [b.verdict for b in truth.layers]
    assert found["0"].signal != found["1"].signal
    function = Model(lambda self, x: self.b(F.relu_(self.a(x))), a=linear(5, 6), b=linear(6, 1, 3))
    if unit is nn.ReLU:
        assert moments(health(function)["relu after a"]) == moments(truth["1"])


def test_integer_inputs() -> None:
    tokens = torch.randint(7, (20, 3), generator=torch.Generator().manual_seed(0))
    embed, out = weights(7, 4), linear(12, 1)
    net = Model(lambda self, t: self.out(self.embed(t).flatten(1)), embed=nn.Embedding(7, 4), out=out)
    net.embed.weight.data = embed.data
    found = health(net, data=(tokens, Y))
    matrix = Model(lambda self, x: self.out((x @ self.E).flatten(1)), E=embed, out=out)
    truth = health(matrix, data=(F.one_hot(tokens, 7).float(), Y))
    assert moments(found["out"]) == pytest.approx(moments(truth["out"]))
    norms = [{p.name: p.gradient.value for p in one.parameters if p.gradient is not None} for one in (found, truth)]
    assert norms[0]["embed.weight"] == pytest.approx(norms[1]["E"], rel=1e-5)
    labels = torch.randint(3, (20,), generator=torch.Generator().manual_seed(0))
    counts = Model(lambda self, x: self.fc(x.float()), fc=linear(3, 3))
    assert health(counts, nn.CrossEntropyLoss(), (tokens, labels))["fc"].verdict == "healthy"


def test_frozen_parameters_let_gradients_through() -> None:
    nets = [nn.Sequential(linear(5, 6), nn.Tanh(), linear(6, 6, 3), nn.Tanh(), linear(6, 1, 5)) for _ in range(2)]
    nets[0][2].requires_grad_(False)
    nets[0][0].weight.requires_grad_(False)
    found, truth = (health(net) for net in nets)
    assert all(moments(a) == pytest.approx(moments(b)) for a, b in zip(found.layers, truth.layers, strict=True))
    assert [p.name for p in found.parameters if p.gradient is None] == ["0.weight", "2.weight", "2.bias"]
    assert not nets[0][2].weight.requires_grad
    nets[0].requires_grad_(False)
    with pytest.raises(ParameterError, match="requires_grad=False") as caught:
        health(nets[0])
    assert "params" in caught.value.name


def first(x: Tensor) -> Tensor:
    """nan where x is negative."""
    return x.sqrt()


@pytest.mark.parametrize("place", ["module", "function", "second output", "inside", "mapping"])
def test_the_first_layer_that_makes_nan_is_named(place: str) -> None:
    wrong = {
        "module": Model(lambda self, x: first(x)),
        "second output": Model(lambda self, x: (x, first(x))),
        "mapping": Model(lambda self, x: {"kept": x, "lost": first(x)}),
        "inside": nn.Sequential(linear(5, 5, 2), Model(lambda self, x: first(x)), nn.Tanh()),
        "function": nn.Tanh(),
    }[place]

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.wrong(self.a(x))
        h = h[1] if isinstance(h, tuple) else h["lost"] if isinstance(h, dict) else h
        return self.c(self.b(first(h) if place == "function" else h))

    net = Model(forward, a=linear(5, 5), wrong=wrong, b=nn.Tanh(), c=linear(5, 1, 4))
    with pytest.raises(NumericsError, match="look at") as caught:
        health(net)
    names = {"inside": "wrong.1 (Model)", "function": "what the model makes of the output of wrong"}
    assert caught.value.name == names.get(place, "wrong (Model)")


def test_infinities_in_a_second_output_are_allowed() -> None:
    """A mask is made of them."""
    masked = Model(lambda self, x: (x, torch.full_like(x, -torch.inf)))
    net = Model(lambda self, x: self.out(self.masked(self.a(x))[0]), a=linear(5, 5), masked=masked, out=linear(5, 1, 3))
    assert health(net)["out"].verdict == "healthy"


class Own(Exception):
    """An error of the user's code."""


@pytest.mark.parametrize("place", ["layer", "loss", "first call only"])
def test_hooks_are_removed_after_an_error_of_the_users_own(place: str) -> None:
    calls = []

    def fails(self: Any, x: Tensor) -> Tensor:
        calls.append(1)
        if place == "layer" or (place == "first call only" and len(calls) == 1):
            raise Own
        return x

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if place == "loss":
            raise Own
        return F.mse_loss(output, target)

    net = nn.Sequential(linear(5, 5), Model(fails), nn.ReLU(), linear(5, 1, 3))
    state, before = torch.get_rng_state(), copy.deepcopy(net.state_dict())
    with pytest.raises(Own):
        la.gradient_health(net, loss, (X, Y), reduction="mean")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not _get_current_function_mode_stack() and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
    assert all(p.grad is None and not p._backward_hooks for p in net.parameters())
    place = "over"
    assert health(net, loss, reduction="mean")["3"].verdict == "healthy"  # nothing is left behind


def test_what_has_no_gradient_at_all_is_said() -> None:
    with pytest.raises(LossError, match="detach"):
        health(Model(lambda self, x: self.a(x).detach(), a=linear(5, 1)))
    with pytest.raises(ParameterError, match="params|parameter"):
        health(Model(lambda self, x: x[:, :1]))
