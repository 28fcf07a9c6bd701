"""Infinitesimal generators of one-parameter groups, on inputs and on every feature map: what a Lie derivative moves along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import isqrt

import torch
from torch import Tensor

from ..errors import ArgumentError, NumericsError

#: (place, h) to V h, of the shape of h; None where nobody knows how the group acts.
Act = Callable[[str, Tensor], Tensor | None]

#: Velocity (vertical, horizontal) at centred coordinates (y, x) of a pixel, and the unit of t.
FIELDS: dict[str, tuple[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], str]] = {
    "x-translation": (lambda y, x: (0 * y, 1 + 0 * x), "pixel"),
    "y-translation": (lambda y, x: (1 + 0 * y, 0 * x), "pixel"),
    "rotation": (lambda y, x: (x, -y), "radian"),
    "scale": (lambda y, x: (y, x), "e-fold"),
    "x-shear": (lambda y, x: (0 * y, y), "unit of slope"),
    "y-shear": (lambda y, x: (x, 0 * x), "unit of slope"),
}
BOUNDARIES = ("torus", "zeros")
_TERMS = 200  # of the exponential's series


@dataclass(frozen=True)
class Generator:
    r"""A linear map V at every place of a model, the derivative at t = 0 of a one-parameter group :math:`g_t = e^{tV}`.

    Attributes:
        name: of the group.
        act: ``act(place, h)`` returns V h for a tensor h: at the place ``"input"`` (``"input[0]"``, … for several inputs, by
            key for a mapping), ``"output"`` for the model's output, else at a module's output by its name. Zeros where the
            group does nothing; None where its action is not known, which leaves that place out.
        unit: of t.
        words: ``words(place, h)``: how the group acts there, for a table.

    Assumptions: V is linear and acts on every example by itself.

    Example:
        Rotations of the plane, for a model that takes points and returns a vector for each:

        >>> turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> rotation = Generator("rotation", lambda place, h: h @ turn, "radian")
        >>> torch.allclose(rotation.flow("input", torch.eye(2), torch.pi / 2), turn, atol=1e-6)
        True

    """

    name: str
    act: Act
    unit: str = "1"
    words: Callable[[str, Tensor], str] = field(default=lambda place, h: "as given")

    def __call__(self, place: str, h: Tensor) -> Tensor | None:
        """V h, checked; None where the action is not known or h holds no real numbers."""
        if not h.is_floating_point():
            return None
        moved = self.act(place, h)
        if moved is None or moved.shape == h.shape:
            return moved
        given, remedy = f"shape {tuple(moved.shape)}", "Let act(place, h) return V h, or None to leave the place out."
        raise ArgumentError(f"{self.name} at {place}", f"the shape of h, {tuple(h.shape)}", given, remedy)

    def flow(self, place: str, h: Tensor, t: float) -> Tensor:
        r"""The group element :math:`e^{tV} h`, by the exponential's series to rounding."""
        term, total = h, h
        for k in range(1, _TERMS):
            moved = self(place, term)
            if moved is None:
                return h
            term = t / k * moved
            total = total + term
            if float(term.norm()) <= torch.finfo(h.dtype).eps * 1e-3 * float(total.norm()):
                return total
        given, remedy = f"t={t:g}, where its terms do not fall", f"Take a step of fewer {self.unit}s."
        raise NumericsError(f"{self.name} at {place}", f"a series that ends within {_TERMS} terms", given, remedy)


def image_generator(
    name: str, size: tuple[int, int], boundary: str = "torus", acts: Mapping[str, str] | None = None
) -> Generator:
    r"""Translation, rotation, scaling or shear of images, and of the feature maps that images become.

    .. math:: (g_t x)(p) = x(p - t\, v(p) + O(t^2)), \qquad V x = -\, v \cdot \nabla x

    with coordinates p in pixels of the input from the image's centre, and v = (0, 1), (1, 0), (x, −y), (y, x), (0, y) or
    (x, 0) at (y, x). A feature map with other sides than the image is a coarser grid over the same square.

    Args:
        name: ``"x-translation"``, ``"y-translation"``, ``"rotation"``, ``"scale"``, ``"x-shear"`` or ``"y-shear"``; t is in
            pixels of the input, radians, e-folds of size, or units of slope.
        size: (H, W) of the images; equal for all but translations.
        boundary: ``"torus"``: ∇ is exact for band-limited periodic images (a Fourier matrix; the Nyquist frequency of an even
            side has slope 0). ``"zeros"``: zero outside, ∇ that of cubic convolution, :math:`(x_{i+1} - x_{i-1})/2`, which
            has sin ω in place of the frequency ω. Bilinear interpolation has no derivative at a pixel.
        acts: how the group acts at single places, by name: ``"image"``, ``"tokens"``, ``"nothing"`` or ``"unknown"``.

    What is inferred from a shape, where ``acts`` says nothing: (b, …, h, w) with the image's ratio of sides and no more
    pixels is an image; (b, n, d) with n = m² or m² + 1 are tokens, row by row, after one that does not move; (b, d) does not
    move; anything else is unknown.

    Cost: two products with matrices of the side's size.

    Errors: ``ArgumentError`` for an unknown name, boundary or action, and for a rectangle that is turned or sheared.

    Source: Gruver et al. 2023, The Lie derivative for measuring learned equivariance; Keys 1981 for cubic convolution.

    Example:
        >>> wave = torch.sin(2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8).expand(1, 1, 8, 8)
        >>> slope = image_generator("x-translation", (8, 8))("input", wave)
        >>> truth = -torch.pi / 4 * torch.cos(2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8)
        >>> bool((slope - truth).abs().max() < 1e-14)
        True

    """
    if name not in FIELDS:
        raise ArgumentError("generator", f"one of {', '.join(FIELDS)}", repr(name), "Or pass your own la.Generator.")
    if boundary not in BOUNDARIES:
        raise ArgumentError("boundary", "'torus' or 'zeros'", repr(boundary), "Choose one of them.")
    if "translation" not in name and size[0] != size[1]:
        given = f"{size[0]} × {size[1]} pixels"
        raise ArgumentError(name, "square images", given, "Crop or pad them, or take a translation.")
    for place, kind in (acts or {}).items():
        if kind not in _KINDS:
            raise ArgumentError(f"acts[{place!r}]", f"one of {', '.join(_KINDS)}", repr(kind), "Choose one of them.")
    action = ImageAction(name, (size[0], size[1]), boundary, dict(acts or {}))
    return Generator(name, action, FIELDS[name][1], action.words)


