"""The loss on a grid of 51 × 51 points of a plane, beside loops of forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lemmata.analysis.curvature import loss_slice

from .problems import Problem, gpt, lstm, relu_mlp, resnet, tanh_mlp
from .search import BUDGET
from .table import Row, Target, timed_row
from .timing import Contender, affordable, timed

WORK, POINTS = "slice", 51
_WITHIN = 1e-4  # of the loss, float32 against float64

Loop = Callable[[int, int], Tensor]


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem in (
        relu_mlp(device, 128),
        tanh_mlp(device),
        resnet(device, 32),
        gpt(device, 16, 2),
        lstm(device, 16, 2),
    ):
        yield from measure(problem, device, repeats)


class Plane:
    """A plane through the parameters, and three ways to walk over the points of its grid."""

    def __init__(self, problem: Problem, points: int) -> None:
        self.problem = problem
        self.start = parameters_to_vector(problem.parameters).detach().clone()
        draws = torch.Generator().manual_seed(0)
        pair = torch.randn(2, problem.size, generator=draws).to(self.start)
        self.directions = pair / pair.norm(dim=1, keepdim=True)
        self.x = torch.linspace(-1, 1, points).tolist()

    def loops(self) -> dict[str, Loop]:
        """Ways to the losses of the rows from the first to before the last, by name."""
        return {
            "loop, vectors loaded": self.loaded,
            "loop, moved in place": self.moved,
            "loop, functional_call": self.called,
        }

    def _loss(self) -> Tensor:
        return self.problem.loss(self.problem.model(self.problem.batch[0]), self.problem.batch[1])

    @torch.no_grad()
    def loaded(self, first: int, stop: int) -> Tensor:
        """Every point is copied into the parameters."""
        losses = []
        for a in self.x[first:stop]:
            for b in self.x:
                point = self.start + a * self.directions[0] + b * self.directions[1]
                vector_to_parameters(point, self.problem.parameters)
                losses.append(self._loss())
        vector_to_parameters(self.start.clone(), self.problem.parameters)
        return torch.stack(losses).reshape(-1, len(self.x))

    @torch.no_grad()
    def moved(self, first: int, stop: int) -> Tensor:
        """The parameters move along the grid, one tensor after another, by one multi-tensor operation."""
        parameters = [parameter.data for parameter in self.problem.parameters]
        one, two = (self.problem.split(direction) for direction in self.directions)
        keep, losses = [parameter.clone() for parameter in parameters], []
        for a in self.x[first:stop]:
            row = torch._foreach_add(keep, one, alpha=a)
            for b in self.x:
                torch._foreach_copy_(parameters, torch._foreach_add(row, two, alpha=b))
                losses.append(self._loss())
        torch._foreach_copy_(parameters, keep)
        return torch.stack(losses).reshape(-1, len(self.x))

    @torch.no_grad()
    def called(self, first: int, stop: int) -> Tensor:
        """The parameters are views of one vector, given to a functional call."""
        names = [name for name, _ in self.problem.model.named_parameters()]
        losses = []
        for a in self.x[first:stop]:
            row = self.start + a * self.directions[0]
            for b in self.x:
                point = dict(zip(names, self.problem.split(row + b * self.directions[1]), strict=True))
                output = functional_call(self.problem.model, point, (self.problem.batch[0],))
                losses.append(self.problem.loss(output, self.problem.batch[1]))
        return torch.stack(losses).reshape(-1, len(self.x))


def measure(problem: Problem, device: str, repeats: int, points: int = POINTS) -> list[Row]:
    """One network: the loop that is fastest on one row walks the whole grid."""
    plane, place = Plane(problem, points), (WORK, problem.name)
    loops = plane.loops()
    for loop in loops.values():
        loop(0, 1)
    best = min(loops, key=lambda name: min(timed(lambda: loops[name](0, 1), device) for _ in range(3)))
    truth = Plane(problem.double, points).moved(0, 1)

    def ours() -> Tensor:
        directions = list(plane.directions)
        return loss_slice(problem.model, problem.loss, problem.batch, directions, points=points).losses

    errors = {"lemmata": _gap(ours()[:1], truth), best: _gap(loops[best](0, 1), truth)}
    if max(errors.values()) > _WITHIN:
        raise RuntimeError(f"the slices of {problem.name} disagree with those in double precision: {errors}")
    contenders: dict[str, Contender] = {"lemmata": ours, best: lambda: loops[best](0, points)}
    rounds = affordable(contenders, device, repeats, BUDGET)
    target = Target("≥", 3 if device == "cuda" else 1)
    note = f"the best of {', '.join(loops)}"
    return [
        timed_row(place, "lemmata", rounds, ("lemmata", "ours"), errors["lemmata"]),
        timed_row(place, best, rounds, ("lemmata", "ours"), errors[best], target, note),
    ]


def _gap(found: Tensor, truth: Tensor) -> float:
    return float(((found.to(truth) - truth) / truth).abs().max())
