r"""Networks of infinite width.

As its layers widen, a random network becomes a Gaussian process whose covariance $K$ is known in closed form or by Gaussian
averages @neal1996priors @lee2018deep @matthews2018gaussian, and its gradients' inner products become a fixed tangent kernel $Theta$
@jacot2018ntk, for dense, convolutional, residual and normalised layers alike @arora2019exact @yang2019wide. The limits are computed
here from a description of the layers, and random networks are drawn from the same description, thousands of small ones
at a time. What is left of a convolution's shared weights, and of training, in the limit is measured too.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from lemmata.analysis import infinite_width as iw
from lemmata.studies.claim import Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow.wide_figures import POOLED, draw_angles, draw_convergence, draw_shifts
from lemmata.studies.gradient_flow.wide_networks import (
    BODIES,
    READOUTS,
    Sample,
    corrections,
    covariances,
    empirical,
    limit,
    shifts,
)


def error(kernel: str, name: str, width: int, units: int, seed: int, scheme: str, other: bool) -> dict[str, Any]:
    """The mean squared relative distance of networks' kernels from the limit."""
    sample = Sample(units // width, width, torch.Generator().manual_seed(seed), scheme)
    found = empirical(kernel, name, sample).detach()
    known = limit(name, other, str(torch.get_default_device()))
    truth = known.nngp if kernel == "nngp" else known.ntk
    gaps = (found - truth).square().sum((1, 2)) / truth.square().sum()
    return {"value": float(gaps.mean()), "row": found.mean(0)[0]}


NETWORKS = list(BODIES)
#: The error falls like the root of the width, within 0.15 of the exponent; its square is what is averaged.
RATE = Scales("width", power=-1, within=0.3)
FULL = Grid(name=NETWORKS, width=[32, 64, 128, 256, 512], units=[8192], seeds=20)
OWN = {"the network's own activations: the limit of the absolute value": dict(other=True)}


@claim(
    source=("lee2018deep", "matthews2018gaussian", "yang2019wide"),
    predicts=RATE,
    quick=Grid(name=NETWORKS, width=[16, 32, 64, 128], units=[1792], seeds=22),
    full=FULL,
    controls=OWN | {"weights of the given variances: PyTorch's default": dict(scheme="default")},
    figures=(draw_convergence,),
)
def nngp_limit(
    name: str, width: int, units: int, seed: int, scheme: str = "tangent", other: bool = False
) -> dict[str, Any]:
    r"""The covariance of a random network's outputs approaches a closed form as its layers widen.

    Each layer of weights, of variance $sigma_w^2\/n$ and with biases of variance $sigma_b^2$, averages over the features before it, so
    that in the limit $ K' = sigma_w^2 EE phi(u) phi(v) + sigma_b^2 $ with $u, v$ normal of covariance $K$
    @lee2018deep @matthews2018gaussian: convolutions average over patches, residual branches add, normalisation divides
    @yang2019wide. At width $n$ the covariance, given all layers but the last, differs from this by $O(n^(-1\/2))$. The value is
    the mean squared distance over networks, relative to the norm of the limit: it falls like $1\/n$. There are as many networks
    as give the same number of units in a layer of all together. Controls: the limit of other activations; and networks
    drawn as PyTorch draws them, whose limit is another.
    """
    return error("nngp", name, width, units, seed, scheme, other)


@claim(
    source=("jacot2018ntk", "arora2019exact"),
    predicts=RATE,
    quick=Grid(name=NETWORKS, width=[16, 32, 64, 128], units=[1664], seeds=28),
    full=FULL,
    controls={"the tangent parametrisation: the standard one": dict(scheme="standard")},
    figures=(draw_angles, draw_convergence),
)
def ntk_limit(
    name: str, width: int, units: int, seed: int, scheme: str = "tangent", other: bool = False
) -> dict[str, Any]:
    r"""The tangent kernel of a random network approaches a closed form as its layers widen.

    With standard normal parameters $omega$, whose scale $sigma_w\/sqrt(n)$ is in the forward pass, the kernel
    $Theta = nabla f(x) dot nabla f(x')$ tends to $ Theta' = K' + sigma_w^2 Theta thin EE phi'(u) phi'(v) $
    layer by layer @jacot2018ntk, with the averages over patches and positions of a convolutional network
    @arora2019exact. The value is the mean squared relative distance of the kernels of networks of width $n$: it falls like
    $1\/n$. In the control the same networks have their scale in the parameters, as is the custom: gradients of all layers but the
    first are larger by $sqrt(n)$, and the kernel grows without a limit.
    """
    return error("ntk", name, width, units, seed, scheme, other)


@claim(
    source=("yaida2020nongaussian", "hanin2020finite"),
    predicts=Scales("width", power=-1, within=0.15),
    quick=Grid(kernel=["nngp", "ntk"], correlation=[-0.8, -0.5], width=[16, 32, 64, 128], units=[2**15], seeds=14),
    full=Grid(kernel=["nngp", "ntk"], correlation=[-0.8, -0.5], width=[16, 32, 64, 128, 256], units=[2**21], seeds=20),
    controls={"the mean over networks: the deviation of one": dict(single=True)},
)
def ntk_limit_mean(kernel: str, correlation: float, width: int, units: int, seed: int, single: bool = False) -> float:
    r"""The mean of finite networks' kernels is nearer to the limit than any one of them: of order 1/n, not 1/√n.

    The kernels of the first hidden layer, of width $n$, are the limit's on average. The second layer meets them through a curved
    function: given the first, its mean is $F(hat(K))$ with the limit's map $F$ and the first layer's $hat(K)$, whose variance is
    $O(1\/n)$, so that $ EE F(hat(K)) - F(K) = 1/2 tr (nabla^2 F thin "Cov" hat(K)) + O(n^(-2)), $ the first term of an expansion in
    $1\/n$ @yaida2020nongaussian. The tangent kernel has one more term of this order, since gradients meet the same weights as signals
    @hanin2020finite. The value, for ReLU networks of two hidden layers and two inputs of the given correlation, is the size of this
    relative to the limit. Averages over the second layer and the read-out are taken in closed form, and the part that is linear in
    the first layer's averages, of mean zero, is taken off. At obtuse angles both kernels are smaller than their limits; for the tangent
    kernel the sign changes near a right angle. The control is the root mean square of one network's deviation, which falls like
    $n^(-1\/2)$.
    """
    draws = torch.Generator().manual_seed(seed)
    deviation, linear, limiting = corrections(correlation, width, units // width, draws)[kernel]
    found = deviation.square().mean().sqrt() if single else (deviation - linear).mean().abs()
    return float(found / limiting)


@claim(
    source="novak2019bayesian",
    predicts=Equals(1, within=0.05),
    quick=Grid(shared=[True, False], width=[48], nets=[200], seeds=12),
    full=Grid(shared=[True, False], width=[512], nets=[20], seeds=20),
    controls={POOLED: dict(readout="pool")},
    figures=(draw_shifts,),
)
def pooling_keeps_shared_weights(
    shared: bool, width: int, nets: int, seed: int, readout: str = "flatten"
) -> dict[str, Any]:
    r"""In the limit of many channels, shared weights leave a trace only if positions are pooled.

    A convolution gives the signals at two positions a covariance, since both meet the same weights. A read-out with weights of its own for
    each position sees only that of each position with itself, and in the limit a network with another matrix at each
    position, which is not equivariant, is the same Gaussian process @novak2019bayesian. The mean over positions sees all pairs: with
    shared weights it cannot tell a sequence from its shift. The value is the projection of the mean covariance of networks, with
    shared weights or without, on the limit of the convolutional one, over a sequence and its shifts. In the control positions are pooled.
    """
    sample = Sample(nets, width, torch.Generator().manual_seed(seed), shared=shared)
    x = shifts()
    with torch.no_grad():
        features = sample.run(READOUTS[readout], x.mT.expand(nets, *x.mT.shape))
    found = covariances(features).mean(0)
    truth = iw.Serial(READOUTS[readout], iw.Dense(1.0))(x).nngp
    return {"value": float((found * truth).sum() / truth.square().sum()), "row": found[0]}


TURNS = (0.0, 0.5, 1.0, 1.5, 0.25, 0.7, 1.2)  # over π: four points to train on, three held out
LABELS = (1.0, -0.5, -1.0, 0.5)


@claim(
    source=("lee2019wide", "jacot2018ntk"),
    predicts=RATE,
    quick=Grid(width=[32, 64, 128, 256], units=[1024], steps=[50], seeds=25),
    full=Grid(width=[64, 128, 256, 512, 1024], units=[8192], steps=[100], seeds=20),
    controls={
        "the tangent kernel: the outputs' covariance": dict(kernel="nngp"),
        "training of all weights: of the read-out alone": dict(readout=True),
    },
)
def kernel_regression(
    width: int, units: int, steps: int, seed: int, kernel: str = "ntk", readout: bool = False
) -> dict[str, Any]:
    r"""A wide network trained to the end predicts, on average over its start, what regression with the tangent kernel does.

    If the kernel stays $Theta$, gradient descent on the squared error ends at $f(x) = f_0(x) + Theta(x, X) Theta(X, X)^(-1) (y - f_0(X))$, where
    $f_0$ is the random start, of mean zero @jacot2018ntk @lee2019wide. Here networks $sqrt(1\/n) sum_i a_i "erf"(w_i dot x + b_i)$ come
    in pairs that differ in the sign of $a$, so that $f_0$ drops out. The value is the squared distance of a pair's mean prediction
    at held-out points of a circle from the regression with the limit, relative: it falls like $1\/n$. Controls: the covariance
    $K$ in the place of $Theta$, with which training of the read-out alone would end; and training of the read-out alone.
    """
    draws, device = torch.Generator().manual_seed(seed), torch.get_default_device()
    turns, y = torch.pi * torch.tensor(TURNS, device=device), torch.tensor(LABELS, device=device)
    x = torch.stack([turns.cos(), turns.sin()], 1)
    infinite = iw.Serial(iw.Dense(8.0, 0.5), iw.Activation(torch.erf), iw.Dense(1.0))(x)
    table = infinite.ntk if kernel == "ntk" else infinite.nngp
    truth = table[4:, :4] @ torch.linalg.solve(table[:4, :4], y)
    one = [gaussian(draws, units // width, *shape) for shape in ((width, 2), (width, 1), (1, width))]
    w, b, a = (torch.cat([t, sign * t]).requires_grad_() for t, sign in zip(one, (1, 1, -1), strict=True))
    trained = (a,) if readout else (w, b, a)
    rate = 1 / float(torch.linalg.eigvalsh(infinite.ntk[:4, :4])[-1])

    def outputs(points: Tensor) -> Tensor:
        hidden = (sqrt(8 / 2) * w @ points.T + sqrt(0.5) * b).erf()
        return (a @ hidden)[:, 0] / sqrt(width)

    for _ in range(steps):
        slopes = torch.autograd.grad((outputs(x[:4]) - y).square().sum() / 2, trained)
        with torch.no_grad():
            for parameter, slope in zip(trained, slopes, strict=True):
                parameter -= rate * slope
    found = outputs(x[4:]).detach().reshape(2, units // width, 3).mean(0)
    return {"value": float((found - truth).square().mean() / truth.square().mean()), "mean": found.mean(0)}


if __name__ == "__main__":
    script(__file__)
