"""The neural tangent kernel of a model on a batch of inputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.utils._pytree import tree_leaves, tree_map

from .base import Operator, Plan
from .data import call
from .differentiable import Differentiable
from .engine import no_slow_vmap
from .jacobian import Jacobian
from .layout import Layout, Selection
from .per_example import Use, edges, halves

_MOST = 2**28  # numbers held by the way layer by layer; beyond them the kernel is formed from products


class NTK(Operator):
    r"""The neural tangent kernel of a model on a batch of inputs, Θ = JJᵀ, as an operator on vectors of outputs.

    .. math:: \Theta_{(n,c),(n',c')} = \nabla_\theta f_c(x_n) \cdot \nabla_\theta f_{c'}(x_{n'})

    Args: those of :class:`Jacobian`.

    Shapes: (M, M) with M the number of entries of the output; a vector has one part, ``"output"``, shaped like it.

    Cost: that of the Jacobian; a product takes one with Jᵀ and one with J, about 4/3 of a gradient. ``dense()`` works
    layer by layer where examples do not see each other: a backward pass for each entry of one example's output, and
    for a linear layer on N examples :math:`(A A^\top) \circ (\Delta \Delta^\top)`, which forms no gradient.

    Errors: a :class:`~lemmata.analysis.errors.LemmataError` that names the culprit and the remedy.

    Source: Jacot, Gabriel & Hongler 2018, Neural tangent kernel; Novak, Sohl-Dickstein & Schoenholz 2022, Fast finite
    width neural tangent kernel.

    Example:
        A linear model has the kernel of its inputs:

        >>> X = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
        >>> NTK(torch.nn.Linear(2, 1, bias=False), X).dense()
        tensor([[1., 1.],
                [1., 5.]])

    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        params: Selection = "*",
        dtype: torch.dtype | None = None,
        batch_stats: str | None = None,
    ) -> None:
        self.jacobian = Jacobian(model, inputs, params, dtype, batch_stats)
        self.layout = Layout(("output",), (tuple(self.jacobian.output.shape),))
        self.dtype, self.device = self.jacobian.dtype, self.jacobian.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return torch.cat([self.jacobian._push(self.jacobian._pull(rows)) for rows in vectors.split(32)])

    def dense(self, block: int = 64) -> Tensor:
        """The matrix (M, M), layer by layer, else from M products taken ``block`` at a time."""
        found = _by_layers(self.jacobian)
        return super().dense(block) if found is None else found

    def plan(self, k: int = 1) -> Plan:
        """Products, their seconds (one is timed here) and the bytes of a block of gradients."""
        probe = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        self @ probe
        begun = perf_counter()
        (self @ probe).sum().item()
        held = min(k, 32) * self.jacobian.shape[1] * probe.element_size()
        return Plan("NTK", k, k * (perf_counter() - begun), held)


def _by_layers(jacobian: Jacobian) -> Tensor | None:
    """JJᵀ from the gradients of single examples, layer by layer; None where they see each other, or it is too large."""
    output = jacobian._output
    if output.ndim < 1 or output.grad_fn is None:
        return None
    uses, rest = _parted(jacobian)
    width = output[0].numel()
    held = (
        sum(use.output.numel() for use in uses) * width + sum(leaf.numel() for leaf in rest.values()) * output.numel()
    )
    if held > _MOST or not _apart(output, uses):
        return None
    try:
        total = _rest(jacobian, rest)
    except (RuntimeError, ValueError):  # an operation that PyTorch cannot batch, or inputs of unequal lengths
        return None
    slopes = [_slopes(output, uses, entry) for entry in range(width)] if uses else []
    for index, use in enumerate(uses):
        total += use.kernel([layers[index] for layers in slopes], use.inputs())
    return total


def _parted(jacobian: Jacobian) -> tuple[list[Use], dict[str, Tensor]]:
    """The layers whose parameters are used there and nowhere else, and the other parameters that the output depends on."""
    output, leaves = jacobian._output, list(jacobian._parameters.values())
    seen = [use for use in jacobian._uses if use.output.grad_fn is not None and len(use.output) == len(output)]
    times, reached = Counter(place for use in seen for place in use.places), edges(output)
    once = {place for place in times if times[place] == reached.get(id(leaves[place]), 0) == 1}

    def kept(place: int | None) -> int | None:
        return place if place in once else None

    uses = [replace(use, weight=kept(use.weight), bias=kept(use.bias)) for use in seen]
    named = enumerate(jacobian._parameters.items())
    rest = {name: leaf.detach() for place, (name, leaf) in named if place not in once and id(leaf) in reached}
    return [use for use in uses if use.places], rest


def _slopes(output: Tensor, uses: list[Use], entry: int) -> list[Tensor]:
    """The slopes of one entry of every example's output in the layers."""
    unit = torch.zeros_like(output)
    unit.view(len(output), -1)[:, entry] = 1
    return _pulled(output, uses, unit)


def _pulled(output: Tensor, uses: list[Use], seeds: Tensor) -> list[Tensor]:
    ends = [use.output for use in uses]
    found = torch.autograd.grad(output, ends, seeds, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(end) if slope is None else slope for end, slope in zip(ends, found, strict=True)]


def _apart(output: Tensor, uses: list[Use]) -> bool:
    """A random half of the examples must have no influence on the slopes of the other half."""
    return not uses or not any(
        bool(slope[others].count_nonzero())
        for seeds, others in halves(output)
        for slope in _pulled(output, uses, seeds)
    )


def _rest(jacobian: Jacobian, rest: dict[str, Tensor]) -> Tensor:
    """The part of JJᵀ that belongs to parameters in other places, from their gradients, example by example."""
    output = jacobian._output
    if not rest:
        return output.new_zeros(output.numel(), output.numel())
    fixed = {name: leaf.detach() for name, leaf in jacobian._parameters.items()}

    def one(chosen: dict[str, Tensor], given: Any) -> tuple[Tensor, Tensor]:
        alone = tree_map(lambda item: item[None] if isinstance(item, Tensor) else item, given)
        found = call(lambda *a, **k: jacobian._call({**fixed, **chosen}, a, k), alone)[0].reshape(-1)
        return found, found

    lengths = {item.shape[0] if item.ndim else 0 for item in tree_leaves(jacobian._given) if isinstance(item, Tensor)}
    if lengths != {len(output)}:
        raise ValueError
    axes = tree_map(lambda item: 0 if isinstance(item, Tensor) else None, jacobian._given)
    with torch.inference_mode(False), torch.enable_grad(), Differentiable(set()), no_slow_vmap():
        found, alone = vmap(jacrev(one, has_aux=True), in_dims=(None, axes))(rest, jacobian._given)
    truth = output.detach()
    if not torch.allclose(alone.reshape(truth.shape), truth, rtol=1e-3, atol=1e-3 * float(truth.abs().max())):
        raise ValueError
    total = output.new_zeros(output.numel(), output.numel())
    for piece in found.values():
        rows = piece.reshape(output.numel(), -1)
        total.addmm_(rows, rows.T)
    return total
