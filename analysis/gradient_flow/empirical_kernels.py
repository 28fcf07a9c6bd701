"""Kernels of finite networks, averaged over draws of their weights, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, NumericsError
from ..operators.ntk import NTK
from ..operators.snapshot import Watch, snapshot
from ..spectra.results import _axes, _check_level, _quantile

_LEAST = 10  # draws before it may stop


@dataclass(frozen=True, repr=False)
class EmpiricalKernel:
    r"""A kernel of random networks of one width, every entry with its error bar.

    Attributes:
        values: (N, N), float64, the mean over draws.
        stderr: (N, N), of that mean.
        draws: networks drawn.
        seed: of the first; the k-th has ``seed + k``.
        method: which kernel.
        converged: whether ``error`` met the tolerance that was asked for.

    Example:
        >>> EmpiricalKernel(torch.tensor([[4.0]]), torch.tensor([[0.1]]), 20, 0, "nngp")
        EmpiricalKernel(nngp, 1 × 1, relative error 0.025, 20 draws)

    """

    values: Tensor
    stderr: Tensor
    draws: int
    seed: int
    method: str
    converged: bool = True

    @property
    def error(self) -> float:
        """The norm of the standard errors over the norm of the values."""
        error, norm = float(self.stderr.norm()), float(self.values.norm())
        return error / norm if norm else (inf if error else 0.0)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The two-sided Student t interval of each entry (of each alone, not of all at once)."""
        _check_level(level)
        half = self.stderr * _quantile(level, self.draws - 1)
        return self.values - half, self.values + half

    def __repr__(self) -> str:
        size, state = " × ".join(map(str, self.values.shape)), "" if self.converged else "; not converged"
        return f"EmpiricalKernel({self.method}, {size}, relative error {self.error:.2g}, {self.draws} draws{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "values": self.values.tolist(), "stderr": self.stderr.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EmpiricalKernel:
        """The inverse of :meth:`to_dict`, on the CPU."""
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in ("values", "stderr")}
        return cls(**{**record, **tensors})

    def plot(self, ax: Any = None) -> Any:
        """The entries on and above the diagonal with their 95 % intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        row, column = torch.triu_indices(*self.values.shape)
        values = self.values[row, column].cpu()
        ax.errorbar(range(len(values)), values, (self.interval()[1][row, column].cpu() - values), fmt="o", capsize=3)
        ax.set(xlabel="pair of inputs", ylabel=self.method)
        return ax


def empirical_nngp(
    network: Callable[[], nn.Module], inputs: Tensor, tol: float = 0.05, max_draws: int = 10_000, seed: int = 0
) -> EmpiricalKernel:
    r"""The covariance of random networks' outputs between inputs, :math:`E\,\frac1k \sum_c f_c(x) f_c(x')`.

    Args:
        network: draws a fresh module, by torch's global generator, which is seeded for each draw and restored after it.
        inputs: (N, …); the module's output is (N, k). Every one of many outputs is nearly a draw of its own.
        tol: stop when the norm of the standard errors is at most ``tol`` times that of the values.
        max_draws: stop in any case, and say so. seed: of the first draw.

    Cost: a network and a forward pass for each draw, about :math:`2 / (k\,\mathrm{tol}^2)` of them; N² numbers.

    Assumptions: outputs have mean zero over the weights, as with a random read-out; draws are independent, and enough
    that their mean is normal.

    Errors: ``ArgumentError`` for an option outside its domain or outputs that are not (N, k); ``ModelStateError`` for a
    forward pass that draws random numbers or depends on the batch; ``NumericsError`` for a kernel that is not finite.

    Source: Lee et al. 2018, Deep neural networks as Gaussian processes; Novak et al. 2019, Bayesian deep convolutional
    networks with many channels are Gaussian processes.

    Example:
        Linear units of variance 1/3, PyTorch's default in one dimension, on the input 3:

        >>> found = empirical_nngp(lambda: nn.Linear(1, 1000, bias=False), torch.tensor([[3.0]]))
        >>> low, high = found.interval(0.999)
        >>> bool(low < 3.0 < high)
        True

    """

    def one(model: nn.Module) -> Tensor:
        private, _ = snapshot(model, None, None)
        buffers, parameters = dict(private.named_buffers()), dict[str, Tensor](private.named_parameters())
        watch = Watch(type(model).__name__, buffers, parameters, inputs.device)
        with torch.no_grad():
            output = _checked(private(inputs), inputs).double()
            watch.check(lambda: private(inputs))
        return output @ output.T / output.shape[1]

    return _averaged(one, "nngp", network, tol, max_draws, seed)


def empirical_ntk(
    network: Callable[[], nn.Module], inputs: Tensor, tol: float = 0.05, max_draws: int = 10_000, seed: int = 0
) -> EmpiricalKernel:
    r"""The mean tangent kernel of random networks, :math:`E\,\frac1k \sum_c \nabla f_c(x) \cdot \nabla f_c(x')`.

    Args: as for :func:`empirical_nngp`. The parametrisation is the module's own: that of the infinitely wide layers has
    standard normal parameters, and their scale in the forward pass.

    Cost: a network and a dense :class:`~lemmata.analysis.NTK` for each draw.

    Errors: as for :func:`empirical_nngp`, and those of :class:`~lemmata.analysis.NTK`.

    Source: Jacot, Gabriel & Hongler 2018, Neural tangent kernel.

    Example:
        A linear model has one tangent kernel for all draws:

        >>> empirical_ntk(lambda: nn.Linear(1, 1, bias=False), torch.tensor([[3.0]])).values
        tensor([[9.]], dtype=torch.float64)

    """

    def one(model: nn.Module) -> Tensor:
        kernel = NTK(model, inputs)
        outputs = _checked(kernel.jacobian.output, inputs).shape[1]
        blocks = kernel.dense().double().reshape(len(inputs), outputs, len(inputs), outputs)
        return blocks.diagonal(dim1=1, dim2=3).mean(-1)

    return _averaged(one, "ntk", network, tol, max_draws, seed)


def _checked(output: Tensor, inputs: Tensor) -> Tensor:
    if output.ndim != 2 or len(output) != len(inputs):
        given = f"{tuple(output.shape)} for {len(inputs)} inputs"
        raise ArgumentError("network", "outputs (N, k)", given, "Give the module a read-out such as nn.Linear.")
    return output


def _averaged(
    one: Callable[[nn.Module], Tensor], method: str, network: Callable[[], nn.Module], tol: float, most: int, seed: int
) -> EmpiricalKernel:
    """The mean and its standard error over draws (Welford), until the error is small enough."""
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a share between 0 and 1", repr(tol), "Pass tol=0.05.")
    if not isinstance(most, int) or most < _LEAST:
        raise ArgumentError("max_draws", f"a whole number ≥ {_LEAST}", repr(most), "Pass max_draws=1000.")
    mean = squares = torch.zeros(())
    devices = range(torch.cuda.device_count())  # seeding reaches them all
    for draw in range(1, most + 1):
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed + draw - 1)
            found = one(network())
        if not found.isfinite().all():
            remedy = "Look for nan in the inputs, or for overflow in the network."
            raise NumericsError(f"{method} of draw {draw}", "finite numbers", "nan or infinity", remedy)
        if draw == 1:
            mean, squares = torch.zeros_like(found), torch.zeros_like(found)
        step = found - mean
        mean = mean + step / draw
        squares = squares + step * (found - mean)
        if draw >= _LEAST:
            stderr = (squares / (draw * (draw - 1))).sqrt()
            result = EmpiricalKernel(mean, stderr, draw, seed, method)
            if result.error <= tol:
                return result
    return EmpiricalKernel(mean, stderr, most, seed, method, converged=False)
