"""Two sets that an encoder cannot tell apart: what no read-out of its latent numbers can undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from ..checks import Audit, row
from ..errors import ArgumentError, DataError

Function = Callable[[Tensor], Tensor]
_STEP = 1e-6  # of the central differences, relative to the domain
_NEAR = 1e-6  # by which the targets may fall short of being apart, relative


@dataclass(frozen=True, repr=False)
class Collision:
    r"""Two sets of numbers whose latents are as near as was found while their targets differ.

    Attributes:
        first, second: the sets, (N,) each, in increasing order.
        latent_gap: the distance of their latents over the largest spread of a latent number between random sets; inf where
            no search ended at targets that differ by half of what was asked for.
        targets: of both.
        found: whether the latents are equal to the tolerance. False is no proof that there is no such pair.
        starts: how many searches were made.

    """

    first: Tensor
    second: Tensor
    latent_gap: float
    targets: tuple[float, float]
    found: bool
    starts: int

    @property
    def floor(self) -> float:
        """What every function of the latents errs by on one of the two sets at least: half of how far the targets differ."""
        return abs(self.targets[0] - self.targets[1]) / 2 if self.found else 0.0

    @property
    def argument(self) -> str:
        """Why, in words."""
        if not self.found:
            return f"No two sets with one latent were found in {self.starts} searches."
        a, b = ("{" + ", ".join(f"{v:.4g}" for v in s.tolist()) + "}" for s in (self.first, self.second))
        return f"{a} and {b} have one latent, but the targets {self.targets[0]:.4g} and {self.targets[1]:.4g}."

    def check(self, predictions: Tensor) -> Audit:
        """Whether a model's outputs on the first and the second set, (2,), err by the floor at least: a read-out's must."""
        if predictions.shape != (2,):
            given = f"shape {tuple(predictions.shape)}"
            raise DataError("predictions", "two numbers", given, "Pass model(stack of first and second)[:, 0].")
        errors = [abs(float(f) - t) for f, t in zip(predictions, self.targets, strict=True)]
        note = f"{max(errors):.6g}, floor {self.floor:.6g}"
        return Audit(
            "a function of the latents",
            (row("error below the floor", self.floor - max(errors), 1e-6 * self.floor, note),),
        )

    def __repr__(self) -> str:
        state = f"targets differ by {2 * self.floor:.4g}" if self.found else "none found"
        return f"Collision({state}, latent gap {self.latent_gap:.1e}, {self.starts} starts)"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Collision:
        """The inverse of :meth:`to_dict`."""
        how: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
        sets = {name: torch.tensor(record[name], **how) for name in ("first", "second")}
        return cls(**{**record, **sets, "targets": tuple(record["targets"])})


def latent_collision(
    encoder: Function,
    target: Function,
    size: int,
    domain: tuple[float, float] = (0.0, 1.0),
    apart: float = 0.05,
    starts: int = 32,
    seed: int = 0,
    tol: float = 1e-12,
) -> Collision:
    r"""Search for two sets of numbers with equal latents and different targets.

    .. math:: E(X) = E(X'), \qquad |t(X) - t(X')| \ge \delta

    A continuous sum decomposition :math:`\rho(\sum_i \phi(x_i))` with fewer latent numbers than elements has such a pair for the
    maximum, whatever φ is. From random X the other set is found by least squares on the latents and on what the targets lack of
    differing by δ; of all pairs that collide, the one whose targets differ most is given, else the pair of the nearest latents.

    Args:
        encoder: float64 sets (b, N, 1) to latents (b, m), continuous. target: sets (b, N, 1) to numbers (b,).
        size: N ≥ 2. domain: of the elements. apart: δ > 0. starts: how many X are tried.
        tol: how near latents count as equal, relative to their spread between random sets.

    Cost: some ten evaluations of the encoder at 2N + 1 sets for each start. Draws and search on the CPU.

    Errors: ``ArgumentError`` for a size, domain, distance or number of starts that cannot be; ``DataError`` for latents or
    targets of another shape, or not finite.

    Source: Wagstaff, Fuchs, Engelcke, Posner & Osborne 2019, On the limitations of representing functions on sets.

    Example:
        The sum of squares is blind to how they are shared out, the maximum is not:

        >>> latent_collision(lambda x: x.square().sum(1), lambda x: x[..., 0].amax(1), size=2).found
        True

    """
    _check(size, domain, apart, starts)
    low, high = domain
    draws = np.random.default_rng(seed)
    origins, guesses = draws.uniform(low, high, (2, starts, size))
    signs = draws.choice([-1.0, 1.0], starts)
    spread = float(np.ptp(_evaluate(encoder, origins, "encoder", (starts, None)), 0).max()) or 1.0
    best: tuple[tuple[bool, float], tuple] | None = None
    for origin, guess, sign in zip(origins, guesses, signs, strict=True):

        def residual(sets: np.ndarray, origin: np.ndarray = origin, sign: float = sign) -> np.ndarray:
            latents = _evaluate(encoder, np.concatenate([origin[None], sets]), "encoder", (len(sets) + 1, None))
            t = _evaluate(target, np.concatenate([origin[None], sets]), "target", (len(sets) + 1,))
            lacking = np.maximum(0.0, apart - sign * (t[1:] - t[0])) / apart
            return np.concatenate([(latents[1:] - latents[0]) / spread, lacking[:, None]], 1)

        found = _solve(residual, guess, low, high)
        t = _evaluate(target, np.stack([origin, found]), "target", (2,))
        gap, differ = float(np.linalg.norm(residual(found[None])[0, :-1])), abs(float(t[1] - t[0]))
        equal = gap <= tol
        if differ < (1 - _NEAR if equal else 0.5) * apart:  # what a search that fails ends at need not be quite apart
            continue
        rank = (equal, differ if equal else -gap)
        if best is None or rank > best[0]:
            best = rank, (origin, found, gap, t)
    if best is None:
        zero = torch.zeros(size, dtype=torch.float64, device="cpu")
        return Collision(zero, zero, np.inf, (0.0, 0.0), False, starts)
    (equal, _), (origin, found, gap, t) = best
    first, second = (torch.from_numpy(np.sort(s)) for s in (origin, found))
    return Collision(first, second, gap, (float(t[0]), float(t[1])), equal, starts)


def _solve(residual: Callable[[np.ndarray], np.ndarray], guess: np.ndarray, low: float, high: float) -> np.ndarray:
    """Least squares in a box with central differences, all in one evaluation."""
    step = _STEP * (high - low)
    shifts = step * np.eye(len(guess))

    def jacobian(x: np.ndarray) -> np.ndarray:
        values = residual(np.concatenate([x + shifts, x - shifts]))
        return (values[: len(x)] - values[len(x) :]).T / (2 * step)

    tight: dict[str, Any] = dict(xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=60)
    return least_squares(lambda x: residual(x[None])[0], guess, jacobian, bounds=(low, high), **tight).x


def _evaluate(function: Function, sets: np.ndarray, name: str, shape: tuple) -> np.ndarray:
    with torch.no_grad():
        values = function(torch.from_numpy(sets)[..., None]).cpu().double()
    if values.ndim != len(shape) or values.shape[0] != shape[0]:
        wanted = "(b, m)" if len(shape) == 2 else "(b,)"
        remedy = "Let it take sets (b, N, 1) and keep the first axis."
        raise DataError(name, f"shape {wanted}", f"shape {tuple(values.shape)}", remedy)
    if not bool(values.isfinite().all()):
        raise DataError(name, "finite values", "NaN or infinity", "Choose a domain on which it is finite.")
    return values.numpy()


def _check(size: int, domain: tuple[float, float], apart: float, starts: int) -> None:
    for name, value, least in (("size", size, 2), ("starts", starts, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ArgumentError(name, f"an integer ≥ {least}", repr(value), f"Pass {name}={max(least, 8)}.")
    if len(domain) != 2 or not -np.inf < domain[0] < domain[1] < np.inf:
        raise ArgumentError("domain", "two finite numbers, the lower first", repr(domain), "Pass domain=(0.0, 1.0).")
    if not apart > 0:
        raise ArgumentError("apart", "a positive number", repr(apart), "Pass what difference of targets counts.")
