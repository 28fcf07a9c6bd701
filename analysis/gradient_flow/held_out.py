"""Held-out inputs beside the training inputs: the kernel between them, and their outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..errors import DataError
from ..operators.ntk import NTK


def kernel_across(model: nn.Module, inputs: Any, others: Any, output: Tensor, options: Any) -> tuple[Tensor, Tensor]:
    """The kernel between held-out and training inputs, (m', M), and the held-out outputs, in pieces of N inputs."""
    n, kernels, outputs = len(output), [], []
    own, spec = tree_flatten(inputs)
    held, other = tree_flatten(others)
    if spec != other:
        raise _unlike(f"the structure {other}")
    rows = [place for place, item in enumerate(own) if isinstance(item, Tensor) and item.ndim and len(item) == n]
    for begin in range(0, _length(own, held, rows), n):
        joined = list(own)
        for place in rows:
            joined[place] = _joined(own[place], held[place][begin : begin + n])
        kernel = NTK(model, tree_unflatten(joined, spec), *options)
        found = kernel.jacobian.output
        if not float((found[:n] - output).norm()) <= 10 * torch.finfo(output.dtype).eps ** 0.5 * float(output.norm()):
            remedy = "Use a model that treats every input by itself, or leave held_out out."
            raise DataError("held_out", "inputs that do not change the others' outputs", "inputs that do", remedy)
        kernels.append(kernel.dense()[output.numel() :, : output.numel()].double())
        outputs.append(found[n:].double())
    return torch.cat(kernels), torch.cat(outputs)


def _length(own: list[Any], held: list[Any], rows: list[int]) -> int:
    """The number of held-out inputs: the rows of every tensor that has one for each; all else must be shared."""
    lengths = {len(held[place]) if isinstance(held[place], Tensor) and held[place].ndim else 0 for place in rows}
    if len(lengths) != 1 or 0 in lengths:
        given = f"tensors of {sorted(lengths)} rows" if lengths else "no tensor with a row for each training input"
        raise DataError("held_out", "at least one input", given, "Pass inputs shaped like the training ones, or None.")
    for place, (one, other) in enumerate(zip(own, held, strict=True)):
        if place not in rows and not _same(one, other):
            raise _unlike(f"another value at place {place}, which has no row for each input and is shared")
    return lengths.pop()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other.to(one.device)).all())
    return type(one) is type(other) and np.array_equal(one, other)


def _joined(one: Tensor, other: Tensor) -> Tensor:
    try:
        return torch.cat([one, other])
    except (RuntimeError, TypeError) as error:
        raise _unlike(str(error).splitlines()[0]) from error


def _unlike(given: str) -> DataError:
    remedy = "Give both the same structure, trailing shapes, dtype, device and shared values."
    return DataError("held_out", "inputs like the training ones", given, remedy)
