"""Lie derivatives of any model along a one-parameter group: which layer breaks the symmetry, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError
from ..jackknife import jackknife
from ..operators.data import call, count, fit
from ..operators.snapshot import snapshot
from ..spectra.probes import check_seed
from ..spectra.results import Estimate
from .generators import Generator, ImageAction, image_generator
from .lie_passes import Place, checked, over_inputs, per_example, pull, push
from .lie_results import LayerDefect, LieDerivative

_EXACT = 64  # numbers of an output up to which contributions are exact
_ROUNDING = 50  # times ε


def lie_derivative(
    model: nn.Module,
    inputs: Any,
    generator: str | Generator,
    probes: int = 64,
    steps: Sequence[float] = (1e-2, 5e-3),
    tol: float = 0.25,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    seed: int = 0,
) -> LieDerivative:
    r"""The local equivariance error of a model along a one-parameter group, in total and layer by layer.

    .. math:: \mathcal L_V f(x) = \frac{d}{dt}\Big|_0 g_{-t} f(g_t x) = Df(x)\, V x - V f(x), \qquad
        \mathcal L_V (f_L \circ \dots \circ f_1) = \sum_l D(f_L \circ \dots \circ f_{l+1})\, \mathcal L_V f_l.

    It vanishes for all x if and only if f commutes with :math:`g_t = e^{tV}` for all t. At every place h inside the model —
    the outputs of innermost modules, of activation functions and of pooling — the table shows the defect
    :math:`r_l = \mathcal L_V f_l` that arose since the places before, what has gathered there so far, and what r_l does to
    the output, each a root mean square over examples, relative to that of h (of the output), for one unit of t.

    All r_l come from one forward-mode pass in which the tangent of every place is set to V h before it goes on. A second one
    without that gives the total; their agreement, :math:`\sum_l J_l r_l = \mathcal L_V f`, is ``chain``.

    Args:
        model: any ``nn.Module`` with one output tensor; it is copied and never changed. inputs: what it is called with, the
            examples along the first axis.
        generator: the name of an :func:`image_generator` on the torus, such as ``"rotation"``, or a :class:`Generator`.
        probes: normal vectors at the output for the contributions where it has more than 64 numbers; else they are exact.
        steps: of central differences, computed by the group's elements alone, shown beside; () for none.
        tol: ``converged`` tells whether the 95 % interval of each layer's contribution is at most this share of the largest
            to each side.
        dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`. seed: of the probes.

    Intervals are Student's over examples, by the jackknife, and contain the probes' chance; rounding widens them by
    50 ε (‖ḣ‖² + ‖V h‖²)^½ relative to ‖h‖, with ‖V x‖/‖x‖ of the input besides. Fewer than two examples have infinite ones.

    Cost: two forward-mode passes (some two to three forward passes each), two forward passes a step, one forward pass, and
    a backward pass for each number of the output, or each probe.

    Assumptions: examples do not see each other. Only the connected component of a group shows: a network that commutes with
    quarter turns or reflections alone is seen here as any other. Derivatives of images are those of their interpolation:
    ``resampling`` is the relative distance between that of band-limited and that of cubic interpolation.

    Errors: ``ArgumentError`` where the group's action is not known at the inputs or the output; ``DerivativeError`` for
    operations without forward mode; ``ModelStateError`` for a model with dropout on, or batch statistics.

    Source: Gruver et al. 2023, The Lie derivative for measuring learned equivariance.

    Example:
        A convolution on the torus commutes with translations, and not with rotations:

        >>> conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular").double()
        >>> x = torch.randn(4, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> lie_derivative(conv, x, "x-translation").exact, lie_derivative(conv, x, "rotation").output.value > 0.1
        (True, True)

    """
    _check(probes, tol, batch_stats, seed)
    with torch.inference_mode(False):
        private, given, generator, examples = _ready(model, inputs, generator, dtype, batch_stats)
        own = push(private, given, generator, examples, reset=True)
        gathered = push(private, given, generator, examples, reset=False)
        entries = per_example(own[-1].defect, examples, "output").shape[1]
        vectors = _probes(entries, own[-1].defect, probes, seed)
        pulled, _ = pull(private, given, own, vectors, examples)
        exact = len(vectors) == entries <= _EXACT
        total = _dot(vectors, gathered[-1].defect, examples)
        differences = tuple((float(h), _gap(private, given, generator, h, gathered[-1])) for h in steps)
    make = _Maker(examples, 2 + len(vectors), seed, "exact" if exact else "probes")
    output = own[-1].sizes
    layers = tuple(make.layer(*places, output) for places in zip(own, gathered, pulled, strict=True))
    largest = max(layer.contribution.value for layer in layers)
    met = all(_half(layer.contribution) <= max(tol * largest, layer.contribution.bias) for layer in layers)
    return LieDerivative(
        generator.name,
        generator.unit,
        tuple(layer for layer in layers if layer.name != "output" or not _repeats(layer, own)),
        replace(make.size(gathered[-1]), converged=met),
        differences,
        _chain(pulled, total),
        _resampling(generator, given),
        examples,
        exact,
        met,
    )


def lie_difference(
    model: nn.Module,
    inputs: Any,
    generator: str | Generator,
    step: float = 5e-3,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
) -> Tensor:
    r"""The Lie derivative by central differences of finite group elements; it needs no derivative of the model.

    .. math:: \frac{g_{-h} f(g_h x) - g_h f(g_{-h} x)}{2h} = \mathcal L_V f(x) + O(h^2)

    Args:
        model, inputs, generator, dtype, batch_stats: as for :func:`lie_derivative`.
        step: h, in units of t. Rounding adds ε/h.

    Shapes: that of the output.

    Cost: two forward passes.

    Errors: as :func:`lie_derivative`; ``NumericsError`` for a step whose exponential has no end.

    Example:
        f(x) = x² turned by x ↦ (1 + t) x, of which nothing is undone at the output, so that L f = 2 x²:

        >>> class Square(nn.Module):
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return x**2
        >>> growth = Generator("growth", lambda place, h: h if place == "input" else 0 * h)
        >>> x = torch.tensor([[3.0]], dtype=torch.float64)
        >>> round(lie_difference(Square(), x, growth, 1e-3).item(), 3)
        18.0

    """
    if not step > 0:
        raise ArgumentError("step", "a positive number", repr(step), "Pass step=5e-3.")
    with torch.inference_mode(False):
        private, given, generator, _ = _ready(model, inputs, generator, dtype, batch_stats)
        return _difference(private, given, generator, step)


def _check(probes: int, tol: float, batch_stats: str | None, seed: int) -> None:
    check_seed(seed)
    if not isinstance(probes, int) or probes < 10:
        raise ArgumentError("probes", "at least 10", repr(probes), "Pass probes=64.")
    if not tol > 0:
        raise ArgumentError("tol", "a positive share", repr(tol), "Pass tol=0.25.")
    if batch_stats == "batch":
        raise ArgumentError("batch_stats", "None or 'frozen'", "'batch'", "Examples must not see each other.")


def _ready(
    model: nn.Module, inputs: Any, generator: str | Generator, dtype: torch.dtype | None, batch_stats: str | None
) -> tuple[nn.Module, Any, Generator, int]:
    private = snapshot(model, dtype, batch_stats)[0]
    first = next(private.parameters(), None)
    tensors = [part for part in torch.utils._pytree.tree_leaves(inputs) if isinstance(part, Tensor)]
    if not tensors:
        raise DataError("inputs", "at least one tensor", type(inputs).__name__, "Pass what the model is called with.")
    like = tensors[0] if first is None else first
    given = fit(inputs, "inputs", dtype or like.dtype, like.device, dtype is not None)
    examples = count(given, None, "inputs")
    if isinstance(generator, str):
        if tensors[0].ndim < 4:
            shape = f"shape {tuple(tensors[0].shape)}"
            remedy = "Add a channel axis, begin the model with nn.Flatten() if it takes rows, or pass a la.Generator."
            raise DataError("inputs", "images (b, c, H, W)", shape, remedy)
        generator = image_generator(generator, (tensors[0].shape[-2], tensors[0].shape[-1]))
    if not isinstance(generator, Generator):
        remedy = "Pass a name such as 'rotation', or la.Generator(name, act)."
        raise ArgumentError("generator", "a name or a Generator", type(generator).__name__, remedy)
    return private, given, generator, examples


def _probes(entries: int, like: Tensor, probes: int, seed: int) -> Tensor:
    """Unit vectors for all examples at once, or normal ones: (K, N, m)."""
    examples = like.numel() // entries
    if entries <= _EXACT:
        return torch.eye(entries, dtype=like.dtype, device=like.device)[:, None].expand(-1, examples, -1)
    draws = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(probes, examples, entries, generator=draws, dtype=torch.float64, device="cpu").to(like)


def _dot(vectors: Tensor, defect: Tensor, examples: int) -> Tensor:
    return (vectors * per_example(defect, examples, "output")).double().sum(-1)


def _difference(model: nn.Module, inputs: Any, generator: Generator, step: float) -> Tensor:
    def end(h: float) -> Tensor:
        output = checked(call(model, over_inputs(inputs, lambda place, x: generator.flow(place, x, h))))
        return generator.flow("output", output, -h)

    with torch.no_grad():
        return (end(step) - end(-step)) / (2 * step)


def _gap(model: nn.Module, inputs: Any, generator: Generator, step: float, output: Place) -> float:
    if not step > 0:
        raise ArgumentError("steps", "positive numbers", repr(step), "Pass steps=(1e-2, 5e-3), or ().")
    found = _difference(model, inputs, generator, step) - output.defect
    size = float(output.sizes.sum())
    return sqrt(float(found.double().square().sum()) / size) if size else 0.0


def _gain(row: Tensor, place: Place) -> float:
    """How much the rest of the model makes of the defect."""
    size = float(place.defect.double().norm())
    return float(row.norm()) / size if size else 0.0


def _chain(pulled: list[Tensor], total: Tensor) -> float:
    """The relative distance of the contributions' sum from the whole."""
    scale = max(float(total.norm()), sqrt(sum(float(row.square().sum()) for row in pulled)))
    return float((torch.stack(pulled).sum(0) - total).norm()) / scale if scale else 0.0


def _half(estimate: Estimate) -> float:
    low, high = estimate.interval()
    return (high - low) / 2


def _repeats(layer: LayerDefect, own: list[Place]) -> bool:
    """Whether the output is the last layer's own, which has a row of its own already."""
    return len(own) > 1 and layer.own.value == 0 and own[-2].defect.shape == own[-1].defect.shape


def _resampling(generator: Generator, inputs: Any) -> float | None:
    """‖V x − V' x‖ / ‖V x‖ of the two interpolations, for images."""
    if not isinstance(generator.act, ImageAction) or not isinstance(inputs, Tensor):
        return None
    one, other = (replace(generator.act, boundary=kind)("input", inputs) for kind in ("torus", "zeros"))
    if one is None or other is None or not float(one.norm()):
        return None
    return float((one - other).norm() / one.norm())


class _Maker:
    """Estimates of root mean squares relative to others, over examples."""

    def __init__(self, examples: int, spent: int, seed: int, method: str) -> None:
        self.examples, self.spent, self.seed, self.method = examples, spent, seed, method

    def floor(self, place: Place) -> float:
        """The share of rounding in a defect, relative to the size of the place."""
        size = float(place.sizes.sum())
        eps = torch.finfo(place.defect.dtype).eps
        return _ROUNDING * eps * sqrt(float(place.moved.sum()) / size) if size else 0.0

    def size(self, place: Place) -> Estimate:
        """Of the defect at a place."""
        squares = per_example(place.defect, self.examples, place.name).double().square().sum(1)
        return self.ratio(squares, place.sizes, self.floor(place))

    def layer(self, here: Place, there: Place, row: Tensor, outputs: Tensor) -> LayerDefect:
        """One row of the table: the defect that arose at a place, what has gathered there, and what it does to the output."""
        squares = row.square().sum(0) / (1 if self.method == "exact" else len(row))
        contribution = self.ratio(squares, outputs, self.floor(here) * _gain(row, here))
        return LayerDefect(here.name, here.kind, here.words, self.size(here), self.size(there), contribution)

    def ratio(self, squares: Tensor, sizes: Tensor, bias: float) -> Estimate:
        """√(Σ squares / Σ sizes)."""
        value, stderr = _root(squares.sum(), sizes.sum()), inf
        if self.examples > 1:
            left = [_root(squares.sum() - a, sizes.sum() - b) for a, b in zip(squares, sizes, strict=True)]
            kept = torch.tensor(left, dtype=torch.float64, device="cpu")
            stderr = jackknife(value, kept, torch.ones_like(kept))
        return Estimate(value, stderr, self.examples - 1, None, self.spent, self.seed, self.method, bias=bias)


def _root(part: Tensor, whole: Tensor) -> float:
    above, below = max(float(part), 0.0), float(whole)
    return sqrt(above / below) if below > 0 else 0.0
