"""The Gauss–Newton matrix of cross-entropy, taken apart by classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, LossError
from ..operators.base import Operator
from ..operators.bound import Bound
from ..operators.engine import Curvature, flat
from ..operators.fisher import _family, shares, single
from ..operators.gauss_newton import GGN, GaussNewtonProducts, LossHessian, Middle, OutputMetric
from ..operators.layout import Selection
from ..operators.objective import Objective, Term, of_model
from ..operators.weights import Weighting
from .gradients import bound
from .low_rank import LowRank

#: The four parts, in the order of the decomposition.
PARTS = ("class", "cross", "within", "same")


class ClassScores(OutputMetric):
    """Σ_c' w_nc' s_nc' s_nc'ᵀ with s_nc' = p_n − e_c', over the datum's own class, or over all others."""

    name = "scores of the classes"

    def __init__(self, weighting: Weighting, own: bool) -> None:
        self.weighting, self.own = weighting, own

    def bind(self, term: Term, outputs: list[Tensor], slopes: list[Tensor]) -> Middle:
        """The weights w and the chances p at these outputs."""
        chance, weight, own, axis = _weights(self.weighting, term, single(outputs, self.weighting.name).detach())
        weight = weight * (own if self.own else ~own)

        def middle(directions: list[Tensor], batched: bool) -> list[Tensor]:
            inner = weight * ((chance * directions[0]).sum(axis, keepdim=True) - directions[0])
            return [chance * inner.sum(axis, keepdim=True) - inner]

        return middle


class _OwnClass(Bound):
    """Σ_n w_nc g_nc g_ncᵀ with c the datum's own class."""

    def _curvature(self, objective: Objective) -> Curvature:
        assert objective.weighting is not None
        return GaussNewtonProducts(ClassScores(objective.weighting, True), objective.name)


class _OtherClasses(Bound):
    """Σ_n Σ_{c' ≠ c} w_nc' g_nc' g_nc'ᵀ with c the datum's own class."""

    def _curvature(self, objective: Objective) -> Curvature:
        assert objective.weighting is not None
        return GaussNewtonProducts(ClassScores(objective.weighting, False), objective.name)


