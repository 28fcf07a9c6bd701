"""Handwritten numerals: the digits that scikit-learn ships, and MNIST-1D made by its own generator."""

from __future__ import annotations

import math
import random
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ._checked import DataError, check, fingerprint, installed, integers, order, reals

#: Number of images in the collection, and the seed of the one shuffle that every study shares.
DIGITS = 1797
SHUFFLE = 1998

DIGITS_SHA256 = "f99154a8150102542772e7b835bec42f2afa79d5945c2f1619b41c5003540f31"
MNIST1D_SHA256 = "e14f667e38043fd3ae6b52a78f9947188cbda930e6cb8a4cd85b668202558c72"


def digits(n: int | None = None, *, held_out: bool = False, images: bool = False) -> tuple[Tensor, Tensor]:
    r"""Handwritten digits: 8 × 8 images of the ten numerals, read from scikit-learn's own files.

    The collection is shuffled once and for all; the first ``n`` images are for training, the other 1797 − ``n`` are held
    out, so that a smaller training set is part of every larger one. Each pixel is centred and all are divided by one
    number, $x \mapsto (x - \bar x)/s$ with $s^2$ the mean over pixels of the training variance: inputs have mean zero
    and $\mathbb E\|x\|^2 = 64$ over the training images, and a pixel that is nearly always blank is not blown up.

    Parameters
    ----------
    n : training images, 1 to 1797; all by default.
    held_out : return the images that are not for training instead.
    images : inputs of shape ``(b, 1, 8, 8)`` instead of ``(b, 64)``.

    Returns
    -------
    ``(inputs, labels)`` in torch's default dtype and on its default device; labels are integers 0 to 9.

    Raises
    ------
    DataError : scikit-learn is missing, its file is another one, or ``n`` is out of range.

    Licence: CC BY 4.0. Source: alpaydin1998digits.

    >>> inputs, labels = digits(500)
    >>> tuple(inputs.shape), tuple(labels.shape), round(inputs.square().sum(1).mean().item(), 3)
    ((500, 64), (500,), 64.0)

    """
    n = DIGITS if n is None else n
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= DIGITS:
        raise DataError(f"n={n!r} training digits cannot be had: ask for an integer from 1 to {DIGITS}.")
    if held_out and n == DIGITS:
        raise DataError(f"n={DIGITS} leaves no image held out: ask for fewer training images, such as n=1297.")
    pixels, labels = _read()
    mean = pixels[:n].mean(0)
    scale = (pixels[:n] - mean).square().mean().sqrt()
    chosen = slice(n, None) if held_out else slice(n)
    inputs = ((pixels[chosen] - mean) / scale).to(torch.get_default_dtype())
    side = math.isqrt(inputs.shape[1])
    inputs = inputs.reshape(-1, 1, side, side) if images else inputs
    device = torch.get_default_device()
    return inputs.to(device), labels[chosen].to(device)


def _read() -> tuple[Tensor, Tensor]:
    """All pixels ``(1797, 64)`` in float64 and labels ``(1797,)``, shuffled, on the CPU."""
    source = installed("sklearn.datasets", "the digits", "scikit-learn")
    pixels, labels = source.load_digits(return_X_y=True)
    check("digits", fingerprint(pixels, labels), DIGITS_SHA256)
    shuffle = order(DIGITS, SHUFFLE)
    with torch.device("cpu"):
        return (
            torch.as_tensor(pixels, dtype=torch.float64)[shuffle],
            torch.as_tensor(labels, dtype=torch.int64)[shuffle],
        )


def mnist1d(shuffled: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST-1D: ten one-dimensional numerals of 40 points, padded, shifted, scaled, sheared and noisy.

    Made by the package's own generator at its default arguments (seed 42), the first 4000 for training and the last
    1000 for testing: nothing is downloaded. The whole collection has mean zero and variance one. Python's and NumPy's
    global generators, which the package seeds, are put back as they were.

    Parameters
    ----------
    shuffled : permute the 40 positions, by one permutation for all signals: the same numbers without their locality.

    Returns
    -------
    ``(x_train, y_train, x_test, y_test)``: signals ``(4000, 40)`` and ``(1000, 40)`` in torch's default dtype and on its
    default device, labels 0 to 9.

    Raises
    ------
    DataError : the package is missing or makes other numbers.

    Licence: Apache-2.0. Source: greydanus2024scaling.

    >>> x_train, y_train, x_test, y_test = mnist1d()
    >>> tuple(x_train.shape), tuple(x_test.shape), sorted(set(y_train.tolist())) == list(range(10))
    ((4000, 40), (1000, 40), True)

    """
    installed("mnist1d.data", "the signals of MNIST-1D", "mnist1d")
    x_train, y_train, x_test, y_test = _generated()
    positions = order(x_train.shape[1], SHUFFLE) if shuffled else slice(None)
    return reals(x_train[:, positions]), integers(y_train), reals(x_test[:, positions]), integers(y_test)


@cache
def _generated() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    source = installed("mnist1d.data", "the signals of MNIST-1D", "mnist1d")
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        made = source.make_dataset(source.get_dataset_args())
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
    arrays = made["x"], made["y"], made["x_test"], made["y_test"]
    check("mnist1d", fingerprint(*arrays, decimals=4), MNIST1D_SHA256)
    return arrays
