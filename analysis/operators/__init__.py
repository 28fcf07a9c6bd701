"""Matrices that are too large to form, as linear operators on flat parameter vectors."""

from .base import Dense, Operator, Plan
from .fisher import EmpiricalFisher, Fisher
from .gauss_newton import GGN
from .hessian import Hessian
from .jacobian import Jacobian
from .layout import Layout
from .ntk import NTK

__all__ = ["GGN", "NTK", "Dense", "EmpiricalFisher", "Fisher", "Hessian", "Jacobian", "Layout", "Operator", "Plan"]
