"""Products Jᵀ M J, with J the Jacobian of a model's output and M a matrix on outputs: the generalised Gauss–Newton matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..errors import LossError
from .bound import Bound
from .engine import Curvature, Graph, Parts, explained, slope
from .linearised import Linearised
from .objective import Objective, Parameters, Term, of_composition
from .snapshot import scalar

#: Multiplies directions of the outputs, one each or a stack of them if the flag says so.
Middle = Callable[[list[Tensor], bool], list[Tensor]]


class OutputMetric(ABC):
    """The matrix M between the Jacobians: symmetric, on the outputs of one batch."""

    name: str

    @abstractmethod
    def bind(self, term: Term, outputs: list[Tensor], slopes: list[Tensor]) -> Middle:
        """M at these outputs. The slopes are ∂ loss / ∂ outputs, as functions of the outputs that autograd can follow."""


class LossHessian(OutputMetric):
    """The second derivatives of the loss with respect to the outputs, by autograd."""

    name = "loss Hessian"

    def bind(self, term: Term, outputs: list[Tensor], slopes: list[Tensor]) -> Middle:
        """Keep the graph of the slopes; where a slope is constant, M is zero."""
        curved = [(i, part) for i, part in enumerate(slopes) if part.requires_grad]

        def middle(directions: list[Tensor], batched: bool) -> list[Tensor]:
            if not curved:
                return [torch.zeros_like(part) for part in directions]
            given = [directions[i] for i, _ in curved]
            parts = torch.autograd.grad(
                [part for _, part in curved],
                outputs,
                given,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=batched,
            )
            return [torch.zeros_like(d) if part is None else part for part, d in zip(parts, directions, strict=True)]

        return middle


class GaussNewtonGraph(Graph):
    """The linearised outputs of one batch, and the matrix between the Jacobians."""

    def __init__(self, results: list[Tensor], slopes: list[Tensor], middle: Middle, theta: list[Tensor]) -> None:
        self.linearised, self.middle = Linearised(results, theta, slopes), middle
        self.outputs = [*self.linearised.outputs, *slopes]

    def multiply(self, pieces: list[Tensor], theta: list[Tensor], batched: bool) -> Parts:
        """Three backward passes, the middle one through the loss alone."""
        moved = self.linearised.push(pieces, batched)
        return self.linearised.pull(self.middle(moved, batched), batched)


class GaussNewtonProducts(Curvature):
    """Jᵀ M J by retained reverse graphs (about 1.4 gradients a product), or by one forward and one reverse pass."""

    retained, fresh = "retained Jacobian graphs", "fresh forward and reverse"

    def __init__(self, metric: OutputMetric, loss: str) -> None:
        self.metric, self.loss = metric, loss

    def evaluate(self, term: Term, objective: Objective) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """The loss, the outputs with their graph, the same detached, and the loss's slopes in these, for one batch."""
        assert term.output is not None
        leaves, places, rebuild = _floats(term.output(objective.leaves), self.loss)
        live = [i for i in places if leaves[i].requires_grad]
        results = [leaves[i] for i in live]
        loss, outputs, slopes = self._loss(term, results, lambda parts: rebuild(dict(zip(live, parts, strict=True))))
        return loss, results, outputs, slopes

    def record(self, term: Term, objective: Objective, retain: bool) -> tuple[Tensor, Parts, Graph | None]:
        """The batch's loss, its gradient, and the graphs of outputs and Jacobian."""
        theta = list(objective.leaves.values())
        loss, results, outputs, slopes = self.evaluate(term, objective)
        with explained(objective):
            if retain:  # the Jacobian's graph, built at the slopes, holds the gradient
                graph = GaussNewtonGraph(results, slopes, self.metric.bind(term, outputs, slopes), theta)
                return loss, graph.linearised.pulled, graph
            given = [part.detach() for part in slopes]
            return loss, torch.autograd.grad(results, theta, given, allow_unused=True), None

    def _loss(
        self, term: Term, results: Sequence[Tensor], rebuild: Callable[[list[Tensor]], Any]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The loss at detached outputs, these outputs, and the loss's slopes in them."""
        assert term.criterion is not None
        with torch.enable_grad():
            outputs = [part.detach().requires_grad_() for part in results]
            loss = scalar(term.criterion(rebuild(outputs)), term.name, self.loss)
            parts = slope(loss, outputs, True)
        return loss, outputs, [torch.zeros_like(o) if p is None else p for o, p in zip(outputs, parts, strict=True)]

    def apply(self, term: Term, theta: Parameters, vector: Parameters) -> tuple[Parameters, Parameters]:
        """One pass with tangents, one without, and two pulled back: the gradient's and the product's."""
        evaluate = term.output
        assert evaluate is not None
        places, rebuild = _floats(evaluate(theta), self.loss)[1:]

        def floats(parameters: Parameters) -> tuple[Tensor, ...]:
            leaves = _opened(evaluate(parameters))[0]
            return tuple(leaves[i] for i in places)

        results, moved = jvp(floats, (theta,), (vector,))[:2]
        _, outputs, slopes = self._loss(term, results, lambda parts: rebuild(dict(zip(places, parts, strict=True))))
        turned = self.metric.bind(term, outputs, slopes)([part.detach() for part in moved], False)
        pull = vjp(floats, theta)[1]
        return pull(tuple(part.detach() for part in slopes))[0], pull(tuple(turned))[0]


def _floats(output: Any, loss: str) -> tuple[list[Any], list[int], Callable[[Mapping[int, Tensor]], Any]]:
    """The leaves of a model's output, the places of its real tensors, and how to put others in these places."""
    leaves, closed = _opened(output)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not places:
        remedy = "Have the model return a floating-point tensor, or a tuple or mapping of some."
        raise LossError(f"output that {loss} reads", "floating-point tensors", type(output).__name__, remedy)

    def rebuild(parts: Mapping[int, Tensor]) -> Any:
        return closed([parts.get(i, leaf) for i, leaf in enumerate(leaves)])

    return leaves, places, rebuild


def _opened(output: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of an output and its inverse, also for mappings of types that PyTorch's trees take for leaves."""
    leaves, structure = tree_flatten(output)
    if not isinstance(output, Mapping) or len(leaves) != 1 or leaves[0] is not output:
        return leaves, lambda parts: tree_unflatten(parts, structure)
    kind: Any = type(output)
    leaves, structure = tree_flatten(dict(output))
    return leaves, lambda parts: kind(tree_unflatten(parts, structure))


class GGN(Bound):
    r"""The generalised Gauss–Newton matrix of the mean loss over data.

    .. math:: G = \frac{\sum_b w_b\, J_b^\top\, \nabla^2_f \ell_b\, J_b}{\sum_b w_b}

    with J_b the Jacobian of the model's output f on batch b and ∇²_f ℓ_b the second derivatives of the loss with respect
    to that output, by autograd: exact for every loss. It is the Hessian of a model that was made linear in its
    parameters, and positive semidefinite where the loss is convex in the output.

    Args: those of :class:`~lemmata.analysis.Hessian`. The output may be a tensor, or a tuple or mapping of tensors.

    Shapes: (P, P) with P the number of chosen entries; dtype and device are those of the parameters.

    Cost: construction about 1.5 gradients. A product about 1.4 gradients while the graphs fit ``memory_cap`` (the floor
    of dense layers is 4/3), else about 2.7 and nothing kept.

    Assumptions: the loss sees the parameters through the output alone.

    Errors: a :class:`~lemmata.analysis.errors.LemmataError` that names the culprit and the remedy.

    Source: Schraudolph 2002, Fast curvature matrix–vector products for second-order gradient descent.

    Example:
        Linear regression has G = H = (2/N) XᵀX:

        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
        >>> GGN(model, torch.nn.MSELoss(), (X, torch.zeros(2, 1))).dense()
        tensor([[2., 2.],
                [2., 4.]])

    """

    @classmethod
    def of(
        cls,
        output: Callable[[dict[str, Tensor]], Any],
        loss: Callable[[Any], Tensor],
        parameters: Mapping[str, Tensor],
        memory_cap: int | None = None,
    ) -> GGN:
        """The matrix of ``loss(output(parameters))``, for any function of named tensors, at copies of them.

        Example:
            >>> square = lambda f: (f**2).sum()
            >>> G = GGN.of(lambda p: p["x"] ** 2, square, {"x": torch.tensor([1.0, 2.0])})
            >>> G.dense()  # J = diag(2, 4), ∇²loss = 2
            tensor([[ 8.,  0.],
                    [ 0., 32.]])

        """
        ggn = cls.__new__(cls)
        with torch.inference_mode(False), torch.enable_grad():
            ggn._bind(of_composition(output, loss, parameters), memory_cap)
        return ggn

    def _curvature(self, objective: Objective) -> Curvature:
        return GaussNewtonProducts(LossHessian(), objective.name)