_KINDS = ("image", "tokens", "nothing", "unknown")


@dataclass(frozen=True)
class ImageAction:
    """V on images and on what a model makes of them."""

    name: str
    size: tuple[int, int]
    boundary: str
    acts: dict[str, str]

    def kind(self, place: str, h: Tensor) -> str:
        """How the group acts on h, as given or inferred from its shape."""
        if place in self.acts:
            return self.acts[place]
        if h.ndim >= 4:
            tall, wide = h.shape[-2:]
            return "image" if tall * self.size[1] == wide * self.size[0] and tall <= self.size[0] else "unknown"
        if h.ndim == 3:
            return "tokens" if _side(h.shape[1]) else "unknown"
        return "nothing" if h.ndim == 2 else "unknown"

    def words(self, place: str, h: Tensor) -> str:
        """For a table."""
        kind = self.kind(place, h)
        if kind == "image":
            return f"on the {h.shape[-2]} × {h.shape[-1]} map"
        side = _side(h.shape[1]) if kind == "tokens" else 0
        return {"tokens": f"on {side} × {side} tokens", "nothing": "not at all"}.get(kind, "unknown")

    def __call__(self, place: str, h: Tensor) -> Tensor | None:
        """V h, or None where the action is unknown."""
        kind = self.kind(place, h)
        if kind == "nothing":
            return torch.zeros_like(h)
        if kind == "unknown":
            return None
        if kind == "image":
            return self.moved(h)
        side = _side(h.shape[1])
        if not side:
            given = f"{h.shape[1]} tokens"
            raise ArgumentError(f"acts[{place!r}]", "m² or m² + 1 tokens", given, "Call it 'nothing' or 'unknown'.")
        own = h.shape[1] - side**2
        grid = h[:, own:].mT.unflatten(-1, (side, side))  # (b d m m)
        return torch.cat([torch.zeros_like(h[:, :own]), self.moved(grid).flatten(-2).mT], 1)

    def moved(self, h: Tensor) -> Tensor:
        """−v · ∇h on a map (…, h, w)."""
        shape = h.shape[-2], h.shape[-1]
        down, across = (_along(axis, self.name, self.size, shape, self.boundary, h.dtype, h.device) for axis in (0, 1))
        parts = []
        if down:
            parts.append(down[0] @ h if down[1] is None else down[1] * (down[0] @ h))
        if across:
            parts.append(h @ across[0].mT if across[1] is None else across[1] * (h @ across[0].mT))
        return parts[0] + parts[1] if len(parts) == 2 else parts[0] if parts else torch.zeros_like(h)


@cache
def _along(
    axis: int,
    name: str,
    size: tuple[int, int],
    shape: tuple[int, int],
    boundary: str,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor | None] | None:
    """D and w such that −v ∂h along one axis of a map is w times the product with D; w is in D where it varies along it alone."""
    with torch.inference_mode(False):  # for calls that need a graph too
        rates = [part / whole for part, whole in zip(shape, size, strict=True)]  # pixels of the map in one of the input
        y, x = (_centred(n) / rate for n, rate in zip(shape, rates, strict=True))
        v = -rates[axis] * FIELDS[name][0](y[:, None].expand(shape), x.expand(shape))[axis]
        D = slopes(shape[axis], boundary)
        if not bool(v.any()):
            return None
        line = v.select(1 - axis, 0)
        if bool((v == line.unsqueeze(1 - axis)).all()):
            return (line[:, None] * D).to(device, dtype), None
        return D.to(device, dtype), v.to(device, dtype)


def _centred(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64, device="cpu") - (n - 1) / 2


def _side(tokens: int) -> int:
    """Of the square that so many tokens fill, one left over or none; 0 if they do not."""
    side = isqrt(tokens)
    return side if side > 1 and tokens - side**2 in (0, 1) else 0


@cache
def slopes(n: int, boundary: str) -> Tensor:
    """The matrix (n, n) that takes samples at a distance of one to slopes there, float64 on the CPU.

    Example:
        >>> slopes(3, "zeros").tolist()
        [[0.0, 0.5, 0.0], [-0.5, 0.0, 0.5], [0.0, -0.5, 0.0]]

    """
    with torch.inference_mode(False):  # for calls that need a graph too
        if boundary == "zeros":
            ones = torch.ones(n - 1, dtype=torch.float64, device="cpu") / 2
            return torch.diag(ones, 1) - torch.diag(ones, -1)
        omega = 2 * torch.pi * torch.fft.rfftfreq(n, dtype=torch.float64, device="cpu")
        if n % 2 == 0:
            omega[-1] = 0  # a wave of alternating signs has its extrema on the pixels
        eye = torch.eye(n, dtype=torch.float64, device="cpu")
        return torch.fft.irfft(1j * omega[:, None] * torch.fft.rfft(eye, dim=0), n=n, dim=0)
