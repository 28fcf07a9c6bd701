"""In how many directions a model's representations spread, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from ..gradient_flow.signals import Recorder, Site, floats
from ..gradient_flow.verdicts import effective_rank
from ..operators.data import call, count, fit
from ..operators.snapshot import Watch, snapshot
from ..spectra.results import Estimate, _quantile

_LEAST = 6  # examples: three differences


@dataclass(frozen=True)
class LayerRank:
    """The effective rank of one representation; None where all examples have the same, or it has no row for each.

    ``entries`` is its size, and a bound on its rank.
    """

    name: str
    kind: str
    entries: int
    rank: Estimate | None


def representation_ranks(
    model: nn.Module,
    inputs: Any,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    rows: int = 1024,
    tol: float = 0.1,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[LayerRank, ...]:
    r"""The effective rank of the representation at every module and activation function, with its interval.

    For the covariance C of the representation h over the inputs, the participation ratio

    .. math:: r = \frac{(\operatorname{tr} C)^2}{\operatorname{tr} C^2} = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}

    counts the directions that carry the variance: d where all d carry the same, 1 where a single one carries all. The inputs
    are paired at random; the differences h − h' of pairs have the covariance 2 C and no mean, and products of different
    pairs estimate numerator and denominator without bias.

    Args:
        model, dtype, batch_stats: as for :class:`~lemmata.analysis.Jacobian`.
        inputs: one batch: a tensor, a tuple of positional arguments or a mapping of named ones; examples are the first axis.
        rows: inputs taken, at random, at most. tol: half width of the interval, relative to the rank, at confidence
            ``level``, that a rank must meet to count as converged. seed: of the choice and the pairs.

    Intervals are by the jackknife over pairs; under ``batch_stats="batch"``, where inputs see each other, they are too short.

    Cost: one forward pass of all inputs; memory for the representations of ``rows`` inputs, at most 2²² numbers a place.

    Errors: ``DataError`` for fewer than 6 inputs; ``NumericsError`` that names the first layer with nan or infinity;
    ``ArgumentError`` and ``ModelStateError`` as for the Jacobian.

    Source: Gao et al. 2017, A theory of multineuronal dimensionality, dynamics and measurement.

    Example:
        A projection of rank one:

        >>> model = nn.Linear(3, 3, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> [(place.name, place.entries, round(float(place.rank), 4)) for place in representation_ranks(model, x)]
        [('model', 3, 1.0)]

    """
    for name, number, legal in (("tol", tol, tol > 0), ("level", level, 0 < level < 1), ("rows", rows, rows >= _LEAST)):
        if not legal:
            expected = {"tol": "a number > 0", "level": "a probability between 0 and 1"}.get(name, f"at least {_LEAST}")
            raise ArgumentError(name, expected, repr(number), f"Leave {name} out for its default.")
    with torch.inference_mode(False), torch.no_grad():
        sites = _walk(model, inputs, dtype, batch_stats, rows, seed)
    return tuple(_layer(site, tol, level) for site in sites)


def _walk(
    model: nn.Module, inputs: Any, dtype: torch.dtype | None, batch_stats: str | None, rows: int, seed: int
) -> Sequence[Site]:
    private = snapshot(model, dtype, batch_stats)[0]
    own, buffers = dict[str, Tensor](private.named_parameters()), dict(private.named_buffers())
    reference = next((part for part in (*own.values(), *floats(inputs)) if part.is_floating_point()), torch.zeros(0))
    given = fit(inputs, "inputs", reference.dtype, reference.device, cast=dtype is not None)
    n = count(given, None, "inputs")
    if n < _LEAST:
        raise DataError("inputs", f"at least {_LEAST} examples, along the first axis", str(n), "Pass more inputs.")
    if any(not bool(part.isfinite().all()) for part in floats(given)):
        raise NumericsError("inputs", "finite numbers", "nan or infinity", "Clean the data.")
    watch, recorder = Watch("model", buffers, own, reference.device), Recorder(private)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")[:rows]
    with recorder:
        recorder.batch(n, chosen, 1.0)
        call(private, given)
    watch.check(lambda: call(private, given))
    recorder.close()
    return [site for site in recorder.sites.values() if site.rows or site.module is not None]


def _layer(site: Site, tol: float, level: float) -> LayerRank:
    """Of a module called several times, the first call speaks: later ones are further rows of the same examples."""
    rows = site.rows[0] if site.rows else torch.zeros(0, 0)
    half = len(rows) // 2
    rank = effective_rank([rows[:half].double() - rows[half : 2 * half].double()]) if half else None
    entries = rows.shape[1]
    if rank is not None:
        met = _quantile(level, rank.dof) * rank.stderr <= tol * rank.value
        rank = replace(rank, method="jackknife over pairs of examples", converged=met)
    return LayerRank(site.name, site.kind, entries, rank)
