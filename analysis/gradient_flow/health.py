"""Where a model's gradient dies or explodes, layer by layer, why, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import exp, inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..curvature.evaluation import undisturbed
from ..curvature.text_table import text_table
from ..errors import DataError, LossError, ModelStateError, NumericsError
from ..operators.data import Batches, call, count
from ..operators.layout import Selection
from ..operators.objective import of_model
from ..operators.snapshot import Watch, scalar, snapshot
from ..operators.weights import Weighting
from ..spectra.results import Estimate, _axes
from .noise_scale import NoiseScale, group_gradients, ratio
from .signals import Recorder, floats
from .verdicts import HEALTHY, LayerHealth, judge, place_of

_SHOWN = 24  # rows of the table
_PARTS = ("signal", "gradient", "rank", "saturated", "entropy")


@dataclass(frozen=True)
class ParameterHealth:
    """A parameter's gradient beside its weights: their norms, and the ratio of the two.

    ``gradient`` is None for a parameter that was not chosen, such as a frozen one; its error is over groups of examples,
    infinite where there are too few.
    """

    name: str
    entries: int
    gradient: Estimate | None
    weights: float

    @property
    def ratio(self) -> float | None:
        """‖g‖ / ‖w‖; None where there is no gradient, or no weight other than zero."""
        return None if self.gradient is None or not self.weights else self.gradient.value / self.weights


@dataclass(frozen=True, repr=False)
class GradientHealth:
    r"""What :func:`gradient_health` found; its repr is one screen.

    Attributes:
        layers: a row for each place where a signal was seen, in the order of the forward pass.
        parameters: a row for each chosen parameter, in the model's order.
        noise: the gradient noise scale, None where ``notes`` says why.
        factor: the logarithm of what a layer with weights multiplies the gradient's second moment by, on its way back: the
            mean over layers.
        dies, explodes: the name of the first layer, from the loss, that the gradient does not survive; None if there is none.
        loss: over all data. examples: their number. notes: what was not measured, and why.

    """

    layers: tuple[LayerHealth, ...]
    parameters: tuple[ParameterHealth, ...]
    noise: NoiseScale | None
    factor: Estimate | None
    dies: str | None
    explodes: str | None
    loss: float
    examples: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> LayerHealth:
        return {layer.name: layer for layer in self.layers}[name]

    @property
    def ailing(self) -> tuple[LayerHealth, ...]:
        """The layers that have a verdict other than healthy."""
        return tuple(layer for layer in self.layers if layer.verdict != HEALTHY)

    @property
    def verdict(self) -> str:
        """One sentence on the whole."""
        found = [f"the gradient dies at {self.dies}"] if self.dies else []
        found += [f"the gradient explodes at {self.explodes}"] if self.explodes else []
        if found:
            return "; ".join(found)
        return f"{len(self.ailing)} of {len(self.layers)} layers ail" if self.ailing else "healthy"

    def __repr__(self) -> str:
        head = f"loss {self.loss:.4g} on {self.examples} examples"
        if self.factor is not None:
            low, high = (exp(min(end, 700)) for end in self.factor.interval())
            head += (
                f"; each layer multiplies E‖δ‖² by {exp(self.factor.value):.3g} [{low:.3g}, {high:.3g}] on its way back"
            )
        first = {layer.verdict: layer for layer in reversed(self.ailing) if layer.advice}
        told = sorted(first.values(), key=self.layers.index)
        parts = [f"GradientHealth: {self.verdict}", head, text_table(_HEADER, list(map(_cells, _shown(self.layers))))]
        parts += [f"  {layer.name}: {layer.verdict}: {layer.advice}" for layer in told]
        measured = sorted((p.gradient.value, p.name, p) for p in self.parameters if p.gradient is not None)
        for word, place in (("smallest", 0), ("largest", -1)):
            _, name, row = measured[place]
            share = "" if row.ratio is None else f", {row.ratio:.2g} of its weights"
            parts.append(f"{word} gradient: {name}, {_short(row.gradient)}{share}")
        noise = "not measured" if self.noise is None else repr(self.noise)
        return "\n".join([*parts, f"gradient noise scale: {noise}", *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GradientHealth:
        """The inverse of :meth:`to_dict`."""

        def estimates(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
            return {**row, **{n: row[n] and Estimate.from_dict(row[n]) for n in names}}

        layers = tuple(LayerHealth(**estimates(row, _PARTS)) for row in record["layers"])
        parameters = tuple(ParameterHealth(**estimates(row, ("gradient",))) for row in record["parameters"])
        noise = record["noise"] and NoiseScale.from_dict(record["noise"])
        rest = estimates(record, ("factor",))
        return cls(
            **{**rest, "layers": layers, "parameters": parameters, "noise": noise, "notes": tuple(record["notes"])}
        )

    def plot(self, ax: Any = None) -> Any:
        """Second moments of signal and gradient by depth with 95 % intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        for mark, part, label in (("o", "signal", "signal, E h²"), ("s", "gradient", "gradient, E‖δ‖²")):
            seen = [(i, e) for i, layer in enumerate(self.layers) if (e := getattr(layer, part)) is not None]
            bars = [(e.value - max(e.interval()[0], 0.1 * e.value), e.interval()[1] - e.value) for _, e in seen]
            ax.errorbar(
                [i for i, _ in seen], [e.value for _, e in seen], list(zip(*bars, strict=True)), fmt=mark, label=label
            )
        for i, layer in enumerate(self.layers):
            if layer.name in (self.dies, self.explodes):
                ax.axvline(i, color="C3", linestyle="--", label=f"{self.verdict}")
        ax.set_yscale("log")
        ax.set(xlabel="place, in the order of the forward pass", ylabel="second moment")
        ax.legend()
        return ax


