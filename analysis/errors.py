"""Typed errors: each names the culprit, what was expected, what was given and what to do."""

from __future__ import annotations


class LemmataError(Exception):
    """Base of every error that lemmata's analyzers raise on purpose.

    The four parts are kept as attributes, so that a caller can show them apart; ``str`` joins them.

    Example:
        >>> error = LemmataError("tol", "a positive number", "-1.0", "Pass tol=1e-3.")
        >>> str(error)
        'tol: expected a positive number, given -1.0. Pass tol=1e-3.'

    """

    def __init__(self, name: str, expected: str, given: str, remedy: str) -> None:
        super().__init__(name, expected, given, remedy)
        self.name, self.expected, self.given, self.remedy = name, expected, given, remedy

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, given {self.given}. {self.remedy}"


class ArgumentError(LemmataError, ValueError):
    """An option is outside its domain."""


class OperandError(LemmataError, ValueError):
    """A vector, matrix or operator does not fit the operator it meets (shape, dtype, device)."""


class DataError(LemmataError, ValueError):
    """The data cannot be used as given: one-shot, empty, or on another device or dtype."""


class LossError(LemmataError, ValueError):
    """The loss is not a finite real scalar, or its average over batches is not known."""


class ParameterError(LemmataError, ValueError):
    """The chosen parameters are none, or not real floating-point numbers of one dtype and device."""


class ModelStateError(LemmataError, RuntimeError):
    """The model does not stand for one fixed function (dropout, batch statistics, changing buffers)."""


class DerivativeError(LemmataError, RuntimeError):
    """PyTorch has no second derivative for an operation that the model uses."""


class NumericsError(LemmataError, ArithmeticError):
    """A computation met numbers that are not finite."""


class CapacityError(LemmataError, MemoryError):
    """A device has too little memory for one product."""
