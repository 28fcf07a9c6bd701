"""How alike two representations of the same examples are, by five indices, each with an interval and with what it ignores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import nan
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ..errors import ArgumentError, DataError, OperandError
from ..jackknife import jackknife

GROUPS = 50  # that the jackknife leaves out one after the other
_ORTHOGONAL = ("translations", "isotropic scale", "orthogonal maps")
_LINEAR = ("translations", "isotropic scale", "orthogonal maps", "invertible linear maps")
_Statistic = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True, repr=False)
class SimilarityIndex:
    r"""One index of similarity of two representations.

    Attributes:
        name: of the index.
        value: 1 for representations that differ by what the index ignores.
        stderr: over draws of the examples, from the jackknife.
        bias: of ``value`` at this number of examples, estimated by the same jackknife; it is not subtracted.
        groups: of examples, that were left out one after the other.
        ignores: the maps of either representation that leave ``value``.
        forced: the share of the canonical correlations behind ``value`` that are 1 by counting dimensions.

    """

    name: str
    value: float
    stderr: float
    bias: float
    groups: int
    ignores: tuple[str, ...]
    forced: float = 0.0

    @property
    def blind(self) -> bool:
        """Whether dimensions alone decide the value, whatever the data; it then says nothing, and its interval is [0, 1]."""
        return self.forced == 1

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        r"""The interval value ± t·stderr, Student's t with one degree of freedom less than there are groups; [0, 1] if blind.

        Example:
            >>> SimilarityIndex("CKA", 0.5, 0.0, 0.0, 50, ()).interval()
            (0.5, 0.5)

        """
        if not 0 < level < 1:
            raise ArgumentError("level", "a number in (0, 1)", repr(level), "Pass level=0.95.")
        if self.blind:
            return 0.0, 1.0
        half = float(stats.t.ppf((1 + level) / 2, self.groups - 1)) * self.stderr
        return self.value - half, self.value + half

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        if self.blind:
            return f"{self.name} {self.value:.3f}, blind: too wide for so few examples"
        low, high = self.interval()
        forced = f", {self.forced:.0%} of its correlations forced to 1" if self.forced else ""
        return f"{self.name} {self.value:.3f} [{low:.3f}, {high:.3f}], bias {self.bias:+.3f}{forced}"


@dataclass(frozen=True, repr=False)
class Similarity:
    """What :func:`~lemmata.analysis.similarity` found.

    Attributes:
        indices: by name, see :func:`~lemmata.analysis.similarity`.
        examples: n. widths: p and q. ranks: of the two representations about their means.

    """

    indices: tuple[SimilarityIndex, ...]
    examples: int
    widths: tuple[int, int]
    ranks: tuple[int, int]

    @property
    def related(self) -> bool:
        """Whether the interval of the unbiased index, which is zero for independent representations, lies above zero."""
        return self["CKA, unbiased"].interval()[0] > 0

    def __getitem__(self, name: str) -> SimilarityIndex:
        found = {index.name: index for index in self.indices}
        if name not in found:
            raise ArgumentError("index", f"one of {', '.join(map(repr, found))}", repr(name), "Pass a name of these.")
        return found[name]

    def __repr__(self) -> str:
        told = "related" if self.related else "not told from unrelated"
        head = f"Similarity({self.examples} examples, {self.widths[0]} and {self.widths[1]} wide: {told}"
        return "\n  ".join([head, *map(repr, self.indices)]) + ")"

    def plot(self, ax: Any = None) -> Any:
        """The indices with their 95 % intervals, blind ones hollow; returns the axes (new ones if None)."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        for place, index in enumerate(self.indices):
            low, high = index.interval()
            ax.plot([low, high], [place, place], color="C0", linewidth=1)
            ax.plot(index.value, place, "o", color="C0", fillstyle="none" if index.blind else "full")
        ax.axvline(0, color="0.6", linewidth=1)
        ax.set_yticks(range(len(self.indices)), [index.name for index in self.indices])
        ax.set(xlabel="similarity", ylim=(len(self.indices) - 0.5, -0.5))
        return ax

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Similarity:
        """The inverse of :meth:`to_dict`."""
        indices = tuple(SimilarityIndex(**{**one, "ignores": tuple(one["ignores"])}) for one in record["indices"])
        return cls(indices, record["examples"], tuple(record["widths"]), tuple(record["ranks"]))


