r"""Translations, rotations and reflections of square grids, and how they act on the feature maps of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import cos, isqrt, pi, sin
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..errors import ArgumentError, OperandError
from .action import Action, Move, check_real, drawn_from, invariant, on_every, outputs_of

#: ``(g, map, ratio) → map``: an element acting on a map whose grid is ``ratio`` times coarser than the image's.
MapMove = Callable[[Any, Tensor, tuple[float, ...]], Tensor]


def translations(
    sides: Sequence[int], padding: str = "circular", reach: int | None = None, outputs: Any = "invariant"
) -> Action:
    r"""Translations of images (…, H, W), or of signals (…, T): :math:`(\rho(t) x)(p) = x(p - t)`.

    Args:
        sides: (H, W), or (T,).
        padding: ``"circular"``: the torus, H·W elements, exact. ``"zeros"``: what leaves is lost and zeros come in. This
            is an action only on images with a border of ``reach`` zeros and for |t| ≤ ``reach``; others are refused. Of
            feature maps, which need not have such a border, it is not known.
        reach: with ``padding="zeros"``, the largest shift along each side.
        outputs: ``"invariant"``, ``"same"`` or a callable.

    On a map of a grid r times coarser, t is a shift by t/r positions: where this is no whole number, that of the
    band-limited signal (a phase in Fourier space). Only a network without aliasing commutes with those.

    Example:
        >>> translations((2, 3)).order, translations((3,)).on_inputs((1,), torch.tensor([1, 2, 3])).tolist()
        (6, [3, 1, 2])

    """
    sides = tuple(sides)
    if not sides or len(sides) > 2 or any(not isinstance(n, int) or n < 1 for n in sides):
        raise ArgumentError("sides", "(H, W) or (T,), whole numbers above 0", str(sides), "Pass tuple(x.shape[-2:]).")
    if padding not in ("circular", "zeros"):
        raise ArgumentError("padding", "'circular' or 'zeros'", repr(padding), "Choose one of them.")
    if padding == "circular" and reach is not None:
        raise ArgumentError("reach", "None on the torus", str(reach), "Pass padding='zeros' for a window of shifts.")
    if padding == "zeros" and (not isinstance(reach, int) or not 0 < 2 * reach < min(sides)):
        remedy = "Pass reach=1, and images with as many zeros around."
        raise ArgumentError("reach", "a whole number below half a side", str(reach), remedy)
    torus = padding == "circular"
    ranges = [range(n) if torus else range(-reach, reach + 1) for n in sides]  # type: ignore[operator]
    elements = sorted(product(*ranges), key=lambda t: any(t))  # the identity first
    move = partial(_shifted, torus=torus)
    on_inputs = on_every(lambda t, x: move(t, x, (1.0,) * len(sides)))

    def compose(t: Any, s: Any) -> Any:
        total = tuple(a + b for a, b in zip(t, s, strict=True))
        return tuple(a % n for a, n in zip(total, sides, strict=True)) if torus else total

    return Action(
        f"translations of the {'×'.join(map(str, sides))} {'torus' if torus else 'grid, with zeros'}",
        len(elements),
        (0,) * len(sides),
        lambda: elements,
        drawn_from(elements),
        compose,
        lambda t: tuple(-a % n for a, n in zip(t, sides, strict=True)) if torus else tuple(-a for a in t),
        on_inputs,
        outputs_of(outputs, on_inputs),
        lambda shape: layouts(shape, sides, move) if torus else [("invariant", invariant)] * (len(shape) == 2),
        lambda inputs: _fits(inputs, sides, 0 if torus else int(reach or 0)),
    )


def _shifted(t: Sequence[int], x: Tensor, ratio: Sequence[float], torus: bool) -> Tensor:
    axes = range(-len(t), 0)
    for step, axis, r in zip(t, axes, ratio, strict=True):
        by = step / r
        if not torus:
            x = _pushed(x, round(by), axis)
        elif float(by).is_integer():
            x = x.roll(int(by), axis)
        else:
            n, precise = x.shape[axis], x if x.dtype in (torch.float32, torch.float64) else x.float()
            wide = [1] * (-axis)
            phase = torch.fft.rfftfreq(n, device=x.device, dtype=precise.dtype).view(-1, *wide[1:])
            spectrum = torch.fft.rfft(precise, dim=axis) * torch.exp(-2j * pi * by * phase)
            x = torch.fft.irfft(spectrum, n=n, dim=axis).to(x.dtype)
    return x


def _pushed(x: Tensor, by: int, axis: int) -> Tensor:
    """Shift with zeros coming in."""
    n = x.shape[axis]
    kept = x.narrow(axis, max(0, -by), n - abs(by))
    zeros = torch.zeros_like(x.narrow(axis, 0, abs(by)))
    return torch.cat([zeros, kept] if by > 0 else [kept, zeros], axis)


def rotations(order: int, reflections: bool = False, outputs: Any = "invariant") -> Action:
    r"""Rotations of square images (…, n, n) by multiples of 360°/order about the centre, C_order; with reflections, D_order.

    Elements are (s, m): mirror left and right s times, then turn m steps anticlockwise. Multiples of 90° map the grid to
    itself and are exact. Others interpolate (bilinear, zeros outside) and are **approximate**: ``exact`` says which, and
    :func:`interpolation` how far they are from a group on given images.

    On a map with an axis of |G| before its last two, or in its last place, the group may also move that axis, as
    (h·f)(p, k) = f(h⁻¹p, h⁻¹k), the regular representation of group convolutions.

    Example:
        >>> rotations(4, reflections=True).order, rotations(8).exact((0, 2)), rotations(8).exact((0, 1))
        (8, True, False)

    """
    if not isinstance(order, int) or order < 1:
        raise ArgumentError("order", "a whole number of rotations above 0", str(order), "Pass 4 for quarter turns.")
    elements = [(s, m) for s in range(1 + reflections) for m in range(order)]
    turn = partial(_turned, order=order)
    on_inputs = on_every(turn)

    def compose(g: Any, h: Any) -> Any:
        return (g[0] + h[0]) % 2, (g[1] + (-1) ** g[0] * h[1]) % order

    def inverse(g: Any) -> Any:
        return g if g[0] else (0, -g[1] % order)

    def features(shape: Sequence[int]) -> list[tuple[str, Move]]:
        side = _square_side(shape)
        found: list[tuple[str, Move]] = [("invariant", invariant)]
        if side:
            found = layouts(shape, (side, side), lambda g, x, _: turn(g, x))
        for n in _squares(shape[1]) if len(shape) == 2 else []:
            found.append((f"flattened map of {n}×{n}", partial(_as_rows, lambda g, x, _: turn(g, x), (n, n), None)))
        for axis in (-3, -1):  # the axis of group elements: |G|, or that of the group with reflections too
            if len(shape) > -axis and shape[axis] in {len(elements), 2 * order} and (axis == -1 or side):
                poses = [(s, m) for s in range(shape[axis] // order) for m in range(order)]
                found.append(
                    ("regular", partial(_regular, turn if axis == -3 else None, axis, poses, compose, inverse))
                )
        return found

    return Action(
        f"{'rotations and reflections D' if reflections else 'rotations C'}{order}",
        len(elements),
        (0, 0),
        lambda: elements,
        drawn_from(elements),
        compose,
        inverse,
        on_inputs,
        outputs_of(outputs, on_inputs),
        features,
        partial(_is_square, 4 % order > 0),
        lambda g: 4 * g[1] % order == 0,
        lambda g: ("mirrored, " if g[0] else "") + f"{360 * g[1] / order:g}°",
    )


def _turned(g: tuple[int, int], x: Tensor, order: int) -> Tensor:
    x = x.flip(-1) if g[0] else x
    quarters, rest = divmod(4 * g[1], order)
    if not rest:
        return x.rot90(quarters, (-2, -1)) if quarters else x
    angle, n = 2 * pi * g[1] / order, x.shape[-1]
    centred = (torch.arange(n, dtype=x.dtype, device=x.device) * 2 + 1) / n - 1
    v, u = torch.meshgrid(centred, centred, indexing="ij")  # down, right
    grid = torch.stack([cos(angle) * u - sin(angle) * v, sin(angle) * u + cos(angle) * v], -1)
    flat = x.reshape(1, -1, n, n)
    return F.grid_sample(flat, grid[None], align_corners=False).view(x.shape)


def _regular(
    turn: Any, axis: int, poses: list[Any], compose: Callable[[Any, Any], Any], inverse: Any, g: Any, f: Tensor
) -> Tensor:
    """(h·f)(p, k) = f(h⁻¹p, h⁻¹k) with k along an axis."""
    back = inverse(g)
    source = torch.tensor([poses.index(compose(back, k)) for k in poses], device=f.device)
    moved = f.index_select(axis, source)
    return moved if turn is None else turn(g, moved)


def layouts(shape: Sequence[int], sides: Sequence[int], move: MapMove) -> list[tuple[str, Move]]:
    """The ways in which a feature map of a shape may hold a grid: as its last axes, as tokens, flattened, or not at all.

    Example:
        >>> [name for name, _ in layouts((5, 3, 4, 4), (8, 8), lambda g, x, ratio: x)]
        ['map, 2 times coarser']
        >>> [name for name, _ in layouts((5, 32), (4, 4), lambda g, x, ratio: x)]
        ['invariant', 'flattened map', 'flattened map, 2 times coarser']

        Of three axes, the last two may be a grid, or hold a token for each position:

        >>> [name for name, _ in layouts((5, 16, 8), (8, 8), lambda g, x, ratio: x)]
        ['map, 0.5×1 times coarser', 'tokens, 2 times coarser']

    """
    k, found = len(sides), list[tuple[str, Move]]()
    end = tuple(shape[-k:])
    if len(shape) > k and all(_whole(n, m) for n, m in zip(sides, end, strict=True)) and max(end) > 1:
        ratio = tuple(n / m for n, m in zip(sides, end, strict=True))
        found.append((f"map{_coarser(ratio)}", lambda g, x: move(g, x, ratio)))
        if len(shape) > 3:
            return found
    if len(shape) <= 2 or max(end) == 1:
        found.append(("invariant", invariant))
    for r in _ratios(sides):
        grid = tuple(n // r for n in sides)
        cells, ratio = torch.Size(grid).numel(), (float(r),) * k
        if len(shape) == 3 and shape[1] == cells:
            found.append((f"tokens{_coarser(ratio)}", partial(_as_tokens, move, grid, ratio)))
        if len(shape) == 2 and shape[1] % cells == 0 and (k > 1 or shape[1] > cells):  # else it is a map
            found.append((f"flattened map{_coarser(ratio)}", partial(_as_rows, move, grid, ratio)))
    return found


def _as_tokens(move: MapMove, grid: tuple[int, ...], ratio: Any, g: Any, x: Tensor) -> Tensor:
    return move(g, x.mT.unflatten(-1, grid), ratio).flatten(-len(grid)).mT


def _as_rows(move: MapMove, grid: tuple[int, ...], ratio: Any, g: Any, x: Tensor) -> Tensor:
    return move(g, x.unflatten(1, (-1, *grid)), ratio).flatten(1)


def _ratios(sides: Sequence[int]) -> list[int]:
    """Whole factors by which every side can be made coarser, and keep two positions."""
    return [r for r in range(1, min(sides) // 2 + 1) if all(n % r == 0 for n in sides)]


def _whole(n: int, m: int) -> bool:
    return m > 0 and (n % m == 0 or m % n == 0)


def _coarser(ratio: Sequence[float]) -> str:
    if all(r == 1 for r in ratio):
        return ""
    return f", {'×'.join(f'{r:g}' for r in dict.fromkeys(ratio))} times coarser"


def _squares(entries: int) -> list[int]:
    """The sides of the square grids, of two positions at least, whose sizes divide a number of entries."""
    return [n for n in range(2, isqrt(entries) + 1) if entries % n**2 == 0]


def _square_side(shape: Sequence[int]) -> int:
    """The side of the square grid that a shape may hold, 0 if none."""
    if len(shape) > 2 and shape[-1] == shape[-2] > 1:
        return shape[-1]
    cells = shape[1] if len(shape) == 3 else 0
    return round(cells**0.5) if cells > 1 and round(cells**0.5) ** 2 == cells else 0


def _fits(inputs: Any, sides: Sequence[int], reach: int) -> None:
    for x in tree_leaves(inputs):
        if isinstance(x, Tensor) and tuple(x.shape[-len(sides) :]) != tuple(sides):
            remedy = f"Pass sides={tuple(x.shape[-len(sides) :])}, or .at(place) for one item of a tuple."
            raise OperandError("translations", f"inputs (…, {', '.join(map(str, sides))})", str(tuple(x.shape)), remedy)
        if isinstance(x, Tensor) and reach:
            for axis in range(-len(sides), 0):
                ends = x.narrow(axis, 0, reach), x.narrow(axis, x.shape[axis] - reach, reach)
                if any(bool(end.any()) for end in ends):
                    remedy = "Pad the images with zeros, or use padding='circular'."
                    raise OperandError("translations", f"a border of {reach} zeros", "other numbers there", remedy)


def _is_square(interpolated: bool, inputs: Any) -> None:
    if interpolated:
        check_real("rotations between quarter turns", inputs)
    for x in tree_leaves(inputs):
        if isinstance(x, Tensor) and (x.ndim < 2 or x.shape[-1] != x.shape[-2]):
            remedy = "Crop or pad to a square, or .at(place) for one item of a tuple."
            raise OperandError("rotations", "square images (…, n, n)", str(tuple(x.shape)), remedy)
