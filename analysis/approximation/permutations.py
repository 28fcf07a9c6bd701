"""What no model blind to the order of its tokens can do: the loss that is left when only the multiset is known."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, sqrt

import torch
from torch import Tensor

from ..errors import ArgumentError, DataError, NumericsError
from ..spectra.results import _quantile
from .permutation_results import PermutationFloor

_BLOCK = 512  # sequences drawn at a time
_TABLE = 2**27  # numbers in the table of labels, 1 GB
_LEAST = 10  # blocks before an estimate may stop
_FAR = 6.0  # standard errors by which a position may differ from the others before a sampler is refused


def permutation_floor(sequences: Tensor, targets: Tensor, weights: Tensor | None = None) -> PermutationFloor:
    r"""The exact floor of permutation-invariant models on sequences given one by one.

    .. math:: \inf_{f(x_\pi) = f(x)} E\, \ell(f(x), y) = E\, \operatorname{Var}(y \mid \{x_1, …, x_t\})
        \quad\text{or}\quad H(y \mid \{x_1, …, x_t\})

    The best invariant model knows the multiset of tokens and nothing else: it predicts the conditional mean, or the
    conditional probabilities. The expectation is over the rows as they are given: a whole distribution, enumerated, or a
    data set, on which no invariant model's loss is lower however it was trained.

    Args:
        sequences: (N, t) or (N, t, d), tokens that count as equal only if all their numbers are.
        targets: (N,) integers from 0 are labels (cross entropy); real (N,) or (N, m) are values (squared error, its
            mean over the m numbers).
        weights: (N,) probabilities of the rows, scaled to sum to one; equal if None.

    Cost: sorting N t tokens and N sequences; N t d numbers in memory. In float64.

    Errors: ``DataError`` for no rows, numbers that are not finite, shapes that do not fit, and labels too large for a
    table; ``NumericsError`` for targets whose squares overflow.

    Source: Lee et al. 2019, Set Transformer; Elesedy & Zaidi 2021, Provably strict generalisation benefit for equivariant
    models (the projection).

    Example:
        The first of three fair bits: a multiset of k ones leaves its variance, k(3 − k)/9.

        >>> bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        >>> permutation_floor(bits, bits[:, 0])
        PermutationFloor(squared error 0.166667 (exact); best constant 0.25; 8 sequences, 4 multisets)
        >>> permutation_floor(bits, bits.sum(1)).value               # a symmetric target: nothing is lost
        0.0

    """
    _check_rows(sequences, targets)
    share = _shares(weights, sequences)
    group, multisets = _multisets(sequences)
    labelled = not targets.is_floating_point()
    table = _one_hot(targets) if labelled else targets.detach().double().reshape(len(targets), -1)
    table = table.to(share.device)
    mass = share.new_zeros(multisets).index_add(0, group, share)
    sums = table.new_zeros(multisets, table.shape[1]).index_add(0, group, share[:, None] * table)
    means = sums / mass.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    overall = (share[:, None] * table).sum(0)
    if labelled:
        value, constant = float(_entropy(sums, mass)), float(_entropy(overall, overall.sum()))
        error_rate = max(0.0, 1 - float(sums.amax(1).sum()))
    else:
        value, constant = (float(share @ (table - centre).square().mean(1)) for centre in (means[group], overall))
        error_rate = None
    _check_range(value)
    loss, best = "cross entropy" if labelled else "squared error", means[group].cpu()
    return PermutationFloor(loss, value, 0.0, 0, constant, error_rate, len(group), multisets, best, True)


def exchangeable_floor(
    target: Callable[[Tensor], Tensor],
    sample: Callable[[torch.Generator, int], Tensor],
    tol: float = 0.02,
    orders: int = 8,
    budget: int = 200_000,
    seed: int = 0,
) -> PermutationFloor:
    r"""The squared-error floor of permutation-invariant models where all orders of a multiset are equally likely.

    .. math:: \widehat{E \operatorname{Var}} = \frac1N \sum_x \frac1{K - 1} \sum_{k \le K}
        \bigl(y(x_{\pi_k}) - \bar y(x)\bigr)^2, \qquad \pi_k \text{ uniform, independent}

    is unbiased: given the multiset, the orders of exchangeable tokens are uniform. Drawn in blocks until the 95 % interval
    is narrower than ± ``tol`` times the variance of the target, the best constant's error.

    Args:
        target: sequences (n, t) or (n, t, d) to values (n,) or (n, m).
        sample: a CPU generator and n to n sequences, exchangeable: independent tokens of one law, for example.
        tol: half-width of the interval, relative to the best constant's error.
        orders: K ≥ 2, drawn for each sequence.
        budget: the most sequences drawn; where they do not suffice, ``converged`` is False.
        seed: of all draws.

    Assumptions: exchangeability. A sampler whose positions differ in mean or size is refused; not every other is found.

    Cost: K evaluations of the target a sequence.

    Errors: ``ArgumentError`` for tol, orders or budget; ``DataError`` for a sampler that is not exchangeable, for values
    that are not finite, or shapes that do not fit; ``NumericsError`` for values whose squares overflow.

    Source: Elesedy & Zaidi 2021, Provably strict generalisation benefit for equivariant models.

    Example:
        The first of 8 standard normal tokens: 1 − 1/8.

        >>> draw = lambda g, n: torch.randn(n, 8, generator=g, dtype=torch.float64)
        >>> found = exchangeable_floor(lambda x: x[:, 0], draw, tol=0.01)
        >>> low, high = found.interval(0.999)
        >>> low < 0.875 < high and found.converged
        True

    """
    if not isinstance(orders, int):
        raise ArgumentError("orders", "a whole number above 1", repr(orders), "Leave the default, or raise it.")
    for name, number, least in (("tol", tol, 0.0), ("orders", orders, 1), ("budget", budget, _LEAST * _BLOCK - 1)):
        if not least < number < inf:
            raise ArgumentError(
                name, f"a finite number above {least:g}", repr(number), "Leave the default, or raise it."
            )
    draws = torch.Generator().manual_seed(seed)
    within, values, places = [], [], []
    while True:
        sequences = sample(draws, _BLOCK)
        _check_rows(sequences, torch.zeros(_BLOCK))
        y = torch.stack([_values(target, _shuffled(sequences, draws)) for _ in range(orders)])  # (K n m)
        within.append(y.var(0).mean(-1))
        values.append(y[0])
        places.append(_placement(sequences))
        spread, drawn = torch.cat(within), _BLOCK * len(within)
        stderr = float(spread.std()) / sqrt(drawn)
        constant = float(torch.cat(values).var(0).mean())
        met = len(within) >= _LEAST and _quantile(0.95, drawn - 1) * stderr <= tol * constant
        if met or drawn + _BLOCK > budget:
            break
    _check_exchangeable(torch.cat(places))
    _check_range(constant)
    return PermutationFloor(
        "squared error", float(spread.mean()), stderr, drawn - 1, constant, None, drawn, drawn, None, met
    )


def _check_rows(sequences: Tensor, targets: Tensor) -> None:
    for name, part in (("sequences", sequences), ("targets", targets)):
        if not isinstance(part, Tensor):
            raise DataError(name, "a tensor", type(part).__name__, f"Pass torch.tensor({name}).")
    fits = sequences.dim() in (2, 3) and len(sequences) and sequences.shape[1] and len(targets) == len(sequences)
    if not fits or targets.dim() not in (1, 2):
        raise DataError(
            "sequences",
            "at least one row of (t,) or (t, d) tokens, and a target for each",
            f"sequences {tuple(sequences.shape)} and targets {tuple(targets.shape)}",
            "Stack the sequences into (N, t) or (N, t, d) and the targets into (N,) or (N, m); pad none.",
        )
    for name, values in (("sequences", sequences), ("targets", targets)):
        if values.is_complex() or not bool(values.isfinite().all()):
            raise DataError(
                name, "finite real numbers", f"{values.dtype} with others", "Take the rows out that hold them."
            )
    if not targets.is_floating_point() and (targets.dim() != 1 or int(targets.min()) < 0):
        given = f"{targets.dtype} of shape {tuple(targets.shape)}, the smallest {int(targets.min())}"
        raise DataError(
            "targets", "labels (N,) from 0, or real values", given, "Count labels from 0, or pass targets.float()."
        )

    if not targets.is_floating_point() and len(targets) * (int(targets.max()) + 1) > _TABLE:
        remedy = "Number those that occur: targets.unique(return_inverse=True)[1]."
        raise DataError("targets", f"at most {_TABLE:.0e} rows times labels", f"a label {int(targets.max())}", remedy)


def _check_range(value: float) -> None:
    if not isfinite(value):
        remedy = "Scale the targets."
        raise NumericsError("targets", "a variance that float64 can hold", f"{value:g}", remedy)


def _shares(weights: Tensor | None, sequences: Tensor) -> Tensor:
    """The rows' probabilities, float64."""
    if weights is None:
        return torch.full((len(sequences),), 1 / len(sequences), dtype=torch.float64, device=sequences.device)
    share = weights.detach().double().to(sequences.device)
    right = share.shape == sequences.shape[:1] and bool(share.isfinite().all()) and bool((share >= 0).all())
    if not right or not share.sum() > 0:
        given = f"shape {tuple(weights.shape)}, sum {float(weights.sum()):g}"
        raise DataError(
            "weights", f"({len(sequences)},) numbers ≥ 0, not all 0", given, "Pass a probability for each row."
        )
    return share / share.sum()


