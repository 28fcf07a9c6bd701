"""Fisher information: expected under the model, sampled from it, or with the observed targets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, LossError
from .bound import Bound
from .engine import Curvature
from .gauss_newton import GaussNewtonProducts, Middle, OutputMetric
from .layout import Selection
from .objective import Objective, Term
from .weights import Weighting

_FAMILIES: dict[Callable, str] = {
    F.cross_entropy: "categorical",
    F.binary_cross_entropy_with_logits: "bernoulli",
    F.mse_loss: "gaussian",
}
_MODULES: dict[type, Callable] = {
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.MSELoss: F.mse_loss,
}


def single(outputs: list[Tensor], name: str) -> Tensor:
    """The only output of a model."""
    if len(outputs) != 1:
        remedy = "Wrap the model in a module that returns the one tensor that the loss reads."
        raise LossError(f"output that {name} reads", "one tensor", f"{len(outputs)} tensors", remedy)
    return outputs[0]


def shares(weighting: Weighting, term: Term, output: Tensor) -> Tensor:
    """The share of each datum in the batch's loss, shaped like the output with its datum's axes of length one.

    A datum is a position (all axes but the second, that of the classes) for a loss over classes, else one entry of the
    first axis. Class weights count as multiplicities, ignored targets as absent.
    """
    divisor = 1.0 if weighting.total else term.weight
    target = term.target
    if weighting.per_class:
        axis = 1 if output.ndim > 1 else 0
        if target.is_floating_point():
            return torch.full_like(output.select(axis, 0), 1 / divisor).unsqueeze(axis)
        kept = target != weighting.ignored
        if weighting.class_weight is None:
            return (kept.to(output.dtype) / divisor).unsqueeze(axis)
        chosen = weighting.class_weight.to(output)[target.where(kept, 0)]
        return (chosen * kept / divisor).unsqueeze(axis)
    examples = 1.0 if weighting.total else float(output.shape[0])
    return output.new_full((output.shape[0], *[1] * (output.ndim - 1)), 1 / examples)


class ObservedScores(OutputMetric):
    """Σ_n a_n s_n s_nᵀ with a_n a datum's share of the loss and s_n the slope of its loss in the output."""

    name = "observed scores"

    def __init__(self, weighting: Weighting) -> None:
        self.weighting = weighting

    def bind(self, term: Term, outputs: list[Tensor], slopes: list[Tensor]) -> Middle:
        """Outer products of the loss's slopes, which are a_n s_n."""
        output, slope = single(outputs, self.weighting.name).detach(), slopes[0].detach()
        share = shares(self.weighting, term, output)
        if share.shape[0] != output.shape[0] or (share.ndim != output.ndim):
            remedy = "Have the model return one row for each example."
            raise LossError(self.weighting.name, "an output with a row a target", str(tuple(output.shape)), remedy)
        axes = tuple(i - output.ndim for i in range(output.ndim) if share.shape[i] == 1 and output.shape[i] > 1)
        score = torch.where(share > 0, slope / share.where(share > 0, 1), 0)

        def middle(directions: list[Tensor], batched: bool) -> list[Tensor]:
            inner = score * directions[0]
            return [slope * (inner.sum(axes, keepdim=True) if axes else inner)]

        return middle


class ModelScores(OutputMetric):
    """E_y[s sᵀ] with y drawn from the model: in closed form, or as a mean over samples."""

    name = "scores of the model"

    def __init__(self, weighting: Weighting, samples: int | None, seed: int) -> None:
        self.weighting, self.samples, self.seed = weighting, samples, seed
        self.family = _family(weighting)

    def bind(self, term: Term, outputs: list[Tensor], slopes: list[Tensor]) -> Middle:
        """M at the outputs of one batch; the same draws on every pass."""
        output = single(outputs, self.weighting.name).detach()
        if self.family == "categorical":
            return self._categorical(output, shares(self.weighting, term, output), term.index)
        share = 1.0 if self.weighting.total else 1 / output.numel()
        chance = output.sigmoid()
        spread = chance * (1 - chance) if self.family == "bernoulli" else torch.full_like(output, 2.0)
        if self.samples is not None:
            u = self._uniform(output, term.index)
            if self.family == "bernoulli":
                spread = ((u < chance).to(output) - chance).square().mean(0)
            else:  # the squared error is − log N(target; output, 1/2), whose score is 2 (output − target)
                spread = 2 * torch.special.ndtri(u).square().mean(0)
        return lambda directions, batched: [share * spread * directions[0]]

    def _categorical(self, output: Tensor, share: Tensor, index: int) -> Middle:
        axis = (1 if output.ndim > 1 else 0) - output.ndim
        chance = output.softmax(axis)
        if self.samples is None:

            def expected(directions: list[Tensor], batched: bool) -> list[Tensor]:
                weighed = chance * directions[0]
                return [share * (weighed - chance * weighed.sum(axis, keepdim=True))]

            return expected
        u = self._uniform(output.select(axis, 0), index).unsqueeze(axis)
        drawn = (chance.cumsum(axis) < u).sum(axis, keepdim=True).clamp(max=output.shape[axis] - 1)
        scores = chance - torch.zeros_like(chance.expand(u.shape[0], *chance.shape)).scatter_(axis, drawn, 1.0)

        def sampled(directions: list[Tensor], batched: bool) -> list[Tensor]:
            total = torch.zeros_like(directions[0])
            for score in scores:
                total += score * (score * directions[0]).sum(axis, keepdim=True)
            return [share * total / len(scores)]

        return sampled

    def _uniform(self, like: Tensor, index: int) -> Tensor:
        """Uniform numbers in (0, 1), (samples, *shape), that depend on the seed and the batch's place alone."""
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.Generator().manual_seed(int(torch.randint(2**62, (index + 1,), generator=generator)[-1]))
        u = torch.rand(self.samples or 0, *like.shape, generator=draws, dtype=torch.float64)
        return u.clamp(2**-53, 1 - 2**-53).to(like.device, like.dtype).clamp(max=1 - torch.finfo(like.dtype).eps)


