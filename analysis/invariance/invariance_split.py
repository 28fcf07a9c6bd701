"""How much of a function is symmetric: its orthogonal decomposition into the average over a group and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, NumericsError, OperandError
from ..jackknife import jackknife
from ..operators.data import call, count, take
from ..operators.snapshot import snapshot
from ..spectra.results import Estimate, _axes
from .action import Action, invariant
from .symmetrise import inverse, one_tensor

_GROUPS = 20  # of examples, for the jackknife
_BLOCK = 16  # draws between two looks at the interval


@dataclass(frozen=True, repr=False)
class InvarianceSplit:
    r"""‖f‖² = ‖Qf‖² + ‖f − Qf‖², in the mean over inputs and the group.

    Attributes:
        symmetric: ‖Qf‖². rest: ‖f − Qf‖². share: rest over the sum: 0 for a symmetric function, 1 for one that averages to 0.
        elements: of the group that each example was moved by. exact: whether that is all of them.
        examples: how many.
        converged: whether the interval of ``share`` is within the tolerance; also what ``share.converged`` says.

    The errors are those of drawing the examples, and of drawing the elements where the group was sampled.
    """

    symmetric: Estimate
    rest: Estimate
    share: Estimate
    elements: int
    exact: bool
    examples: int
    converged: bool

    def __float__(self) -> float:
        return self.share.value

    def __repr__(self) -> str:
        low, high = self.share.interval()
        how = "all elements" if self.exact else f"{self.elements} elements drawn"
        state = "" if self.converged else "; not converged"
        return (
            f"InvarianceSplit(not symmetric: {100 * self.share.value:.3g} % of the energy "
            f"[{100 * low:.3g}, {100 * high:.3g}]; {self.examples} examples, {how}{state})"
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), **{name: getattr(self, name).to_dict() for name in ("symmetric", "rest", "share")}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> InvarianceSplit:
        """The inverse of :meth:`to_dict`."""
        parts = {name: Estimate.from_dict(record[name]) for name in ("symmetric", "rest", "share")}
        return cls(**{**record, **parts})

    def plot(self, ax: Any = None) -> Any:
        """Both energies with their 95 % intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        values = [self.symmetric, self.rest]
        half = [(e.interval()[1] - e.interval()[0]) / 2 for e in values]
        ax.bar([0, 1], [e.value for e in values], yerr=half, capsize=4, color=["C0", "0.7"])
        ax.set_xticks([0, 1], ["symmetric", "rest"])
        ax.set_ylabel("mean squared output")
        return ax


class _Energies:
    """Sums over elements for each example of a group: of outputs turned back, and of their squares."""

    def __init__(self, inputs: Any, examples: int) -> None:
        self.inputs, self.examples, self.elements = inputs, examples, 0
        self.total: Tensor | None = None
        self.squares: Tensor | float = 0.0

    def add(self, model: Callable[..., Any], action: Action, g: Any) -> None:
        """One element more."""
        y = call(model, action.on_inputs(g, self.inputs))
        one_tensor(y)
        if not y.dim() or len(y) != self.examples:
            expected, given = f"a row for each example, ({self.examples}, …)", f"shape {tuple(y.shape)}"
            raise OperandError("model", expected, given, "Leave the mean over examples out.")
        if action.on_outputs is not invariant:
            moved = action.on_outputs(inverse(action, g, self.inputs), y)
            _isometric(action, g, y, moved)
            y = moved
        y = torch.view_as_real(y) if y.is_complex() else y
        y = (y.flatten(1) if y.dim() > 1 else y[:, None]).double()
        self.total = y if self.total is None else self.total + y
        self.squares = self.squares + y.square().sum(1)
        self.elements += 1

    def split(self, exact: bool) -> Tensor:
        """‖Qf‖² and ‖f − Qf‖² of each example, (2, b); without bias where elements were drawn."""
        assert self.total is not None
        if not bool(torch.as_tensor(self.squares).isfinite().all()):
            remedy = "Look for overflow or division by zero in the model, or divide its outputs by their size."
            raise NumericsError("model", "outputs of finite square", "nan or infinity", remedy)
        mean = (self.total / self.elements).square().sum(1)
        rest = (self.squares / self.elements - mean).clamp(min=0)
        if not exact:
            rest = rest * self.elements / (self.elements - 1)
            mean = mean - rest / self.elements
        return torch.stack([mean, rest]).cpu()


