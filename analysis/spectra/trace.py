"""The trace of an operator."""

from __future__ import annotations

from math import inf

from ..operators.base import Operator, as_operator
from ..operators.bound import Bound
from ..operators.hessian import Hessian
from .adaptive import Adaptive, Mean, quadratic
from .batches import BatchTraces, Noting, Spread, spread, steady
from .layers import by_layers
from .probes import check_options, meets, overflow
from .results import Estimate
from .structured import PerExample, Sum, diagonal_is_gauss_newton, exactly

Options = tuple[float, int, int, int]  # tol, products, seed, block


def trace(
    operator: Operator, tol: float = 0.01, max_matvecs: int = 2000, seed: int = 0, block: int | None = None
) -> Estimate:
    r"""The trace of a symmetric operator, exactly where its structure allows, else with an interval.

    .. math:: \mathrm{tr}(A) = \mathrm{tr}(Q^\top A Q) + E\,z^\top (I - QQ^\top) A (I - QQ^\top) z, \qquad z_i = \pm 1

    The route follows from the operator; ``method`` names it:

    - *per-example gradients*, exact: a GGN or Fisher matrix of linear and 2-d convolutional layers that use each
      parameter once, :math:`\mathrm{tr}(G) = \sum_n \|J_n^\top B_n\|_F^2` with B Bᵀ the loss Hessian; and the Hessian
      where the model is proved piecewise affine in each single parameter (ReLU), for then the two diagonals agree.
    - *layer probes*: any other Hessian of such layers. Random signs are drawn on the layers' outputs, for each example
      anew, so that the examples' errors cancel; ``control variate`` before it where the trace of the GGN is taken exactly
      and the probes are for H − G alone; *layer units*, exact, where fewer unit vectors do.
    - *Hutchinson*: random signs; *Hutch++*: the same on what a basis Q of images of earlier probes leaves, where that
      spares products; *unit vectors*, exact, where the probes that are still missing are more than P.

    Args:
        operator: symmetric, P × P.
        tol: relative; stop when the half-width of the 95 % interval is at most ``tol`` times the absolute trace.
        max_matvecs: the most products; where they do not suffice, ``converged`` is False.
        seed: of the probes, drawn on the CPU one after another, whatever the global generator does.
        block: vectors held and multiplied at a time, by default as many as the operator multiplies together. It changes the
            result by rounding alone.

    Cost: per-example gradients take a backward pass for each entry of one example's output. Else at least 10 products, of
    which those in the layers' outputs take about half the time of one with H; n probes of the parameters have a variance
    of 2(‖A‖_F² − Σ A_ii²)/n, those of the layers between that and an N-th of it for N examples. Memory: ``block`` vectors,
    and up to 100 in the basis where they fit a sixteenth of the device; for layer probes a second set of graphs where
    ``memory_cap`` allows it.

    Error bars: ``stderr`` is that of the probes for the data at hand. ``data_stderr``, for a Hessian, GGN or Fisher matrix
    (not a sum of them, nor a part) over at least two batches, is that over draws of the data: a jackknife that leaves out
    a batch at a time, weighed by size, from the same products; for a loss that sums, of the sum over as many examples. It
    is None where products are taken afresh from a loader that may shuffle. ``bias`` allows for rounding: 4 ε of the
    magnitudes that were added, or of the larger of trace and norm.

    Assumptions: batches are independent draws, which ten copies of one are not. The interval takes the mean of the probes
    for normal. Its standard error is widened by (0.7 + 8/r)/n, r the number of eigenvalues that rule, to make up for
    stopping early and for skewed samples: coverage is 93 – 98 %. That examples do not see each other is checked on a
    random half of them.

    Errors: ``ArgumentError`` for an option outside its domain, ``NumericsError`` for a product that is not finite.

    Source: Meyer, Musco, Musco & Woodruff 2021, Hutch++: optimal stochastic trace estimation; Persson, Cortinovis &
    Kressner 2022, Improved variants of the Hutch++ algorithm for trace estimation.

    Example:
        >>> import torch
        >>> from lemmata.analysis import Dense
        >>> trace(Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))))  # random signs are exact on a diagonal
        6 ± 2.9e-06 (95 %, 10 products)

    """
    operator = as_operator(operator)
    check_options(tol, max_matvecs, block, seed)
    options = tol, max_matvecs, seed, block or operator.block
    if not isinstance(operator, Hessian) or diagonal_is_gauss_newton(operator):
        exact = exactly(operator, PerExample.trace)
        if exact:
            return _exact(*exact, tol, seed)
        found = None
    else:
        found = by_layers(operator, *options)
    return _estimate(*(found or _by_probes(operator, options)), seed)


def _exact(found: Sum, passes: int, tol: float, seed: int) -> Estimate:
    if not found.bias < inf:
        raise overflow("a gradient of a single example")
    met = meets(tol, found.value, 0.0, found.bias)
    mean = Mean(found.value, 0.0, 0, passes, "per-example gradients", met, found.bias)
    return _estimate(mean, spread(found.parts, found.sizes), seed)


def _estimate(mean: Mean, data: Spread, seed: int) -> Estimate:
    known = mean.value, mean.stderr, mean.dof, data[0], mean.matvecs, seed, mean.method, mean.converged
    return Estimate(*known, bias=mean.bias, batches=data[1])


def _by_probes(operator: Operator, options: Options) -> tuple[Mean, Spread]:
    if not isinstance(operator, Bound) or not steady(operator, alone=True):
        return Adaptive(operator, quadratic, *options).run(), (None, 0)
    estimate = BatchTraces(noting := Noting(operator), *options)
    return estimate.run(), spread(estimate.parts, noting.sizes, estimate.forms)
