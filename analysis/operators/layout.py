"""How named parameters lie in one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import torch
from torch import Tensor

from ..errors import OperandError, ParameterError

Selection = str | Sequence[str] | Callable[[str], bool]


def matches(name: str, selection: Selection) -> bool:
    """Does a parameter's name meet a glob pattern, any of several, or a predicate?"""
    if callable(selection):
        return bool(selection(name))
    patterns = [selection] if isinstance(selection, str) else selection
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def out_of_reach(what: str, names: Sequence[str]) -> str:
    """A remark for a repr on the parameters that a loss or an output does not depend on."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f", {what} independent of {', '.join(names[:3])}{more}" if names else ""


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameters, in the order in which they fill a flat vector.

    Example:
        >>> layout = Layout(("weight", "bias"), ((2, 3), (2,)))
        >>> layout.size
        8
        >>> layout.split(torch.arange(8.0))["bias"]
        tensor([6., 7.])

    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Number of entries of each parameter."""
        return [prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return sum(self.sizes)

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """Views of a flat vector (P,), or of a stack of them (…, P), shaped like the parameters."""
        lead = vector.shape[:-1]
        parts = vector.split(self.sizes, -1)
        return [part.reshape(lead + shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A flat vector (P,) as a dictionary by parameter name (views, no copy)."""
        if vector.shape != (self.size,):
            raise OperandError(
                "vector",
                f"shape ({self.size},)",
                str(tuple(vector.shape)),
                "Pass one flat vector; take a column of a matrix with V[:, j].",
            )
        return dict(zip(self.names, self.pieces(vector), strict=True))

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The inverse of :meth:`split`."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in tensors or tuple(tensors[name].shape) != shape:
                given = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise OperandError(name, f"a tensor of shape {shape}", str(given), "Pass one tensor for each name.")
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    def select(self, selection: Selection) -> tuple[Layout, Tensor]:
        """The sub-layout of the names that match, and their positions in the flat vector."""
        chosen = [index for index, name in enumerate(self.names) if matches(name, selection)]
        if not chosen:
            raise ParameterError(
                f"params={selection!r}",
                "a pattern or predicate that matches a parameter",
                f"one that matches none of {list(self.names)}",
                "Use glob patterns such as '*.weight'.",
            )
        ranges = torch.arange(self.size).split(self.sizes)
        layout = Layout(tuple(self.names[i] for i in chosen), tuple(self.shapes[i] for i in chosen))
        return layout, torch.cat([ranges[i] for i in chosen])
