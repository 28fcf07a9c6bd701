"""A function to approximate, with its domain and its norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..errors import DataError
from .domains import Domain, domain_of
from .target_spectra import Spectrum

Function = Callable[[Tensor], Tensor]  # (n, d) → (n,)


@final
@dataclass(frozen=True)
class Norms:
    r"""Exact norms on a domain with its uniform law; inf where the function has none, None where no closed form is known.

    Attributes:
        sup: :math:`\max |f|`.
        l2: :math:`(E f^2)^{1/2}`.
        lipschitz: the smallest L with :math:`|f(x) - f(y)| \le L \|x - y\|`.
        sobolev: :math:`(E \|\nabla f\|^2)^{1/2}`, the seminorm of H¹; on a sphere with its own gradient.
        hoelder: (α, C) with :math:`|f(x) - f(y)| \le C \|x - y\|^\alpha`, the largest α ≤ 1 and the smallest C for it.
        barron: :math:`C_f = \int \|\omega\| |\hat f(\omega)| d\omega` of the extension to :math:`R^d` that the formula defines.

    """

    sup: float
    l2: float | None = None
    lipschitz: float | None = None
    sobolev: float | None = None
    hoelder: tuple[float, float | None] | None = None
    barron: float | None = None


@final
@dataclass(frozen=True, repr=False)
class Target:
    """A function with a domain and what is known of it.

    Args:
        name: what it is called.
        function: rows to values, (n, d) → (n,).
        domain: a ``Box``, ``Ball``, ``Sphere`` or ``Finite``.
        norms: exact where known.
        smoothness: how often it can be differentiated with bounded derivatives, in fractions; inf if analytic, 0 if not
            even Hölder.
        structure: how it is composed of simpler functions, in words; "" if in no way.
        spectrum: its frequencies, where they are known.

    Errors: ``ArgumentError`` for a domain that is none; ``DataError`` for a function that is not one finite number a
    row, looked at on 64 random points.

    Source of the norm ``barron``: barron1993universal.

    Example:
        >>> import torch
        >>> from lemmata.analysis import Box
        >>> f = Target("x²", lambda x: x[:, 0] ** 2, Box.cube(1, 0.0), Norms(1.0, lipschitz=2.0))
        >>> f(torch.tensor([[0.5]], dtype=torch.float64)).item(), f.norms.lipschitz
        (0.25, 2.0)

    """

    name: str
    function: Function
    domain: Domain
    norms: Norms | None = None
    smoothness: float | None = None
    structure: str = ""
    spectrum: Spectrum | None = None

    def __post_init__(self) -> None:
        domain_of(self.domain)
        self(self.domain.sample(64))

    def __call__(self, points: Tensor) -> Tensor:
        """The values at points of the domain, (n, d) → (n,)."""
        values = self.function(self.domain.checked(points))
        if not isinstance(values, Tensor) or values.shape != points.shape[:1]:
            given = str(tuple(values.shape)) if isinstance(values, Tensor) else type(values).__name__
            remedy = "Let the function map rows (n, d) to values (n,)."
            raise DataError(self.name, f"values of shape ({len(points)},)", given, remedy)
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            given = f"{values[bad[0]].item()} at {points[bad[0]].flatten().tolist()}"
            raise DataError(self.name, "finite values", given, "Choose a domain on which the target is finite.")
        return values

    def __repr__(self) -> str:
        return f"Target({self.name} on {self.domain!r})"