def similarity(X: Tensor, Y: Tensor, share: float = 0.99) -> Similarity:
    r"""Compare two representations of the same examples: linear CKA, canonical correlations, SVCCA and Procrustes.

    With columns about their means, :math:`K = XX^\top`, :math:`L = YY^\top` and orthonormal bases U, V of their columns:

    .. math::
        \text{CKA} = \frac{\|Y^\top X\|_F^2}{\|X^\top X\|_F \|Y^\top Y\|_F}, \quad
        \text{Procrustes} = \frac{\|Y^\top X\|_*}{\|X\|_F \|Y\|_F}, \quad
        \text{CCA} = \frac{\|V^\top U\|_*}{\min(r_X, r_Y)}

    ======================  ============================================================  =========================
    name                    what                                                          ignores
    ======================  ============================================================  =========================
    ``"CKA"``               as above; its bias for unrelated data is about p/(n + p)      orthogonal maps, scale
    ``"CKA, unbiased"``     with unbiased estimates of HSIC: 0 on average if unrelated    orthogonal maps, scale
    ``"CCA"``               mean canonical correlation                                    invertible linear maps
    ``"SVCCA"``             CCA of the leading singular directions, ``share`` of the      orthogonal maps, scale
                            variance of each
    ``"Procrustes"``        cosine after the best rotation                                orthogonal maps, scale
    ======================  ============================================================  =========================

    An index that ignores all invertible maps is constant once a width reaches n − 1: ranks r and s in n − 1 dimensions
    share r + s − (n − 1) directions, whatever the data, and as many canonical correlations are 1 (``forced``). Where all
    of them are, the index is ``blind``.

    Args:
        X: (n, p), an example a row. Y: (n, q), of the same examples in the same order, on the same device.
        share: of the variance that SVCCA keeps, in (0, 1].

    Returns:
        A :class:`Similarity`. Computed in float64; the jackknife leaves out each of min(n, 50) groups of examples.

    Assumptions: the examples are independent draws; what is estimated is each index at this n, and its bias is told.

    Raises:
        OperandError: not matrices of one number of rows, at least 8. DataError: entries that are not finite, or a
        representation without variance. ArgumentError: ``share``.

    Cost: O(G n m²) operations and n (p + q) numbers, G groups, m = min(n, max(p, q)).
    Source: kornblith2019similarity; song2012feature; hotelling1936relations; raghu2017svcca; schonemann1966generalized.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> X = torch.randn(200, 3, generator=draws)
        >>> Q = torch.linalg.qr(torch.randn(3, 3, generator=draws))[0]
        >>> round(similarity(X, 5 * X @ Q)["CKA"].value, 6)
        1.0
        >>> similarity(X, torch.randn(200, 4, generator=draws)).related
        False

    """
    if not 0 < share <= 1:
        raise ArgumentError("share", "a share of the variance in (0, 1]", repr(share), "Pass share=0.99.")
    X, Y = _checked("X", X), _checked("Y", Y)
    n = len(X)
    if len(Y) != n or Y.device != X.device:
        given = f"{n} rows on {X.device} and {len(Y)} on {Y.device}"
        raise OperandError("Y", "the examples of X, on its device", given, "Pass representations of one batch.")
    widths = X.shape[1], Y.shape[1]
    X, Y = _compact(X), _compact(Y)
    statistics: dict[str, tuple[_Statistic, tuple[str, ...]]] = {
        "CKA": (cka, _ORTHOGONAL),
        "CKA, unbiased": (cka_unbiased, _ORTHOGONAL),
        "CCA": (mean_correlation, _LINEAR),
        "SVCCA": (lambda A, B: mean_correlation(_leading(A, share), _leading(B, share)), _ORTHOGONAL),
        "Procrustes": (procrustes, _ORTHOGONAL),
    }
    ranks = _basis(X).shape[1], _basis(Y).shape[1]
    kept = _basis(_leading(X, share)).shape[1], _basis(_leading(Y, share)).shape[1]
    forced = {"CCA": _forced(n, *ranks), "SVCCA": _forced(n, *kept)}
    groups = torch.arange(n, device=X.device) % min(n, GROUPS)
    indices = tuple(
        _index(name, statistic, X, Y, groups, ignores, forced.get(name, 0.0))
        for name, (statistic, ignores) in statistics.items()
    )
    return Similarity(indices, n, widths, ranks)


def _checked(name: str, X: Tensor) -> Tensor:
    if not isinstance(X, Tensor) or X.ndim != 2 or len(X) < 8 or not X.is_floating_point():
        given = f"{tuple(X.shape)} of {X.dtype}" if isinstance(X, Tensor) else type(X).__name__
        remedy = "Pass one row an example, for example features.flatten(1)."
        raise OperandError(name, "a floating-point matrix (n, p) of n ≥ 8 examples", given, remedy)
    if not bool(X.isfinite().all()):
        raise DataError(name, "finite entries", "inf or nan", "Leave out the examples that overflow.")
    X = X.detach().double()
    centred = X - X.mean(0)
    if float(centred.norm()) <= 1e-12 * float(X.norm()):
        remedy = "A constant representation is like no other; compare another layer."
        raise DataError(name, "a representation that varies over examples", "a constant one", remedy)
    return centred


