"""Which frequency is learned when: the residual in each mode as networks train, and what their tangent kernels predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..errors import ArgumentError, DataError, NumericsError
from ..gradient_flow.ensembles import Ensemble, Parameters
from ..operators.ntk import NTK
from ..operators.snapshot import snapshot
from .frequency_results import FrequencyLearning
from .modes import Modes

_BLOCK = 256  # steps whose residuals are held before they are projected


def frequency_learning(
    networks: Sequence[nn.Module],
    modes: Modes,
    target: Tensor,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    dtype: torch.dtype | None = torch.float64,
    batch_stats: str | None = None,
) -> FrequencyLearning:
    r"""Which frequency of a target networks learn when, and when their tangent kernels say that they should.

    .. math:: L = \tfrac12 \sum_n w_n (f(x_n) - y_n)^2, \qquad
        \dot c_k = -\lambda_k c_k + \dots, \quad c_k = \sum_n w_n b_k(x_n) (f(x_n) - y_n), \quad
        \lambda_k = \sum_{n m} w_n b_k(x_n)\, \Theta(x_n, x_m)\, b_k(x_m) w_m

    with Θ the tangent kernel at the start. Copies of the networks are trained on all points at once.

    Args:
        networks: K draws of one architecture, with one output; one will do, and has no interval.
        modes: the grid and its functions: :func:`interval_modes`, :func:`circle_modes` or :func:`sphere_modes`.
        target: y at the grid's points, (N,).
        optimizer: parameters to an optimiser that treats every entry by itself, such as ``partial(torch.optim.SGD, lr=0.1)``.
        steps: T. dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`.

    Where a frequency has several functions, λ is that of their mixture in f_0 − y.

    Cost: T gradients of every network, side by side where that pays (see ``Ensemble``); for each network a kernel on the
    points. Memory for T K F numbers.

    Errors: ``ArgumentError`` for an option outside its domain or networks that differ in more than their parameters or do
    not have one output; ``DataError`` for a target that is not finite, does not fit the points, or has none of the modes;
    ``NumericsError`` for training that diverges; those of the kernel.

    Source: Rahaman et al. 2019, On the spectral bias of neural networks; Basri et al. 2019, The convergence rate of neural
    networks for learned functions of different frequencies.

    Example:
        A linear model on the circle knows frequency 1 alone; its kernel there is ½, that of cos² in the mean:

        >>> from functools import partial
        >>> from lemmata.analysis import circle_modes
        >>> modes = circle_modes(16, 2)
        >>> net = nn.Linear(2, 1, bias=False)
        >>> found = frequency_learning([net], modes, 3 * modes.points[:, 0], partial(torch.optim.SGD, lr=1.0), 4)
        >>> found.frequencies.tolist(), round(found.kernel.item(), 6), round(found.times(0.125).item(), 6)
        ([1], 0.5, 3.0)

    """
    if not isinstance(steps, int) or steps < 1:
        raise ArgumentError("steps", "a whole number ≥ 1", repr(steps), "Count the steps of training.")
    present = _present(modes, target)
    with torch.inference_mode(False), torch.enable_grad():
        return _learned(networks, modes, target.detach().clone(), present, optimizer, steps, (dtype, batch_stats))


def _learned(
    networks: Sequence[nn.Module],
    modes: Modes,
    target: Tensor,
    present: Tensor,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    copied: tuple[torch.dtype | None, str | None],
) -> FrequencyLearning:
    ensemble = Ensemble([snapshot(net, *copied)[0] for net in networks])
    reference = next(iter(ensemble.stacked.values()))
    points, goal = (part.to(reference.device, reference.dtype) for part in (modes.points, target))
    weights = modes.weights.to(goal)

    def miss(call: Any, theta: Parameters) -> Tensor:
        return _one_output(call(theta, points), len(points)) - goal

    start = ensemble.each(miss)
    kernel = _kernel(ensemble, modes, points, start)
    rate, paths = None, []
    groups = [slice(None)] if ensemble.route == "side by side" else [slice(k, k + 1) for k in range(len(ensemble))]
    for group in groups:
        parts = {name: part[group].clone() for name, part in ensemble.stacked.items()}
        rate, path = _train(ensemble, parts, miss, weights, modes, optimizer, steps)
        paths.append(path)
    residuals = torch.cat(paths, 1)
    if not bool(residuals.isfinite().all()):
        remedy = (
            f"Lower the learning rate; the kernel's largest eigenvalue here is {float(kernel[:, present].max()):.4g}."
        )
        raise NumericsError("optimizer", "training that stays finite", "residuals that overflow", remedy)
    frequencies = torch.unique(modes.frequencies)[present]
    return FrequencyLearning(frequencies, residuals[..., present], kernel[:, present], rate)


def _present(modes: Modes, target: Tensor) -> Tensor:
    """Which of the frequencies the target has, (F,): the others are rounding."""
    if not isinstance(target, Tensor) or target.shape != modes.points.shape[:1] or not bool(target.isfinite().all()):
        given = f"shape {tuple(target.shape)}, or nan" if isinstance(target, Tensor) else type(target).__name__
        remedy = "Evaluate the target at modes.points, one number each."
        raise DataError("target", f"finite numbers ({len(modes.points)},)", given, remedy)
    values = target.detach().double().cpu()
    present = modes.amplitudes(values) > 1e-6 * float(values.norm()) / len(values) ** 0.5
    if not bool(present.any()):
        raise DataError("target", "some of the modes", f"none of {modes}", "Take modes up to a higher frequency.")
    return present


def _one_output(output: Tensor, points: int) -> Tensor:
    if output.numel() != points or output.ndim < 1 or len(output) != points:
        remedy = "Give the networks one output, (N,) or (N, 1)."
        raise ArgumentError("networks", f"one number for each of {points} points", str(tuple(output.shape)), remedy)
    return output.reshape(points)


def _kernel(ensemble: Ensemble, modes: Modes, points: Tensor, start: Tensor) -> Tensor:
    """The kernel's quadratic form on each network's start at each frequency, (K, F)."""
    index = torch.unique(modes.frequencies, return_inverse=True)[1]
    basis, weights = modes.basis, modes.weights
    found = []
    for place, coefficients in enumerate(modes.coefficients(start.double().cpu())):
        state = {name: part[place] for name, part in ensemble.stacked.items()}
        ensemble.network.load_state_dict(state, strict=False)
        kernel = NTK(ensemble.network, points).dense().double().cpu()
        inner = (basis.T * weights) @ kernel @ (weights[:, None] * basis)  # (M, M)
        parts = [coefficients[index == group] for group in range(int(index.max()) + 1)]
        forms = [p @ inner[index == group][:, index == group] @ p / (p @ p) for group, p in enumerate(parts)]
        found.append(torch.stack(forms))
    return torch.stack(found)


def _train(
    ensemble: Ensemble,
    parts: Parameters,
    miss: Callable[[Any, Parameters], Tensor],
    weights: Tensor,
    modes: Modes,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
) -> tuple[float | None, Tensor]:
    """The rate of plain gradient descent, and amplitudes of the residuals of a group of networks, (T + 1, K, F)."""
    fixed = {name: part for name, part in parts.items() if name not in ensemble.names}
    theta = {name: parts[name].requires_grad_() for name in ensemble.names}
    rule = optimizer(list(theta.values()))

    def one(theta: Parameters, fixed: Parameters) -> Tensor:
        return miss(lambda t, x: functional_call(ensemble.network, (t, fixed), (x,)), theta)

    def every() -> Tensor:
        if len(next(iter(theta.values()))) > 1:
            return vmap(one)(theta, fixed)
        return one(*({name: part[0] for name, part in group.items()} for group in (theta, fixed)))[None]

    kept, seen = [], []
    for step in range(steps + 1):
        residual = every()  # (K, N)
        seen.append(residual.detach())
        if step == steps or len(seen) == _BLOCK:
            kept.append(modes.amplitudes(torch.stack(seen).double().cpu()))
            seen = []
        if step < steps:
            rule.zero_grad()
            (0.5 * (weights * residual.square()).sum()).backward()
            rule.step()
    return _plain(rule), torch.cat(kept)


def _plain(rule: torch.optim.Optimizer) -> float | None:
    """The rate, if every step is the gradient times one number."""
    group = rule.param_groups[0]
    others = any(group.get(name) for name in ("momentum", "weight_decay", "maximize", "nesterov"))
    return float(group["lr"]) if type(rule) is torch.optim.SGD and len(rule.param_groups) == 1 and not others else None
