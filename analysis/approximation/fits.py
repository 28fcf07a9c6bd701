"""Fitting one target with networks of many widths and depths, many seeds each: what training reaches, beside what it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import ArgumentError, DataError, ModelStateError
from ..gradient_flow.ensembles import _BLOCK, _same, _Work, stacks
from ..operators.snapshot import snapshot
from .fit_results import FitGrid, order_interval
from .last_layer import refit
from .target import Target
from .training import train

_POINTS, _DENSE = 1024, 8192  # of a target's domain, to learn from and for the errors
_SECOND = 2**32  # seeds of cells are apart, whatever the number of seeds


def fit_grid(
    build: Callable[[int, int], nn.Module],
    data: tuple[Tensor, Tensor] | Target,
    widths: Sequence[int],
    depths: Sequence[int] = (1,),
    seeds: int = 16,
    steps: int = 2000,
    lr: float = 1e-2,
    batch: int | None = None,
    grid: tuple[Tensor, Tensor] | None = None,
    last_layer: Literal["trained", "least squares"] = "trained",
    floor: Callable[[int, int], float] | None = None,
    tol: float = 0.5,
    seed: int = 0,
) -> FitGrid:
    r"""Train networks of every width and depth on one target, many seeds each, and measure them on a dense grid.

    Adam on the mean square, its rate falling to zero along a cosine. The networks of a cell are trained side by side, in one
    vmapped pass, where an operation makes at most 8192 numbers on average and none convolves (on an accelerator: where none
    convolves), else one by one: a rule of sizes, so that results do not hang on a clock.

    An error that training leaves may be the network's or the training's. ``floor`` tells them apart: pass the largest error
    that no such network can be below (:func:`best_pieces`, :func:`best_in_span`, :func:`remez`), and compare.

    Args:
        build: width and depth to a new network; it may draw weights and buffers from torch's global generator, which is
            seeded for each network and left as it was. Other tensors must be the same in all networks of a cell.
        data: inputs (m, …) and target (m, …), of the network's dtype and device; or a :class:`Target`, for 1024 uniform points
            of its domain in torch's default dtype, and 8192 others for the errors. batch: examples a step, drawn without
            replacement; all if None. steps, lr: of Adam.
        grid: inputs and target for the errors; those of ``data`` if None.
        last_layer: "least squares" fits a last linear layer anew, on ``data``, when Adam is done.
        floor: width and depth to a floor of the largest error on ``grid``.
        tol: half the width of a median's interval, in natural logarithms, from which the result counts as converged.
        seed: of weights and batches.

    Cost: seeds · steps gradients of every cell.

    Errors: ``ArgumentError`` for widths, depths or options outside their domain, and for a network without a last linear
    layer where one is to be fitted, that is not new or has random tensors that are no buffers; ``DataError`` for a target
    that is not finite or does not fit the network's outputs, or inputs that it does not take; ``ModelStateError`` with the
    module's name for dropout or batch statistics.

    Source: Kingma & Ba 2015, Adam: a method for stochastic optimization.

    Example:
        A line is learned by a network without hidden layers to rounding:

        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> fits = fit_grid(lambda width, depth: nn.Linear(1, 1), (x, 2 * x + 1), [1], seeds=8, steps=300, lr=0.1)
        >>> bool(fits.best() < 1e-3), fits.routes
        (True, (('side by side',),))

    """
    _check(build, widths, depths, seeds, steps, lr, batch, last_layer, tol)
    if isinstance(data, Target):
        function = data
        data, grid = _sampled(function, _POINTS, seed), grid or _sampled(function, _DENSE, seed + 1)
    inputs, target = _checked(data, "data")
    dense = _checked(grid, "grid") if grid is not None else (inputs, target)
    fit = partial(_fit, data=(inputs, target), steps=steps, lr=lr, batch=batch, last_layer=last_layer)
    found, sizes, routes = [], [], []
    with torch.inference_mode(False), torch.enable_grad():
        for i, width in enumerate(widths):
            cells = [
                _drawn(build, width, depth, seeds, seed + _SECOND * (i * len(depths) + j))
                for j, depth in enumerate(depths)
            ]
            routes.append(tuple(fit(networks, draw=draw) for networks, draw in cells))
            found.append(torch.stack([torch.stack([_errors(net, *dense) for net in nets], 1) for nets, _ in cells], 1))
            sizes.append(tuple(sum(p.numel() for p in nets[0].parameters()) for nets, _ in cells))
    l2, sup = torch.stack(found, 1)
    low, high = order_interval(sup, 0.95)
    converged = bool(((high.log() - low.log()) / 2 <= tol).all())
    floors = _floors(floor, widths, depths) if floor is not None else None
    return FitGrid(tuple(widths), tuple(depths), tuple(sizes), l2, sup, floors, tuple(routes), converged)


def _check(
    build: Any, widths: Any, depths: Any, seeds: Any, steps: Any, lr: Any, batch: Any, last: Any, tol: Any
) -> None:
    if not callable(build):
        remedy = "Pass for example lambda width, depth: nn.Sequential(…)."
        raise ArgumentError("build", "a function of width and depth", type(build).__name__, remedy)
    for name, sizes in (("widths", widths), ("depths", depths)):
        several = isinstance(sizes, Sequence) and len(sizes) > 0
        bad = [n for n in sizes if not isinstance(n, int) or isinstance(n, bool) or n < 1] if several else []
        if bad or not several or len(set(sizes)) < len(sizes):
            given = repr(bad[0]) if bad else repr(sizes)
            raise ArgumentError(name, "different integers ≥ 1", given, f"Pass {name}=[4, 8, 16].")
    integers = (("seeds", seeds), ("steps", steps), ("batch", 1 if batch is None else batch))
    for name, number in integers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ArgumentError(name, "an integer ≥ 1", repr(number), f"Leave {name} out for its default.")
    for name, number in (("lr", lr), ("tol", tol)):
        if not 0 < number < float("inf"):
            raise ArgumentError(name, "a positive number", repr(number), f"Leave {name} out for its default.")
    if last not in ("trained", "least squares"):
        raise ArgumentError("last_layer", '"trained" or "least squares"', repr(last), "Leave it out to train it.")


def _sampled(target: Target, count: int, seed: int) -> tuple[Tensor, Tensor]:
    points = target.domain.sample(count, seed)
    dtype = torch.get_default_dtype()
    return points.to(dtype), target(points)[:, None].to(dtype)


def _checked(data: Any, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(data, tuple | list) or len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
        raise DataError(name, "a pair of tensors", type(data).__name__, f"Pass {name}=(inputs, target).")
    inputs, target = data
    if not len(inputs) or len(inputs) != len(target):
        given = f"{len(inputs)} inputs and {len(target)} targets"
        raise DataError(name, "as many targets as inputs, one or more", given, "Evaluate the target at the inputs.")
    for part, what in ((inputs, "inputs"), (target, "target")):
        if not bool(part.isfinite().all()):
            count = int((~part.isfinite()).sum())
            raise DataError(f"{name}, {what}", "finite numbers", f"{count} that are not", "Leave those points out.")
    return inputs, target


def _drawn(
    build: Callable, width: int, depth: int, seeds: int, first: int
) -> tuple[list[nn.Module], list[torch.Generator]]:
    """The networks of a cell and the generators of their batches."""
    networks = []
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(cuda)):
        for k in range(seeds):
            torch.manual_seed(first + k)
            networks.append(build(width, depth))
    if not isinstance(networks[0], nn.Module) or not any(True for _ in networks[0].parameters()):
        given = type(networks[0]).__name__
        raise ArgumentError("build", "a function that returns a module with parameters", given, "Return the network.")
    if len(set(map(id, networks))) < seeds:
        raise ArgumentError("build", "a new network each time", "the same one again", "Make the network inside build.")
    try:
        snapshot(networks[0], None, None)
    except ModelStateError as error:  # it would have outputs of its own in every pass
        remedy = "Let build leave the module out, or return it in eval mode."
        raise ModelStateError(error.name, error.expected, error.given, remedy) from error
    return networks, [torch.Generator().manual_seed(first + k) for k in range(seeds)]


def _fit(
    networks: list[nn.Module],
    data: tuple[Tensor, Tensor],
    steps: int,
    lr: float,
    batch: int | None,
    last_layer: str,
    draw: list[torch.Generator],
) -> str:
    """Train the networks of a cell in place, by the rule; and how."""
    size = min(batch or len(data[0]), len(data[0]))
    with _Work() as work:
        try:
            output = networks[0](data[0][:size])
        except RuntimeError as error:
            own = next(networks[0].parameters())
            remedy = f"Pass inputs of the network's shape, dtype and device, such as {own.dtype} on {own.device}."
            given = f"{data[0].dtype} of shape {tuple(data[0].shape)} on {data[0].device}: {error}"
            raise DataError("data, inputs", "inputs that the network takes", given, remedy) from error
        if output.shape != data[1][:size].shape:
            given = f"{tuple(data[1].shape)} beside outputs of shape {tuple(output.shape)}"
            remedy = "Give the target the shape of the outputs, (m, 1) for one of them."
            raise DataError("data, target", "a target of the shape of the network's outputs", given, remedy)
        mean_square(output, data[1][:size]).backward()
    networks[0].zero_grad()
    side_by_side = stacks(work, len(networks), data[0].device)
    if side_by_side:
        _check_alike(networks, data[0][:size])
    share = max(1, _BLOCK // work.numbers) if side_by_side else 1
    for start in range(0, len(networks), share):
        some = slice(start, start + share)
        chosen = _batches(data, size, draw[some])
        decay = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
        train(networks[some], mean_square, chosen, steps, partial(torch.optim.Adam, lr=lr), decay)
    if last_layer == "least squares":
        for network in networks:
            refit(network, *data)
    return "side by side" if side_by_side else "one by one"


@torch.no_grad()
def _check_alike(networks: list[nn.Module], inputs: Tensor) -> None:
    """Whether parameters and buffers are all that tells the second network from the first."""
    state = {**dict(networks[1].named_parameters()), **dict(networks[1].named_buffers())}
    if not _same(functional_call(networks[0], state, (inputs,)), networks[1](inputs)):
        given = "one whose outputs also depend on something else, such as a random tensor kept as a plain attribute"
        remedy = "Keep tensors that are drawn with self.register_buffer(name, tensor)."
        raise ArgumentError("build", "networks that differ in parameters and buffers alone", given, remedy)


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    """The mean over examples of the squared distance."""
    return (output - target).square().sum() / len(output)


def _batches(
    data: tuple[Tensor, Tensor], size: int, draw: list[torch.Generator]
) -> Callable[[int], tuple[Tensor, Tensor]]:
    inputs, target = data
    if size == len(inputs):
        whole = inputs.expand(len(draw), *inputs.shape), target.expand(len(draw), *target.shape)
        return lambda step: whole

    def chosen(step: int) -> tuple[Tensor, Tensor]:
        rows = [torch.randperm(len(inputs), generator=one, device="cpu")[:size] for one in draw]
        at = torch.stack(rows).to(inputs.device)
        return inputs[at], target[at]

    return chosen


@torch.no_grad()
def _errors(network: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """Root of the mean square and largest distance, (2,)."""
    gaps = (network(inputs) - target).double().reshape(len(inputs), -1).norm(dim=1)
    found = torch.stack([gaps.square().mean().sqrt(), gaps.max()]).cpu()
    return torch.where(found.isfinite(), found, float("inf"))


def _floors(floor: Callable[[int, int], float], widths: Sequence[int], depths: Sequence[int]) -> Tensor:
    rows = [[float(floor(width, depth)) for depth in depths] for width in widths]
    return torch.tensor(rows, dtype=torch.float64, device="cpu")