def invariance_split(
    model: nn.Module | Callable[..., Any],
    inputs: Any,
    action: Action,
    tol: float = 0.05,
    most: int = 256,
    seed: int = 0,
) -> InvarianceSplit:
    r"""Split a function's energy into that of its average over a group and that of the rest.

    .. math:: \mathbb E\|f\|^2 = \mathbb E\|Qf\|^2 + \mathbb E\|f - Qf\|^2, \qquad
        Qf(x) = \mathbb E_g\, \rho_\text{out}(g)^{-1} f(\rho_\text{in}(g) x)

    Over inputs whose law the group keeps, Q is an orthogonal projection. The law here is that of the examples moved by uniform
    elements, so that the identity holds for any examples, to rounding, orbit by orbit.

    Args:
        model: a module or a function of a batch that puts out one tensor, examples along the first axis.
        inputs: a batch, examples along the first axis.
        action: with the action on outputs, which must keep their norm.
        tol: wanted half-width of the 95 % interval of the share of the rest.
        most: groups of more elements are drawn from, afresh for each of 20 groups of examples, until ``tol`` is met or
            ``most`` were drawn.
        seed: of the draws.

    Assumptions: examples drawn independently; intervals come from leaving out one of 20 groups of them at a time.

    Cost: a pass of the model for each element.

    Errors: ``OperandError`` for inputs or outputs that do not fit or an action on outputs that changes their norm,
    ``ModelStateError`` with the module's name for dropout or batch statistics, ``NumericsError`` for outputs that are not
    finite, ``ArgumentError`` for tol or most outside their domain.

    Source: elesedy2021provably.

    Example:
        The first of two numbers is half symmetric: x₁ = (x₁ + x₂)/2 + (x₁ − x₂)/2.

        >>> from lemmata.analysis.invariance import actions
        >>> pairs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> invariance_split(lambda x: x[:, 0], pairs, actions.permutations(2)).share.value
        0.5

    """
    if not tol > 0 or most < _BLOCK:
        raise ArgumentError("tol, most", f"tol > 0 and most ≥ {_BLOCK}", f"{tol}, {most}", "Pass tol=0.05, most=256.")
    if isinstance(model, nn.Module):
        model = snapshot(model, None, None)[0]
    action.check(inputs)
    examples = count(inputs, None, "inputs")
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed), device="cpu")
    parts = order.tensor_split(min(_GROUPS, examples))
    energies = [_Energies(take(inputs, chosen, examples), len(chosen)) for chosen in parts]
    sizes = torch.tensor([len(chosen) for chosen in parts], dtype=torch.float64, device="cpu")
    exact = action.enumerable and action.order <= most
    with torch.no_grad():
        if exact:
            for g in action.elements:
                for group in energies:
                    group.add(model, action, g)
            return _result(energies, sizes, True, tol, seed)
        generator = torch.Generator().manual_seed(seed)
        while True:
            for group in energies:
                for _ in range(_BLOCK):
                    group.add(model, action, action.draw(generator))
            found = _result(energies, sizes, False, tol, seed)
            if found.converged or found.elements + _BLOCK > most:
                return found


def _result(energies: list[_Energies], sizes: Tensor, exact: bool, tol: float, seed: int) -> InvarianceSplit:
    sums = torch.stack([group.split(exact).sum(1) for group in energies], 1)  # (2, groups)
    total, examples, groups = sums.sum(1, keepdim=True), sizes.sum(), len(sizes)
    without = torch.cat([total - sums, total], 1)  # the last column without none
    means = without / torch.cat([examples - sizes, examples[None]])
    both = without.sum(0)
    shares = torch.where(both > 0, without[1] / both.where(both > 0, 1.0), 0.0)
    evaluations = energies[0].elements * int(examples)

    def estimate(values: Tensor, name: str) -> Estimate:
        stderr = jackknife(float(values[-1]), values[:-1], sizes) if groups > 1 else inf
        return Estimate(float(values[-1]), stderr, max(groups - 1, 1), None, evaluations, seed, name)

    share = estimate(shares, "share")
    low, high = share.interval()
    met = (high - low) / 2 <= tol
    share = replace(share, converged=met)
    symmetric, rest = estimate(means[0], "symmetric"), estimate(means[1], "rest")
    return InvarianceSplit(symmetric, rest, share, energies[0].elements, exact, int(examples), met)


def _isometric(action: Action, g: Any, y: Tensor, moved: Tensor) -> None:
    before, after = float(y.double().norm()), float(moved.double().norm())
    if abs(before - after) > 1e-3 * before:
        given = f"{before:.4g} made {after:.4g} by {action.show(g)}"
        remedy = "Split a function whose outputs are invariant or turned; take shifts=0 for motions."
        raise OperandError(f"{action.name} on outputs", "an action that keeps norms", given, remedy)
