"""Random weights, drawn again and again in one copy of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import ArgumentError, ModelStateError, ParameterError


class Redraw:
    """Draws all weights of a private copy anew, each time from a seed; the global generators are left as they are.

    Args:
        private: the copy, changed in place.
        initialise: called with each module, inner ones first; None for every module's ``reset_parameters()``.

    Errors: ``ArgumentError`` that names a module with parameters but without ``reset_parameters``, or, by :meth:`check`, a
    weight that no draw has written; ``ModelStateError`` for a lazy module; ``ParameterError`` where there are no parameters.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> redraw = Redraw(model, None)
        >>> redraw(0); first = model.weight.clone(); redraw(1); redraw(0)
        >>> bool((model.weight == first).all())
        True

    """

    def __init__(self, private: nn.Module, initialise: Callable[[nn.Module], Any] | None) -> None:
        self.private, self.initialise = private, initialise
        for name, module in private.named_modules():
            own = list(module.parameters(recurse=False))
            where = f"{name or 'model'} ({type(module).__name__})"
            if any(map(is_lazy, own)):
                remedy = "Run the model once on a batch, model(inputs), before."
                raise ModelStateError(where, "parameters of known shape", "a lazy module", remedy)
            if own and initialise is None and not callable(getattr(module, "reset_parameters", None)):
                remedy = "Pass initialise=f, where f(module) draws the parameters of a module in place."
                raise ArgumentError(where, "a method reset_parameters", "parameters without one", remedy)
        parameters = [p for p in private.parameters() if p.is_floating_point()]
        if not parameters:
            remedy = "Pass a module with weights: there is nothing to draw."
            raise ParameterError("model", "floating-point parameters", "none", remedy)
        for parameter in parameters:
            parameter.requires_grad_()
        self.parameters, self.device = parameters, parameters[0].device
        weights = [(name, p) for name, p in private.named_parameters() if p.is_floating_point() and p.ndim > 1]
        self.still = [(name, p, p._version, p.detach().clone()) for name, p in weights or private.named_parameters()]

    def __call__(self, seed: int) -> None:
        """Draw all weights from a seed."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), torch.no_grad():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every accelerator
            if self.device.type == "cuda":
                torch.cuda.default_generators[self.device.index].manual_seed(seed)
            if self.initialise is not None:
                self.private.apply(self.initialise)
            else:
                for module in self.private.modules():
                    if any(True for _ in module.parameters(recurse=False)):
                        module.reset_parameters()  # type: ignore[operator]
        self.still = [one for one in self.still if one[1]._version == one[2] and torch.equal(one[1], one[3])]

    def check(self) -> None:
        """Raise if some weight was written by no draw."""
        if self.still:
            remedy = "Let it draw in place, as in torch.nn.init.normal_(module.weight)."
            given = f"one that leaves {self.still[0][0]}"
            raise ArgumentError("initialise", "a function that draws the weights anew", given, remedy)