def _family(weighting: Weighting) -> str:
    """The distribution whose negative log-likelihood the loss is, per datum."""
    loss = weighting.loss
    function = _MODULES.get(type(loss), loss.func if isinstance(loss, partial) else loss)
    if function not in _FAMILIES:
        remedy = "Use one of them, or la.GGN or la.EmpiricalFisher, which need no likelihood."
        known = "CrossEntropyLoss, BCEWithLogitsLoss or MSELoss, whose likelihood is known"
        raise LossError(weighting.name, known, weighting.name, remedy)
    options: dict[str, Any] = loss.keywords if isinstance(loss, partial) else getattr(loss, "__dict__", {})
    buffers = getattr(loss, "_buffers", {})
    found = {name: options.get(name, buffers.get(name)) for name in ("weight", "pos_weight", "label_smoothing")}
    barred = ("label_smoothing",) if function is F.cross_entropy else ("weight", "pos_weight")
    for name in barred:
        if found[name] is not None and not (isinstance(found[name], float) and found[name] == 0):
            remedy = "Leave it out, or use la.GGN, which takes any loss."
            raise LossError(weighting.name, f"no {name}: with it the loss is no likelihood", f"a {name}", remedy)
    return _FAMILIES[function]


class Fisher(Bound):
    r"""The Fisher information of a model whose loss is a negative log-likelihood, averaged over the inputs of the data.

    .. math:: F = \frac{1}{N} \sum_n J_n^\top\, E_{y \sim p(y | f_n)}[s(y) s(y)^\top]\, J_n, \qquad
        s(y) = -\nabla_f \log p(y | f_n)

    The targets decide only what counts: ignored ones are absent, class weights are multiplicities. Cross-entropy stands
    for a categorical, ``BCEWithLogitsLoss`` for independent Bernoulli, ``MSELoss`` for independent Gaussian variables of
    variance 1/2. With ``samples=None`` the expectation is exact, and F is the :class:`~lemmata.analysis.GGN`; else it is
    the mean over so many draws of y, unbiased, the same in every product.

    Args: those of :class:`~lemmata.analysis.Hessian`, and

        samples: draws of each target, or None for the exact expectation.
        seed: of the draws, made on the CPU whatever the global generator does.

    Shapes: (P, P) with P the number of chosen entries; dtype and device are those of the parameters.

    Cost: that of :class:`~lemmata.analysis.GGN`; with samples also ``samples`` × the size of the outputs.

    Assumptions: the loss sees the parameters through the output alone.

    Errors: ``LossError`` for a loss whose likelihood is not known; else as for :class:`~lemmata.analysis.Hessian`.

    Source: Martens 2020, New insights and perspectives on the natural gradient method.

    Example:
        A biased coin, p = 1/2: the variance of its score is 1/4.

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> Fisher(model, torch.nn.BCEWithLogitsLoss(), (torch.ones(3, 1), torch.ones(3, 1))).dense()
        tensor([[0.2500]])

    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        data: Any,
        params: Selection = "*",
        dtype: torch.dtype | None = None,
        batch_stats: str | None = None,
        memory_cap: int | None = None,
        reduction: str | None = None,
        samples: int | None = None,
        seed: int = 0,
    ) -> None:
        if samples is not None and (not isinstance(samples, int) or samples < 1):
            raise ArgumentError("samples", "an integer ≥ 1, or None", repr(samples), "Pass None for the exact matrix.")
        self.samples, self.seed = samples, seed
        super().__init__(model, loss, data, params, dtype, batch_stats, memory_cap, reduction)

    def _curvature(self, objective: Objective) -> Curvature:
        assert objective.weighting is not None
        return GaussNewtonProducts(ModelScores(objective.weighting, self.samples, self.seed), objective.name)


class EmpiricalFisher(Bound):
    r"""The mean of outer products of the gradients of each datum's loss, at the observed targets.

    .. math:: E = \sum_n a_n\, g_n g_n^\top, \qquad L = \sum_n a_n \ell_n, \quad g_n = \nabla_\theta \ell_n

    with a_n the share of a datum in the loss: 1/N for a mean, 1 for a sum, in proportion to its class weight. A datum is a
    position for losses over classes (all axes of the output but the second), else an entry of the first axis.

    It is not the Fisher information: that takes targets from the model (:class:`~lemmata.analysis.Fisher`).

    Args: those of :class:`~lemmata.analysis.Hessian`.

    Shapes: (P, P) with P the number of chosen entries; dtype and device are those of the parameters.

    Cost: that of :class:`~lemmata.analysis.GGN`.

    Assumptions: the loss is a sum over data of functions of their own outputs, and the gradient of a datum flows through
    its own output only (no batch statistics).

    Errors: a :class:`~lemmata.analysis.errors.LemmataError` that names the culprit and the remedy.

    Source: Kunstner, Balles & Hennig 2019, Limitations of the empirical Fisher approximation.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> data = torch.ones(2, 1), torch.tensor([[1.0], [3.0]])  # gradients −2 and −6
        >>> EmpiricalFisher(model, torch.nn.MSELoss(), data).dense()
        tensor([[20.]])

    """

    def _curvature(self, objective: Objective) -> Curvature:
        assert objective.weighting is not None
        return GaussNewtonProducts(ObservedScores(objective.weighting), objective.name)
