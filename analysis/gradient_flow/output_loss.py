"""A loss as a function of a model's outputs alone: its value, its gradient, and whether it is a squared error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import LossError
from ..operators.data import fit
from ..operators.objective import _private
from ..operators.snapshot import scalar

_SIZES = (1.0, 10.0, 1000.0)  # of the displacements at which a loss must look quadratic
_EPS = torch.finfo(torch.float64).eps


class OutputLoss:
    """L(f) = loss(f, target) in float64, with f shaped like the model's output; floating targets and weights are cast."""

    def __init__(self, loss: Callable[[Any, Any], Tensor], target: Any, device: torch.device) -> None:
        target = fit(target, "target", torch.float64, device, cast=True)
        with torch.inference_mode(False):  # autograd cannot save a target that was made in inference mode
            self.target = tree_map(lambda item: item.clone() if isinstance(item, Tensor) else item, target)
        self.loss = _private(loss, torch.float64)

    def __call__(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """L and ∇_f L, as they come: neither needs to be finite."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = output.detach().clone().requires_grad_()
            value = self.loss(leaf, self.target)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach().double(), gradient

    def gradient(self, output: Tensor) -> Tensor:
        """∇_f L, after a check that the loss is a finite scalar which has a gradient."""
        try:
            with torch.inference_mode(False):
                scalar(self.loss(output.clone(), self.target), "data", "loss")
            return self(output)[1]
        except RuntimeError as error:
            remedy = "Let it depend on the output without detach(), and cast tensors of its own to torch.float64."
            expected, given = "a differentiable function of the output, in float64", str(error).splitlines()[0]
            raise LossError("loss", expected, given, remedy) from error

    def curvature(self, start: Tensor) -> float | None:
        """The c where the loss has the Hessian c I in the outputs, as far as its gradient shows; else None."""
        draws = torch.Generator().manual_seed(0)
        gradient = self(start)[1]
        found, reach = [], float(start.norm().clamp(min=1.0))
        for size in _SIZES:
            d = torch.randn(start.shape, generator=draws, dtype=torch.float64, device="cpu").to(start.device)
            d = d * size * reach / float(d.norm())
            bent = self(start + d)[1] - gradient
            c = float((bent * d).sum() / (d * d).sum())
            slack = 1e3 * _EPS * (float(gradient.norm()) + abs(c) * float(d.norm()))
            if not c > 0 or not float((bent - c * d).norm()) <= slack:
                return None
            found.append((c, slack / float(d.norm())))
            reach = max(reach, float(gradient.norm()) / c)  # large targets lie far from the start
        c, off = found[-1]
        return c if off < 0.1 * c and all(abs(other - c) <= bar for other, bar in found) else None
