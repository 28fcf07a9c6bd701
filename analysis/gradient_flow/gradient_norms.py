"""The norms of single examples' gradients, without the gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import CheckpointError

from ..checks import tolerance_of
from ..curvature.evaluation import _divisors, undisturbed
from ..errors import DataError, LossError, ModelStateError
from ..operators.data import Batches, count, take
from ..operators.differentiable import Differentiable
from ..operators.engine import no_slow_vmap, slope
from ..operators.layout import Selection
from ..operators.memory import device_memory, graph_bytes
from ..operators.objective import Objective, Term, of_model
from ..operators.snapshot import Watch, scalar
from ..spectra.results import Estimate
from .taps import Taps

_HELD = 2**25  # bytes of a graph that are kept at a time on the CPU: more examples gain nothing there
_SHARE = 16  # of an accelerator's memory, that a graph may take
_ENTRIES = 2**22  # numbers of single examples' gradients that are formed at a time


@dataclass(frozen=True, repr=False, eq=False)
class GradientNorms:
    r"""‖∇ℓ_n‖ of every example, parameter by parameter.

    Attributes:
        names: of the p parameters.
        squares: \|∇ℓ_n\|² of each example and parameter, (N, p), float64 on the CPU.
        formed: the parameters whose single gradients had to be formed, by vmap or one after another.

    """

    names: tuple[str, ...]
    squares: Tensor
    formed: tuple[str, ...]

    @property
    def norms(self) -> Tensor:
        """The norm of each example's whole gradient, (N,)."""
        return self.squares.sum(1).sqrt()

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, name: str) -> Tensor:
        """The norms of each example's gradient of one parameter, (N,)."""
        return self.squares[:, self.names.index(name)].sqrt()

    @property
    def mean(self) -> Estimate:
        """The mean norm over draws of the data: its error is that of N independent examples."""
        norms, n = self.norms, len(self)
        stderr = float(norms.std() / n**0.5) if n > 1 else float("inf")
        return Estimate(float(norms.mean()), stderr, max(1, n - 1), None, 0, 0, "mean over examples")

    def __repr__(self) -> str:
        norms = self.norms
        low, middle, high = norms.quantile(torch.tensor([0.0, 0.5, 1.0], dtype=norms.dtype)).tolist()
        formed = f"; formed for {', '.join(self.formed)}" if self.formed else ""
        return f"GradientNorms({len(self)} examples, {low:.3g} to {high:.3g}, median {middle:.3g}{formed})"

    def plot(self, ax: Any = None) -> Any:
        """The share of examples whose norm is at most x; returns the axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        ax.ecdf(self.norms.numpy())
        ax.set(xscale="log", xlabel="norm of an example's gradient", ylabel="share of examples")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {"names": list(self.names), "squares": self.squares.tolist(), "formed": list(self.formed)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GradientNorms:
        """The inverse of :meth:`to_dict`."""
        squares = torch.tensor(record["squares"], dtype=torch.float64)
        return cls(tuple(record["names"]), squares, tuple(record["formed"]))


class _Walk:
    """One pass over batches of independent examples; each batch is taken in pieces that fit the memory."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.leaves = objective, list(objective.leaves.values())
        assert objective.weighting is not None and objective.apply is not None  # of_model gives both
        self.weighting, self.apply = objective.weighting, objective.apply
        for parameter in (p for name, p in objective.fixed.items() if name not in objective.leaves):
            parameter.requires_grad_(False)  # the leaves are other tensors: what is not chosen takes no slope
        cpu = objective.device.type == "cpu"
        self.held = _HELD if cpu else device_memory(objective.device) // _SHARE
        self.tolerance = tolerance_of(objective.dtype)
        self.formed: set[int] = set()

    def loss(self, inputs: Any, target: Any, mode: Any = None) -> Tensor:
        """The loss of some examples, of which those of weight zero take no part."""
        with Differentiable(self.objective.switched), mode or nullcontext():
            return self.weighting.loss(self.apply(self.objective.leaves, inputs), target)

    def batch(self, inputs: Any, target: Any, index: int) -> Tensor:
        """Squares of all examples of a batch, (N, p)."""
        examples, name = count(inputs, target, f"batch {index}"), f"batch {index}"
        weights = self._weights(target, examples)
        counted = weights.nonzero()[:, 0]
        rows = torch.zeros(examples, len(self.leaves), dtype=torch.float64, device=self.objective.device)
        if not len(counted):
            return rows
        x, y = take((inputs, target), counted[:1], examples)
        truth, held = self._alone(x, y, name)
        size = max(2, self.held // max(1, held))
        for chosen in counted.tensor_split(-(-len(counted) // size)):
            x, y = take((inputs, target), chosen, examples)
            rows[chosen] = self._piece(x, y, weights[chosen], name, truth if chosen[0] == counted[0] else None)
        return rows

    def _weights(self, target: Any, examples: int) -> Tensor:
        """What each example adds to the divisor of the mean, (N,); ones where that is not known, or for a sum."""
        known = self.weighting.per_class or self.weighting.elementwise
        if not known or not isinstance(target, Tensor) or self.weighting.total:
            return torch.ones(examples, dtype=torch.float64, device=self.objective.device)
        term = Term(float(examples), "", self.weighting.loss, target=target)
        return _divisors(self.weighting, term).to(self.objective.device)

    def _alone(self, inputs: Any, target: Any, name: str) -> tuple[Tensor, int]:
        """Squares of one example by a plain backward pass, (p,), and the bytes of its graph; the state is watched."""
        objective = self.objective
        watch = Watch(objective.name, objective.buffers, objective.fixed, objective.device)
        loss = scalar(self.loss(inputs, target), name, objective.name)
        held = graph_bytes([loss], self.leaves)
        squares = self._plain(loss)
        watch.check(lambda: self.loss(inputs, target))
        return squares, held

    def _plain(self, loss: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64, device=loss.device)
        found = slope(loss, self.leaves, False)
        return torch.stack([zero if part is None else part.double().square().sum() for part in found])

    def _piece(self, inputs: Any, target: Any, weights: Tensor, name: str, truth: Tensor | None) -> Tensor:
        """Squares of some examples, (n, p); ``truth`` is that of the first, taken alone.

        They come through taps for parameters whose every use these know. A tap takes it that its first axis counts examples:
        the first piece of a batch checks that, on its first example and on that of the largest norm. What fails is
        formed example by example, also in other pieces.
        """
        taps = Taps(self.leaves, len(weights))
        loss = scalar(self.loss(inputs, target, taps), name, self.objective.name)
        known = taps.known(loss) - self.formed
        scale = 1.0 if self.weighting.total else (weights.sum() / weights).square()
        rows = torch.zeros(len(weights), len(self.leaves), dtype=torch.float64, device=loss.device)
        try:
            pulled = taps.pull(loss, known)
        except CheckpointError:  # it computes again on the way back, where nothing is tapped
            pulled = {}
        left = taps.reached(loss) - pulled.keys()
        for place, squares in pulled.items():
            rows[:, place] = squares * scale
        if truth is not None:
            most = int(rows.sum(1).argmax())  # the first example's may be zero, which tells nothing
            x, y = take((inputs, target), torch.tensor([most], device="cpu"), len(weights))
            for row, own in ((rows[0], truth), (rows[most], self._plain(self.loss(x, y)))):
                allowed = self.tolerance * own + self.tolerance**2 * own.sum()
                left |= set(((row - own).abs() > allowed).nonzero()[:, 0].tolist())
        self.formed |= left
        if left:
            chosen = sorted(left)
            found, values = self._formed(inputs, target, len(weights), chosen)
            rows[:, chosen] = found
            self._independent(values, weights, loss.detach(), name)
        return rows

    def _formed(self, inputs: Any, target: Any, examples: int, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Squares of some parameters' gradients, (n, q), and losses, (n,), from one example at a time."""
        names = [self.objective.layout.names[place] for place in chosen]
        fixed = {name: leaf.detach() for name, leaf in self.objective.leaves.items()}
        theta = {name: fixed[name] for name in names}
        axes = tree_map(lambda item: _axis(item, examples), (inputs, target))

        def one(chosen: dict[str, Tensor], inputs: Any, target: Any) -> Tensor:
            given = tree_map(lambda item, axis: item if axis is None else item[None], (inputs, target), axes)
            return self.weighting.loss(self.apply({**fixed, **chosen}, given[0]), given[1])

        def squared(inputs: Any, target: Any) -> tuple[Tensor, Tensor]:
            found, value = grad_and_value(one)(theta, inputs, target)
            return torch.stack([found[name].double().square().sum() for name in names]), value

        step = max(1, _ENTRIES // sum(leaf.numel() for leaf in theta.values()))
        try:
            with Differentiable(self.objective.switched), no_slow_vmap():
                return vmap(squared, axes, chunk_size=step)(inputs, target)
        except (RuntimeError, TypeError, ValueError):  # vmap cannot take this model; a plain pass can, or says why
            return self._looped(inputs, target, examples, chosen)

    def _looped(self, inputs: Any, target: Any, examples: int, chosen: list[int]) -> tuple[Tensor, Tensor]:
        rows, values = [], []
        for place in range(examples):
            x, y = take((inputs, target), torch.tensor([place], device="cpu"), examples)
            loss = self.loss(x, y)
            rows.append(self._plain(loss)[chosen])
            values.append(loss.detach())
        return torch.stack(rows), torch.stack(values)

    def _independent(self, values: Tensor, weights: Tensor, whole: Tensor, name: str) -> None:
        """The loss of a batch must be the mean of its examples' own, or their sum."""
        shares = torch.ones_like(weights) if self.weighting.total else weights / weights.sum()
        total, size = float((shares * values).sum()), float((shares * values.abs()).sum())
        if not abs(total - float(whole)) <= self.tolerance * size:
            way = "add up" if self.weighting.total else "average"
            raise LossError(
                f"{self.objective.name} on {name}",
                f"examples whose own losses {way} to the loss of their batch",
                f"{float(whole):.6g} for {len(values)} examples together, {total:.6g} from each alone",
                "Where examples depend on each other there is no gradient of one. Else pass the loss as a module that "
                "tells its weights, e.g. nn.CrossEntropyLoss(ignore_index=…), or return sums and say reduction='sum'.",
            )


def _axis(item: Any, examples: int) -> int | None:
    return 0 if isinstance(item, Tensor) and item.ndim and item.shape[0] == examples else None


def gradient_norms(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> GradientNorms:
    r"""The norm of the gradient of every single example's loss, parameter by parameter.

    .. math:: \|\nabla \ell_n\|^2 = \Bigl\|\sum_t \delta_{nt} a_{nt}^\top\Bigr\|^2
        = \sum_{t,s} (\delta_{nt} \cdot \delta_{ns}) (a_{nt} \cdot a_{ns})

    for a layer that multiplies :math:`a_{nt}` in places t by the parameter, with δ the slope of the loss in what it puts
    out. One backward pass brings the δ of all examples; of the two forms the cheaper one is taken, and a parameter that is
    used several times, such as a recurrent or a tied one, has the terms of all its uses. So no gradient is formed in linear
    maps, ungrouped 1-d and 2-d convolutions, embeddings, products with a matrix, gains, shifts and biases. Any other
    parameter's gradients are formed, for a few examples at a time.

    Args:
        model, loss, data, params, dtype, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`.

    Shapes: (N, p), for N examples in the order of the data. An example whose targets are all ignored has norm zero.

    Cost: a gradient of the data and, per layer, the cheaper form; a batch is taken in pieces, whose graph has at most
    32 MiB on a CPU and a sixteenth of an accelerator's memory. Parameters whose gradients are formed take another gradient.

    Assumptions: examples do not depend on each other; each batch's first one, and one of large norm, are differentiated
    alone, as a check. Where many terms of a layer's gradient cancel, the cheaper form knows its norm to √ε of their size.

    Errors: ``ModelStateError`` under ``batch_stats="batch"``, ``LossError`` where the loss of a batch is not the mean (or
    sum) of its examples' own; those of the Hessian for model, loss and data.

    Source: Goodfellow 2015, Efficient per-example gradient computations; Rochette, Manoel & Tramel 2019, Efficient
    per-example gradient computations in convolutional neural networks; Li, Tramèr, Liang & Hashimoto 2022, Large language
    models can be strong differentially private learners.

    Example:
        For a linear model and the squared error, ‖∇ℓ‖ = 2 |w·x − y| ‖x‖:

        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> gradient_norms(model, nn.MSELoss(), (x, torch.tensor([[6.0], [1.0]]))).norms
        tensor([10.,  0.], dtype=torch.float64)

    """
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, dtype, batch_stats, reduction)
        if objective.batch_stats == "batch":
            expected, given = "examples that do not depend on each other", "batch normalisation by the batch"
            remedy = "Choose batch_stats='frozen', or call model.eval(): then each example has a gradient of its own."
            raise ModelStateError("batch_stats", expected, given, remedy)
        batches = Batches(data, objective.dtype, objective.device, cast=dtype is not None)
        walk = _Walk(objective)
        with undisturbed(objective):
            rows = [walk.batch(*batch, index) for index, batch in enumerate(batches)]
    if not rows:
        raise DataError("data", "at least one example", "no batch", "Pass one batch (inputs, target), or several.")
    names = objective.layout.names
    return GradientNorms(names, torch.cat(rows).cpu(), tuple(names[place] for place in sorted(walk.formed)))
