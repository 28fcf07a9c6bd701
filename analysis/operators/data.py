"""Batches: what counts as one, how to walk over them, and whether they fit the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import RandomSampler, SequentialSampler

from ..errors import DataError

_REMEDY = "Pass one batch (inputs, target), a list of such batches, or a DataLoader."


class Batches:
    """A re-iterable of ``(inputs, target)`` batches, checked and cast as they come.

    Args:
        data: one batch ``(inputs, target)``, or anything that can be iterated more than once and yields batches.
        dtype: the dtype of the model; floating-point tensors must have it.
        device: the device of the model; all tensors must be on it.
        cast: cast floating-point tensors to ``dtype`` instead of refusing another one.

    """

    def __init__(self, data: Any, dtype: torch.dtype, device: torch.device, cast: bool) -> None:
        if isinstance(data, Iterator):
            remedy = "It can be walked only once: pass list(data), or a DataLoader."
            raise DataError("data", "a batch or a re-iterable of batches", f"a one-shot {type(data).__name__}", remedy)
        if not _is_batch(data) and (isinstance(data, Tensor | Mapping | str) or not isinstance(data, Iterable)):
            raise DataError("data", "a batch or a re-iterable of batches", type(data).__name__, _REMEDY)
        if getattr(data, "persistent_workers", False):
            data = copy.copy(data)
            data._iterator = None  # it has only one iterator, which a training loop may be using
        self.batches: Iterable = [data] if _is_batch(data) else data
        self.dtype, self.device, self.cast = dtype, device, cast

    @property
    def name(self) -> str:
        """What messages call the data."""
        shuffles = isinstance(getattr(self.batches, "sampler", None), RandomSampler)
        return "data (a DataLoader that shuffles)" if shuffles else "data"

    @property
    def steady(self) -> bool:
        """Is every pass known to bring the same examples in the same batches?"""
        sampler = getattr(getattr(self.batches, "batch_sampler", None), "sampler", None)
        return isinstance(self.batches, list | tuple) or isinstance(sampler, SequentialSampler)

    def __len__(self) -> int:
        """Number of batches, 0 where it is not known."""
        try:
            return len(self.batches)  # type: ignore[arg-type]
        except TypeError:
            return 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for index, batch in enumerate(self.batches):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise DataError(f"batch {index}", "a pair (inputs, target)", _describe(batch), _REMEDY)
            inputs, target = batch
            how = (self.dtype, self.device, self.cast)
            yield fit(inputs, f"inputs of batch {index}", *how), fit(target, f"target of batch {index}", *how)


def fit(item: Any, name: str, dtype: torch.dtype, device: torch.device, cast: bool) -> Any:
    """Tensors in any nesting, checked to be on a device and of a dtype, or cast to it."""
    if isinstance(item, Mapping):
        return {key: fit(value, f"{name}[{key!r}]", dtype, device, cast) for key, value in item.items()}
    if isinstance(item, tuple | list):
        parts = [fit(value, f"{name}[{i}]", dtype, device, cast) for i, value in enumerate(item)]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    if not isinstance(item, Tensor):
        return item
    if item.device != device:
        remedy = f"Move the batch with .to({str(device)!r}), or the model to {str(item.device)!r}."
        raise DataError(name, f"device {device}, where the parameters are", str(item.device), remedy)
    if item.is_inference():  # no graph may keep such a tensor
        with torch.inference_mode(False):
            item = item.clone()
    if not item.is_floating_point() or item.dtype == dtype:
        return item.detach()
    if cast:
        return item.detach().to(dtype)
    remedy = f"Cast it with .to({dtype}), or pass dtype={dtype}, which casts copies of model and data."
    raise DataError(name, f"dtype {dtype}, that of the parameters", str(item.dtype), remedy)


def _is_batch(data: Any) -> bool:
    pair = isinstance(data, tuple | list) and len(data) == 2
    return pair and any(isinstance(part, Tensor | Mapping) for part in data)


def _describe(item: Any) -> str:
    return f"{type(item).__name__} of {len(item)}" if isinstance(item, tuple | list) else type(item).__name__


def count(inputs: Any, target: Any, name: str) -> int:
    """Number of examples of a batch: the length of the first tensor of the target, else of the inputs."""
    for item in _tensors(target), _tensors(inputs):
        for tensor in item:
            examples = tensor.shape[0] if tensor.ndim else 1
            if examples == 0:
                remedy = "Drop empty batches before building the operator."
                raise DataError(name, "at least one example", f"shape {tuple(tensor.shape)}", remedy)
            return examples
    return 1


def _tensors(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from _tensors(value)
    elif isinstance(item, tuple | list):
        for value in item:
            yield from _tensors(value)


def call(model: nn.Module | Callable, inputs: Any) -> Any:
    """``model(inputs)``, ``model(*inputs)`` for a tuple or list, ``model(**inputs)`` for a mapping.

    The tensors are copies: a model may work on its inputs in place.
    """
    inputs = tree_map_only(Tensor, Tensor.clone, inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def take(item: Any, chosen: Tensor, examples: int) -> Any:
    """The chosen examples of all tensors in a nesting that have a row for each."""
    if isinstance(item, Mapping):
        return {key: take(value, chosen, examples) for key, value in item.items()}
    if isinstance(item, tuple | list):
        return tuple(take(value, chosen, examples) for value in item)
    if isinstance(item, Tensor) and item.ndim and item.shape[0] == examples:
        return item[chosen.to(item.device)]
    return item
