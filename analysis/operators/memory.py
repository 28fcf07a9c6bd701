"""Bytes: how many a graph keeps alive, and what to do where there are too few."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from ..errors import CapacityError


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Turn the complaint of a device's allocator into a typed error."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        remedy = (
            "Cut the data into smaller batches, which add up to the same matrix; memory_cap=0 keeps no graphs between "
            "products; params= takes fewer parameters."
        )
        raise CapacityError(what, "memory for one product", str(error).splitlines()[0].rstrip("."), remedy) from error


def device_memory(device: torch.device) -> int:
    """Bytes of memory of a device, used or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def readable(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 2**20:.3g} MiB"


@cache
def _saved(kind: type) -> tuple[str, ...]:
    """The attributes of a kind of graph node that hold saved tensors."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_") or name == "saved_tensors")


def graph_bytes(outputs: list[Tensor], theta: list[Tensor]) -> int:
    """Bytes of the distinct tensors that a graph keeps alive, the parameters apart."""
    known = {_memory(leaf)[0] for leaf in theta}
    total = sum(output.numel() * output.element_size() for output in outputs)
    for node in _nodes(outputs):
        for name in _saved(type(node)):
            item = getattr(node, name)
            for tensor in item if isinstance(item, tuple | list) else (item,):
                if isinstance(tensor, Tensor) and _memory(tensor)[0] not in known:
                    known.add(_memory(tensor)[0])
                    total += _memory(tensor)[1]
    return total


def graph_steps(outputs: list[Tensor]) -> int:
    """The number of operations of a graph."""
    return sum(1 for _ in _nodes(outputs))


def _nodes(outputs: list[Tensor]) -> Iterator[Node]:
    """Every node of a graph once."""
    seen: set[Any] = set()
    stack = [output.grad_fn for output in outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(following for following, _ in node.next_functions)
            yield node


def _memory(tensor: Tensor) -> tuple[int, int]:
    """An address and a number of bytes; the wrappers that torch.func makes have no storage of their own."""
    try:
        return tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
    except RuntimeError:
        return id(tensor), tensor.nbytes
