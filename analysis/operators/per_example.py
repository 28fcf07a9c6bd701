"""Gradients of single examples in the layers that multiply by a parameter, without forming what is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ENTRIES = 2**22  # entries of single examples' gradients held at a time
_ALL = slice(None)
_HALF_SEED = 0  # of the random half of the examples whose slopes must not reach the other half


@dataclass(frozen=True)
class Use:
    r"""One use of parameters by a layer: the gradient of example n is :math:`\sum_t \delta_{nt} a_{nt}^\top`.

    ``inputs()`` gives a, (N, T, i), of a slice of the examples if one is passed, and ``deltas`` takes the slope in
    ``output`` to δ, (N, T, o). ``weight`` and ``bias`` are places among the parameters, None for what is not one of them.
    """

    weight: int | None
    bias: int | None
    output: Tensor
    inputs: Callable[..., Tensor]
    deltas: Callable[[Tensor], Tensor]
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.output._version)

    @property
    def places(self) -> list[int]:
        """The parameters it uses."""
        return [place for place in (self.weight, self.bias) if place is not None]

    def gradients(self, a: Tensor, delta: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Single examples' gradients of the weight, (n, o, i), a few outputs o at a time."""
        step = max(1, _ENTRIES // (a.shape[0] * a.shape[2]))
        for start in range(0, delta.shape[2], step):
            part = slice(start, start + step)
            yield part, delta[:, :, part].transpose(1, 2) @ a

    def norms(self, slope: Tensor, a: Tensor) -> Tensor:
        """‖gradient of example n‖², (N,): the cheapest of three ways.

        Of several positions' terms that cancel, the products of Gram matrices leave rounding: ε ‖a‖² ‖δ‖², of which the
        norm itself is uncertain by the root.
        """
        delta = self.deltas(slope)
        total = delta.new_zeros(len(delta))
        if self.bias is not None:
            total += delta.sum(1).square().sum(1)
        if self.weight is None:
            return total
        terms, width, height = a.shape[1], a.shape[2], delta.shape[2]
        if terms == 1:
            return total + a.square().sum((1, 2)) * delta.square().sum((1, 2))
        if terms * (width + height) < width * height:
            gram = ((a @ a.transpose(1, 2)) * (delta @ delta.transpose(1, 2))).sum((1, 2))
            return total + gram.clamp(min=0)  # by rounding it may be less
        return total + sum(part.square().sum((1, 2)) for _, part in self.gradients(a, delta))

    def squares(self, slope: Tensor, a: Tensor, signs: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Σ_n ±(gradient of example n)², entry by entry, for each parameter."""
        delta = self.deltas(slope)
        if self.bias is not None:
            yield self.bias, signs @ delta.sum(1).square()
        if self.weight is None:
            return
        if a.shape[1] == 1:
            yield self.weight, (signs[:, None] * delta[:, 0].square()).T @ a[:, 0].square()
            return
        rows = [torch.einsum("n,noi->oi", signs, part.square()) for _, part in self.gradients(a, delta)]
        yield self.weight, torch.cat(rows)

    def kernel(self, slopes: list[Tensor], a: Tensor) -> Tensor:
        """Inner products of the gradients of all examples and slopes, (N R, N R), the example running slowest."""
        deltas = torch.stack([self.deltas(slope) for slope in slopes], 1)  # (N, R, T, o)
        first = deltas[:, 0].any(0).any(1)
        if a.shape[1] == len(first) and not bool(first.all()):  # positions without slopes have nothing to multiply
            reached = deltas.flatten(0, 1).any(0).any(1)
            a, deltas = a[:, reached], deltas[:, :, reached]
        count, ranks, terms, height = deltas.shape
        sums = deltas.sum(2).reshape(count * ranks, height)
        total = sums @ sums.T if self.bias is not None else sums.new_zeros(count * ranks, count * ranks)
        if self.weight is None or not terms:
            return total
        if terms == 1:
            total.view(count, ranks, count, ranks).add_(
                (a[:, 0] @ a[:, 0].T)[:, None, :, None] * (sums @ sums.T).view(count, ranks, count, ranks)
            )
        elif terms * terms * (a.shape[2] + ranks**2 * (height + 2)) < ranks**2 * height * a.shape[2]:
            _add_by_terms(total.view(count, ranks, count, ranks), a, deltas)
        else:
            _add_by_gradients(total, a, deltas)
        return total


def _add_by_gradients(total: Tensor, a: Tensor, deltas: Tensor) -> None:
    """The gradients' Gram matrix, for a few outputs of the layer at a time; its lower half is computed and mirrored."""
    count, ranks, _, height = deltas.shape
    gram, blocks = torch.zeros_like(total), torch.arange(len(total), device="cpu").split(max(1, -(-len(total) // 8)))
    step = max(1, _ENTRIES // (count * ranks * a.shape[2]))
    for start in range(0, height, step):
        slopes = deltas[..., start : start + step].transpose(2, 3)  # (N, R, o, T)
        rows = (slopes.reshape(count, -1, slopes.shape[3]) @ a).reshape(len(total), -1)
        for block in blocks:
            first, stop = int(block[0]), int(block[-1]) + 1
            gram[first:stop, :stop].addmm_(rows[first:stop], rows[:stop].T)
    total += gram.tril() + gram.tril(-1).T


def _add_by_terms(total: Tensor, a: Tensor, deltas: Tensor) -> None:
    """Σ_tu (a_nt · a_mu)(δ_nrt · δ_msu), a few examples n at a time, which is cheaper where T is small."""
    count, ranks, terms, height = deltas.shape
    columns, every = deltas.reshape(-1, height).T, a.reshape(count * terms, -1).T
    step = max(1, _ENTRIES // (ranks * terms * columns.shape[1]))
    for n in range(0, count, step):
        inner = (a[n : n + step] @ every).view(-1, 1, terms, count, 1, terms)
        outer = (deltas[n : n + step] @ columns).view(-1, ranks, terms, count, ranks, terms)
        total[n : n + step] += (inner * outer).sum((2, 5))


class Recorder(TorchFunctionMode):
    """While active, notes each linear and convolutional layer that uses one of the leaves as its weight or bias.

    A use whose output is later changed in place is dropped at the end: the slope in it can no longer be had.
    """

    def __init__(self, leaves: list[Tensor]) -> None:
        super().__init__()
        self.places = {id(leaf): place for place, leaf in enumerate(leaves)}
        self.uses: list[Use] = []

    def __exit__(self, *error: Any) -> None:
        """Keep the uses whose outputs are still what the layers put out."""
        super().__exit__(*error)
        self.uses = [use for use in self.uses if use.output._version == use.version]

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, and note it if it is such a layer."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is F.linear:
            self._linear(output, *args, **kwargs)
        elif func in (torch.conv1d, torch.conv2d):
            self._convolution(output, *args, **kwargs)
        return output

    def _linear(self, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        places = self.places.get(id(weight)), self.places.get(id(bias))
        if places != (None, None) and input.ndim > 1:
            held = input.detach()
            self.uses.append(Use(*places, output, lambda part=_ALL: positions(held[part]), positions))

    def _convolution(
        self,
        output: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        places = self.places.get(id(weight)), self.places.get(id(bias))
        if places == (None, None) or groups != 1 or isinstance(padding, str) or input.ndim != weight.ndim:
            return
        held, kernel, sizes = input.detach(), tuple(weight.shape[2:]), [dilation, padding, stride]
        if weight.ndim == 3:  # one row of pixels
            held, kernel = held.unsqueeze(2), (1, *kernel)
            sizes = [(neutral, *_sizes(size)) for neutral, size in zip((1, 0, 1), sizes, strict=True)]

        def patches(part: slice = _ALL) -> Tensor:
            return F.unfold(held[part], kernel, *sizes).transpose(1, 2)

        self.uses.append(Use(*places, output, patches, lambda slope: slope.flatten(2).transpose(1, 2)))


def _sizes(given: Any) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)


def positions(tensor: Tensor) -> Tensor:
    """(N, …, d) as (N, T, d)."""
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1])


def edges(output: Tensor) -> dict[int, int]:
    """How many edges of the graph lead to each leaf, by the leaf's identity."""
    counts: dict[int, int] = {}
    for node in nodes(output):
        for following, _ in node.next_functions:
            leaf = getattr(following, "variable", None)
            if leaf is not None:
                counts[id(leaf)] = counts.get(id(leaf), 0) + 1
    return counts


def nodes(output: Tensor) -> Iterator[Any]:
    """Every node of the graph behind an output, once."""
    seen: set[Any] = set()
    stack: list[Any] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack.extend(following for following, _ in node.next_functions)


def halves(output: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A slope in the output that is noise for a random half of the examples and zero for the others; which they are.

    And the same with the halves swapped: examples may see those before them alone.
    """
    generator = torch.Generator("cpu").manual_seed(_HALF_SEED)
    chosen = (torch.rand(len(output), generator=generator, device="cpu") < 0.5).to(output.device)
    noise = torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu").to(output)
    for half in (chosen, ~chosen):
        yield noise * half.reshape(-1, *[1] * (output.ndim - 1)), ~half
