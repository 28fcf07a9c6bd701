"""The spectral density by stochastic Lanczos quadrature."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import ArgumentError, OperandError
from ..operators.base import Operator, as_operator
from .krylov import ROUNDINGS, Krylov
from .measure import SpectralDensity, quadrature_error, sampling_error
from .probes import Probes, check_seed
from .quadrature import gauss


def spectral_density(
    operator: Operator,
    steps: int = 64,
    probes: int = 10,
    seed: int = 0,
    block: int | None = None,
    start: SpectralDensity | None = None,
    keep: bool = False,
) -> SpectralDensity:
    r"""The density of eigenvalues by stochastic Lanczos quadrature, with a bound on its distance from the truth.

    .. math:: \frac1P \sum_i \delta_{\lambda_i} = E \sum_i (v^\top u_i)^2 \delta_{\lambda_i}, \qquad v_i = \pm P^{-1/2}

    Lanczos iteration from each of several random v, fully reorthogonalised, gives the Gauss quadrature of its measure.
    The distance is that of Wasserstein, :math:`W_1 = \int |F - \hat F|\,dx`, of which ``error`` is a 95 % bound:

    - quadrature: at every x the two distribution functions of a probe differ by at most the Christoffel function of
      the quadrature, whose integral is the bound. It falls like 1/steps where the spectrum is dense and exponentially
      across its gaps.
    - sampling: a probe's share of eigenvalues up to x has a variance of at most 2F(1 − F)/P, so in high dimension few
      probes suffice; the half-width of a Wilson score interval, integrated, is the bound.

    Args:
        operator: symmetric, P × P.
        steps: of Lanczos, for each probe; a probe stops early once its Krylov space is exhausted.
        probes: number of random vectors.
        seed: of the probes, drawn on the CPU one after another, whatever the global generator does.
        block: probes advanced together, in one block product a step, by default as many as the operator multiplies
            together. It changes the result by rounding alone.
        start: a density of the same operator and seed, made with ``keep=True``. Its products are not repeated: only
            further steps and further probes cost.
        keep: hold the Lanczos vectors in the result, so that it can be continued.

    Cost: steps × probes products. Memory: (steps + 1) × ``block`` vectors, with ``keep`` (steps + 1) × ``probes``. The
    host waits for an accelerator once in eight steps.

    Assumptions: no eigenvalue of a visible weight lies outside ``ends`` (the outermost nodes, each widened by its
    residual): Lanczos finds the ends first, but cannot prove that nothing is beyond. The sampling bound takes the
    probes' mean distribution function for normal at each x.

    Errors: ``ArgumentError`` for an option outside its domain, ``OperandError`` for a start of another operator,
    ``NumericsError`` for a product that is not finite.

    Source: Chen, Trogdon & Ubaru 2021, Analysis of stochastic Lanczos quadrature for spectrum approximation.

    Example:
        >>> from lemmata.analysis import Dense
        >>> found = spectral_density(Dense(torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0]))))
        >>> value, low, high = found.cdf(2.0)
        >>> round(float(value), 6)  # three of four
        0.75

    """
    operator = as_operator(operator)
    block = operator.block if block is None else block
    for name, number in (("steps", steps), ("probes", probes), ("block", block)):
        if not isinstance(number, int) or number < 1:
            raise ArgumentError(name, "an integer ≥ 1", repr(number), f"Pass {name}=16, for example.")
    check_seed(seed)
    earlier = [] if start is None else _earlier(operator, start, probes, seed)
    draws, runs, rules, count, products = Probes(operator, seed), [], [], 0, 0
    while count < probes:
        if earlier:
            run = earlier.pop(0)
            draws.draw(len(run))  # so that the next probes are those of an uninterrupted computation
        else:
            run = Krylov(operator, draws.draw(min(block, probes - count)))
        run.advance(steps)
        rules += run.coefficients(steps)
        count, products = count + len(run), products + len(run) * min(steps, run.steps)
        runs += [run] if keep else []
        del run
    return _density(operator, rules, products, seed, tuple(runs))


def _density(
    operator: Operator,
    coefficients: list[tuple[np.ndarray, np.ndarray]],
    products: int,
    seed: int,
    runs: tuple[Krylov, ...],
) -> SpectralDensity:
    rules = [gauss(alpha, beta) for alpha, beta in coefficients]
    exact = [bool(beta[-1] == 0) for _, beta in coefficients]
    ends = min(float(n[0] - r[0]) for n, _, r in rules), max(float(n[-1] + r[-1]) for n, _, r in rules)
    longest = max(len(nodes) for nodes, _, _ in rules)
    nodes = np.stack([np.pad(n, (0, longest - len(n)), mode="edge") for n, _, _ in rules])
    weights = np.stack([np.pad(w, (0, longest - len(w))) for _, w, _ in rules]) / len(rules)
    scale = max(float(np.abs(alpha).max() + beta.max()) for alpha, beta in coefficients)
    size = operator.shape[0]
    return SpectralDensity(
        torch.from_numpy(nodes),
        torch.from_numpy(weights),
        ends,
        tuple(exact),
        size,
        ROUNDINGS * torch.finfo(operator.dtype).eps * scale,
        quadrature_error([(n, w) for n, w, _ in rules], exact, ends),
        sampling_error(nodes.ravel(), weights.ravel(), ends, len(rules) * size / 2),
        products,
        seed,
        runs,
    )


def _earlier(operator: Operator, start: SpectralDensity, probes: int, seed: int) -> list[Krylov]:
    """The runs of the density to continue, if it can be."""
    if not start.krylov:
        remedy = "Make it with spectral_density(..., keep=True); records do not hold the vectors."
        raise ArgumentError("start", "a density that holds its Lanczos vectors", "one without them", remedy)
    if any(run.operator is not operator for run in start.krylov):
        remedy = "Pass the operator that start was made of."
        raise OperandError("start", f"a density of {operator!r}", f"one of {start.krylov[0].operator!r}", remedy)
    if seed != start.seed:
        remedy = f"Pass seed={start.seed}, or leave start out."
        raise ArgumentError("seed", f"{start.seed}, the seed of start", repr(seed), remedy)
    if probes < len(start.nodes):
        remedy = f"Pass probes={len(start.nodes)} or more."
        raise ArgumentError("probes", f"at least {len(start.nodes)}, those of start", repr(probes), remedy)
    return list(start.krylov)
