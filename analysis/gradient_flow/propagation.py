"""Signals, gradients and correlations in any network at random weights, layer by layer, beside the mean-field theory."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, LossError, NumericsError
from ..operators.data import call, count, fit
from ..operators.snapshot import snapshot
from ..spectra.probes import check_seed
from ..spectra.results import Estimate
from .mean_field import MeanField
from .propagated import LayerPropagation, SignalPropagation
from .redraw import Redraw
from .signals import Recorder, Site, floats

_FIRST = 16  # draws before an estimate may stop


def signal_propagation(
    model: nn.Module,
    inputs: Any,
    draws: int = 64,
    initialise: Callable[[nn.Module], Any] | None = None,
    theory: MeanField | None = None,
    tol: float = 0.05,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    seed: int = 0,
) -> SignalPropagation:
    r"""How signals, gradients and correlations of two inputs go through a model, over draws of its weights.

    At the output h of each module and each ReLU, tanh and sigmoid, for inputs a and b, and f the model's output:

    .. math:: q = \overline{h_a^2}, \qquad c = \frac{h_a \cdot h_b}{\|h_a\|\|h_b\|}, \qquad
        \delta_a = \frac{\partial\, \xi \cdot f(a)}{\partial h_a}, \quad g = \|\delta_a\|^2, \quad
        \frac{\delta_a \cdot \delta_b}{\|\delta_a\|\|\delta_b\|}

    with a normal vector ξ, one for both inputs. As products of many factors q and g have heavy tails, and their means are
    ruled by rare draws: what is averaged over draws are logarithms, which is what one network shows. At width n they lie
    below the logarithms of the means by O(L/n) after L layers. A layer multiplies g on its way back by χ₁, and the product
    :math:`\delta_a \cdot \delta_b` by the slope of the correlation map, from which ξ_c follows in order and in chaos.

    Args:
        model: any ``nn.Module``; it is copied and never changed.
        inputs: what it is called with; its examples are taken in pairs, the first with the second, and so on.
        draws: the most draws of the weights.
        initialise: draws the weights anew in place, called with each module of the copy, inner ones first, as by
            ``nn.Module.apply``. None: every module's ``reset_parameters()``.
        theory: the mean-field theory to show beside the layers with weights. It starts from the first one's q and c.
        tol: stop when the 95 % intervals of the two rates of gradients are at most this to each side, looked at after 16,
            32, … draws.
        dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`. seed: of all draws.

    Rates are slopes over the layers with weights, the latter half of them (all, where there are fewer than six): signals
    have then come near their fixed point. Intervals are Student's over draws, of the correlation rate by the jackknife.

    Cost: a gradient of one batch a draw.

    Assumptions: theory is for fully-connected networks with one activation. Six ξ_c is an observation of Schoenholz et al. on
    tanh networks without skip connections.

    Errors: ``ArgumentError`` that names a module whose weights nothing redraws; ``DataError`` for an odd number of
    examples; ``NumericsError`` where a signal or gradient is nan or infinite, or zero in almost all draws at all modules
    with weights; those of the Hessian for the model.

    Source: Poole et al. 2016, Exponential expressivity in deep neural networks through transient chaos; Schoenholz et
    al. 2017, Deep information propagation.

    Example:
        >>> model = nn.Sequential(*[nn.Linear(32, 32, bias=False) for _ in range(8)]).double()
        >>> inputs = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> found = signal_propagation(model, inputs, initialise=lambda m: hasattr(m, "weight") and nn.init.orthogonal_(m.weight))
        >>> abs(found.gradient_rate.value) < 1e-12, found.draws       # orthogonal layers change nothing
        (True, 16)

    """
    check_seed(seed)
    if not isinstance(draws, int) or draws < 10:
        raise ArgumentError("draws", "at least 10, for an interval", repr(draws), "Pass draws=64.")
    if not tol >= 0:
        raise ArgumentError("tol", "a number ≥ 0, in nats a layer", repr(tol), "Pass tol=0.05; 0 takes all draws.")
    with torch.inference_mode(False), torch.enable_grad():
        private = snapshot(model, dtype, batch_stats)[0]
        redraw = Redraw(private, initialise)
        given, examples = _pairs(private, inputs, dtype)
        generator = torch.Generator("cpu").manual_seed(seed)
        seen: list[_Draw] = []
        for number in range(1, draws + 1):
            redraw(int(torch.randint(2**62, (), generator=generator, device="cpu")))
            seen.append(_walk(private, given, examples, generator))
            if number in {_FIRST << i for i in range(32)} | {draws}:
                found = _summary(seen, number, theory, tol, seed)
                if found.converged:
                    break
    redraw.check()
    return found


class _Pairs(Recorder):
    """Notes also the inner products of the gradients of consecutive examples."""

    def batch(self, examples: int, chosen: Tensor, scale: float) -> None:
        """Begin a batch."""
        super().batch(examples, chosen, scale)
        self.products: dict[str, dict[tuple[str, int], Tensor]] = {}  # by place and call

    def _slope(self, site: Site, key: tuple[str, int], slope: Tensor) -> None:
        super()._slope(site, key, slope)
        with torch._C.DisableTorchFunction():
            table = self.by_example(slope.detach(), site.module).double()
            if len(table) == self.examples:
                calls, products = self.products.setdefault(site.name, {}), (table[0::2] * table[1::2]).sum(1)
                calls[key] = calls[key] + products if key in calls else products


#: Of one draw, by place: its kind, whether it has weights, and ln q, ln g, c and the gradients' correlation.
_Draw = dict[str, tuple[str, bool, np.ndarray]]


def _pairs(private: nn.Module, inputs: Any, dtype: torch.dtype | None) -> tuple[Any, int]:
    reference = next(p for p in private.parameters() if p.is_floating_point())
    given = fit(inputs, "inputs", reference.dtype, reference.device, cast=dtype is not None)
    examples = count(given, None, "inputs")
    if examples % 2:
        raise DataError("inputs", "an even number of examples, in pairs", str(examples), "Pass two inputs, or four.")
    return given, examples


def _walk(private: nn.Module, inputs: Any, examples: int, generator: torch.Generator) -> _Draw:
    recorder = _Pairs(private)
    with recorder:
        recorder.batch(examples, torch.arange(examples, device="cpu"), 1.0)
        output = next(floats(call(private, inputs)), None)
    if output is None or not output.requires_grad or not output.ndim or len(output) != examples:
        remedy = "Wrap the model in a module that returns one tensor, a row for each example."
        raise LossError("output", "a floating-point tensor whose first axis counts the examples", "another", remedy)
    xi = torch.randn(output[0].shape, generator=generator, dtype=torch.float64, device="cpu")
    xi = xi.to(output.device, output.dtype)
    leaves = [p for p in private.parameters() if p.requires_grad]
    torch.autograd.grad((output * xi).sum(), leaves, allow_unused=True)
    recorder.close()
    own = float(xi.double().square().sum())
    draw: _Draw = {}
    for site in recorder.sites.values():
        kept = [part for part in (site.signal, site.gradient) if part and all(len(one) == examples for one in part)]
        if len(kept) < 2 or not site.rows or site.name not in recorder.products:
            continue
        q, g = (torch.stack(part).mean(0) for part in kept)
        logs = [float(one.log().mean()) for one in (q, g / own)]
        weighted = site.module is not None and any(p.ndim > 1 for p in site.module.parameters(recurse=False))
        products = torch.stack([*recorder.products[site.name].values()]).mean(0)
        cosines = [_cosine(rows.double()) for rows in site.rows]
        numbers = np.array([*logs, sum(cosines) / len(cosines), _share(products, g)])
        draw[site.name] = site.kind, weighted, numbers
    return draw


def _cosine(rows: Tensor) -> float:
    """The mean correlation of the pairs among the rows."""
    first, second = rows[0 : len(rows) // 2 * 2 : 2], rows[1::2]
    return float(((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))).mean())


def _share(products: Tensor, squares: Tensor) -> float:
    """The mean correlation of the gradients of pairs, from their products and squared norms."""
    return float((products / (squares[0::2] * squares[1::2]).sqrt()).mean())


def _summary(seen: list[_Draw], number: int, theory: MeanField | None, tol: float, seed: int) -> SignalPropagation:
    names = [name for name in seen[0] if all(name in draw for draw in seen)]
    table = np.array([[draw[name][2] for name in names] for draw in seen])  # (draws, places, 4)
    weighted = np.array([seen[0][name][1] for name in names], dtype=bool)
    heard = np.isfinite(table).all(2).mean(0) >= 0.1  # of the places: in a tenth of the draws
    if not heard.any() or (weighted.any() and not heard[weighted].any()):
        where = names[int(np.flatnonzero(weighted)[0]) if weighted.any() else 0]
        remedy = "Widen the network, or scale its weights up: look at the initialisation of the layers before."
        raise NumericsError(where, "a signal and a gradient other than zero", "zero in almost all draws", remedy)
    notes = [f"{name}: no signal or gradient" for name, one in zip(names, heard, strict=True) if not one]
    kept = table[np.isfinite(table[:, heard]).all((1, 2))][:, heard]
    if len(kept) < 2:
        remedy = "Widen the network: at every place some draws have one, at all places none or one has."
        raise NumericsError("model", "draws with a signal and a gradient everywhere", f"{len(kept)} of them", remedy)
    names, places = [name for name, one in zip(names, heard, strict=True) if one], np.flatnonzero(weighted[heard])
    layers = tuple(
        LayerPropagation(name, *seen[0][name][:2], *(_mean(kept[:, i, part], seed) for part in range(4)))
        for i, name in enumerate(names)
    )
    fields = None
    if theory is not None and len(places):
        first = kept[:, places[0]].mean(0)
        fields = theory.propagate(len(places) - 1, exp(first[0]), min(1.0, first[2]))
    rates = _rates(kept[:, places], seed)
    if rates[1] is None:
        notes.append(f"no rates: they need three modules with weights in a row, given {len(places)}")
    met = all(rate is None or rate.interval()[1] - rate.value <= tol for rate in rates[1:])
    return SignalPropagation(layers, *rates, number, number - len(kept), fields, seed, met, tuple(notes))


def _rates(values: np.ndarray, seed: int) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Of signals, gradients and correlations, from ln q, ln g, c and the gradients' correlation, (draws, layers, 4)."""
    depth = values.shape[1]
    if depth < 3:
        return None, None, None
    used = values[:, depth // 2 if depth >= 6 else 0 :]
    back = -_slopes(used[..., 1])
    return _mean(_slopes(used[..., 0]), seed), _mean(back, seed), _correlation_rate(back, used[..., 3], seed)


def _slopes(values: np.ndarray) -> np.ndarray:
    """Least-squares slopes along the last axis."""
    place = np.arange(values.shape[-1]) - (values.shape[-1] - 1) / 2
    return values @ place / (place**2).sum()


def _correlation_rate(back: np.ndarray, cosines: np.ndarray, seed: int) -> Estimate | None:
    """The rate ln χ₁ and what the gradients' correlation loses a layer; its error by leaving out a draw at a time."""
    n = len(back)
    means = np.concatenate([cosines.mean(0)[None], (cosines.sum(0) - cosines) / (n - 1)])
    if (means <= 0).any():
        return None
    left_out = (back.sum() - back) / (n - 1) - _slopes(np.log(means[1:]))
    stderr = sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    value = float(back.mean()) - float(_slopes(np.log(means[0])))
    return Estimate(value, stderr, n - 1, None, n, seed, "jackknife over draws")


def _mean(values: np.ndarray, seed: int) -> Estimate:
    stderr = float(values.std(ddof=1)) / sqrt(len(values))
    return Estimate(float(values.mean()), stderr, len(values) - 1, None, len(values), seed, "mean over draws")