_HEADER = ("layer", "signal E h²", "gradient E‖δ‖²", "rank", "dead", "flat", "entropy", "verdict")


def _short(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    low, high = estimate.interval()
    return f"{estimate.value:.2e}" + (f" ± {(high - low) / 2:.0e}" if isfinite(high - low) else "")


def _cells(layer: LayerHealth | None) -> list[str]:
    if layer is None:
        return ["…"] + [""] * (len(_HEADER) - 1)
    rank, flat, entropy = ("" if e is None else f"{e.value:.2g}" for e in (layer.rank, layer.saturated, layer.entropy))
    dead = "" if layer.dead is None else f"{layer.dead:.0%}"
    name = f"{layer.name} ({layer.kind})" if layer.kind not in layer.name else layer.name
    return [name, _short(layer.signal), _short(layer.gradient), rank, dead, flat, entropy, layer.verdict]


def _shown(layers: tuple[LayerHealth, ...]) -> list[LayerHealth | None]:
    """At most one screen: both ends, and the first place of each verdict; None stands for what is left out."""
    first: dict[str, int] = {}
    for i, layer in enumerate(layers):
        first.setdefault(layer.verdict, i)
    ends = range(3), range(len(layers) - 3, len(layers))
    keep = {*ends[0], *ends[1], *first.values()} if len(layers) > _SHOWN else set(range(len(layers)))
    rows: list[LayerHealth | None] = []
    for i, layer in enumerate(layers):
        if i in keep:
            rows.append(layer)
        elif rows[-1] is not None:
            rows.append(None)
    return rows


def gradient_health(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
    groups: int = 64,
    rows: int = 128,
    seed: int = 0,
) -> GradientHealth:
    r"""How signals go forward through a model and gradients back, where they die or explode, and what to change.

    At the output h of each module and each ReLU, tanh and sigmoid, over the examples n:

    .. math:: q = E_n\, \overline{h_n^2}, \qquad g = E_n \|\partial \ell_n / \partial h_n\|^2, \qquad
        r = \frac{(E_n |h_n|^2)^2}{E_{n \ne m} (h_n \cdot h_m)^2}

    the signal's second moment, the gradient's, and the effective rank of the representation (1 where all examples point the
    same way; the mean is not taken off). A rectified unit that is zero on all N examples is dead: it is active with a
    chance below 3/N, at 95 %. A sigmoid or tanh is flat where its slope is below a twentieth of the largest; the gates of
    ``nn.LSTM``, ``nn.GRU`` and their cells are computed again to see this. Attention entropy is relative to that of even
    weights, 0 to 1, seen in ``nn.MultiheadAttention``, ``scaled_dot_product_attention`` and softmax over scores.

    The gradient dies at the first layer, from the loss, before which its second moment stays below 10⁻⁶ of that at the
    output; it explodes where it passes 10⁶. Layers before it are starved. A branch that gets no gradient while layers before
    it do is blocked.

    Args:
        model, loss, data, params, dtype, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`.
        groups: for the noise scale and the errors of gradient norms, as for :func:`noise_scale`.
        rows: examples of a batch, at random, that the rank is taken from. seed: of these choices.

    Intervals are over examples, Student's for means and by the jackknife for the others; gradients of single layers have
    heavy tails in deep networks, where they are too short.

    Cost: three gradients of all data. The model is copied, the hooks are on the copy: the model is not touched.

    Assumptions: examples are the first axis of the target. Functions other than those named are seen only inside the
    modules that call them.

    Errors: ``NumericsError`` that names the first layer with nan or infinite outputs or gradients; ``ModelStateError`` for
    lazy modules; those of the Hessian for model, loss and data.

    Source: Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks; McCandlish et
    al. 2018, An empirical model of large-batch training.

    Example:
        A unit with a bias of −10 is dead on inputs of size one, and takes the gradient with it:

        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> for parameter, value in zip(model.parameters(), (1.0, -10.0, 1.0, 0.0)):
        ...     _ = nn.init.constant_(parameter, value)
        >>> health = gradient_health(model, nn.MSELoss(), (torch.ones(8, 1), torch.ones(8, 1)))
        >>> health.dies, health["1"].dead, health["1"].verdict
        ('1', 1.0, 'dead')

    """
    _initialised(model)
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, dtype, batch_stats, reduction)
        private = snapshot(model, dtype, batch_stats)[0]
        for tensor in private.parameters():  # also frozen ones: slopes must reach the layers before them
            tensor.requires_grad_(tensor.is_floating_point())
        batches = Batches(data, objective.dtype, objective.device, cast=dtype is not None)
        assert objective.weighting is not None
        with undisturbed(objective):
            walk = _record(private, objective.weighting, batches, rows, seed)
    verdicts = judge([place_of(site) for site in walk.recorder.sites.values()])
    notes, noise = list(verdicts.notes), None
    norms = {name: Estimate(walk.norms[name], inf, 0, None, 0, 0, "all data", False) for name in objective.layout.names}
    try:
        found = group_gradients(model, loss, data, params, dtype, batch_stats, reduction, groups, seed)
        noise, norms = ratio(found), {name: found.norm(name) for name in norms}
    except DataError as error:
        notes.append(f"no noise scale and no errors of gradient norms: {error}")
    parameters = tuple(
        ParameterHealth(name, tensor.numel(), norms.get(name), float(tensor.detach().double().norm()))
        for name, tensor in private.named_parameters()
    )
    ends = verdicts.factor, verdicts.dies, verdicts.explodes
    return GradientHealth(verdicts.layers, parameters, noise, *ends, walk.loss, walk.examples, tuple(notes))


