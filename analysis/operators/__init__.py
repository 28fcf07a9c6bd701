"""Matrices that are too large to form, as linear operators on flat parameter vectors."""

from .base import Dense, Operator, Plan
from .hessian import Hessian
from .layout import Layout

__all__ = ["Dense", "Hessian", "Layout", "Operator", "Plan"]
