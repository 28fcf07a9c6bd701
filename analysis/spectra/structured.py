"""Gauss–Newton matrices from the gradients of single examples: exact trace, diagonal and spectrum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import OperandError
from ..operators.base import Operator, as_operator
from ..operators.bound import Bound
from ..operators.gauss_newton import GaussNewtonProducts, LossHessian, Middle
from ..operators.hessian import Hessian
from ..operators.objective import Objective, Term
from ..operators.per_example import Recorder, Use, edges, halves
from .affine import affine_in_each
from .probes import ALLOWANCE, wide

T = TypeVar("T")

_TINY = 1e-3  # share of the largest eigenvalue of an example's loss Hessian, up to which it may be taken for rounding
WIDEST = 128  # entries of one example's output, up to which a backward pass for each beats random probes


class NotStructured(RuntimeError):
    """The gradients of single examples cannot be had cheaply."""


@dataclass(frozen=True)
class Record:
    """The graph of one batch: the uses of parameters by layers, the model's output, and the loss's slopes in it."""

    uses: list[Use]
    output: Tensor
    slopes: Tensor
    middle: Middle
    weight: float
    size: float


@dataclass(frozen=True)
class Part:
    """One batch: slopes in the layers' outputs for each column of a factor of the weighed loss Hessian, and signs."""

    uses: list[Use]
    output: Tensor
    columns: list[Tensor]
    signs: list[Tensor]
    size: float

    def inputs(self) -> list[Tensor]:
        """What each layer multiplies, in float32 at least, so that squares do not vanish."""
        return [wide(use.inputs()) for use in self.uses]

    def slopes(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        """One backward pass a column: δ in each layer, and the sign of each example."""
        outputs = [use.output for use in self.uses]
        for column, sign in zip(self.columns, self.signs, strict=True):
            given = torch.autograd.grad(self.output, outputs, column, retain_graph=True, allow_unused=True)
            yield [wide(torch.zeros_like(o) if g is None else g) for o, g in zip(outputs, given, strict=True)], sign


@dataclass(frozen=True)
class Sum:
    """A number as a sum over batches: their parts, (B,), their sizes, and a bound on the rounding of the sum."""

    parts: Tensor
    sizes: tuple[float, ...]
    bias: float

    @property
    def value(self) -> float:
        """The sum."""
        return float(self.parts.sum())


class PerExample:
    r"""A matrix :math:`\sum_n J_n^\top M_n J_n` by the gradients :math:`J_n^\top b_{nr}`, with Σ_r ± b bᵀ = M_n.

    ``value`` is the objective's, by which a walk over the data is known to bring what the operator was made of.

    Errors: its methods raise :class:`NotStructured` unless every parameter is used once, by a linear layer or an
    ungrouped 2-d convolution, examples do not see each other, the data are those of the operator, and (but for
    :meth:`records`) an output has at most 128 entries.
    """

    def __init__(self, objective: Objective, products: GaussNewtonProducts, value: float) -> None:
        self.objective, self.products, self.value = objective, products, value
        self.theta = list(objective.leaves.values())
        self.passes = 0

    def records(self) -> Iterator[Record]:
        """The graphs of the batches, one in memory at a time."""
        divisor = sum(term.weight for term in self.objective.terms()) if self.objective.divide else 1.0
        total, eps = 0.0, torch.finfo(self.objective.dtype).eps
        for term in self.objective.terms():
            if term.output is None:
                raise NotStructured
            with torch.inference_mode(False), torch.enable_grad():
                record, loss = self._record(term, term.weight / divisor)
            total += term.weight / divisor * loss
            yield record
        if not abs(total - self.value) <= max(eps**0.5, 1e-6) * abs(self.value) + eps:
            raise NotStructured  # other data than at construction: a product says so, or kept its graphs

    def parts(self) -> Iterator[Part]:
        """The batches with the columns of their loss Hessians."""
        for record in self.records():
            if record.output.numel() > WIDEST * len(record.output):
                raise NotStructured
            with torch.inference_mode(False), torch.enable_grad():
                columns, signs = _factor(record.output, record.middle, record.weight)
            self.passes = max(self.passes, len(columns))
            yield Part(record.uses, record.output, columns, signs, record.size)

    def trace(self) -> Sum:
        """Σ ± ‖J_nᵀ b‖²."""
        rows, sizes = [], []
        for part in self.parts():
            total = torch.zeros(2, dtype=torch.float64, device=self.objective.device)
            inputs = part.inputs()
            for slopes, sign in part.slopes():
                for use, a, slope in zip(part.uses, inputs, slopes, strict=True):
                    norms = use.norms(slope, a).double()
                    total += torch.stack([norms @ sign.double(), norms.sum()])
            rows.append(total)
            sizes.append(part.size)
        parts, magnitudes = torch.stack(rows).cpu().T
        return Sum(parts, tuple(sizes), ALLOWANCE * torch.finfo(self.objective.dtype).eps * float(magnitudes.sum()))

    def diagonal(self) -> Tensor:
        """Σ ± (J_nᵀ b)², entry by entry, (P,), in float64."""
        total = [torch.zeros(leaf.shape, dtype=torch.float64, device=leaf.device) for leaf in self.theta]
        for part in self.parts():
            inputs = part.inputs()
            for slopes, sign in part.slopes():
                for use, a, slope in zip(part.uses, inputs, slopes, strict=True):
                    for place, square in use.squares(slope, a, wide(sign)):
                        total[place] += square.reshape(total[place].shape)
        return torch.cat([piece.reshape(-1) for piece in total])

    def _record(self, term: Term, weight: float) -> tuple[Record, float]:
        with Recorder(self.theta) as recorder:
            loss, results, outputs, slopes = self.products.evaluate(term, self.objective)
        if len(results) != 1 or results[0].ndim < 1:
            raise NotStructured
        output, uses = results[0], recorder.uses
        _each_parameter_once(output, uses, self.theta)
        middle = self.products.metric.bind(term, outputs, slopes)
        _examples_apart(output, uses, middle)
        return Record(uses, output, slopes[0], middle, weight, term.size), float(loss.detach())


def _factor(output: Tensor, middle: Middle, weight: float) -> tuple[list[Tensor], list[Tensor]]:
    """Columns b_r of all examples, shaped like the output, and their signs: eigenvectors of each M_n."""
    count, width = len(output), output[0].numel()
    eye = torch.eye(width, dtype=output.dtype, device=output.device)
    units = eye[:, None].expand(width, count, width).reshape(width, *output.shape)
    rows = middle([units], width > 1) if width > 1 else [middle([units[0]], False)[0][None]]
    blocks = rows[0].detach().double().reshape(width, count, width).permute(1, 0, 2) * weight
    values, vectors = torch.linalg.eigh((blocks + blocks.transpose(1, 2)) / 2)
    bound = min(4 * torch.finfo(output.dtype).eps, _TINY) * values.abs().amax(1, keepdim=True)
    values = values.where(values.abs() > bound, 0)  # what is rounding takes no backward pass
    kept = [r for r in range(width) if bool(values[:, r].any())]
    columns = [(vectors[:, :, r] * values[:, r].abs().sqrt()[:, None]).reshape(output.shape).to(output) for r in kept]
    return columns, [wide(values[:, r].sign().to(output)) for r in kept]


def _each_parameter_once(output: Tensor, uses: list[Use], theta: list[Tensor]) -> None:
    """Every edge of the graph that leads to a parameter must be a recorded use, one for each parameter."""
    recorded = [place for use in uses for place in use.places]
    reached = [place for place, leaf in enumerate(theta) for _ in range(edges(output).get(id(leaf), 0))]
    missed = set(reached) - set(recorded)
    if missed or len(reached) != len(set(reached)) or len(recorded) != len(set(recorded)):
        raise NotStructured
    if any(use.output.grad_fn is None or len(use.output) != len(output) for use in uses):
        raise NotStructured


def _examples_apart(output: Tensor, uses: list[Use], middle: Middle) -> None:
    """A random half of the examples must have no influence on the slopes of the other half."""
    for seeds, others in halves(output):
        found = torch.autograd.grad(output, [use.output for use in uses], seeds, retain_graph=True, allow_unused=True)
        for slope in (*found, middle([seeds], False)[0]):
            if slope is not None and bool(slope[others].count_nonzero()):
                raise NotStructured


def exactly(operator: Operator, quantity: Callable[[PerExample], T]) -> tuple[T, int] | None:
    """A quantity of a Gauss–Newton matrix (of a Hessian's GGN), and its backward passes; None where it has no structure."""
    if not isinstance(operator, Bound):
        return None
    structure = structure_of(operator)
    try:
        return quantity(structure), structure.passes
    except RuntimeError:  # NotStructured, or an operation that PyTorch cannot batch
        return None


def structure_of(operator: Bound) -> PerExample:
    """The Gauss–Newton matrix of an operator by its examples, not yet known to be of such a kind; a Hessian's GGN."""
    objective = _objective(operator)
    products = operator._curvature(objective)
    if not isinstance(products, GaussNewtonProducts):
        products = GaussNewtonProducts(LossHessian(), objective.name)
    return PerExample(objective, products, operator._start.value)


def _objective(operator: Bound) -> Objective:
    engine: Any = operator._start.engine
    return engine.objective


def diagonal_is_gauss_newton(operator: Hessian) -> bool:
    """Does a Hessian have the diagonal of its GGN, because the model is piecewise affine in each single parameter?"""
    objective = _objective(operator)
    products = GaussNewtonProducts(LossHessian(), objective.name)
    with torch.inference_mode(False), torch.enable_grad():
        for term in objective.terms():
            results = products.evaluate(term, objective)[1] if term.output is not None else []
            if len(results) != 1 or not affine_in_each(results[0]):
                return False
    return True


def gram_cost(operator: Operator) -> tuple[int, int] | None:
    """Rows and backward passes that :func:`gram_spectrum` takes; None for an operator without structure or one batch."""
    found = exactly(operator, lambda structure: [len(part.output) * len(part.columns) for part in structure.parts()])
    return (found[0][0], found[1]) if found and len(found[0]) == 1 else None


def gram_spectrum(operator: Operator) -> Tensor:
    r"""All non-zero eigenvalues of a Gauss–Newton matrix, from the Gram matrix of its examples' gradients.

    .. math:: G = S^\top S,\quad S_{(n,r)} = J_n^\top b_{nr} \qquad\Rightarrow\qquad
        \mathrm{spec}(G) \setminus 0 = \mathrm{spec}(S S^\top) \setminus 0

    Args:
        operator: a :class:`~lemmata.analysis.GGN`, Fisher or EmpiricalFisher over one batch, of a model of linear and
            2-d convolutional layers that use each parameter once, with a loss that is convex in the output.

    Shapes: (N R,), descending, float64 on the CPU, R the largest rank of a loss Hessian (C − 1 for cross-entropy).

    Cost: R backward passes, (N R)² numbers and (N R)³ operations: it pays where N R is below a few thousand and P above.

    Errors: ``OperandError`` for any other operator.

    Source: Dangel, Tatzel & Hennig 2022, ViViT: curvature access through the generalized Gauss–Newton's low-rank
    structure.

    Example:
        >>> from lemmata.analysis import GGN
        >>> X = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> gram_spectrum(GGN(model, torch.nn.MSELoss(), (X, torch.zeros(2, 1))))  # (2/N) XᵀX
        tensor([4., 1.], dtype=torch.float64)

    """
    operator = as_operator(operator)
    found = None if isinstance(operator, Hessian) else exactly(operator, lambda structure: list(structure.parts()))
    remedy = "Use la.eigenpairs or la.spectral_density, which take any operator."
    if found is None:
        expected = "a Gauss–Newton matrix of linear and 2-d convolutional layers, each parameter used once"
        raise OperandError("operator", expected, repr(operator), remedy)
    parts = found[0]
    if len(parts) != 1:
        raise OperandError("operator", "one batch", f"{len(parts)} batches", "Pass the data as one batch.")
    curvatures = torch.stack(
        [c.flatten(1).square().sum(1) * s for c, s in zip(parts[0].columns, parts[0].signs, strict=True)]
    )
    rounding = 1000 * torch.finfo(curvatures.dtype).eps * float(curvatures.abs().max())
    if float(curvatures.min()) < -rounding:
        raise OperandError("operator", "a loss that is convex in the output", "negative curvature of the loss", remedy)
    slopes = [layers for layers, _ in parts[0].slopes()]  # where a sign is −1, the curvature is rounding
    width = len(parts[0].output) * len(slopes)
    total = torch.zeros(width, width, dtype=torch.float64, device="cpu")
    for index, use in enumerate(parts[0].uses):
        total += use.kernel([layers[index] for layers in slopes], wide(use.inputs())).to("cpu", torch.float64)
    return torch.linalg.eigvalsh(total).flip(0)
