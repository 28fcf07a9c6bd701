r"""What normalisation does to weights and to gradients.

A layer that normalises its input does not see the size of that input. Weights before a batch normalisation have no
effect through their length, so the gradient is orthogonal to them, and each step of gradient descent makes them longer
@vanlaarhoven2017l2 @arora2019theoretical. Backwards, layer normalisation removes two directions from a gradient and
divides the rest by the standard deviation of its input @xu2019understanding. And batch normalisation before rectifiers
makes gradients explode with depth, whatever the weights @yang2019mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn.functional import cross_entropy

from lemmata.architectures import MLP, BatchNorm, LayerNorm, ResNet
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import descent, flat_parameters, layout_of, objective

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
IMAGES = 32


def residual(seed: int, blocks: int, eps: float = 0.0) -> ResNet:
    """A residual network for digits, every convolution of it followed by a batch normalisation."""
    model = ResNet([1, 4, 8], 10, blocks=blocks, generator=torch.Generator().manual_seed(seed))
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.eps = eps
    return model


def channels(model: nn.Module, flat: Tensor, layers: str = "conv") -> list[Tensor]:
    """The weights of the convolutions, or of the read-out, a row for each output."""
    named = layout_of(model).split(flat)
    return [value.flatten(1) for name, value in named.items() if layers in name and name.endswith("weight")]


@claim(
    source=("vanlaarhoven2017l2", "arora2019theoretical"),
    predicts=AtMost(1e-11),
    quick=Grid(blocks=[1], seeds=5),
    full=Grid(blocks=[1, 3], seeds=20),
    controls={
        "a normalisation behind: the read-out": dict(layers="readout"),
        "exact division by the variance: the usual ε = 10⁻⁵": dict(eps=1e-5),
    },
)
def batchnorm_scale_invariance(blocks: int, seed: int, layers: str = "conv", eps: float = 0.0) -> float:
    r"""The gradient is orthogonal to weights before a batch normalisation, and inversely proportional to their size.

    Batch normalisation undoes any change of scale, so $L(c w) = L(w)$ for the weights $w$ of each channel and $c > 0$.
    Differentiated by $c$ and by $w$, this is $chevron.l w, nabla L (w) chevron.r = 0$ and $nabla L (c w) = nabla L (w)
    \/ c$ @vanlaarhoven2017l2 @arora2019theoretical. Every channel of every convolution of a residual network is scaled
    by a factor of its own between a half and two. The value is the largest cosine of weights and gradient, or the
    largest relative deviation from the second identity if that is larger.

    Controls: nothing undoes the scale of the read-out. With $epsilon > 0$ added to the variance the scale is undone in
    part.
    """
    draws = torch.Generator().manual_seed(seed)
    model = residual(seed, blocks, eps)
    loss = objective(model, cross_entropy, *digits(IMAGES, images=True))
    weights, gradients = (
        channels(model, flat, layers) for flat in (flat_parameters(model), loss(flat_parameters(model))[1])
    )
    factors = [2 ** gaussian(draws, len(w), 1).clamp(-1, 1) for w in weights]
    parameters = [p for name, p in model.named_parameters() if layers in name and name.endswith("weight")]
    with torch.no_grad():
        for parameter, factor in zip(parameters, factors, strict=True):
            parameter.mul_(factor.view(-1, *[1] * (parameter.dim() - 1)))
    scaled = channels(model, loss(flat_parameters(model))[1], layers)
    found = []
    for w, g, c, after in zip(weights, gradients, factors, scaled, strict=True):
        cosine = (w * g).sum(1).abs() / (w.norm(dim=1) * g.norm(dim=1))
        found.append(torch.maximum(cosine, (c * after - g).norm(dim=1) / g.norm(dim=1)).max())
    return float(torch.stack(found).max())


def draw_growth(ax: Any, rows: Rows) -> Columns:
    """Squared norm of the convolutions' weights, measured and from the lengths of the steps.

    Over the steps, relative to the start, logarithmic. Without momentum and decay the crosses lie on the rising line;
    with momentum they lie above theirs, with decay far below.
    """
    chosen = [row for row in rows if row.k == 0]
    columns: dict[str, Any] = {"step": np.arange(len(chosen[0].values["square"]))}
    for place, row in enumerate(chosen):
        name = row.arm.partition(": ")[2] or "gradient descent"
        columns |= {f"{name}, measured": row.values["square"], f"{name}, from the steps": row.values["sum"]}
        ax.semilogy(columns["step"][::5], row.values["square"][::5], "x", color=f"C{place}", label=f"{name}, measured")
        ax.plot(columns["step"], row.values["sum"], color=f"C{place}", label=f"{name}, from the steps")
    ax.set(xlabel="step", ylabel="squared norm ÷ that at the start")
    ax.legend(fontsize=7)
    return columns


@claim(
    source=("vanlaarhoven2017l2", "arora2019theoretical"),
    predicts=AtMost(1e-9),
    quick=Grid(steps=[60], eta=[0.5], seeds=3),
    full=Grid(steps=[1000], eta=[0.1, 0.5], seeds=10),
    controls={
        "steps along the gradient: momentum": dict(momentum=0.9),
        "the loss alone: weight decay": dict(decay=0.05),
    },
    figures=(draw_growth,),
)
def batchnorm_scale_invariance_growth(
    steps: int, eta: float, seed: int, momentum: float = 0.0, decay: float = 0.0
) -> dict[str, Any]:
    r"""Weights before a batch normalisation grow by Pythagoras' theorem.

    The gradient is orthogonal to the weights, so that a step of stochastic gradient descent makes $norm(w_(t+1))^2 =
    norm(w_t)^2 + eta^2 norm(g_t)^2$: squared lengths of the steps add up, and the norm can only grow
    @vanlaarhoven2017l2 @arora2019theoretical. A residual network is trained by steps on random batches of digits. The
    value is the largest deviation over its channels, relative to the sum of the squared steps. With momentum a step is
    not orthogonal to the weights any more; weight decay pulls along them.
    """
    draws = torch.Generator().manual_seed(seed)
    model, (x, labels) = residual(seed, 1), digits(400, images=True)

    def batch(flat: Tensor) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(x), generator=draws, device="cpu")[:IMAGES].to(x.device)
        value, gradient = objective(model, cross_entropy, x[chosen], labels[chosen])(flat)
        return value, gradient + decay * flat

    path = islice(descent(batch, flat_parameters(model), eta, momentum), steps + 1)
    rows = torch.stack([torch.cat([w.flatten() for w in channels(model, flat)]) for flat, _ in path])
    sizes = [w.shape[1] for w in channels(model, flat_parameters(model)) for _ in w]
    square = torch.stack([w.square().sum(1) for w in rows.split(sizes, 1)])  # (channels steps)
    moved = torch.stack([w.diff(dim=0).square().sum(1) for w in rows.split(sizes, 1)]).cumsum(1)
    off = (square[:, -1] - square[:, 0] - moved[:, -1]).abs() / moved[:, -1]
    whole = square.sum(0)
    summed = torch.cat([whole[:1], whole[0] + moved.sum(0)])
    return {"value": float(off.max()), "square": whole / whole[0], "sum": summed / whole[0]}


NORMS = ["LayerNorm", "RMSNorm"]


def normaliser(norm: str, width: int, eps: float) -> nn.Module:
    """Layer normalisation, or root-mean-square normalisation, which does not subtract the mean."""
    return LayerNorm(width, eps=eps) if norm == "LayerNorm" else nn.RMSNorm(width, eps=eps)


@claim(
    source=("xu2019understanding", "zhang2019root"),
    predicts=AtMost(1e-12),
    quick=Grid(norm=NORMS, width=[10, 64], scale=[0.01, 10.0], seeds=5),
    full=Grid(norm=NORMS, width=[10, 64, 512], scale=[0.01, 10.0], seeds=20),
    controls={
        "exact division by the variance: the usual ε = 10⁻⁵": dict(eps=1e-5),
        "equal gains: random ones": dict(gains=True),
    },
)
def layernorm_jacobian(
    norm: str, width: int, scale: float, seed: int, eps: float = 0.0, gains: bool = False
) -> dict[str, Any]:
    r"""Layer normalisation passes all directions but two, divided by the standard deviation.

    Without $epsilon$ and gains, the Jacobian of layer normalisation is $1\/sigma (I - 1 1^top \/ d - hat(x) hat(x)^top
    \/ d)$, with $hat(x)$ its output and $sigma$ the standard deviation of its input @xu2019understanding: $d - 2$
    singular values are $1\/sigma$, two are zero, along the constant vector and along $hat(x)$. Root-mean-square
    normalisation @zhang2019root has $1\/r (I - hat(x) hat(x)^top \/ d)$, with $r$ the root mean square: $d - 1$ and
    one. The value is the largest deviation of a singular value, in units of $1\/sigma$.

    Controls: an $epsilon$ that is not small beside the variance of small inputs makes the singular values smaller, and
    passes some of $hat(x)$; gains spread them.
    """
    draws = torch.Generator().manual_seed(seed)
    layer, x = normaliser(norm, width, eps), scale * gaussian(draws, width)
    if gains:
        with torch.no_grad():
            next(iter(layer.parameters())).copy_(1 + 0.5 * gaussian(draws, width))
    found = torch.linalg.svdvals(jacrev(layer)(x)).detach()
    size = x.std(correction=0) if norm == "LayerNorm" else x.square().mean().sqrt()
    truth = torch.ones(width, dtype=x.dtype, device=x.device)
    truth[-2 if norm == "LayerNorm" else -1 :] = 0.0
    return {"value": float((found * size - truth).abs().max()), "singular": found * size}


def over_batch(z: Tensor) -> Tensor:
    """Batch normalisation of (b, n) without parameters and without ε."""
    z = z - z.mean(0)
    return z / z.square().mean(0).sqrt()


UNITS = {"rectifier": torch.relu, "linear": lambda z: z}


def backwards(net: MLP, x: Tensor, draws: torch.Generator) -> Tensor:
    """Squared gradients by the pre-activations of each layer, (layers,), of a random linear function of the outputs."""
    z = net.preactivations(x)
    gradients = torch.autograd.grad((z[-1] * gaussian(draws, *z[-1].shape).to(x)).sum(), z)
    return torch.stack([gradient.double().square().sum() for gradient in gradients])


def draw_explosion(ax: Any, rows: Rows) -> Columns:
    """Squared gradients grow from layer to layer backwards where a batch normalisation stands before a rectifier.

    Over those at the last layer, on a logarithmic axis, against the layer. Dots lie along a straight line that falls
    from the first layer to the last; without normalisation, or with linear units, the curve is almost level.
    """
    chosen = [row for row in rows if row.k == 0 and row.point == rows[0].point]
    depth = len(chosen[0].values["gradients"])
    columns: dict[str, Any] = {"layer": np.arange(1, depth + 1)}
    for row in chosen:
        name = row.arm or "batch normalisation, rectifiers"
        columns[name] = row.values["gradients"] / row.values["gradients"][-1]
        ax.semilogy(columns["layer"], columns[name], ".-" if row.arm else "o", label=name)
    columns["theory"] = (np.pi / (np.pi - 1)) ** (depth - columns["layer"])
    ax.semilogy(columns["layer"], columns["theory"], color="C0", linewidth=1, label="$(\\pi/(\\pi-1))^{L-l}$")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="layer l", ylabel="squared gradient ÷ that at the last layer")
    ax.legend()
    return columns


@claim(
    source="yang2019mean",
    predicts=Equals("pi/(pi - 1)", within=0.02),
    quick=Grid(width=[1000], depth=[20], batch=[64], seeds=5),
    full=Grid(width=[1000, 2000], depth=[20], batch=[64, 128], seeds=20),
    controls={
        "rectifiers: linear units": dict(units="linear"),
        "batch normalisation: none": dict(normalised=False),
    },
    figures=(draw_explosion,),
)
def batchnorm_gradient_explosion(
    width: int, depth: int, batch: int, seed: int, units: str = "rectifier", normalised: bool = True
) -> dict[str, Any]:
    r"""With batch normalisation before rectifiers, squared gradients grow by π/(π − 1) a layer.

    Let $z_(l+1) = W_(l+1) (B z_l)_+$ with $B$ batch normalisation and random $W_l$. Half of the units pass the
    gradient on, and $B$ divides it by the standard deviation over the batch. A rectified standard normal has the mean
    square $1\/2$ but only the variance $1\/2 - 1\/(2 pi)$, so that in wide networks and large batches
    $ (EE norm(delta_l)^2) / (EE norm(delta_(l+1))^2) -> (1\/2) / (1\/2 - 1\/(2 pi)) = pi / (pi - 1) = 1.4669..., $
    and no variance of the weights changes it, for $B$ takes it out @yang2019mean. The value is the mean factor over
    all layers but the first four and the last two. It is measured with batches of $b$ and of $4 b$ and extrapolated to
    infinite ones, deviations being inversely proportional to $b$; one of the order of the inverse width is left.
    Controls: linear units; no normalisation, with weights that keep the mean square.
    """
    draws, phi = torch.Generator().manual_seed(seed), UNITS[units]
    # Gradients differ between networks by far more than the rounding of single precision.
    net = MLP(
        [width] * (depth + 1),
        lambda z: phi(over_batch(z) if normalised else z),
        "he" if units == "rectifier" else "lecun",
        bias=False,
        dtype=torch.float32,
        generator=draws,
    )
    found = [backwards(net, gaussian(draws, size, width).float(), draws) for size in (batch, 4 * batch)]
    factors = [float((squares[4] / squares[-3]) ** (1 / (depth - 7))) for squares in found]
    return {"value": (4 * factors[1] - factors[0]) / 3, "small": factors[0], "large": factors[1], "gradients": found[1]}


if __name__ == "__main__":
    script(__file__)
