"""What a model must not notice: group actions, equivariance, Lie derivatives, Lipschitz constants, isomorphism."""

from . import actions

__all__ = ["actions"]
