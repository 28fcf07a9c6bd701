"""Lyapunov exponents: by what factor a step, a typical one, stretches or shrinks small differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap

from ..errors import ArgumentError, DataError, NumericsError, OperandError
from ..spectra.results import _axes, _check_level, _quantile, _to_error, _two_digits

#: A Jacobian: a matrix, (n, n), or its product with a block of vectors, (n, k) → (n, k).
TangentMap = Tensor | Callable[[Tensor], Tensor]

_BLOCKS = 32  # of increments, from which the standard error is taken
_LEAST = 10 * _BLOCKS  # steps before an estimate may stop


@dataclass(frozen=True, repr=False)
class LyapunovSpectrum:
    r"""The leading Lyapunov exponents of a product of Jacobians, in nats a step, each with its error bar.

    Attributes:
        values: λ₁ ≥ λ₂ ≥ … up to their errors, (k,), float64; −inf where a Jacobian was singular.
        stderr: (k,), standard errors from the means over blocks of steps.
        dof: degrees of freedom of ``stderr``.
        steps: steps that were averaged; ``warmup`` more were left out before them.
        warmup: see there.
        seed: of the first directions.
        converged: whether every 95 % interval is at most ``tol`` to each side.

    """

    values: Tensor
    stderr: Tensor
    dof: int
    steps: int
    warmup: int
    seed: int
    converged: bool

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The two-sided Student t interval of each exponent (of each alone, not of all at once)."""
        _check_level(level)
        half = _half(self.stderr, self.dof, level)
        return self.values - half, self.values + half

    def __repr__(self) -> str:
        half = _half(self.stderr, self.dof, 0.95).tolist()
        pairs = list(zip(self.values.tolist(), half, strict=True))
        shown = ", ".join(f"{_to_error(value, error)} ± {_two_digits(error)}" for value, error in pairs[:8])
        more = f", … {len(pairs) - 8} more" if len(pairs) > 8 else ""
        return f"LyapunovSpectrum({shown}{more}; 95 %, {self.steps} steps{'' if self.converged else '; not converged'})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "values": self.values.tolist(), "stderr": self.stderr.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LyapunovSpectrum:
        """The inverse of :meth:`to_dict`."""
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in ("values", "stderr")}
        return cls(**{**record, **tensors})

    def plot(self, ax: Any = None) -> Any:
        """The exponents in order with their 95 % intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        half = _half(self.stderr, self.dof, 0.95)
        ax.errorbar(range(1, len(self.values) + 1), self.values, yerr=half, fmt="o", capsize=3)
        ax.axhline(0, color="0.3", linestyle="--", linewidth=1)
        ax.set(xlabel="index", ylabel="Lyapunov exponent (nats a step)")
        return ax


def lyapunov_exponents(
    products: Iterable[TangentMap],
    n: int,
    steps: int = 10_000,
    k: int | None = None,
    warmup: int = 100,
    tol: float = 0.01,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> LyapunovSpectrum:
    r"""The k largest Lyapunov exponents of a product of Jacobians, by repeated QR factorisation.

    .. math:: \lambda_i = \lim_{T \to \infty} \frac1T \ln \sigma_i(J_T \cdots J_1), \qquad
        J_t Q_{t-1} = Q_t R_t, \quad \lambda_i \approx \frac1T \sum_t \ln |(R_t)_{ii}|

    The product itself overflows, and its columns fall in line with the first direction, long before its small singular
    values show; the factors R do not. Gradients through T steps typically grow or vanish like :math:`e^{\lambda_1 T}`.

    Args:
        products: J₁, J₂, … in the order they are applied: matrices (n, n), functions V ↦ J V on blocks (n, k), or
            :func:`tangent_maps`. At least ``warmup`` + ``steps`` of them, unless the estimate stops earlier.
        n: the dimension. steps: the most steps to average. k: how many exponents, all n if None.
        warmup: steps before the average, in which Q turns into place and an orbit reaches its attractor.
        tol: half the width of the 95 % intervals to reach, in nats a step. Looked at after ``steps``, a half, a quarter,
            … of it, but not before 320.
        seed: of the first directions. dtype, device: of the vectors, those of the Jacobians.

    Cost: a product with k vectors and a QR factorisation, :math:`2 n k^2` operations, a step; memory for n k numbers and k a step.

    Assumptions: the Jacobians are stationary and ergodic after the warm-up. The standard error is the larger of two, from
    the means over 32 blocks and over 16 of twice the length: it holds where increments are correlated over times that are
    short against a block.

    Errors: ``ArgumentError`` for a size outside its domain; ``DataError`` where the products end early; ``OperandError``
    for one of another shape or dtype; ``NumericsError`` that names the step where a number is not finite.

    Source: Benettin et al. 1980, Lyapunov characteristic exponents for smooth dynamical systems and for Hamiltonian systems.

    Example:
        >>> from itertools import repeat
        >>> J = torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
        >>> lyapunov_exponents(repeat(J), n=2)                # the logarithms of its eigenvalues
        LyapunovSpectrum(0.693147181 ± ..., -0.693147181 ± ...; 95 %, 625 steps)

    """
    k = n if k is None else k
    _check_sizes(n, k, steps, warmup, tol)
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, k, generator=generator, dtype=torch.float64, device="cpu")
    Q = torch.linalg.qr(first)[0].to(device, dtype)
    looks = {steps >> i for i in range(steps.bit_length()) if steps >> i >= _LEAST} | {steps}
    increments: list[Tensor] = []
    for step, product in enumerate(products, 1 - warmup):
        Q, R = torch.linalg.qr(_times(product, Q, step + warmup))
        if step <= 0:
            continue
        increments.append(R.diagonal().abs().log())
        if step in looks:
            values, stderr = _averages(torch.stack(increments).double().cpu())
            dof = _BLOCKS // 2 - 1
            met = bool((_half(stderr, dof, 0.95) <= tol).all())
            if met or step == steps:
                return LyapunovSpectrum(values, stderr, dof, step, warmup, seed, met)
    given = f"{max(0, len(increments))} after a warm-up of {warmup}"
    raise DataError("products", f"{steps} Jacobians", given, "Pass more, or a smaller steps or warmup.")


def tangent_maps(
    f: Callable[..., Tensor], x: Tensor, inputs: Iterable[Any] | None = None
) -> Iterator[Callable[[Tensor], Tensor]]:
    r"""The Jacobians of a map along its orbit, :math:`V \mapsto f'(x_t) V` with :math:`x_{t+1} = f(x_t)`, as products.

    Args:
        f: (n,) → (n,), in operations that forward mode knows. Flatten a state of several parts, as of an LSTM.
        x: where the orbit starts, (n,).
        inputs: u₁, u₂, … of a map that is driven, :math:`x_{t+1} = f(x_t, u_t)`; the orbit ends with them. None for f(x).

    Cost: an evaluation of f a step, and k forward derivatives for a product with k vectors. No Jacobian is formed.

    Errors: ``OperandError`` where x is no vector or f returns another shape.

    Example:
        The logistic map at 4 doubles differences, on average:

        >>> logistic = lambda x: 4 * x * (1 - x)
        >>> found = lyapunov_exponents(tangent_maps(logistic, torch.tensor([0.3], dtype=torch.float64)), n=1, tol=0.05)
        >>> found.converged and bool(abs(found.values - 0.6931) < 0.05)
        True

    """
    if x.dim() != 1:
        raise OperandError("x", "a vector, (n,)", f"shape {tuple(x.shape)}", "Flatten the state, and f with it.")
    x = x.detach()
    for arguments in repeat(()) if inputs is None else ((u,) for u in inputs):
        with torch.no_grad():
            following = f(x, *arguments)
        if following.shape != x.shape:
            given = f"{tuple(following.shape)} for {tuple(x.shape)}"
            raise OperandError("f", "a map of the state to a state of its shape", given, "Return the next state alone.")
        yield partial(_push, f, x, arguments)
        x = following


def _push(f: Callable[..., Tensor], x: Tensor, arguments: tuple[Any, ...], V: Tensor) -> Tensor:
    """f'(x) V, column by column."""
    return vmap(lambda v: jvp(lambda at: f(at, *arguments), (x,), (v,))[1], in_dims=1, out_dims=1)(V)


