"""The standard error of a statistic from leaving out one batch at a time."""

from __future__ import annotations

from math import sqrt

from torch import Tensor


def jackknife(whole: float, left_out: Tensor, weights: Tensor) -> float:
    r"""The jackknife standard error over groups of unequal size.

    .. math:: \widehat{\operatorname{se}}^2 = \frac1B \sum_b \frac{(\tau_b - \bar T)^2}{h_b - 1}, \quad
        \tau_b = h_b T - (h_b - 1) T_{(b)}, \quad \bar T = B T - \sum_b (1 - 1/h_b) T_{(b)}, \quad
        h_b = \frac{\sum_j w_j}{w_b}

    Args:
        whole: T, the statistic of all data.
        left_out: T_(b), (B,), the statistic without batch b.
        weights: w, (B,), positive, the sizes of the batches.

    Assumptions: the batches are drawn independently, and the statistic is smooth in their means.

    Source: Busing, Meijer & Van der Leeden 1999, Delete-m jackknife for unequal m.

    Example:
        The mean of 1, 2 and 3 has the standard error 1/√3:

        >>> import torch
        >>> error = jackknife(2.0, torch.tensor([2.5, 2.0, 1.5]), torch.ones(3))
        >>> round(error, 6)
        0.57735

    """
    share = weights / weights.sum()
    times = 1 / share
    centre = len(share) * whole - ((1 - share) * left_out).sum()
    pseudo = times * whole - (times - 1) * left_out
    return sqrt(float(((pseudo - centre).square() / (times - 1)).mean()))
