"""Real data that every study can read without a network: the handwritten digits that scikit-learn ships."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import StudyError

#: Number of images in the collection, and the seed of the one shuffle that every study shares.
DIGITS = 1797
SHUFFLE = 1998


class DataError(StudyError, ValueError):
    """Data that cannot be had as asked; the message says what to do."""


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
    DataError : scikit-learn is missing, or ``n`` is out of range.

    Source: alpaydin1998digits.

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


def one_hot(labels: Tensor, classes: int = 10) -> Tensor:
    """Labels ``(b,)`` as unit vectors ``(b, classes)`` in torch's default dtype.

    >>> one_hot(torch.tensor([2, 0]), classes=3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return torch.eye(classes, dtype=torch.get_default_dtype(), device=labels.device)[labels]


def _read() -> tuple[Tensor, Tensor]:
    """All pixels ``(1797, 64)`` in float64 and labels ``(1797,)``, shuffled, on the CPU."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError('the digits come with scikit-learn: run pip install "lemmata[studies]".') from error
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(DIGITS, generator=torch.Generator("cpu").manual_seed(SHUFFLE), device="cpu")
    with torch.device("cpu"):
        return torch.as_tensor(pixels, dtype=torch.float64)[order], torch.as_tensor(labels, dtype=torch.int64)[order]


def gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    """Independent standard normal draws: made on the CPU in float64, then rounded and moved to the default device.

    A seed means the same numbers on every device, up to rounding.

    >>> tuple(gaussian(torch.Generator().manual_seed(0), 2, 3).shape)
    (2, 3)
    """
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device(), torch.get_default_dtype())
