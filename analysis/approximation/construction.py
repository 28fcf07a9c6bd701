"""An explicit network that witnesses a theorem: exact weights, a proved bound on its error, and a check of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, sqrt
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from .domains import Domain

_CHUNK = 2**16  # points in one pass
_DYADIC = 2**16  # coordinates that are multiples of its inverse leave room for exact arithmetic


@final
@dataclass(frozen=True, repr=False)
class Witness:
    r"""What a check of a construction found.

    Attributes:
        error: the largest error found (``norm="sup"``), or its root mean square by quadrature (``norm="l2"``).
        bound: what the theorem allows.
        rounding: what floating point may add to it; 0 where every number involved is dyadic.
        points: how many points were looked at.
        at: where the largest error was found.
        norm: "sup" or "l2".

    """

    error: float
    bound: float
    rounding: float
    points: int
    at: tuple[float, ...]
    norm: str = "sup"

    @property
    def holds(self) -> bool:
        """Whether the error found is within the bound, rounding added."""
        return self.error <= self.bound + self.rounding

    @property
    def interval(self) -> tuple[float, float]:
        """What the true error lies in: no less than what was found, no more than what is proved; open where the check fails."""
        return (self.error, max(self.error, self.bound + self.rounding)) if self.holds else (self.error, inf)

    @property
    def tightness(self) -> float:
        """Error over bound: 1 where the theorem is sharp; nan where nothing is allowed and nothing was found."""
        return self.error / self.bound if self.bound else (inf if self.error else float("nan"))

    def __repr__(self) -> str:
        state = "holds" if self.holds else "FAILS"
        allowed = f"{self.bound:.6g}" + (f" + {self.rounding:.1e}" if self.rounding else "")
        place = ", ".join(f"{x:.6g}" for x in self.at[:4]) + (", …" if len(self.at) > 4 else "")
        return f"{self.norm} error {self.error:.6g} ≤ {allowed}: {state} ({self.points} points, largest at ({place}))"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return asdict(self) | {"at": list(self.at)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Witness:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**record, "at": tuple(record["at"])})


@final
@dataclass(frozen=True, repr=False)
class Construction:
    """A network written down weight by weight, and what it is a witness of.

    Attributes:
        network: a module with rows (n, …) of the domain as inputs.
        target: what it approximates or computes, rows to values of the shape of the network's outputs.
        error_bound: the theorem's bound on their distance; 0 where they are equal.
        domain: where.
        statement: the theorem in words.
        count: points an axis of the grid that :meth:`check` takes by default; chosen so that it holds the maximisers where
            they are known.
        rounding: what floating point may add, 50 √m ε κ for m terms of condition κ; 0 where the grid
            of :meth:`check` is dyadic and no operation rounds.
        elsewhere: what it may add at points that are not multiples of 2^−16, if that is more.
        norm: "sup", or "l2" for the root mean square over the domain's uniform law.

    """

    network: nn.Module
    target: Callable[[Tensor], Tensor]
    error_bound: float
    domain: Domain
    statement: str
    count: int
    rounding: float = 0.0
    norm: Literal["sup", "l2"] = "sup"
    elsewhere: float = 0.0

    @torch.no_grad()
    def __call__(self, points: Tensor) -> Tensor:
        """The network's values at points of the domain, taken in the network's dtype; (n,) where it has a single output."""
        parts = self._cast(self.domain.checked(points)).split(_CHUNK)
        return _single(torch.cat([self.network(part) for part in parts]))

    def _cast(self, points: Tensor) -> Tensor:
        return points.to(next(self.network.parameters(), points))

    @torch.no_grad()
    def errors(self, points: Tensor) -> Tensor:
        """The distance of network and target at each point, the largest over outputs, (n,).

        Errors: ``ArgumentError`` where network and target differ in shape; ``NumericsError`` for values that are not finite.
        """
        values, wanted = self(points), _single(self.target(self._cast(points)))
        if values.shape != wanted.shape:
            remedy = "Let the target have the network's outputs."
            raise ArgumentError("target", f"values of shape {tuple(values.shape)}", str(tuple(wanted.shape)), remedy)
        gaps = (values - wanted).abs().flatten(1).amax(1) if values.ndim > 1 else (values - wanted).abs()
        if not bool(gaps.isfinite().all()):
            row = int((~gaps.isfinite()).nonzero()[0])
            given, remedy = f"row {row}: {points[row].flatten().tolist()[:4]}", "Look at the weights and the target."
            raise NumericsError("errors", "finite values of network and target", given, remedy)
        return gaps

    def check(self, points: Tensor | None = None) -> Witness:
        """Measure the error on points of the domain, or on its own grid (for "l2", by quadrature), against the bound.

        Cost: one pass of the network a point.

        Errors: those of :meth:`errors`; ``DataError`` for no points, or some that are outside the domain.
        """
        weights: Tensor | None = None
        coarse = points is None or not bool((points * _DYADIC).frac().any())
        rounding = self.rounding if coarse else max(self.rounding, self.elsewhere)
        if points is not None and not len(points):
            raise DataError("points", "one point or more", "none", "Pass some, such as domain.sample(100).")
        if self.norm == "l2":
            if points is None:
                points, weights = self.domain.quadrature(self.count)
            else:
                weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64, device=points.device)
        elif points is None:
            points = self.domain.grid(self.count)
        gaps = self.errors(points)
        worst = int(gaps.argmax())
        error = float(gaps[worst]) if weights is None else sqrt(float(weights.to(gaps) @ gaps.square()))
        at = tuple(points[worst].flatten().tolist())
        return Witness(error, self.error_bound, rounding, len(points), at, self.norm)

    @property
    def parameters(self) -> int:
        """How many numbers the network holds."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def __repr__(self) -> str:
        bound = "exact" if not self.error_bound else f"error ≤ {self.error_bound:.6g}"
        return f"Construction({self.statement} {bound} on {self.domain!r}, {self.parameters} parameters)"

    def plot(self, ax: Any = None) -> Any:
        """Target and network on an interval, or the error over a plane; new axes if None.

        Errors: ``ArgumentError`` for a domain of another dimension.
        """
        if self.domain.dimension > 2:
            given, remedy = (
                str(self.domain.dimension),
                "Plot a one- or two-dimensional one; errors(points) has the numbers.",
            )
            raise ArgumentError("domain", "one or two dimensions", given, remedy)
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        points = self.domain.grid(min(self.count, 1025 if self.domain.dimension == 1 else 97))
        if self.domain.dimension == 1:
            order = points[:, 0].argsort()
            for label, f in (("target", self.target), ("network", self)):
                ax.plot(points[order, 0].cpu(), f(points[order]).cpu(), label=label)
            ax.set(xlabel="x")
            ax.legend()
        else:
            shown = ax.scatter(*points.T.cpu(), c=self.errors(points).cpu(), s=4)
            ax.figure.colorbar(shown, ax=ax, label="error")
            ax.set(aspect="equal", xlabel="x₁", ylabel="x₂")
        return ax


