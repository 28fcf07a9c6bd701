"""Linear algebra without rounding: floating-point numbers are fractions, and small systems of them can be solved exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np

Row = list[Fraction]


def echelon(rows: Sequence[Sequence[float | Fraction]]) -> tuple[list[Row], list[int], Fraction]:
    """The reduced row echelon form, its pivot columns, and the determinant where the matrix is square.

    Cost: rank × entries operations on fractions whose length grows with the rank.

    Example:
        >>> reduced, pivots, determinant = echelon([[2.0, 1.0], [4.0, 3.0]])
        >>> pivots, determinant
        ([0, 1], Fraction(2, 1))

    """
    matrix = [[Fraction(entry) for entry in row] for row in rows]
    pivots: list[int] = []
    determinant = Fraction(1)
    for column in range(len(matrix[0]) if matrix else 0):
        place = len(pivots)
        found = next((i for i in range(place, len(matrix)) if matrix[i][column]), None)
        if found is None:
            determinant = Fraction(0)
            continue
        if found != place:
            matrix[place], matrix[found] = matrix[found], matrix[place]
            determinant = -determinant
        head = matrix[place][column]
        determinant *= head
        matrix[place] = [entry / head for entry in matrix[place]]
        for i, row in enumerate(matrix):
            if i != place and row[column]:
                factor = row[column]
                matrix[i] = [a - factor * b for a, b in zip(row, matrix[place], strict=True)]
        pivots.append(column)
        if len(pivots) == len(matrix):
            break
    return matrix, pivots, determinant


def kernel_near(matrix: np.ndarray, guess: np.ndarray) -> Row:
    """The vector of the kernel that agrees with a guess in the free columns, exactly.

    Example:
        >>> kernel_near(np.array([[3.0, -1.0]]), np.array([0.3, 1.0]))
        [Fraction(1, 3), Fraction(1, 1)]

    """
    reduced, pivots, _ = echelon(matrix.tolist())
    found = [Fraction(float(entry)) for entry in guess]
    free = [column for column in range(matrix.shape[1]) if column not in pivots]
    for row, column in zip(reduced, pivots, strict=False):
        found[column] = -sum((row[j] * found[j] for j in free), Fraction(0))
    return found


def whole(x: np.ndarray) -> np.ndarray:
    """Points about the first of them, in the greatest unit in which all are whole: an array of Python's integers.

    Example:
        >>> whole(np.array([[0.5], [0.75], [3.0]])).tolist()
        [[0], [1], [10]]

    """
    entries = [[Fraction(entry) for entry in row] for row in x.tolist()]
    moved = [[a - b for a, b in zip(row, entries[0], strict=True)] for row in entries]
    unit = lcm(*(entry.denominator for row in moved for entry in row))
    return np.array([[int(entry * unit) for entry in row] for row in moved], dtype=object).reshape(x.shape)
