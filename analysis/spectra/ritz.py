"""The Ritz pairs of several sweeps, joined, with what their residuals are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..operators.base import Operator
from .lanczos import Found, Key, leading


def joined(
    operator: Operator, found: Sequence[Found], keys: Sequence[Key], k: int, tol: float, scale: float, probe: Tensor
) -> tuple[Tensor, Tensor, Tensor, bool]:
    r"""Values, vectors and residuals of the leading k pairs of each key in the span of all, and whether they converged.

    Each sweep knows A times its vectors: T on those found, and a rest along its tail. So the Rayleigh–Ritz projection and
    its residuals R take no product. One product with :math:`y = \sum_i \pm u_i` measures the defect
    :math:`\|Ay - \sum_i \pm(\theta_i u_i + R_i)\|` of this knowledge, which rounding leaves, or an operator that is not
    symmetric or not the same in every product; over the signs, its mean square is the sum of squares of all defects.
    """
    basis = torch.cat([part.vectors for part in found])
    tails = torch.cat([part.tail for part in found])
    values, rotation, rest = _rayleigh_ritz(found)
    chosen = leading(values, keys, k)
    chosen.sort(key=lambda i: -keys[0](values[i : i + 1])[0])
    values, turn, rest = values[chosen], rotation[:, chosen], rest[:, chosen]
    vectors = torch.from_numpy(turn.T.copy()).to(basis) @ basis
    if len(found) > 1:  # what is left of a tail once the others' vectors are taken out of it
        tails = tails - (tails @ basis.T) @ basis
    gram = (tails @ tails.T).double().cpu().numpy()
    residuals = np.sqrt(np.maximum(np.einsum("ji,jk,ki->i", rest, gram, rest), 0))
    signs = np.where(probe[: len(chosen)].double().cpu().numpy() < 0, -1.0, 1.0)
    weights = (torch.from_numpy(part).to(basis) for part in (signs, signs * values, rest @ signs))
    image = operator @ (next(weights) @ vectors)
    defect = float((image - next(weights) @ vectors - next(weights) @ tails).norm())
    measured = torch.from_numpy(residuals + defect)
    floor = 100 * torch.finfo(basis.dtype).eps * scale
    converged = bool((measured.numpy() <= np.maximum(tol * np.abs(values), floor)).all())
    return torch.from_numpy(values), vectors.T, measured, converged


def _rayleigh_ritz(found: Sequence[Found]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of T on all vectors found, and the rests along all tails."""
    ends = np.cumsum([0, *(len(part.values) for part in found)])
    widths = np.cumsum([0, *(len(part.tail) for part in found)])
    T, rest = np.zeros((ends[-1], ends[-1])), np.zeros((widths[-1], ends[-1]))
    for part, begin, end, low, high in zip(found, ends, ends[1:], widths, widths[1:], strict=False):
        T[begin:end, begin:end] = np.diag(part.values)
        T[:begin, begin:end] = part.known
        T[begin:end, :begin] = part.known.T
        rest[low:high, begin:end] = part.rest
    values, rotation = np.linalg.eigh(T)
    return values, rotation, rest @ rotation


def may_hide_copies(found: Found, keys: Sequence[Key], k: int, width: int, rounding: float) -> bool:
    """Whether a further copy of an eigenvalue may have escaped a sweep of blocks of this width, and matters.

    The sweep sees ``width`` copies. So there may be more only where the intervals of so many values meet, and they matter
    unless the values are as low as the last one that is wanted.
    """
    residuals = np.linalg.norm(found.rest, axis=0) + rounding
    for key in keys:
        ranked = sorted(leading(found.values, [key], k), key=lambda i: key(found.values[i : i + 1])[0])
        last = ranked[0]
        climbing = sorted(ranked, key=lambda i: found.values[i])
        for begin in range(len(climbing) - width + 1):
            group = climbing[begin : begin + width]
            low, high = group[0], group[-1]
            meet = found.values[high] - found.values[low] <= residuals[high] + residuals[low]
            if meet and last not in group:
                return True
    return False
