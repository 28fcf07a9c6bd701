r"""Motions of points in space, SO(d), O(d) and E(d), and scaling: continuous groups, drawn exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf, log
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..errors import ArgumentError, OperandError
from .action import Action, Move, check_real, drawn_from, invariant, on_every, outputs_of


def haar(dim: int, generator: torch.Generator, reflections: bool) -> Tensor:
    """An orthogonal matrix by Haar measure, (dim, dim) in float64; without reflections its determinant is 1.

    The Q of a Gaussian matrix, its columns' signs chosen so that R has a positive diagonal: only so it is uniform.

    Source: mezzadri2007generate.

    Example:
        >>> Q = haar(3, torch.Generator().manual_seed(0), reflections=False)
        >>> bool((Q @ Q.T - torch.eye(3, dtype=torch.float64)).norm() < 1e-14), round(float(torch.linalg.det(Q)), 12)
        (True, 1.0)

    """
    Q, R = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64, device="cpu"))
    Q = Q * R.diagonal().sign()
    if not reflections and torch.linalg.det(Q) < 0:
        Q[:, 0] = -Q[:, 0]
    return Q


def motions(dim: int, reflections: bool = True, shifts: float = 1.0, outputs: Any = "invariant") -> Action:
    r"""Motions of coordinates (…, dim): :math:`x \mapsto Qx + t`, the Euclidean group E(dim).

    Args:
        dim: of the space, the last axis.
        reflections: False for the proper motions SE(dim), det Q = 1.
        shifts: t ~ N(0, shifts² I); 0 leaves out translations: O(dim), or SO(dim). Q is drawn by Haar measure; a group
            with translations has no uniform distribution, which is why their size must be said.
        outputs: ``"invariant"``, ``"same"``, ``"vectors"`` (y ↦ Qy, such as forces) or a callable.

    Elements are (Q, t), in float64 on the CPU. Of a tuple of inputs, ``.at(1)`` moves the second item only.

    Example:
        >>> spin = motions(2, reflections=False, shifts=0.0)
        >>> g, h = spin.sample(2)
        >>> bool(torch.dist(spin.compose(g, spin.inverse(g))[0], torch.eye(2, dtype=torch.float64)) < 1e-15)
        True

    """
    if not isinstance(dim, int) or dim < 1:
        raise ArgumentError("dim", "a whole number above 0", str(dim), "Pass x.shape[-1].")
    if not 0 <= shifts < inf:
        raise ArgumentError(
            "shifts", "a finite size of at least 0", str(shifts), "Pass shifts=0.0 for rotations alone."
        )

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        Q = haar(dim, generator, reflections)
        return Q, shifts * torch.randn(dim, generator=generator, dtype=torch.float64, device="cpu")

    def turn(g: Any, x: Tensor) -> Tensor:
        return x @ g[0].to(x).T

    def move(g: Any, x: Tensor) -> Tensor:
        return turn(g, x) + g[1].to(x)

    def features(shape: Sequence[int]) -> list[tuple[str, Move]]:
        found: list[tuple[str, Move]] = [("invariant", invariant)]
        return [*found, ("points", move), ("vectors", turn)] if tuple(shape[-1:]) == (dim,) else found

    def check(inputs: Any) -> None:
        for x in tree_leaves(inputs):
            if isinstance(x, Tensor) and (x.shape[-1:] != (dim,) or not x.is_floating_point()):
                remedy = "Pass dim=x.shape[-1], or .at(place) for the coordinates in a tuple."
                raise OperandError(name, f"coordinates (…, {dim})", f"{tuple(x.shape)}, {x.dtype}", remedy)

    name = f"{'E' if shifts else 'O'}({dim})" if reflections else f"S{'E' if shifts else 'O'}({dim})"
    on_inputs = on_every(move)
    return Action(
        name,
        inf,
        (torch.eye(dim, dtype=torch.float64, device="cpu"), torch.zeros(dim, dtype=torch.float64, device="cpu")),
        None,
        draw,
        lambda g, h: (g[0] @ h[0], g[0] @ h[1] + g[1]),
        lambda g: (g[0].T, -g[0].T @ g[1]),
        on_inputs,
        on_every(turn) if outputs == "vectors" else outputs_of(outputs, on_inputs),
        features,
        check,
        show=lambda g: f"Q = {_rounded(g[0])}" + (f", t = {_rounded(g[1])}" if shifts else ""),
    )


def _rounded(values: Tensor) -> str:
    return str(
        [[round(float(v), 2) for v in row] for row in values]
        if values.ndim > 1
        else [round(float(v), 2) for v in values]
    )


def scalings(degree: float = 1.0, span: float = 4.0) -> Action:
    r"""Positive factors: x ↦ g x and y ↦ g^degree y, the symmetry of a homogeneous function.

    Args:
        degree: of the homogeneity; 0 for an invariant function.
        span: factors are drawn with uniform logarithm between 1/span and span.

    Example:
        >>> scalings(2.0).on_outputs(3.0, torch.ones(1)).item()
        9.0

    """
    if not span > 1:
        raise ArgumentError("span", "a factor above 1", str(span), "Pass span=4.0.")
    width = log(span)

    def draw(generator: torch.Generator) -> float:
        uniform = 2 * torch.rand((), generator=generator, dtype=torch.float64, device="cpu") - 1
        return float((width * uniform).exp())

    return Action(
        f"scaling, degree {degree:g}",
        inf,
        1.0,
        None,
        draw,
        lambda g, h: g * h,
        lambda g: 1 / g,
        on_every(partial(_scaled, 1.0)),
        on_every(partial(_scaled, degree)),
        lambda shape: [
            ("invariant", invariant),
            *((f"degree {k:g}", partial(_scaled, k)) for k in {1.0, degree} - {0}),
        ],
        lambda inputs: check_real("scalings", inputs),
        show=lambda g: f"factor {g:.3g}",
    )


def _scaled(degree: float, g: float, x: Tensor) -> Tensor:
    return g**degree * x


def signs(outputs: Any = "same") -> Action:
    """±1: odd functions with ``outputs="same"``, even ones with ``"invariant"``.

    Example:
        >>> signs().elements
        (1, -1)

    """
    on_inputs = on_every(lambda g, x: g * x)
    return Action(
        "signs ±1",
        2,
        1,
        lambda: (1, -1),
        drawn_from((1, -1)),
        lambda g, h: g * h,
        lambda g: g,
        on_inputs,
        outputs_of(outputs, on_inputs),
        lambda shape: [("even", invariant), ("odd", lambda g, x: g * x)],
        lambda inputs: check_real("signs", inputs),
        show=lambda g: f"{g:+d}",
    )