def _times(product: TangentMap, Q: Tensor, step: int) -> Tensor:
    """J Q, checked."""
    if isinstance(product, Tensor) and (product.shape != (len(Q),) * 2 or product.dtype != Q.dtype):
        given = f"{tuple(product.shape)}, {product.dtype} at step {step}"
        raise OperandError(
            "products", f"matrices ({len(Q)}, {len(Q)}), {Q.dtype}", given, "Pass n and dtype of the Jacobians."
        )
    moved = product @ Q if isinstance(product, Tensor) else product(Q)
    if moved.shape != Q.shape:
        given = f"{tuple(moved.shape)} at step {step}"
        raise OperandError("products", f"J V of shape {tuple(Q.shape)}", given, "Return one column for each of V's.")
    if not bool(moved.isfinite().all()):
        remedy = "Start the orbit where it stays bounded, or look at the model for what overflows."
        raise NumericsError("products", "finite numbers", f"inf or nan at step {step}", remedy)
    return moved.detach()


def _averages(increments: Tensor) -> tuple[Tensor, Tensor]:
    """Means over steps, and their standard errors from blocks of two lengths, the larger; (T, k) → (k,) twice."""
    values = increments.mean(0)
    length = len(increments) // _BLOCKS
    blocks = increments[-_BLOCKS * length :].reshape(_BLOCKS, length, -1).mean(1)
    pairs = blocks.reshape(_BLOCKS // 2, 2, -1).mean(1)
    errors = [means.std(0) / len(means) ** 0.5 for means in (blocks, pairs)]
    return values, torch.where(values.isfinite(), torch.maximum(*errors), 0.0)


def _half(stderr: Tensor, dof: int, level: float) -> Tensor:
    return stderr * _quantile(level, dof)


def _check_sizes(n: int, k: int, steps: int, warmup: int, tol: float) -> None:
    if not 1 <= k <= n:
        raise ArgumentError("k", f"a number of exponents between 1 and n = {n}", str(k), "Pass k=None for all.")
    if steps < 2 * _BLOCKS:
        expected = f"at least {2 * _BLOCKS} steps"
        raise ArgumentError("steps", expected, str(steps), f"The error bars need {_BLOCKS} blocks of them; pass more.")
    if warmup < 0:
        raise ArgumentError("warmup", "a number of steps ≥ 0", str(warmup), "Pass warmup=0 for none.")
    if not tol >= 0:
        raise ArgumentError("tol", "a number ≥ 0, in nats a step", str(tol), "Pass tol=0.01; 0 takes all the steps.")
