r"""The symmetries of the square torus: its point groups, their representations, and the kernels these allow.

An element (s, m) is "flip left and right s times, then rotate m quarter turns anticlockwise".
"""

from __future__ import annotations

import functools
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from ._pieces import ArchitectureError, checked_name, checked_size

Element = tuple[int, int]

_TURN, _MIRROR = [[0.0, -1.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, 1.0]]  # of the plane's vectors; x to the right, y up
_SIGNS: dict[str, tuple[float, float]] = {"A1": (1, 1), "A2": (1, -1), "B1": (-1, 1), "B2": (-1, -1)}

#: Of each group the irreducible representations over the reals, by the images of the smallest rotation and of the flip.
IRREPS: MappingProxyType[str, dict[str, tuple[list[list[float]], list[list[float]]]]] = MappingProxyType(
    {
        "C2": {"A": ([[1.0]], [[1.0]]), "B": ([[-1.0]], [[1.0]])},
        "C4": {"A": ([[1.0]], [[1.0]]), "B": ([[-1.0]], [[1.0]]), "E": (_TURN, _MIRROR)},
        "D2": {name: ([[a]], [[b]]) for name, (a, b) in _SIGNS.items()},
        "D4": {**{name: ([[a]], [[b]]) for name, (a, b) in _SIGNS.items()}, "E": (_TURN, _MIRROR)},
    }
)


def elements(group: str) -> tuple[Element, ...]:
    """Return the elements (s, m) of C2, C4, D2 or D4: flip left and right s times, then rotate m quarter turns.

    >>> elements("D2")
    ((0, 0), (0, 2), (1, 0), (1, 2))
    """
    checked_name("group", group, IRREPS)
    return tuple((s, m) for s in range(2 if group[0] == "D" else 1) for m in range(0, 4, 4 // int(group[1])))


def compose(h: Element, k: Element) -> Element:
    """Return the product $hk$, "first k, then h".

    >>> compose((1, 0), (0, 1)) == compose((0, 3), (1, 0))   # a flip turns rotations round
    True
    """
    return ((h[0] + k[0]) % 2, (h[1] + (-1) ** h[0] * k[1]) % 4)


def transform(h: Element, x: Tensor) -> Tensor:
    """Return $h·x$, the image turned: $(h·x)(p) = x(h^{-1} p)$ over the last two axes.

    >>> transform((1, 1), torch.tensor([[1, 2], [3, 4]])).tolist()   # 2 1 / 4 3, then anticlockwise
    [[1, 3], [2, 4]]
    """
    flipped = x.flip(-1) if h[0] else x
    return flipped.rot90(h[1], (-2, -1)) if h[1] else flipped


@functools.cache
def representation(group: str, name: str, h: Element) -> Tensor:
    r"""Return the orthogonal matrix $ρ(h)$ of an irreducible representation or of `"regular"`, (d, d), in float64.

    Regular: $ρ(h) e_k = e_{hk}$. All of these matrices permute the axes up to sign.

    >>> representation("D4", "E", (0, 1)).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    every = elements(group)
    checked_name("field", name, [*IRREPS[group], "regular"])
    if name == "regular":
        image = [every.index(compose(h, k)) for k in every]
        return torch.eye(len(every), dtype=torch.float64, device="cpu")[image].T
    turn, flip = (torch.tensor(matrix, dtype=torch.float64, device="cpu") for matrix in IRREPS[group][name])
    steps = h[1] * int(group[1]) // 4
    return torch.linalg.matrix_power(turn, steps) @ torch.linalg.matrix_power(flip, h[0])


def kernel_dimension(group: str, out: str, into: str, kernel: int) -> int:
    r"""Return how many independent kernels map fields of type `into` to type `out`, by characters alone.

    $$\dim = \frac1{|H|} \sum_{h ∈ H} χ_{out}(h) \, χ_{in}(h) \, \#\{q : hq = q\},$$

    where a $k × k$ grid, $k$ odd, has $k^2$ positions fixed by 1, one by a rotation, $k$ by a reflection.

    >>> [kernel_dimension("C4", out, "A", 3) for out in ("A", "B", "E", "regular")]
    [3, 2, 4, 9]
    """
    total, kernel = 0.0, odd(kernel)
    for h in elements(group):
        fixed = kernel if h[0] else (kernel**2 if h[1] == 0 else 1)
        total += fixed * (representation(group, out, h).trace() * representation(group, into, h).trace()).item()
    return round(total / len(elements(group)))


@functools.cache
def kernel_basis(group: str, out: str, into: str, kernel: int) -> Tensor:
    r"""Return an orthonormal basis of the steerable kernels, (dim, d_out, d_in, k, k), in float64.

    They are the kernels with $κ(hq) = ρ_{out}(h) κ(q) ρ_{in}(h)^{-1}$: the fixed space of the Reynolds projection
    $P κ = |H|^{-1} \sum_h ρ_{out}(h) κ(h^{-1} ·) ρ_{in}(h)^{-1}$. Since $ρ$ permutes axes up to sign, $P$ maps each
    unit kernel to the signed sum over its orbit (or to zero); different orbits share no entry.

    >>> kernel_basis("C4", "A", "A", 3)[1].mul(2).tolist()    # the centre of each side
    [[[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]]
    """
    sizes = [representation(group, name, (0, 0)).shape[0] for name in (out, into)]
    shape = (*sizes, odd(kernel), kernel)
    units = torch.eye(sizes[0] * sizes[1] * kernel**2, dtype=torch.float64, device="cpu").view(-1, *shape)
    projected = torch.zeros_like(units)
    for h in elements(group):
        left, right = representation(group, out, h), representation(group, into, h)
        projected += torch.einsum("ab,nbcij,dc->nadij", left, transform(h, units), right) / len(elements(group))
    matrix = projected.flatten(1)  # P
    first = (matrix.diagonal() > 0) & (matrix.tril(-1) == 0).all(1)  # one unit kernel of each orbit
    return (matrix[first] / matrix[first].norm(dim=1, keepdim=True)).view(-1, *shape)


def odd(kernel: int) -> int:
    """Return the side of a kernel whose centre is a position.

    >>> odd(3)
    3
    """
    if checked_size("kernel", kernel) % 2 == 0:
        raise ArchitectureError(
            f"kernel={kernel} has no centre to turn about; take an odd one: {kernel - 1} or {kernel + 1}."
        )
    return kernel


def wrapped(x: Tensor, kernel: int) -> Tensor:
    """Pad the last two axes with ⌊kernel/2⌋ positions of the other end on every side.

    >>> wrapped(torch.tensor([[[[1, 2], [3, 4]]]]), 3)[0, 0].tolist()
    [[4, 3, 4, 3], [2, 1, 2, 1], [4, 3, 4, 3], [2, 1, 2, 1]]
    """
    around = kernel // 2
    if around > min(x.shape[-2:]):
        raise ArchitectureError(
            f"kernel={kernel} wraps more than once around a map of {x.shape[-2]}×{x.shape[-1]} positions; "
            "take a larger image or a smaller kernel."
        )
    return F.pad(x, (around,) * 4, mode="circular") if around else x
