"""What few neurons a layer can do if there are enough layers: identities, maxima and strings of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, cos, isfinite, log2, pi
from typing import Literal

import torch
from torch import Tensor

from ..errors import ArgumentError, DataError
from .construction import Construction, Layers, affine, beside, hidden, network_of, passing, then
from .domains import Box, Domain, Finite, whole
from .round_domains import Ball
from .target import Target
from .targets import cone as cone_target

_EPS = 2.0**-52


def identity(dimension: int, layers: int = 1) -> Construction:
    r"""The identity through hidden layers of 2d rectifiers, x = relu(x) − relu(−x); exact for every float.

    Args: ``dimension`` – d; ``layers`` – hidden layers.

    Errors: ``ArgumentError`` for a dimension or depth below 1.

    Source: arora2018understanding.

    Example:
        >>> identity(2, layers=5).check().error
        0.0

    """
    net = network_of(passing(whole("dimension", dimension), whole("layers", layers)))
    count = {1: 4097, 2: 65}.get(dimension, 3)
    statement = f"Two rectifiers a coordinate pass {dimension} numbers through {layers} layers."
    return Construction(net, lambda x: x, 0.0, Box.cube(dimension), statement, count)


def max_tree(dimension: int) -> Construction:
    r"""The largest of d numbers in :math:`\lceil \log_2 d \rceil` hidden layers, three rectifiers for each pair.

    .. math:: \max(a, b) = \mathrm{relu}(b - a) + \mathrm{relu}(a) - \mathrm{relu}(-a)

    Equal to the last bit wherever differences are: on dyadic grids and on integers; elsewhere each level rounds.

    Errors: ``ArgumentError`` for a dimension below 2 or above 4096.

    Source: arora2018understanding.

    Example:
        >>> tree = max_tree(4)
        >>> len(tree.network) // 2, tree(torch.tensor([[0.25, 0.75, 0.5, 0.0]], dtype=torch.float64)).item()
        (2, 0.75)

    """
    width = whole("dimension", dimension, 2, 4096)
    layers: Layers = affine(torch.eye(width, dtype=torch.float64))
    larger = hidden(([[-1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], 0.0), ([[1.0, 1.0, -1.0]], 0.0))  # relu(b − a) + a
    while width > 1:
        layers = then(layers, beside(*[larger] * (width // 2), *[passing(1, 1)] * (width % 2)))
        width = ceil(width / 2)
    statement = f"A tree of {ceil(log2(dimension))} hidden layers makes the largest of {dimension} numbers."
    domain: Domain = Box.cube(dimension, 0.0)
    if dimension > 8:  # a grid would have too many points
        domain = Finite((domain.sample(4096) * 2**16).round() / 2**16)
    count = 1 + 2 ** int(16 / dimension)
    elsewhere = 8 * _EPS * ceil(log2(dimension))
    return Construction(network_of(layers), lambda x: x.amax(1), 0.0, domain, statement, count, elsewhere=elsewhere)


Kind = Literal["max", "min"]


def string(slopes: Sequence[Sequence[float]], offsets: Sequence[float], kinds: Sequence[Kind], reach: float) -> Layers:
    r"""A string of maxima and minima of affine functions, one a layer, in width d + 1.

    .. math:: s_1 = \ell_1, \qquad s_k = \max(s_{k-1}, \ell_k)\ \text{or}\ \min(s_{k-1}, \ell_k), \qquad
        \max(s, \ell) = \ell + \mathrm{relu}(s - \ell), \quad \min(s, \ell) = \ell - \mathrm{relu}(\ell - s)

    d neurons carry the inputs, lifted by ``reach`` so that rectifiers leave them alone; one holds the running value.

    Args: ``slopes`` (K, d), ``offsets`` (K,), ``kinds`` of the K − 1 steps; ``reach`` – a bound on −x_i.

    Source: hanin2017approximating.

    Example:
        |x| as the larger of x and −x, two neurons:

        >>> net = network_of(string([[1.0], [-1.0]], [0.0, 0.0], ["max"], reach=1.0))
        >>> [net(torch.tensor([x], dtype=torch.float64)).item() for x in (-0.5, 0.25)], net[0].out_features
        ([0.5, 0.25], 2)

    """
    w = torch.as_tensor(slopes, dtype=torch.float64)  # (K, d)
    b = torch.as_tensor(offsets, dtype=torch.float64) - reach * w.sum(1)  # of the lifted inputs
    d = w.shape[1]
    carry, none = torch.eye(d, dtype=torch.float64), torch.zeros(d, 1, dtype=torch.float64)
    lift = torch.full((d,), float(reach), dtype=torch.float64)
    layers, before = affine(carry, lift), 0.0  # before: the sign with which the last rectifier enters s
    for k in range(1, len(w)):
        sign = 1.0 if kinds[k - 1] == "max" else -1.0
        row, bias = sign * (w[k - 1] - w[k]), sign * (b[k - 1] - b[k])
        if k == 1:
            step = torch.cat([carry, row[None]])
        else:
            step = torch.cat([torch.cat([carry, none], 1), torch.cat([row, row.new_tensor([sign * before])])[None]])
        zeros = torch.zeros(d, dtype=torch.float64)
        pair = hidden((step, torch.cat([zeros, bias[None]])), (torch.eye(d + 1, dtype=torch.float64), 0.0))
        layers, before = then(layers, pair), sign
    last = w[-1] if len(w) == 1 else torch.cat([w[-1], w.new_tensor([before])])
    return then(layers, affine(last[None], b[-1]))


def narrow_cone(directions: int) -> Construction:
    r"""The cone 1 − ‖x‖ on the unit disc by K − 1 hidden layers of width three, with error :math:`1 - \cos(\pi/K)`.

    :math:`1 - \max_k u_k \cdot x` for K equally spaced unit vectors: two neurons carry x, the third the running maximum.
    The error is largest on the rim, half-way between two directions. Width two has an error of at least 1/2 at any depth.

    Args: ``directions`` – K.

    Errors: ``ArgumentError`` for fewer than three directions or more than 10 000.

    Source: hanin2017approximating, johnson2019deep.

    Example:
        >>> witness = narrow_cone(12).check()
        >>> round(witness.error, 5), witness.holds
        (0.03407, True)

    """
    K = whole("directions", directions, 3, 10**4)
    angles = [2 * pi * k / K for k in range(K)]
    slopes = [[-cos(a), -cos(a - pi / 2)] for a in angles]
    layers = string(slopes, [1.0] * K, ["min"] * (K - 1), reach=1.0)
    statement = f"{K - 1} hidden layers of width three make the cone over the disc from {K} directions."
    count = 2 * K * max(1, ceil(128 / K))
    return Construction(
        network_of(layers), cone_target(2), 1 - cos(pi / K), Ball(2), statement, count, 50 * K**0.5 * _EPS
    )


def narrow_line(function: Callable[[Tensor], Tensor], lipschitz: float, cells: int) -> Construction:
    r"""Any L-Lipschitz function on [0, 1] by width two: a zigzag of slopes ±L through its values at k/n, error at most L/n.

    On each cell the zigzag rises, then falls. A line of slope L through one of its points lies below all of it on the left
    of that point, one of slope −L above: so the zigzag is a string of 2n maxima and minima, 2n − 1 layers.

    Args: ``function`` – (n, 1) → (n,); ``lipschitz`` – L; ``cells`` – n.

    Errors: ``ArgumentError`` for a constant that is not positive or no cells; ``DataError`` where two values of the function
    are further apart than L allows, or not finite, or of another shape.

    Source: hanin2017approximating.

    Example:
        >>> vee = narrow_line(lambda x: (x[:, 0] - 0.5).abs(), 1.0, 8)
        >>> vee.check().holds, {layer.out_features for layer in list(vee.network)[:-1:2]}
        (True, {2})

    """
    n = whole("cells", cells, 1, 10**4)
    if not isfinite(lipschitz) or lipschitz <= 0:
        raise ArgumentError("lipschitz", "a finite positive number", repr(lipschitz), "Pass lipschitz=1.0.")
    L, knots = float(lipschitz), Box.cube(1, 0.0).grid(n + 1)
    target = Target("function", function, Box.cube(1, 0.0))
    values = target(knots).tolist()
    for k, (left, right) in enumerate(pairwise(values)):
        if not abs(right - left) <= L / n * (1 + 1e-12):
            given = f"values {left:g} and {right:g} at {k}/{n} and {k + 1}/{n}"
            raise DataError("function", f"steps of at most {L / n:g}", given, "Pass a larger constant.")
    slopes = [[L], [-L]] * n
    offsets = [c for k in range(n) for c in (values[k] - L * k / n, values[k + 1] + L * (k + 1) / n)]
    kinds: list[Kind] = ["min" if k % 2 == 0 else "max" for k in range(2 * n - 1)]
    layers = string(slopes, offsets, kinds, reach=0.0)
    statement = f"{2 * n - 1} hidden layers of width two follow a Lipschitz function through {n} cells."
    size = L + max(map(abs, values))
    return Construction(
        network_of(layers), target, L / n, Box.cube(1, 0.0), statement, 32 * n + 1, 50 * (2 * n) ** 0.5 * _EPS * size
    )
