"""Random networks, thousands of small ones at a time, drawn from the same layers whose limit is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu

from lemmata.analysis import infinite_width as iw
from lemmata.studies.data import gaussian

ANGLES = np.array([0.0, 0.3, 0.7])  # of the inputs on a circle, over π
RELU, TANH, GELU = iw.Activation(torch.relu), iw.Activation(torch.tanh, ()), iw.Activation(gelu, ())
CIRCULAR = (iw.Conv(3, 2.0, 0.1), RELU, iw.Conv(3, 2.0, 0.1), RELU)
ZEROS = (iw.Conv(3, 2.0, 0.1, "zeros"), RELU, iw.Conv(3, 2.0, 0.1, "zeros"), RELU)
#: The bodies of networks; a read-out Dense(1) follows.
BODIES: dict[str, iw.Serial] = {
    "dense": iw.Serial(iw.Dense(2.0), RELU, iw.Dense(2.0), RELU),
    "residual, normalised": iw.Serial(
        iw.Dense(1.0, 0.1), iw.Residual(iw.Serial(iw.LayerNorm(), GELU, iw.Dense(1.0, 0.1))), TANH
    ),
    "convolutions, pooled": iw.Serial(*ZEROS, iw.GlobalAveragePool()),
}

READOUTS = {"flatten": iw.Serial(*CIRCULAR, iw.Flatten()), "pool": iw.Serial(*CIRCULAR, iw.GlobalAveragePool())}


def inputs(name: str) -> Tensor:
    """Points of a circle, or two sequences of two features at five positions."""
    if name.startswith("convolutions"):
        return gaussian(torch.Generator().manual_seed(0), 2, 2, 5)
    turns = torch.as_tensor(ANGLES * np.pi, device=torch.get_default_device())
    return sqrt(2) * torch.stack([turns.cos(), turns.sin()], 1)


def exchanged(layer: iw.Layer) -> iw.Layer:
    """The same layers with the absolute value for every activation."""
    if isinstance(layer, iw.Serial):
        return iw.Serial(*(exchanged(one) for one in layer.layers))
    if isinstance(layer, iw.Residual):
        return iw.Residual(exchanged(layer.branch), layer.shortcut)
    return iw.Activation(torch.abs) if isinstance(layer, iw.Activation) else layer


def shifts() -> Tensor:
    """A sequence of two features at five positions, and all its shifts around the circle."""
    x = gaussian(torch.Generator().manual_seed(0), 1, 2, 5)
    return torch.cat([x.roll(shift, 2) for shift in range(5)])


@cache
def limit(name: str, other: bool, device: str) -> iw.Kernel:
    """The kernels of a network on its inputs."""
    body = exchanged(BODIES[name]) if other else BODIES[name]
    return iw.Serial(body, iw.Dense(1.0))(inputs(name))


@dataclass
class Sample:
    """Random networks of one width, drawn layer by layer as signals pass: (nets, inputs, *positions, features).

    In the tangent parametrisation parameters are standard normal and their scale is in the forward pass; in the
    standard one the scale is in the parameters; ``"default"`` draws them as PyTorch's layers do.
    """

    nets: int
    width: int
    draws: torch.Generator
    scheme: str = "tangent"
    shared: bool = True
    parameters: list[Tensor] = field(default_factory=list)

    def run(self, layer: iw.Layer, x: Tensor) -> Tensor:
        """The signal after a layer."""
        match layer:
            case iw.Serial():
                for one in layer.layers:
                    x = self.run(one, x)
                return x
            case iw.Residual():
                return self.run(layer.shortcut, x) + self.run(layer.branch, x)
            case iw.Activation():
                return layer.activation(x)
            case iw.LayerNorm():
                centred = x - x.mean(-1, keepdim=True)
                return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
            case iw.Flatten():
                return x.flatten(2)
            case iw.GlobalAveragePool():
                return x.mean(2)
            case iw.Dense():
                return self.weighted(x, self.width, layer.weight_variance, layer.bias_variance)
            case iw.Conv():
                ends = (x[:, :, -1:], x[:, :, :1]) if layer.padding == "circular" else (0 * x[:, :, :1],) * 2
                padded = torch.cat([ends[0], x, ends[1]], 2)  # all sizes here are 3
                patches = padded.unfold(2, layer.size, layer.stride).flatten(3)
                return self.weighted(patches, self.width, layer.weight_variance, layer.bias_variance)
        raise TypeError(f"no way to draw {layer!r}")

    def weighted(self, x: Tensor, outputs: int, w: float, b: float) -> Tensor:
        """A layer of weights: one matrix for all positions, or one for each if they are not shared."""
        places = () if self.shared or x.ndim == 3 else (x.shape[2],)
        fan = x.shape[-1]
        matrix = self.parameter((*places, outputs, fan), sqrt(w / fan), fan)
        shift = self.parameter((*places, outputs), sqrt(b), fan)
        if places:
            return torch.einsum("mnpi,mpoi->mnpo", x, matrix) + shift[:, None]
        shift = shift.reshape(self.nets, *(1,) * (x.ndim - 2), outputs)
        return (x.flatten(1, -2) @ matrix.mT).reshape(*x.shape[:-1], outputs) + shift

    def parameter(self, shape: tuple[int, ...], scale: float, fan: int) -> Tensor:
        """A new parameter of every network, and what of it enters the forward pass."""
        drawn = gaussian(self.draws, self.nets, *shape)
        if self.scheme == "default":
            drawn = (torch.special.ndtr(drawn) * 2 - 1) / sqrt(fan)
        elif self.scheme == "standard":
            drawn = drawn * scale
        self.parameters.append(drawn.requires_grad_())
        return drawn * scale if self.scheme == "tangent" else drawn


def covariances(features: Tensor) -> Tensor:
    """The covariance of outputs given the last features, for each network: the mean over read-outs of variance 1."""
    return features @ features.mT / features.shape[-1]


def tangent_kernels(outputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The tangent kernel of each of many networks that share nothing, (nets, inputs, inputs); outputs (nets, inputs)."""
    total = torch.zeros(*outputs.shape, outputs.shape[1])
    slopes = [torch.autograd.grad(column.sum(), parameters, retain_graph=True) for column in outputs.T]
    for pieces in zip(*slopes, strict=True):
        rows = torch.stack([piece.flatten(1) for piece in pieces], 1)
        total += rows @ rows.mT
    return total


