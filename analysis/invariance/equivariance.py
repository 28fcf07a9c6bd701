r"""Does a model commute with a group, to what error, and which module breaks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, isfinite, isnan, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..errors import ArgumentError, DataError, NumericsError
from ..operators.data import call, fit
from ..operators.snapshot import Watch, snapshot
from ..spectra.results import Estimate
from .action import Action, Move
from .action_checks import homomorphism, interpolation
from .equivariance_culprit import blame, rows_of
from .equivariance_results import Equivariance
from .nestings import coarsest, floats, noise_like, over_floats
from .propagated_actions import Tapped, Walk, gap

_SAFETY = 50.0  # c of the tolerance
_BLOCK = 32  # elements between two looks at the interval


def equivariance(
    model: nn.Module,
    inputs: Any,
    action: Action,
    layers: str = "*",
    features: Mapping[str, Move] | None = None,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    near: float = 0.02,
    tol: float = 0.1,
    most: int = 256,
    seed: int = 0,
) -> Equivariance:
    r"""How far a model is from commuting with a group, over its elements, module by module.

    .. math:: e(g) = \frac{\|f(g \cdot x) - \rho(g) f(x)\|}{\|\rho(g) f(x)\|}, \qquad \tau = 50 \sqrt{m}\, \varepsilon\, \kappa

    Exact is what rounding explains: e ≤ τ at every element. m counts the terms of the model's sums, the fan-in of every
    weight and the entries of one example; κ ≥ 1 is by how much the model amplifies relative errors √ε of its parameters and
    inputs, measured; ε is the machine's precision.

    A control shows what a broken symmetry costs this model: fixed patterns as large as the inputs are laid on all of them,
    which no symmetry survives. A model whose error is below ``near`` of the control's is approximate, and so is one whose
    error is below the control's and what interpolation costs the group itself; any other is broken, at the first module whose
    error reaches the output and that none of those that depend on it mends.

    On what a module puts out, the group acts in a way that the shape allows (on the trailing axes for images, with the
    stride's ratio; on the axis of the elements for sets), and of several the one that fits best is taken. Functions that are
    no modules show in the module after them.

    Args:
        model: not changed; run in its own mode on a copy. Dropout that is on is refused.
        inputs: as the model takes them, examples along the first axis; a tuple is spread.
        action: of :mod:`~lemmata.analysis.invariance.actions`, with the action on outputs that is to be checked.
        layers: glob pattern over the names of modules; ``""`` for the output alone.
        features: by pattern, (g, tensor) ↦ ρ(g) tensor for modules whose representation a shape cannot tell.
        dtype: cast model and inputs, such as ``torch.float64``.
        batch_stats: for batch normalisation in train mode, as for :class:`~lemmata.analysis.Hessian`.
        near: the largest error of an approximate symmetry, as a share of the control's.
        tol, most: groups of more than ``most`` elements are drawn from, until the 95 % interval of the mean error is within
            ``tol`` of it or ``most`` were drawn. ``beyond`` says what share of the group may be worse.
        seed: of the draws.

    Cost: a pass an element, stacked by vmap where the model allows it, and to find the culprit one a module at most; memory
    for 4 million entries of the inputs.

    Errors: ``OperandError`` for inputs that do not fit the group and for a ρ that is no homomorphism; ``ModelStateError``
    with the module's name for dropout, batch statistics or noise; ``DataError`` for inputs of another dtype or without
    examples; ``NumericsError`` for outputs that are zero or not finite.

    Source: cohen2016group; kondor2018generalization.

    Example:
        A convolution on the torus commutes with shifts, one that pads with zeros does not:

        >>> from lemmata.analysis.invariance import actions
        >>> x = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> shifts = actions.translations((6, 6), outputs="same")
        >>> equivariance(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")), x, shifts).verdict
        'exact'
        >>> equivariance(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1)), x, shifts).culprit
        '0 (Conv2d)'

    """
    if not tol > 0 or not near > 0 or most < 10:
        given_options, remedy = f"{tol}, {near}, {most}", "Pass tol=0.1, near=0.02, most=256."
        raise ArgumentError("tol, near, most", "numbers above 0, at least 10 elements", given_options, remedy)
    private, given = prepared(model, inputs, dtype, batch_stats)
    with torch.no_grad():
        walk = _started(private, given, action, layers, features or {})
        epsilon, m = _epsilon(private, walk), terms(private, given)
        kappa, scale = _conditions(private, walk, epsilon, seed), _SAFETY * sqrt(m) * epsilon
        elements, mean = _walked(walk, action, tol, most, seed)
        control = _control(walk, elements, seed)
        worst = max(range(len(elements)), key=lambda i: inf if isnan(walk.errors[i]) else walk.errors[i])
        found = rows_of(walk, [scale * kappa[name] for name in walk.layers])
        end = f"the output of {type(model).__name__}, after its last module"
        rows, culprit = blame(walk, found, walk.errors[worst] <= scale * kappa[""], end)
    names, output = [action.show(g) for g in elements], floats(walk.base.output)[0]
    return Equivariance(
        action=action.name,
        order=action.order,
        tried=len(elements),
        worst=walk.errors[worst],
        worst_at=names[worst],
        mean=mean,
        tolerance=scale * kappa[""],
        terms=m,
        condition=kappa[""],
        near=near,
        control=control,
        interpolation=interpolation(action, given, seed=seed),
        layers=rows,
        culprit=culprit,
        errors=tuple(zip(names, walk.errors, strict=True)),
        dtype=str(output.dtype).removeprefix("torch."),
        device=str(output.device),
        vmapped=walk.vmapped,
    )


def _started(private: nn.Module, given: Any, action: Action, layers: str, features: Mapping[str, Move]) -> Walk:
    """The pass on the inputs themselves, with all that must hold before others are made."""
    action.check(given)
    device = next((t.device for t in tree_leaves(given) if isinstance(t, Tensor)), torch.device("cpu"))
    watch = Watch("model", dict(private.named_buffers()), dict(private.named_parameters()), device)
    walk = Walk(Tapped(private, layers), action, given, features)
    watch.check(lambda: call(private, given))
    _checked_output(walk.base.output)
    homomorphism(action, given, walk.base.output)
    return walk


def terms(model: nn.Module, inputs: Any) -> int:
    """How many terms a model adds up: the fan-in of all weights, and the entries of one example.

    Example:
        >>> terms(nn.Linear(3, 5), torch.ones(7, 3))
        6

    """
    fans = sum(p.numel() // p.shape[0] for p in model.parameters() if p.ndim > 1 and p.numel())
    entries = sum(x[0].numel() for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.ndim and len(x))
    return max(1, fans + entries)


def prepared(
    model: nn.Module, inputs: Any, dtype: torch.dtype | None, batch_stats: str | None
) -> tuple[nn.Module, Any]:
    """A private copy of the model, and inputs that fit it.

    Example:
        >>> prepared(nn.Tanh(), torch.ones(2), torch.float64, None)
        (Tanh(), tensor([1., 1.], dtype=torch.float64))

    """
    empty = next((x for x in floats(inputs) if not x.numel()), None)
    if empty is not None:
        raise DataError("inputs", "at least one example", f"shape {tuple(empty.shape)}", "Drop empty batches.")
    if not isinstance(model, nn.Module):
        remedy = "Wrap the function in the forward of a torch.nn.Module."
        raise ArgumentError("model", "a torch.nn.Module", type(model).__name__, remedy)
    private = snapshot(model, dtype, batch_stats)[0]
    own = next((p for p in (*private.parameters(), *private.buffers()) if p.is_floating_point()), None)
    like = own if own is not None else next(iter(floats(inputs)), torch.zeros(()))
    return private, fit(inputs, "inputs", dtype or like.dtype, like.device, cast=dtype is not None)


def _checked_output(output: Any) -> None:
    found = floats(output)
    if not found:
        raise ArgumentError("model", "floating-point outputs", type(output).__name__, "Return scores, not labels.")
    if not all(bool(x.isfinite().all()) for x in found) or not any(bool(x.any()) for x in found):
        remedy = "Look at the model's weights and at its inputs: la.gradient_health names the layer."
        raise NumericsError("output", "finite numbers, not all zero", "nan, infinity or zeros", remedy)


def _epsilon(private: nn.Module, walk: Walk) -> float:
    """The coarsest precision that the model computes in, of parameters, inputs, modules and outputs."""
    return coarsest((list(private.parameters()), walk.inputs, walk.base.output, list(walk.base.features.values())))


def _conditions(private: nn.Module, walk: Walk, epsilon: float, seed: int) -> dict[str, float]:
    """κ of the output, under "", and of each module: the amplification of relative errors √ε of parameters and inputs."""
    generator = torch.Generator().manual_seed(seed)
    size = epsilon**0.5

    def jolt(x: Tensor) -> Tensor:
        return x * (1 + size * noise_like(x, generator))

    held = {name: p.detach().clone() for name, p in private.named_parameters()}
    try:
        for p in private.parameters():
            p.copy_(over_floats(jolt, p))
        seen = walk.tapped(over_floats(jolt, walk.inputs))
    finally:
        for name, p in private.named_parameters():
            p.copy_(held[name])
    pairs = {"": (floats(seen.output), floats(walk.base.output))}
    pairs.update({name: (seen.features[name], walk.base.features[name]) for name in walk.base.features})
    return {name: max(1.0, _single(*pair) / size) for name, pair in pairs.items()}


def _single(found: list[Tensor], wanted: list[Tensor]) -> float:
    error = gap(found, wanted)
    return error if isfinite(error) else 0.0


def _walked(walk: Walk, action: Action, tol: float, most: int, seed: int) -> tuple[tuple[Any, ...], Estimate]:
    """All elements of a small group; of a larger one independent draws, until the mean is known."""
    if action.enumerable and action.order <= most:
        elements = action.elements
        walk.take(elements)
        value = sum(walk.errors) / len(elements)
        return elements, Estimate(value, 0.0, 0, None, len(elements), seed, "all elements")
    drawn = action.sample(most, seed)
    for start in range(0, most, _BLOCK):
        walk.take(drawn[start : start + _BLOCK])
        errors = torch.tensor(walk.errors, dtype=torch.float64)
        spread = float(errors.std()) / sqrt(len(errors))
        mean = Estimate(float(errors.mean()), spread, len(errors) - 1, None, len(errors), seed, "mean over elements")
        low, high = mean.interval()
        if high - low <= 2 * tol * abs(mean.value):
            break
    else:
        mean = replace(mean, converged=False)
    return drawn[: len(walk.errors)], mean


def _control(walk: Walk, elements: tuple[Any, ...], seed: int) -> float | None:
    """The largest error over a few elements once fixed patterns are laid on all inputs; None where none can be."""
    generator = torch.Generator().manual_seed(seed + 1)
    numbers = bool(floats(walk.inputs))
    patterns = [_pattern(x, numbers, generator) for x in tree_leaves(walk.inputs)]

    def marked(item: Any) -> Any:
        parts, structure = tree_flatten(item)
        return tree_unflatten([laid(x) for x, laid in zip(parts, patterns, strict=True)], structure)

    output, errors = call(walk.tapped.model, marked(walk.inputs)), []
    for g in elements[1:4]:
        found = call(walk.tapped.model, marked(walk.action.on_inputs(g, walk.inputs)))
        errors.append(gap(floats(found), floats(walk.action.on_outputs(g, output))))
    return max((error for error in errors if isfinite(error)), default=None)


def _pattern(x: Any, numbers: bool, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Of numbers, factors, for a linear model need not notice terms, and terms, for a homogeneous one need not notice factors.

    Both upwards: an adjacency stays one. Of inputs without numbers, half of the tokens become the first one.
    """
    if isinstance(x, Tensor) and x.is_floating_point():
        both = (torch.rand(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(x) for _ in range(2))
        factor, term = both
        return lambda y: y * (1 + factor) + x.square().mean().sqrt() * term
    if numbers or not isinstance(x, Tensor) or not x.numel():
        return lambda y: y
    half = torch.randperm(x.numel(), generator=generator, device="cpu") < (x.numel() + 1) // 2
    return lambda y: torch.where(half.view(x.shape).to(x.device), x.flatten()[0], y)
