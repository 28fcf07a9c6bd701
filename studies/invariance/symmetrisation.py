r"""What averaging over a group does to a function, to its error, and to what it learns.

The average $Q f (x) = 1\/abs(G) sum_g f(g x)$ is the nearest invariant function. If the inputs' law is invariant, $Q$ is an
orthogonal projection, so that averaging takes from the error to an invariant target exactly the energy that is not invariant
@elesedy2021provably. For least squares this gain is known in closed form. Augmentation by the whole group averages the loss
instead of the function, and comes to the same where the model is linear, or symmetric at the start @chen2020group.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lemmata.analysis import actions, orbit, symmetrise
from lemmata.analysis.invariance.actions import Action
from lemmata.architectures import MLP
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian, one_hot
from lemmata.studies.invariance.least_squares_gains import coefficients, gains
from lemmata.studies.invariance.symmetrisation_figures import draw_energies, draw_gains, draw_paths
from lemmata.studies.training import descent, flat_parameters, load_parameters, objective, squared_error

_DIGITS = 200  # images, and as many held out


def part_of(action: Action, left_out: int) -> Action:
    """The group, or all its elements but the last few, with the same actions."""
    kept = action.elements[: len(action.elements) - left_out]
    return actions.finite(action.name, kept, action.on_inputs)


def perceptron(draws: torch.Generator, inputs: int, hidden: int, outputs: int) -> nn.Module:
    """A flattening perceptron of one hidden layer."""
    net = MLP([inputs, hidden, outputs], activation="tanh", device="cpu", generator=draws)
    return nn.Sequential(nn.Flatten(), net).to(torch.get_default_device())


def trained(model: nn.Module, inputs: Tensor, target: Tensor, steps: int, rate: float) -> nn.Module:
    """The model after so many steps of gradient descent on half the mean squared error."""
    path = descent(objective(model, squared_error, inputs, target), flat_parameters(model), rate)
    return load_parameters(model, next(islice(path, steps, None))[0])


def task(setting: str, draws: torch.Generator) -> tuple[Action, nn.Module, Tensor, Tensor]:
    """A group, a network trained without it, test inputs and what the network was to say of them, which the group keeps."""
    if setting == "turned digits":
        x, labels = digits(1000, images=True)
        chosen = torch.randperm(1000, generator=draws, device="cpu")[: 2 * _DIGITS].to(x.device)
        x, y = x[chosen], one_hot(labels[chosen])
        model = trained(perceptron(draws, 64, 32, 10), x[:_DIGITS], y[:_DIGITS], 100, 0.2)
        return actions.rotations(4), model, x[_DIGITS:], y[_DIGITS:]
    x = gaussian(draws, 200, 4)
    y = torch.stack([x.amax(1), x.square().sum(1).sqrt()], 1)  # of a set of four numbers
    return actions.permutations(4), trained(perceptron(draws, 4, 32, 2), x[:100], y[:100], 100, 0.1), x[100:], y[100:]


@claim(
    source="elesedy2021provably",
    predicts=AtMost("rounding(24*100)", of="max"),
    quick=Grid(setting=["turned digits", "sets of numbers"], seeds=5),
    full=Grid(setting=["turned digits", "sets of numbers"], seeds=20),
    controls={
        "a test set that the group keeps: the examples alone": dict(closed=False),
        "a target that the group keeps: another network": dict(target="network"),
        "a group: all elements but one": dict(left_out=1),
    },
    figures=(draw_energies,),
)
def reynolds_pythagoras(
    setting: str, seed: int, closed: bool = True, target: str = "invariant", left_out: int = 0
) -> dict[str, Any]:
    r"""Averaging over a group takes from the error exactly the energy that is not invariant.

    Let the law of $x$ and the target $f^*$ be invariant under a finite group, and $Q f$ the average of $f$ over it. Then
    $ EE norm(f - f^*)^2 = EE norm(Q f - f^*)^2 + EE norm(f - Q f)^2 $
    for every $f$ @elesedy2021provably: averaging never hurts, and helps all functions but the invariant ones.

    The networks are trained without the group: on handwritten digits, tested on them in four orientations, and on sets of four
    numbers in one order, tested in all $24$. The value is the difference of the two sides over the left one.
    """
    draws = torch.Generator().manual_seed(seed)
    action, model, x, y = task(setting, draws)
    average = symmetrise(model, part_of(action, left_out))
    other = perceptron(draws, x[0].numel(), 32, y.shape[1])
    with torch.no_grad():
        x, y = orbit(x, action, y) if closed else (x, y)
        y = other(x) if target == "network" else y
        f, g = model(x), average(x)
        whole, after, rest = ((a - b).square().sum(1).mean().item() for a, b in ((f, y), (g, y), (f, g)))
    return {
        "value": abs(whole - after - rest) / whole,
        "error": whole,
        "error of the average": after,
        "not invariant": rest,
    }


_LAW = {"inputs whose law the group keeps: half of them doubled": dict(spread=2.0)}
_TARGET = {"a target that the group keeps: half of it changes sign": dict(moved=0.5)}


@claim(
    source="elesedy2021provably",
    predicts=Equals("d/(2*(n - d - 1))", within="0.05*d/(2*(n - d - 1))", of="mean"),
    quick=Grid(d=[10], n=[20, 30], sets=[2000], seeds=15),
    full=Grid(d=[10, 20], n=[30, 60], sets=[2000], seeds=40),
    controls=_LAW | _TARGET,
)
def elesedy_zaidi_gap(d: int, n: int, sets: int, seed: int, moved: float = 0.0, spread: float = 1.0) -> float:
    r"""The gain of invariance in least squares is the noise times the dimensions that it takes away.

    Let $x tilde cal(N)(0, I_d)$, $y = theta dot x + epsilon$ with noise of variance $sigma^2$, and let a group act by orthogonal matrices
    that keep $theta$; $A$ is the space of the vectors that average to zero. For least squares on $n > d + 1$ examples,
    $ EE ["risk"(f) - "risk"(Q f)] = sigma^2 frac(dim A, n - d - 1) $
    @elesedy2021provably: $dim A\/d$ of the whole excess risk, whatever $theta$.

    The group swaps the two halves of the coordinates, $dim A = d\/2$, $sigma = 1$. For $d = 10, n = 30$ the gain is $5\/19 = 0.2632$.
    """
    draws = torch.Generator().manual_seed(seed)
    return float(gains(d, n, sets, coefficients(d, 1.0, moved, draws), spread, draws).mean())


@claim(
    source="elesedy2021provably",
    predicts=Equals(
        "strength*n*(d - n)/(2*(d - 1)*(d + 2)) + n/(2*(d - n - 1))",
        within="0.05*(strength*n*(d - n)/(2*(d - 1)*(d + 2)) + n/(2*(d - n - 1)))",
        of="mean",
    ),
    quick=Grid(d=[20], n=[5], strength=[1, 10], sets=[2000], seeds=15),
    full=Grid(d=[20, 40], n=[5, 10], strength=[1, 10], sets=[2000], seeds=40),
    controls=_LAW | {"a target that the group keeps: a part of the noise's size changes sign": dict(moved=1.0)},
)
def elesedy_zaidi_gap_interpolation(
    d: int, n: int, strength: float, sets: int, seed: int, moved: float = 0.0, spread: float = 1.0
) -> float:
    r"""With fewer examples than dimensions, invariance gains from the signal too.

    In the setting of the claim before, take the solution of least norm for $n < d - 1$. Then
    $ EE ["risk"(f) - "risk"(Q f)] = norm(theta)^2 frac(dim A dot n (d - n), d (d - 1)(d + 2)) + sigma^2 frac(n dim A, d (d - n - 1)) $
    @elesedy2021provably. For the row space of $x$ is a random subspace of dimension $n$, which tilts $theta$ by the first term into
    $A$; the second is noise.

    `strength` is $norm(theta)^2$.
    """
    draws = torch.Generator().manual_seed(seed)
    return float(gains(d, n, sets, coefficients(d, strength, moved, draws), spread, draws).mean())


@claim(
    source="elesedy2021provably",
    predicts=Equals("1 - part", within=0.08, of="mean"),
    quick=Grid(part=[0.0, 0.5, 1.0, 2.0], d=[10], n=[30], sets=[1000], seeds=15),
    full=Grid(part=[0.0, 0.5, 1.0, 2.0, 4.0], d=[10, 20], n=[40], sets=[2000], seeds=40),
    controls=_LAW,
    figures=(draw_gains,),
)
def elesedy_zaidi_gap_sign(part: float, d: int, n: int, sets: int, seed: int, spread: float = 1.0) -> dict[str, Any]:
    r"""Averaging pays if and only if what it removes of the target is smaller than what it removes of the noise.

    Let $theta$ have a part $theta_A$ that averages to zero. Least squares has no bias for $n > d + 1$, so that
    $ EE ["risk"(f) - "risk"(Q f)] = sigma^2 frac(dim A, n - d - 1) - norm(theta_A)^2, $
    which changes sign at $norm(theta_A)^2 = sigma^2 dim A \/ (n - d - 1)$; for $theta_A = 0$ it is the gain of @elesedy2021provably.

    `part` is $norm(theta_A)^2$ over this threshold, and the value the gain over it.
    """
    draws = torch.Generator().manual_seed(seed)
    noise = d / (2 * (n - d - 1))
    theta = coefficients(d, 1.0, part * noise, draws)
    return {"value": float(gains(d, n, sets, theta, spread, draws).mean()) / noise}


_SPACES: dict[str, tuple[Action, tuple[int, ...]]] = {
    "shifts": (actions.cyclic_shifts(8), (8,)),
    "turns": (actions.rotations(4), (4, 4)),
    "orders": (actions.permutations(4), (4,)),
}


@claim(
    source="chen2020group",
    predicts=AtMost("rounding(24*40, 10)", of="max"),
    quick=Grid(group=["shifts", "turns", "orders"], n=[3, 40], seeds=5),
    full=Grid(group=["shifts", "turns", "orders"], n=[1, 3, 40, 160], seeds=20),
    controls={"the whole group: half of its elements at random": dict(share=0.5)},
)
def augmentation_equals_averaging(group: str, n: int, seed: int, share: float = 1.0) -> float:
    r"""Least squares on all orbits is least squares among invariant functions.

    Add to each of $n$ examples $(x_i, y_i)$ all $(g x_i, y_i)$, and fit $y = w dot x$ by least squares, of least norm where it is not
    unique. Then $w$ is the solution on the averaged inputs $1\/abs(G) sum_g g x_i$, and invariant: $g w = w$
    @chen2020group. For the loss is the same for $w$ and $g w$, and the solution is one.

    The value is the relative distance between the two. The control augments by a random half of the elements, drawn anew for
    each example.
    """
    draws = torch.Generator().manual_seed(seed)
    action, shape = _SPACES[group]
    x, y = gaussian(draws, n, *shape), gaussian(draws, n)
    every = torch.stack([action.on_inputs(g, x).flatten(1) for g in action.elements])  # (|G| n d)
    averaged = torch.linalg.pinv(every.mean(0), rtol=1e-10) @ y
    if share < 1:
        order = torch.rand(every.shape[:2], generator=draws, device="cpu").argsort(0).to(x.device)
        chosen = order[: int(share * len(every))]
        every = every.gather(0, chosen[..., None].expand(-1, -1, every.shape[2]))
    w = torch.linalg.pinv(every.flatten(0, 1), rtol=1e-10) @ y.repeat(len(every))
    return ((w - averaged).norm() / averaged.norm()).item()


def tied(group: str, filters: int, draws: torch.Generator, tie: bool) -> nn.Module:
    """A perceptron whose hidden units are all images of a few filters under the group, each with one weight to the output.

    Untied, the same numbers of units and weights drawn independently.
    """
    action, shape = _SPACES[group]
    moves = torch.stack([action.matrix(g, shape) for g in action.elements])  # (|G| d d)
    size = moves.shape[-1]
    net = perceptron(draws, size, filters * len(moves), 1)
    if tie:
        weights, out = gaussian(draws, filters, size) / size**0.5, gaussian(draws, filters)
        layers = net[1].layers  # type: ignore[index]
        with torch.no_grad():
            layers[0].weight.copy_(torch.einsum("fd,gde->fge", weights, moves.to(weights)).flatten(0, 1))
            layers[0].bias.zero_()
            layers[1].weight.copy_(out.repeat_interleave(len(moves))[None] / (filters * len(moves)) ** 0.5)
    return net


@claim(
    source="chen2020group",
    predicts=AtMost("rounding(500, 10)", of="max"),
    quick=Grid(group=["shifts", "turns"], steps=[100], seeds=5),
    full=Grid(group=["shifts", "turns", "orders"], steps=[500], seeds=10),
    controls={
        "the whole group: one element a step": dict(sampled=True),
        "a symmetric start: weights drawn one by one": dict(tie=False),
    },
    figures=(draw_paths,),
)
def augmentation_equals_averaging_path(
    group: str, steps: int, seed: int, sampled: bool = False, tie: bool = True
) -> dict[str, Any]:
    r"""Trained on whole orbits from a symmetric start, a network stays symmetric at every step.

    The gradient of the loss on all $(g x_i, y_i)$ is the average over the group of the gradients on the examples @chen2020group. If
    the group acts on the parameters so that $f_(g theta) (g x) = f_theta (x)$, the augmented loss does not notice $g$, and
    its gradient at a $theta$ that $g$ keeps is kept too. So is every later iterate: augmentation trains the equivariant network,
    here a group convolution with a pool, hidden in a perceptron.

    The hidden units are the images of three filters under the group. The value is the largest relative change of the outputs under
    the group along the path. Controls: one random element a step, whose gradient is right on average only; and weights
    drawn independently.
    """
    draws = torch.Generator().manual_seed(seed)
    action, shape = _SPACES[group]
    net = tied(group, 3, draws, tie)
    x, y = gaussian(draws, 20, *shape), gaussian(draws, 20, 1)
    whole = orbit(x, action, y)
    flat, path, marks = flat_parameters(net), [], []
    for step in range(steps + 1):
        if step % (steps // 10) == 0:
            path.append(defect(load_parameters(net, flat), x, action))
            marks.append(step)
        batch = (action.on_inputs(action.draw(draws), x), y) if sampled else whole
        flat = flat - 0.2 * objective(net, squared_error, *batch)(flat)[1]
    return {"value": np.max(path), "path": np.array(path), "steps": np.array(marks)}


def defect(model: nn.Module, x: Tensor, action: Action) -> float:
    """The largest relative change of the outputs under an element."""
    with torch.no_grad():
        y = model(x)
        gaps = torch.stack([(model(action.on_inputs(g, x)) - y).norm() for g in action.elements])
        return (gaps / y.norm()).max().item()


if __name__ == "__main__":
    script(__file__)