def empirical(kernel: str, name: str, sample: Sample) -> Tensor:
    """One of the two kernels of each network."""
    x = inputs(name)
    start = x.movedim(1, -1).expand(sample.nets, *x.movedim(1, -1).shape)
    if kernel == "nngp":
        with torch.no_grad():
            features = sample.run(BODIES[name], start)
        return covariances(features) * (1 / 3 if sample.scheme == "default" else 1)
    outputs = sample.weighted(sample.run(BODIES[name], start), 1, 1.0, 0.0)[..., 0]
    return tangent_kernels(outputs, sample.parameters)


def corrections(
    correlation: float, width: int, nets: int, draws: torch.Generator
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    r"""Both kernels of ReLU networks of two hidden layers, for two inputs, averaged over all weights but the first layer's.

    For each network: the kernel minus the limit, and its part that is linear in the averages of the first layer, of mean
    zero; and the limit. Given the first layer's features $h, h'$ of angle $theta$, the second layer's weights enter by
    $EE phi(u) phi(v)$ and $EE phi'(u) phi'(v)$, and by $EE phi'(u) phi'(v) w_j^2$: a Gaussian average over a sector of the plane
    of $h$ and $h'$, larger along their bisector and smaller across it by $sin theta \/ 2 pi$.
    """
    first, second = gaussian(draws, 2, nets, width) * sqrt(2)
    second = correlation * first + sqrt(1 - correlation**2) * second
    a, b = first.relu(), second.relu()
    both = (first > 0) & (second > 0)
    found = torch.stack([2 * (a * a).mean(1), 2 * (b * b).mean(1), 2 * (a * b).mean(1), both.to(a).mean(1)])
    two, dual = torch.tensor(2.0), RELU.dual

    def nngp(k: Tensor) -> Tensor:
        return dual.value(k[0], k[1], k[2])

    def ntk(k: Tensor) -> Tensor:
        return nngp(k) + dual.slope(k[0], k[1], k[2]) * (k[2] + 4 * correlation * k[3])

    known = (two, two, 2 * dual.value(two, two, correlation * two), dual.slope(two, two, correlation * two))
    truth = torch.stack(known).requires_grad_()
    a, b = (one / one.norm(dim=1, keepdim=True).clamp(min=1e-300) for one in (a, b))
    rho = (a * b).sum(1, keepdim=True).clamp(0, 1 - 1e-15)
    uneven = (a + b).square() / (2 + 2 * rho) - (a - b).square() / (2 - 2 * rho)
    sector = (1 - rho[:, 0] ** 2).sqrt() / (2 * torch.pi) * 4 * correlation * (both * uneven).mean(1)
    results = {}
    for name, f, more in (("nngp", nngp, torch.zeros_like(sector)), ("ntk", ntk, sector)):
        limiting = f(truth)
        (slope,) = torch.autograd.grad(limiting, truth)
        linear = slope @ (found - truth.detach()[:, None])
        results[name] = (f(found) + more - limiting).detach(), linear, limiting.detach()
    return results