def _single(values: Tensor) -> Tensor:
    """(n, 1) → (n,)."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


Layer = tuple[Tensor, Tensor]  # weights (m, n) and biases (m,) in float64
Layers = Sequence[Layer]  # with rectifiers between them


def affine(weight: Any, bias: Any = 0.0) -> list[Layer]:
    """A network of one affine layer, from nested lists or tensors."""
    w = torch.as_tensor(weight, dtype=torch.float64)
    b = torch.as_tensor(bias, dtype=torch.float64).to(w.device)
    return [(w, b.expand(len(w)).clone())]


def hidden(*layers: tuple[Any, Any]) -> list[Layer]:
    """A network from the weights and biases of its layers, in order."""
    return [layer for weight, bias in layers for layer in affine(weight, bias)]


def then(*networks: Layers) -> list[Layer]:
    """One network after the other: the affine layers that meet become one.

    >>> twice, shift = affine([[2.0]]), affine([[1.0]], 1.0)
    >>> [layer.tolist() for layer in then(twice, shift)[0]]
    [[[2.0]], [1.0]]
    """
    joined = list(networks[0])
    for network in networks[1:]:
        (w, b), (first, bias) = joined[-1], network[0]
        joined[-1:] = [(first @ w, first @ b + bias), *network[1:]]
    return joined


def passing(width: int, depth: int) -> list[Layer]:
    """The identity of some numbers through hidden layers, two rectifiers for each: z = relu(z) − relu(−z)."""
    eye = torch.eye(width, dtype=torch.float64)
    fork, join = affine(torch.cat([eye, -eye])), affine(torch.cat([eye, -eye], 1))
    return then(affine(eye), *[fork + join] * depth)


def beside(*networks: Layers) -> list[Layer]:
    """Networks side by side, each with inputs of its own; the shallower ones pass their results on."""
    depth = max(map(len, networks))
    even = [then(net, passing(len(net[-1][0]), depth - len(net))) for net in networks]
    return [
        (torch.block_diag(*(net[i][0] for net in even)), torch.cat([net[i][1] for net in even])) for i in range(depth)
    ]


def network_of(layers: Layers) -> nn.Sequential:
    """The layers as a module, Linear and ReLU by turns, in float64 on torch's default device."""
    modules: list[nn.Module] = []
    for weight, bias in layers:
        m, n = weight.shape
        linear = nn.utils.skip_init(nn.Linear, n, m, dtype=torch.float64, device=torch.get_default_device())
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])