def _initialised(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        return  # refused below, with the remedy
    for name, module in model.named_modules():
        if any(map(is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False)))):
            remedy = "Run the model once on a batch, model(inputs), before."
            where = f"{name or 'model'} ({type(module).__name__})"
            raise ModelStateError(where, "parameters of known shape", "a lazy module", remedy)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(parameter.isfinite().all()):
            remedy = "Load the last checkpoint in which it is finite."
            raise NumericsError(name, "finite parameters", "nan or infinity", remedy)


@dataclass(frozen=True)
class _Walk:
    """One walk over the data: what was seen, the loss, the number of examples, and the norm of each gradient."""

    recorder: Recorder
    loss: float
    examples: int
    norms: dict[str, float]


def _record(private: nn.Module, weighting: Weighting, batches: Batches, rows: int, seed: int) -> _Walk:
    generator = torch.Generator().manual_seed(seed)
    recorder, value, total, examples = Recorder(private), 0.0, 0.0, 0
    own = {name: p for name, p in private.named_parameters() if p.requires_grad}
    sums, device = {name: torch.zeros_like(p) for name, p in own.items()}, next(iter(own.values())).device
    for index, (weight, inputs, target) in enumerate(weighting.weigh(batches)):
        n = count(inputs, target, f"batch {index}")
        if any(not bool(part.isfinite().all()) for part in floats(inputs)):
            remedy = "Clean the data, or leave the batch out."
            raise NumericsError(f"inputs of batch {index}", "finite numbers", "nan or infinity", remedy)
        if not weight:
            continue
        watch = Watch("model", dict(private.named_buffers()), dict[str, Tensor](own), device)
        with recorder:
            recorder.batch(n, torch.randperm(n, generator=generator)[:rows], 1.0 if weighting.total else float(n))
            output = call(private, inputs)
        watch.check(lambda inputs=inputs: call(private, inputs))  # type: ignore[misc]
        outcome = scalar(weighting.loss(output, target), f"batch {index}", weighting.name)
        if not outcome.requires_grad:
            remedy = "Check that the model does not call detach() or no_grad(), and that the loss reads its output."
            raise LossError(weighting.name, "a loss that depends on the parameters", "one that does not", remedy)
        slopes = torch.autograd.grad(outcome, list(own.values()), allow_unused=True)
        recorder.close()
        for name, slope in zip(own, slopes, strict=True):
            if slope is not None:
                sums[name].add_(slope.to_dense() if slope.is_sparse else slope, alpha=weight)
        value, total, examples = value + weight * float(outcome.detach()), total + weight, examples + n
    divisor = 1.0 if weighting.total else total
    norms = {name: float(part.double().norm()) / divisor for name, part in sums.items()}
    return _Walk(recorder, value / divisor, examples, norms)