def _weights(weighting: Weighting, term: Term, output: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """p, w = share × p, whether a class is the datum's own, all shaped like the output; and the axis of the classes."""
    target, axis = term.target, (1 if output.ndim > 1 else 0) - output.ndim
    if not isinstance(target, Tensor) or target.is_floating_point():
        given = str(target.dtype) if isinstance(target, Tensor) else type(target).__name__
        raise LossError(
            f"target of {term.name}", "class indices", given, "Pass targets.argmax(1): each datum needs a class."
        )
    share, chance = shares(weighting, term, output), output.softmax(axis)
    place = target.where(target != weighting.ignored, 0).unsqueeze(axis)
    own = torch.zeros_like(output, dtype=torch.bool).scatter_(axis, place, True)
    return chance, share * chance, own, axis


@dataclass(frozen=True, repr=False)
class ClassStructure:
    r"""The Gauss–Newton matrix of cross-entropy and its four parts.

    Attributes:
        ggn: the whole matrix, from the second derivatives of the loss.
        parts: ``"class"``, ``"cross"``, ``"within"`` and ``"same"``, each an operator; their sum is ``ggn`` to rounding.
        weights: π, (C, C), float64 on the CPU; row c belongs to the data of class c, the diagonal is 0. They add up to
            1 less the mean chance of the own class (for a mean loss).
        means: the cross-class means g_cc', (C, C, P), in the dtype and on the device of the parameters; 0 where π is 0.

    """

    ggn: GGN
    parts: dict[str, Operator]
    weights: Tensor
    means: Tensor

    def without(self, part: str) -> Operator:
        """The knockout: the whole matrix less one of its parts, positive semidefinite to rounding."""
        if part not in PARTS:
            raise ArgumentError("part", f"one of {list(PARTS)}", repr(part), "Choose one of them.")
        return self.ggn - self.parts[part]

    def eigenvalues(self, part: str) -> Tensor:
        """All non-zero eigenvalues of the part ``"class"``, (C,), or ``"cross"``, (C²,), descending, from a Gram matrix.

        They are exact to rounding. At most C (C − 2) of the cross-class ones are not zero.
        """
        operator = self.parts.get(part)
        if not isinstance(operator, LowRank):
            remedy = "For the others use la.eigenpairs(structure.parts['within'], k)."
            raise ArgumentError("part", "'class' or 'cross', which have low rank", repr(part), remedy)
        return operator.spectrum()

    def __repr__(self) -> str:
        count = len(self.weights)
        leading = ", ".join(
            f"{part} {float(self.eigenvalues(part)[0]):.4g}" for part in PARTS if isinstance(self.parts[part], LowRank)
        )
        return f"ClassStructure({count} classes, {self.ggn.shape[0]} parameters; leading eigenvalues: {leading})"


def class_structure(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    memory_cap: int | None = None,
    reduction: str | None = None,
) -> ClassStructure:
    r"""The Gauss–Newton matrix of cross-entropy as a sum over classes, pairs of classes, and data.

    .. math:: G = \sum_{n, c'} w_{nc'}\, g_{nc'} g_{nc'}^\top
        = \underbrace{\sum_c \pi_c\, g_c g_c^\top}_{\text{class}}
        + \underbrace{\sum_{c \ne c'} \pi_{cc'} (g_{cc'} - g_c)(g_{cc'} - g_c)^\top}_{\text{cross}}
        + \underbrace{\sum_n \sum_{c' \ne c_n} w_{nc'} (g_{nc'} - g_{c_n c'})(g_{nc'} - g_{c_n c'})^\top}_{\text{within}}
        + \underbrace{\sum_n w_{nc_n}\, g_{nc_n} g_{nc_n}^\top}_{\text{same}}

    with :math:`g_{nc'} = J_n^\top (p_n - e_{c'})` the gradient that datum n would have if its class were c', and
    :math:`w_{nc'} = a_n p_{nc'}` its share of the loss times the model's chance of c'. The means are weighted:
    :math:`\pi_{cc'} = \sum_{n \in c} w_{nc'}`, :math:`g_{cc'} = \sum_{n \in c} w_{nc'} g_{nc'} / \pi_{cc'}`,
    :math:`\pi_c = \sum_{c' \ne c} \pi_{cc'}`, :math:`g_c = \sum_{c' \ne c} \pi_{cc'} g_{cc'} / \pi_c`.

    Args:
        model, data, params, dtype, batch_stats, memory_cap, reduction: as for :class:`~lemmata.analysis.Hessian`; the
            targets are class indices, and the cap is that of each of three operators.
        loss: cross-entropy, as ``nn.CrossEntropyLoss`` or ``F.cross_entropy``, without label smoothing. Class weights
            are multiplicities, ignored targets absent; a datum is a position where the output has some.

    Cost: construction takes C(C − 1) backward passes over each batch; classes that a batch lacks are skipped, so that
    batches of one class each are C times cheaper. C² P numbers are held for the means, and two more sets of C and C²
    vectors. A product with the class or cross part takes 4 C² P operations, with any other that of a GGN.

    Assumptions: those of :class:`~lemmata.analysis.Hessian`. The within part is a difference of two matrices: its
    rounding is relative to the whole.

    Errors: ``LossError`` for another loss, label smoothing, or targets that are no class indices; those of the Hessian.

    Source: Papyan 2019, Measurements of three-level hierarchical structure in the outliers in the spectrum of deepnet
    Hessians; Papyan 2020, Traces of class/cross-class structure pervade deep learning spectra.

    Example:
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)  # p = 1/2: every gradient is ± (1/2, −1/2) x
        >>> data = (torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
        >>> structure = class_structure(model, torch.nn.CrossEntropyLoss(), data)
        >>> [round(value, 4) for value in structure.eigenvalues("class").tolist()]  # π = 1/2, mean x = 2
        [1.0, 0.0]

    """
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, dtype, batch_stats, reduction)
    weighting = objective.weighting
    assert weighting is not None
    if _family(weighting) != "categorical":
        remedy = "Use la.GGN for other losses: they have no classes."
        raise LossError(weighting.name, "cross-entropy over class indices", weighting.name, remedy)
    whole = bound(GGN, objective, memory_cap)
    weights, sums = _sums(objective, weighting)
    means = torch.where(weights > 0, sums / weights.where(weights > 0, 1), 0)
    per_class = weights.sum(1)
    class_means = torch.where(per_class > 0, sums.sum(1) / per_class.where(per_class > 0, 1), 0)
    layout = objective.layout
    deviations = weights.sqrt() * (means - class_means[:, None])
    within = bound(_OtherClasses, objective, memory_cap) - LowRank((weights.sqrt() * means).flatten(0, 1), layout)
    parts: dict[str, Operator] = {
        "class": LowRank(per_class.sqrt() * class_means, layout),
        "cross": LowRank(deviations.flatten(0, 1), layout),
        "within": within,
        "same": bound(_OwnClass, objective, memory_cap),
    }
    return ClassStructure(whole, parts, weights[..., 0].to("cpu", torch.float64), means)


def _sums(objective: Objective, weighting: Weighting) -> tuple[Tensor, Tensor]:
    """π, (C, C, 1), and Σ_{n ∈ c} w_nc' g_nc', (C, C, P)."""
    divisor = sum(term.weight for term in objective.terms()) if objective.divide else 1.0
    products, theta = GaussNewtonProducts(LossHessian(), objective.name), list(objective.leaves.values())
    weights = sums = torch.zeros(0)
    for term in objective.terms():
        with torch.inference_mode(False), torch.enable_grad():
            output = single(products.evaluate(term, objective)[1], objective.name)
        chance, weight, own, axis = _weights(weighting, term, output.detach())
        scale = term.weight / divisor
        if not sums.numel():
            count = output.shape[axis]
            weights = torch.zeros(count, count, 1, dtype=output.dtype, device=output.device)
            sums = torch.zeros(count, count, objective.layout.size, dtype=output.dtype, device=output.device)
        for c, other, selected in _pairs(weight, own, axis):
            weights[c, other] += scale * selected.sum()
            slope = chance * selected.unsqueeze(axis)
            slope.select(axis, other).sub_(selected)
            parts = torch.autograd.grad(output, theta, slope, retain_graph=True, allow_unused=True)
            sums[c, other].add_(flat(parts, theta, 1)[0], alpha=scale)
    return weights, sums


def _pairs(weight: Tensor, own: Tensor, axis: int) -> Iterator[tuple[int, int, Tensor]]:
    """The pairs c ≠ c' of a batch, and w_nc' of the data of class c, 0 for the others."""
    for c in range(weight.shape[axis]):
        mine = own.select(axis, c) & (weight.select(axis, c) > 0)
        if bool(mine.any()):
            for other in range(weight.shape[axis]):
                if other != c:
                    yield c, other, weight.select(axis, other) * mine
