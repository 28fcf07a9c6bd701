"""What one hidden layer can do if it is wide: memorise, follow by steps, and sample a spectrum."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, log, pi, sqrt

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from .construction import Construction
from .domains import Box, Domain, Finite, distances, whole
from .target import Target
from .target_spectra import Lines

_EPS = 2.0**-52
_DRAWS = 100  # of a sampled network, before one that meets the mean is given up
_SMOOTH = 2.0**-10  # what the finite slope of sigmoids may add, relative to the modulus of continuity


class SharedDirection(nn.Module):
    r""":math:`c(x) = \sum_j w_j\, \mathrm{relu}(a \cdot x - b_j)`: one direction, n thresholds, n weights; 2n + d numbers.

    Source: zhang2017understanding.
    """

    def __init__(self, direction: Tensor, thresholds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.direction = nn.Parameter(direction.clone())  # (d)
        self.thresholds = nn.Parameter(thresholds.clone())  # (n)
        self.weights = nn.Parameter(weights.clone())  # (n)

    def forward(self, x: Tensor) -> Tensor:
        """The values, (…, d) → (…)."""
        return torch.relu((x @ self.direction)[..., None] - self.thresholds) @ self.weights


def thresholds_between(places: Tensor) -> Tensor:
    """b_1 < z_1 < b_2 < z_2 < …: a threshold below each of some places in ascending order, half-way to the one before."""
    gaps = places.diff()
    first = places[:1] - (gaps.mean() if len(gaps) else 1.0)
    return torch.cat([first, places[:-1] + gaps / 2])


def memoriser(inputs: Tensor, labels: Tensor, seed: int = 0) -> Construction:
    r"""Zhang's network: 2n + d numbers that give n distinct points any labels.

    Along a direction a the points are distinct, :math:`z_1 < \dots < z_n`; with thresholds between them the matrix
    :math:`[\mathrm{relu}(z_i - b_j)]` is triangular with a positive diagonal, and the weights solve it. Of 64 directions the
    one with the widest smallest gap is taken. Rounding grows with the condition number, about n²/gap: n ≤ 200 or so.

    Args: ``inputs`` (n, d), ``labels`` (n,), ``seed`` of the directions.

    Errors: ``DataError`` for shapes that do not fit, numbers that are not finite, or two equal points.

    Cost: n² operations.

    Source: zhang2017understanding.

    Example:
        >>> x = Box.cube(3).sample(20)
        >>> learned = memoriser(x, torch.arange(20.0, dtype=torch.float64) % 2)
        >>> learned.parameters, learned.check().error < 1e-9
        (43, True)

    """
    good = inputs.ndim == 2 and labels.shape == inputs.shape[:1] and len(inputs) and inputs.is_floating_point()
    if not good or not bool(inputs.isfinite().all() & labels.isfinite().all()):
        given = f"{tuple(inputs.shape)} and {tuple(labels.shape)}" + (" with nan or inf" if good else "")
        remedy = "Pass float rows and one label each."
        raise DataError("inputs, labels", "finite numbers of shape (n, d) and (n,)", given, remedy)
    x, y = inputs.detach().double(), labels.detach().double()
    draws = torch.Generator("cpu").manual_seed(seed)
    directions = torch.randn(64, x.shape[1], generator=draws, dtype=torch.float64, device="cpu").to(x.device)
    directions = directions / directions.norm(dim=1, keepdim=True)
    places, order = (x @ directions.T).sort(0)  # (n, 64)
    gaps = places.diff(dim=0).amin(0) / (places[-1] - places[0]) if len(x) > 1 else directions.new_ones(64)
    best = int(gaps.nan_to_num().argmax())
    if not gaps[best] > 0:
        i, j = order[:, best][int(places[:, best].diff().argmin()) :][:2].tolist()
        remedy = "Remove the repetition: a function has one value at a point."
        raise DataError("inputs", "distinct points", f"rows {i} and {j} alike", remedy)
    z = places[:, best]
    b = thresholds_between(z)
    matrix = torch.relu(z[:, None] - b)
    weights = torch.linalg.solve_triangular(matrix, y[order[:, best], None], upper=False)[:, 0]
    rounding = 50 * sqrt(len(x)) * _EPS * float((matrix @ weights.abs()).max() + 1)
    target = Finite(x)
    statement = f"{2 * len(x) + x.shape[1]} numbers give {len(x)} points their labels."

    def labelled(points: Tensor) -> Tensor:
        return y[distances(points.double(), x).argmin(1)]

    return Construction(SharedDirection(directions[best], b, weights), labelled, 0.0, target, statement, 1, rounding)


def _sigmoids(rows: Tensor, offsets: Tensor, weights: Tensor, constant: float) -> nn.Sequential:
    first = nn.utils.skip_init(nn.Linear, rows.shape[1], len(rows), dtype=torch.float64, device=rows.device)
    last = nn.utils.skip_init(nn.Linear, len(rows), 1, dtype=torch.float64, device=rows.device)
    with torch.no_grad():
        first.weight.copy_(rows)
        first.bias.copy_(offsets)
        last.weight.copy_(weights[None])
        last.bias.fill_(constant)
    return nn.Sequential(first, nn.Sigmoid(), last)


def _steps(values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """Slopes, offsets, weights and constant of n − 1 sigmoids that step through n values at the centres of equal cells."""
    n = len(values)
    slope = 2 * n * log(n / _SMOOTH) / (high - low)
    knots = low + (high - low) * torch.arange(1, n, dtype=torch.float64, device=values.device) / n
    return torch.full_like(knots, slope), -slope * knots, values.diff(), float(values[0])


def sigmoid_steps(
    function: Callable[[Tensor], Tensor],
    modulus: Callable[[float], float],
    cells: int,
    low: float = 0.0,
    high: float = 1.0,
) -> Construction:
    r"""Density made explicit: n − 1 logistic sigmoids climb any continuous function step by step.

    .. math:: g(x) = f(t_1) + \sum_{k=1}^{n-1} \big(f(t_{k+1}) - f(t_k)\big)\, \sigma\big(\lambda (x - s_k)\big)

    with t_k the centres and s_k the ends of n equal cells of width h. The nearest step is a mean of two values at most h
    away; the others are within :math:`e^{-\lambda h/2}` of 0 or 1, and λ makes them add less than a thousandth: with ω the
    modulus of continuity, :math:`\|f - g\|_\infty \le (1 + 2^{-10})\, \omega(h)`.

    Args: ``function`` – (n, 1) → (n,); ``modulus`` – h to ω(h); ``cells`` – n; ``low``, ``high`` – the interval.

    Errors: ``ArgumentError`` for a modulus that is negative or not finite, or no cells; ``DataError`` for values of the
    function that are not finite or of another shape.

    Source: cybenko1989approximation, hornik1991approximation.

    Example:
        >>> stairs = sigmoid_steps(lambda x: x[:, 0].sqrt(), lambda h: h**0.5, 100)
        >>> stairs.check().holds, round(stairs.error_bound, 3)
        (True, 0.1)

    """
    n, domain = whole("cells", cells, 2), Box((low,), (high,))
    width = (high - low) / n
    largest = modulus(width)
    if not isfinite(largest) or largest < 0:
        remedy = "Pass ω with ω(h) ≥ |f(x) − f(y)| for |x − y| ≤ h, such as lambda h: L * h."
        raise ArgumentError("modulus", "a finite number ≥ 0", repr(largest), remedy)
    target = Target("function", function, domain)
    values = target(domain.grid(2 * n + 1)[1::2])
    slopes, offsets, weights, constant = _steps(values, low, high)
    net = _sigmoids(slopes[:, None], offsets, weights, constant)
    bound, rounding = largest * (1 + _SMOOTH), 50 * sqrt(n) * _EPS * float(values.abs().max() + 1)
    statement = f"{n - 1} sigmoids follow a continuous function in steps."
    return Construction(net, target, bound, domain, statement, min(16 * n + 1, 10**6), rounding)


def ridge_sum(target: Target, cells: int) -> Construction:
    r"""Density in several variables: a sum of waves, each of them climbed by sigmoids in its own direction.

    :math:`f = \sum_k a_k \cos(\omega_k \cdot x)` is a sum of functions of one variable, :math:`\omega_k \cdot x`, whose range
    on the box has a length :math:`\ell_k = \sum_i |\omega_{ki}| (b_i - a_i)`. With n cells for each of K waves the error is at
    most :math:`(1 + 2^{-10}) \sum_k |a_k|\, \ell_k / n`; trigonometric sums being dense, so are networks.

    Args: ``target`` – on a box, with finitely many frequencies; ``cells`` – n. K(n − 1) sigmoids.

    Errors: ``ArgumentError`` for a target on another domain or without such a spectrum.

    Source: cybenko1989approximation.

    Example:
        >>> waves = Lines(torch.tensor([[3.0, 1.0], [1.0, -2.0]]), torch.tensor([0.5, 0.5]))
        >>> ridge_sum(Target("waves", waves, Box.cube(2), spectrum=waves), 200).check().holds
        True

    """
    n, box, lines = whole("cells", cells, 2), target.domain, target.spectrum
    if not isinstance(box, Box) or not isinstance(lines, Lines):
        given = f"{type(lines).__name__} on {type(box).__name__}"
        raise ArgumentError("target", "a sum of waves on a box", given, "Pass spectrum=Lines(…), domain=Box(…).")
    device = torch.get_default_device()
    omega, a = lines.frequencies.double().to(device), lines.amplitudes.double().to(device)
    low, high = (torch.tensor(end, dtype=torch.float64, device=device) for end in (box.low, box.high))
    least = torch.minimum(omega * low, omega * high).sum(1).tolist()
    most = torch.maximum(omega * low, omega * high).sum(1).tolist()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    constant, bound = 0.0, 0.0
    for wave, size, start, end in zip(omega, a.tolist(), least, most, strict=True):
        if start == end:
            constant += size
            continue
        centres = start + (end - start) * (torch.arange(n, dtype=torch.float64, device=device) + 0.5) / n
        slopes, shifts, jumps, first = _steps(size * torch.cos(centres), start, end)
        parts.append((slopes[:, None] * wave, shifts, jumps))
        constant, bound = constant + first, bound + abs(size) * min((end - start) / n, 2.0) * (1 + _SMOOTH)
    if not parts:
        raise ArgumentError(
            "target", "a wave that is not constant", target.name, "Pass frequencies that are not all 0."
        )
    rows, offsets, weights = (torch.cat(some) for some in zip(*parts, strict=True))
    net = _sigmoids(rows, offsets, weights, constant)
    count = {1: 4097, 2: 129, 3: 33}.get(box.dimension, 5)
    statement = f"{len(parts)} waves, each climbed by {n - 1} sigmoids, make a function of {box.dimension} variables."
    rounding = 50 * sqrt(len(rows)) * _EPS * (lines.mass + 1)
    return Construction(net, target, bound, box, statement, count, rounding)


class Waves(nn.Module):
    r""":math:`\sum_i c_i \cos(\omega_i \cdot x)`: one hidden layer of cosines."""

    def __init__(self, frequencies: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(frequencies.clone())  # (n d)
        self.weights = nn.Parameter(weights.clone())  # (n)

    def forward(self, x: Tensor) -> Tensor:
        """The values, (…, d) → (…)."""
        return torch.cos(x @ self.frequencies.T) @ self.weights


def maurey_barron(target: Target, units: int, seed: int = 0) -> Construction:
    r"""Maurey's sampling: n cosines drawn from the spectrum, with a mean square error of at most :math:`\|\hat f\|_1^2/n - \|f\|^2/n`.

    With ω drawn from :math:`|\hat f|/m`, :math:`m = \|\hat f\|_1`, and its sign, :math:`f = E\, m\, s \cos(\omega \cdot x)`; the mean
    of n draws has the expected square error :math:`(m^2 E \cos^2 - \|f\|^2)/n`, whatever the dimension. Some draw is no worse
    than the mean: the first one of up to 100 that meets :math:`m/\sqrt n` is taken.

    Up to three dimensions the norm is that of the domain, by quadrature, above that of 4096 of its points.

    Args: ``target`` – with a spectrum; ``units`` – n; ``seed`` of the draws.

    Errors: ``ArgumentError`` for a target without a spectrum; ``NumericsError`` if no draw meets the bound.

    Source: barron1993universal.

    Example:
        >>> from .targets import radial_bump
        >>> maurey_barron(radial_bump(20), 100).check().holds
        True

    """
    n, spectrum, domain = whole("units", units), target.spectrum, target.domain
    if spectrum is None:
        remedy = "Pass one with a spectrum, such as targets.radial_bump(8)."
        raise ArgumentError("target", "one whose spectrum is known", target.name, remedy)
    if domain.dimension > 3 and not isinstance(domain, Finite):
        domain = Finite(domain.sample(4096, seed))
    draws = torch.Generator("cpu").manual_seed(seed)
    bound, statement = spectrum.mass / sqrt(n), f"{n} cosines drawn from the spectrum of {target.name}."
    for _ in range(_DRAWS):
        omega, signs = spectrum.draw(n, draws)
        net = Waves(omega, spectrum.mass * signs / n).to(torch.get_default_device())
        order = _order(domain, float(omega.abs().max()))
        found = Construction(net, target.function, bound, domain, statement, order, 50 * sqrt(n) * _EPS, "l2")
        if found.check().holds:
            return found
    remedy = "Look whether the spectrum is that of the target."
    raise NumericsError("target", f"a draw with an error of at most {bound:.3g}", f"none of {_DRAWS}", remedy)


def _order(domain: Domain, frequency: float) -> int:
    """Points an axis of a rule that resolves squares of waves."""
    reach = float((max(domain.high) - min(domain.low)) / 2) if isinstance(domain, Box) else 1.0
    most = {1: 4000, 2: 400, 3: 100}.get(domain.dimension, 1)
    return min(most, 20 + int(2 * frequency * reach * pi / 2))
