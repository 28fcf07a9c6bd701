"""Networks on sets: power sums that determine a set, and attention that counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import comb, sqrt

import torch
from torch import Tensor, nn

from ..errors import CapacityError, DataError
from .construction import Construction, hidden, network_of
from .domains import Finite, whole

_EPS = 2.0**-52
_WORDS = 10**5


class PowerSums(nn.Module):
    r"""A DeepSets network of latent dimension N: :math:`\rho(\sum_i \phi(x_i))` with :math:`\phi(x) = (x, x^2, \dots, x^N)`.

    ρ turns power sums into the elementary symmetric polynomials by Newton's identities,
    :math:`k\, e_k = \sum_{i=1}^k (-1)^{i-1} e_{k-i}\, p_i`: the coefficients, up to signs, of the polynomial whose zeros are
    the set.

    Source: zaheer2017deep.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def latent(self, x: Tensor) -> Tensor:
        """The power sums, (…, N) → (…, N)."""
        return x[..., None].expand(*x.shape, self.size).cumprod(-1).sum(-2)

    def forward(self, x: Tensor) -> Tensor:
        """The elementary symmetric polynomials e_1, …, e_N, (…, N) → (…, N)."""
        p, e = self.latent(x), [torch.ones_like(x[..., 0])]
        for k in range(1, self.size + 1):
            terms = [(-1) ** (i - 1) * e[k - i] * p[..., i - 1] for i in range(1, k + 1)]
            e.append(torch.stack(terms).sum(0) / k)
        return torch.stack(e[1:], -1)

    def decode(self, e: Tensor) -> Tensor:
        """The set from its symmetric polynomials, ascending, (…, N) → (…, N): eigenvalues of the companion matrix."""
        n, signs = self.size, torch.tensor([(-1.0) ** k for k in range(self.size)]).to(e)
        companion = torch.diag_embed(e.new_ones(*e.shape[:-1], n - 1), -1) if n > 1 else e.new_zeros(*e.shape, 1)
        companion[..., 0, :] = e * signs  # x^N = e_1 x^{N−1} − e_2 x^{N−2} + …
        return torch.linalg.eigvals(companion).real.sort(-1).values


def power_sums(size: int, levels: int = 8) -> Construction:
    r"""Sets of N numbers as N power sums, from which the set can be read: latent dimension N is enough, continuously.

    The network's values are the elementary symmetric polynomials, which determine the set; ``network.decode`` gives it back.
    On sets of integers below 8 all is exact in float64, up to N = 8. No latent dimension below N will do.

    Args: ``size`` – N; ``levels`` – the sets are those of integers 0 … levels − 1.

    Errors: ``ArgumentError`` for a size outside 1 … 8 or levels outside 2 … 8.

    Source: zaheer2017deep, wagstaff2019limitations.

    Example:
        >>> sums = power_sums(3)
        >>> e = sums(torch.tensor([[1.0, 2.0, 7.0]], dtype=torch.float64))
        >>> e.tolist(), [round(x, 9) for x in sums.network.decode(e)[0].tolist()]
        ([[10.0, 23.0, 14.0]], [1.0, 2.0, 7.0])

    """
    n, m = whole("size", size, 1, 8), whole("levels", levels, 2, 8)
    sets = torch.tensor(list(itertools.combinations_with_replacement(range(m), n)), dtype=torch.float64)

    def symmetric(x: Tensor) -> Tensor:
        """e_k by multiplying out ∏ (1 + x_i t)."""
        e = torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x)], 1)
        for column in x.T:
            e = e + column[:, None] * torch.cat([torch.zeros_like(e[:, :1]), e[:, :-1]], 1)
        return e[:, 1:]

    statement = f"{n} power sums determine a set of {n} numbers."
    return Construction(PowerSums(n), symmetric, 0.0, Finite(sets.to(torch.get_default_device())), statement, 1)


