"""What the layers of a network do to the topology of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from ..operators.snapshot import snapshot
from .betti import Array, Betti
from .geodesics import geodesic_distances
from .rips import rips_betti


@dataclass(frozen=True, repr=False, eq=False)
class LayerBetti:
    """Betti numbers of each class at the inputs and after each layer.

    Attributes:
        layers: names, "inputs" first.
        classes: the labels; one that is None for all inputs together.
        found: the numbers, ``found[layer][class]``; their plateau and scale are in steps along the cloud.

    """

    layers: tuple[str, ...]
    classes: tuple[int | None, ...]
    found: tuple[tuple[Betti, ...], ...]

    @property
    def totals(self) -> Tensor:
        """The sum of the Betti numbers, (layers, classes)."""
        return torch.tensor([[one.total for one in row] for row in self.found])

    def __getitem__(self, layer: str) -> tuple[Betti, ...]:
        return self.found[self.layers.index(layer)]

    @property
    def converged(self) -> bool:
        """Whether every number holds over the factor of scales asked for."""
        return all(one.converged for row in self.found for one in row)

    def __repr__(self) -> str:
        rows = [f"  {name}: {', '.join(str(one.numbers) for one in row)}" for name, row in self._rows()]
        return "\n".join([f"LayerBetti, classes {', '.join(map(str, self.classes))}", *rows])

    def _rows(self) -> zip[tuple[str, tuple[Betti, ...]]]:
        return zip(self.layers, self.found, strict=True)

    def plot(self, ax: Any = None) -> Any:
        """The sum of the numbers after each layer, a line a class; returns the axes (new ones if None)."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        for name, totals in zip(self.classes, self.totals.T, strict=True):
            ax.plot(range(len(self.layers)), totals, marker="o", label=f"class {name}")
        ax.set(ylabel="sum of Betti numbers", ylim=(0, None))
        ax.set_xticks(range(len(self.layers)), self.layers, rotation=90)
        ax.legend()
        return ax

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold, if infinite ends are let through."""
        found = [[one.to_dict() for one in row] for row in self.found]
        return {"layers": list(self.layers), "classes": list(self.classes), "found": found}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LayerBetti:
        """The inverse of :meth:`to_dict`."""
        found = tuple(tuple(Betti.from_dict(one) for one in row) for row in record["found"])
        return cls(tuple(record["layers"]), tuple(record["classes"]), found)


def betti_through_layers(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor | None = None,
    layers: str = "*",
    neighbours: int = 14,
    scale: float = 3.5,
    landmarks: int = 300,
) -> LayerBetti:
    r"""Betti numbers β₀, β₁ of each class as it passes through the layers of a model.

    .. math:: \beta_k\bigl(f_l(M_c)\bigr), \qquad M_c = \{x_i : y_i = c\},\; f_l = \text{the first $l$ layers},

    from the Vietoris–Rips complex of steps along the graph of nearest neighbours, on landmarks that cover it: the same
    scale then means the same at each layer.

    Args:
        model: its layers are its modules without children, in the order in which they are first called. What an
            activation makes that is a plain function shows in the layer after it.
        inputs: (n, …), densely sampled: the numbers are those of the sample.
        labels: (n,), integers; None for one class.
        layers: a glob pattern over the names of modules.
        neighbours: k of the graph. **The answer depends on it**: try half and twice as many.
        scale: in steps; between whole numbers, so that rounding decides nothing. Where each point has a landmark a step
            away, neighbouring points have landmarks at most three steps apart: at a smaller scale the complex tears.
            With all points as landmarks the paper's 2.5 is right.
        landmarks: the most points to keep of each class.

    Each number's plateau ends at ``scale`` + 1 at the latest, which is as far as edges are looked at; ``converged`` says
    whether it holds up to there, and whether landmarks lie dense enough, at most a step from each point.

    Cost: a pass, and for each layer and class a search tree, a breadth-first pass a landmark and the reduction: a few
    tenths of a second for a thousand points.

    Errors: ``ArgumentError`` for a pattern that meets no layer, or a number outside its domain; ``DataError`` for labels
    that do not fit; ``NumericsError`` that names the layer whose output is not finite; ``ModelStateError`` for dropout or
    batch normalisation in train mode. The model is copied, not touched.

    Source: Naitzat, Zhitnikov & Lim 2020, Topology of deep neural networks.

    Example:
        A rectifier folds a circle onto a line:

        >>> angles = torch.arange(60) * (2 * torch.pi / 60)
        >>> circle = torch.stack([angles.cos(), angles.sin()], 1)
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
        >>> betti_through_layers(net, circle, neighbours=4)
        LayerBetti, classes None
          inputs: (1, 1)
          0: (1, 0)
          1: (1, 0)

    """
    if not 0 < scale < np.inf:
        raise ArgumentError("scale", "a number of steps above 0", str(scale), "Pass scale=3.5.")
    classes, members = _classes(inputs, labels)
    outputs = _outputs(model, inputs, layers)
    found = []
    for name, output in outputs.items():
        if not np.isfinite(output).all():
            raise NumericsError(name, "finite outputs", "nan or inf", "Look at the model's weights and at its inputs.")
        found.append(tuple(_numbers(output[chosen], neighbours, scale, landmarks) for chosen in members))
    return LayerBetti(tuple(outputs), classes, tuple(found))


def _numbers(points: Array, neighbours: int, scale: float, landmarks: int) -> Betti:
    steps = geodesic_distances(points, neighbours, landmarks)
    found = rips_betti(steps.distances, scale, longest=scale + 1)
    held = found.plateau[1] >= min(scale + 1, float(steps.distances.max()))
    method = f"{steps.neighbours} neighbours, {len(steps.landmarks)} landmarks"
    return replace(found, points=steps.points, method=method, converged=held and steps.cover <= 1)


def _classes(inputs: Tensor, labels: Tensor | None) -> tuple[tuple[int | None, ...], list[Array]]:
    """The labels, and which inputs have each."""
    if labels is None:
        return (None,), [np.ones(len(inputs), dtype=bool)]
    if labels.shape != inputs.shape[:1] or labels.is_floating_point():
        given = f"{tuple(labels.shape)}, {labels.dtype}"
        expected = f"integers, ({len(inputs)},), one for each input"
        raise DataError("labels", expected, given, "Pass labels.argmax(1) for unit vectors, None for one class.")
    held = labels.detach().cpu().numpy()
    classes = np.unique(held)
    return tuple(int(one) for one in classes), [held == one for one in classes]


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor, pattern: str) -> dict[str, Array]:
    """The output of each layer as rows, (n, d), in the order of their first calls; the inputs come first."""
    duplicate, _ = snapshot(model, None, None)
    seen: dict[str, Array] = {"inputs": _rows(inputs)}
    leaves = {name: module for name, module in duplicate.named_modules() if not list(module.children())}
    chosen = {name: module for name, module in leaves.items() if fnmatchcase(name, pattern)}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(inputs):
            seen[name] = _rows(output)

    for name, module in chosen.items():
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
    duplicate(inputs)
    if len(seen) == 1:
        expected = f"a pattern that matches some of {list(leaves)}, whose outputs are ({len(inputs)}, …)"
        raise ArgumentError(f"layers={pattern!r}", expected, "no match", "Pass layers='*' for all of them.")
    return seen


def _rows(batch: Tensor) -> Array:
    return batch.detach().flatten(1).double().cpu().numpy()