def _multisets(sequences: Tensor) -> tuple[Tensor, int]:
    """The number of each row's multiset, (N,), and how many there are."""
    tokens = sequences.detach().reshape(*sequences.shape[:2], -1)
    tokens = tokens + 0.0 if tokens.is_floating_point() else tokens  # −0 is 0
    _, names = tokens.flatten(0, 1).unique(dim=0, return_inverse=True)
    found, group = names.view(tokens.shape[:2]).sort(1).values.unique(dim=0, return_inverse=True)
    return group, len(found)


def _one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels.long(), int(labels.max()) + 1).double()


def _entropy(joint: Tensor, mass: Tensor) -> Tensor:
    """H(y | group) in nats of joint probabilities (groups, classes) and those of the groups."""
    return (torch.special.entr(joint).sum() - torch.special.entr(mass).sum()).clamp(min=0)


def _values(target: Callable[[Tensor], Tensor], sequences: Tensor) -> Tensor:
    y = target(sequences).detach().double()
    if y.dim() not in (1, 2) or len(y) != len(sequences) or not bool(y.isfinite().all()):
        given = f"shape {tuple(y.shape)} for {len(sequences)} sequences, finite: {bool(y.isfinite().all())}"
        raise DataError("target", "finite values (n,) or (n, m)", given, "Return one value for each sequence.")
    return y.reshape(len(y), -1)


def _shuffled(sequences: Tensor, draws: torch.Generator) -> Tensor:
    """Every row in an order of its own."""
    order = torch.rand(sequences.shape[:2], generator=draws, device="cpu").argsort(1).to(sequences.device)
    rows = torch.arange(len(sequences), device=sequences.device)[:, None]
    return sequences[rows, order]


def _placement(sequences: Tensor) -> Tensor:
    """Tokens and their squares beside the mean over the sequence, (n, t · 2d): of mean zero if exchangeable."""
    tokens = sequences.double().reshape(*sequences.shape[:2], -1)
    both = torch.cat([tokens, tokens.square()], -1)
    return (both - both.mean(1, keepdim=True)).flatten(1)


def _check_exchangeable(places: Tensor) -> None:
    scale = places.std(0) / sqrt(len(places))
    far = torch.where(scale > 0, places.mean(0).abs() / scale.clamp(min=1e-300), 0.0).max()
    if far > _FAR:
        raise DataError(
            "sample",
            "exchangeable tokens, alike at every position",
            f"a position {float(far):.0f} standard errors from the others",
            "Shuffle each sequence, or enumerate the distribution and pass permutation_floor its weights.",
        )
