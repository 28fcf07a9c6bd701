"""A time series that statsmodels ships: the yearly number of sunspots."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ._checked import check, fingerprint, installed, reals

SHA256 = "ad0db34d1d266710e7085ffae67254baab1133d112c0350424a2af48bcea01c9"

#: The first year of the series, and the first year held out.
FIRST_YEAR, HELD_OUT_FROM = 1700, 1921


def sunspots() -> tuple[Tensor, Tensor]:
    """Yearly means of the sunspot number, 1700 to 2008: training years to 1920, the later ones held out.

    Both parts are standardised by the mean and the standard deviation of the training years.

    Returns
    -------
    ``(train, test)``: ``(221,)`` and ``(88,)`` in torch's default dtype and on its default device, in order of time.

    Raises
    ------
    DataError : statsmodels is missing, or ships other numbers.

    Licence: public domain. Source: ngdc2008sunspots.

    >>> train, test = sunspots()
    >>> tuple(train.shape), tuple(test.shape), round(train.square().mean().item(), 4)
    ((221,), (88,), 1.0)

    """
    source = installed("statsmodels.datasets.sunspots", "the sunspot numbers", "statsmodels")
    counts = np.asarray(source.load().endog, dtype=np.float64)
    check("sunspots", fingerprint(counts), SHA256)
    cut = HELD_OUT_FROM - FIRST_YEAR
    standardised = (counts - counts[:cut].mean()) / counts[:cut].std()
    return reals(standardised[:cut]), reals(standardised[cut:])
