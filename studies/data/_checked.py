"""What every loader shares: its error, the check of its arrays against a hash, and how tensors are handed out."""

from __future__ import annotations

import hashlib
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import StudyError


class DataError(StudyError, ValueError):
    """Data that cannot be had as asked; the message says what to do."""


def installed(module: str, what: str, package: str) -> ModuleType:
    """Import the module that ships `what`, or say which extra brings it.

    >>> installed("math", "nothing", "Python").__name__
    'math'
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f'{what} come with {package}: run pip install "lemmata[studies]".') from error


def fingerprint(*arrays: ArrayLike, decimals: int = 9) -> str:
    """Hash arrays of numbers, their shapes and their order: sha256 of every number as an integer count of 10^-decimals.

    Counting in decimals makes the hash that of the data, whatever the last bit of a platform's arithmetic does.

    >>> fingerprint([0.1, 2.0])[:8], fingerprint([0.1 + 1e-15, 2.0])[:8], fingerprint([0.1, 2.001])[:8]
    ('91be4b9a', '91be4b9a', 'ecc2df02')
    """
    digest = hashlib.sha256()
    for array in arrays:
        counted = np.rint(np.asarray(array, dtype=np.float64) * 10.0**decimals).astype("<i8")
        digest.update(repr(counted.shape).encode())
        digest.update(counted.tobytes())
    return digest.hexdigest()


def check(name: str, found: str, expected: str) -> None:
    """Refuse data whose hash is not the one that this lab's measurements were made with.

    >>> check("wine", "ab", "ab")
    """
    if found != expected:
        raise DataError(
            f"{name} is not the data that this lab measures with: its sha256 is {found[:12]}…, expected {expected[:12]}…. "
            "The package that ships it has changed it, or the file was edited: install with -c constraints.txt."
        )


def order(count: int, seed: int) -> np.ndarray:
    """Return the one shuffle of `count` examples that a seed means, on every machine.

    >>> sorted(order(4, seed=1).tolist())
    [0, 1, 2, 3]
    """
    return torch.randperm(count, generator=torch.Generator("cpu").manual_seed(seed), device="cpu").numpy()


def reals(array: ArrayLike) -> Tensor:
    """Copy numbers to torch's default dtype and device.

    >>> reals([1, 2]).dtype == torch.get_default_dtype()
    True
    """
    made = torch.tensor(np.asarray(array, dtype=np.float64), dtype=torch.float64, device="cpu")
    return made.to(torch.get_default_device(), torch.get_default_dtype())


def integers(array: ArrayLike) -> Tensor:
    """Copy integers to torch's default device.

    >>> integers([1, 2]).dtype
    torch.int64
    """
    made = torch.tensor(np.asarray(array, dtype=np.int64), dtype=torch.int64, device="cpu")
    return made.to(torch.get_default_device())
