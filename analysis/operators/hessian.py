"""The Hessian of a loss with respect to a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp

from ..errors import DerivativeError
from .bound import Bound
from .differentiable import once_differentiable
from .engine import Curvature, Graph, Parts, explained, slope
from .objective import Objective, Parameters, Term, of_function
from .snapshot import scalar


class GradientGraph(Graph):
    """The gradient of one batch as a differentiable graph: its entries that are not constant, and their indices."""

    def __init__(self, parts: Parts) -> None:
        kept = [(i, part) for i, part in enumerate(parts) if part is not None and part.requires_grad]
        self.active, self.outputs = [i for i, _ in kept], [part for _, part in kept]

    def multiply(self, pieces: list[Tensor], theta: list[Tensor], batched: bool) -> Parts:
        """One backward pass through the gradient."""
        given = [pieces[i] for i in self.active]
        return torch.autograd.grad(
            self.outputs, theta, given, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )


class SecondDerivatives(Curvature):
    """∇²L by reverse over reverse (about 1.5 gradients a product) or forward over reverse (about 3.5, nothing kept)."""

    retained, fresh = "retained reverse-over-reverse", "fresh forward-over-reverse"

    def record(self, term: Term, objective: Objective, retain: bool) -> tuple[Tensor, Parts, Graph | None]:
        """The batch's loss, its gradient, and the gradient's graph."""
        loss = scalar(term.loss(objective.leaves), term.name, objective.name)
        _refuse_once_differentiable(loss, objective)
        with explained(objective):
            parts = slope(loss, list(objective.leaves.values()), retain)
        return loss, parts, GradientGraph(parts) if retain else None

    def apply(self, term: Term, theta: Parameters, vector: Parameters) -> tuple[Parameters, Parameters]:
        """The derivative of the gradient in one direction."""
        gradient: Any = grad(term.loss)
        return jvp(gradient, (theta,), (vector,))[:2]


def _refuse_once_differentiable(loss: Tensor, objective: Objective) -> None:
    name = once_differentiable(loss)
    if name is not None:
        raise DerivativeError(
            objective.name,
            "operations with a second derivative",
            f"{name}, whose backward is marked once_differentiable",
            f"Write the backward of {name} from differentiable operations and remove the mark.",
        )


class Hessian(Bound):
    r"""The Hessian of the mean loss over data, as an operator on flat parameter vectors.

    .. math:: H = \nabla^2_\theta \frac{\sum_b w_b\, \ell_b(\theta)}{\sum_b w_b}

    with ℓ_b the loss of batch b and w_b what its mean divides by: ragged batches, ignored targets and class weights
    give the Hessian of all data in one batch. A loss that sums (``reduction="sum"``) is added up undivided.

    Args:
        model: any ``nn.Module``. It is copied: later changes of the model do not reach the operator, and the operator
            changes nothing of the model (no ``.grad``, no mode, no buffer).
        loss: ``loss(output, target)``, the mean over a batch; modules such as ``nn.CrossEntropyLoss`` and functions of
            ``torch.nn.functional`` (also in ``functools.partial``) are read for reduction, ignored index and weights.
        data: one batch ``(inputs, target)``, a re-iterable of batches, or a ``DataLoader``. Inputs that are a tuple or
            a mapping are passed as ``model(*inputs)`` or ``model(**inputs)``; where inputs and target are both tuples,
            pass ``[(inputs, target)]``, for a pair of tuples reads as two batches.
        params: glob pattern, several, or a predicate over parameter names. ``"*"`` takes every parameter that requires
            a gradient; any other choice takes what it names, frozen parameters too. Tied parameters count once.
        dtype: cast a copy of model, loss and data to this dtype. Without it, all must agree already.
        batch_stats: ``"frozen"`` or ``"batch"``: which statistics BatchNorm layers use. Needed in train mode.
        memory_cap: bytes that retained graphs may take; by default a quarter of the device's memory.
        reduction: ``"mean"`` or ``"sum"`` for a loss that does not say.

    Shapes: (P, P) with P the number of chosen entries; dtype and device are those of the parameters.

    Assumptions: the loss is twice differentiable where it is evaluated (a ReLU network is, off its kinks) and the same
    function on every pass. Parameters that the loss does not reach have zero rows.

    Cost: construction 1.0 – 1.5 gradients. A product 1.5 – 2.5 gradients while the graphs fit ``memory_cap``, else
    about 3.5 and nothing kept. The choice is a rule on bytes, never on time; ``repr`` and :meth:`plan` state it.

    Errors: a :class:`~lemmata.analysis.errors.LemmataError` that names the culprit and the remedy.

    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian.

    Example:
        Linear regression has H = (2/N) XᵀX:

        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
        >>> H = Hessian(model, torch.nn.MSELoss(), (X, torch.zeros(2, 1)))
        >>> H @ torch.tensor([1.0, 0.0])
        tensor([2., 2.])

    """

    @classmethod
    def of(
        cls,
        objective: Callable[[dict[str, Tensor]], Tensor],
        parameters: Mapping[str, Tensor],
        memory_cap: int | None = None,
    ) -> Hessian:
        """The Hessian of any scalar function of named tensors, at copies of ``parameters``.

        Example:
            >>> H = Hessian.of(lambda p: (p["x"] ** 3).sum(), {"x": torch.tensor([1.0, 2.0])})
            >>> H.dense()
            tensor([[ 6.,  0.],
                    [ 0., 12.]])

        """
        hessian = cls.__new__(cls)
        with torch.inference_mode(False), torch.enable_grad():
            hessian._bind(of_function(objective, parameters), memory_cap)
        return hessian

    def _curvature(self, objective: Objective) -> Curvature:
        return SecondDerivatives()