class CountingAttention(nn.Module):
    r"""One head with equal weights, then a network on each token alone: :math:`y_i = g(x_i, \tfrac1n \sum_j x_j)`."""

    def __init__(self, code: Tensor, network: nn.Module) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros_like(code))  # every logit is 0
        self.code = nn.Parameter(code.clone())  # (2m): of own symbol and counts, as one number
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, tokens (…, n, m) → (…, n, k)."""
        m = x.shape[-1]
        logits = (x * self.query[:m]).sum(-1)[..., :, None] * torch.ones_like(x[..., 0])[..., None, :]
        counts = x.shape[-2] * (logits.softmax(-1) @ x)  # (… n m)
        number = (torch.cat([x, counts], -1) * self.code).sum(-1, keepdim=True)
        return self.network(number)


def equivariant_table(
    function: Callable[[Tensor], Tensor], symbols: int, length: int, outputs: int = 1
) -> Construction:
    r"""Any permutation-equivariant function on words of n letters out of m, by one averaging head and one hidden layer.

    The head's equal weights give every token the counts of all letters; its own letter and the counts, written in base n + 1,
    make one integer, and a table of hats :math:`\mathrm{relu}(z + 1) - 2\,\mathrm{relu}(z) + \mathrm{relu}(z - 1)` reads off
    the value. There are :math:`m \binom{n + m - 2}{m - 1}` cases, and an equivariant function has one value for each.

    Args: ``function`` – words as unit vectors, (N, n, m) → (N, n, k), equivariant; ``symbols`` – m; ``length`` – n;
        ``outputs`` – k.

    Errors: ``ArgumentError`` for sizes below 1; ``CapacityError`` for more than 10⁵ words or a base too large for float64;
    ``DataError`` for a function that is not equivariant, or values of another shape.

    Source: yun2020transformers.

    Example:
        Each token says how many are like it:

        >>> like = lambda x: (x * x.sum(1, keepdim=True)).sum(2, keepdim=True)
        >>> equivariant_table(like, symbols=2, length=4).check().error < 1e-9
        True

    """
    m, n = whole("symbols", symbols), whole("length", length)
    if (n + 1) ** (m + 1) > 2**40:
        given, remedy = f"counts up to {n} of {m} letters", "Take fewer symbols or shorter words."
        raise CapacityError("symbols, length", "counts that make one number of float64", given, remedy)
    words = words_of(m, n)
    values = function(words)
    if values.shape != (len(words), n, outputs):
        expected, remedy = f"shape ({len(words)}, {n}, {outputs})", "Let it map (N, n, m) to (N, n, outputs)."
        raise DataError("function", expected, str(tuple(values.shape)), remedy)
    base = torch.tensor([float((n + 1) ** a) for a in range(m)], dtype=torch.float64, device=words.device)
    code = torch.cat([torch.arange(m).to(base) * (n + 1) ** m, base])
    numbers = (torch.cat([words, words.sum(1, keepdim=True).expand_as(words)], -1) * code).sum(-1).reshape(-1)
    cases, place = numbers.unique(return_inverse=True)
    flat = values.reshape(-1, outputs)
    table = torch.zeros(len(cases), outputs, dtype=torch.float64, device=words.device)
    table[place] = flat
    if not torch.allclose(table[place], flat, rtol=0, atol=1e-9):
        remedy = "Let tokens that see the same letters have the same value; add positions as letters if they matter."
        raise DataError("function", "a permutation-equivariant function", "one that tells positions apart", remedy)
    ones = torch.ones(3 * len(cases), 1, dtype=torch.float64, device=words.device)
    knots = torch.cat([1 - cases, -cases, -1 - cases])
    reader = network_of(hidden((ones, knots), (torch.cat([table, -2 * table, table]).T, 0.0)))
    rounding = 50 * sqrt(n) * _EPS * float(code.max()) * float(table.abs().max() + 1) * len(cases) ** 0.5
    count = m * comb(n + m - 2, m - 1)
    statement = f"One averaging head and a table of {count} cases make an equivariant function of {n} tokens."
    return Construction(CountingAttention(code, reader), function, 0.0, Finite(words), statement, 1, rounding)


def words_of(symbols: int, length: int) -> Tensor:
    """All words as unit vectors, (m^n, n, m)."""
    if symbols**length > _WORDS:
        given, remedy = f"{symbols}^{length} words", "Take fewer symbols or shorter words."
        raise CapacityError("symbols, length", f"at most {_WORDS} words", given, remedy)
    letters: Sequence[tuple[int, ...]] = list(itertools.product(range(symbols), repeat=length))
    eye = torch.eye(symbols, dtype=torch.float64)
    return eye[torch.tensor(letters).to(eye.device)]
