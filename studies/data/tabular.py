"""Three classic tables that scikit-learn ships: two to classify, one to regress."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ._checked import check, fingerprint, installed, integers, order, reals

#: The seed of the one shuffle; the first 80 % of the shuffled rows are for training.
SHUFFLE = 1998
TRAINING_SHARE = 0.8

SHA256 = {
    "breast_cancer": "a6f5ac14af1329ccac107859e71262a93a6b2356bf4e77ae075d72c4192d058d",
    "diabetes": "fef381f6c7ba0defd18de1633a14342bf39835c56fa2a2b727a4e3c41b1073a4",
    "wine": "f9c14a773e5bf351ad6bf541c823bd2dbcf4a3b9f7396e30fe5ebe40cf643998",
}


def breast_cancer() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Breast cancer, Wisconsin, diagnostic: 30 measurements of cell nuclei in 569 images; malignant (0) or benign (1).

    Each column is standardised by its mean and standard deviation over the training rows.

    Returns
    -------
    ``(x_train, y_train, x_test, y_test)``: ``(455, 30)`` and ``(114, 30)`` numbers in torch's default dtype and on its
    default device, integer labels.

    Raises
    ------
    DataError : scikit-learn is missing, or ships other numbers.

    Licence: CC BY 4.0. Source: wolberg1993breast.

    >>> x_train, y_train, x_test, y_test = breast_cancer()
    >>> tuple(x_train.shape), tuple(x_test.shape), int(y_train.sum() + y_test.sum())
    ((455, 30), (114, 30), 357)

    """
    return _labelled("breast_cancer")


def wine() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Wine: 13 chemical measurements of 178 Italian wines of three cultivars.

    Each column is standardised by its mean and standard deviation over the training rows.

    Returns
    -------
    ``(x_train, y_train, x_test, y_test)``: ``(142, 13)`` and ``(36, 13)`` numbers in torch's default dtype and on its
    default device, labels 0 to 2.

    Raises
    ------
    DataError : scikit-learn is missing, or ships other numbers.

    Licence: CC BY 4.0. Source: aeberhard1991wine.

    >>> x_train, y_train, x_test, y_test = wine()
    >>> tuple(x_train.shape), tuple(x_test.shape), y_train.unique().tolist()
    ((142, 13), (36, 13), [0, 1, 2])

    """
    return _labelled("wine")


def diabetes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Diabetes: ten baseline variables of 442 patients, and the progression of the disease a year later.

    Each column, and the target, is standardised by its mean and standard deviation over the training rows.

    Returns
    -------
    ``(x_train, y_train, x_test, y_test)``: ``(353, 10)`` and ``(89, 10)`` inputs, ``(353, 1)`` and ``(89, 1)`` targets,
    in torch's default dtype and on its default device.

    Raises
    ------
    DataError : scikit-learn is missing, or ships other numbers.

    Licence: published by the authors without one; BSD-3-Clause as part of scikit-learn. Source: efron2004least.

    >>> x_train, y_train, x_test, y_test = diabetes()
    >>> tuple(x_train.shape), tuple(y_test.shape), round(y_train.square().mean().item(), 4)
    ((353, 10), (89, 1), 1.0)

    """
    inputs, targets, cut = _read("diabetes", scaled=False)
    inputs, targets = _standardised(inputs, cut), _standardised(targets[:, None], cut)
    return reals(inputs[:cut]), reals(targets[:cut]), reals(inputs[cut:]), reals(targets[cut:])


def _labelled(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, labels, cut = _read(name)
    inputs = _standardised(inputs, cut)
    return reals(inputs[:cut]), integers(labels[:cut]), reals(inputs[cut:]), integers(labels[cut:])


def _read(name: str, **options: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Inputs and targets as shipped, checked and shuffled, and where the test rows begin."""
    source = installed("sklearn.datasets", f"the rows of {name}", "scikit-learn")
    inputs, targets = getattr(source, f"load_{name}")(return_X_y=True, **options)
    check(name, fingerprint(inputs, targets), SHA256[name])
    shuffle = order(len(targets), SHUFFLE)
    return inputs[shuffle], targets[shuffle], int(TRAINING_SHARE * len(targets))


def _standardised(columns: np.ndarray, cut: int) -> np.ndarray:
    return (columns - columns[:cut].mean(0)) / columns[:cut].std(0)
