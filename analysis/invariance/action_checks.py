r"""Whether an action is one: products of elements do what their actions do in turn, but for what interpolation costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..errors import OperandError
from .action import Action, distance, drawn_from
from .nestings import coarsest


def homomorphism(action: Action, inputs: Any, outputs: Any = None, pairs: int = 32, seed: int = 0) -> float:
    r"""The largest relative error of ρ(g) ρ(h) = ρ(gh), on inputs and outputs; an error that names g and h where it fails.

    Also ρ(e) = 1, which tells a group from projections. Of a small group all pairs are tried, else ``pairs`` random ones.
    Elements that interpolate are left out: their error is :func:`interpolation`. Where no composition is known, gh is an
    element that does what g after h does, on the inputs and on the outputs.

    Cost: three actions a pair. Errors: ``OperandError``; those of the action for inputs that do not fit.

    Example:
        A rotation to the left and one to the right do not form the group that they claim:

        >>> from lemmata.analysis.invariance import actions
        >>> broken = actions.finite("turns", (0, 1, 2, 3), lambda g, x: x.rot90(g, (-2, -1)) if g < 3 else x)
        >>> try:
        ...     homomorphism(broken, torch.arange(4.0).view(1, 2, 2))
        ... except OperandError as error:
        ...     print(error.given)
        no such element for g = 1, h = 2

    """
    action.check(inputs)
    worst, spaces = 0.0, [("inputs", action.on_inputs, inputs)]
    spaces += [] if outputs is None else [("outputs", action.on_outputs, outputs)]
    tolerance = 64 * coarsest((inputs, outputs))
    for name, act, item in spaces:
        error = distance(act(action.identity, item), item)
        if not error <= tolerance:
            given = f"an error of {error:.1e} for e = {action.show(action.identity)}"
            remedy = "Name the identity first, and let it change nothing: a projection is no group."
            raise OperandError(f"{action.name} on {name}", "ρ(e) = 1", given, remedy)
    for g, h in _pairs(action, pairs, seed):
        moved = [act(g, act(h, item)) for _, act, item in spaces]
        for gh in _products(action, g, h, inputs, moved[0], tolerance):
            errors = [distance(one, act(gh, item)) for one, (_, act, item) in zip(moved, spaces, strict=True)]
            if all(error <= tolerance for error in errors):
                break
        else:
            name, error = next((s[0], e) for s, e in zip(spaces, errors, strict=True) if not e <= tolerance)
            names = f"an error of {error:.1e} for g = {action.show(g)}, h = {action.show(h)}"
            remedy = "Correct the elements' action or their composition."
            raise OperandError(f"{action.name} on {name}", "ρ(g)ρ(h) = ρ(gh)", names, remedy)
        worst = max(worst, *errors)
    return worst


def interpolation(action: Action, inputs: Any, count: int = 16, seed: int = 0) -> float:
    r"""How far interpolation keeps an action from being one: the largest ‖ρ(g⁻¹)ρ(g) x − x‖ / ‖x‖ over its elements.

    Exactly 0 for an action without interpolation. Of a large group, over ``count`` random elements.

    Example:
        >>> from lemmata.analysis.invariance import actions
        >>> x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> interpolation(actions.rotations(4), x), interpolation(actions.rotations(8), x) > 0.1
        (0.0, True)

    """
    chosen = action.elements if action.enumerable else action.sample(count, seed)
    rough = [g for g in chosen if not action.exact(g)]
    if not rough:
        return 0.0
    assert action.inverse is not None
    back = action.inverse
    return max(distance(action.on_inputs(back(g), action.on_inputs(g, inputs)), inputs) for g in rough)


def _pairs(action: Action, pairs: int, seed: int) -> list[tuple[Any, Any]]:
    if not action.enumerable:
        drawn = [g for g in action.sample(2 * pairs, seed) if action.exact(g)]
        return list(zip(drawn[::2], drawn[1::2], strict=False))
    exact = [g for g in action.elements if action.exact(g)]
    if len(exact) ** 2 <= pairs:
        return [(g, h) for g in exact for h in exact]
    draw, generator = drawn_from(exact), torch.Generator().manual_seed(seed)
    return [(draw(generator), draw(generator)) for _ in range(pairs)]


def _products(action: Action, g: Any, h: Any, inputs: Any, moved: Any, tolerance: float) -> Iterator[Any]:
    """Elements that may be gh: the one that is known, else all that do on the inputs what g after h does.

    On symmetric inputs these are several, and the outputs must tell which.
    """
    if action.compose is not None:
        yield action.compose(g, h)
        return
    found = False
    for k in action.elements:
        if distance(action.on_inputs(k, inputs), moved) <= tolerance:
            found = True
            yield k
    if not found:
        given = f"no such element for g = {action.show(g)}, h = {action.show(h)}"
        remedy = "Correct the elements' action, or complete the group."
        raise OperandError(f"{action.name} on inputs", "ρ(g)ρ(h) = ρ(gh)", given, remedy)
