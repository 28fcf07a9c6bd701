"""A function of the parameters, linearised where it was evaluated: J and Jᵀ without a further forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Linearised:
    r"""Keeps the graph of some results, and that of :math:`u \mapsto J^\top u`, which is linear: its derivative is J.

    Args:
        results: tensors computed from the leaves ``theta``.
        theta: the leaves.
        at: directions u, shaped like the results, for which :attr:`pulled` is :math:`J^\top u`; zeros if None.

    Cost: construction one backward pass; a product with J or Jᵀ one backward pass.

    """

    def __init__(self, results: list[Tensor], theta: list[Tensor], at: Sequence[Tensor] | None = None) -> None:
        self.results, self.theta = results, theta
        given = [torch.zeros_like(part) for part in results] if at is None else at
        self.dual = [part.detach().clone().requires_grad_() for part in given]
        back = torch.autograd.grad(results, theta, self.dual, create_graph=True, allow_unused=True)
        self.pulled = [None if part is None else part.detach() for part in back]
        kept = [(i, part) for i, part in enumerate(back) if part is not None and part.requires_grad]
        self.active, self.back = [i for i, _ in kept], [part for _, part in kept]

    @property
    def outputs(self) -> list[Tensor]:
        """Everything that is kept hangs on these."""
        return [*self.results, *self.back]

    def push(self, pieces: list[Tensor], batched: bool) -> list[Tensor]:
        """J v, for a vector or a stack of them, in pieces shaped like the parameters and like the results."""
        given = [pieces[i] for i in self.active]
        parts = torch.autograd.grad(
            self.back, self.dual, given, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
        stack = pieces[0].shape[:1] if batched else ()
        return [
            like.new_zeros(stack + like.shape) if part is None else part
            for part, like in zip(parts, self.dual, strict=True)
        ]

    def pull(self, directions: list[Tensor], batched: bool) -> Sequence[Tensor | None]:
        """Jᵀ u, None for parameters out of reach."""
        return torch.autograd.grad(
            self.results, self.theta, directions, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
