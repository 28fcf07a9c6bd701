"""What a model must not notice: group actions, equivariance, Lie derivatives, Lipschitz constants, isomorphism."""
