"""Gradients of single examples in the layers that multiply by a parameter, without forming what is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ENTRIES = 2**22  # entries of single examples' gradients held at a time


@dataclass(frozen=True)
class Use:
    r"""One use of parameters by a layer: the gradient of example n is :math:`\sum_t \delta_{nt} a_{nt}^\top`.

    ``inputs()`` gives a, (N, T, i), and ``deltas`` takes the slope in ``output`` to δ, (N, T, o). ``weight`` and
    ``bias`` are places among the parameters, None for what is not one of them.
    """

    weight: int | None
    bias: int | None
    output: Tensor
    inputs: Callable[[], Tensor]
    deltas: Callable[[Tensor], Tensor]

    def gradients(self, a: Tensor, delta: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Single examples' gradients of the weight, (n, o, i), a few outputs o at a time."""
        step = max(1, _ENTRIES // (a.shape[0] * a.shape[2]))
        for start in range(0, delta.shape[2], step):
            part = slice(start, start + step)
            yield part, delta[:, :, part].transpose(1, 2) @ a

    def norms(self, slope: Tensor, a: Tensor) -> Tensor:
        """‖gradient of example n‖², (N,): the cheapest of three ways."""
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
            return total + ((a @ a.transpose(1, 2)) * (delta @ delta.transpose(1, 2))).sum((1, 2))
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
        count, ranks = deltas.shape[:2]
        sums = deltas.sum(2).reshape(count * ranks, -1)
        total = sums @ sums.T if self.bias is not None else sums.new_zeros(count * ranks, count * ranks)
        if self.weight is None:
            return total
        if a.shape[1] == 1:
            inner = (a[:, 0] @ a[:, 0].T).repeat_interleave(ranks, 0).repeat_interleave(ranks, 1)
            return total + inner * (sums @ sums.T)
        spread, delta = a.repeat_interleave(ranks, 0), deltas.flatten(0, 1)
        for _, part in self.gradients(spread, delta):
            rows = part.flatten(1)
            total += rows @ rows.T
        return total


class Recorder(TorchFunctionMode):
    """While active, notes each linear and convolutional layer that uses one of the leaves as its weight or bias."""

    def __init__(self, leaves: list[Tensor]) -> None:
        super().__init__()
        self.places = {id(leaf): place for place, leaf in enumerate(leaves)}
        self.uses: list[Use] = []

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, and note it if it is such a layer."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is F.linear:
            self._linear(output, *args, **kwargs)
        elif func is torch.conv2d:
            self._convolution(output, *args, **kwargs)
        return output

    def _linear(self, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        places = self.places.get(id(weight)), self.places.get(id(bias))
        if places != (None, None) and input.ndim > 1:
            held = input.detach()
            self.uses.append(Use(*places, output, lambda: _positions(held), _positions))

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
        if places == (None, None) or groups != 1 or isinstance(padding, str) or input.ndim != 4:
            return
        held, kernel = input.detach(), tuple(weight.shape[2:])

        def patches() -> Tensor:
            return F.unfold(held, kernel, dilation=dilation, padding=padding, stride=stride).transpose(1, 2)

        self.uses.append(Use(*places, output, patches, lambda slope: slope.flatten(2).transpose(1, 2)))


def _positions(tensor: Tensor) -> Tensor:
    """(N, …, d) as (N, T, d)."""
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1])
