"""The finite group that some matrices generate, walked through word by word; and whether other matrices follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import OperandError

Array = NDArray[np.float64]

_PRINTS = 4  # random linear forms by which matrices are told apart
_CELL = 1e-6  # width of the cells that fingerprints are sorted into
_UNBOUNDED = 1e9  # no finite group has such fingerprints, but for a very skew basis
_SAME = 1e-8  # distance, in units of the largest fingerprint, below which two matrices are one


@dataclass(frozen=True)
class Closure:
    """A finite group that was walked through: its order, and the traces tr ρ(g) of each representation over its elements."""

    order: int
    traces: dict[str, Tensor]


class _Known:
    """Elements met so far, by fingerprints: found again within rounding in constant time. Each remembers how it was reached."""

    def __init__(self) -> None:
        self.prints: list[Array] = []
        self.cells: dict[int, list[int]] = {}
        self.steps: list[tuple[Any, int]] = []

    def find(self, mark: Array) -> int | None:
        """The place of an equal fingerprint, None if it is new."""
        cell = round(float(mark.sum()) / _CELL)
        for near in (cell - 1, cell, cell + 1):
            for place in self.cells.get(near, ()):
                if equal(mark, self.prints[place]):
                    return place
        return None

    def add(self, mark: Array, generator: Any, parent: int) -> int:
        """Remember a new one, reached from its parent; its place."""
        self.cells.setdefault(round(float(mark.sum()) / _CELL), []).append(len(self.prints))
        self.prints.append(mark)
        self.steps.append((generator, parent))
        return len(self.prints) - 1

    def word(self, place: int) -> tuple[Any, ...]:
        """The generators whose product an element was reached by."""
        found: list[Any] = []
        while place:
            generator, place = self.steps[place]
            found.append(generator)
        return tuple(found)


def equal(mark: Array, other: Array) -> bool:
    """Whether two fingerprints differ by rounding only.

    Example:
        >>> equal(np.array([1.0]), np.array([1.0 + 1e-12])), equal(np.array([1.0]), np.array([1.1]))
        (True, False)

    """
    return float(np.abs(mark - other).max()) <= _SAME * (1 + float(np.abs(other).max()))


def closure(representations: Mapping[str, Mapping[Any, Tensor]], faithful: Sequence[str], limit: int) -> Closure | None:
    r"""Walk through the group that the generators of ``faithful`` representations generate; None if it has more elements than ``limit``.

    Elements are equal if all faithful matrices are. A word that comes back to an element must do so in every other
    representation too, or that is no homomorphism.

    Args:
        representations: name → (generator → (d, d)), the same generators in each.
        faithful: the names of those whose direct sum tells elements apart.
        limit: on the order.

    Cost: one product of d × d matrices for each element, generator and representation.

    Errors: ``OperandError`` naming the representation that is no homomorphism, with the two words.

    Example:
        >>> turn = {"turn": torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)}
        >>> closure({"plane": turn}, ["plane"], 100).traces["plane"].tolist()
        [2.0, 0.0, -2.0, 0.0]

    """
    sizes = {r: len(next(iter(d.values()))) for r, d in representations.items()}
    draws = torch.Generator().manual_seed(0)
    forms = {
        r: torch.randn(_PRINTS, d * d, generator=draws, dtype=torch.float64, device="cpu") / d for r, d in sizes.items()
    }
    followers = [r for r in representations if r not in faithful]

    def mark(element: Mapping[str, Tensor], chosen: Sequence[str]) -> Array:
        return torch.cat([forms[r] @ element[r].flatten() for r in chosen]).numpy()

    unit = {r: torch.eye(d, dtype=torch.float64, device="cpu") for r, d in sizes.items()}
    known, shadows = _Known(), [{r: mark(unit, [r]) for r in followers}]
    traces = {r: [float(d)] for r, d in sizes.items()}
    frontier = [(known.add(mark(unit, faithful), None, 0), unit)]
    while frontier:
        following = []
        for (parent, element), g in product(frontier, next(iter(representations.values()))):
            image = {r: matrices[g] @ element[r] for r, matrices in representations.items()}
            own, shadow = mark(image, faithful), {r: mark(image, [r]) for r in followers}
            if not float(np.abs(own).max()) < _UNBOUNDED:
                return None
            place = known.find(own)
            if place is not None:
                for r in followers:
                    if not equal(shadow[r], shadows[place][r]):
                        raise _two_matrices(r, (g, *known.word(parent)), known.word(place))
            elif len(shadows) == limit:
                return None
            else:
                following.append((known.add(own, g, parent), image))
                shadows.append(shadow)
                for r, matrix in image.items():
                    traces[r].append(float(matrix.trace()))
        frontier = following
    return Closure(
        len(shadows), {r: torch.tensor(values, dtype=torch.float64, device="cpu") for r, values in traces.items()}
    )


def _two_matrices(name: str, longer: tuple[Any, ...], word: tuple[Any, ...]) -> OperandError:
    given = f"two matrices for one element, {spelled(longer)} = {spelled(word)}"
    remedy = "Correct the matrices of these generators, or leave `group` out if they generate another group."
    return OperandError(name, "a homomorphism, ρ(g)ρ(h) = ρ(gh)", given, remedy)


def spelled(word: Sequence[Any]) -> str:
    """A word as a product, powers gathered.

    Example:
        >>> spelled(("a", "a", "b")), spelled(())
        ('a²·b', '1')

    """
    parts: list[tuple[Any, int]] = []
    for g in word:
        if parts and parts[-1][0] == g:
            parts[-1] = (g, parts[-1][1] + 1)
        else:
            parts.append((g, 1))
    raised = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "·".join(f"{g}{str(power).translate(raised) if power > 1 else ''}" for g, power in parts) or "1"
