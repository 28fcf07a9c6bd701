"""How many graphs a network tells apart, beside how many the Weisfeiler-Leman test does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from ..operators.snapshot import snapshot
from .graphs import Array, union
from .isomorphism import wl_classes

_MOST = 10_000  # graphs: half of their squared number of distances is held


@dataclass(frozen=True, repr=False, eq=False)
class Separation:
    r"""How a network's embeddings of graphs compare with the exact classes of the Weisfeiler-Leman test.

    Attributes:
        distinct: how many embeddings there are, two within ``tol`` (through others, if need be) counted as one.
        classes: how many classes the test has; after as many rounds as layers no network has more whose messages depend on the
            states at their ends alone (one that divides by degrees, such as a GCN, sees these a round ahead).
        within: the largest distance of two embeddings in one class: rounding, for such a network.
        between: the smallest distance of two embeddings in different classes.
        plateau: the thresholds [low, high) at which ``distinct`` is the same.
        closest, farthest: the pairs of graphs at ``between`` and at ``within``; None where there is no such pair.
        merged: pairs of graphs in different classes that are within ``tol``. split: pairs in one class that are not.
        heights: the distances at which groups of embeddings join, ascending, (G − 1,).
        tol: the threshold; distances are relative to the norm of the largest embedding.
        converged: whether the plateau holds from ``tol``/10 to 10·``tol``.

    """

    distinct: int
    classes: int
    within: float
    between: float
    plateau: tuple[float, float]
    closest: tuple[int, int] | None
    farthest: tuple[int, int] | None
    merged: int
    split: int
    heights: Tensor
    tol: float
    converged: bool

    @property
    def verdict(self) -> str:
        """``as the test``, ``weaker``, ``stronger``, or ``other`` where it merges some classes and splits others."""
        signs = {(False, False): "as the test", (True, False): "weaker", (False, True): "stronger"}
        return signs.get((self.merged > 0, self.split > 0), "other")

    def __repr__(self) -> str:
        low, high = self.plateau
        gap = f"within {self.within:.1e}, between {self.between:.1e}"
        state = "" if self.converged else f"; not converged: thresholds {low:.1e} to {high:.1e} only"
        return f"Separation({self.distinct} embeddings, {self.classes} classes: {self.verdict}; {gap}{state})"

    def plot(self, ax: Any = None) -> Any:
        """The number of distinct embeddings against the threshold, beside the classes; returns the axes (new ones if None)."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        heights = np.maximum(self.heights.numpy(), 1e-18)
        ax.step(heights, np.arange(len(heights), 0, -1), where="post", label="distinct embeddings")
        ax.axhline(self.classes, color="0.5", linestyle=":", label="classes of the test")
        ax.axvline(self.tol, color="0.7", linewidth=1, label="threshold")
        ax.set(xlabel="threshold", ylabel="number", xscale="log")
        ax.legend()
        return ax

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold, if infinite ends are let through."""
        record = {**vars(self), "heights": self.heights.tolist()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Separation:
        """The inverse of :meth:`to_dict`."""
        pairs = ("plateau", "closest", "farthest")
        tuples = {name: None if record[name] is None else tuple(record[name]) for name in pairs}
        heights = torch.tensor(record["heights"], dtype=torch.float64, device="cpu")
        return cls(**{**record, **tuples, "heights": heights})


def separation(
    model: nn.Module | Callable[[Tensor, Tensor], Tensor],
    graphs: Sequence[Any],
    features: Sequence[Any] | None = None,
    dimension: int = 1,
    rounds: int | None = None,
    tol: float = 1e-12,
) -> Separation:
    r"""Count the graphs that a network tells apart, against the exact number of classes of the Weisfeiler-Leman test.

    .. math:: d(G, H) = \frac{\|f(x_G, A_G) - f(x_H, A_H)\|}{\max_K \|f(x_K, A_K)\|}

    Embeddings are counted by single linkage: those that a chain of distances of at most ``tol`` joins are one. The count is
    to be believed where the plateau is wide: rounding on one side, real differences on the other.

    Args:
        model: a module or function of (x, A), (b, n, d) and (b, n, n) → (b, m): b graphs of n nodes each. :math:`A_{ij}` is
            the number of edges to i from j. It is called once for each number of nodes.
        graphs: as :func:`wl_classes` takes them, each with a node. features: (n, d) numbers for each; ones, d = 1, if None.
        dimension, rounds: of the test; a network of t layers is to be compared with t rounds.
        tol: the threshold. The default is far above the rounding of float64; for float32 take 1e-4 and look at the plateau.

    Cost: the model on all graphs, and all G²/2 distances: a second for the atlas of 1 253 graphs.

    Errors: ``DataError`` for graphs as in :func:`wl_classes`, fewer than two, more than 10 000 or an empty one, and for an
    output that is not one vector a graph; ``ModelStateError`` for dropout or batch statistics; ``NumericsError`` for
    embeddings that are not finite; ``ArgumentError`` for a threshold outside its domain.

    Source: Xu et al. 2019, How powerful are graph neural networks?

    Example:
        The number of edges tells a path from a triangle, and not a path from a star:

        >>> path, star = np.diag(np.ones(3), 1), np.zeros((4, 4))
        >>> star[0, 1:] = 1
        >>> edges = lambda x, A: A.sum((1, 2))[:, None]
        >>> separation(edges, [path + path.T, star + star.T, np.ones((4, 4)) - np.eye(4)])
        Separation(2 embeddings, 3 classes: weaker; within 0.0e+00, between 0.0e+00)

    """
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a number between 0 and 1", repr(tol), "Leave tol out for its default.")
    test = wl_classes(graphs, features, dimension, rounds)
    embeddings = _embedded(model, graphs, features)
    embeddings = embeddings / (np.abs(embeddings).max() or 1.0)  # before squares that may overflow
    distances = pdist(embeddings / (np.linalg.norm(embeddings, axis=1).max() or 1.0))
    heights = np.sort(linkage(distances, "single")[:, 2])
    joined = int((heights <= tol).sum())
    plateau = (
        float(heights[joined - 1]) if joined else 0.0,
        float(heights[joined]) if joined < len(heights) else np.inf,
    )
    first, second = np.triu_indices(len(embeddings), 1)
    same = test.graphs.numpy()[first] == test.graphs.numpy()[second]
    within, farthest = _extreme(distances, same, np.argmax, first, second)
    between, closest = _extreme(distances, ~same, np.argmin, first, second)
    return Separation(
        distinct=len(embeddings) - joined,
        classes=test.count,
        within=within if farthest else 0.0,
        between=between if closest else np.inf,
        plateau=plateau,
        closest=closest,
        farthest=farthest,
        merged=int((distances[~same] <= tol).sum()),
        split=int((distances[same] > tol).sum()),
        heights=torch.from_numpy(heights),
        tol=tol,
        converged=plateau[0] <= tol / 10 and plateau[1] > 10 * tol,
    )


def _extreme(
    distances: Array, chosen: Array, pick: Callable[[Array], Any], first: Array, second: Array
) -> tuple[float, tuple[int, int] | None]:
    places = np.flatnonzero(chosen)
    if not len(places):
        return np.nan, None
    place = places[pick(distances[places])]
    return float(distances[place]), (int(first[place]), int(second[place]))


def _embedded(model: Any, graphs: Sequence[Any], features: Sequence[Any] | None) -> Array:
    """The model's vector for each graph, (G, m), all graphs of one size at once."""
    held = union(graphs)
    if not 2 <= len(graphs) <= _MOST or not held.sizes.all():
        given = f"{len(graphs)} graphs" if held.sizes.all() else f"graphs[{int(held.sizes.argmin())}] without a node"
        raise DataError("graphs", f"2 to {_MOST} graphs with a node each", given, "Leave empty graphs out.")
    private = snapshot(model, None, None)[0] if isinstance(model, nn.Module) else model
    weights = next(private.parameters(), None) if isinstance(private, nn.Module) else None
    kind: dict[str, Any] = {"dtype": torch.get_default_dtype(), "device": torch.get_default_device()}
    if weights is not None:
        kind = {"dtype": weights.dtype, "device": weights.device}
    found: list[Any] = [None] * len(graphs)
    for n in sorted(set(held.sizes.tolist())):
        places = np.flatnonzero(held.sizes == n).tolist()
        A = torch.tensor(np.stack([held.adjacency(place) for place in places]), **kind)
        own = [np.ones((n, 1)) if features is None else _rows(features[place], n) for place in places]
        with torch.no_grad():
            out = private(torch.tensor(np.stack(own), **kind), A)
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != len(places):
            given = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            remedy = "Sum or average over nodes: lambda x, A: model(x, A).sum(1)."
            raise DataError("model", f"one vector a graph, ({len(places)}, m)", given, remedy)
        for place, row in zip(places, out.double().cpu().numpy(), strict=True):
            found[place] = row
    if len({len(row) for row in found}) > 1 or not np.isfinite(np.stack(found)).all():
        raise NumericsError(
            "model", "finite embeddings of one size", "nan, infinity or several sizes", "Check the model."
        )
    return np.stack(found)


def _rows(given: Any, n: int) -> Array:
    return np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given).reshape(n, -1)