def _compact(X: Tensor) -> Tensor:
    """The same inner products from at most n columns: every index ignores orthogonal maps."""
    return X if X.shape[1] <= len(X) else torch.linalg.qr(X.T)[1].T


def _index(
    name: str, statistic: _Statistic, X: Tensor, Y: Tensor, groups: Tensor, ignores: tuple[str, ...], forced: float
) -> SimilarityIndex:
    whole, count = statistic(X, Y), int(groups.max()) + 1
    if forced == 1:
        return SimilarityIndex(name, whole, nan, nan, count, ignores, forced)
    parts = [statistic(X[groups != g], Y[groups != g]) for g in range(count)]
    left_out = torch.tensor(parts, dtype=torch.float64)
    sizes = groups.bincount().double().cpu()
    bias = float(((1 - sizes / sizes.sum()) * (left_out - whole)).sum())
    return SimilarityIndex(name, whole, jackknife(whole, left_out, sizes), bias, count, ignores, forced)


def _forced(n: int, r: int, s: int) -> float:
    """The share of the canonical correlations of ranks r and s in n − 1 dimensions that cannot but be one."""
    return max(0, r + s - (n - 1)) / min(r, s)


def _basis(X: Tensor) -> Tensor:
    """Orthonormal columns that span those of X about their mean, (n, r)."""
    U, s, _ = torch.linalg.svd(X - X.mean(0), full_matrices=False)
    return U[:, s > s[0] * max(X.shape) * torch.finfo(s.dtype).eps]


def _leading(X: Tensor, share: float) -> Tensor:
    """The principal components that hold `share` of the variance, (n, k)."""
    U, s, _ = torch.linalg.svd(X - X.mean(0), full_matrices=False)
    part = s.square().cumsum(0) / s.square().sum()
    k = min(int((part < share * (1 - 1e-12)).sum()) + 1, len(s))
    return U[:, :k] * s[:k]


def cka(X: Tensor, Y: Tensor) -> float:
    r"""Linear CKA of (n, p) and (n, q), columns about their means, from 0 to 1.

    >>> X = torch.tensor([[1.0], [-1.0], [0.0]])
    >>> cka(X, 3 * X)
    1.0
    """
    X, Y = X - X.mean(0), Y - Y.mean(0)
    return float((Y.T @ X).square().sum() / ((X.T @ X).norm() * (Y.T @ Y).norm()))


def _hsic(X: Tensor, Y: Tensor) -> Tensor:
    r"""n(n − 3) times the unbiased estimate of HSIC: tr K̃L̃ + 1ᵀK̃1·1ᵀL̃1/((n−1)(n−2)) − 2·1ᵀK̃L̃1/(n−2), zero diagonals."""
    n = len(X)
    k, ell = X.square().sum(1), Y.square().sum(1)
    K1, L1 = X @ X.sum(0) - k, Y @ Y.sum(0) - ell
    products = (Y.T @ X).square().sum() - k @ ell
    return products + K1.sum() * L1.sum() / ((n - 1) * (n - 2)) - 2 * (K1 @ L1) / (n - 2)


def cka_unbiased(X: Tensor, Y: Tensor) -> float:
    r"""Linear CKA with unbiased estimates of HSIC: on average zero for unrelated data, so at times negative.

    Where an estimate of a representation's HSIC with itself is not positive, too few examples tell its shape: nan.

    >>> X = torch.eye(5)[:, :2]
    >>> round(cka_unbiased(X, 2 * X), 6)
    1.0
    """
    X, Y = X - X.mean(0), Y - Y.mean(0)
    own = _hsic(X, X), _hsic(Y, Y)
    return float(_hsic(X, Y) / (own[0] * own[1]).sqrt()) if min(own) > 0 else nan


def mean_correlation(X: Tensor, Y: Tensor) -> float:
    r"""Mean canonical correlation of (n, p) and (n, q): singular values of VᵀU over the smaller rank.

    >>> X = torch.eye(4)[:, :2]
    >>> round(mean_correlation(X, X @ torch.tensor([[1.0, 7.0], [0.0, 1.0]])), 6)
    1.0
    """
    inner = _basis(Y).T @ _basis(X)
    return float(torch.linalg.svdvals(inner).sum() / min(inner.shape))


def procrustes(X: Tensor, Y: Tensor) -> float:
    r"""Cosine of (n, p) and (n, q) after the best rotation and scale: the distance left is √(1 − its square).

    >>> X = torch.eye(4)[:, :2]
    >>> round(procrustes(X, -3 * X.flip(1)), 6)
    1.0
    """
    X, Y = X - X.mean(0), Y - Y.mean(0)
    return float(torch.linalg.svdvals(Y.T @ X).sum() / (X.norm() * Y.norm()))
